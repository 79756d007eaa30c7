//! The differences of two actions.

use std::collections::BTreeMap;

use super::{Change, Files, How, Images, Origin};
use crate::action::{Action, Bind, Field, Ids, Mount, Platform, Shows};
use crate::digest::{ChainId, TreeDigest};

/// Of so many actions that differ in as many fields it is looked in how many files.
const ALIKE: usize = 3;

/// What is known beside two actions.
pub trait Known {
    /// How two import trees differ; `None`: the listings are not there.
    fn files(&self, old: TreeDigest, new: TreeDigest) -> Option<Files>;
    /// The layer that brought about another state of what comes out of a layer; `None`: it does not, or nobody knows.
    fn origin(&self, taken: Taken) -> Option<Origin>;
    /// What the base image's name led to; `None`: the base is none.
    fn images(&self, old: ChainId, new: ChainId) -> Option<Images>;
}

/// Who knows nothing beside two actions.
pub struct Nothing;

impl Known for Nothing {
    fn files(&self, _: TreeDigest, _: TreeDigest) -> Option<Files> {
        None
    }
    fn origin(&self, _: Taken) -> Option<Origin> {
        None
    }
    fn images(&self, _: ChainId, _: ChainId) -> Option<Images> {
        None
    }
}

/// What a step may take from another layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<'a> {
    /// Its base, which was one and is the other.
    Base(ChainId, ChainId),
    /// Its tar.
    Tar,
    /// The import at a place; empty: the one import of the step.
    Import(&'a str),
}

/// The differences from `old` to `new`, root causes first.
pub fn compare(old: &Action, new: &Action, known: &dyn Known) -> Vec<Change> {
    let (before, after) = (by_name(old), by_name(new));
    let mut changes = Vec::new();
    for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
        let pair = Pair { old: before.get(name), new: after.get(name) };
        // (Of a bind, the nodes in it are fields of their own.)
        if pair.old.map(Field::line) != pair.new.map(Field::line) && !pair.follows_time(old, new) {
            changes.push(pair.explain(known));
        }
    }
    if changes.is_empty() && old != new {
        changes.push(Change::Order);
    }
    let based = changes.iter().any(|change| matches!(change, Change::Base { .. }));
    let all = changes.clone();
    changes.retain(|change| !change.in_imports().is_some_and(|same| all.contains(&same)));
    changes.retain(|change| !based || !matches!(change, Change::Time { .. }));
    changes.sort_by_key(Change::rank);
    changes
}

/// The one of some actions that differs least from another; of several such the first.
pub fn nearest(action: &Action, others: Vec<Action>, known: &dyn Known) -> Option<Action> {
    let count = |other: &Action| compare(other, action, &Nothing).len();
    let least = others.iter().map(count).min()?;
    let mut near: Vec<Action> = others.into_iter().filter(|other| count(other) == least).collect();
    near.truncate(ALIKE);
    if near.len() == 1 {
        return near.pop();
    }
    // Listings are read only where there is a choice.
    let files = |change: &Change| match change {
        Change::Import { files, .. } | Change::Bind { files, .. } => {
            files.as_ref().map_or(usize::MAX / 64, |it| it.count)
        }
        _ => 0,
    };
    near.into_iter().min_by_key(|other| compare(other, action, known).iter().map(files).sum::<usize>())
}

/// By which the fields of two actions belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name<'a> {
    Kind,
    Platform,
    Ids,
    Base,
    Time,
    Tar,
    Script,
    Network,
    Variable(&'a str),
    Import(&'a str),
    Bind(&'a str),
    Node(&'a str, &'a str),
}

fn by_name(action: &Action) -> BTreeMap<Name<'_>, Field<'_>> {
    action.fields().into_iter().map(|field| (name(&field), field)).collect()
}

/// (Patterns without `..`: a new part of a field does not compile until it is looked at here.)
fn name<'a>(field: &Field<'a>) -> Name<'a> {
    match field {
        Field::Kind(_) => Name::Kind,
        Field::Platform(Platform { os: _, arch: _ }) => Name::Platform,
        Field::Ids(_) => Name::Ids,
        Field::Base(_) => Name::Base,
        Field::Time(_) => Name::Time,
        Field::Tar(_) => Name::Tar,
        Field::Script(_) => Name::Script,
        Field::Network(_) => Name::Network,
        Field::Variable(name, _) => Name::Variable(name),
        // The one tree of an import step: that its place changed is a change of attributes, not another import.
        Field::Tree(_, _, _) => Name::Import(""),
        Field::Mount(Mount { place, tree: _, attributes: _ }) => Name::Import(place),
        Field::Bind(Bind { place, shows: _ }) => Name::Bind(place),
        Field::Node(place, path, _) => Name::Node(place, path),
    }
}

/// A field of two actions that is not the same in both; one of them may not have it.
struct Pair<'a> {
    old: Option<&'a Field<'a>>,
    new: Option<&'a Field<'a>>,
}

impl<'a> Pair<'a> {
    /// Either has it.
    fn either(&self) -> &'a Field<'a> {
        self.new.or(self.old).expect("one of the two actions has the field")
    }

    fn how(&self) -> How {
        match (self.old, self.new) {
            (None, _) => How::Added,
            (_, None) => How::Removed,
            _ => How::Changed,
        }
    }

