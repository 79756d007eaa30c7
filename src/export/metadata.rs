//! What `--metadata-file` tells: each layer's fate, and the digest of each image, for scripts and CI.
//!
//! schema/metadata.schema.json describes it; fields are added, never renamed or dropped.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, DiffId, Key};
use crate::error::{At, Result};
use crate::reason::Reason;

/// The result of one build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker build metadata")]
pub struct Metadata {
    /// In the order of a serial build.
    pub layers: Vec<LayerReport>,
    /// Over all layers.
    pub totals: Totals,
    /// One for each tag of this build, in the order of a serial build.
    pub images: Vec<ImageReport>,
}

/// What became of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LayerReport {
    /// Its name in the stackerfile.
    pub name: String,
    /// Path of the stackerfile.
    pub stackerfile: String,
    /// Key of its last action; null for a layer of config alone.
    pub key: Option<Key>,
    /// What happened.
    pub status: Status,
    /// How long it took.
    pub seconds: f64,
    /// Why it was built, in a few words; null where it was not.
    pub reason: Option<String>,
    /// The same as a value; null where it was not.
    #[serde(default)]
    pub why: Option<Reason>,
    /// The image's layers, bottom first, as far as they are known.
    pub diff_ids: Vec<DiffId>,
}

/// What happened to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All its actions were found in the cache.
    Hit,
    /// At least one action ran.
    Built,
    /// An action failed.
    Failed,
    /// Something that it needs failed, or the build ended before.
    Skipped,
}

impl Status {
    /// As it is written: `hit`, `built`, `failed`, `skipped`.
    pub fn word(self) -> &'static str {
        match self {
            Status::Hit => "hit",
            Status::Built => "built",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        }
    }
}

/// How many layers there were of each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// All.
    pub layers: usize,
    /// Found in the cache.
    pub hits: usize,
    /// Built.
    pub built: usize,
    /// Failed.
    pub failed: usize,
    /// Not tried.
    pub skipped: usize,
}

/// One image of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageReport {
    /// Its tag.
    pub tag: String,
    /// Digest of its manifest.
    pub digest: BlobDigest,
}

impl Totals {
    /// Counts.
    pub fn of(layers: &[LayerReport]) -> Totals {
        let count = |status| layers.iter().filter(|layer| layer.status == status).count();
        Totals {
            layers: layers.len(),
            hits: count(Status::Hit),
            built: count(Status::Built),
            failed: count(Status::Failed),
            skipped: count(Status::Skipped),
        }
    }
}

impl Metadata {
    /// With totals counted from `layers`.
    pub fn new(layers: Vec<LayerReport>, images: Vec<ImageReport>) -> Metadata {
        Metadata { totals: Totals::of(&layers), layers, images }
    }

    /// Writes it to a file, see [`write_whole`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).expect("metadata is always JSON");
        text.push(b'\n');
        write_whole(path, &text)
    }
}

/// Writes a file that somebody asked for, whole or not at all; pipes and devices are written to as they are.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return File::options().write(true).open(path).and_then(|mut file| file.write_all(bytes)).at("write", path);
    }
    super::blobs::replace_file(path, bytes)
}
