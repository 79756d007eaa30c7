//! The database: an index over records, plus what is worth remembering between builds.
//!
//! One connection, owned by the deciding thread; WAL, so that other processes read while one writes. Everything in it can
//! be lost: results come back from `records/`, the rest is found out again. Nothing here knows stackerfiles or layers'
//! contents.

mod archived;
mod builds;
mod durable;
mod evicted;
mod garbage;
mod open;
mod references;
mod remembered;
mod results;
mod sizes;
mod verify;

use std::cell::{Cell, RefCell};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::digest::Key;
use crate::error::{Error, Result};
use crate::place::StackerDir;

pub use crate::record::{ActionResult, LayerInfo};
pub use archived::Taken;
pub use builds::{BuildId, BuildRow, BuiltLayer, BuiltStep, Needed};
pub use durable::Unsynced;
pub use evicted::{Cause, Evicted};
pub use garbage::Orphaned;
pub use open::{boot_id, make_directories, must_exist, open_existing};
pub use results::{CacheRow, Status};

/// The open database of a stacker directory.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    dir: StackerDir,
    /// The boot that this process runs in.
    boot: String,
    /// A damaged page was met: said once, and the next start rebuilds.
    damaged: Cell<bool>,
    /// A read transaction is open, see [`Database::begin_reading`].
    reading: Cell<bool>,
    /// Results that were asked for and whose last use was written down long ago.
    used: RefCell<Vec<Key>>,
}

impl Database {
    /// The boot that this process runs in.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Until [`Database::end_reading`], or the first write, all queries are answered from the database as it is now:
    /// thousands of them then lock the file once, not each time. What other processes write meanwhile is not seen.
    pub fn begin_reading(&self) -> Result<()> {
        if !self.reading.get() {
            self.query(|connection| connection.execute_batch("BEGIN"))?;
            self.reading.set(true);
        }
        Ok(())
    }

    /// Queries see what other processes wrote again. Says whether that was not so.
    pub fn end_reading(&self) -> Result<bool> {
        let reading = self.reading.replace(false);
        if reading {
            self.query(|connection| connection.execute_batch("COMMIT"))?;
        }
        Ok(reading)
    }

    /// A write transaction; it takes the write lock at once, since one that first reads could fail to get it later.
    fn write(&self) -> Result<Transaction<'_>> {
        self.end_reading()?;
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(|error| self.fault(error))
    }

    /// Runs `statements` in one write transaction.
    fn in_transaction<T>(&self, statements: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T> {
        let transaction = self.write()?;
        let value = statements(&transaction).map_err(|error| self.fault(error))?;
        transaction.commit().map_err(|error| self.fault(error))?;
        Ok(value)
    }

    /// Runs a query.
    fn query<T>(&self, statements: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        statements(&self.connection).map_err(|error| self.fault(error))
    }

    /// An SQLite error with its path. Damage is written down, so that the next start sets the file aside.
    fn fault(&self, source: rusqlite::Error) -> Error {
        let path = self.dir.database();
        if open::is_damage(&source) {
            if !self.damaged.replace(true) {
                open::mark_damaged(&self.dir);
            }
            let path = path.display();
            return Error::Machine(format!(
                "database {path} is damaged ({source}); the next start sets it aside and makes it anew from records/"
            ));
        }
        Error::Database { path, source }
    }
}

/// The next number for `unsynced`, inside a write transaction.
fn next_unsynced(transaction: &Transaction) -> rusqlite::Result<i64> {
    let mut statement =
        transaction.prepare_cached("UPDATE boot SET counter = counter + 1 WHERE one = 1 RETURNING counter")?;
    statement.query_row([], |row| row.get(0))
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
