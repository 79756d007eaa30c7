//! Making results survive a power cut: one syncfs for each file system, then renames, then rows.
//!
//! What was written before the sync is known by two things taken before it: the counter of unsynced rows, and the names
//! in `fresh/`. Data comes before its record and a record before its row, so nothing that either names can be newer than
//! the sync. Several processes may do this at once; the second finds the renames done.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::Database;
use crate::commit_point::CommitPoint;
use crate::error::{At, Result};
use crate::place::{RootsDir, StackerDir};
use crate::record::names;
use crate::store::boot;

/// The tables whose rows speak of files.
const TABLES: [&str; 3] = ["result", "layer", "blob"];

/// What a sync makes durable: all that was written before this was taken. A thread may do it, without the database.
#[derive(Debug)]
pub struct Unsynced {
    /// No row of it has a higher number.
    counter: i64,
    /// Its records.
    fresh_names: Vec<String>,
    /// When all of its data had its name.
    made: SystemTime,
    stacker: StackerDir,
    roots: RootsDir,
    boot: String,
}

impl Database {
    /// Syncs what was built, then marks it durable. Costs nothing but a look when nothing is fresh. A failed sync is an
    /// error, and leaves everything as it was. What this build made in the store had its name by `made`.
    pub fn commit_durable(&self, roots: &RootsDir, made: SystemTime) -> Result<()> {
        let Some(unsynced) = self.unsynced(roots, made)? else { return Ok(()) };
        unsynced.sync()?;
        self.mark_durable(&unsynced)
    }

    /// What is not known to be on disk; `None`: nothing.
    pub fn unsynced(&self, roots: &RootsDir, made: SystemTime) -> Result<Option<Unsynced>> {
        let (unsynced, counter) = self.query(|connection| {
            let counter = connection.query_row("SELECT counter FROM boot", [], |row| row.get::<_, i64>(0))?;
            let any = |table| format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE unsynced IS NOT NULL)");
            let mut unsynced = false;
            for table in TABLES {
                unsynced |= connection.query_row(&any(table), [], |row| row.get::<_, bool>(0))?;
            }
            Ok((unsynced, counter))
        })?;
        let fresh_names = names(&self.dir.fresh())?;
        if !unsynced && fresh_names.is_empty() {
            return Ok(None);
        }
        let (stacker, roots, boot) = (self.dir.clone(), roots.clone(), self.boot.clone());
        Ok(Some(Unsynced { counter, fresh_names, made, stacker, roots, boot }))
    }

    /// Marks the rows of what was synced.
    pub fn mark_durable(&self, synced: &Unsynced) -> Result<()> {
        self.in_transaction(|transaction| {
            TABLES.iter().try_for_each(|table| {
                let statement = format!("UPDATE {table} SET unsynced = NULL WHERE unsynced <= ?1");
                transaction.execute(&statement, [synced.counter]).map(drop)
            })
        })?;
        CommitPoint::RowsKept.reached();
        Ok(())
    }
}

impl Unsynced {
    /// Syncs, then says so in `boot.json` and by renaming the records.
    pub fn sync(&self) -> Result<()> {
        let (fresh, records) = (self.stacker.fresh(), self.stacker.records());
        // Whatever is stamped with `made` or earlier has been written when the sync begins, however coarse the stamps.
        std::thread::sleep((self.made + boot::lag()).duration_since(SystemTime::now()).unwrap_or_default());
        sync_file_systems(&self.stacker.0, &self.roots.0)?;
        CommitPoint::Synced.reached();
        boot::synced(&self.roots, &self.boot, self.made)?;
        for name in &self.fresh_names {
            match fs::rename(fresh.join(name), records.join(name)) {
                // Another process did it, or a newer record replaced this one.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.at("rename", fresh.join(name))?,
            }
            CommitPoint::RecordKept.reached();
        }
        Ok(())
    }

    /// Gets that to the disk too. Without it a power cut in the next seconds may undo it, and the results are lost.
    pub fn sync_names(&self) -> Result<()> {
        for path in [boot::path(&self.roots), self.roots.0.clone(), self.stacker.records(), self.stacker.fresh()] {
            match File::open(&path).and_then(|file| file.sync_all()) {
                // Without anything that needed a sandbox there are no roots.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.at("sync", &path)?,
            }
        }
        Ok(())
    }
}

/// One syncfs for each file system; the roots directory may not exist when nothing needed a sandbox.
fn sync_file_systems(stacker: &Path, roots: &Path) -> Result<()> {
    let stacker_file = File::open(stacker).at("open", stacker)?;
    rustix::fs::syncfs(&stacker_file).at("sync the file system of", stacker)?;
    let there = match fs::metadata(roots) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.at("stat", roots)?,
    };
    if there.dev() == stacker_file.metadata().at("stat", stacker)?.dev() {
        return Ok(());
    }
    let roots_file = File::open(roots).at("open", roots)?;
    rustix::fs::syncfs(&roots_file).at("sync the file system of", roots)
}
