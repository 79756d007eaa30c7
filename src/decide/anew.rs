//! Layers that are decided once more: what they take from the host changed meanwhile, or data has gone.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::layer::LayerState;
use super::{BaseInput, Decider, Question, SourceInput, SourceKind, Status, StepId};
use crate::action::Shows;
use crate::digest::{ChainId, ContentDigest, Key, TreeDigest};
use crate::graph::LayerIndex;

impl Decider {
    /// The file tree behind a host import is not what the key assumed: the layer is decided anew.
    pub fn host_import_changed(&mut self, id: StepId, key: Key, import: usize, tree: TreeDigest, kind: SourceKind) {
        Arc::make_mut(&mut self.inputs[id.layer.0]).imports[import].source = SourceInput::Host { tree, kind };
        self.decide_anew(id, key);
    }

    /// The same of a tar base.
    pub fn host_tar_changed(&mut self, id: StepId, key: Key, content: ContentDigest) {
        Arc::make_mut(&mut self.inputs[id.layer.0]).base = BaseInput::Tar(content);
        self.decide_anew(id, key);
    }

    /// The same of what a bind shows.
    pub fn bind_changed(&mut self, id: StepId, key: Key, bind: usize, shows: Shows) {
        if let Some(run) = &mut Arc::make_mut(&mut self.inputs[id.layer.0]).run {
            run.binds[bind].shows = shows;
        }
        self.decide_anew(id, key);
    }

    fn decide_anew(&mut self, id: StepId, key: Key) {
        let twins = self.running.remove(&key).map(|(_, twins)| twins).unwrap_or_default();
        self.restart(id.layer);
        for twin in twins {
            self.restart(twin);
        }
    }

    /// Nothing is left of the layer on top of `chain`: its action runs again. False when no step of this build made it.
    /// Several may miss it, one after the other; the first has it made.
    pub fn evicted(&mut self, chain: ChainId) -> bool {
        let mut found = self.lost.contains(&chain);
        for layer in self.wanted.clone() {
            let Some(step) = self.layers[layer.0].step_that_made(chain) else { continue };
            found = true;
            self.lost.insert(chain);
            let key = self.layers[layer.0].decided[step].key;
            self.evicted.insert(key);
            self.outcomes.remove(&key);
            self.answers.remove(&Question::Result(key));
            self.restart(layer);
        }
        found
    }

    /// The keys of the steps that made the layer on top of `chain`.
    pub fn makers(&self, chain: ChainId) -> BTreeSet<Key> {
        let key = |layer: &LayerIndex| {
            let layer = &self.layers[layer.0];
            layer.step_that_made(chain).map(|step| layer.decided[step].key)
        };
        self.wanted.iter().filter_map(key).collect()
    }

    /// A question could not be answered because data has gone: whoever asked is decided anew, and asks again.
    pub fn forget(&mut self, question: &Question) {
        for layer in self.waiting.remove(question).unwrap_or_default() {
            self.advance(layer);
        }
    }

    /// A step that was handed out could not start because data beneath it has gone: decide its layer anew.
    pub fn postponed(&mut self, id: StepId, key: Key) {
        let twins = self.running.remove(&key).map(|(_, twins)| twins).unwrap_or_default();
        for layer in std::iter::once(id.layer).chain(twins) {
            self.restart(layer);
        }
    }

    /// Forgets what was decided of a layer, and of all that need it, and decides again with what is known by now.
    fn restart(&mut self, layer: LayerIndex) {
        let built: HashSet<Key> =
            self.layers[layer.0].decided.iter().filter(|decided| decided.built).map(|decided| decided.key).collect();
        // Who misses that meanwhile misses it again when it was decided, or no longer wants it.
        self.lost.extend(self.layers[layer.0].made());
        self.ready.retain(|id, _| id.layer != layer);
        if let Some(key) = self.layers[layer.0].pending.take()
            && let Some((owner, twins)) = self.running.get_mut(&key)
        {
            twins.retain(|twin| *twin != layer);
            if owner.layer == layer {
                self.running.remove(&key);
            }
        }
        self.layers[layer.0] = LayerState::new(&self.inputs[layer.0], self.epoch);
        for dependent in self.dependents.get(&layer).cloned().unwrap_or_default() {
            if !matches!(self.layers[dependent.0].status, Status::Failed | Status::Skipped) {
                self.restart(dependent);
            }
        }
        self.advance(layer);
        for decided in &mut self.layers[layer.0].decided {
            decided.built |= built.contains(&decided.key);
        }
    }
}
