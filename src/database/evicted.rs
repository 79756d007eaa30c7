//! What is kept of results whose data is gone.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Database, now};
use crate::commit_point::CommitPoint;
use crate::digest::{DiffId, Key};
use crate::error::Result;

/// A result that is no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Evicted {
    /// When it went: seconds since 1970.
    pub evicted: i64,
    /// By which rule.
    pub cause: Cause,
    /// The layer that it was; `None`: it had none.
    pub diff_id: Option<DiffId>,
    /// How long its action took.
    pub seconds: f64,
    /// When it was made: seconds since 1970.
    pub created: i64,
    /// When it was last used: seconds since 1970.
    pub last_used: i64,
}

/// Why a result went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Cause {
    /// `gc --older-than`: it was not used for so many seconds.
    OlderThan {
        /// The age that was asked for.
        seconds: u64,
    },
    /// `gc --max-size`, or the quota at the end of a build.
    MaxSize {
        /// The size that was asked for.
        bytes: u64,
    },
    /// `gc --keep-last`: newer results of its layer were kept.
    KeepLast {
        /// So many of each layer.
        count: u32,
    },
    /// Its data was found damaged.
    Damaged,
    /// Its data was found missing.
    Missing,
}

impl Cause {
    /// The rule as it stands on a command line, else what was found.
    pub fn rule(&self) -> String {
        match self {
            Cause::OlderThan { seconds } => format!("--older-than {seconds}s"),
            Cause::MaxSize { bytes } => format!("--max-size {}", bytesize::ByteSize::b(*bytes).display().iec()),
            Cause::KeepLast { count } => format!("--keep-last {count}"),
            Cause::Damaged => "damaged".to_owned(),
            Cause::Missing => "missing".to_owned(),
        }
    }
}

impl Database {
    /// Writes down that the data of a result is lost, unless that is known since it was made. The result stays: what
    /// follows from it holds, and only who needs the data runs its action again.
    pub fn note_lost(&self, key: &Key, cause: &Cause) -> Result<()> {
        let is_new = |evicted: &Evicted, known: &Option<Evicted>| {
            known.as_ref().is_none_or(|known| known.evicted < evicted.created)
        };
        let known = self.evicted(key)?;
        self.in_transaction(|transaction| match from_result(transaction, key, cause)? {
            Some(evicted) if is_new(&evicted, &known) => insert(transaction, key, &evicted),
            _ => Ok(()),
        })?;
        CommitPoint::LossNoted.reached();
        Ok(())
    }

    /// The last time that the result of a key went.
    pub fn evicted(&self, key: &Key) -> Result<Option<Evicted>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(&format!("{EVICTED} WHERE key = ?1"))?;
            statement.query_row([key.0], evicted_of).optional()
        })
    }

    /// All that went, also where the action has run again.
    pub fn all_evicted(&self) -> Result<HashMap<Key, Evicted>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(EVICTED)?;
            statement.query_map([], |row| Ok((Key(row.get(6)?), evicted_of(row)?)))?.collect()
        })
    }
}

const EVICTED: &str = "SELECT evicted, cause, diff_id, seconds, created, last_used, key FROM evicted";

fn evicted_of(row: &Row) -> rusqlite::Result<Evicted> {
    let cause: String = row.get(1)?;
    Ok(Evicted {
        evicted: row.get(0)?,
        cause: cause_of(&cause),
        diff_id: row.get::<_, Option<_>>(2)?.map(DiffId),
        seconds: row.get(3)?,
        created: row.get(4)?,
        last_used: row.get(5)?,
    })
}

/// Of a cause that only a newer stacker knows, what is certain is that the result is missing.
pub(super) fn cause_of(text: &str) -> Cause {
    serde_json::from_str(text).unwrap_or(Cause::Missing)
}

/// What is to be kept of a result that is there.
pub(super) fn from_result(transaction: &Transaction, key: &Key, cause: &Cause) -> rusqlite::Result<Option<Evicted>> {
    let mut statement =
        transaction.prepare_cached("SELECT diff_id, seconds, created, last_used FROM result WHERE key = ?1")?;
    let read = |row: &Row| {
        Ok(Evicted {
            evicted: now(),
            cause: cause.clone(),
            diff_id: row.get::<_, Option<_>>(0)?.map(DiffId),
            seconds: row.get(1)?,
            created: row.get(2)?,
            last_used: row.get(3)?,
        })
    };
    statement.query_row([key.0], read).optional()
}

pub(super) fn insert(transaction: &Transaction, key: &Key, evicted: &Evicted) -> rusqlite::Result<()> {
    let cause = serde_json::to_string(&evicted.cause).expect("a cause is always JSON");
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO evicted (key, evicted, cause, diff_id, seconds, created, last_used)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let diff_id = evicted.diff_id.map(|diff_id| diff_id.0);
    let Evicted { evicted: when, seconds, created, last_used, .. } = evicted;
    statement.execute(params![key.0, when, cause, diff_id, seconds, created, last_used]).map(drop)
}
