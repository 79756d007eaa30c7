//! What a build would do, without doing it: the Decider is told of each step that would run that it came out as
//! something that nobody knows yet.
//!
//! Whatever follows from such a step has an action of which some fields are open ([`Open`]). Where an action that could
//! be it has a result in the cache, or would be run for another layer, it may be a hit: it runs *if*. Where there is
//! none it runs whatever happens. Data that is gone is found missing in the same way as by a build, first by the steps
//! that certainly run, then by those that may.

mod lost;
mod open;
mod sort;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map};

use crate::decide::{Question, Run, Status, StepId};
use crate::digest::{Chain, ChainId, DiffId, Key};
use crate::error::Result;
use crate::graph::LayerIndex;
use crate::reason::Reason;

use super::Execution;
use open::Assumed;

/// A step of a build that is foreseen.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// Which.
    pub id: StepId,
    /// `unpack`, `import`, `run`, `labels`.
    pub step: &'static str,
    /// Its key; `None`: it follows from steps that have not run.
    pub key: Option<Key>,
    /// What becomes of it.
    pub fate: Fate,
    /// How long it took the last time, for those that may run.
    pub seconds: Option<f64>,
}

impl Foreseen {
    /// Whether a layer may come out of it that was not there, so that it is compressed.
    pub fn may_make(&self) -> bool {
        matches!(self.fate, Fate::Build { .. } | Fate::If { .. }) && self.step != "labels"
    }
}

/// What becomes of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its result is used.
    Hit,
    /// It is the same as a step of this layer, whose result is used.
    Shared(LayerIndex),
    /// It runs, whatever those before it come out as.
    Build {
        /// Why, if what it stands on comes out as it was.
        why: Reason,
        /// The same in the words of a build.
        reason: String,
        /// The layers that may come out different and add to the reason.
        after: BTreeSet<LayerIndex>,
        /// It may turn out to be the same as a step of another layer, and runs for one of them.
        shared: bool,
    },
    /// It runs if one of these comes out different, or (where `needed`) if one of them runs, which needs its data.
    If {
        /// Which. None: what it stands on has to be looked at first.
        layers: BTreeSet<LayerIndex>,
        /// Its own data is gone.
        needed: bool,
    },
}

/// All steps that are not mere hits of a layer that fails, and the layers that do.
#[derive(Clone, Debug, Default)]
pub struct Foresight {
    /// In the order of a serial build.
    pub steps: Vec<Foreseen>,
    /// Layers that fail before all of them is decided, and those that need them.
    pub failing: BTreeSet<LayerIndex>,
    /// Why, of the former.
    pub failures: BTreeMap<LayerIndex, String>,
    /// Seconds that compressing took when it was built last, of layers with images that may be built.
    pub compressions: BTreeMap<LayerIndex, f64>,
}

/// What is gathered on the way.
#[derive(Default)]
struct Gathered {
    assumed: Assumed,
    /// What was handed out.
    runs: HashMap<Key, Run>,
    /// Data that was found to be gone, and which layers missed it.
    missed: HashMap<ChainId, BTreeSet<LayerIndex>>,
    /// The keys that run again for it, by what they made.
    again: HashMap<Key, BTreeSet<LayerIndex>>,
    /// Layers that were seen to have their blobs; whether they are a base image's makes a difference.
    packed: HashSet<(DiffId, bool)>,
    /// Stacks whose top was seen to lack one.
    unpacked: HashSet<ChainId>,
}

impl Gathered {
    /// The lower part of a chain, which is known.
    fn known(&self, chain: &Chain) -> Chain {
        Chain(chain.0[..self.assumed.known(chain)].to_vec())
    }
}

