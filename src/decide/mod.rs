//! The Decider: a pure state machine that says what to ask, what to run, and what is done.
//!
//! It is fed answers and hands out jobs; `build` feeds it real results, `plan` will feed it "would run". It never
//! touches a file, the clock or the database.
//!
//! ```text
//!            every input known            Answer::Result(Some)
//!  Waiting ---------------------> Asked ------------------------> Done (hit)
//!     ^    questions, base layer    |  Answer::Result(None), forced, evicted
//!     |                             v
//!     |   the data has gone       Ready --next_run()--> Running --> Done (built) | Failed
//!     +-----------------------------+----------------------+
//! ```
//! A layer's steps are decided one after the other, because each one's base is what the one before came out as: when a
//! rebuilt base comes out the same, everything above it is a hit.

mod anew;
mod compose;
mod files;
mod inputs;
mod layer;
mod question;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::action::Ids;
use crate::digest::{Chain, ChainId, Key};
use crate::graph::LayerIndex;

pub use inputs::{BaseInput, ImportInput, LayerInputs, RunInput, SourceInput};
use layer::{Asked, LayerState};
pub use question::{Answer, Question, SourceKind};
pub use step::{Decided, Outcome, Run, Status, StepId, StepKind, Taken, Why};

/// The state machine. See the module's header.
pub struct Decider {
    /// Shared, so that looking at them while the state changes costs no copy.
    inputs: Vec<Arc<LayerInputs>>,
    wanted: BTreeSet<LayerIndex>,
    layers: Vec<LayerState>,
    dependents: HashMap<LayerIndex, Vec<LayerIndex>>,
    /// Layers that have steps, or on which such are built: who asks when their base is from. That takes its files.
    timed: BTreeSet<LayerIndex>,
    epoch: i64,
    host_epoch: bool,
    keep_going: bool,
    ids: Ids,
    failed: bool,
    answers: HashMap<Question, Answer>,
    waiting: HashMap<Question, BTreeSet<LayerIndex>>,
    questions: VecDeque<Question>,
    ready: BTreeMap<StepId, Run>,
    /// Keys that run or ran in this build, with those who wait for the same one.
    running: HashMap<Key, (StepId, Vec<LayerIndex>)>,
    outcomes: HashMap<Key, Outcome>,
    evicted: HashSet<Key>,
    /// What was made by the actions that run again for it, and by steps that are decided anew with them.
    lost: HashSet<ChainId>,
    held: Option<LayerIndex>,
}

/// What the whole build is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The host's SOURCE_DATE_EPOCH.
    pub source_date_epoch: Option<i64>,
    /// Build everything that does not depend on a failure.
    pub keep_going: bool,
    /// Which owners files can have here.
    pub ids: Ids,
}

/// Where what a step takes from other layers lies (stack, resolved path).
pub type Sources = BTreeMap<Taken, (Chain, Vec<u8>)>;

/// 2000-01-01T00:00:00Z: the time of `scratch`.
pub const DEFAULT_EPOCH: i64 = 946_684_800;

/// Layer times grow by this many seconds (FAT and zip know only even ones).
pub const LAYER_TIME_STEP: i64 = 2;

impl Decider {
    /// `wanted` are the layers to decide; what they need must be among them.
    pub fn new(inputs: Vec<LayerInputs>, wanted: BTreeSet<LayerIndex>, settings: Settings) -> Decider {
        let epoch = settings.source_date_epoch.unwrap_or(DEFAULT_EPOCH);
        let layers: Vec<_> = inputs.iter().map(|input| LayerState::new(input, epoch)).collect();
        let mut dependents: HashMap<LayerIndex, Vec<LayerIndex>> = HashMap::new();
        for &layer in &wanted {
            for needed in inputs[layer.0].needs() {
                dependents.entry(needed).or_default().push(layer);
            }
        }
        let timed = timed(&inputs, &layers, &wanted);
        let steps = layers.iter().map(|layer| layer.kinds.len()).sum();
        let mut decider = Decider {
            timed,
            inputs: inputs.into_iter().map(Arc::new).collect(),
            layers,
            dependents,
            epoch,
            host_epoch: settings.source_date_epoch.is_some(),
            keep_going: settings.keep_going,
            ids: settings.ids,
            failed: false,
            answers: HashMap::with_capacity(steps),
            waiting: HashMap::with_capacity(steps),
            questions: VecDeque::new(),
            ready: BTreeMap::new(),
            running: HashMap::new(),
            outcomes: HashMap::new(),
            evicted: HashSet::new(),
            lost: HashSet::new(),
            held: None,
            wanted,
        };
        for layer in decider.wanted.clone() {
            decider.advance(layer);
        }
        decider
    }

