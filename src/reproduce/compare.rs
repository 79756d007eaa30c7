//! Two listings of what should be one layer.

use std::cmp::Ordering;

use crate::error::Result;
use crate::listing::{Entry, Kind, Listing, order};
use crate::text::escape;

use super::report::Looks;

/// An entry that is not the same in both; at least one is there.
pub struct Pair {
    /// In the first.
    pub first: Option<Entry>,
    /// In the second.
    pub second: Option<Entry>,
}

impl Pair {
    /// Where it stands, without a leading slash.
    pub fn path(&self) -> &[u8] {
        self.first.as_ref().or(self.second.as_ref()).map_or(b"", |entry| &entry.path)
    }

    fn is_directory(&self) -> bool {
        let of = |entry: &Option<Entry>| entry.as_ref().is_none_or(|it| matches!(it.kind, Kind::Directory { .. }));
        of(&self.first) && of(&self.second)
    }
}

/// The entries that differ, directories last: they are listed for what is in them. `None` is the listing of nothing.
pub fn pairs(first: Option<&Listing>, second: Option<&Listing>) -> Result<Vec<Pair>> {
    let read = |listing: Option<&Listing>| -> Result<Vec<Entry>> {
        listing.map_or(Ok(vec![]), |listing| listing.entries().collect())
    };
    let (mut left, mut right) = (read(first)?.into_iter().peekable(), read(second)?.into_iter().peekable());
    let mut pairs = Vec::new();
    loop {
        let which = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => order(a, b),
        };
        let pair = match which {
            Ordering::Less => Pair { first: left.next(), second: None },
            Ordering::Greater => Pair { first: None, second: right.next() },
            Ordering::Equal => Pair { first: left.next(), second: right.next() },
        };
        if pair.first != pair.second {
            pairs.push(pair);
        }
    }
    pairs.sort_by_key(Pair::is_directory);
    Ok(pairs)
}

/// An entry as a report has it.
pub fn looks(entry: &Entry) -> Looks {
    let (mut size, mut content, mut target) = (None, None, None);
    let kind = match &entry.kind {
        Kind::File { size: bytes, content: digest } => {
            (size, content) = (Some(*bytes), Some(digest.to_string()));
            "file"
        }
        Kind::Directory { .. } => "directory",
        Kind::Symlink { target: text } => {
            target = Some(escape(text));
            "link"
        }
        Kind::HardLink { to } => {
            target = Some(format!("/{}", escape(to)));
            "hard link"
        }
        Kind::Fifo => "fifo",
        Kind::Whiteout => "removed",
    };
    let time = match entry.mtime.nanos {
        0 => entry.mtime.seconds.to_string(),
        nanos => format!("{}.{nanos:09}", entry.mtime.seconds),
    };
    let attributes = entry.xattrs.iter().map(|(name, value)| (escape(name), crate::digest::hex(value))).collect();
    let (kind, mode) = (kind.to_owned(), format!("{:o}", entry.mode));
    Looks { kind, mode, uid: entry.uid, gid: entry.gid, time, size, content, target, attributes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found_and_directories_come_last() {
        let listing = |lines: &str| {
            Listing::from_bytes(format!("stacker listing 1\n% d 755 0 0 1 -\n{lines}").into_bytes()).unwrap()
        };
        let first = listing("a d 755 0 0 1 -\na/same p 644 0 0 1\na/x p 644 0 0 1\nb l 777 0 0 1 x\n");
        let second = listing("a d 755 0 0 2 -\na/same p 644 0 0 1\nb l 777 0 0 1 y\nc p 644 0 0 1\n");
        let names = |first, second| -> Vec<(String, bool, bool)> {
            let pairs = pairs(first, second).unwrap();
            pairs.iter().map(|it| (escape(it.path()), it.first.is_some(), it.second.is_some())).collect()
        };
        let expected = [("a/x", true, false), ("b", true, true), ("c", false, true), ("a", true, true)];
        assert_eq!(names(Some(&first), Some(&second)), expected.map(|(path, a, b)| (path.to_owned(), a, b)));
        assert_eq!(names(Some(&first), Some(&first)), []);
        assert_eq!(names(None, Some(&second)).len(), 5);
        assert_eq!(names(None, None), []);
    }
}
