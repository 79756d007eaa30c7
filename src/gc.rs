//! `stacker gc`: removes results by age, number and size, and what killed builds left behind.
//!
//! It may run beside any number of builds, and beside itself. A thing is put out of reach in one step with the look at who
//! relies on it (see [`crate::pins`]), and removed afterwards; data goes before its row, which is never wrong, since data
//! that is missing is made again or counts as evicted. So it can be killed at any moment, and it works on a full disk.
//! What there is is measured before, while nobody waits; then it is known of each thing what is free when it has gone.

mod fit;
mod history;
mod keep;
mod leftovers;
pub mod quota;
mod remote;
mod stock;
pub(crate) mod strays;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

use crate::cli::options::Directories;
use crate::commit_point::CommitPoint;
use crate::database::{CacheRow, Cause, Database, Orphaned, must_exist, open_existing};
use crate::digest::Key;
use crate::error::{Error, Result};
use crate::holder::Holder;
use crate::pins::{Closed, Live, Pin};
use crate::place;
use crate::usage::Survey;
use crate::usage::meter::{Part, Place};
use crate::worker::message::{Answer, Job};

pub use history::{BOUND as HISTORY_BOUND, names as history_names};

/// What `stacker gc` was asked for. A result that any of the rules takes goes.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Results that no build used for so many seconds.
    pub older_than: Option<u64>,
    /// All but those that the newest states of each layer consist of, so many of each.
    pub keep_last: Option<u32>,
    /// What is worth least, until the store has no more than so many bytes.
    pub max_size: Option<u64>,
    /// If that takes anything, a tenth of `max_size` is left free, so that not each build has to make room.
    pub spare: bool,
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
    /// Bytes that are free then.
    freed: u64,
    survey: Survey,
}

/// Removes; returns what to tell.
pub fn gc(directories: &Directories, holder: &Holder, request: &Request) -> Result<String> {
    must_exist(&directories.stacker)?;
    let mut gc = Gc::new(directories, holder, request.dry_run);
    // Makes room before anything has to be written.
    gc.adopt_strays()?;
    gc.freed += gc.size_of_trash()?;
    gc.empty_trash()?;
    let database = open_existing(&directories.stacker)?;
    gc.collect(&database, request)?;
    Ok(gc.report())
}

