//! Blobs of base images, fetched when something needs them: several at a time, each once, from where the last try
//! ended.
//!
//! ```text
//! stacker-dir/
//!   downloads/HEX      what is there of a blob; locked (flock) by who fetches it
//!   blobs/sha256/HEX   the blob, whole and checked
//! ```
//! Whoever needs a blob takes the lock and looks once more: another thread or process may just have fetched it. A part
//! stays after a failure, and is gone on with; gc removes those that nobody went on with for long.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::repository::Repository;
use crate::commit_point::CommitPoint;
use crate::digest::BlobDigest;
use crate::error::{At, Error, Result};
use crate::oci::blob_path;
use crate::place::StackerDir;
use crate::progress::Event;
use crate::resolve::sha256_file;

/// Downloads at a time.
pub const AT_ONCE: usize = 4;

/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);

/// A blob of a repository.
#[derive(Clone, Debug)]
pub struct RemoteBlob {
    /// Where it lies.
    pub repository: Arc<Repository>,
    /// Bytes.
    pub size: u64,
}

/// The blobs that a build may need.
#[derive(Debug)]
pub struct Downloads {
    stacker: StackerDir,
    blobs: HashMap<BlobDigest, RemoteBlob>,
    offline: bool,
    free: Mutex<usize>,
    freed: Condvar,
}

/// Where progress is told.
pub type Tell<'a> = &'a (dyn Fn(Event) + Sync);

impl Downloads {
    /// Nothing is fetched yet.
    pub fn new(stacker: &StackerDir, blobs: HashMap<BlobDigest, RemoteBlob>, offline: bool) -> Downloads {
        Downloads { stacker: stacker.clone(), blobs, offline, free: Mutex::new(AT_ONCE), freed: Condvar::new() }
    }

    /// Whether a blob lies at a registry, and neither here nor in a layout.
    pub fn is_missing(&self, digest: &BlobDigest, layout: &Path) -> bool {
        let Some(blob) = self.blobs.get(digest) else { return false };
        !self.has(digest, blob.size) && !is_there(&blob_path(layout, digest), blob.size)
    }

    /// The blobs are here, those of registries that were not are fetched. The first failure is given back when all have
    /// come to their end.
    pub fn have(&self, digests: &[BlobDigest], tell: Tell) -> Result<()> {
        let is_missing = |digest: &&BlobDigest| self.blobs.get(digest).is_some_and(|blob| !self.has(digest, blob.size));
        let missing: BTreeSet<_> = digests.iter().filter(is_missing).collect();
        match missing.len() {
            0 => Ok(()),
            1 => missing.into_iter().try_for_each(|digest| self.fetch(digest, tell)),
            _ => std::thread::scope(|scope| {
                let threads: Vec<_> =
                    missing.into_iter().map(|digest| scope.spawn(move || self.fetch(digest, tell))).collect();
                let broken = || Err(Error::Machine("a thread that fetches a blob has broken".to_owned()));
                let ends: Vec<_> =
                    threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| broken())).collect();
                ends.into_iter().collect()
            }),
        }
    }

    fn has(&self, digest: &BlobDigest, size: u64) -> bool {
        is_there(&self.stacker.blob(digest), size)
    }

    fn fetch(&self, digest: &BlobDigest, tell: Tell) -> Result<()> {
        let Some(blob) = self.blobs.get(digest) else { return Ok(()) };
        let name = &blob.repository.name;
        if self.offline {
            return Err(Error::Build(format!(
                "blob {digest} of {name} is not here, and --offline asks no registry: build once without it"
            )));
        }
        let path = self.stacker.download(digest);
        let mut file = lock(&path)?;
        if self.has(digest, blob.size) {
            return crate::record::remove(&path);
        }
        let _slot = self.slot();
        let what = format!("{name} {}", &digest.to_string()[..19]);
        let begun = Instant::now();
        tell(Event::DownloadStarted { what: what.clone(), bytes: Some(blob.size) });
        let fetched = self.fill(blob, digest, (&mut file, &path), &what, tell);
        let seconds = begun.elapsed().as_secs_f64();
        tell(Event::DownloadEnded { what, seconds: fetched.is_ok().then_some(seconds) });
        fetched?;
        file.set_permissions(Permissions::from_mode(0o644)).at("chmod", &path)?;
        // What was checked must not be lost by a power cut under its final name.
        file.sync_all().at("sync", &path)?;
        let target = self.stacker.blob(digest);
        fs::rename(&path, &target).at("rename to", &target)?;
        CommitPoint::BlobNamed.reached();
        Ok(())
    }

    /// Fills the part and checks it. What an earlier try left may be wrong: then it is fetched from the beginning.
    fn fill(
        &self,
        blob: &RemoteBlob,
        digest: &BlobDigest,
        (file, path): (&mut File, &Path),
        what: &str,
        tell: Tell,
    ) -> Result<()> {
        let url = blob.repository.url(&format!("blobs/{digest}"))?;
        let told = Mutex::new(Instant::now());
        let progress = |bytes, _| {
            let mut told = told.lock().unwrap_or_else(|broken| broken.into_inner());
            if told.elapsed() >= TELL {
                *told = Instant::now();
                tell(Event::DownloadGoesOn { what: what.to_owned(), bytes });
            }
        };
        loop {
            let before = file.metadata().at("stat", path)?.len();
            if before != blob.size || before == 0 {
                blob.repository.download(&url, (&mut *file, path), blob.size, &Ok, &progress)?;
            }
            let (found, size) = (BlobDigest(sha256_file(path)?), file.metadata().at("stat", path)?.len());
            if found == *digest && size == blob.size {
                return Ok(());
            }
            file.set_len(0).at("truncate", path)?;
            if before == 0 {
                let (wanted, url) = (blob.size, crate::http::shown(&url));
                return Err(Error::Build(format!(
                    "GET {url}: the registry sends something else: {size} bytes with the digest {found}, wanted \
                     {wanted} bytes with the digest {digest}"
                )));
            }
        }
    }

    fn slot(&self) -> Slot<'_> {
        let mut free = self.free.lock().unwrap_or_else(|broken| broken.into_inner());
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(|broken| broken.into_inner());
        }
        *free -= 1;
        Slot(self)
    }
}

/// One of the downloads that may be under way.
struct Slot<'a>(&'a Downloads);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(|broken| broken.into_inner()) += 1;
        self.0.freed.notify_one();
    }
}

fn is_there(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.len() == size)
}

/// Waits for whoever fetches the same; the lock ends with the file. It counts only if the name still leads to the file
/// when it was taken.
fn lock(path: &PathBuf) -> Result<File> {
    loop {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at("open", path)?;
        match file.lock() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.at("lock", path)?,
        }
        let ours = file.metadata().at("stat", path)?;
        match fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).at("stat", path),
            _ => {}
        }
    }
}
