//! What is asked about the builds that were.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::{BuildId, BuildRow, BuiltLayer, BuiltStep, NONE};
use crate::database::Database;
use crate::digest::{ChainId, DiffId, Key};
use crate::error::Result;
use crate::export::metadata::Totals;

const BUILDS: &str =
    "SELECT id, begun, seconds, command, directory, commit_id, jobs, outcome, digest, same_as, hits, built,
    failed, skipped FROM build";

impl Database {
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

    /// The keys of each layer, by name: what the last build is known to have left, then each state of it in the builds
    /// that are remembered, the newest first.
    pub fn layer_states(&self) -> Result<Vec<(String, Vec<Key>)>> {
        let mut states = self.all_last_actions()?;
        let built: Vec<(String, Vec<u8>)> = self.query(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT layer, keys FROM build_layer GROUP BY layer, keys ORDER BY MAX(build) DESC")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let keys = |bytes: &[u8]| bytes.as_chunks::<32>().0.iter().map(|key| Key(*key)).collect();
        states.extend(built.into_iter().map(|(layer, bytes)| (layer, keys(&bytes))));
        Ok(states)
    }

    /// The layers of a build that has rows of its own, in the order of a serial build.
    pub fn build_layers(&self, build: BuildId) -> Result<Vec<BuiltLayer>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT scope, layer, needs, keys, diff_ids, chain, image, status, seconds FROM build_layer
                 WHERE build = ?1 ORDER BY place",
            )?;
            statement.query_map([build], layer_of)?.collect()
        })
    }

    /// The last builds that a layer was in and have rows of their own, the newest first: those of one stackerfile, or all.
    pub fn layer_builds(&self, layer: &str, scope: Option<&str>, count: usize) -> Result<Vec<(BuildId, BuiltLayer)>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT scope, layer, needs, keys, diff_ids, chain, image, status, seconds, build FROM build_layer
                 WHERE layer = ?1 AND (?2 IS NULL OR scope = ?2) ORDER BY build DESC LIMIT ?3",
            )?;
            let rows =
                statement.query_map(params![layer, scope, count as i64], |row| Ok((row.get(9)?, layer_of(row)?)))?;
            rows.collect()
        })
    }

    /// The first step that ran in the last build which built a layer.
    pub fn last_reason(&self, layer: &str, scope: &str) -> Result<Option<BuiltStep>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT scope, layer, step, key, reason, begun, seconds, slot, outcome, differs FROM build_step
                 WHERE build = (SELECT build FROM build_layer WHERE layer = ?1 AND scope = ?2 AND status = 'built'
                                ORDER BY build DESC LIMIT 1)
                     AND layer = ?1 AND scope = ?2 AND reason IS NOT NULL
                 ORDER BY number LIMIT 1",
            )?;
            statement.query_row([layer, scope], step_of).optional()
        })
    }

    /// The last build that built a layer.
    pub fn last_built(&self, layer: &str, scope: &str) -> Result<Option<BuildId>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT build FROM build_layer WHERE layer = ?1 AND scope = ?2 AND status = 'built'
                 ORDER BY build DESC LIMIT 1",
            )?;
            statement.query_row([layer, scope], |row| row.get(0)).optional()
        })
    }

    /// How long compressing took in a build, in seconds, by stackerfile and layer.
    pub fn compressions(&self, build: BuildId) -> Result<HashMap<(String, String), f64>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT scope, layer, SUM(seconds) FROM build_step
                 WHERE build = ?1 AND step = 'compress' AND outcome = 'built' AND seconds IS NOT NULL
                 GROUP BY scope, layer",
            )?;
            statement.query_map([build], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?.collect()
        })
    }

    /// The last step with a key that ran.
    pub fn step_of_key(&self, key: &Key) -> Result<Option<(BuildId, BuiltStep)>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT scope, layer, step, key, reason, begun, seconds, slot, outcome, differs, build FROM build_step
                 WHERE key = ?1 ORDER BY build DESC, number DESC LIMIT 1",
            )?;
            statement.query_row([key.0], |row| Ok((row.get(10)?, step_of(row)?))).optional()
        })
    }

    /// The names of all layers of the builds that are known.
    pub fn layer_names(&self) -> Result<Vec<String>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT DISTINCT layer FROM build_layer")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// The steps of a build, in the order in which they began.
    pub fn build_steps(&self, build: BuildId) -> Result<Vec<BuiltStep>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT scope, layer, step, key, reason, begun, seconds, slot, outcome, differs FROM build_step
                 WHERE build = ?1 ORDER BY number",
            )?;
            statement.query_map([build], step_of)?.collect()
        })
    }
}

fn build_of(row: &Row) -> rusqlite::Result<(BuildId, BuildRow)> {
    let directory: Vec<u8> = row.get(4)?;
    let count = |column| row.get::<_, i64>(column).map(|count| count as usize);
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
        totals: Totals {
            layers: count(10)? + count(11)? + count(12)? + count(13)?,
            hits: count(10)?,
            built: count(11)?,
            failed: count(12)?,
            skipped: count(13)?,
        },
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
        diff_ids: digests(4)?.into_iter().map(|id| (id != NONE).then_some(DiffId(id))).collect(),
        chain: row.get::<_, Option<_>>(5)?.map(ChainId),
        image: row.get(6)?,
        status: row.get(7)?,
        seconds: row.get(8)?,
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
        differs: row.get(9)?,
    })
}

/// A column that holds JSON of ours; what another wrote there counts as nothing.
fn json<T: DeserializeOwned + Default>(row: &Row, column: usize) -> rusqlite::Result<T> {
    Ok(serde_json::from_str(&row.get::<_, String>(column)?).unwrap_or_default())
}
