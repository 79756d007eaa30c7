//! How much each directory of a store was found to hold.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use rusqlite::{OptionalExtension, params};

use super::Database;
use crate::error::Result;
use crate::place::RootsDir;

/// The row that says what the whole store holds.
const WHOLE: &str = "";

impl Database {
    /// Bytes by the names of what was measured, relative to the roots directory.
    pub fn sizes(&self, roots: &RootsDir) -> Result<HashMap<String, u64>> {
        self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT name, bytes FROM size WHERE roots = ?1 AND name <> ''")?;
            let rows = statement
                .query_map([roots.0.as_os_str().as_bytes()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
            rows.collect()
        })
    }

    /// Bytes of the whole store, and when they were measured: nanoseconds since 1970.
    pub fn total_size(&self, roots: &RootsDir) -> Result<Option<(u64, i64)>> {
        self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT bytes, measured FROM size WHERE roots = ?1 AND name = ?2")?;
            let read = |row: &rusqlite::Row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?));
            statement.query_row(params![roots.0.as_os_str().as_bytes(), WHOLE], read).optional()
        })
    }

    /// Remembers sizes, and that of the whole store. `all`: nothing else is there.
    pub fn put_sizes(
        &self,
        roots: &RootsDir,
        sizes: &HashMap<String, u64>,
        total: u64,
        measured: i64,
        all: bool,
    ) -> Result<()> {
        let roots = roots.0.as_os_str().as_bytes();
        self.in_transaction(|transaction| {
            if all {
                transaction.execute("DELETE FROM size WHERE roots = ?1", [roots])?;
            }
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO size (roots, name, bytes, measured) VALUES (?1, ?2, ?3, ?4)")?;
            let whole = std::iter::once((WHOLE, &total));
            let mut rows = sizes.iter().map(|(name, bytes)| (name.as_str(), bytes)).chain(whole);
            rows.try_for_each(|(name, bytes)| {
                statement.execute(params![roots, name, *bytes as i64, measured]).map(drop)
            })
        })
    }
}
