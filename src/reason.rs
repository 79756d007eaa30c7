//! Why a step runs: a value, made by comparing two actions field by field.
//!
//! The fields compared are those that are hashed ([`Action::fields`]), so an explanation cannot drift from the key.
//! What is kept and printed as JSON is the value; the texts for people are made from it.
//!
//! [`Action::fields`]: crate::action::Action::fields

mod compare;
mod files;
mod show;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::database::{BuiltStep, Cause};
use crate::digest::{ChainId, ContentDigest, DiffId, Key};

pub use compare::{Known, Nothing, Taken, compare, nearest};
pub use files::{FileChange, FileHow, Files, compare_files};

/// Why a step runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// No earlier action of this layer is known.
    NeverBuilt,
    /// `--rebuild` or `--no-cache`.
    Forced,
    /// The very action was done before, and its result removed.
    Evicted {
        /// When: seconds since 1970.
        evicted: i64,
        /// By which rule.
        cause: Cause,
    },
    /// The very action has a result, but all of its data is gone from the store.
    DataMissing,
    /// The action differs from an earlier one of the layer.
    Changed {
        /// The earlier action's key.
        #[schemars(with = "String")]
        earlier: Key,
        /// The differences, root causes first.
        changes: Vec<Change>,
    },
    /// The very action was begun before and has no result: it failed, or was interrupted.
    NoResult,
    /// The very action was done before, and its result not kept.
    NotKept {
        /// Why not.
        why: String,
    },
}

/// One difference of two actions, from the older to the newer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// It is another kind of step.
    Kind {
        /// `unpack`, `import`, `run`, `labels`.
        old: String,
        /// The same of the newer one.
        new: String,
    },
    /// Content of an import.
    Import {
        /// Where a script sees it, or where it is in the image.
        place: String,
        /// What differs in it; null when the listings are not known.
        files: Option<Files>,
        /// Where it comes out of another layer: what that began with.
        origin: Option<Origin>,
    },
    /// Content of a bind.
    Bind {
        /// Where a script sees it.
        place: String,
        /// What differs in it; null when the listings are not known.
        files: Option<Files>,
    },
    /// A socket or device in a bind.
    Node {
        /// Where a script sees it.
        place: String,
        /// What became of it.
        how: How,
    },
    /// An import.
    ImportList {
        /// Where a script sees it.
        place: String,
        /// What became of it.
        how: How,
    },
    /// A bind: it came or went, or is of another kind.
    BindList {
        /// Where a script sees it.
        place: String,
        /// What became of it.
        how: How,
    },
    /// Imports or binds are the same, in another order.
    Order,
    /// The tar base is another file.
    Tar {
        /// Its blake3.
        #[schemars(with = "String")]
        old: ContentDigest,
        /// That of the newer one.
        #[schemars(with = "String")]
        new: ContentDigest,
        /// Where it comes out of another layer: what that began with.
        origin: Option<Origin>,
    },
    /// Text of the script.
    Script {
        /// The first line that differs, from 1.
        line: usize,
        /// That line; null: the script ended before.
        old: Option<String>,
        /// The same of the newer one.
        new: Option<String>,
        /// Lines of the older script.
        old_lines: usize,
        /// Lines of the newer one.
        new_lines: usize,
    },
    /// A variable.
    Variable {
        /// Its name.
        name: String,
        /// Its value; null: it was not set.
        old: Option<String>,
        /// Its value; null: it is not set.
        new: Option<String>,
    },
    /// Mode, owner or place of an import.
    Attributes {
        /// Where a script sees it; empty: it is the one import of its step.
        place: String,
        /// `mode=644 uid=0 gid=0`, as far as they are set; of the one import of a step its place before them.
        old: String,
        /// The same of the newer one.
        new: String,
    },
    /// Network mode.
    Network {
        /// `host` or `none`.
        old: String,
        /// The same of the newer one.
        new: String,
    },
    /// Platform.
    Platform {
        /// `OS/ARCHITECTURE`.
        old: String,
        /// The same of the newer one.
        new: String,
    },
    /// Which owners files can have in the sandbox.
    Ids {
        /// `full` or `single`.
        old: String,
        /// The same of the newer one.
        new: String,
    },
    /// The layers beneath.
    Base {
        /// Chain id; zeros: there were none.
        #[schemars(with = "String")]
        old: ChainId,
        /// The same of the newer one.
        #[schemars(with = "String")]
        new: ChainId,
        /// Where the base is an image: what its name led to.
        image: Option<Images>,
        /// Where the base is another layer: what that began with.
        origin: Option<Origin>,
    },
    /// Layer time, in seconds since 1970: by SOURCE_DATE_EPOCH of the host.
    Time {
        /// Of the older one.
        old: i64,
        /// Of the newer one.
        new: i64,
    },
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

