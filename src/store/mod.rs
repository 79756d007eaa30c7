//! The snapshot store: where the data of layers lies beneath the roots directory, and what a run is mounted on.
//!
//! A base is the nearest tree with the deltas stacked above it; the kinds of store differ in when a tree is made, of
//! what, and where a run writes. One read path, [`SnapshotStore::lowers`], serves runs and copies out of layers.
//!
//! Paths are relative to the roots directory, which is a worker's working directory; the main process asks with a
//! function that looks there.

pub mod boot;
mod btrfs;
mod copy;
mod identity;
pub mod kind;
mod merge;
mod overlay;
pub mod trash;

use std::io;
use std::path::{Path, PathBuf};

use crate::commit_point::CommitPoint;
use crate::digest::{Chain, ChainId, DiffId};
use crate::listing::Listing;
use crate::place::{RootsDir, delta, tree};
use crate::seal::Form;
use crate::worker::message::Failure;

pub use btrfs::is_btrfs;
pub use identity::{Identity, Known, is_damaged, open as open_identity};
pub use kind::StoreKind;
pub use merge::{copy, like};

/// So many deltas are stacked before a tree is made beneath the next: their names fit into the one page that mount(2)
/// takes, with room for the skeleton.
pub const MAX_DELTAS: usize = 60;

/// What a layer's files are collected for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// A run, or a look, on this base: the draft becomes the upper of an overlay mount, or the root filesystem itself.
    Run(&'a Chain),
    /// The upper of a failed run on this base is moved into it.
    Reopen(&'a Chain),
    /// A layer unpacked onto `parent`, which is not mounted.
    Unpack(&'a Chain),
    /// A staged import is renamed into it.
    Import,
}

/// A kind of store. All but `lowers` and `needs_tree` are for workers; each change is there at once or not at all, and
/// who makes what another one has made meanwhile keeps the other's.
pub trait SnapshotStore: Sync {
    /// What the upper of a run holds. Deltas hold a layer's own changes, with the same marks.
    fn form(&self) -> Form;

    /// The directories that hold a chain, topmost first. The deltas that it needs must be there; `exists` looks for
    /// trees. Costs a look for each layer at most.
    fn lowers(&self, chain: &Chain, exists: &dyn Fn(&Path) -> bool) -> Vec<PathBuf>;

    /// The part of a chain that must become a tree before a run (or, if not `for_run`, a copy) can be mounted on it, the
    /// lowest first; `None` when there is nothing left to do.
    fn needs_tree(&self, chain: &Chain, for_run: bool, exists: &dyn Fn(&Path) -> bool) -> Option<Chain>;

    /// Makes `drafts/NAME` with a directory `u`: empty, or where the form of runs is a whole root filesystem and the draft
    /// is for a run, a copy of its base. It is on the same file system as everything else, and for an
    /// import in the same subvolume as `imports`.
    fn new_draft(&self, name: &str, purpose: Purpose) -> Result<PathBuf, Failure>;

    /// Makes the sealed `u` of a draft the delta on top of `parent`; the draft goes with the job. `listing` is the delta's.
    fn keep_delta(&self, draft: &Path, parent: ChainId, diff_id: DiffId, listing: &Listing) -> Result<(), Failure>;

    /// Makes the tree of a chain. Its cost follows the deltas above the nearest tree.
    fn make_tree(&self, chain: &Chain) -> Result<(), Failure>;
}

/// The store of a kind.
pub fn of(kind: StoreKind) -> &'static dyn SnapshotStore {
    match kind {
        StoreKind::Overlay => &overlay::Overlay,
        StoreKind::Btrfs => &btrfs::Btrfs,
        StoreKind::Copy => &copy::Copy,
    }
}

/// The layers of a chain, by index, whose delta must be made before something can be mounted on the chain.
pub fn missing(roots: &RootsDir, chain: &Chain) -> Vec<usize> {
    let ids = chain.ids();
    let tree = nearest_tree(&ids, &|path| roots.0.join(path).exists());
    let above = tree.map_or(0, |tree| tree + 1);
    (above..ids.len()).filter(|index| !roots.delta(&ids[*index]).exists()).collect()
}

/// The nearest tree, and the deltas above it: topmost first.
fn stacked(ids: &[ChainId], tree_at: Option<usize>) -> Vec<PathBuf> {
    let above = tree_at.map_or(0, |tree| tree + 1);
    let deltas = ids[above..].iter().rev().map(delta);
    deltas.chain(tree_at.map(|at| tree(&ids[at]))).collect()
}

/// The index of the topmost layer whose whole stack lies there as a tree.
fn nearest_tree(ids: &[ChainId], exists: &dyn Fn(&Path) -> bool) -> Option<usize> {
    ids.iter().rposition(|id| exists(&tree(id)))
}

/// The lowest part of a chain whose deltas are too many for one mount.
fn too_high(chain: &Chain, tree_at: Option<usize>) -> Option<Chain> {
    let beneath = tree_at.map_or(0, |tree| tree + 1);
    (chain.0.len() - beneath > MAX_DELTAS).then(|| Chain(chain.0[..beneath + MAX_DELTAS].to_vec()))
}

/// A draft directory with an empty `u`.
fn plain_draft(name: &str) -> Result<PathBuf, Failure> {
    let draft = Path::new("drafts").join(name);
    for path in [&draft, &draft.join("u")] {
        std::fs::create_dir(path).map_err(|error| failed("create", path, error))?;
    }
    Ok(draft)
}

/// Makes the sealed upper of such a draft the delta of a layer.
fn keep_plain_delta(draft: &Path, id: &ChainId) -> Result<(), Failure> {
    keep(&draft.join("u"), &delta(id))?;
    CommitPoint::DeltaNamed.reached();
    trash::remove_later(draft);
    Ok(())
}

/// Gives a finished directory its name. Where that is taken, another one made the same: that one stays, since runs may
/// be mounted on it.
fn keep(from: &Path, to: &Path) -> Result<(), Failure> {
    match std::fs::rename(from, to) {
        Err(error) if !to.exists() => Err(failed("rename to", to, error)),
        _ => Ok(()),
    }
}

/// A system call on something of the store failed.
pub(crate) fn failed(doing: &str, path: &Path, error: io::Error) -> Failure {
    let step = format!("{doing} {}", path.display());
    Failure { step, errno: error.raw_os_error(), message: error.to_string(), users: false }
}
