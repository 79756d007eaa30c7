//! What a power cut may have left half-written.
//!
//! Nothing is synced while a build runs, so after a power cut a delta can be there by name and hold old or no bytes, and
//! since names follow from content, a later build would take it for its own. `boot.json` in the roots directory says in
//! which boot the store was last used, and up to which moment all that had its name by then is known to be on disk. In
//! another boot, what got its name later is put out of reach, once.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::commit_point::CommitPoint;
use crate::error::{At, Result};
use crate::place::{RootsDir, StackerDir};
use crate::record::{remove, write_once};

use super::trash;

/// By how much time stamps of files may lag behind the clock: a tick of the kernel.
pub fn lag() -> Duration {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::RealtimeCoarse);
    Duration::new(tick.tv_sec as u64, tick.tv_nsec as u32)
}

/// `boot.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// The boot that used the store last.
    boot: String,
    /// What was changed no later than this is on disk: nanoseconds since 1970.
    synced: u64,
}

/// Puts out of reach what another boot made and may not have got to the disk. Costs a look at one file in the usual case.
/// Returns how many things that were.
pub fn settle(stacker: &StackerDir, roots: &RootsDir, boot: &str) -> Result<usize> {
    if !roots.store_json().exists() || read(roots)?.boot == boot {
        return Ok(0);
    }
    let lock = stacker.0.join("pins.lock");
    let gate = File::options().read(true).write(true).create(true).truncate(false).open(&lock).at("open", &lock)?;
    gate.lock().at("lock", &lock)?;
    let seen = read(roots)?;
    if seen.boot == boot {
        return Ok(0);
    }
    let mut count = 0;
    for directory in ["deltas", "trees", "nurseries", "imports"] {
        for path in later(&roots.0.join(directory), seen.synced)? {
            // In its own directory, for which nothing of the image's owners is asked. gc removes it.
            // Each time another one, since the same thing may have been put aside after an earlier power cut.
            let mut aside = path.clone().into_os_string();
            aside.push(format!("~{}", trash::unique()));
            fs::rename(&path, &aside).at("rename", &path)?;
            CommitPoint::DoubtfulSetAside.reached();
            count += 1;
        }
    }
    for directory in ["listings", "blobs/sha256"] {
        for path in later(&stacker.0.join(directory), seen.synced)? {
            remove(&path)?;
            CommitPoint::DoubtfulSetAside.reached();
            count += 1;
        }
    }
    write(roots, &Seen { boot: boot.to_owned(), ..seen })?;
    Ok(count)
}

/// A new store: nothing of it is on disk yet.
pub fn begin(roots: &RootsDir, boot: &str) -> Result<()> {
    write(roots, &Seen { boot: boot.to_owned(), synced: 0 })
}

/// All that had its name by `moment` was synced by a sync that began [`lag`] later or more.
pub fn synced(roots: &RootsDir, boot: &str, moment: SystemTime) -> Result<()> {
    if !roots.store_json().exists() {
        return Ok(());
    }
    let synced = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    write(roots, &Seen { boot: boot.to_owned(), synced })
}

/// Whether a name is that of something put out of reach.
pub fn is_aside(name: &str) -> bool {
    name.contains('~')
}

/// What in a directory got its name, or was changed, after a moment.
fn later(directory: &Path, moment: u64) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        other => other.at("read", directory)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.at("read", directory)?.path();
        let found = fs::symlink_metadata(&path).at("stat", &path)?;
        let changed = found.ctime().max(0) as u64 * 1_000_000_000 + found.ctime_nsec() as u64;
        if changed > moment && !is_aside(&path.to_string_lossy()) {
            paths.push(path);
        }
    }
    Ok(paths)
}

pub(crate) fn path(roots: &RootsDir) -> PathBuf {
    roots.0.join("boot.json")
}

/// One that is missing or torn says nothing of what is on disk.
fn read(roots: &RootsDir) -> Result<Seen> {
    match fs::read(path(roots)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Seen::default()),
        other => Ok(serde_json::from_slice(&other.at("read", path(roots))?).unwrap_or_default()),
    }
}

fn write(roots: &RootsDir, seen: &Seen) -> Result<()> {
    let text = serde_json::to_vec(seen).map_err(std::io::Error::from).at("encode", path(roots))?;
    write_once(&roots.0, &path(roots), &text)?;
    CommitPoint::BootWritten.reached();
    Ok(())
}
