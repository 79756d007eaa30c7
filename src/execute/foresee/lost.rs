//! Data that a build would miss: found out by looking for it, as a step does before it has it made again.

use std::collections::BTreeSet;

use crate::action::Kind;
use crate::decide::{Run, StepKind, Taken};
use crate::digest::{Chain, ChainId, DiffId};
use crate::error::Result;
use crate::graph::LayerIndex;
use crate::layer_type::Packing;
use crate::store;

use super::{Certainty, Gathered};
use crate::execute::Execution;
use crate::execute::imports::import_name;

impl Execution<'_> {
    /// Lets the actions run again whose data is missed and gone. False: there are none that were not known.
    pub(super) fn miss_data(&mut self, gathered: &mut Gathered, certainty: Certainty) -> Result<bool> {
        self.database.begin_reading()?;
        let mut lost: Vec<(ChainId, LayerIndex)> = Vec::new();
        let certain = self.sorted(gathered)?.certain;
        for run in self.would_run(gathered) {
            let is_certain = certain.contains(&run.id) && gathered.assumed.open(run).is_empty();
            if is_certain || certainty == Certainty::Possible {
                lost.extend(self.missed_by(run, gathered)?.map(|chain| (chain, run.id.layer)));
            }
        }
        for layer in self.options.emitted.clone() {
            lost.extend(self.missed_by_image(layer, gathered)?.into_iter().map(|chain| (chain, layer)));
        }
        self.database.end_reading()?;
        let mut any = false;
        for (chain, layer) in lost {
            let known = gathered.missed.contains_key(&chain);
            gathered.missed.entry(chain).or_default().insert(layer);
            if !known {
                for key in self.decider.makers(chain) {
                    gathered.again.entry(key).or_default().insert(layer);
                }
                any |= self.decider.evicted(chain);
            }
        }
        Ok(any)
    }

    /// The lowest layer of a chain whose listing is gone, and what it could be made of.
    pub(super) fn lost_listing(&self, chain: &Chain) -> Result<Option<ChainId>> {
        self.lost(chain, &[], 0)
    }

    /// What a step misses before it can begin.
    fn missed_by(&self, run: &Run, gathered: &Gathered) -> Result<Option<ChainId>> {
        let beneath = gathered.known(&run.parent);
        let lost = match run.kind {
            StepKind::Run | StepKind::Labels => self.lost_in_chain(&beneath)?,
            StepKind::Unpack | StepKind::Import(_) => self.lost_listing(&beneath)?,
        };
        if lost.is_some() {
            return Ok(lost);
        }
        for (taken, (chain, path)) in &run.sources {
            let known = gathered.known(chain);
            let lost = match (taken, &run.action.kind) {
                (Taken::Import(index), Kind::Run { mounts, .. }) if self.is_staged(run, *index, mounts) => None,
                (Taken::Base, _) if known == *chain => self.lost_file(chain, path)?,
                _ => self.lost_in_chain(&known)?,
            };
            if lost.is_some() {
                return Ok(lost);
            }
        }
        Ok(None)
    }

    /// A chain as data that something can be mounted on.
    fn lost_in_chain(&self, chain: &Chain) -> Result<Option<ChainId>> {
        self.lost(chain, &store::missing(&self.site.roots, chain), 0)
    }

    /// One file of a chain.
    fn lost_file(&self, chain: &Chain, path: &[u8]) -> Result<Option<ChainId>> {
        let lost = self.lost_listing(chain)?;
        if lost.is_some() || !chain.0.iter().all(|diff_id| self.site.stacker.listing(diff_id).exists()) {
            return Ok(lost);
        }
        let Some(layer) = self.site.listings(chain)?.layer_of(path)? else { return Ok(None) };
        match chain.ids()[layer..].iter().any(|id| self.site.roots.tree(id).exists()) {
            true => Ok(None),
            false => self.lost(chain, &[layer], 0),
        }
    }

    /// Whether a mounted import of a layer lies in the store, under the name that its digest and time give it.
    fn is_staged(&self, run: &Run, index: usize, mounts: &[crate::action::Mount]) -> bool {
        let imports = self.graph[run.id.layer].imports.iter().enumerate();
        let mut places = imports.flat_map(|(at, import)| import.import.seen_in().iter().map(move |_| at));
        let Some(mount) = places.position(|at| at == index).and_then(|at| mounts.get(at)) else { return false };
        self.site.roots.import(&import_name(mount.tree, mount.attributes, run.action.time)).exists()
    }

    /// Layers that an image needs as blobs, which are neither there nor can be made.
    fn missed_by_image(&self, layer: LayerIndex, gathered: &mut Gathered) -> Result<BTreeSet<ChainId>> {
        let chain = self.decider.chain(layer).0.clone();
        let own = self.own(layer);
        let mut lost = BTreeSet::new();
        for end in 1..=gathered.assumed.known(&chain) {
            let diff_id = chain.0[end - 1];
            let is_own = own.contains(&diff_id);
            if gathered.packed.contains(&(diff_id, is_own)) {
                continue;
            }
            if self.has_blobs(&diff_id, is_own)? {
                gathered.packed.insert((diff_id, is_own));
                continue;
            }
            let beneath = Chain(chain.0[..end].to_vec());
            if gathered.unpacked.insert(beneath.id()) {
                lost.extend(self.lost_layer(&beneath)?);
            }
        }
        Ok(lost)
    }

    /// Whether a layer has all blobs that are wanted of it. The tar of a base image's is not made.
    fn has_blobs(&self, diff_id: &DiffId, is_own: bool) -> Result<bool> {
        for packing in self.options.packings.iter().filter(|it| is_own || !matches!(it, Packing::Tar(_))) {
            if self.blob(diff_id, packing)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The topmost layer of a chain as data.
    fn lost_layer(&self, chain: &Chain) -> Result<Option<ChainId>> {
        let top = chain.0.len() - 1;
        match self.site.roots.delta(&chain.id()).exists() {
            // What is beneath is of no use for it then.
            true => self.lost(chain, &[], top),
            false => self.lost(chain, &[top], 0),
        }
    }

    /// The first layer of a chain, from one on, that lacks its listing, or its delta if that is wanted, and has no blob to
    /// make it of.
    fn lost(&self, chain: &Chain, deltas: &[usize], from: usize) -> Result<Option<ChainId>> {
        let is_listed = |layer: usize| self.site.stacker.listing(&chain.0[layer]).exists();
        let lacking = |layer: &usize| deltas.contains(layer) || !is_listed(*layer);
        let lacking: Vec<usize> = (from..chain.0.len()).filter(lacking).collect();
        if lacking.is_empty() {
            return Ok(None);
        }
        let (ids, blobs) = (chain.ids(), self.blobs(chain)?);
        let is_lost = |layer: &usize| {
            let there = is_listed(*layer) && self.site.roots.delta(&ids[*layer]).exists();
            let diff_id = &chain.0[*layer];
            !there && !blobs.contains_key(diff_id) && !self.site.base_blobs.contains_key(diff_id)
        };
        Ok(lacking.into_iter().find(is_lost).map(|layer| ids[layer]))
    }
}