    /// The script of this layer is handed out by [`Decider::next_run`] even if its result is known. To be called first.
    pub fn hold(&mut self, layer: LayerIndex) {
        self.held = Some(layer);
    }

    /// The script of a layer and its surroundings, as far as they are known from the start.
    pub fn run_input(&self, layer: LayerIndex) -> Option<&RunInput> {
        self.inputs[layer.0].run.as_ref()
    }

    /// One of a layer's imports.
    pub fn import(&self, layer: LayerIndex, index: usize) -> &ImportInput {
        &self.inputs[layer.0].imports[index]
    }

    /// The next thing to find out; asked once.
    pub fn next_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    /// The next step to run, in the order of a serial build. Nothing new after a failure, unless told to keep going.
    pub fn next_run(&mut self) -> Option<Run> {
        if self.failed && !self.keep_going {
            return None;
        }
        let (_, run) = self.ready.pop_first()?;
        Some(run)
    }

    /// Something was found out. Returns the layers that fail because there is no answer.
    pub fn answered(&mut self, question: Question, answer: Answer) -> BTreeSet<LayerIndex> {
        let waiting = self.waiting.remove(&question).unwrap_or_default();
        let nothing = answer.is_nothing();
        self.answers.insert(question, answer);
        for layer in &waiting {
            self.advance(*layer);
        }
        if nothing { waiting } else { BTreeSet::new() }
    }

    /// A step ran (`built`), or another process was found to have run it.
    pub fn finished(&mut self, id: StepId, key: Key, outcome: Outcome, built: bool) {
        self.outcomes.insert(key, outcome);
        self.evicted.remove(&key);
        let twins = self.running.remove(&key).map(|(_, twins)| twins).unwrap_or_default();
        self.settle(id.layer, key, outcome, built);
        for twin in twins {
            self.settle(twin, key, outcome, false);
        }
    }

    /// A step failed, and with it every layer that waits for the same key or needs this one.
    pub fn failed(&mut self, id: StepId, key: Key) {
        self.failed = true;
        let twins = self.running.remove(&key).map(|(_, twins)| twins).unwrap_or_default();
        for layer in std::iter::once(id.layer).chain(twins) {
            self.fail(layer);
        }
    }

    /// A question has no good answer for this layer (a path that is not there).
    pub fn fail(&mut self, layer: LayerIndex) {
        self.failed = true;
        self.layers[layer.0].status = Status::Failed;
        self.skip_dependents(layer);
    }

    /// How a layer stands.
    pub fn status(&self, layer: LayerIndex) -> Status {
        self.layers[layer.0].status.clone()
    }

    /// Its steps so far.
    pub fn decided(&self, layer: LayerIndex) -> &[Decided] {
        &self.layers[layer.0].decided
    }

    /// What its steps are.
    pub fn kinds(&self, layer: LayerIndex) -> &[StepKind] {
        &self.layers[layer.0].kinds
    }

    /// The layers it consists of so far, and the newest time in them.
    pub fn chain(&self, layer: LayerIndex) -> (&Chain, i64) {
        (&self.layers[layer.0].chain, self.layers[layer.0].newest)
    }

    /// Ends what is still open, when nothing runs any more.
    pub fn close(&mut self) {
        for layer in self.wanted.clone() {
            if self.layers[layer.0].status == Status::Open {
                self.layers[layer.0].status = Status::Skipped;
            }
        }
    }

    /// Takes a layer as far as what is known allows.
    fn advance(&mut self, layer: LayerIndex) {
        while self.layers[layer.0].status == Status::Open && self.layers[layer.0].pending.is_none() {
            let step = self.layers[layer.0].decided.len();
            if step == 0 && self.take_base(layer).is_none() {
                return;
            }
            let Some(&kind) = self.layers[layer.0].kinds.get(step) else {
                if self.sources_are_done(layer) {
                    self.layer_done(layer);
                }
                return;
            };
            let asked = self.layers[layer.0].asked.take();
            let Some(asked) = asked.or_else(|| self.action(layer, kind).map(Asked::new)) else { return };
            if !self.decide_step(StepId { layer, step }, kind, asked) {
                return;
            }
        }
    }

    /// A layer whose imports are all done; `dest` imports and mounts need them anyway, others must not overtake a failure.
    fn sources_are_done(&self, layer: LayerIndex) -> bool {
        self.inputs[layer.0].needs().all(|needed| self.layers[needed.0].status == Status::Done)
    }

