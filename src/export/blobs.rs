//! Files get into a layout whole or not at all: written under a temporary name, then renamed or linked to their own.
//!
//! A temporary file is locked by who writes it, so that one whose lock is free was left by a killed process and may be
//! removed by anybody. Digests are taken on trust here; who made the blob hashed it.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, ioctl_ficlone, linkat};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::error::{At, Result};

/// How temporary files in a layout's root are called.
const TEMPORARY: &str = ".stacker-tmp-";

/// Replaces `path` by a file with these bytes: a reader sees the old or the new ones.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    write_file(directory, path, bytes)
}

/// The same, with the temporary file in another directory of the file system: none may lie among blobs, whose
/// directory other tools list.
pub(super) fn write_file(temporary_in: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    place(temporary_in, path, |file| file.write_all(bytes).at("write", path))
}

/// Makes `path` with these bytes unless somebody has made it before.
pub(super) fn create_file(path: &Path, bytes: &[u8], temporary_in: &Path) -> Result<()> {
    let mut file = temporary(temporary_in)?;
    file.write_all(bytes).at("write", path)?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => Err(error.error).at("create", path),
        _ => Ok(()),
    }
}

/// Makes `target` a file with the bytes of `source`: a reflink, else a hard link, else a copy. One of the same size that
/// somebody has just put there is as good.
pub(super) fn clone_file(root: &Path, source: &Path, target: &Path) -> Result<()> {
    let from = File::open(source).at("open", source)?;
    let reflink = temporary(root)?;
    if ioctl_ficlone(reflink.as_file(), &from).is_ok() {
        return reflink.persist(target).map(drop).map_err(|error| error.error).at("create", target);
    }
    drop(reflink);
    // A source that is a symbolic link stands for the file that it leads to.
    match linkat(CWD, source, CWD, target, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => return Ok(()),
        // A copy in its place would be a second one on the disk.
        Err(Errno::EXIST) if file_size(target) == file_size(source) => return Ok(()),
        Err(_) => {}
    }
    place(root, target, |file| {
        let mut from = File::open(source).at("open", source)?;
        // The layout's disk may be the full one.
        std::io::copy(&mut from, file).at("copy a blob to", target).map(drop)
    })
}

/// How long a file is, if it is one.
pub(super) fn file_size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(|found| found.is_file()).map(|found| found.len())
}

/// Removes what killed processes left in the layout's root.
pub(super) fn remove_leftovers(root: &Path) -> Result<()> {
    for entry in std::fs::read_dir(root).at("read", root)? {
        let entry = entry.at("read", root)?;
        if !entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        // The lock is held until the name is gone: who has just made the file sees one or the other.
        if file.try_lock().is_ok() {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Removes a file that another process may remove as well.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

fn place(directory: &Path, target: &Path, fill: impl Fn(&mut File) -> Result<()>) -> Result<()> {
    let mut file = temporary(directory)?;
    fill(file.as_file_mut())?;
    file.persist(target).map(drop).map_err(|error| error.error).at("create", target)
}

/// A locked temporary file that others may read once it has its name, as the umask allows.
fn temporary(directory: &Path) -> Result<NamedTempFile> {
    let readable = std::fs::Permissions::from_mode(0o644);
    loop {
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(readable.clone())
            .tempfile_in(directory)
            .at("create a file in", directory)?;
        match file.as_file().try_lock() {
            // A sweeping process caught it in the moment before it was locked, and removes it.
            Err(TryLockError::WouldBlock) => {}
            Ok(()) if file.as_file().metadata().at("stat", file.path())?.nlink() == 0 => {}
            // Where the file system has no locks, nobody sweeps.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several threads, or processes, put the same blob at once: there is one file of it, also on the disk.
    #[test]
    fn who_comes_second_makes_no_copy() {
        let directory = tempfile::tempdir().unwrap();
        let [source, target] = ["source", "target"].map(|name| directory.path().join(name));
        std::fs::write(&source, "a blob").unwrap();
        std::fs::hard_link(&source, &target).unwrap();
        let can_reflink =
            ioctl_ficlone(File::create(directory.path().join("x")).unwrap(), File::open(&source).unwrap());
        clone_file(directory.path(), &source, &target).unwrap();
        let inode = |path| std::fs::metadata(path).unwrap().ino();
        assert!(can_reflink.is_ok() || inode(&source) == inode(&target));
        // A damaged one is no blob.
        std::fs::remove_file(&target).unwrap();
        std::fs::write(&target, "a bl").unwrap();
        clone_file(directory.path(), &source, &target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"a blob");
    }
}
