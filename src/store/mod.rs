//! The snapshot store: where the data of layers lies beneath the roots directory, and what a run is mounted on.
//!
//! A base is the nearest tree with the deltas stacked above it. The overlay store makes a tree (of hard links) only when
//! more deltas lie above each other than one mount should have; no other kind of store exists yet.

mod identity;

use std::path::{Path, PathBuf};

use crate::digest::Chain;
use crate::place::{RootsDir, StackerDir, delta, tree};

pub use identity::{Identity, open as open_identity};

/// So many deltas are stacked before a tree is made beneath the next: their names fit into the one page that mount(2)
/// takes, with room for the skeleton.
pub const MAX_DELTAS: usize = 60;

/// The layers of a chain, by index, whose delta or listing must be made before a run can be mounted on the chain.
pub fn missing(roots: &RootsDir, stacker: &StackerDir, chain: &Chain) -> Vec<usize> {
    let ids = chain.ids();
    let tree = nearest_tree(chain, |path| roots.0.join(path).exists());
    let lacking = |index: &usize| {
        let beneath_tree = tree.is_some_and(|tree| *index <= tree);
        let delta = beneath_tree || roots.delta(&ids[*index]).exists();
        !delta || !stacker.listing(&chain.0[*index]).exists()
    };
    (0..ids.len()).filter(lacking).collect()
}

/// The part of a chain that should become a tree before more is stacked on it; `None` when the stack is low enough.
pub fn needs_tree(chain: &Chain, roots: &RootsDir) -> Option<Chain> {
    let beneath = nearest_tree(chain, |path| roots.0.join(path).exists()).map_or(0, |tree| tree + 1);
    (chain.0.len() - beneath > MAX_DELTAS).then(|| Chain(chain.0[..beneath + MAX_DELTAS].to_vec()))
}

/// The directories that hold a chain, topmost first, relative to the roots directory; `exists` looks there.
pub fn lowers(chain: &Chain, exists: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let ids = chain.ids();
    let tree_at = nearest_tree(chain, exists);
    let above = tree_at.map_or(0, |tree| tree + 1);
    let deltas = ids[above..].iter().rev().map(delta);
    deltas.chain(tree_at.map(|at| tree(&ids[at]))).collect()
}

/// The index of the topmost layer whose whole stack lies there as a tree.
fn nearest_tree(chain: &Chain, exists: impl Fn(&Path) -> bool) -> Option<usize> {
    // Trees are only made of high stacks: the usual build asks nothing here.
    let ids = if chain.0.len() < MAX_DELTAS { Vec::new() } else { chain.ids() };
    ids.iter().rposition(|id| exists(&tree(id)))
}