    /// Chain and newest time of the base, when known.
    fn take_base(&mut self, layer: LayerIndex) -> Option<()> {
        let input = self.inputs[layer.0].clone();
        let (chain, newest) = match &input.base {
            BaseInput::Scratch | BaseInput::Tar(_) | BaseInput::LayerTar { .. } => (Chain::default(), self.epoch),
            BaseInput::Built(base) => {
                let base = &self.layers[base.0];
                if base.status != Status::Done {
                    return None;
                }
                (base.chain.clone(), base.newest)
            }
            BaseInput::Image(chain) if !self.timed.contains(&layer) => (chain.clone(), self.epoch),
            BaseInput::Image(chain) => match self.ask(layer, Question::Newest(chain.clone()))? {
                Answer::Newest(newest) => (chain.clone(), newest.max(self.epoch)),
                _ => return None,
            },
        };
        let state = &mut self.layers[layer.0];
        (state.chain, state.newest) = (chain, newest);
        Some(())
    }

    /// Looks for a result, a twin, or makes the step ready. True when the step is decided at once.
    fn decide_step(&mut self, id: StepId, kind: StepKind, asked: Asked) -> bool {
        let key = asked.key;
        let held = kind == StepKind::Run && self.held == Some(id.layer);
        if let Some(&outcome) = self.outcomes.get(&key) {
            self.layers[id.layer.0].take(key, outcome, false);
            return true;
        }
        if !held && let Some((_, twins)) = self.running.get_mut(&key) {
            twins.push(id.layer);
            self.layers[id.layer.0].pending = Some(key);
            return false;
        }
        let why = if held || self.inputs[id.layer.0].forced {
            Why::Forced
        } else if self.evicted.contains(&key) {
            Why::Evicted
        } else {
            match self.ask(id.layer, Question::Result(key)) {
                Some(Answer::Result(Some(outcome))) => {
                    self.layers[id.layer.0].take(key, outcome, false);
                    return true;
                }
                Some(_) => Why::Missing,
                None => {
                    self.layers[id.layer.0].asked = Some(asked);
                    return false;
                }
            }
        };
        let Asked { key, action, sources } = asked;
        let state = &mut self.layers[id.layer.0];
        state.pending = Some(key);
        let (parent, newest) = (state.chain.clone(), state.newest);
        self.running.insert(key, (id, Vec::new()));
        self.ready.insert(id, Run { id, kind, key, action, parent, newest, sources, why });
        false
    }

    fn ask(&mut self, layer: LayerIndex, question: Question) -> Option<Answer> {
        match self.answers.get(&question) {
            Some(answer) if answer.is_nothing() => {
                self.fail(layer);
                return None;
            }
            Some(answer) => return Some(answer.clone()),
            None => {}
        }
        let waiting = self.waiting.entry(question.clone()).or_default();
        if waiting.is_empty() {
            self.questions.push_back(question);
        }
        waiting.insert(layer);
        None
    }

    fn settle(&mut self, layer: LayerIndex, key: Key, outcome: Outcome, built: bool) {
        let state = &mut self.layers[layer.0];
        if state.pending == Some(key) && state.status == Status::Open {
            state.pending = None;
            state.take(key, outcome, built);
            self.advance(layer);
        }
    }

    fn layer_done(&mut self, layer: LayerIndex) {
        self.layers[layer.0].status = Status::Done;
        for dependent in self.dependents.get(&layer).cloned().unwrap_or_default() {
            self.advance(dependent);
        }
    }

    fn skip_dependents(&mut self, layer: LayerIndex) {
        for dependent in self.dependents.get(&layer).cloned().unwrap_or_default() {
            if self.layers[dependent.0].status == Status::Open && self.layers[dependent.0].pending.is_none() {
                self.layers[dependent.0].status = Status::Skipped;
                self.skip_dependents(dependent);
            }
        }
    }
}

fn timed(inputs: &[LayerInputs], layers: &[LayerState], wanted: &BTreeSet<LayerIndex>) -> BTreeSet<LayerIndex> {
    let mut timed = BTreeSet::new();
    // What a layer needs has a smaller index.
    for &layer in wanted.iter().rev() {
        if !layers[layer.0].kinds.is_empty() {
            timed.insert(layer);
        }
        if let BaseInput::Built(base) = inputs[layer.0].base
            && timed.contains(&layer)
        {
            timed.insert(base);
        }
    }
    timed
}
