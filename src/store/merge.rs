//! Deltas merged into one directory: of hard links where that is possible, else of reflinks, else of copies.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Stat, linkat};
use rustix::io::Errno;

use crate::seal::delta::{is_whiteout, mtime, set_mtime, set_xattr, stat, xattrs};
use crate::worker::message::Failure;

use super::failed;

/// Lays directories over `merged`; the topmost one is the first.
pub(super) fn merge_all(layers: &[PathBuf], merged: &Path) -> Result<(), Failure> {
    for layer in layers.iter().rev() {
        // A layer's name may be a link; the looks of its root are not the link's.
        merge(&layer.join("."), merged, &mut HashMap::new()).map_err(|error| failed("merge", layer, error))?;
    }
    Ok(())
}

/// Lays the directory `layer` over `merged`. `copies` are the files that could not be linked, by inode.
fn merge(layer: &Path, merged: &Path, copies: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    for item in fs::read_dir(layer)? {
        let name = item?.file_name();
        let (from, to) = (layer.join(&name), merged.join(&name));
        let found = stat(&from)?;
        let directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let opaque = directory && xattrs(&from)?.opaque;
        let there = to.symlink_metadata().ok();
        match there {
            Some(there) if there.is_dir() && (!directory || opaque) => fs::remove_dir_all(&to)?,
            Some(there) if !there.is_dir() => fs::remove_file(&to)?,
            _ => {}
        }
        if is_whiteout(&found) {
            continue;
        }
        if !directory {
            link(&from, &to, &found, copies)?;
            continue;
        }
        match fs::create_dir(&to) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other?,
        }
        merge(&from, &to, copies)?;
    }
    like(layer, merged)
}

/// A further name of the file; a copy in another subvolume, or where it has as many names as the file system allows.
fn link(from: &Path, to: &Path, found: &Stat, copies: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    let from = copies.get(&found.st_ino).map_or(from, |copy| copy.as_path());
    match linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Err(Errno::MLINK | Errno::XDEV) => {}
        other => return Ok(other?),
    }
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Symlink => std::os::unix::fs::symlink(fs::read_link(from)?, to)?,
        FileType::Fifo => nix::unistd::mkfifo(to, nix::sys::stat::Mode::S_IRWXU)?,
        _ => clone_file(from, to)?,
    }
    like(from, to)?;
    if found.st_nlink > 1 {
        copies.insert(found.st_ino, to.to_path_buf());
    }
    Ok(())
}

fn clone_file(from: &Path, to: &Path) -> io::Result<()> {
    let (mut source, mut target) = (File::open(from)?, File::create_new(to)?);
    match rustix::fs::ioctl_ficlone(&target, &source) {
        Ok(()) => Ok(()),
        Err(_) => io::copy(&mut source, &mut target).map(drop),
    }
}

/// Gives `to` the looks of `from`; the topmost layer that has a directory decides them.
pub fn like(from: &Path, to: &Path) -> io::Result<()> {
    let found = stat(from)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(found.st_uid), rustix::fs::Gid::from_raw(found.st_gid));
    rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
    let wanted = xattrs(from)?.kept;
    for name in xattrs(to)?.kept.into_keys().filter(|name| !wanted.contains_key(name)) {
        crate::seal::delta::remove_xattr(to, &name)?;
    }
    if !link {
        rustix::fs::chmodat(CWD, to, Mode::from_raw_mode(found.st_mode & 0o7777), AtFlags::empty())?;
    }
    for (name, value) in &wanted {
        set_xattr(to, name, value)?;
    }
    set_mtime(to, mtime(&found))
}
