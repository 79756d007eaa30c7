//! `stacker cache verify`: whether every record, listing, delta, tree and blob is there and right.
//!
//! What is damaged is put out of reach, in one step with the look that no running build relies on it (see
//! [`crate::pins`]), and made again: at once where what is left proves what it was, else by the next build that needs it.
//! A layer of ours is proven by its diff id, that of the tar made of listing and delta; of a base image's layer, whose
//! tar is not ours, listing and delta must agree, and where they do not both go. A thing that is only missing is no
//! damage: results outlive their data.

mod files;
mod known;
mod layers;
mod records;
mod remote;

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::options::Directories;
use crate::database::Database;
use crate::digest::DiffId;
use crate::error::{At, Result};
use crate::gc::strays;
use crate::holder::{Holder, Insisted};
use crate::pins::{Closed, Live, Pin};
use crate::store::{StoreKind, is_damaged};
use crate::worker::message::{Answer, Job};
pub(crate) use files::whole_listing;
use known::Known;

/// What was found.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(title = "stacker cache verify")]
pub struct Report {
    /// What was damaged.
    pub damaged: Vec<Finding>,
    /// What is missing, or was set aside without being damaged.
    pub notes: Vec<Finding>,
    /// How many things of each kind were looked at.
    pub checked: Checked,
}

/// Something worth telling.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// `listing of app`.
    pub what: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// What was done about it.
    pub done: String,
}

/// How many things of each kind were looked at.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Checked {
    /// Results with their records.
    pub records: usize,
    /// Of layers and of import trees.
    pub listings: usize,
    /// Changes of layers.
    pub deltas: usize,
    /// Whole root filesystems.
    pub trees: usize,
    /// Compressed layers.
    pub blobs: usize,
    /// Files from servers.
    pub copies: usize,
}

/// One run of it.
struct Verify<'a> {
    directories: &'a Directories,
    holder: Holder,
    database: Database,
    deep: bool,
    /// Who owns what is in the stacker directory.
    owner: u32,
    /// Layers of which neither the listing nor a delta could be trusted.
    wrong: HashSet<DiffId>,
    report: Report,
}

/// Looks at everything (`deep`: contents too), sets aside what is damaged. The calling process must have no other
/// thread.
pub fn verify(directories: &Directories, (kind, sandbox): Insisted, deep: bool) -> Result<Report> {
    let stacker = &directories.stacker;
    if !stacker.records().is_dir() {
        crate::database::must_exist(&directories.stacker)?;
    }
    let (store, kind) = mend_store(directories, kind)?;
    let mut holder = Holder::start(stacker, &directories.roots, kind)?.insist(sandbox);
    let (database, said) = Database::open_whole(stacker, deep)?;
    holder.expect(database.store(&directories.roots)?);
    let owner = fs::metadata(&stacker.0).at("stat", &stacker.0)?.uid();
    let report = Report { damaged: store.into_iter().collect(), ..Report::default() };
    let mut verify = Verify { directories, holder, database, deep, owner, wrong: HashSet::new(), report };
    verify.holder.prepare()?;
    for text in said {
        let (why, done) = text.split_once(": ").unwrap_or((&text, ""));
        verify.damaged("database".to_owned(), &stacker.database(), why, done);
    }
    verify.records()?;
    let known = Known::read(&verify.database)?;
    verify.blobs(&known)?;
    verify.copies()?;
    verify.layers(&known)?;
    verify.trees(&known)?;
    verify.import_trees()?;
    if deep {
        verify.staged_imports()?;
    }
    verify.database.commit_durable(&directories.roots, SystemTime::now())?;
    verify.empty_trash()?;
    Ok(verify.report)
}

/// Sets a `store.json` aside that cannot be read: a new one is written when the store is opened, of the kind that the
/// database knows.
fn mend_store(directories: &Directories, kind: Option<StoreKind>) -> Result<(Option<Finding>, Option<StoreKind>)> {
    let (stacker, roots) = (&directories.stacker, &directories.roots);
    if !is_damaged(roots) {
        return Ok((None, kind));
    }
    let known = Database::open(stacker)?.0.store(roots)?.map(|(_, kind)| kind);
    let path = roots.store_json();
    files::copy_aside(stacker, "store", &path)?;
    crate::record::remove(&path)?;
    let (what, why) = ("store".to_owned(), "it cannot be understood".to_owned());
    Ok((Some(Finding { what, path, why, done: "written anew".to_owned() }), kind.or(known)))
}

