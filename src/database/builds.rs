//! The builds that were: what each was asked for, and what became of its layers and steps.

mod read;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rusqlite::{OptionalExtension, Transaction, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Database;
use crate::commit_point::CommitPoint;
use crate::digest::{ChainId, DiffId, Key};
use crate::error::Result;
use crate::export::metadata::Totals;
use crate::graph::Need;

/// Names a build in this database: 1, 2, 3 …
pub type BuildId = i64;

/// So many builds are kept, and those that they are the same as.
const BUILDS_KEPT: usize = 1000;

/// So many layers all kept builds have at most, each taking some 300 bytes.
const LAYERS_KEPT: usize = 200_000;

/// Old builds are looked for whenever so many new ones are there.
const CUT_EVERY: i64 = 32;

/// One build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildRow {
    /// When it began: milliseconds since 1970.
    pub begun: i64,
    /// How long it took; `None`: it runs, or was killed.
    pub seconds: Option<f64>,
    /// The command line.
    pub command: Vec<String>,
    /// Where it was called.
    pub directory: PathBuf,
    /// The commit that git said was checked out there.
    pub commit: Option<String>,
    /// Steps at a time.
    pub jobs: usize,
    /// Its exit code; `None` as for `seconds`.
    pub outcome: Option<i32>,
    /// Its layers by how they ended; zeros while it runs.
    pub totals: Totals,
    /// Of its layers, their keys and what those came out as; `None` if one of them did not come to its end.
    pub digest: Option<[u8; 32]>,
    /// It did nothing, and its layers are those of this build.
    pub same_as: Option<BuildId>,
}

/// One layer of a build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuiltLayer {
    /// Path of its stackerfile.
    pub scope: String,
    /// Its name.
    pub layer: String,
    /// What it takes from other layers.
    pub needs: Vec<Needed>,
    /// The keys of its steps, as far as they were decided.
    pub keys: Vec<Key>,
    /// The layer of the image that each of them came out as; `None`: nothing changed, or it made labels.
    pub diff_ids: Vec<Option<DiffId>>,
    /// All its layers, those beneath included; `None`: it did not come to its end.
    pub chain: Option<ChainId>,
    /// The image that it builds on, if it does: `NAME@DIGEST`.
    pub image: Option<String>,
    /// `hit`, `built`, `failed`, `skipped`.
    pub status: String,
    /// Seconds of work in that build.
    pub seconds: f64,
}

/// Something that a layer takes from another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Needed {
    /// The other layer's place in the build: from 0, in the order of a serial build.
    pub layer: usize,
    /// For what.
    pub need: Need,
    /// Which of the layer's steps (from 0) takes it; null: none, since an import is for scripts and there is none.
    pub step: Option<usize>,
    /// Where a script sees an import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
}

/// One step that ran in a build, or the compression of a layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuiltStep {
    /// Path of the stackerfile.
    pub scope: String,
    /// The layer's name.
    pub layer: String,
    /// `unpack`, `import`, `run`, `labels`, `compress`.
    pub step: String,
    /// Its key; a compression has none.
    pub key: Option<Key>,
    /// Why it ran: a [`Reason`] as JSON.
    ///
    /// [`Reason`]: crate::reason::Reason
    pub reason: Option<String>,
    /// Seconds after the build began.
    pub begun: f64,
    /// How long it took; `None`: it did not end.
    pub seconds: Option<f64>,
    /// Which of the build's jobs it had, from 0.
    pub slot: usize,
    /// `built`, `failed`, or why there is neither.
    pub outcome: Option<String>,
    /// How the layer differs from what the same action came out as before, where it does: JSON.
    pub differs: Option<String>,
}

