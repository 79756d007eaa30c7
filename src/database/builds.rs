//! The builds that were: what each was asked for, and what became of its layers and steps.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::Database;
use crate::digest::{DiffId, Key};
use crate::error::Result;

/// Names a build in this database: 1, 2, 3 …
pub type BuildId = i64;

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
    /// Of its layers and their keys, see [`BuiltLayer`]; equal where a build would do the same.
    pub digest: Option<[u8; 32]>,
    /// It did nothing, and its layers are those of this build.
    pub same_as: Option<BuildId>,
}

/// One layer of a build.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltLayer {
    /// Path of its stackerfile.
    pub scope: String,
    /// Its name.
    pub layer: String,
    /// The places (from 0, in the order of a serial build) of the layers that it needs.
    pub needs: Vec<usize>,
    /// The keys of its steps, as far as they were decided.
    pub keys: Vec<Key>,
    /// The layers of the image that its steps came out as.
    pub diff_ids: Vec<DiffId>,
    /// `hit`, `built`, `failed`, `skipped`.
    pub status: String,
    /// Seconds of work in that build.
    pub seconds: f64,
}

/// One step that ran in a build, or the compression of a layer.
#[derive(Clone, Debug, PartialEq)]
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
}

impl Database {
    /// Writes a build down, when it begins or when it is over.
    pub fn put_build(&self, build: &BuildRow) -> Result<BuildId> {
        let command = serde_json::to_string(&build.command).expect("texts are always JSON");
        self.in_transaction(|transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO build (begun, seconds, command, directory, commit_id, jobs, outcome, digest, same_as)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                )?
                .execute(params![
                    build.begun,
                    build.seconds,
                    command,
                    build.directory.as_os_str().as_bytes(),
                    build.commit,
                    build.jobs as i64,
                    build.outcome,
                    build.digest,
                    build.same_as
                ])?;
            Ok(transaction.last_insert_rowid())
        })
    }

    /// A build is over: what became of it, and of its layers in the order of a serial build.
    pub fn end_build(&self, id: BuildId, build: &BuildRow, layers: &[BuiltLayer]) -> Result<()> {
        self.in_transaction(|transaction| {
            transaction
                .prepare_cached("UPDATE build SET seconds = ?2, outcome = ?3, digest = ?4, same_as = ?5 WHERE id = ?1")?
                .execute(params![id, build.seconds, build.outcome, build.digest, build.same_as])?;
            let mut statement = transaction.prepare_cached(
                "INSERT OR REPLACE INTO build_layer
                     (build, place, scope, layer, needs, keys, diff_ids, status, seconds)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?;
            for (place, layer) in layers.iter().enumerate() {
                let needs = serde_json::to_string(&layer.needs).expect("numbers are always JSON");
                let keys = layer.keys.iter().flat_map(|key| key.0).collect::<Vec<u8>>();
                let diff_ids = layer.diff_ids.iter().flat_map(|diff_id| diff_id.0).collect::<Vec<u8>>();
                let BuiltLayer { scope, layer, status, seconds, .. } = layer;
                let place = place as i64;
                statement.execute(params![id, place, scope, layer, needs, keys, diff_ids, status, seconds])?;
            }
            Ok(())
        })
    }

    /// Writes a step down, when it begins or when it is over. `number`: from 0, within its build.
    pub fn put_step(&self, build: BuildId, number: usize, step: &BuiltStep) -> Result<()> {
        self.in_transaction(|transaction| {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO build_step
                         (build, number, scope, layer, step, key, reason, begun, seconds, slot, outcome)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                )?
                .execute(params![
                    build,
                    number as i64,
                    step.scope,
                    step.layer,
                    step.step,
                    step.key.map(|key| key.0),
                    step.reason,
                    step.begun,
                    step.seconds,
                    step.slot as i64,
                    step.outcome
                ])
                .map(drop)
        })
    }

    /// One build.
    pub fn build(&self, id: BuildId) -> Result<Option<BuildRow>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(&format!("{BUILDS} WHERE id = ?1"))?;
            statement.query_row([id], build_of).optional().map(|row| row.map(|(_, build)| build))
        })
    }

    /// The builds, the newest first, at most so many.
    pub fn builds(&self, count: usize) -> Result<Vec<(BuildId, BuildRow)>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(&format!("{BUILDS} ORDER BY id DESC LIMIT ?1"))?;
            statement.query_map([count as i64], build_of)?.collect()
        })
    }

    /// The newest build that is over and has this digest and rows of its own for its layers.
    pub fn build_like(&self, digest: &[u8; 32]) -> Result<Option<BuildId>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id FROM build WHERE digest = ?1 AND same_as IS NULL ORDER BY id DESC LIMIT 1",
            )?;
            statement.query_row([digest], |row| row.get(0)).optional()
        })
    }

    /// The layers of a build that has rows of its own, in the order of a serial build.
    pub fn build_layers(&self, build: BuildId) -> Result<Vec<BuiltLayer>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT scope, layer, needs, keys, diff_ids, status, seconds FROM build_layer
                 WHERE build = ?1 ORDER BY place",
            )?;
            statement.query_map([build], layer_of)?.collect()
        })
    }

    /// The steps of a build, in the order in which they began.
    pub fn build_steps(&self, build: BuildId) -> Result<Vec<BuiltStep>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT scope, layer, step, key, reason, begun, seconds, slot, outcome FROM build_step
                 WHERE build = ?1 ORDER BY number",
            )?;
            statement.query_map([build], step_of)?.collect()
        })
    }
}

const BUILDS: &str =
    "SELECT id, begun, seconds, command, directory, commit_id, jobs, outcome, digest, same_as FROM build";

fn build_of(row: &Row) -> rusqlite::Result<(BuildId, BuildRow)> {
    let directory: Vec<u8> = row.get(4)?;
    let build = BuildRow {
        begun: row.get(1)?,
        seconds: row.get(2)?,
        command: json(row, 3)?,
        directory: PathBuf::from(OsStr::from_bytes(&directory)),
        commit: row.get(5)?,
        jobs: row.get::<_, i64>(6)? as usize,
        outcome: row.get(7)?,
        digest: row.get(8)?,
        same_as: row.get(9)?,
    };
    Ok((row.get(0)?, build))
}

fn layer_of(row: &Row) -> rusqlite::Result<BuiltLayer> {
    let digests = |column| row.get::<_, Vec<u8>>(column).map(|bytes| bytes.as_chunks::<32>().0.to_vec());
    Ok(BuiltLayer {
        scope: row.get(0)?,
        layer: row.get(1)?,
        needs: json(row, 2)?,
        keys: digests(3)?.into_iter().map(Key).collect(),
        diff_ids: digests(4)?.into_iter().map(DiffId).collect(),
        status: row.get(5)?,
        seconds: row.get(6)?,
    })
}

fn step_of(row: &Row) -> rusqlite::Result<BuiltStep> {
    Ok(BuiltStep {
        scope: row.get(0)?,
        layer: row.get(1)?,
        step: row.get(2)?,
        key: row.get::<_, Option<_>>(3)?.map(Key),
        reason: row.get(4)?,
        begun: row.get(5)?,
        seconds: row.get(6)?,
        slot: row.get::<_, i64>(7)? as usize,
        outcome: row.get(8)?,
    })
}

/// A column that holds JSON of ours; what another wrote there counts as nothing.
fn json<T: DeserializeOwned + Default>(row: &Row, column: usize) -> rusqlite::Result<T> {
    Ok(serde_json::from_str(&row.get::<_, String>(column)?).unwrap_or_default())
}