impl<'a> Gc<'a> {
    fn new(directories: &'a Directories, holder: &'a Holder, dry_run: bool) -> Gc<'a> {
        Gc { directories, holder, dry_run, told: Vec::new(), freed: 0, survey: Survey::default() }
    }

    /// What a killed build of root's left is not yet the workers'.
    fn adopt_strays(&self) -> Result<()> {
        if self.dry_run { Ok(()) } else { strays::adopt(&self.directories.roots, self.holder) }
    }

    fn collect(&mut self, database: &Database, request: &Request) -> Result<()> {
        self.adopt_strays()?;
        let history = history::names(&self.directories.stacker, database)?;
        self.survey = Survey::take(self.directories, self.holder, &history)?;
        let before = match request.older_than {
            Some(age) => now().saturating_sub(age as i64),
            None => i64::MIN,
        };
        for (row, cause) in victims(database, request, before)? {
            self.result(database, &row, &cause)?;
        }
        self.leftovers(database, before)?;
        if let Some(max) = request.max_size
            && self.fit(database, max, request.spare)?
        {
            // What those leave over.
            self.leftovers(database, before)?;
        }
        let bound = request.max_size.map_or(history::BOUND, |max| history::BOUND.min(max / 10));
        self.bound_history(database, bound)?;
        self.empty_trash()?;
        if self.dry_run { Ok(()) } else { quota::remember(self.directories, database, &self.survey) }
    }

    /// Removes one result, unless somebody uses it, or did since it was looked at. Says whether it went.
    fn result(&mut self, database: &Database, row: &CacheRow, cause: &Cause) -> Result<bool> {
        let stacker = &self.directories.stacker;
        let closed = Closed::wait(stacker)?;
        let live = Live::read(stacker, &closed)?;
        let Some(orphaned) = database.orphaned_by(&row.key, row.last_used + 1)? else { return Ok(false) };
        let base = orphaned.chain.is_some_and(|chain| live.holds(&Pin::Base(chain)));
        if base || live.holds(&Pin::Result(row.key)) {
            return Ok(false);
        }
        let names = names_of(&orphaned, database.record_name(&row.key)?);
        if !self.dry_run {
            self.drop_result(database, &row.key, &orphaned, cause)?;
        }
        drop(closed);
        let layers = if row.layers.is_empty() { "-".to_owned() } else { row.layers.join(", ") };
        let days = (now() - row.last_used) / 86_400;
        let why =
            if matches!(cause, Cause::OlderThan { .. }) { String::new() } else { format!(", by {}", cause.rule()) };
        let what = format!("{} of {layers}, last used {days} days ago ({}){why}", row.kind, row.key.first_digits());
        self.gone(&what, &names);
        Ok(true)
    }

    /// Data goes before its row.
    fn drop_result(&self, database: &Database, key: &Key, orphaned: &Orphaned, cause: &Cause) -> Result<()> {
        if let Some(chain) = &orphaned.chain {
            let paths = [place::delta(chain), place::tree(chain)];
            self.job(Job::SetAside { paths: paths.map(|path| path.to_string_lossy().into_owned()).to_vec() })?;
            CommitPoint::ResultSetAside.reached();
        }
        for blob in &orphaned.blobs {
            crate::record::remove(&self.directories.stacker.blob(blob))?;
            CommitPoint::ResultFileRemoved.reached();
        }
        database.evict(key, orphaned, cause)
    }

    /// Something went: notes what is free then, and tells it.
    fn gone(&mut self, what: &str, names: &[String]) {
        let freed = self.survey.remove(names);
        self.freed += freed;
        self.told.push(format!("{what}: {}", size(freed)));
    }

    /// The same of a file of the stacker directory.
    fn file_gone(&mut self, path: &Path, why: &str) {
        let name = path.strip_prefix(&self.directories.stacker.0).unwrap_or(path).to_string_lossy().into_owned();
        self.gone(&format!("{}, {why}", path.display()), &[name]);
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

    fn size_of_trash(&self) -> Result<u64> {
        let names = self.names("trash")?;
        if names.is_empty() || !self.directories.roots.store_json().exists() {
            return Ok(0);
        }
        let place = |name| Place { path: format!("trash/{name}"), owners: vec![0], part: Part::All };
        let places = names.into_iter().map(place).collect();
        let measured = crate::usage::measure_roots(self.directories, self.holder, places)?;
        Ok(measured.groups.iter().filter(|group| !group.outside).map(|group| group.bytes).sum())
    }

    fn report(&self) -> String {
        let mut text = String::new();
        for line in &self.told {
            text += &format!("{line}\n");
        }
        let (verb, left) = if self.dry_run { ("would remove", "would be") } else { ("removed", "are") };
        let (count, freed, total) = (self.told.len(), size(self.freed), size(self.survey.total()));
        text + &format!("{verb} {count} things, {freed}; {total} {left} left")
    }
}

/// The results that rules other than that of size take, those used longest ago first.
fn victims(database: &Database, request: &Request, before: i64) -> Result<Vec<(CacheRow, Cause)>> {
    let kept = request.keep_last.map(|count| keep::newest(database, count)).transpose()?;
    let mut victims = Vec::new();
    for row in database.list()?.into_iter().rev() {
        if let (Some(seconds), true) = (request.older_than, row.last_used < before) {
            victims.push((row, Cause::OlderThan { seconds }));
        } else if let (Some(count), Some(kept)) = (request.keep_last, &kept)
            && !kept.contains(&row.key)
        {
            victims.push((row, Cause::KeepLast { count }));
        }
    }
    Ok(victims)
}

/// What goes with a result, as the survey names it.
fn names_of(orphaned: &Orphaned, record: Option<String>) -> Vec<String> {
    let chain = orphaned.chain.iter().flat_map(|chain| [place::delta(chain), place::tree(chain)]);
    let mut names: Vec<String> = chain.map(|path| path.to_string_lossy().into_owned()).collect();
    names.extend(orphaned.blobs.iter().map(|blob| format!("blobs/sha256/{}", blob.hex())));
    names.extend(record.iter().flat_map(|name| [format!("records/{name}"), format!("fresh/{name}")]));
    names
}

/// `1.5 MiB`.
fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