impl Verify<'_> {
    fn damaged(&mut self, what: String, path: &Path, why: impl Into<String>, done: impl Into<String>) {
        self.report.damaged.push(Finding { what, path: path.to_path_buf(), why: why.into(), done: done.into() });
    }

    fn note(&mut self, what: String, path: &Path, why: impl Into<String>, done: impl Into<String>) {
        self.report.notes.push(Finding { what, path: path.to_path_buf(), why: why.into(), done: done.into() });
    }

    /// Puts something out of reach unless a running build relies on it; says what was done.
    fn set_aside(&self, pins: &[Pin], take: impl FnOnce() -> Result<()>) -> Result<String> {
        let stacker = &self.directories.stacker;
        let closed = Closed::wait(stacker)?;
        let live = Live::read(stacker, &closed)?;
        if pins.iter().any(|pin| live.holds(pin)) {
            return Ok("left, since a running build uses it: verify once more when that has ended".to_owned());
        }
        Ok(match take() {
            Ok(()) => "set aside".to_owned(),
            Err(error) => format!("could not be set aside: {error}"),
        })
    }

    /// A directory of the workers.
    fn set_directory_aside(&self, path: &Path, pins: &[Pin]) -> Result<String> {
        let paths = vec![path.to_string_lossy().into_owned()];
        self.set_aside(pins, || self.job(Job::SetAside { paths }, vec![]).map(drop))
    }

    /// A file of our own.
    fn set_file_aside(&self, kind: &str, path: &Path, pins: &[Pin]) -> Result<String> {
        self.set_aside(pins, || files::set_aside(&self.directories.stacker, kind, path))
    }

    /// A job of a worker, which owns what is in the roots directory.
    fn job(&self, job: Job, descriptors: Vec<OwnedFd>) -> Result<Answer> {
        self.holder.prepare()?;
        match self.holder.submit(job, descriptors)?.wait()? {
            Answer::Failed(failure) => Err(failure.error(self.directories.written())),
            answer => Ok(answer),
        }
    }

    /// Nothing says what a staged import should be, so those that nobody uses go.
    fn staged_imports(&mut self) -> Result<()> {
        let stacker = &self.directories.stacker;
        strays::adopt(&self.directories.roots, &self.holder)?;
        let directory = self.directories.roots.0.join("imports");
        for name in crate::record::names(&directory).unwrap_or_default() {
            let path = directory.join(&name);
            let closed = Closed::wait(stacker)?;
            let live = Live::read(stacker, &closed)?;
            if live.holds(&Pin::Import(name.clone())) {
                continue;
            }
            self.job(Job::SetAside { paths: vec![format!("imports/{name}")] }, vec![])?;
            drop(closed);
            self.note("staged import".to_owned(), &path, "nothing says what it should be", "set aside");
        }
        Ok(())
    }

    /// Takes apart what was set aside; nobody needs anything in the trash.
    fn empty_trash(&mut self) -> Result<()> {
        let directory = self.directories.roots.0.join("trash");
        let names = crate::record::names(&directory).unwrap_or_default();
        if names.is_empty() {
            return Ok(());
        }
        let paths = names.iter().map(|name| format!("trash/{name}")).collect();
        if let Err(error) = self.job(Job::Remove { paths }, vec![]) {
            self.note("trash".to_owned(), &directory, error.to_string(), "remove it as root");
        }
        Ok(())
    }
}

impl Report {
    /// The exit code that it means.
    pub fn exit_code(&self) -> i32 {
        i32::from(!self.damaged.is_empty())
    }

    /// For people, or (`json`) for programs.
    pub fn render(&self, json: bool) -> String {
        if json {
            return crate::text::json(self);
        }
        let mut text = String::new();
        let lines = self.damaged.iter().map(|found| ("damaged", found));
        for (word, Finding { what, path, why, done }) in lines.chain(self.notes.iter().map(|found| ("note", found))) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{word}: {what} ({}): {why}; {done}", path.display());
        }
        let Checked { records, listings, deltas, trees, blobs, copies } = self.checked;
        let mut counts = format!("{records} records, {listings} listings, {deltas} deltas, {trees} trees");
        counts += &match copies {
            0 => format!(" and {blobs} blobs"),
            _ => format!(", {blobs} blobs and {copies} files from servers"),
        };
        text + &match self.damaged.len() {
            0 => format!("{counts}: all right"),
            count => format!("{counts}: {count} things were damaged; the next build makes again what it needs of them"),
        }
    }
}
