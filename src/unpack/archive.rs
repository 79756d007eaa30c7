//! Reading the members of a tar: ustar, PAX, GNU long names and both kinds of sparse files.
//!
//! Our own on top of the tar crate's header, because that crate splits PAX records at line feeds, and values (names,
//! file capabilities) may hold some. Knows nothing of directories or whiteouts.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::Header;

use super::pax::{self, Records};
use super::sparse::{self, Segment};
use crate::listing::Time;

pub(super) const BLOCK: usize = 512;
/// No name or set of records is larger in an archive that means well.
const LONGEST: u64 = 1 << 20;

/// What ext4 can keep as time, in seconds since 1970.
pub(super) const OLDEST: i64 = -(1 << 31);
pub(super) const NEWEST: i64 = (1 << 34) - (1 << 31) - 1;

/// Records for all members are copied for each of them.
const MOST_GLOBALS: usize = 1 << 16;

/// One member, its records applied.
#[derive(Debug)]
pub(super) struct Member {
    /// As written.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// The type letter of the header: `0` for every plain file.
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: Time,
    /// Of the file, holes included.
    pub size: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the stored bytes belong, for a sparse file.
    pub sparse: Option<Vec<Segment>>,
}

/// A tar being read.
pub(super) struct Archive<R> {
    reader: R,
    /// Stored bytes of the current member that were not read, and the padding after them.
    left: u64,
    padding: u64,
    globals: Records,
    /// The archive ended at the end of a member, without the two blocks of zeros.
    pub unmarked: bool,
}

impl<R: Read> Archive<R> {
    pub fn new(reader: R) -> Archive<R> {
        Archive { reader, left: 0, padding: 0, globals: Records::default(), unmarked: false }
    }

    /// The next member; what is left of the current one is skipped. At the end the reader is drained.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        let (mut records, mut long_name, mut long_link) = (Records::default(), None, None);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                if !records.is_empty() || long_name.is_some() || long_link.is_some() {
                    return Err(invalid("a name or a record without its member"));
                }
                return Ok(None);
            };
            let size = header.entry_size()?;
            match header.entry_type().as_byte() {
                b'x' => records = Records::parse(&self.body(size)?)?,
                b'g' => {
                    let body = self.body(size)?;
                    self.globals.update(Records::parse(&body)?);
                    if self.globals.size() > MOST_GLOBALS {
                        return Err(invalid("records for all members that are too long"));
                    }
                }
                b'L' => long_name = Some(text(self.body(size)?)),
                b'K' => long_link = Some(text(self.body(size)?)),
                _ => return self.member(&header, records, long_name, long_link).map(Some),
            }
        }
    }

    /// Stored bytes of the current member.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(self.left.try_into().unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.reader.read(&mut buffer[..wanted])?;
        self.left -= read as u64;
        if read == 0 { Err(ended()) } else { Ok(read) }
    }

    fn member(
        &mut self,
        header: &Header,
        local: Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Member> {
        let mut records = self.globals.clone();
        records.update(local);
        let path = long_name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = long_link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let mut member = Member {
            path: records.value("path").map_or(path, <[u8]>::to_vec),
            link: records.value("linkpath").map_or(link, <[u8]>::to_vec),
            kind: header.entry_type().as_byte(),
            mode: header.mode()? & 0o7777,
            uid: records.number("uid")?.map_or_else(|| header.uid(), Ok)?,
            gid: records.number("gid")?.map_or_else(|| header.gid(), Ok)?,
            mtime: possible(match records.value("mtime") {
                Some(text) => pax::time(text)?,
                // Binary numbers may be negative.
                None => Time::from_seconds(header.mtime()? as i64),
            }),
            size: records.number("size")?.map_or_else(|| header.entry_size(), Ok)?,
            xattrs: records.xattrs(),
            sparse: None,
        };
        self.classify(header, &records, &mut member)?;
        Ok(member)
    }

    /// Sorts out what old and sparse members mean, and sets how many bytes are stored.
    fn classify(&mut self, header: &Header, records: &Records, member: &mut Member) -> io::Result<()> {
        let directory = member.path.ends_with(b"/");
        member.kind = match member.kind {
            0 | b'0' | b'7' if directory => b'5',
            0 | b'7' => b'0',
            kind => kind,
        };
        // Links, directories and the like have no content, whatever their size field says.
        if matches!(member.kind, b'1'..=b'6') {
            member.size = 0;
        }
        self.left = member.size;
        self.padding = (BLOCK as u64 - member.size % BLOCK as u64) % BLOCK as u64;
        if member.kind == b'S' {
            let stored = self.left;
            (self.left, self.padding) = (0, 0);
            let (segments, size) = sparse::gnu(header, || self.block())?;
            (self.left, self.padding) = (stored, (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64);
            (member.kind, member.size, member.sparse) = (b'0', size, Some(segments));
        } else if member.kind == b'0' && records.is_sparse() {
            if let Some(name) = records.value("GNU.sparse.name") {
                member.path = name.to_vec();
            }
            let size = records.number("GNU.sparse.realsize")?.or(records.number("GNU.sparse.size")?);
            let segments = match records.sparse_map()? {
                Some(segments) => segments,
                None => sparse::leading_map(|| self.stored_block())?,
            };
            member.size = size.ok_or_else(|| invalid("a sparse file without its size"))?;
            member.sparse = Some(segments);
        }
        match &member.sparse {
            Some(segments) => sparse::check(segments, self.left, member.size),
            None => Ok(()),
        }
    }

    fn skip(&mut self) -> io::Result<()> {
        let wanted = self.left.checked_add(self.padding).ok_or_else(|| invalid("an impossible size"))?;
        let skipped = io::copy(&mut (&mut self.reader).take(wanted), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == wanted { Ok(()) } else { Err(ended()) }
    }

    /// The next header; `None` at the end of the archive, with everything after it read.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..])? {
                0 if filled == 0 => {
                    self.unmarked = true;
                    return Ok(None);
                }
                0 => return Err(ended()),
                read => filled += read,
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            // Whoever checks a digest of the whole file wants all of it read.
            io::copy(&mut self.reader, &mut io::sink())?;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum = |range: &[u8]| range.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        let expected = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
        if header.cksum().ok() != Some(expected) {
            return Err(invalid("this is no tar, or a damaged one: a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn body(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > LONGEST {
            return Err(invalid("a name or a record that is too long"));
        }
        let mut body = vec![0; size as usize];
        self.reader.read_exact(&mut body)?;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(body)
    }

    fn block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.reader.read_exact(&mut block)?;
        Ok(block)
    }

    fn stored_block(&mut self) -> io::Result<[u8; BLOCK]> {
        self.left = self.left.checked_sub(BLOCK as u64).ok_or_else(|| invalid("a sparse file without its map"))?;
        self.block()
    }
}

/// The nearest time that ext4 can keep, so that a layer has the same times on every file system.
fn possible(time: Time) -> Time {
    if (OLDEST..=NEWEST).contains(&time.seconds) {
        return time;
    }
    Time::from_seconds(time.seconds.clamp(OLDEST, NEWEST))
}

/// GNU's long names end in a zero byte.
fn text(mut body: Vec<u8>) -> Vec<u8> {
    let end = body.iter().position(|&byte| byte == 0).unwrap_or(body.len());
    body.truncate(end);
    body
}

pub(super) fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a member")
}
