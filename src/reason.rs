//! Why a step runs: a value, made by comparing two actions field by field.
//!
//! The fields compared are those that are hashed ([`Action::fields`]), so an explanation cannot drift from the key.

mod show;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::action::{Action, Field, Kind, Shows};
use crate::digest::{ContentDigest, TreeDigest};

/// Why a step runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No earlier action of this layer is known.
    NeverBuilt,
    /// `--rebuild` or `--no-cache`.
    Forced,
    /// It was built before, but its data is gone.
    Evicted,
    /// The action differs from the layer's earlier one; root causes first.
    Changed(Vec<Change>),
    /// The very action was begun before and has no result: it failed, or was interrupted.
    NoResult,
    /// The very action was done before, and its result not kept: why.
    NotKept(String),
}

/// One difference of two actions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Content of imports, with the first files that differ and how many differ in all.
    Import {
        /// The import's place, or dest.
        place: String,
        /// First differing files, relative to the import; empty when the listings are not known.
        files: Vec<FileChange>,
    },
    /// Content of a bind: as of an import.
    Bind {
        /// Its place.
        place: String,
        /// First differing files, relative to the bind; empty when the listings are not known.
        files: Vec<FileChange>,
    },
    /// A socket or device in a bind appeared or went: its place.
    Node(String),
    /// A bind appeared, went, or is now of another kind.
    Binds,
    /// An import appeared or went.
    Imports,
    /// The tar base is another file.
    Tar,
    /// Text of the script.
    Script,
    /// A variable: added, removed, or with another value.
    Variable(String),
    /// Mode, owner or place of an import.
    Attributes(String),
    /// Network mode.
    Network,
    /// Platform.
    Platform,
    /// Ids of the tier.
    Ids,
    /// The layers beneath.
    Base,
    /// Layer time alone.
    Time,
    /// It is another kind of step.
    Kind,
}

/// One file of an import that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct FileChange {
    /// Path in the import; empty for the import itself.
    pub path: String,
    /// How.
    pub how: FileHow,
}

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileHow {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its content, type, mode, owner or link text is another.
    Changed,
}

/// The differences from `old` to `new`, root causes first. `files` tells how two import trees differ, where known.
pub fn compare(
    old: &Action,
    new: &Action,
    files: &dyn Fn(TreeDigest, TreeDigest) -> Option<Vec<FileChange>>,
) -> Vec<Change> {
    let (before, after) = (Facts::of(old), Facts::of(new));
    let mut changes = Vec::new();
    for name in before.0.keys().chain(after.0.keys().filter(|name| !before.0.contains_key(*name))) {
        let (old, new) = (before.0.get(name), after.0.get(name));
        if old != new {
            changes.push(explain(name, old, new, files));
        }
    }
    let all = changes.clone();
    changes.retain(|change| !change.in_imports().is_some_and(|same| all.contains(&same)));
    changes.sort_by_key(Change::rank);
    changes.dedup();
    changes
}

