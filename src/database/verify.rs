//! What `stacker cache verify` asks.

use std::collections::HashMap;

use super::{Database, open};
use crate::digest::{BlobDigest, DiffId, Key};
use crate::error::{Error, Result};
use crate::place::StackerDir;

impl Database {
    /// Opens the database and reads all of it (`deep`: its indices too). A damaged one is set aside and made anew. Also
    /// gives back what was done.
    pub fn open_whole(dir: &StackerDir, deep: bool) -> Result<(Database, Vec<String>)> {
        let (database, mut said) = Database::open(dir)?;
        let pragma = if deep { "PRAGMA integrity_check(1)" } else { "PRAGMA quick_check(1)" };
        let wrong = match database.connection.query_row(pragma, [], |row| row.get::<_, String>(0)) {
            Ok(text) => text != "ok",
            Err(error) if open::is_damage(&error) => true,
            Err(source) => return Err(Error::Database { path: dir.database(), source }),
        };
        if !wrong {
            return Ok((database, said));
        }
        drop(database);
        open::mark_damaged(dir);
        let (database, more) = Database::open(dir)?;
        said.extend(more);
        Ok((database, said))
    }

    /// The keys of all results.
    pub fn result_keys(&self) -> Result<Vec<Key>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT key FROM result ORDER BY key")?;
            statement.query_map([], |row| Ok(Key(row.get(0)?)))?.collect()
        })
    }

    /// The name of the record of a result.
    pub fn record_name(&self, key: &Key) -> Result<Option<String>> {
        use rusqlite::OptionalExtension;
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT record FROM result WHERE key = ?1")?;
            statement.query_row([key.0], |row| row.get(0)).optional()
        })
    }

    /// What each blob is of, and its size.
    pub fn blob_sizes(&self) -> Result<HashMap<BlobDigest, (DiffId, u64)>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT blob, diff_id, size FROM blob")?;
            let rows = statement.query_map([], |row| {
                Ok((BlobDigest(row.get(0)?), (DiffId(row.get(1)?), row.get::<_, i64>(2)? as u64)))
            })?;
            rows.collect()
        })
    }
}
