//! What is kept of results whose data is gone.

use rusqlite::{OptionalExtension, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Database;
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

impl Database {
    /// Writes down that the result of a key went. Its row in `result` is dropped elsewhere.
    pub fn put_evicted(&self, key: &Key, evicted: &Evicted) -> Result<()> {
        let cause = serde_json::to_string(&evicted.cause).expect("a cause is always JSON");
        self.in_transaction(|transaction| {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO evicted (key, evicted, cause, diff_id, seconds, created, last_used)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    key.0,
                    evicted.evicted,
                    cause,
                    evicted.diff_id.map(|diff_id| diff_id.0),
                    evicted.seconds,
                    evicted.created,
                    evicted.last_used
                ])
                .map(drop)
        })
    }

    /// The last time that the result of a key went.
    pub fn evicted(&self, key: &Key) -> Result<Option<Evicted>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT evicted, cause, diff_id, seconds, created, last_used FROM evicted WHERE key = ?1",
            )?;
            let found = statement.query_row([key.0], |row| {
                let cause: String = row.get(1)?;
                Ok(Evicted {
                    evicted: row.get(0)?,
                    // Of a cause that only a newer stacker knows, what is certain is this.
                    cause: serde_json::from_str(&cause).unwrap_or(Cause::Missing),
                    diff_id: row.get::<_, Option<_>>(2)?.map(DiffId),
                    seconds: row.get(3)?,
                    created: row.get(4)?,
                    last_used: row.get(5)?,
                })
            });
            found.optional()
        })
    }
}
