//! How far one layer has been decided.

use crate::action::Action;
use crate::digest::{Chain, ChainId, Key};

use super::{BaseInput, Decided, LAYER_TIME_STEP, LayerInputs, Outcome, Sources, Status, StepKind};

/// The next step while its result is looked for: all it is made of is known.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) action: Action,
    pub(super) sources: Sources,
}

impl Asked {
    pub(super) fn new((action, sources): (Action, Sources)) -> Asked {
        Asked { key: action.key(), action, sources }
    }
}

#[derive(Clone, Debug)]
pub(super) struct LayerState {
    pub(super) status: Status,
    pub(super) kinds: Vec<StepKind>,
    pub(super) decided: Vec<Decided>,
    /// The next step was handed out or waits for its twin; answers do not advance the layer.
    pub(super) pending: Option<Key>,
    pub(super) asked: Option<Asked>,
    pub(super) chain: Chain,
    pub(super) newest: i64,
}

impl LayerState {
    pub(super) fn new(input: &LayerInputs, epoch: i64) -> LayerState {
        let mut kinds = Vec::new();
        if let BaseInput::Tar(_) | BaseInput::LayerTar { .. } = input.base {
            kinds.push(StepKind::Unpack);
        }
        let imports = input.imports.iter().enumerate().filter(|(_, import)| import.dest.is_some());
        kinds.extend(imports.map(|(index, _)| StepKind::Import(index)));
        if input.run.is_some() {
            kinds.push(StepKind::Run);
        }
        if input.labels.is_some() {
            kinds.push(StepKind::Labels);
        }
        LayerState {
            status: Status::Open,
            kinds,
            decided: Vec::new(),
            pending: None,
            asked: None,
            chain: Chain::default(),
            newest: epoch,
        }
    }

    /// One more step is decided.
    pub(super) fn take(&mut self, key: Key, outcome: Outcome, built: bool) {
        let time = self.newest.saturating_add(LAYER_TIME_STEP);
        self.decided.push(Decided { key, outcome, time, built });
        self.chain.0.extend(outcome.diff_id);
        if outcome.diff_id.is_some() {
            self.newest = self.newest.max(outcome.newest);
        }
    }

    /// The stacks that its steps so far are the tops of.
    pub(super) fn made(&self) -> Vec<ChainId> {
        let own = self.decided.iter().filter(|decided| decided.outcome.diff_id.is_some()).count();
        let mut ids = self.chain.ids();
        ids.split_off(ids.len() - own)
    }

    /// The step whose result is the topmost layer of `chain`.
    pub(super) fn step_that_made(&self, chain: ChainId) -> Option<usize> {
        let own = self.decided.iter().filter(|decided| decided.outcome.diff_id.is_some()).count();
        let ids = self.chain.ids();
        let mut at = ids.len() - own;
        for (step, decided) in self.decided.iter().enumerate() {
            if decided.outcome.diff_id.is_some() {
                if ids[at] == chain {
                    return Some(step);
                }
                at += 1;
            }
        }
        None
    }
}
