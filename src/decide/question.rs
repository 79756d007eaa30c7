//! What the Decider asks of the world, and what it may hear.

use crate::digest::{Chain, ContentDigest, Key, TreeDigest};

use super::Outcome;

/// Something to find out; equal questions are asked once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The newest time in the layers of a base image.
    Newest(Chain),
    /// What lies at a path of a chain, as an import tree.
    Tree {
        /// Where to look.
        chain: Chain,
        /// Absolute path.
        path: String,
    },
    /// What the file at a path of a chain holds.
    Content {
        /// Where to look.
        chain: Chain,
        /// Absolute path.
        path: String,
    },
    /// Where a `dest` import ends up once the links of the base are followed.
    Place {
        /// The base.
        chain: Chain,
        /// `dest` as written.
        dest: String,
        /// Last component of what is imported.
        basename: String,
        /// What is imported.
        kind: SourceKind,
        /// The path was written with a trailing slash.
        contents: bool,
    },
    /// The stored result of a key.
    Result(Key),
}

/// What an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// One file (or link, or pipe).
    File,
    /// A directory.
    Directory,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Seconds since 1970, rounded up.
    Newest(i64),
    /// A tree in a chain.
    Tree {
        /// What it is.
        tree: TreeDigest,
        /// A file or a directory.
        kind: SourceKind,
        /// Path with its links resolved, without a leading slash.
        resolved: Vec<u8>,
    },
    /// A file in a chain.
    Content {
        /// What it holds.
        content: ContentDigest,
        /// Path with its links resolved, without a leading slash.
        resolved: Vec<u8>,
    },
    /// Absolute resolved place.
    Place(String),
    /// `None`: nothing is stored.
    Result(Option<Outcome>),
    /// There is no answer; whoever asked fails. The asker has been told why.
    Nothing,
    /// The same, because what lies there is no file.
    NoFile,
}

impl Answer {
    /// Whoever asked fails.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Answer::Nothing | Answer::NoFile)
    }
}