impl Database {
    /// Writes a build down, when it begins or when it is over.
    pub fn put_build(&self, build: &BuildRow) -> Result<BuildId> {
        let command = serde_json::to_string(&build.command).expect("texts are always JSON");
        let id = self.in_transaction(|transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO build (begun, command, directory, jobs, commit_id, seconds, outcome, digest, same_as,
                         hits, built, failed, skipped)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                )?
                .execute(params![
                    build.begun,
                    command,
                    build.directory.as_os_str().as_bytes(),
                    build.jobs as i64,
                    build.commit,
                    build.seconds,
                    build.outcome,
                    build.digest,
                    build.same_as,
                    build.totals.hits as i64,
                    build.totals.built as i64,
                    build.totals.failed as i64,
                    build.totals.skipped as i64
                ])?;
            let id = transaction.last_insert_rowid();
            if id % CUT_EVERY == 0 {
                cut(transaction)?;
            }
            Ok(id)
        })?;
        CommitPoint::BuildNoted.reached();
        Ok(id)
    }

    /// A build is over: what became of it, and of its layers in the order of a serial build.
    pub fn end_build(&self, id: BuildId, build: &BuildRow, layers: &[BuiltLayer]) -> Result<()> {
        self.in_transaction(|transaction| {
            transaction
                .prepare_cached(
                    "UPDATE build SET commit_id = ?2, seconds = ?3, outcome = ?4, digest = ?5, hits = ?6, built = ?7,
                         failed = ?8, skipped = ?9
                     WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    build.commit,
                    build.seconds,
                    build.outcome,
                    build.digest,
                    build.totals.hits as i64,
                    build.totals.built as i64,
                    build.totals.failed as i64,
                    build.totals.skipped as i64
                ])?;
            let mut statement = transaction.prepare_cached(
                "INSERT OR REPLACE INTO build_layer
                     (build, place, scope, layer, needs, keys, diff_ids, chain, image, status, seconds)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            for (place, layer) in layers.iter().enumerate() {
                let needs = serde_json::to_string(&layer.needs).expect("needs are always JSON");
                let keys = layer.keys.iter().flat_map(|key| key.0).collect::<Vec<u8>>();
                let diff_ids = layer.diff_ids.iter().flat_map(|id| id.map_or(NONE, |id| id.0)).collect::<Vec<u8>>();
                let chain = layer.chain.map(|chain| chain.0);
                let BuiltLayer { scope, layer, image, status, seconds, .. } = layer;
                let place = place as i64;
                statement
                    .execute(params![id, place, scope, layer, needs, keys, diff_ids, chain, image, status, seconds])?;
            }
            Ok(())
        })?;
        CommitPoint::BuildEnded.reached();
        Ok(())
    }

    /// Writes a step down, when it begins or when it is over. `number`: from 0, within its build.
    pub fn put_step(&self, build: BuildId, number: usize, step: &BuiltStep) -> Result<()> {
        self.in_transaction(|transaction| {
            let key = step.key.map(|key| key.0);
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO build_step
                         (build, number, scope, layer, step, key, reason, begun, seconds, slot, outcome, differs)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                )?
                .execute(params![
                    build,
                    number as i64,
                    step.scope,
                    step.layer,
                    step.step,
                    key,
                    step.reason,
                    step.begun,
                    step.seconds,
                    step.slot as i64,
                    step.outcome,
                    step.differs
                ])
                .map(drop)
        })?;
        CommitPoint::StepNoted.reached();
        Ok(())
    }

    /// How long a step of a layer took when it was built last.
    pub fn last_seconds(&self, scope: &str, layer: &str, step: &str) -> Result<Option<f64>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT build_step.seconds
                 FROM build_layer JOIN build_step USING (build, scope, layer)
                 WHERE build_layer.scope = ?1 AND build_layer.layer = ?2 AND step = ?3
                     AND build_step.outcome = 'built' AND build_step.seconds IS NOT NULL
                 ORDER BY build DESC, number LIMIT 1",
            )?;
            statement.query_row([scope, layer, step], |row| row.get(0)).optional()
        })
    }
}

/// Stands where a key has no layer.
const NONE: [u8; 32] = [0; 32];

/// Removes the builds that are too many, with their layers and steps.
fn cut(transaction: &Transaction) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare("SELECT id, same_as, hits + built + failed + skipped FROM build ORDER BY id DESC")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as usize)))?;
    let rows: Vec<(BuildId, Option<BuildId>, usize)> = rows.collect::<Result<_, _>>()?;
    let (mut kept, mut layers) = (BTreeSet::new(), 0);
    for (id, same_as, count) in rows.iter().take(BUILDS_KEPT) {
        // The layers of one that did nothing are those of another.
        let whose = same_as.unwrap_or(*id);
        if !kept.contains(&whose) {
            layers += count;
            if layers > LAYERS_KEPT && !kept.is_empty() {
                break;
            }
            kept.insert(whose);
        }
        kept.insert(*id);
    }
    for (id, ..) in rows.iter().filter(|(id, ..)| !kept.contains(id)) {
        for statement in [
            "DELETE FROM build_step WHERE build = ?1",
            "DELETE FROM build_layer WHERE build = ?1",
            "DELETE FROM build WHERE id = ?1",
        ] {
            transaction.prepare_cached(statement)?.execute([id])?;
        }
    }
    Ok(())
}
