//! Blobs: which layers of the emitted images must be compressed, and what came of it.

use std::collections::HashSet;

use crate::digest::{BlobDigest, Chain, DiffId};
use crate::error::Result;
use crate::graph::{LayerIndex, NodeBase};
use crate::worker::message::Compression;

use super::site::Lost;
use super::{Execution, Message};

impl Execution<'_> {
    /// Compresses the layers of an emitted image that have no blob yet.
    pub(super) fn want_blobs(&mut self, layer: LayerIndex) -> Result<()> {
        let chain = self.decider.chain(layer).0.clone();
        let own = self.own(layer);
        for end in 1..=chain.0.len() {
            let diff_id = chain.0[end - 1];
            // The blob of a base image's layer lies in its layout.
            if !own.contains(&diff_id) || self.packed.contains(&diff_id) {
                continue;
            }
            if self.blob(&diff_id)?.is_some() {
                self.packed.insert(diff_id);
            } else if self.packing.insert(diff_id) {
                self.packs.push_back(Chain(chain.0[..end].to_vec()));
            }
        }
        Ok(())
    }

    /// The layers of a chain that came out of actions. A base image may have the very same ones.
    fn own(&self, layer: LayerIndex) -> HashSet<DiffId> {
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

    /// The blob of an own layer in the wanted compression, where the store holds it.
    pub(super) fn blob(&self, diff_id: &DiffId) -> Result<Option<(BlobDigest, u64)>> {
        let known = self.database.blob(diff_id, &codec(self.options.compression))?;
        Ok(known.filter(|(digest, _)| self.site.stacker.blob(digest).exists()))
    }

    pub(super) fn start_pack(&mut self, chain: Chain) -> Result<()> {
        let blobs = self.blobs(&chain)?;
        let (site, sender, compression) = (self.site.clone(), self.sender.clone(), self.options.compression);
        self.busy += 1;
        std::thread::spawn(move || {
            let end = site.pack(&chain, compression, &blobs);
            drop(sender.send(Message::Packed { chain, end }));
        });
        Ok(())
    }

    pub(super) fn packed(&mut self, chain: Chain, end: Result<(BlobDigest, u64), Lost>) -> Result<()> {
        let Some(&diff_id) = chain.0.last() else { return Ok(()) };
        self.packing.remove(&diff_id);
        match end {
            Ok((blob, size)) => {
                self.database.put_blob(&diff_id, &codec(self.options.compression), &blob, size)?;
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

/// How a blob's compression is named in the database: codec, level, encoder version.
pub fn codec(compression: Compression) -> String {
    let version = crate::compress::ENCODER_VERSION;
    match compression {
        Compression::Gzip(level) => format!("gzip-{level}/{version}"),
        Compression::Zstd(level) => format!("zstd-{level}/{version}"),
        Compression::None => format!("none/{version}"),
    }
}
