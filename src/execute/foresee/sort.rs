//! Which of the steps that would run do so whatever happens.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::action::{Action, Kind};
use crate::decide::{Run, StepId, StepKind, Why};
use crate::digest::Key;
use crate::error::Result;
use crate::graph::LayerIndex;

use super::open::Open;
use super::{Fate, Gathered};
use crate::execute::{Execution, binds};

/// What is found out of all steps that would run.
#[derive(Default)]
pub(super) struct Sorted {
    /// They run, whatever others come out as: for their own layer, or for another one for which the same is to be done.
    pub certain: BTreeSet<StepId>,
    /// The steps that may turn out to be the same as another one, which then may be first.
    shared: BTreeSet<StepId>,
}

/// A step that would run.
struct Would<'r> {
    run: &'r Run,
    open: Open,
}

impl Execution<'_> {
    /// The steps that would run, each once: of several that are the same, the one that was met first.
    pub(super) fn would_run<'g>(&self, gathered: &'g Gathered) -> Vec<&'g Run> {
        let mut owners: BTreeMap<StepId, &Run> = BTreeMap::new();
        for &layer in &self.wanted {
            for (step, decided) in self.decider.decided(layer).iter().enumerate() {
                if let Some(run) = gathered.runs.get(&decided.key)
                    && run.id == (StepId { layer, step })
                {
                    owners.insert(run.id, run);
                }
            }
        }
        owners.into_values().collect()
    }

    /// Sorts all steps that would run.
    pub(super) fn sorted(&self, gathered: &Gathered) -> Result<Sorted> {
        let runs = self.would_run(gathered);
        let would: Vec<Would> = runs.into_iter().map(|run| Would { run, open: gathered.assumed.open(run) }).collect();
        let known = self.possible_hits(&would)?;
        let certain = would.iter().filter(|it| it.open.is_empty() || !known.contains(&it.run.id));
        let mut sorted = Sorted { certain: certain.map(|it| it.run.id).collect(), shared: alike(&would) };
        // What nothing comes before is the first.
        let is_first = |would: &&Would| would.open.is_empty() && self.waits_for(would.run.id, gathered).is_empty();
        for first in would.iter().filter(|it| sorted.shared.contains(&it.run.id)).filter(is_first).collect::<Vec<_>>() {
            sorted.shared.remove(&first.run.id);
        }
        self.mark_races(gathered, &mut sorted);
        Ok(sorted)
    }

    /// Those that the cache may have a result of, once all that is open is known.
    fn possible_hits(&self, would: &[Would]) -> Result<HashSet<StepId>> {
        let open = would.iter().filter(|would| !would.open.is_empty() && would.run.why != Why::Forced);
        let mut by_shape: HashMap<Key, Vec<Wanted>> = HashMap::new();
        for would in open {
            let blank = would.open.blank(&would.run.action);
            let own = self.earlier(would.run)?.iter().map(Action::key).collect();
            let wanted = Wanted { would, blank, own, names: self.names(would.run) };
            by_shape.entry(shape(&would.run.action)).or_default().push(wanted);
        }
        let mut found = HashSet::new();
        if !by_shape.is_empty() {
            self.database.each_action_with_result(|action| {
                let wanted = by_shape.get(&shape(&action)).into_iter().flatten();
                found.extend(wanted.filter(|wanted| wanted.may_be(&action)).map(|wanted| wanted.would.run.id));
            })?;
        }
        Ok(found)
    }

    /// What the place of an import can end in, whatever links the base has in the way to it.
    fn names(&self, run: &Run) -> Vec<String> {
        let StepKind::Import(index) = run.kind else { return Vec::new() };
        let import = self.decider.import(run.id.layer, index);
        let last = import.dest.as_deref().and_then(last_name).map(str::to_owned);
        last.into_iter().chain([import.basename.clone()]).collect()
    }

    /// Of steps that are the same, who is first depends on who waits for less.
    fn mark_races(&self, gathered: &Gathered, sorted: &mut Sorted) {
        for &layer in &self.wanted {
            for (step, decided) in self.decider.decided(layer).iter().enumerate() {
                let id = StepId { layer, step };
                let Some(owner) = gathered.runs.get(&decided.key).map(|run| run.id).filter(|owner| *owner != id) else {
                    continue;
                };
                let before = self.waits_for(owner, gathered);
                if !before.is_empty() && before != self.waits_for(id, gathered) {
                    sorted.shared.extend([owner, id]);
                    if sorted.certain.contains(&owner) {
                        sorted.certain.insert(id);
                    }
                }
            }
        }
    }

    /// The layers with steps that would run before this one can, itself among them if it has some.
    fn waits_for(&self, id: StepId, gathered: &Gathered) -> BTreeSet<LayerIndex> {
        let runs = |layer: LayerIndex, steps: usize| {
            let decided = self.decider.decided(layer);
            decided.iter().take(steps).any(|decided| gathered.runs.contains_key(&decided.key))
        };
        let needed = self.graph.closure(&[id.layer]).into_iter();
        let steps = |layer: LayerIndex| if layer == id.layer { id.step } else { usize::MAX };
        needed.filter(|layer| runs(*layer, steps(*layer))).collect()
    }

    /// What becomes of a step.
    pub(super) fn fate(&self, id: StepId, key: &Key, gathered: &Gathered, sorted: &Sorted) -> Result<Fate> {
        let Some(run) = gathered.runs.get(key) else { return Ok(Fate::Hit) };
        if run.id != id && !sorted.shared.contains(&id) {
            return Ok(Fate::Shared(run.id.layer));
        }
        if !sorted.certain.contains(&id) {
            let needed = gathered.again.get(key);
            let mut layers = BTreeSet::new();
            for needing in needed.into_iter().flatten() {
                layers.extend(self.nearest_of(*needing, gathered, sorted));
            }
            self.nearest_certain(run, gathered, sorted, &mut layers, &mut BTreeSet::new());
            return Ok(Fate::If { layers, needed: needed.is_some() });
        }
        let run = &Run { id, kind: self.decider.kinds(id.layer)[id.step], ..run.clone() };
        let open = gathered.assumed.open(run);
        let expected = match self.nearest_earlier(run)? {
            Some(old) if !open.is_empty() => open.taken(&run.action, &old),
            _ => run.action.clone(),
        };
        let expected = Run { key: expected.key(), action: expected, ..run.clone() };
        let why = self.reason(&expected)?;
        let reason = format!("{why}{}", binds::unkeyed(&expected));
        let after = gathered.assumed.makers(run).into_iter().map(|maker| maker.layer).collect();
        Ok(Fate::Build { why, reason, after, shared: sorted.shared.contains(&id) })
    }

    /// The nearest layers that are certain to be built and that a step may run for.
    fn nearest_certain(
        &self,
        run: &Run,
        gathered: &Gathered,
        sorted: &Sorted,
        found: &mut BTreeSet<LayerIndex>,
        seen: &mut BTreeSet<StepId>,
    ) {
        for maker in gathered.assumed.makers(run) {
            if !seen.insert(maker) {
                continue;
            }
            if sorted.certain.contains(&maker) {
                found.insert(maker.layer);
            } else if let Some(run) = self.run_of(maker, gathered) {
                self.nearest_certain(run, gathered, sorted, found, seen);
            }
        }
    }

    /// The same of all steps of a layer; the layer itself where there is none.
    fn nearest_of(&self, layer: LayerIndex, gathered: &Gathered, sorted: &Sorted) -> BTreeSet<LayerIndex> {
        let mut found = BTreeSet::new();
        for step in 0..self.decider.decided(layer).len() {
            let id = StepId { layer, step };
            if sorted.certain.contains(&id) {
                found.insert(layer);
            } else if let Some(run) = self.run_of(id, gathered) {
                self.nearest_certain(run, gathered, sorted, &mut found, &mut BTreeSet::new());
            }
        }
        if found.is_empty() {
            found.insert(layer);
        }
        found
    }

    fn run_of<'g>(&self, id: StepId, gathered: &'g Gathered) -> Option<&'g Run> {
        gathered.runs.get(&self.decider.decided(id.layer).get(id.step)?.key)
    }
}

