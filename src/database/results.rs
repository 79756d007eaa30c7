//! Actions and their results by key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{OptionalExtension, Row, Transaction, params};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Cause, Database, evicted, next_unsynced, now};
use crate::action::Action;
use crate::commit_point::CommitPoint;
use crate::digest::{ContentDigest, DiffId, Key};
use crate::error::Result;
use crate::listing::Time;
use crate::record::{ActionResult, LayerInfo, Record, remove};

/// A use is written down again only when the last one is this many seconds old, so that a build with nothing to do
/// writes nothing.
pub(super) const USE_GRAIN: i64 = 3600;

/// Whether a result, and its data, is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is there.
    Present,
    /// What came out is known, and nothing is left of its data: its action runs again when something needs that.
    Lost,
    /// It went; what it was is known.
    Evicted,
}

/// One line of `stacker cache ls`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRow {
    /// The key.
    pub key: Key,
    /// `unpack`, `import`, `run`, `labels`.
    pub kind: String,
    /// Layers whose last build used it; where none did, those of which an earlier one is known to have.
    pub layers: Vec<String>,
    /// The layer; `None`: nothing changed.
    pub diff_id: Option<DiffId>,
    /// Bytes of file content.
    pub bytes: u64,
    /// How long it took to build.
    pub seconds: f64,
    /// When it was built, in seconds since 1970.
    pub created: i64,
    /// When a build last used it, within an hour.
    pub last_used: i64,
    /// Whether it is there; the database alone does not know of data that is lost.
    pub status: Status,
    /// When it went the last time (seconds since 1970), and why: also of a result that is there again.
    pub evicted: Option<(i64, Cause)>,
}

