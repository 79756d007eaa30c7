//! The layer tar: a pure function of a listing and the contents of its delta.
//!
//! Headers are ustar with numeric owners; PAX records stand only where ustar cannot say a thing. Nothing here depends
//! on the order of a directory, on the clock or on the host.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use super::delta::Delta;
use crate::digest::ContentDigest;
use crate::error::At;
use crate::layer_type::LayerType;
use crate::listing::{Entry, Kind, Listing, Time};
use crate::text::escape;
use crate::{Error, Result};

const BLOCK: usize = 512;
/// What eleven and seven octal digits hold.
const MAX_SIZE: u64 = 0o777_7777_7777;
const MAX_ID: u64 = 0o777_7777;

/// Writes the tar of `listing`, whose files lie in `delta`, and tells its length. A file whose size is not as listed is
/// an error.
pub fn write(listing: &Listing, delta: &Path, out: impl Write) -> Result<u64> {
    let files = Delta::open(delta).at("open", delta)?;
    let mut tar = Tar::new(out);
    for entry in listing.entries() {
        let entry = entry?;
        let failed = |source| Error::Io { doing: "archive", path: super::delta::within(delta, &entry.path), source };
        if entry.xattrs.keys().any(|name| name.contains(&b'=')) {
            let path = escape(&entry.path);
            return Err(Error::Build(format!(
                "/{path}: a layer cannot hold an extended attribute with `=` in its name"
            )));
        }
        tar.entry(&entry, &files).map_err(failed)?;
    }
    tar.end().at("write", "the end of a layer tar")
}

/// What a tar for a file system could not take along, or says beside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The root directory, of which not every program reads in the tar.
    pub root: RootLooks,
    /// `/path: attribute`, of attributes that the file system cannot hold.
    pub lost: Vec<String>,
    /// A file that does not hold what is listed.
    pub damaged: Option<String>,
}

/// Looks of a root directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootLooks {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time, since 1970.
    pub seconds: i64,
}

/// Writes the tar from which a file system of the type `kind` is made. What is removed stands in it as overlayfs marks it
/// for root: a device 0:0, and `trusted.overlay.opaque`. Contents are compared with the listing, since no digest of the
/// whole is known beforehand.
pub fn write_for(kind: LayerType, listing: &Listing, delta: &Path, out: impl Write) -> Result<Told> {
    let files = Delta::open(delta).at("open", delta)?;
    let mut tar = Tar { out, length: 0, buffer: vec![0; 1 << 17], nine_digits: true };
    let mut told = Told::default();
    for entry in listing.entries() {
        let entry = for_overlay(entry?, kind, &mut told);
        let failed = |source| Error::Io { doing: "archive", path: super::delta::within(delta, &entry.path), source };
        // mksquashfs ignores it, and says so as of an error.
        if entry.path.is_empty() && kind == LayerType::Squashfs {
            continue;
        }
        if let Kind::File { size, content } = entry.kind {
            tar.file(&entry, size, content, &files, &mut told).map_err(failed)?;
        } else if entry.kind == Kind::Whiteout {
            tar.device(&entry).map_err(failed)?;
        } else {
            tar.entry(&entry, &files).map_err(failed)?;
        }
    }
    tar.put(&[0; 2 * BLOCK]).and_then(|()| tar.out.flush()).at("write", "the end of a layer tar")?;
    Ok(told)
}

/// An entry as a file system can have it, and overlayfs wants it.
fn for_overlay(mut entry: Entry, kind: LayerType, told: &mut Told) -> Entry {
    let seconds = entry.mtime.seconds.clamp(0, u32::MAX.into());
    if seconds != entry.mtime.seconds || kind == LayerType::Squashfs {
        entry.mtime = Time::from_seconds(seconds);
    }
    let path = escape(&entry.path);
    // `=` ends the name in a tar.
    entry.xattrs.retain(|name, _| {
        let held = kind.holds_attribute(name) && !name.contains(&b'=');
        if !held {
            told.lost.push(format!("/{path}: {}", escape(name)));
        }
        held
    });
    if let Kind::Directory { opaque } = &mut entry.kind
        && std::mem::take(opaque)
    {
        entry.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    }
    if entry.path.is_empty() {
        told.root = RootLooks { mode: entry.mode, uid: entry.uid, gid: entry.gid, seconds };
        if kind == LayerType::Squashfs {
            told.lost.extend(entry.xattrs.keys().map(|name| format!("/: {}", escape(name))));
        }
    }
    entry
}

