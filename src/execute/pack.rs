//! Blobs: which layers of the emitted images must be packed, and what came of it.

use std::collections::HashSet;

use crate::digest::{BlobDigest, Chain, DiffId};
use crate::error::Result;
use crate::graph::{LayerIndex, NodeBase};
use crate::layer_type::Packing;

use super::site::Lost;
use super::{Execution, Message};

impl Execution<'_> {
    /// Packs the layers of an emitted image that have no blob yet, in each way; fetches the tars of its base image that
    /// neither the store nor the layout has.
    pub(super) fn want_blobs(&mut self, layer: LayerIndex) -> Result<()> {
        for packing in self.options.packings.clone() {
            self.want_blobs_of(layer, &packing)?;
        }
        Ok(())
    }

    fn want_blobs_of(&mut self, layer: LayerIndex, packing: &Packing) -> Result<()> {
        let chain = self.decider.chain(layer).0.clone();
        let own = self.own(layer);
        for end in 1..=chain.0.len() {
            let diff_id = chain.0[end - 1];
            let this = (diff_id, packing.clone());
            // The tar of a base image's layer is its blob.
            if !own.contains(&diff_id) && matches!(packing, Packing::Tar(_)) {
                self.want_base_blob(&diff_id);
                continue;
            }
            if self.packed.contains(&this) {
                continue;
            }
            if self.blob(&diff_id, packing)?.is_some() {
                self.packed.insert(this);
            } else if self.packing.insert(this) {
                self.packs.push_back((layer, Chain(chain.0[..end].to_vec()), packing.clone()));
            }
        }
        Ok(())
    }

    /// The blob of a base image's layer lies in its layout, or at a registry.
    fn want_base_blob(&mut self, diff_id: &DiffId) {
        let Some(digest) = self.site.base_blobs.get(diff_id).map(|blob| blob.digest) else { return };
        if !self.fetching.insert(digest) || !self.site.downloads.is_missing(&digest, &self.options.layout) {
            return;
        }
        let (site, sender) = (self.site.clone(), self.sender.clone());
        self.waiting += 1;
        std::thread::spawn(move || drop(sender.send(Message::Fetched(site.have_blobs(&[digest])))));
    }

    /// The layers of a chain that came out of actions. A base image may have the very same ones.
    pub(super) fn own(&self, layer: LayerIndex) -> HashSet<DiffId> {
        let mut own = HashSet::new();
        let mut layer = Some(layer);
        while let Some(index) = layer {
            own.extend(self.decider.decided(index).iter().filter_map(|decided| decided.outcome.diff_id));
            layer = match self.graph[index].base {
                NodeBase::Built(beneath) => Some(beneath),
                _ => None,
            };
        }
        own
    }

    /// The blob of a layer as it is wanted, where the store holds it.
    pub(super) fn blob(&self, diff_id: &DiffId, packing: &Packing) -> Result<Option<(BlobDigest, u64)>> {
        let known = self.database.blob(diff_id, &packing.codec())?;
        Ok(known.filter(|(digest, _)| self.site.stacker.blob(digest).exists()))
    }

    pub(super) fn start_pack(&mut self, layer: LayerIndex, chain: Chain, packing: Packing) -> Result<()> {
        let blobs = self.blobs(&chain)?;
        let number = self.note_begin(layer, "compress", None, None)?;
        let (site, sender) = (self.site.clone(), self.sender.clone());
        self.busy += 1;
        std::thread::spawn(move || {
            let end = site.pack(&chain, &packing, &blobs);
            drop(sender.send(Message::Packed { chain, packing, end, number }));
        });
        Ok(())
    }

    pub(super) fn packed(
        &mut self,
        chain: Chain,
        packing: Packing,
        end: Result<(BlobDigest, u64), Lost>,
    ) -> Result<()> {
        let Some(&diff_id) = chain.0.last() else { return Ok(()) };
        let codec = packing.codec();
        self.packing.remove(&(diff_id, packing));
        match end {
            Ok((blob, size)) => {
                self.database.put_blob(&diff_id, &codec, &blob, size)?;
                self.recorded();
            }
            Err(Lost::Error(error)) => {
                self.failure.get_or_insert(error);
            }
            Err(Lost::Evicted(id)) => self.evicted(id, |_| ())?,
        }
        Ok(())
    }
}

/// How the compression of a layer ended, for the record of its build.
pub(super) fn name(end: &Result<(BlobDigest, u64), Lost>) -> &'static str {
    match end {
        Ok(_) => "built",
        Err(Lost::Evicted(_)) => "data missing",
        Err(Lost::Error(_)) => "error",
    }
}
