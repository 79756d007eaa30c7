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
use crate::place::RootsDir;
use crate::record::names;
use crate::store::boot;

/// The tables whose rows speak of files.
const TABLES: [&str; 3] = ["result", "layer", "blob"];

impl Database {
    /// Syncs what was built, then marks it durable. Costs nothing but a look when nothing is fresh. A failed sync is an
    /// error, and leaves everything as it was. What this build made in the store had its name by `made`.
    pub fn commit_durable(&self, roots: &RootsDir, made: SystemTime) -> Result<()> {
        let (unsynced, counter) = self.query(|connection| {
            let counter = connection.query_row("SELECT counter FROM boot", [], |row| row.get::<_, i64>(0))?;
            let any = |table| format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE unsynced IS NOT NULL)");
            let mut unsynced = false;
            for table in TABLES {
                unsynced |= connection.query_row(&any(table), [], |row| row.get::<_, bool>(0))?;
            }
            Ok((unsynced, counter))
        })?;
        let (fresh, records) = (self.dir.fresh(), self.dir.records());
        let fresh_names = names(&fresh)?;
        if !unsynced && fresh_names.is_empty() {
            return Ok(());
        }
        // Whatever is stamped with `made` or earlier has been written when the sync begins, however coarse the stamps.
        std::thread::sleep((made + boot::lag()).duration_since(SystemTime::now()).unwrap_or_default());
        sync_file_systems(&self.dir.0, &roots.0)?;
        CommitPoint::Synced.reached();
        boot::synced(roots, &self.boot, made)?;
        for name in &fresh_names {
            match fs::rename(fresh.join(name), records.join(name)) {
                // Another process did it, or a newer record replaced this one.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.at("rename", fresh.join(name))?,
            }
            CommitPoint::RecordKept.reached();
        }
        self.in_transaction(|transaction| {
            TABLES.iter().try_for_each(|table| {
                let statement = format!("UPDATE {table} SET unsynced = NULL WHERE unsynced <= ?1");
                transaction.execute(&statement, [counter]).map(drop)
            })
        })?;
        CommitPoint::RowsKept.reached();
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
