//! What is kept of servers: `remote/` in the stacker directory.
//!
//! ```text
//! sha256-HEX         a copy, whole and on disk, named by its content
//! sha256-HEX.used    empty; its time is when the copy was last used
//! URL.json           what a URL gave (URL: the blake3 of its text): see `Note`
//! URL.part           a download that is not whole; who fills it keeps it locked
//! URL.resume         of which file that is a part: see `Resume`
//! ```

use std::fs::{File, FileTimes, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::commit_point::CommitPoint;
use crate::database::Database;
use crate::digest::BlobDigest;
use crate::error::{At, Result};
use crate::inputs::remembered_sha256;
use crate::listing::Kind;
use crate::pins::{Pin, Pins};
use crate::place::StackerDir;
use crate::record::{remove, write_once};
use crate::resolve::{HostPath, Resolver, sha256_of};

/// How names of copies begin.
pub(crate) const COPY: &str = "sha256-";
/// How names of notes end.
const NOTE: &str = ".json";
/// How the names end that say when a copy was last used.
pub(crate) const MARK: &str = ".used";

/// How names of parts end.
pub(crate) const PART: &str = ".part";
/// How the names end that say what a part is of.
pub(crate) const RESUME: &str = ".resume";

/// Uses are noted so exactly, in seconds.
const GRAIN: u64 = 3600;

/// What a URL gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// 1.
    pub format: u32,
    /// Without credentials and query.
    pub url: String,
    /// The copy.
    pub sha256: BlobDigest,
    /// Its bytes.
    pub size: u64,
    /// A strong `ETag` or a `Last-Modified`.
    pub validator: Option<String>,
    /// When it was fetched, in seconds since 1970.
    pub fetched: i64,
}

/// What a part is a part of.
#[derive(Debug, Serialize, Deserialize)]
struct Resume {
    validator: Option<String>,
    /// After a power cut nobody knows what of a part is on disk.
    boot: String,
}

/// The directory.
pub struct Kept<'a> {
    stacker: &'a StackerDir,
    pins: &'a Pins,
    boot: &'a str,
}

/// A part that this process fills.
pub struct Part {
    /// Where it lies.
    pub path: PathBuf,
    /// Locked.
    pub file: File,
}

impl Note {
    /// The note in a file, if there is one.
    pub fn read(path: &Path) -> Option<Note> {
        let is_named = path.to_str().is_some_and(|path| path.ends_with(NOTE));
        let text = if is_named { std::fs::read(path).ok()? } else { return None };
        serde_json::from_slice(&text).ok().filter(|note: &Note| note.format == 1)
    }

    /// When it was fetched: `2026-11-25`.
    pub fn day(&self) -> String {
        let time = jiff::Timestamp::from_second(self.fetched);
        time.map_or_else(|_| "long ago".to_owned(), |time| time.strftime("%F").to_string())
    }
}

impl<'a> Kept<'a> {
    /// That of a build.
    pub fn new(stacker: &'a StackerDir, pins: &'a Pins, database: &'a Database) -> Kept<'a> {
        Kept { stacker, pins, boot: database.boot() }
    }

    /// Where a copy lies.
    pub fn copy(&self, digest: &BlobDigest) -> PathBuf {
        self.stacker.remote().join(format!("{COPY}{}", digest.hex()))
    }

    /// Whether a copy is there and is what its name says; from then on it stays. A damaged one is removed.
    pub fn take(&self, database: &Database, digest: &BlobDigest) -> Result<bool> {
        let path = self.copy(digest);
        if !self.is_there(digest, None)? {
            return Ok(false);
        }
        if found(database, &path)? == Some(digest.hex()) {
            return Ok(true);
        }
        remove(&path)?;
        Ok(false)
    }

    /// Whether a copy is there, of this size if it is said; from then on it stays.
    pub fn is_there(&self, digest: &BlobDigest, size: Option<u64>) -> Result<bool> {
        let path = self.copy(digest);
        let is_it = |found: std::fs::Metadata| found.is_file() && size.is_none_or(|size| size == found.len());
        let there = self.pins.pin([Pin::Remote(*digest)], || Ok(path.symlink_metadata().is_ok_and(is_it)))?;
        if there {
            self.mark(digest);
        }
        Ok(there)
    }

    /// What a URL gave when it was fetched, if that is here.
    pub fn note(&self, database: &Database, url: &str) -> Result<Option<Note>> {
        match self.read_note(url) {
            Some(note) if self.take(database, &note.sha256)? => Ok(Some(note)),
            _ => Ok(None),
        }
    }

    /// What the note says, wherever the copy is.
    pub fn read_note(&self, url: &str) -> Option<Note> {
        Note::read(&self.named(url, NOTE))
    }

    /// What a URL gave is not to be used again.
    pub fn forget(&self, url: &str) -> Result<()> {
        remove(&self.named(url, NOTE))
    }

    /// The part of a URL, if nobody fills it at this moment.
    pub fn try_part(&self, url: &str) -> Result<Option<Part>> {
        loop {
            let part = self.open_part(url)?;
            match part.file.try_lock() {
                Ok(()) if part.is_there() => return Ok(Some(part)),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &part.path),
            }
        }
    }

