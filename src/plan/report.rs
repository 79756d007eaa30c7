//! A plan as data: what `--json` prints. schema/plan.schema.json describes it; fields are added, never renamed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Key;
use crate::reason::Reason;

/// What a build would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker plan")]
pub struct Plan {
    /// In the order of a serial build.
    pub layers: Vec<PlannedLayer>,
    /// Layers by status.
    pub totals: PlannedTotals,
    /// Steps at a time.
    pub jobs: usize,
    /// If everything comes out as it was: the layers that are `build`.
    pub least: Forecast,
    /// If everything comes out different: those that are `if` too.
    pub most: Forecast,
    /// What `--since` was asked for; null without it.
    pub since: Option<Since>,
    /// For a CI system that runs a job for each layer.
    pub matrix: Matrix,
}

/// What would become of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedLayer {
    /// Its name in the stackerfile.
    pub name: String,
    /// The stackerfile, relative to the working directory where it is beneath it.
    pub stackerfile: String,
    /// What would become of it.
    pub status: Status,
    /// Why, in a few words: for `build`, `unknown` and `fail`.
    pub reason: Option<String>,
    /// For `if`: the nearest layers that are built and on whose outcome it depends.
    pub on: Vec<String>,
    /// What its steps that may run took the last time; null where that is not known of all of them.
    pub seconds: Option<f64>,
    /// What compressing took when it was built last; null where it is not built, has no image, or that is not known.
    pub compression: Option<f64>,
    /// The layers that it builds on or copies from.
    pub needs: Vec<String>,
    /// Its steps in order; none of a layer that is `unknown`.
    pub steps: Vec<PlannedStep>,
    /// What of it changed; null without `--since`, and for layers that only are needed.
    pub affected: Option<Affected>,
}

/// What would become of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStep {
    /// `unpack`, `import`, `run` or `labels`.
    pub step: String,
    /// What would become of it.
    pub status: Status,
    /// Its key; null where it follows from steps that have not run.
    #[schemars(with = "Option<String>")]
    pub key: Option<Key>,
    /// Why it runs, in the words of `stacker build`; if what is in `after` comes out different, more may be said.
    pub reason: Option<String>,
    /// The same with everything that is known of it.
    pub why: Option<Reason>,
    /// For `build`: layers that it stands on and that may come out different.
    pub after: Vec<String>,
    /// For `build`: it may turn out to be the same as a step of another layer; then it runs for one of them, and is a
    /// hit for the others.
    pub may_be_shared: bool,
    /// For `if`: as of the layer.
    pub on: Vec<String>,
    /// For `if`: its result is there, but its data is gone, and is made anew if something needs it.
    pub data_is_gone: bool,
    /// For `hit`: it is the same as a step of this layer, whose result it takes.
    pub same_as: Option<String>,
    /// What it took the last time, if it may run and that is known.
    pub seconds: Option<f64>,
}

/// What would become of a layer or step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The cache has it.
    Hit,
    /// It is built.
    Build,
    /// It is built only if something else comes out different.
    If,
    /// It follows from something on a server that was never asked for here.
    Unknown,
    /// It fails, or needs a layer that does.
    Fail,
}

/// Layers by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedTotals {
    /// `hit`.
    pub hit: usize,
    /// `build`.
    pub build: usize,
    /// `if`.
    pub r#if: usize,
    /// `unknown`.
    pub unknown: usize,
    /// `fail`.
    pub fail: usize,
}

/// How long it takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// Steps that run.
    pub steps: usize,
    /// Those of which nobody knows how long they take; they count as nothing below.
    pub steps_without_time: usize,
    /// Seconds of work, with the compression of layers, as far as it is known.
    pub work: f64,
    /// Seconds until all is done with `jobs` steps or compressions at a time.
    pub elapsed: f64,
    /// The layers of the steps that need each other and take the longest.
    pub critical_path: Vec<String>,
    /// Seconds of those: no number of jobs makes it shorter.
    pub critical_seconds: f64,
}

/// What `--since` found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Since {
    /// As it was asked for.
    pub reference: String,
    /// The commit that this names.
    pub commit: String,
    /// Layers that the commit has and the working tree has not.
    pub deleted: Vec<DeletedLayer>,
}

/// A layer that is no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct DeletedLayer {
    /// Its name.
    pub name: String,
    /// The stackerfile that it was in.
    pub stackerfile: String,
}

/// What of a layer changed since the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Affected {
    /// What kind of change.
    pub cause: Cause,
    /// The first file that changed, or the layer that it needs.
    pub what: Option<String>,
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The commit does not have it.
    New,
    /// Its stackerfile says something else of it.
    Definition,
    /// A file that it takes in changed, came or went.
    File,
    /// A layer that it needs is affected.
    Needs,
    /// The stackerfiles of the commit cannot be read.
    Unreadable,
}

/// As GitHub Actions takes it for `strategy.matrix`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Matrix {
    /// With `--since` the layers that are affected, else those that are not hits: those that have images, and those
    /// that none of the others needs.
    pub include: Vec<MatrixEntry>,
}

/// One job: `stacker build -f STACKERFILE LAYER`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MatrixEntry {
    /// Its name.
    pub layer: String,
    /// As of the layer.
    pub stackerfile: String,
}

impl Plan {
    /// One document.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan is always JSON")
    }
}

impl PlannedTotals {
    pub(super) fn of(&mut self, status: Status) -> &mut usize {
        match status {
            Status::Hit => &mut self.hit,
            Status::Build => &mut self.build,
            Status::If => &mut self.r#if,
            Status::Unknown => &mut self.unknown,
            Status::Fail => &mut self.fail,
        }
    }
}
