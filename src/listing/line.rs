//! One line of a listing as text.
//!
//! ```text
//! PATH TYPE MODE UID GID MTIME [what the kind has] [XATTR=HEX ...]
//! usr/bin/x f 755 0 0 946684800 1234 BLAKE3     a file: size and content
//! usr d 755 0 0 946684800.000000001 -           a directory: `opaque` or `-`
//! bin l 777 0 0 946684800 usr/bin               a symbolic link: its text
//! usr/bin/y h 755 0 0 946684800 usr/bin/x       a further name of a file
//! run/p p 600 0 0 946684800                     a fifo
//! etc/old w 0 0 0 946684800                     a whiteout
//! ```
//! Paths, link texts and names of attributes are escaped words.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::order::Place;
use super::{Entry, Kind, Time};
use crate::digest::hex;
use crate::text::{escape, unescape};

/// Whether lines carry times; tree digests do not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    Written,
    Omitted,
}

/// Appends the line of `entry`, with its line feed.
pub(super) fn encode(entry: &Entry, times: Times, out: &mut String) {
    let Entry { path, kind, mode, uid, gid, mtime, xattrs } = entry;
    let letter = match kind {
        Kind::File { .. } => 'f',
        Kind::Directory { .. } => 'd',
        Kind::Symlink { .. } => 'l',
        Kind::HardLink { .. } => 'h',
        Kind::Fifo => 'p',
        Kind::Whiteout => 'w',
    };
    // Writing to a String cannot fail.
    let _ = write!(out, "{} {letter} {mode:o} {uid} {gid} ", escape(path));
    match times {
        Times::Omitted => out.push('-'),
        Times::Written => {
            let _ = write!(out, "{}", mtime.seconds);
            if mtime.nanos != 0 {
                let _ = write!(out, ".{:09}", mtime.nanos);
            }
        }
    }
    let _ = match kind {
        Kind::File { size, content } => write!(out, " {size} {content}"),
        Kind::Directory { opaque } => write!(out, " {}", if *opaque { "opaque" } else { "-" }),
        Kind::Symlink { target: text } | Kind::HardLink { to: text } => write!(out, " {}", escape(text)),
        Kind::Fifo | Kind::Whiteout => Ok(()),
    };
    for (name, value) in xattrs {
        let _ = write!(out, " {}={}", escape(name), hex(value));
    }
    out.push('\n');
}

/// The place of a line in the order, without reading the rest of it; the path is unescaped into `buffer`.
pub(super) fn place<'b>(line: &[u8], buffer: &'b mut Vec<u8>) -> Option<Place<'b>> {
    let blank = line.iter().position(|&byte| byte == b' ')?;
    let word = &line[..blank];
    buffer.clear();
    if word.contains(&b'%') {
        *buffer = unescape(word)?;
    } else {
        buffer.extend_from_slice(word);
    }
    Some(Place { path: buffer, whiteout: line.get(blank + 1) == Some(&b'w') })
}

/// Reads a line without its line feed; `None` for what [`encode`] never writes.
pub(super) fn decode(line: &[u8]) -> Option<Entry> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let mut next = || words.next();
    let path = unescape(next()?.as_bytes())?;
    let letter = next()?;
    let mode = u32::from_str_radix(next()?, 8).ok().filter(|&mode| mode <= 0o7777)?;
    let uid = next()?.parse().ok()?;
    let gid = next()?.parse().ok()?;
    let mtime = time(next()?)?;
    let kind = match letter {
        "f" => Kind::File { size: next()?.parse().ok()?, content: next()?.parse().ok()? },
        "d" => Kind::Directory { opaque: opaque(next()?)? },
        "l" => Kind::Symlink { target: unescape(next()?.as_bytes())? },
        "h" => Kind::HardLink { to: unescape(next()?.as_bytes())? },
        "p" => Kind::Fifo,
        "w" => Kind::Whiteout,
        _ => return None,
    };
    let xattrs = words.map(xattr).collect::<Option<BTreeMap<_, _>>>()?;
    Some(Entry { path, kind, mode, uid, gid, mtime, xattrs })
}

fn opaque(word: &str) -> Option<bool> {
    match word {
        "opaque" => Some(true),
        "-" => Some(false),
        _ => None,
    }
}

fn time(word: &str) -> Option<Time> {
    let (seconds, nanos) = match word.split_once('.') {
        Some((seconds, nanos)) if nanos.len() == 9 => (seconds, nanos.parse().ok()?),
        Some(_) => return None,
        None => (word, 0),
    };
    Some(Time { seconds: seconds.parse().ok()?, nanos })
}

fn xattr(word: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name, value) = word.rsplit_once('=')?;
    let digits = value.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let value =
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect::<Option<_>>()?;
    Some((unescape(name.as_bytes())?, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentDigest;

    fn entry(path: &[u8], kind: Kind) -> Entry {
        let mtime = Time { seconds: -3, nanos: 5 };
        let xattrs = BTreeMap::from([(b"user.a=b \n".to_vec(), vec![0, 255, 10]), (b"user.empty".to_vec(), vec![])]);
        Entry { path: path.to_vec(), kind, mode: 0o4755, uid: 65535, gid: 1, mtime, xattrs }
    }

    #[test]
    fn every_kind_reads_back() {
        let kinds = [
            Kind::File { size: u64::MAX, content: ContentDigest([7; 32]) },
            Kind::Directory { opaque: true },
            Kind::Directory { opaque: false },
            Kind::Symlink { target: b"../a b\xff".to_vec() },
            Kind::HardLink { to: b"%\n".to_vec() },
            Kind::Fifo,
            Kind::Whiteout,
        ];
        for kind in kinds {
            let entry = entry(b"odd \xff\n%name", kind);
            let mut text = String::new();
            encode(&entry, Times::Written, &mut text);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert_eq!(decode(text.trim_end_matches('\n').as_bytes()), Some(entry), "{text:?}");
        }
    }

    #[test]
    fn nonsense_is_no_entry() {
        let lines =
            ["", "a", "a f 755 0 0 1", "a d 999 0 0 1 -", "a d 755 0 0 1.5 -", "a q 755 0 0 1", "a p 755 0 0 1 x"];
        for line in lines {
            assert_eq!(decode(line.as_bytes()), None, "{line:?}");
        }
    }
}