pub(super) struct Tar<W> {
    out: W,
    length: u64,
    buffer: Vec<u8>,
    /// Fractions of seconds end in zeros: mkfs.erofs takes the digits that there are for nanoseconds.
    nine_digits: bool,
}

/// Hashes what it reads.
struct Hashing<R>(R, blake3::Hasher);

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.update(&buffer[..count]);
        Ok(count)
    }
}

/// What a header and its PAX records say.
struct Member<'a> {
    path: Vec<u8>,
    link: &'a [u8],
    kind: EntryType,
    size: u64,
    entry: &'a Entry,
}

impl<W: Write> Tar<W> {
    pub(super) fn new(out: W) -> Tar<W> {
        Tar { out, length: 0, buffer: vec![0; 1 << 17], nine_digits: false }
    }

    /// Its length.
    pub(super) fn end(&mut self) -> io::Result<u64> {
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.length)
    }

    fn file(
        &mut self,
        entry: &Entry,
        size: u64,
        content: ContentDigest,
        files: &Delta,
        told: &mut Told,
    ) -> io::Result<()> {
        self.file_header(entry, size)?;
        let mut file = Hashing(files.file(&entry.path)?, blake3::Hasher::new());
        self.content(&mut file, size)?;
        if file.1.finalize().as_bytes() != &content.0 {
            told.damaged = Some(escape(&entry.path));
        }
        Ok(())
    }

    /// A character device 0:0 in the place of what is removed.
    fn device(&mut self, of: &Entry) -> io::Result<()> {
        let plain = Entry { mode: 0, uid: 0, gid: 0, xattrs: BTreeMap::new(), ..of.clone() };
        let path = of.path.clone();
        self.header(&Member { path, link: b"", kind: EntryType::Char, size: 0, entry: &plain })
    }

    fn entry(&mut self, entry: &Entry, files: &Delta) -> io::Result<()> {
        self.node(entry)?;
        match &entry.kind {
            Kind::File { size, .. } => self.content(files.file(&entry.path)?, *size),
            _ => Ok(()),
        }
    }

    fn file_header(&mut self, entry: &Entry, size: u64) -> io::Result<()> {
        self.header(&Member { path: entry.path.clone(), link: b"", kind: EntryType::Regular, size, entry })
    }

    /// All of an entry but a file's content.
    pub(super) fn node(&mut self, entry: &Entry) -> io::Result<()> {
        let member = |path, kind, link, size| Member { path, link, kind, size, entry };
        let path = entry.path.clone();
        match &entry.kind {
            Kind::File { size, .. } => self.file_header(entry, *size),
            Kind::Directory { opaque } => {
                let path = if path.is_empty() { b"./".to_vec() } else { [&path, &b"/"[..]].concat() };
                self.header(&member(path, EntryType::Directory, b"", 0))?;
                if *opaque { self.mark(entry, &entry.path, b".wh..wh..opq") } else { Ok(()) }
            }
            Kind::Symlink { target } => self.header(&member(path, EntryType::Symlink, target, 0)),
            Kind::HardLink { to } => self.header(&member(path, EntryType::Link, to, 0)),
            Kind::Fifo => self.header(&member(path, EntryType::Fifo, b"", 0)),
            Kind::Whiteout => {
                let (directory, name) = crate::listing::split(&entry.path);
                self.mark(entry, directory, &[b".wh.", name].concat())
            }
        }
    }

    /// An empty file that means something: `.wh.NAME` or `.wh..wh..opq`.
    fn mark(&mut self, of: &Entry, directory: &[u8], name: &[u8]) -> io::Result<()> {
        let plain = Entry { mode: 0, uid: 0, gid: 0, xattrs: BTreeMap::new(), ..of.clone() };
        let path = crate::listing::join(directory, name);
        self.header(&Member { path, link: b"", kind: EntryType::Regular, size: 0, entry: &plain })
    }

    fn header(&mut self, member: &Member) -> io::Result<()> {
        let Member { path, link, kind, size, entry } = member;
        let mut records = BTreeMap::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(entry.mode);
        if *kind == EntryType::Char {
            header.set_device_major(0)?;
            header.set_device_minor(0)?;
        }
        set_names(&mut header, path, link, &mut records);
        let mut number = |name: &str, value: u64, limit: u64| {
            if value > limit {
                records.insert(name.as_bytes().to_vec(), value.to_string().into_bytes());
            }
            if value > limit { 0 } else { value }
        };
        header.set_size(number("size", *size, MAX_SIZE));
        header.set_uid(number("uid", entry.uid.into(), MAX_ID));
        header.set_gid(number("gid", entry.gid.into(), MAX_ID));
        header.set_mtime((entry.mtime.seconds.max(0) as u64).min(MAX_SIZE));
        let Time { seconds, nanos } = entry.mtime;
        if nanos != 0 || seconds < 0 || seconds as u64 > MAX_SIZE {
            let text = match self.nine_digits {
                true => format!("{seconds}.{nanos:09}"),
                false => decimal(entry.mtime),
            };
            records.insert(b"mtime".to_vec(), text.into_bytes());
        }
        // The attributes of a hard link are its file's, which stands before it.
        for (name, value) in entry.xattrs.iter().filter(|_| *kind != EntryType::Link) {
            records.insert([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
        }
        if !records.is_empty() {
            self.records(&records)?;
        }
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn records(&mut self, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
        let body: Vec<u8> = records.iter().flat_map(|(name, value)| record(name, value)).collect();
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        set_names(&mut header, b"././@PaxHeader", b"", &mut BTreeMap::new());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(body.len() as u64);
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(&body)?;
        self.pad(body.len() as u64)
    }

    fn content(&mut self, mut file: impl Read, size: u64) -> io::Result<()> {
        let changed = || io::Error::other("its size is not as it was listed");
        let mut left = size;
        let mut buffer = std::mem::take(&mut self.buffer);
        while left > 0 {
            let wanted = buffer.len().min(left.try_into().unwrap_or(usize::MAX));
            let read = file.read(&mut buffer[..wanted])?;
            if read == 0 {
                return Err(changed());
            }
            self.put(&buffer[..read])?;
            left -= read as u64;
        }
        if file.read(&mut buffer[..1])? != 0 {
            return Err(changed());
        }
        self.buffer = buffer;
        self.pad(size)
    }

    /// So many bytes of content have passed beside it.
    pub(super) fn passed(&mut self, size: u64) {
        self.length += size;
    }

    pub(super) fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = size as usize % BLOCK;
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Path and link text, in the header's fields where they fit, else in records (and a shortened form in the header).
fn set_names(header: &mut Header, path: &[u8], link: &[u8], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let ustar = header.as_ustar_mut().expect("made as ustar");
    match fitting(path) {
        Some((prefix, name)) => {
            ustar.name[..name.len()].copy_from_slice(name);
            ustar.prefix[..prefix.len()].copy_from_slice(prefix);
        }
        None => {
            records.insert(b"path".to_vec(), path.to_vec());
            shorten(path, &mut ustar.name);
        }
    }
    if link.len() <= ustar.linkname.len() && link.is_ascii() {
        ustar.linkname[..link.len()].copy_from_slice(link);
    } else {
        records.insert(b"linkpath".to_vec(), link.to_vec());
        shorten(link, &mut ustar.linkname);
    }
}

/// Splits a path into ustar's prefix (155 bytes) and name (100 bytes), if it can be.
fn fitting(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The first slash that leaves a short enough name; a name is never empty, so not the one that ends a directory.
    let from = path.len().saturating_sub(101);
    let slash = from + path[from..path.len() - 1].iter().position(|&byte| byte == b'/')?;
    (1..=155).contains(&slash).then(|| (&path[..slash], &path[slash + 1..]))
}

fn shorten(text: &[u8], field: &mut [u8; 100]) {
    for (to, &from) in field.iter_mut().zip(text) {
        *to = if from.is_ascii() { from } else { b'_' };
    }
}

/// `LENGTH name=value\n`, where the length counts its own digits.
fn record(name: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    [length.to_string().as_bytes(), b" ", name, b"=", value, b"\n"].concat()
}

/// Seconds with a fraction where there is one; times before 1970 count downwards in PAX.
fn decimal(time: Time) -> String {
    let Time { seconds, nanos } = time;
    if nanos == 0 {
        return seconds.to_string();
    }
    let (sign, whole, nanos) =
        if seconds < 0 { ("-", -(seconds + 1), 1_000_000_000 - nanos) } else { ("", seconds, nanos) };
    format!("{sign}{whole}.{nanos:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_downwards() {
        let cases = [(-1, 5, "-0.999999995"), (-2, 0, "-2"), (3, 500_000_000, "3.5"), (-2, 500_000_000, "-1.5")];
        for (seconds, nanos, text) in cases {
            assert_eq!(decimal(Time { seconds, nanos }), text);
        }
    }

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record(b"path", b"abc"), b"12 path=abc\n");
        for length in 80..1100 {
            let record = record(b"k", &vec![b'v'; length]);
            let blank = record.iter().position(|&byte| byte == b' ').unwrap();
            assert_eq!(String::from_utf8_lossy(&record[..blank]), record.len().to_string());
        }
    }
}
