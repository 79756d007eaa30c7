//! One build as it was: what is drawn, traced and reported. Made of the rows that the build left.

mod critical;
mod read;

use std::path::PathBuf;

use crate::database::{BuildId, BuildRow};
use crate::digest::Key;
use crate::export::metadata::Status;
use crate::graph::Need;

pub use critical::{Critical, critical};
pub use read::{last_with, read};

/// A build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// Its number.
    pub id: BuildId,
    /// What it was asked for, when, and what it came to.
    pub build: BuildRow,
    /// Its layers, in the order of a serial build.
    pub layers: Vec<Layer>,
    /// What ran, in the order in which it began.
    pub steps: Vec<Step>,
}

/// A layer of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Path of its stackerfile, see [`Name`].
    pub scope: PathBuf,
    /// The places of the layers that it needs, and what for.
    pub needs: Vec<(usize, Need)>,
    /// The keys of its steps, as far as they were decided.
    pub keys: Vec<Key>,
    /// What became of it.
    pub status: Status,
    /// Why its first step ran; `None`: none did.
    pub reason: Option<String>,
    /// The same at length, one line for each difference; empty where there is no more to say.
    pub why: Vec<String>,
    /// Seconds of work in that build.
    pub seconds: f64,
    /// Bytes of the files that it adds; `None`: that is no longer known.
    pub bytes: Option<u64>,
}

/// What names a layer: the path of its stackerfile, without `..`, and its name.
pub type Name = (PathBuf, String);

/// A step that ran, or a compression.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The place of its layer.
    pub layer: Option<usize>,
    /// The layer's name.
    pub name: String,
    /// `unpack`, `import`, `run`, `labels`, `compress`.
    pub kind: String,
    /// Its key; a compression has none.
    pub key: Option<Key>,
    /// Why it ran.
    pub reason: Option<String>,
    /// Seconds after the build began.
    pub begun: f64,
    /// How long it took; `None`: it did not end.
    pub seconds: Option<f64>,
    /// Which of the build's jobs it had, from 0.
    pub slot: usize,
    /// `built`, `failed`, or why there is neither.
    pub outcome: Option<String>,
}

impl Step {
    /// When it ended, seconds after the build began; for what did not end, when it began.
    pub fn end(&self) -> f64 {
        self.begun + self.seconds.unwrap_or_default()
    }
}

impl Story {
    /// How long it took; while that is not known, until what is known last.
    pub fn seconds(&self) -> f64 {
        let known = self.steps.iter().map(Step::end).fold(0.0, f64::max);
        self.build.seconds.unwrap_or(known).max(known)
    }

    /// How many layers have a status.
    pub fn count(&self, status: Status) -> usize {
        self.layers.iter().filter(|layer| layer.status == status).count()
    }
}