impl Execution<'_> {
    /// What a build would do now. Nothing is run, fetched or unpacked; answers about listings are remembered.
    pub fn foresee(mut self) -> Result<Foresight> {
        let mut gathered = Gathered::default();
        self.settle(&mut gathered)?;
        while self.miss_data(&mut gathered, Certainty::Certain)? {
            self.settle(&mut gathered)?;
        }
        let certain = self.sorted(&gathered)?.certain;
        while self.miss_data(&mut gathered, Certainty::Possible)? {
            self.settle(&mut gathered)?;
        }
        let mut sorted = self.sorted(&gathered)?;
        // What is missed only by what may not run makes nothing certain.
        sorted.certain.retain(|id| certain.contains(id));
        self.foresight(&gathered, &sorted)
    }

    /// Goes on until nothing is open, with every step that would run taken for done.
    fn settle(&mut self, gathered: &mut Gathered) -> Result<()> {
        self.database.begin_reading()?;
        loop {
            while let Some(question) = self.decider.next_question() {
                self.consider(question, gathered)?;
            }
            if self.waiting > 0 {
                self.database.end_reading()?;
                // We hold a sender, so the channel cannot be closed.
                let Ok(message) = self.receiver.recv() else { break };
                self.take(message)?;
            } else if let Some(run) = self.decider.next_run() {
                let outcome = gathered.assumed.outcome(&run);
                self.decider.finished(run.id, run.key, outcome, true);
                gathered.runs.insert(run.key, run);
            } else {
                break;
            }
        }
        self.database.end_reading()?;
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Answers from the database and from listings that are there.
    fn consider(&mut self, question: Question, gathered: &mut Gathered) -> Result<()> {
        let chain = match &question {
            Question::Result(_) => return self.ask(question),
            Question::Newest(chain)
            | Question::Tree { chain, .. }
            | Question::Content { chain, .. }
            | Question::Place { chain, .. } => chain.clone(),
        };
        if gathered.assumed.known(&chain) == chain.0.len() {
            if let Some(answer) = self.known(&question)? {
                self.decider.answered(question, answer);
                return Ok(());
            }
            if chain.0.iter().all(|diff_id| self.site.stacker.listing(diff_id).exists()) {
                return self.ask(question);
            }
            if let Some(lost) = self.lost_listing(&chain)?
                && self.decider.evicted(lost)
            {
                self.decider.forget(&question);
                return Ok(());
            }
        }
        let answer = gathered.assumed.answer(&question);
        self.decider.answered(question, answer);
        Ok(())
    }

    fn foresight(&mut self, gathered: &Gathered, sorted: &sort::Sorted) -> Result<Foresight> {
        let mut foresight = Foresight { failures: std::mem::take(&mut self.failures), ..Foresight::default() };
        let count = self.wanted.iter().map(|layer| self.decider.decided(*layer).len()).sum();
        foresight.steps.reserve(count);
        self.database.begin_reading()?;
        for layer in self.wanted.clone() {
            if self.decider.status(layer) != Status::Done {
                foresight.failing.insert(layer);
            }
            for (step, decided) in self.decider.decided(layer).to_vec().into_iter().enumerate() {
                let id = StepId { layer, step };
                let fate = self.fate(id, &decided.key, gathered, sorted)?;
                let run = gathered.runs.get(&decided.key);
                let seconds = match fate {
                    Fate::Build { .. } | Fate::If { .. } => self.took_before(id, &decided.key)?,
                    Fate::Hit | Fate::Shared(_) => None,
                };
                let key = run.is_none_or(|run| gathered.assumed.open(run).is_empty()).then_some(decided.key);
                let step = self.decider.kinds(layer)[step].name();
                foresight.steps.push(Foreseen { id, step, key, fate, seconds });
            }
        }
        foresight.compressions = self.compressions(&foresight.steps)?;
        self.database.end_reading()?;
        Ok(foresight)
    }

    fn compressions(&self, steps: &[Foreseen]) -> Result<BTreeMap<LayerIndex, f64>> {
        let makers: BTreeSet<LayerIndex> = steps.iter().filter(|step| step.may_make()).map(|it| it.id.layer).collect();
        let mut seconds = BTreeMap::new();
        // Many were built together.
        let mut builds = HashMap::new();
        for &layer in makers.intersection(&self.options.emitted) {
            let node = &self.graph[layer].layer;
            let scope = node.place.path.to_string_lossy().into_owned();
            let Some(build) = self.database.last_built(&node.name, &scope)? else { continue };
            if let hash_map::Entry::Vacant(entry) = builds.entry(build) {
                entry.insert(self.database.compressions(build)?);
            }
            seconds.extend(builds[&build].get(&(scope, node.name.clone())).map(|took| (layer, *took)));
        }
        Ok(seconds)
    }

    /// How long a step took when it ran last.
    fn took_before(&self, id: StepId, key: &Key) -> Result<Option<f64>> {
        let node = &self.graph[id.layer];
        let scope = node.layer.place.path.to_string_lossy().into_owned();
        let last = self.database.last_actions(&scope, &node.layer.name)?;
        let kind = self.decider.kinds(id.layer)[id.step].name();
        for key in std::iter::once(key).chain(last.get(id.step)) {
            if let Some(seconds) = self.database.seconds(key)? {
                return Ok(Some(seconds));
            }
        }
        self.database.last_seconds(&scope, &node.layer.name, kind)
    }
}

/// Which steps' data is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// Of steps that run whatever happens, and images.
    Certain,
    /// Of all that may run.
    Possible,
}
