//! What of an action is not known before steps have run that it follows from, and which known actions it could be.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::action::{Action, Kind};
use crate::decide::{Answer, Outcome, Question, Run, SourceKind, StepId, StepKind};
use crate::digest::{Chain, ChainId, ContentDigest, DiffId, Key, TreeDigest};

/// What stands in for what steps come out as that have not run: values that nothing else has.
#[derive(Debug, Default)]
pub(super) struct Assumed {
    /// Layers, with the steps that would make them.
    makers: HashMap<DiffId, StepId>,
    /// Trees in such layers, and in which.
    trees: HashMap<TreeDigest, Chain>,
    contents: HashMap<ContentDigest, Chain>,
    places: HashMap<String, Chain>,
    /// Base images whose times nobody has read yet.
    timeless: Vec<Chain>,
}

/// The fields of an action that are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    base: bool,
    time: bool,
    tar: bool,
    tree: bool,
    dest: bool,
    /// By their places in the list.
    mounts: BTreeSet<usize>,
}

impl Assumed {
    /// What a step comes out as for all that stands on it.
    pub fn outcome(&mut self, run: &Run) -> Outcome {
        let diff_id = DiffId(*blake3::hash(format!("assumed {}", run.key).as_bytes()).as_bytes());
        let changes = run.kind != StepKind::Labels;
        if changes {
            self.makers.insert(diff_id, run.id);
        }
        Outcome { diff_id: changes.then_some(diff_id), newest: run.action.time }
    }

    /// How many layers of a chain are known, from the bottom.
    pub fn known(&self, chain: &Chain) -> usize {
        chain.0.iter().position(|diff_id| self.makers.contains_key(diff_id)).unwrap_or(chain.0.len())
    }

    /// An answer that says nothing, to a question about what is not there.
    pub fn answer(&mut self, question: &Question) -> Answer {
        let hash =
            |chain: &Chain, rest: &str| *blake3::hash(format!("assumed {} {rest}", chain.id()).as_bytes()).as_bytes();
        match question {
            Question::Newest(chain) => {
                self.timeless.push(chain.clone());
                Answer::Newest(0)
            }
            Question::Tree { chain, path } => {
                let tree = TreeDigest(hash(chain, path));
                self.trees.insert(tree, chain.clone());
                Answer::Tree { tree, kind: SourceKind::File, resolved: path.trim_matches('/').into() }
            }
            Question::Content { chain, path } => {
                let content = ContentDigest(hash(chain, path));
                self.contents.insert(content, chain.clone());
                Answer::Content { content, resolved: path.trim_matches('/').into() }
            }
            Question::Place { chain, dest, basename, .. } => {
                let place = format!("/{}", Key(hash(chain, &format!("{dest} {basename}"))));
                self.places.insert(place.clone(), chain.clone());
                Answer::Place(place)
            }
            Question::Result(_) => Answer::Result(None),
        }
    }

    /// What of a step's action is not known.
    pub fn open(&self, run: &Run) -> Open {
        let base = self.known(&run.parent) < run.parent.0.len();
        let timeless = self.timeless.iter().any(|beneath| run.parent.0.starts_with(&beneath.0));
        let mut open = Open { base, time: base || timeless, ..Open::default() };
        match &run.action.kind {
            Kind::Unpack { tar } => open.tar = self.contents.contains_key(tar),
            Kind::Import { tree, dest, .. } => {
                open.tree = self.trees.contains_key(tree);
                // A file goes to another place than a directory.
                open.dest = open.tree || self.places.contains_key(dest);
            }
            Kind::Run { mounts, .. } => {
                let unknown = |(_, mount): &(usize, &crate::action::Mount)| self.trees.contains_key(&mount.tree);
                open.mounts = mounts.iter().enumerate().filter(unknown).map(|(index, _)| index).collect();
            }
            Kind::Labels { .. } => {}
        }
        open
    }