    /// What a function takes out of the field in both; where one does not have it, that of the other.
    fn both<T>(&self, take: impl Fn(&'a Field<'a>) -> T) -> (T, T) {
        (take(self.old.unwrap_or(self.either())), take(self.new.unwrap_or(self.either())))
    }

    /// The variable that says nothing but the layer time, which follows from the base.
    fn follows_time(&self, old: &Action, new: &Action) -> bool {
        let is_time = |field: Option<&Field>, action: &Action| matches!(field, Some(Field::Variable("SOURCE_DATE_EPOCH", value)) if *value == action.time.to_string());
        is_time(self.old, old) && is_time(self.new, new)
    }

    fn explain(&self, known: &dyn Known) -> Change {
        // The last words of a field's line are its value.
        let words = |field: &Field| field.line().split_once(' ').map_or_else(String::new, |line| line.1.to_owned());
        let ((old, new), how) = (self.both(words), self.how());
        match self.either() {
            Field::Kind(_) => Change::Kind { old, new },
            Field::Ids(Ids::Full | Ids::Single) => Change::Ids { old, new },
            Field::Network(_) => Change::Network { old, new },
            Field::Platform(_) => {
                let (old, new) = self.both(|field| match field {
                    Field::Platform(Platform { os, arch }) => format!("{os}/{arch}"),
                    _ => String::new(),
                });
                Change::Platform { old, new }
            }
            Field::Base(_) => self.base(known),
            Field::Time(_) => {
                let (old, new) = self.both(|field| if let Field::Time(time) = field { *time } else { 0 });
                Change::Time { old, new }
            }
            Field::Tar(tar) => {
                let (old, new) = self.both(|field| if let Field::Tar(tar) = field { *tar } else { *tar });
                Change::Tar { old, new, origin: known.origin(Taken::Tar) }
            }
            Field::Script(_) => self.script(),
            Field::Variable(name, _) => {
                let value = |field: Option<&Field>| match field {
                    Some(Field::Variable(_, value)) => Some((*value).to_owned()),
                    _ => None,
                };
                Change::Variable { name: (*name).to_owned(), old: value(self.old), new: value(self.new) }
            }
            Field::Tree(_, dest, _) => self.import("", dest, known),
            Field::Mount(mount) => self.import(&mount.place, &mount.place, known),
            Field::Bind(bind) => self.bind(&bind.place, known),
            Field::Node(place, path, _) => Change::Node { place: format!("{place}/{path}"), how },
        }
    }

    fn base(&self, known: &dyn Known) -> Change {
        let chain = |field: &Field| if let Field::Base(chain) = field { *chain } else { ChainId::SCRATCH };
        let (old, new) = self.both(chain);
        Change::Base { old, new, image: known.images(old, new), origin: known.origin(Taken::Base(old, new)) }
    }

    /// Of the import that is called `place` in its step, and is at `at`.
    fn import(&self, place: &str, at: &str, known: &dyn Known) -> Change {
        let place = place.to_owned();
        if self.how() != How::Changed {
            return Change::ImportList { place, how: self.how() };
        }
        let parts = |field: &Field| match field {
            Field::Tree(tree, dest, attributes) => (Some(*tree), format!("{dest}{}", attributes.words())),
            Field::Mount(Mount { place: _, tree, attributes }) => (Some(*tree), attributes.words()),
            _ => (None, String::new()),
        };
        match self.both(parts) {
            ((Some(old), _), (Some(new), _)) if old != new => {
                let (files, origin) = (known.files(old, new), known.origin(Taken::Import(&place)));
                Change::Import { place: at.to_owned(), files, origin }
            }
            ((_, old), (_, new)) => {
                Change::Attributes { place, old: old.trim_start().to_owned(), new: new.trim_start().to_owned() }
            }
        }
    }

    fn bind(&self, place: &str, known: &dyn Known) -> Change {
        let tree = |field: &Field| match field {
            Field::Bind(Bind { place: _, shows: Shows::Tree { tree, nodes: _ } }) => Some(*tree),
            _ => None,
        };
        let place = place.to_owned();
        match (self.how(), self.both(tree)) {
            (How::Changed, (Some(old), Some(new))) => Change::Bind { place, files: known.files(old, new) },
            (how, _) => Change::BindList { place, how },
        }
    }

    fn script(&self) -> Change {
        let text = |field: Option<&'a Field<'a>>| match field {
            Some(Field::Script(script)) => lines(script),
            _ => vec![],
        };
        let (old, new) = (text(self.old), text(self.new));
        let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
        let line = |lines: &[&str]| lines.get(same).map(|line| (*line).to_owned());
        Change::Script { line: same + 1, old: line(&old), new: line(&new), old_lines: old.len(), new_lines: new.len() }
    }
}

/// The lines of a script as they stand in a stackerfile.
fn lines(script: &str) -> Vec<&str> {
    script.strip_prefix("#!/bin/sh -xe\n").unwrap_or(script).lines().collect()
}

impl Change {
    /// The same of what an `import` shows in `/stacker/imports` too: one change of one import.
    fn in_imports(&self) -> Option<Change> {
        let twin = |place: &str| Some(format!("/stacker/imports/{}", place.strip_prefix("/stacker/")?));
        let mut same = self.clone();
        match &mut same {
            Change::Import { place, .. } | Change::Attributes { place, .. } => *place = twin(place)?,
            _ => return None,
        }
        Some(same)
    }
}
