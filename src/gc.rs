//! `stacker gc`: removes results that were not used for long, and what killed builds left behind.
//!
//! It may run beside any number of builds, and beside itself. A thing is put out of reach in one step with the look at who
//! relies on it (see [`crate::pins`]), and removed afterwards; data goes before its row, which is never wrong, since data
//! that is missing is made again or counts as evicted. So it can be killed at any moment, and it works on a full disk.

mod history;
pub(crate) mod leftovers;
mod remote;

use std::time::{SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

use crate::cli::options::Directories;
use crate::commit_point::CommitPoint;
use crate::database::{CacheRow, Cause, Database, Orphaned, must_exist, open_existing};
use crate::error::{Error, Result};
use crate::holder::Holder;
use crate::pins::{Closed, Live, Pin};
use crate::place::{self, StackerDir};
use crate::worker::message::{Answer, Job};

/// What `stacker gc` was asked for.
pub struct Request {
    /// Results that no build used for so many seconds go; `None`: none does.
    pub older_than: Option<u64>,
    /// Nothing is removed, only told.
    pub dry_run: bool,
}

/// One run of it.
struct Gc<'a> {
    directories: &'a Directories,
    holder: &'a Holder,
    dry_run: bool,
    /// A line for each thing that goes.
    told: Vec<String>,
    /// Bytes of files that went; of directories the size is not looked up.
    bytes: u64,
}

/// Removes; returns what to tell.
pub fn gc(directories: &Directories, holder: &Holder, request: &Request) -> Result<String> {
    must_exist(&directories.stacker)?;
    let mut gc = Gc { directories, holder, dry_run: request.dry_run, told: Vec::new(), bytes: 0 };
    // Makes room before anything has to be written.
    gc.empty_trash()?;
    let database = open_existing(&directories.stacker)?;
    let before = match request.older_than {
        Some(age) => now().saturating_sub(age as i64),
        None => i64::MIN,
    };
    let cause = Cause::OlderThan { seconds: request.older_than.unwrap_or_default() };
    for row in database.list()?.into_iter().rev().filter(|row| row.last_used < before) {
        gc.result(&database, &row, before, &cause)?;
    }
    gc.leftovers(&database, before)?;
    gc.bound_history(&database, history::BOUND)?;
    gc.empty_trash()?;
    Ok(gc.summary())
}

impl Gc<'_> {
    /// Removes one result, unless somebody uses it.
    fn result(&mut self, database: &Database, row: &CacheRow, before: i64, cause: &Cause) -> Result<()> {
        let stacker = &self.directories.stacker;
        let closed = Closed::wait(stacker)?;
        let live = Live::read(stacker, &closed)?;
        let Some(orphaned) = database.orphaned_by(&row.key, before)? else { return Ok(()) };
        let base = orphaned.chain.is_some_and(|chain| live.holds(&Pin::Base(chain)));
        if base || live.holds(&Pin::Result(row.key)) {
            return Ok(());
        }
        let layers = if row.layers.is_empty() { "-".to_owned() } else { row.layers.join(", ") };
        let days = (now() - row.last_used) / 86_400;
        self.told.push(format!("{} of {layers}, last used {days} days ago ({})", row.kind, row.key.short()));
        if self.dry_run {
            self.bytes += size_of(stacker, &orphaned);
            return Ok(());
        }
        if let Some(chain) = &orphaned.chain {
            let paths = [place::delta(chain), place::tree(chain)];
            self.job(Job::SetAside { paths: paths.map(|path| path.to_string_lossy().into_owned()).to_vec() })?;
            CommitPoint::ResultSetAside.reached();
        }
        self.bytes += size_of(stacker, &orphaned);
        for blob in &orphaned.blobs {
            crate::record::remove(&stacker.blob(blob))?;
            CommitPoint::ResultFileRemoved.reached();
        }
        database.evict(&row.key, &orphaned, cause)
    }

    /// A job of a worker, which owns what is in the roots directory.
    fn job(&self, job: Job) -> Result<()> {
        self.holder.prepare()?;
        match self.holder.submit(job, vec![])?.wait()? {
            Answer::Done => Ok(()),
            Answer::Failed(failure) => Err(failure.error(self.directories.written())),
            other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
        }
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        for line in &self.told {
            text += &format!("{line}\n");
        }
        let verb = if self.dry_run { "would remove" } else { "removed" };
        text + &format!("{verb} {} things, {} of files besides directories", self.told.len(), ByteSize::b(self.bytes))
    }
}

fn size_of(stacker: &StackerDir, orphaned: &Orphaned) -> u64 {
    let files = orphaned.blobs.iter().map(|blob| stacker.blob(blob));
    files.filter_map(|path| path.metadata().ok()).map(|found| found.len()).sum()
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
