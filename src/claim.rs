//! One lock file for each action that is being built: two processes never build one key at the same time, and who waits,
//! waits for that very key.
//!
//! A claim is an exclusive lock on `claims/KEY`, held by the open file. A dead owner's lock is free, so nothing is ever
//! repaired. The file is unlinked only by who holds its lock; therefore a lock counts only when, after it was taken, the
//! name still leads to the same inode.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::commit_point::CommitPoint;
use crate::digest::Key;
use crate::error::{At, Result};
use crate::place::StackerDir;

/// Where claims are made.
#[derive(Clone, Debug)]
pub struct Claims {
    dir: StackerDir,
}

/// What trying gave.
#[derive(Debug)]
pub enum Attempt {
    /// The key is ours to build. Look the result up again before building: its last owner may just have finished.
    Got(Claim),
    /// Another owner builds it, in this process or another one.
    Busy(Waiter),
}

/// The right to build a key, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

/// A claim of another owner that can be waited for.
#[derive(Debug)]
pub struct Waiter {
    path: PathBuf,
    file: File,
}

impl Claims {
    /// The claims of a stacker directory.
    pub fn new(dir: &StackerDir) -> Claims {
        Claims { dir: dir.clone() }
    }

    /// Takes the claim if it is free; never waits.
    pub fn try_claim(&self, key: &Key) -> Result<Attempt> {
        let path = self.dir.claim(key);
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path)? => {
                    CommitPoint::Claimed.reached();
                    return Ok(Attempt::Got(Claim { path, _file: file }));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy(Waiter { path, file })),
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
            }
        }
    }
}

impl Waiter {
    /// Blocks until the owner is done or dead, then holds the claim itself.
    pub fn wait(self) -> Result<Claim> {
        let Waiter { path, mut file } = self;
        loop {
            match file.lock() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.at("lock", &path)?,
            }
            if is_at(&file, &path)? {
                return Ok(Claim { path, _file: file });
            }
            file = open(&path)?;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock is held nobody else removes or replaces the file; who waits on it sees afterwards that the
        // name is gone and takes a new file. A file that stays is harmless, so a failure is nothing to tell.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at("open", path)
}

/// Does the name still lead to the file that was locked?
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().at("stat", path)?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("stat", path),
    }
}
