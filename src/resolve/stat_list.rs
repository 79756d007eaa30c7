//! The stat list of a tree: what each file's content was when it was read, and how to tell that it still is.
//!
//! ```text
//! "stacker stat list 2\n"
//! tree digest      32 bytes
//! records, in listing order, until the checksum:
//!   kind           1 byte: d directory, l symbolic link, f file
//!   path length    4 bytes; path relative to the root, whose own is empty
//!   l only:        target length, 4 bytes; target
//!   d and f only:  mode 2, as it is in the tree digest
//!   f only:        size 8, inode 8, mtime 12, ctime 12, moment 12, blake3 of the content 32
//! checksum         32 bytes: blake3 of all before it
//! ```
//! Numbers are little-endian; a time is signed seconds (8) and nanoseconds (4). The moment is the file system's clock
//! before the file was opened for reading. A list that is not exactly this says nothing.

use std::cell::OnceCell;
use std::collections::HashMap;

use crate::digest::{ContentDigest, TreeDigest};
use crate::listing::{Entry, Kind, Time};
use crate::stamp::Stamp;

const FIRST_LINE: &[u8] = b"stacker stat list 2\n";

/// One entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub path: &'a [u8],
    pub what: What<'a>,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    Directory { mode: u32 },
    Symlink { target: &'a [u8] },
    File { mode: u32, stamp: Stamp, moment: Time, content: ContentDigest },
}

impl Record<'_> {
    /// As an import has it.
    pub fn entry(&self) -> Entry {
        let (mode, kind) = match self.what {
            What::Directory { mode } => (mode, Kind::Directory { opaque: false }),
            What::Symlink { target } => (0o777, Kind::Symlink { target: target.to_vec() }),
            What::File { mode, stamp, content, .. } => (mode, Kind::File { size: stamp.size, content }),
        };
        let (mtime, xattrs) = (Time::default(), Default::default());
        Entry { path: self.path.to_vec(), kind, mode, uid: 0, gid: 0, mtime, xattrs }
    }

    /// Whether any later write would have left another stamp: the stamp was old when the file was opened.
    pub fn is_settled(&self) -> bool {
        match self.what {
            What::File { stamp, moment, .. } => stamp.is_settled(moment),
            What::Directory { .. } | What::Symlink { .. } => true,
        }
    }

    /// Whether keeping this one instead of `old` spares or corrects anything later.
    pub fn improves_on(&self, old: &Record) -> bool {
        let mut same = *old;
        if let (What::File { moment, .. }, What::File { moment: newer, .. }) = (&mut same.what, self.what) {
            *moment = newer;
        }
        *self != same || self.is_settled() && !old.is_settled()
    }
}

/// An old list, searched in the order in which it was written, mostly.
pub(super) struct Known<'a> {
    digest: Option<TreeDigest>,
    records: Vec<Record<'a>>,
    by_path: OnceCell<HashMap<&'a [u8], usize>>,
    next: usize,
}

impl<'a> Known<'a> {
    /// Nothing is known of a list that is damaged or of another version.
    pub fn read(list: Option<&'a [u8]>) -> Known<'a> {
        let (digest, records) = match list.and_then(decode) {
            Some((digest, records)) => (Some(digest), records),
            None => (None, vec![]),
        };
        Known { digest, records, by_path: OnceCell::new(), next: 0 }
    }

    pub fn digest(&self) -> Option<TreeDigest> {
        self.digest
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// What the list says of a path; quick when paths are asked for in order and few are new or gone.
    pub fn find(&mut self, path: &[u8]) -> Option<Record<'a>> {
        let records = &self.records;
        let index = match records.get(self.next) {
            Some(record) if record.path == path => self.next,
            _ => {
                let pairs = || records.iter().enumerate().map(|(index, record)| (record.path, index)).collect();
                *self.by_path.get_or_init(pairs).get(path)?
            }
        };
        self.next = index + 1;
        records.get(index).copied()
    }
}

/// The entries of a list.
pub(super) fn entries(list: &[u8]) -> Option<Vec<Entry>> {
    Some(decode(list)?.1.iter().map(Record::entry).collect())
}

/// Writes a list.
pub(super) fn encode(digest: &TreeDigest, records: &[Record]) -> Vec<u8> {
    let mut list = Vec::with_capacity(records.len() * 140 + 100);
    list.extend_from_slice(FIRST_LINE);
    list.extend_from_slice(&digest.0);
    for record in records {
        encode_record(record, &mut list);
    }
    let checksum = blake3::hash(&list);
    list.extend_from_slice(checksum.as_bytes());
    list
}

fn encode_record(record: &Record, list: &mut Vec<u8>) {
    list.push(match record.what {
        What::Directory { .. } => b'd',
        What::Symlink { .. } => b'l',
        What::File { .. } => b'f',
    });
    encode_bytes(record.path, list);
    match record.what {
        What::Directory { mode } => encode_mode(mode, list),
        What::Symlink { target } => encode_bytes(target, list),
        What::File { mode, stamp, moment, content } => {
            encode_mode(mode, list);
            list.extend_from_slice(&stamp.size.to_le_bytes());
            list.extend_from_slice(&stamp.inode.to_le_bytes());
            for time in [stamp.mtime, stamp.ctime, moment] {
                list.extend_from_slice(&time.seconds.to_le_bytes());
                list.extend_from_slice(&time.nanos.to_le_bytes());
            }
            list.extend_from_slice(&content.0);
        }
    }
}

/// Permission bits fit.
fn encode_mode(mode: u32, list: &mut Vec<u8>) {
    list.extend_from_slice(&(mode as u16).to_le_bytes());
}

/// Paths and link texts are bounded by PATH_MAX at each step, so that their lengths fit.
fn encode_bytes(bytes: &[u8], list: &mut Vec<u8>) {
    list.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    list.extend_from_slice(bytes);
}

fn decode(list: &[u8]) -> Option<(TreeDigest, Vec<Record<'_>>)> {
    let (body, checksum) = list.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let mut rest = Reader(body.strip_prefix(FIRST_LINE)?);
    let digest = TreeDigest(rest.array()?);
    let mut records = Vec::with_capacity(rest.0.len() / 100);
    while !rest.0.is_empty() {
        records.push(rest.record()?);
    }
    // Every tree has a root.
    records.first().is_some_and(|root| root.path.is_empty()).then_some((digest, records))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    /// Nobody but us writes lists, but a listing takes no other bits.
    fn mode(&mut self) -> Option<u32> {
        Some(u16::from_le_bytes(self.array()?).into()).filter(|mode| *mode <= 0o7777)
    }

    fn time(&mut self) -> Option<Time> {
        Some(Time { seconds: i64::from_le_bytes(self.array()?), nanos: u32::from_le_bytes(self.array()?) })
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let [kind] = self.array()?;
        let path = self.bytes()?;
        let what = match kind {
            b'd' => What::Directory { mode: self.mode()? },
            b'l' => What::Symlink { target: self.bytes()? },
            b'f' => {
                let mode = self.mode()?;
                let (size, inode) = (self.number()?, self.number()?);
                let stamp = Stamp { size, inode, mtime: self.time()?, ctime: self.time()? };
                let moment = self.time()?;
                What::File { mode, stamp, moment, content: ContentDigest(self.array()?) }
            }
            _ => return None,
        };
        Some(Record { path, what })
    }
}
