//! The overlay store: deltas beside each other, mounted as a stack. Needs no set-up.
//!
//! A tree (of hard links) is made only when more deltas lie above each other than one mount should have.

use std::path::{Path, PathBuf};

use crate::digest::{Chain, ChainId, DiffId};
use crate::listing::Listing;
use crate::seal::{Form, Marks};
use crate::worker::message::Failure;

use super::{
    MAX_DELTAS, Purpose, SnapshotStore, keep_plain_delta, merge, nearest_tree, plain_draft, stacked, too_high,
};

/// See the module's header.
pub struct Overlay;

impl SnapshotStore for Overlay {
    fn form(&self) -> Form {
        Form::Changes(Marks::Overlayfs)
    }

    fn lowers(&self, chain: &Chain, exists: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
        stacked(&chain.ids(), high_tree(chain, exists))
    }

    fn needs_tree(&self, chain: &Chain, _for_run: bool, exists: &dyn Fn(&Path) -> bool) -> Option<Chain> {
        too_high(chain, high_tree(chain, exists))
    }

    fn new_draft(&self, name: &str, _purpose: Purpose) -> Result<PathBuf, Failure> {
        plain_draft(name)
    }

    fn keep_delta(&self, draft: &Path, parent: ChainId, diff_id: DiffId, _: &Listing) -> Result<(), Failure> {
        keep_plain_delta(draft, &parent.push(diff_id))
    }

    fn make_tree(&self, chain: &Chain) -> Result<(), Failure> {
        merge::make_tree(&self.lowers(chain, &|path| path.exists()), &chain.id(), Marks::Overlayfs)
    }
}

/// Trees are only made of high stacks: the usual build asks nothing here.
fn high_tree(chain: &Chain, exists: &dyn Fn(&Path) -> bool) -> Option<usize> {
    if chain.0.len() < MAX_DELTAS { None } else { nearest_tree(&chain.ids(), exists) }
}