    /// The part of a URL; waits for whoever fills it.
    pub fn part(&self, url: &str) -> Result<Part> {
        loop {
            let part = self.open_part(url)?;
            match part.file.lock() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => other.at("lock", &part.path)?,
            }
            if part.is_there() {
                return Ok(part);
            }
        }
    }

    fn open_part(&self, url: &str) -> Result<Part> {
        let path = self.named(url, PART);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        Ok(Part { file: file.at("open", &path)?, path })
    }

    /// The validator of what a part holds; none if that cannot be gone on with.
    pub fn resume(&self, url: &str) -> Option<String> {
        let resume: Resume = serde_json::from_slice(&std::fs::read(self.named(url, RESUME)).ok()?).ok()?;
        resume.validator.filter(|_| resume.boot == self.boot)
    }

    /// Writes down what a part will be a part of. It is empty now.
    pub fn begin(&self, url: &str, validator: Option<String>) -> Result<()> {
        let path = self.named(url, RESUME);
        let resume = Resume { validator, boot: self.boot.to_owned() };
        let text = serde_json::to_vec(&resume).map_err(std::io::Error::from).at("write", &path)?;
        write_once(&self.stacker.tmp(), &path, &text)?;
        CommitPoint::RemoteBegun.reached();
        Ok(())
    }

    /// Makes a whole part the copy that the note tells of; it gets to the disk first, since its name will be believed.
    ///
    /// The name comes last: as soon as the part has gone, others may look for what it became. A note without its copy
    /// says nothing.
    pub fn keep(&self, url: &str, part: Part, note: &Note) -> Result<()> {
        part.file.sync_all().at("sync", &part.path)?;
        let (path, named) = (self.copy(&note.sha256), self.named(url, NOTE));
        let text = serde_json::to_vec(note).map_err(std::io::Error::from).at("write", &named)?;
        write_once(&self.stacker.tmp(), &named, &text)?;
        CommitPoint::RemoteNoted.reached();
        self.pins.pin([Pin::Remote(note.sha256)], || std::fs::rename(&part.path, &path).at("rename to", &path))?;
        CommitPoint::RemoteNamed.reached();
        self.mark(&note.sha256);
        remove(&self.named(url, RESUME))
    }

    /// Drops a part, which nothing will be made of.
    pub fn drop_part(&self, url: &str, part: &Part) -> Result<()> {
        remove(&self.named(url, RESUME))?;
        remove(&part.path)
    }

    /// Notes beside a copy when it was last used: to touch the copy itself would make it look changed.
    fn mark(&self, digest: &BlobDigest) {
        let mut mark = self.copy(digest).into_os_string();
        mark.push(MARK);
        let age = std::fs::metadata(&mark).and_then(|found| found.modified()).ok();
        let age = age.and_then(|used| SystemTime::now().duration_since(used).ok());
        if age.is_none_or(|age| age >= Duration::from_secs(GRAIN)) {
            // Where that cannot be written the copy is taken for older than it is.
            let times = FileTimes::new().set_modified(SystemTime::now());
            let _ = File::create(&mark).and_then(|mark| mark.set_times(times));
        }
    }

    fn named(&self, url: &str, suffix: &str) -> PathBuf {
        self.stacker.remote().join(format!("{}{suffix}", blake3::hash(url.as_bytes()).to_hex()))
    }
}

impl Part {
    /// Whether the name still leads to what is locked.
    fn is_there(&self) -> bool {
        let id = |found: std::fs::Metadata| (found.dev(), found.ino());
        let ours = self.file.metadata().map(id).ok();
        ours.is_some() && ours == self.path.symlink_metadata().map(id).ok()
    }
}

/// The sha256 of a file, in hexadecimal; it is read only where that is not known. `None`: it is no file any more.
fn found(database: &Database, path: &Path) -> Result<Option<String>> {
    let at = HostPath::normalised(path.to_path_buf());
    let device = path.symlink_metadata().map_or(0, |found| found.dev());
    let list = database.stat_list(&at.list_path(), device)?;
    let looked = Resolver::new(Vec::new()).look(&at, list.as_deref())?;
    if let Some(list) = looked.stat_list {
        database.put_stat_list(&at.list_path(), looked.device, list)?;
    }
    let Kind::File { content, .. } = looked.tree.root().kind else { return Ok(None) };
    remembered_sha256(database, &content, || sha256_of(path, &content))
}