/// The layer whose own inputs changed, and with which all else came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// Its name.
    pub layer: String,
    /// Why it ran, in a few words.
    pub why: String,
}

/// The base image before and after, as `NAME@DIGEST`; null: not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Images {
    /// Before.
    pub old: Option<String>,
    /// After.
    pub new: Option<String>,
}

/// An action that ran again came out as another layer than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Differs {
    /// The layer before.
    #[schemars(with = "Option<String>")]
    pub old: Option<DiffId>,
    /// The layer now.
    #[schemars(with = "Option<String>")]
    pub new: Option<DiffId>,
    /// What differs in it; null when the listings are not known.
    pub files: Option<Files>,
}

impl Reason {
    /// The difference that a person should hear of first.
    pub fn first(&self) -> Option<&Change> {
        match self {
            Reason::Changed { changes, .. } => changes.first(),
            _ => None,
        }
    }

    /// The layer that all began with, if it is another one.
    pub fn origin(&self) -> Option<&Origin> {
        self.first().and_then(Change::origin)
    }
}

impl Origin {
    /// What began with a step of `layer`, or with which that step came.
    pub fn of(layer: &str, reason: &Reason, differs: Option<&Differs>) -> Origin {
        match reason.origin() {
            Some(origin) => origin.clone(),
            None => {
                let differs = differs.map_or_else(String::new, |differs| format!(", and {differs}"));
                Origin { layer: layer.to_owned(), why: format!("{reason}{differs}") }
            }
        }
    }

    /// The same of a step that was written down.
    pub fn of_step(step: &BuiltStep) -> Origin {
        match step.why() {
            Some((reason, differs)) => Origin::of(&step.layer, &reason, differs.as_ref()),
            None => Origin { layer: step.layer.clone(), why: "it was built".to_owned() },
        }
    }
}

impl BuiltStep {
    /// Why it ran, and how what it came out as differs from before. `None`: that is not known, or of a newer stacker.
    pub fn why(&self) -> Option<(Reason, Option<Differs>)> {
        let reason = serde_json::from_str(self.reason.as_ref()?).ok()?;
        Some((reason, self.differs.as_ref().and_then(|differs| serde_json::from_str(differs).ok())))
    }
}

impl Change {
    /// The layer that it began with, if it is another one.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Change::Base { origin, .. } | Change::Import { origin, .. } | Change::Tar { origin, .. } => origin.as_ref(),
            _ => None,
        }
    }

    /// Root causes first: what a person edits before what follows from it.
    fn rank(&self) -> u8 {
        match self {
            _ if self.origin().is_some() => 5,
            Change::Kind { .. } => 0,
            Change::Import { .. } | Change::Bind { .. } | Change::Node { .. } | Change::Tar { .. } => 1,
            Change::ImportList { .. } | Change::BindList { .. } | Change::Order | Change::Script { .. } => 2,
            Change::Variable { .. } | Change::Attributes { .. } => 3,
            Change::Network { .. } | Change::Platform { .. } | Change::Ids { .. } => 4,
            Change::Base { .. } => 5,
            Change::Time { .. } => 6,
        }
    }
}

#[cfg(test)]
mod tests;
