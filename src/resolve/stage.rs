//! Staging: a host tree is copied to where a step sees it, and hashed as it is copied.
//!
//! The source is walked anew, since it may have changed after its digest was taken; whoever calls compares. Nothing of
//! the caller's umask or of the source's owners, times and attributes gets through.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use rustix::io::Errno;

use super::walk::{self, Found, Seen, Wanted, below};
use super::{HostTree, Modes, broken, open};
use crate::action::Attributes;
use crate::digest::{ContentDigest, TreeDigest};
use crate::error::{At, Result};
use crate::listing::{self, Entry, Kind, Time, tree_digest};
use crate::names::KnownNames;

/// Smaller files are copied: cloning one that was just written makes the file system write it out first.
const CLONE_FROM: u64 = 1 << 16;

/// Copies the file or directory at `path` to `directory/t`, with `mode` of the attributes applied (their owners are for
/// a worker to set), `time` as every modification time, and everything owned by `root` if we may give files away.
/// Returns the digest of what was copied, as it was before the attributes; `tree` says what does not count as part of
/// the source, not what is expected.
pub fn stage(
    path: &Path,
    tree: &HostTree,
    attributes: &Attributes,
    time: i64,
    directory: &Path,
    root: (u32, u32),
) -> Result<TreeDigest> {
    let attributes = Attributes { mode: attributes.mode, uid: None, gid: None };
    let owner = rustix::process::geteuid().is_root().then_some(root);
    let (to, clones) = (directory.join("t"), AtomicBool::new(true));
    let stage = Stage { source: path, to, modes: tree.modes, attributes, time, owner, clones };
    let seen = walk::walk(path, &tree.own, Wanted::Import, &KnownNames::default())?;
    for directory in seen.iter().filter(|seen| matches!(seen.found, Found::Directory { .. })) {
        stage.make_directory(&directory.path)?;
    }
    let copied = seen.par_iter().map(|seen| stage.copy(seen)).collect::<Result<Vec<Option<Entry>>>>()?;
    let entries: Vec<Entry> = copied.into_iter().flatten().collect();
    // Backwards, so that a directory gets its time and mode after all that is done in it.
    for entry in entries.iter().rev().filter(|entry| matches!(entry.kind, Kind::Directory { .. })) {
        stage.finish_directory(entry)?;
    }
    Ok(tree_digest(&entries))
}

struct Stage<'a> {
    source: &'a Path,
    to: PathBuf,
    modes: Modes,
    attributes: Attributes,
    time: i64,
    owner: Option<(u32, u32)>,
    /// Whether cloning is worth another try.
    clones: AtomicBool,
}

impl Stage<'_> {
    fn make_directory(&self, relative: &[u8]) -> Result<()> {
        let to = below(&self.to, relative);
        fs::create_dir(&to).at("create", &to)?;
        // The umask may have taken our own access.
        fs::set_permissions(&to, Permissions::from_mode(0o700)).at("chmod", &to)
    }

    fn finish_directory(&self, entry: &Entry) -> Result<()> {
        let to = below(&self.to, &entry.path);
        self.own(&to)?;
        fs::set_permissions(&to, Permissions::from_mode(self.mode(entry))).at("chmod", &to)?;
        self.set_time(&to)
    }

    /// Copies what is not a directory; `None` if it went away since the walk, which the digest then shows.
    fn copy(&self, seen: &Seen) -> Result<Option<Entry>> {
        let to = below(&self.to, &seen.path);
        match &seen.found {
            Found::Directory { mode } => {
                Ok(Some(entry(&seen.path, Kind::Directory { opaque: false }, self.modes.of_directory(*mode))))
            }
            Found::Symlink { target } => {
                symlink(std::ffi::OsStr::from_bytes(target), &to).at("create", &to)?;
                self.own(&to)?;
                self.set_time(&to)?;
                Ok(Some(entry(&seen.path, Kind::Symlink { target: target.clone() }, 0o777)))
            }
            Found::File { .. } => self.copy_file(seen, &to),
            // Not of an import.
            Found::Node(_) => Ok(None),
        }
    }

    fn copy_file(&self, seen: &Seen, to: &Path) -> Result<Option<Entry>> {
        let from = seen.below(self.source);
        let mut source = match open(&from, &seen.path) {
            Ok(source) => source,
            Err(error) if has_changed(&error) => return Ok(None),
            Err(error) => return Err(broken("open", &from, &error)),
        };
        let stat = rustix::fs::fstat(&source).map_err(|error| broken("look at", &from, &error.into()))?;
        let mut copy =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to).at("create", to)?;
        let (content, size) = match stat.st_size as u64 >= CLONE_FROM && self.clone_file(&source, &copy) {
            true => crate::seal::hash_file(copy.try_clone().at("duplicate", to)?).at("read", to)?,
            false => copy_bytes(&mut source, &mut copy, &from, to)?,
        };
        let mode = self.modes.of_file(walk::permissions(&stat));
        let entry = entry(&seen.path, Kind::File { size, content }, mode);
        self.own(to)?;
        copy.set_permissions(Permissions::from_mode(self.mode(&entry))).at("chmod", to)?;
        self.set_time(to)?;
        Ok(Some(entry))
    }

    /// Shares the source's blocks. What is hashed afterwards is the clone.
    fn clone_file(&self, source: &File, copy: &File) -> bool {
        if !self.clones.load(Ordering::Relaxed) {
            return false;
        }
        match rustix::fs::ioctl_ficlone(copy, source) {
            Ok(()) => true,
            Err(error) => {
                if matches!(error, Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY) {
                    self.clones.store(false, Ordering::Relaxed);
                }
                false
            }
        }
    }

    fn mode(&self, entry: &Entry) -> u32 {
        let mut entry = entry.clone();
        listing::apply(&self.attributes, &mut entry);
        entry.mode
    }

    /// Comes before the mode: giving a file away clears its set-user-id bit.
    fn own(&self, to: &Path) -> Result<()> {
        match self.owner {
            Some((uid, gid)) => lchown(to, Some(uid), Some(gid)).at("chown", to),
            None => Ok(()),
        }
    }

    fn set_time(&self, to: &Path) -> Result<()> {
        let time = Timespec { tv_sec: self.time, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the time of", to)
    }
}

/// Writes the very bytes that are hashed.
fn copy_bytes(source: &mut File, copy: &mut File, from: &Path, to: &Path) -> Result<(ContentDigest, u64)> {
    let length = source.metadata().map_err(|error| broken("look at", from, &error))?.len();
    let mut buffer = vec![0; (length as usize + 1).min(1 << 20)];
    let mut hasher = blake3::Hasher::new();
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((ContentDigest(*hasher.finalize().as_bytes()), hasher.count())),
            Ok(read) => {
                hasher.update_rayon(&buffer[..read]);
                copy.write_all(&buffer[..read]).at("write", to)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken("read", from, &error)),
        }
    }
}

/// What opening says of a name that is no longer the file that the walk saw.
fn has_changed(error: &io::Error) -> bool {
    let gone = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    gone || error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) || error.raw_os_error().is_none()
}

fn entry(path: &[u8], kind: Kind, mode: u32) -> Entry {
    let (mtime, xattrs) = (Time::default(), Default::default());
    Entry { path: path.to_vec(), kind, mode, uid: 0, gid: 0, mtime, xattrs }
}
