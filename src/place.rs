//! Where everything lies. Two directories, because two identities write: the main process (`--stacker-dir`) and the
//! workers inside the user namespace (`--roots-dir`).
//!
//! ```text
//! stacker-dir/                 0700, the caller's
//!   stacker.db                 SQLite: an index, not the truth
//!   records/ fresh/            one immutable file for each result (fresh: of this boot, not yet synced)
//!   listings/                  0755: workers read them; sha256-HEX of a layer, tree-HEX of an import
//!   blobs/sha256/              compressed layers; layers, configs and manifests of registries
//!   downloads/                 what is there of blobs that are being fetched
//!   remote/                    copies of files from http(s) servers, and of which URLs they are
//!   logs/                      output of runs
//!   claims/                    one lock file for each action being built
//!   pins/ pins.lock            one file for each running build: what it relies on
//!   damaged/                   what was found damaged, for a look
//!   tmp/
//! roots-dir/                   0700, mapped root's
//!   store.json
//!   deltas/CHAIN12/            a layer's own changes, mostly as overlayfs reads them
//!   trees/CHAIN12/             a whole root filesystem
//!   nurseries/CHAIN12/         on btrfs: where runs on that tree write
//!   drafts/NAME/               upper and work directory of a run, mount points, `job`, what its sandbox shows of ours
//!   imports/NAME/t             staged imports, read-only
//!   trash/
//! ```

use std::path::{Component, Path, PathBuf};

use crate::digest::{BlobDigest, ChainId, DiffId, Key, TreeDigest};

/// The directory of the main process.
#[derive(Clone, Debug)]
pub struct StackerDir(pub PathBuf);

/// The directory of the workers.
#[derive(Clone, Debug)]
pub struct RootsDir(pub PathBuf);

impl StackerDir {
    /// The directories that must exist.
    pub const DIRECTORIES: [&str; 12] = [
        "records",
        "fresh",
        "listings",
        "blobs",
        "blobs/sha256",
        "downloads",
        "remote",
        "logs",
        "claims",
        "pins",
        "damaged",
        "tmp",
    ];

    /// The SQLite file.
    pub fn database(&self) -> PathBuf {
        self.0.join("stacker.db")
    }
    /// The listing of a layer.
    pub fn listing(&self, diff_id: &DiffId) -> PathBuf {
        self.0.join("listings").join(layer_listing(diff_id))
    }
    /// The listing of an import tree.
    pub fn tree_listing(&self, tree: &TreeDigest) -> PathBuf {
        self.0.join("listings").join(format!("tree-{}", tree.hex()))
    }
    /// A compressed layer, or a document of an image at a registry.
    pub fn blob(&self, blob: &BlobDigest) -> PathBuf {
        self.0.join("blobs/sha256").join(blob.hex())
    }
    /// What is there of a blob that is being fetched.
    pub fn download(&self, blob: &BlobDigest) -> PathBuf {
        self.0.join("downloads").join(blob.hex())
    }
    /// Copies of files from servers.
    pub fn remote(&self) -> PathBuf {
        self.0.join("remote")
    }
    /// The output of the run with this key.
    pub fn log(&self, key: &Key) -> PathBuf {
        self.0.join("logs").join(format!("{}.log", key.hex()))
    }
    /// The lock file of an action that is being built.
    pub fn claim(&self, key: &Key) -> PathBuf {
        self.0.join("claims").join(key.hex())
    }
    /// What each running build relies on.
    pub fn pins(&self) -> PathBuf {
        self.0.join("pins")
    }
    /// Files that were found damaged.
    pub fn damaged(&self) -> PathBuf {
        self.0.join("damaged")
    }
    /// For files on their way to their name.
    pub fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }
}

/// The file name of a layer's listing, which workers open beneath the descriptor that they inherit.
pub fn layer_listing(diff_id: &DiffId) -> String {
    format!("sha256-{}", diff_id.hex())
}

impl RootsDir {
    /// The directories that must exist.
    pub const DIRECTORIES: [&str; 6] = ["nurseries", "deltas", "trees", "drafts", "imports", "trash"];

    /// A layer's own changes.
    pub fn delta(&self, chain: &ChainId) -> PathBuf {
        self.0.join(delta(chain))
    }
    /// A whole root filesystem.
    pub fn tree(&self, chain: &ChainId) -> PathBuf {
        self.0.join(tree(chain))
    }
    /// A staged import: the directory that holds `t`.
    pub fn import(&self, name: &str) -> PathBuf {
        self.0.join("imports").join(name)
    }
    /// What names the store.
    pub fn store_json(&self) -> PathBuf {
        self.0.join("store.json")
    }
}

/// `deltas/CHAIN12`, relative to the roots directory.
pub fn delta(chain: &ChainId) -> PathBuf {
    Path::new("deltas").join(chain.short())
}

/// `nurseries/CHAIN12`, relative to the roots directory.
pub fn nursery(chain: &ChainId) -> PathBuf {
    Path::new("nurseries").join(chain.short())
}

/// `trees/CHAIN12`, relative to the roots directory.
pub fn tree(chain: &ChainId) -> PathBuf {
    Path::new("trees").join(chain.short())
}

/// A path without `..`, as long as it leads to the same file: behind links it may not.
pub fn tidy(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if clean.pop() => {}
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    match clean.as_os_str() != path.as_os_str() {
        // What is no longer there is taken at its word.
        true => match (path.canonicalize(), clean.canonicalize()) {
            (Ok(one), Ok(other)) if one != other => path.to_path_buf(),
            _ => clean,
        },
        false => clean,
    }
}
