//! Steps: what a layer is made of, what must run, and what it came out as.

use crate::action::Action;
use crate::digest::{Chain, DiffId, Key};
use crate::graph::LayerIndex;

use super::Sources;

/// One step of one layer: tar base, `overlay_dirs` and `dest` imports in order, run, labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId {
    /// Which layer.
    pub layer: LayerIndex,
    /// Which of its steps.
    pub step: usize,
}

/// What a step does, in terms of the layer's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Unpack the tar base.
    Unpack,
    /// Copy the import with this index.
    Import(usize),
    /// Run the script.
    Run,
    /// Generate labels.
    Labels,
}

impl StepKind {
    /// `unpack`, `import`, `run` or `labels`, as its action's kind.
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Unpack => "unpack",
            StepKind::Import(_) => "import",
            StepKind::Run => "run",
            StepKind::Labels => "labels",
        }
    }
}

/// What a step takes from another layer (`stacker://`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Taken {
    /// The tar base.
    Base,
    /// The import with this index.
    Import(usize),
}

/// A step that must run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Whose.
    pub id: StepId,
    /// What is done, from the layer's inputs.
    pub kind: StepKind,
    /// Its key.
    pub key: Key,
    /// Its action.
    pub action: Action,
    /// The layers beneath.
    pub parent: Chain,
    /// N: the newest time beneath, in seconds.
    pub newest: i64,
    /// Where what it takes from other layers lies.
    pub sources: Sources,
    /// Why no stored result is used.
    pub why: Why,
}

/// Why no stored result is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The cache knows no result for the key.
    Missing,
    /// `--rebuild` or `--no-cache`.
    Forced,
    /// There was a result, but all of its data is gone.
    Evicted,
}

/// What a key's action came out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `None`: nothing changed.
    pub diff_id: Option<DiffId>,
    /// The newest time of the layer, rounded up to a second.
    pub newest: i64,
}

/// A decided step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Its key.
    pub key: Key,
    /// What it came out as.
    pub outcome: Outcome,
    /// Its layer time.
    pub time: i64,
    /// It ran in this build, for this layer.
    pub built: bool,
}

/// How a layer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet.
    Open,
    /// All its steps are decided.
    Done,
    /// A step failed.
    Failed,
    /// It needs a layer that failed, or nothing new was started after a failure.
    Skipped,
}
