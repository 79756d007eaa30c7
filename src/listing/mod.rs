//! A listing says what a layer's change, or an import tree, holds: one line for each entry, sorted as its tar will be.
//!
//! Whoever wants to know what is in an image reads listings; nobody walks trees for it.

mod entry;
mod file;
mod line;
mod order;
mod resolve;
mod stack;
mod tree;

pub use entry::{Entry, Kind, Time};
pub use file::{Found, Listing, write};
pub use order::order;
pub(crate) use order::{join, split};
pub use resolve::Resolved;
pub use stack::{Lower, Stack, View};
pub use tree::{apply, tree_digest};

/// The time of everything that nobody gave a time, in seconds since 1970: 2000-01-01T00:00:00Z.
pub const DEFAULT_TIME: i64 = 946_684_800;

/// What the root of an image is when no layer says it: 0755, root's, at the default time.
pub fn scratch_root() -> Entry {
    Entry {
        path: Vec::new(),
        kind: Kind::Directory { opaque: false },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::from_seconds(DEFAULT_TIME),
        xattrs: Default::default(),
    }
}