    /// The steps that a step's action follows from, of each chain the last one.
    pub fn makers(&self, run: &Run) -> BTreeSet<StepId> {
        let mut chains = vec![&run.parent];
        match &run.action.kind {
            Kind::Unpack { tar } => chains.extend(self.contents.get(tar)),
            Kind::Import { tree, dest, .. } => {
                chains.extend(self.trees.get(tree));
                chains.extend(self.places.get(dest));
            }
            Kind::Run { mounts, .. } => chains.extend(mounts.iter().filter_map(|mount| self.trees.get(&mount.tree))),
            Kind::Labels { .. } => {}
        }
        chains
            .iter()
            .filter_map(|chain| chain.0.iter().rev().find_map(|diff_id| self.makers.get(diff_id)))
            .copied()
            .collect()
    }
}

impl Open {
    /// Everything that can be open.
    pub fn all(action: &Action) -> Open {
        let mounts = match &action.kind {
            Kind::Run { mounts, .. } => (0..mounts.len()).collect(),
            _ => BTreeSet::new(),
        };
        Open { base: true, time: true, tar: true, tree: true, dest: true, mounts }
    }

    /// Whether all is known.
    pub fn is_empty(&self) -> bool {
        *self == Open::default()
    }

    /// What is open in one of two.
    pub fn or(&self, other: &Open) -> Open {
        Open {
            base: self.base || other.base,
            time: self.time || other.time,
            tar: self.tar || other.tar,
            tree: self.tree || other.tree,
            dest: self.dest || other.dest,
            mounts: self.mounts.union(&other.mounts).copied().collect(),
        }
    }

    /// The action without what is open: two that are equal then may be the same.
    pub fn blank(&self, action: &Action) -> Action {
        let mut nothing = Action { base: ChainId::SCRATCH, time: 0, ..action.clone() };
        match &mut nothing.kind {
            Kind::Unpack { tar } => *tar = ContentDigest([0; 32]),
            Kind::Import { tree, dest, .. } => (*tree, *dest) = (TreeDigest([0; 32]), String::new()),
            Kind::Run { mounts, environment, .. } => {
                mounts.iter_mut().for_each(|mount| mount.tree = TreeDigest([0; 32]));
                without_time(environment, action.time);
            }
            Kind::Labels { environment, .. } => without_time(environment, action.time),
        }
        self.taken(action, &nothing)
    }

    /// The action with what is open taken from another one.
    pub fn taken(&self, action: &Action, from: &Action) -> Action {
        let mut taken = action.clone();
        if self.base {
            taken.base = from.base;
        }
        if self.time {
            taken.time = from.time;
        }
        match (&mut taken.kind, &from.kind) {
            (Kind::Unpack { tar }, Kind::Unpack { tar: old }) if self.tar => *tar = *old,
            (Kind::Import { tree, dest, .. }, Kind::Import { tree: old, dest: place, .. }) => {
                if self.tree {
                    *tree = *old;
                }
                if self.dest {
                    dest.clone_from(place);
                }
            }
            (Kind::Run { mounts, environment, .. }, Kind::Run { mounts: old, environment: variables, .. }) => {
                for mount in self.mounts.iter().filter_map(|index| mounts.get(*index)).cloned().collect::<Vec<_>>() {
                    let before = old.iter().find(|old| old.place == mount.place).map(|old| old.tree);
                    mounts
                        .iter_mut()
                        .filter(|it| it.place == mount.place)
                        .for_each(|it| it.tree = before.unwrap_or(it.tree));
                }
                self.take_time(environment, variables, action.time);
            }
            (Kind::Labels { environment, .. }, Kind::Labels { environment: variables, .. }) => {
                self.take_time(environment, variables, action.time);
            }
            _ => {}
        }
        taken
    }

    /// The variable that says the layer's time.
    fn take_time(&self, variables: &mut BTreeMap<String, String>, from: &BTreeMap<String, String>, time: i64) {
        if !self.time || variables.get(EPOCH).is_none_or(|epoch| *epoch != time.to_string()) {
            return;
        }
        variables.remove(EPOCH);
        variables.extend(from.get(EPOCH).map(|epoch| (EPOCH.to_owned(), epoch.clone())));
    }
}

const EPOCH: &str = "SOURCE_DATE_EPOCH";

fn without_time(variables: &mut BTreeMap<String, String>, time: i64) {
    if variables.get(EPOCH).is_some_and(|epoch| *epoch == time.to_string()) {
        variables.remove(EPOCH);
    }
}