/// What all actions have in common that only differ in what can be open.
fn shape(action: &Action) -> Key {
    Open::all(action).blank(action).key()
}

/// Steps that may turn out to be the same: their actions are equal but for what is open in one of them.
fn alike(would: &[Would]) -> BTreeSet<StepId> {
    let mut groups: HashMap<Key, Vec<&Would>> = HashMap::new();
    for one in would {
        groups.entry(shape(&one.run.action)).or_default().push(one);
    }
    let mut alike = BTreeSet::new();
    for group in groups.into_values() {
        let open = group.iter().fold(Open::default(), |open, would| open.or(&would.open));
        let mut finer: HashMap<Key, Vec<&Would>> = HashMap::new();
        for would in group {
            finer.entry(open.blank(&would.run.action).key()).or_default().push(would);
        }
        alike.extend(finer.into_values().filter(|group| group.len() > 1).flatten().map(|would| would.run.id));
    }
    alike
}

/// A step of which a result is looked for.
struct Wanted<'w> {
    would: &'w Would<'w>,
    /// Its action without what is open.
    blank: Action,
    /// Actions that it had before.
    own: HashSet<Key>,
    /// Of an import.
    names: Vec<String>,
}

impl Wanted<'_> {
    /// Whether this is what is done, should all that is open come out so.
    fn may_be(&self, action: &Action) -> bool {
        let is_place = || match &action.kind {
            // A directory that is imported to a link goes to wherever that leads: the step's own action may say so.
            Kind::Import { dest, .. } => {
                let last = last_name(dest).unwrap_or_default();
                self.names.iter().any(|name| name == last) || self.own.contains(&action.key())
            }
            _ => true,
        };
        self.would.open.blank(action) == self.blank && is_place()
    }
}

/// The last component of a path in an image.
fn last_name(path: &str) -> Option<&str> {
    path.rsplit('/').find(|name| !name.is_empty())
}
