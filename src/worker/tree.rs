//! Whole trees: the deltas of a high stack merged into one directory, of hard links.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, linkat};

use crate::digest::Chain;
use crate::place;
use crate::seal::delta::{is_whiteout, mtime, set_mtime, stat, xattrs};

use super::message::Failure;
use super::{Worker, failed, new_draft, trash};

impl Worker<'_> {
    /// Makes the tree of a chain. It is there at once or not at all.
    pub(super) fn tree(&self, chain: &Chain) -> Result<(), Failure> {
        let target = place::tree(&chain.id());
        if target.exists() {
            return Ok(());
        }
        let draft = new_draft(&trash::unique())?;
        let merged = draft.join("u");
        for layer in self.lowers(chain).iter().rev() {
            let mut copies = HashMap::new();
            merge(layer, &merged, &mut copies).map_err(|error| failed("merge", layer, error))?;
        }
        match fs::rename(&merged, &target) {
            Err(error) if !target.exists() => Err(failed("rename to", &target, error)),
            _ => trash::remove(&[draft.to_string_lossy().into_owned()]),
        }
    }
}

/// Lays the directory `layer` over `merged`. `copies` are the files that could not be linked, by inode.
fn merge(layer: &Path, merged: &Path, copies: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    for item in fs::read_dir(layer)? {
        let name = item?.file_name();
        let (from, to) = (layer.join(&name), merged.join(&name));
        let found = stat(&from)?;
        let directory = rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Directory;
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
            link(&from, &to, found.st_ino, copies)?;
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

/// A further name of the file; a copy where it has as many names as the file system allows.
fn link(from: &Path, to: &Path, inode: u64, copies: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    let from = copies.get(&inode).map_or(from, |copy| copy.as_path());
    match linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Err(rustix::io::Errno::MLINK) => {}
        other => return Ok(other?),
    }
    if from.symlink_metadata()?.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else {
        fs::copy(from, to)?;
    }
    like(from, to)?;
    copies.insert(inode, to.to_path_buf());
    Ok(())
}

/// Gives `to` the looks of `from`; the topmost layer that has a directory decides them.
pub(super) fn like(from: &Path, to: &Path) -> io::Result<()> {
    let found = stat(from)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(found.st_uid), rustix::fs::Gid::from_raw(found.st_gid));
    rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let link = rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Symlink;
    let wanted = xattrs(from)?.kept;
    for name in xattrs(to)?.kept.into_keys().filter(|name| !wanted.contains_key(name)) {
        crate::seal::delta::remove_xattr(to, &name)?;
    }
    if !link {
        rustix::fs::chmodat(CWD, to, Mode::from_raw_mode(found.st_mode & 0o7777), AtFlags::empty())?;
    }
    for (name, value) in &wanted {
        crate::seal::delta::set_xattr(to, name, value)?;
    }
    set_mtime(to, mtime(&found))
}
