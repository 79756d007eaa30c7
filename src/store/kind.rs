//! The kinds of store, by name.

use serde::{Deserialize, Serialize};

/// The kinds of store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// Stacks of deltas, on any file system that overlayfs can write to.
    #[default]
    Overlay,
    /// A snapshot for each layer that runs build on.
    Btrfs,
    /// A copy for each run.
    Copy,
}

impl StoreKind {
    /// The kind that [`Display`](std::fmt::Display) writes so.
    pub fn from_word(word: &str) -> Option<StoreKind> {
        [StoreKind::Overlay, StoreKind::Btrfs, StoreKind::Copy].into_iter().find(|kind| kind.to_string() == word)
    }
}

impl std::fmt::Display for StoreKind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            StoreKind::Overlay => "overlay",
            StoreKind::Btrfs => "btrfs",
            StoreKind::Copy => "copy",
        })
    }
}
