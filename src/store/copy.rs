//! The copy store: every run works on a copy of its base. Slow, and for file systems that overlayfs can not write to:
//! overlayfs itself, as in most containers, and those of a network.
//!
//! ```text
//! deltas/CHAIN12          a layer's own changes; what it removes is marked by sockets
//! trees/CHAIN12           the whole root filesystem of a layer that runs, or copies out of it, build on: hard links
//! drafts/NAME/u           of a run: a copy of its base's tree, with reflinks where there are any
//! ```
//! What a run changed is found by a walk over all of its draft, compared with the listings of its base.

use std::path::{Path, PathBuf};

use crate::digest::{Chain, ChainId, DiffId};
use crate::listing::Listing;
use crate::place;
use crate::seal::{Form, Marks};
use crate::worker::message::Failure;

use super::{Purpose, SnapshotStore, keep_plain_delta, merge, nearest_tree, plain_draft, stacked, trash};

/// See the module's header.
pub struct Copy;

impl SnapshotStore for Copy {
    fn form(&self) -> Form {
        Form::Whole(Marks::Sockets)
    }

    fn lowers(&self, chain: &Chain, _exists: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
        if chain.0.is_empty() { Vec::new() } else { vec![place::tree(&chain.id())] }
    }

    fn needs_tree(&self, chain: &Chain, _for_run: bool, exists: &dyn Fn(&Path) -> bool) -> Option<Chain> {
        let there = chain.0.is_empty() || exists(&place::tree(&chain.id()));
        (!there).then(|| chain.clone())
    }

    fn new_draft(&self, name: &str, purpose: Purpose) -> Result<PathBuf, Failure> {
        let draft = plain_draft(name)?;
        if let Purpose::Run(base) = purpose
            && !base.0.is_empty()
        {
            merge::copy(&place::tree(&base.id()), &draft.join("u")).inspect_err(|_| {
                // It may be what fills the disk. The failure that there is says more than another one.
                let _ = trash::remove_path(&draft);
            })?;
        }
        Ok(draft)
    }

    fn keep_delta(&self, draft: &Path, parent: ChainId, diff_id: DiffId, _: &Listing) -> Result<(), Failure> {
        keep_plain_delta(draft, &parent.push(diff_id))
    }

    fn make_tree(&self, chain: &Chain) -> Result<(), Failure> {
        let ids = chain.ids();
        let beneath = nearest_tree(&ids, &|path| path.exists());
        merge::make_tree(&stacked(&ids, beneath), &chain.id(), Marks::Sockets)
    }
}