impl Database {
    /// What is known about a key. [`Database::note_uses`] writes down that it was asked for.
    pub fn result(&self, key: &Key) -> Result<Option<ActionResult>> {
        let found = self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT result.diff_id, newest_seconds, newest_nanos, entries, bytes, tar_bytes, tier, seconds, created,
                     last_used, record, kind
                 FROM result LEFT JOIN layer ON layer.diff_id = result.diff_id LEFT JOIN action USING (key)
                 WHERE key = ?1",
            )?;
            let read = |row: &Row| -> rusqlite::Result<_> {
                let kind: Option<String> = row.get(11)?;
                Ok((result_of(row)?, row.get::<_, i64>(9)?, row.get::<_, String>(10)?, kind))
            };
            statement.query_row([key.0], read).optional()
        })?;
        let Some((mut result, last_used, record, kind)) = found else { return Ok(None) };
        if kind.as_deref() == Some("labels") {
            let Some(labels) = self.labels(key, &record)? else { return Ok(None) };
            result.labels = Some(labels);
        }
        if (now() - last_used).abs() >= USE_GRAIN {
            self.used.borrow_mut().push(*key);
        }
        // A layer about which nothing is known is as good as no result.
        Ok(Some(result).filter(|result| result.diff_id.is_some() == result.layer.is_some()))
    }

    /// The labels in a record; only there are they kept. `None` where there is none of this key.
    fn labels(&self, key: &Key, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        if name.parse::<ContentDigest>().is_err() {
            return Ok(None);
        }
        let records = self.dir.records().join(name);
        // Another process may be renaming it from `fresh` to `records`.
        for path in [records.clone(), self.dir.fresh().join(name), records] {
            if let Some(record) = Record::read(&path)?.filter(|record| record.key == *key) {
                return Ok(record.result.labels);
            }
        }
        Ok(None)
    }

    /// The action of a key, whether it was finished or only begun.
    pub fn action(&self, key: &Key) -> Result<Option<Action>> {
        let text = self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT action FROM action WHERE key = ?1")?;
            statement.query_row([key.0], |row| row.get::<_, String>(0)).optional()
        })?;
        let action = text.and_then(|text| serde_json::from_str::<Action>(&text).ok());
        // An action that an older stacker encoded differently explains nothing.
        Ok(action.filter(|action| action.key() == *key))
    }

    /// The keys that begin with some digits, four or more, whether their actions were finished or only begun.
    pub fn keys_like(&self, digits: &str) -> Result<Vec<Key>> {
        if digits.len() < 4 || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(vec![]);
        }
        self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT key FROM action WHERE lower(hex(key)) LIKE ?1 || '%'")?;
            statement.query_map([digits], |row| row.get(0).map(Key))?.collect()
        })
    }

    /// The actions of a kind that were begun last, at most so many.
    pub fn last_begun(&self, kind: &str, count: usize) -> Result<Vec<Action>> {
        let texts = self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT action FROM action WHERE kind = ?1 ORDER BY rowid DESC LIMIT ?2")?;
            statement
                .query_map(params![kind, count as i64], |row| row.get::<_, String>(0))?
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    /// The layers whose last build had this key.
    pub fn layers_of_key(&self, key: &Key) -> Result<Vec<String>> {
        let all = self.all_last_actions()?.into_iter();
        let names: BTreeSet<String> = all.filter(|(_, keys)| keys.contains(key)).map(|(layer, _)| layer).collect();
        Ok(names.into_iter().collect())
    }

    /// Every action that has a result.
    pub fn each_action_with_result(&self, mut look: impl FnMut(Action)) -> Result<()> {
        self.query(|connection| {
            let mut statement = connection.prepare("SELECT action FROM action JOIN result USING (key)")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                // One that an older stacker encoded differently has no key that is asked for.
                if let Ok(action) = serde_json::from_str(row.get_ref(0)?.as_str()?) {
                    look(action);
                }
            }
            Ok(())
        })
    }

    /// How long an action took, also where its result has gone.
    pub fn seconds(&self, key: &Key) -> Result<Option<f64>> {
        let found = self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT seconds FROM result WHERE key = ?1")?;
            statement.query_row([key.0], |row| row.get(0)).optional()
        })?;
        match found {
            Some(seconds) => Ok(Some(seconds)),
            None => Ok(self.evicted(key)?.map(|evicted| evicted.seconds)),
        }
    }

    /// Writes an action down before it runs.
    pub fn begin(&self, key: &Key, action: &Action) -> Result<()> {
        self.in_transaction(|transaction| insert_action(transaction, key, action))?;
        CommitPoint::ActionBegun.reached();
        Ok(())
    }

    /// Writes a result down: first its record, then the rows. It replaces an earlier result of the same key.
    /// What the result speaks of (delta, listing) must lie in its place already.
    pub fn finish(&self, key: &Key, action: &Action, result: &ActionResult) -> Result<()> {
        let record = Record::new(action, result, &self.boot);
        debug_assert_eq!(record.key, *key, "the key is that of the action");
        let name = record.write_fresh(&self.dir)?;
        CommitPoint::RecordWritten.reached();
        let replaced = self.in_transaction(|transaction| {
            let replaced = record_name(transaction, key)?;
            insert(transaction, &record, &name, false, now())?;
            Ok(replaced)
        })?;
        CommitPoint::ResultInserted.reached();
        match replaced {
            Some(replaced) if replaced != name => self.remove_record(&replaced),
            _ => Ok(()),
        }
    }

    /// Drops the result of a key, and writes down when and why. Its action stays, to explain the miss.
    pub fn forget(&self, key: &Key, cause: &Cause) -> Result<()> {
        let name = self.in_transaction(|transaction| {
            let name = record_name(transaction, key)?;
            if let Some(evicted) = evicted::from_result(transaction, key, cause)? {
                evicted::insert(transaction, key, &evicted)?;
            }
            transaction.execute("DELETE FROM result WHERE key = ?1", [key.0])?;
            Ok(name)
        })?;
        CommitPoint::ResultForgotten.reached();
        name.map_or(Ok(()), |name| self.remove_record(&name))
    }

    /// Writes down that a build used the results that it asked for.
    pub fn note_uses(&self) -> Result<()> {
        let used = self.used.take();
        if used.is_empty() {
            return Ok(());
        }
        let now = now();
        self.in_transaction(|transaction| {
            let mut statement = transaction.prepare_cached("UPDATE result SET last_used = ?2 WHERE key = ?1")?;
            used.iter().try_for_each(|key| statement.execute(params![key.0, now]).map(drop))
        })
    }

    /// Every result, those used last first.
    pub fn list(&self) -> Result<Vec<CacheRow>> {
        self.rows(
            "SELECT key, kind, result.diff_id, COALESCE(bytes, 0), result.seconds, result.created, result.last_used,
                 evicted, cause
             FROM result JOIN action USING (key) LEFT JOIN layer ON layer.diff_id = result.diff_id
                 LEFT JOIN evicted USING (key)
             ORDER BY result.last_used DESC, result.created DESC, key",
            Status::Present,
        )
    }

    /// Every result that went and did not come again, those used last first.
    pub fn list_evicted(&self) -> Result<Vec<CacheRow>> {
        self.rows(
            "SELECT key, kind, evicted.diff_id, COALESCE(bytes, 0), seconds, created, last_used, evicted, cause
             FROM evicted JOIN action USING (key) LEFT JOIN layer ON layer.diff_id = evicted.diff_id
             WHERE NOT EXISTS (SELECT 1 FROM result WHERE result.key = evicted.key)
             ORDER BY last_used DESC, created DESC, key",
            Status::Evicted,
        )
    }

    fn rows(&self, query: &str, status: Status) -> Result<Vec<CacheRow>> {
        let mut layers = self.names_of_keys()?;
        self.query(|connection| {
            let mut statement = connection.prepare(query)?;
            let rows = statement.query_map([], |row| {
                let key = Key(row.get(0)?);
                let (when, cause) = (row.get::<_, Option<i64>>(7)?, row.get::<_, Option<String>>(8)?);
                Ok(CacheRow {
                    key,
                    kind: row.get(1)?,
                    layers: layers.remove(&key).unwrap_or_default().into_iter().collect(),
                    diff_id: row.get::<_, Option<_>>(2)?.map(DiffId),
                    bytes: row.get::<_, i64>(3)? as u64,
                    seconds: row.get(4)?,
                    created: row.get(5)?,
                    last_used: row.get(6)?,
                    status,
                    evicted: when.zip(cause.map(|cause| evicted::cause_of(&cause))),
                })
            })?;
            rows.collect()
        })
    }

    /// The layers that used each key: by their last builds, else by earlier ones.
    fn names_of_keys(&self) -> Result<HashMap<Key, BTreeSet<String>>> {
        let gather = |states: Vec<(String, Vec<Key>)>| {
            let mut layers: HashMap<Key, BTreeSet<String>> = HashMap::new();
            for (layer, key) in states.iter().flat_map(|(layer, keys)| keys.iter().map(move |key| (layer, key))) {
                layers.entry(*key).or_default().insert(layer.clone());
            }
            layers
        };
        let mut layers = gather(self.layer_states()?);
        layers.extend(gather(self.all_last_actions()?));
        Ok(layers)
    }

    fn remove_record(&self, name: &str) -> Result<()> {
        // Whatever a damaged row says, nothing else is removed.
        if name.parse::<ContentDigest>().is_err() {
            return Ok(());
        }
        remove(&self.dir.fresh().join(name))?;
        remove(&self.dir.records().join(name))?;
        CommitPoint::RecordRemoved.reached();
        Ok(())
    }
}

