//! One line of a listing as data.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::digest::ContentDigest;

/// A moment: seconds since 1970 (may be negative) and nanoseconds (0..1,000,000,000) after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanos: u32,
}

impl Time {
    /// A whole second.
    pub const fn from_seconds(seconds: i64) -> Time {
        Time { seconds, nanos: 0 }
    }

    /// The first whole second that is not earlier.
    pub fn rounded_up(self) -> i64 {
        self.seconds + i64::from(self.nanos > 0)
    }
}

/// One name in a layer's change or in an import tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bytes, without a leading slash; the root itself is empty. A whiteout carries the name that it removes.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0..=0o7777. Zero for a whiteout; a hard link repeats its file's.
    pub mode: u32,
    /// Owner, as inside the image.
    pub uid: u32,
    /// Group, as inside the image.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes by full name (`user.x`, `security.capability`), never overlayfs's own.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: the first name, in listing order, of its hard-link group.
    File {
        /// Bytes.
        size: u64,
        /// blake3 of the content.
        content: ContentDigest,
    },
    /// A directory; opaque when nothing of the layers beneath shows through.
    Directory {
        /// Hides everything beneath.
        opaque: bool,
    },
    /// A symbolic link with its text.
    Symlink {
        /// The text, not resolved.
        target: Vec<u8>,
    },
    /// A further name of a file (or fifo) that stands earlier in the same listing.
    HardLink {
        /// Path of the first name.
        to: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// The name is removed from the layers beneath.
    Whiteout,
}