/// The fields of an action under names that tell which of two actions' fields belong together.
struct Facts(BTreeMap<Name, Fact>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    One(&'static str),
    Variable(String),
    Import(String),
    Bind(String),
    Node(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fact {
    Text(String),
    Tree(TreeDigest, String),
}

impl Facts {
    fn of(action: &Action) -> Facts {
        let single = matches!(action.kind, Kind::Import { .. });
        Facts(action.fields().iter().map(|field| fact(field, single)).collect())
    }
}

fn fact(field: &Field, single: bool) -> (Name, Fact) {
    let text = Fact::Text(field.line());
    match field {
        Field::Kind(_) => (Name::One("kind"), text),
        Field::Platform(_) => (Name::One("platform"), text),
        Field::Ids(_) => (Name::One("ids"), text),
        Field::Base(_) => (Name::One("base"), text),
        Field::Time(_) => (Name::One("time"), text),
        Field::Tar(_) => (Name::One("tar"), text),
        Field::Script(_) => (Name::One("script"), text),
        Field::Network(_) => (Name::One("network"), text),
        Field::Variable(name, _) => (Name::Variable((*name).to_owned()), text),
        Field::Bind(bind) => {
            let fact = match &bind.shows {
                Shows::Tree { tree, .. } => Fact::Tree(*tree, String::new()),
                Shows::Node { .. } | Shows::Anything => text,
            };
            (Name::Bind(bind.place.clone()), fact)
        }
        Field::Node(place, path, _) => (Name::Node((*place).to_owned(), (*path).to_owned()), text),
        Field::Tree(tree, dest, attributes) => {
            // The one tree of an Import step: that its place changed is a change of attributes, not another import.
            debug_assert!(single);
            (Name::Import(String::new()), Fact::Tree(*tree, format!("{dest}{}", attributes.words())))
        }
        Field::Mount(mount) => (Name::Import(mount.place.clone()), Fact::Tree(mount.tree, mount.attributes.words())),
    }
}

fn explain(
    name: &Name,
    old: Option<&Fact>,
    new: Option<&Fact>,
    files: &dyn Fn(TreeDigest, TreeDigest) -> Option<Vec<FileChange>>,
) -> Change {
    match (name, old, new) {
        (Name::Variable(name), ..) => Change::Variable(name.clone()),
        (Name::Import(place), Some(Fact::Tree(old, _)), Some(Fact::Tree(new, _))) if old != new => {
            Change::Import { place: place.clone(), files: files(*old, *new).unwrap_or_default() }
        }
        (Name::Import(place), Some(_), Some(_)) => Change::Attributes(place.clone()),
        (Name::Import(_), ..) => Change::Imports,
        (Name::Bind(place), Some(Fact::Tree(old, _)), Some(Fact::Tree(new, _))) => {
            Change::Bind { place: place.clone(), files: files(*old, *new).unwrap_or_default() }
        }
        (Name::Bind(_), ..) => Change::Binds,
        (Name::Node(place, path), ..) => Change::Node(format!("{place}/{path}")),
        (Name::One(name), ..) => match *name {
            "kind" => Change::Kind,
            "platform" => Change::Platform,
            "ids" => Change::Ids,
            "base" => Change::Base,
            "time" => Change::Time,
            "tar" => Change::Tar,
            "network" => Change::Network,
            _ => Change::Script,
        },
    }
}

/// The files that differ between two listings of import trees, each given as sorted (path, everything but the time).
pub fn compare_files(old: &BTreeMap<Vec<u8>, String>, new: &BTreeMap<Vec<u8>, String>) -> Vec<FileChange> {
    let path = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let mut changes: Vec<FileChange> = new
        .iter()
        .filter(|(name, line)| old.get(*name) != Some(line))
        .map(|(name, _)| FileChange {
            path: path(name),
            how: if old.contains_key(name) { FileHow::Changed } else { FileHow::Added },
        })
        .collect();
    let removed = old.keys().filter(|name| !new.contains_key(*name));
    changes.extend(removed.map(|name| FileChange { path: path(name), how: FileHow::Removed }));
    changes.sort();
    changes
}

/// What of an entry can differ between two import trees, as one text.
pub fn file_fact(entry: &crate::listing::Entry) -> String {
    let none = ContentDigest([0; 32]);
    let content = match &entry.kind {
        crate::listing::Kind::File { content, .. } => *content,
        _ => none,
    };
    format!("{:?} {content} {:o} {} {} {:?}", entry.kind, entry.mode, entry.uid, entry.gid, entry.xattrs)
}

impl Change {
    /// The same of what an `import` shows in `/stacker/imports` too: one change of one import.
    fn in_imports(&self) -> Option<Change> {
        let twin = |place: &str| Some(format!("/stacker/imports/{}", place.strip_prefix("/stacker/")?));
        match self {
            Change::Import { place, files } => Some(Change::Import { place: twin(place)?, files: files.clone() }),
            Change::Attributes(place) => Some(Change::Attributes(twin(place)?)),
            _ => None,
        }
    }

    /// Root causes first: what a person edits before what follows from it.
    fn rank(&self) -> u8 {
        match self {
            Change::Kind => 0,
            Change::Import { .. } | Change::Bind { .. } | Change::Node(_) | Change::Tar => 1,
            Change::Imports | Change::Binds | Change::Script => 2,
            Change::Variable(_) | Change::Attributes(_) => 3,
            Change::Network | Change::Platform | Change::Ids => 4,
            Change::Base => 5,
            Change::Time => 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Attributes, Ids, Mount, Network, Platform};
    use crate::digest::ChainId;

    fn run(script: &str, variable: &str, tree: u8, base: u8) -> Action {
        Action {
            platform: Platform { os: "linux".into(), arch: "amd64".into() },
            ids: Ids::Full,
            base: ChainId([base; 32]),
            time: 946_684_802,
            kind: Kind::Run {
                script: script.into(),
                environment: [("CFLAGS".to_owned(), variable.to_owned())].into(),
                mounts: vec![Mount {
                    place: "/stacker/imports/src".into(),
                    tree: TreeDigest([tree; 32]),
                    attributes: Attributes::default(),
                }],
                binds: vec![],
                network: Network::Host,
            },
        }
    }

    #[test]
    fn an_import_that_is_seen_twice_changes_once() {
        let twice = |tree, mode| {
            let mut action = run("make", "-O2", tree, 1);
            if let Kind::Run { mounts, .. } = &mut action.kind {
                mounts[0].attributes.mode = mode;
                mounts.push(Mount { place: "/stacker/src".into(), ..mounts[0].clone() });
            }
            action
        };
        let text = |old, new| Reason::Changed(compare(&old, &new, &|_, _| None)).to_string();
        assert_eq!(text(twice(1, None), twice(2, None)), "/stacker/imports/src changed");
        assert_eq!(text(twice(1, None), twice(1, Some(0o600))), "mode or owner of /stacker/imports/src changed");
        assert_eq!(text(run("make", "-O2", 1, 1), twice(1, None)), "list of imports changed");
    }

    #[test]
    fn the_first_words_name_the_root_cause() {
        let old = run("make", "-O2", 1, 1);
        let files = |_: TreeDigest, _: TreeDigest| {
            let change = |path: &str| FileChange { path: path.into(), how: FileHow::Changed };
            Some(vec![change("app.c"), change("b.c"), change("c.c")])
        };
        for (new, text) in [
            (run("make all", "-O2", 1, 1), "script changed"),
            (run("make", "-O3", 1, 1), "variable CFLAGS changed"),
            (run("make", "-O2", 2, 1), "src/app.c changed (+2 files)"),
            (run("make", "-O2", 1, 2), "base changed"),
            (run("make all", "-O2", 1, 2), "script changed"),
            (run("make all", "-O3", 1, 1), "script changed, 1 more"),
        ] {
            assert_eq!(Reason::Changed(compare(&old, &new, &files)).to_string(), text);
        }
        assert_eq!(compare(&old, &old, &files), []);
    }
}