/// The rows of a record.
pub(super) fn insert(
    transaction: &Transaction,
    record: &Record,
    name: &str,
    synced: bool,
    used: i64,
) -> rusqlite::Result<()> {
    let Record { key, action, result, boot, .. } = record;
    let unsynced = if synced { None } else { Some(next_unsynced(transaction)?) };
    insert_action(transaction, key, action)?;
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO result (key, record, diff_id, tier, seconds, created, last_used, boot, unsynced)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let diff_id = result.diff_id.map(|diff_id| diff_id.0);
    let seconds = if result.seconds.is_finite() { result.seconds } else { 0.0 };
    statement.execute(params![key.0, name, diff_id, result.tier, seconds, result.created, used, boot, unsynced])?;
    match (&result.diff_id, &result.layer) {
        (Some(diff_id), Some(info)) => insert_layer(transaction, diff_id, info, boot, unsynced),
        _ => Ok(()),
    }
}

pub(super) fn insert_layer(
    transaction: &Transaction,
    diff_id: &DiffId,
    info: &LayerInfo,
    boot: &str,
    unsynced: Option<i64>,
) -> rusqlite::Result<()> {
    let LayerInfo { newest, entries, bytes, tar_bytes } = *info;
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO layer
             (diff_id, newest_seconds, newest_nanos, entries, bytes, tar_bytes, boot, unsynced)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let (entries, bytes, tar_bytes) = (entries as i64, bytes as i64, tar_bytes as i64);
    statement
        .execute(params![diff_id.0, newest.seconds, newest.nanos, entries, bytes, tar_bytes, boot, unsynced])
        .map(drop)
}

fn insert_action(transaction: &Transaction, key: &Key, action: &Action) -> rusqlite::Result<()> {
    let text = serde_json::to_string(action).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let mut statement =
        transaction.prepare_cached("INSERT OR REPLACE INTO action (key, kind, action) VALUES (?1, ?2, ?3)")?;
    statement.execute(params![key.0, action.kind.name(), text]).map(drop)
}

pub(super) fn record_name(transaction: &Transaction, key: &Key) -> rusqlite::Result<Option<String>> {
    transaction
        .prepare_cached("SELECT record FROM result WHERE key = ?1")?
        .query_row([key.0], |row| row.get(0))
        .optional()
}

/// The columns that [`Database::layer`] and [`Database::result`] share, from column `first` on.
pub(super) fn layer_of(row: &Row, first: usize) -> rusqlite::Result<Option<LayerInfo>> {
    let Some(seconds) = row.get(first)? else { return Ok(None) };
    Ok(Some(LayerInfo {
        newest: Time { seconds, nanos: row.get(first + 1)? },
        entries: row.get::<_, i64>(first + 2)? as u64,
        bytes: row.get::<_, i64>(first + 3)? as u64,
        tar_bytes: row.get::<_, i64>(first + 4)? as u64,
    }))
}

fn result_of(row: &Row) -> rusqlite::Result<ActionResult> {
    Ok(ActionResult {
        diff_id: row.get::<_, Option<_>>(0)?.map(DiffId),
        layer: layer_of(row, 1)?,
        labels: None,
        tier: row.get(6)?,
        seconds: row.get(7)?,
        created: row.get(8)?,
    })
}
