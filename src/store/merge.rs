//! Deltas merged into one directory: of hard links where that is possible, else of reflinks, else of copies.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Stat, linkat};
use rustix::io::Errno;

use crate::commit_point::CommitPoint;
use crate::digest::ChainId;
use crate::place;
use crate::seal::Marks;
use crate::seal::delta::{mtime, remove_xattr, set_mtime, set_xattr, stat, xattrs};
use crate::worker::message::Failure;

use super::{failed, keep, plain_draft, trash};

/// Makes the tree of a stack, as its topmost id names it, of directories that lie in one subvolume.
pub(super) fn make_tree(layers: &[PathBuf], id: &ChainId, marks: Marks) -> Result<(), Failure> {
    let target = place::tree(id);
    if target.exists() {
        return Ok(());
    }
    let draft = plain_draft(&trash::unique())?;
    let merged = draft.join("u");
    merge_all(layers, &merged, marks)?;
    CommitPoint::TreeMerged.reached();
    keep(&merged, &target)?;
    CommitPoint::TreeNamed.reached();
    trash::remove_path(&draft)
}

/// Lays directories over `merged`; the topmost one is the first.
pub(super) fn merge_all(layers: &[PathBuf], merged: &Path, marks: Marks) -> Result<(), Failure> {
    for layer in layers.iter().rev() {
        let mut merge = Merge { marks, links: true, copies: HashMap::new() };
        // A layer's name may be a link; the looks of its root are not the link's.
        merge.directory(&layer.join("."), merged).map_err(|error| failed("merge", layer, error))?;
    }
    Ok(())
}

/// Makes the empty directory `to` a copy of a whole root filesystem, of reflinks where that is possible. Every name of a
/// file becomes a file of its own, as it does where it is written to in an overlay mount. Sockets are left out.
pub fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let mut merge = Merge { marks: Marks::Sockets, links: false, copies: HashMap::new() };
    merge.directory(from, to).map_err(|error| failed("copy", from, error))
}

struct Merge {
    /// How the layers say what they remove.
    marks: Marks,
    /// Files get further names rather than being copied.
    links: bool,
    /// The files that could not be linked, by inode.
    copies: HashMap<u64, PathBuf>,
}

impl Merge {
    /// Lays the directory `layer` over `merged`.
    fn directory(&mut self, layer: &Path, merged: &Path) -> io::Result<()> {
        for item in fs::read_dir(layer)? {
            let name = item?.file_name();
            let (from, to) = (layer.join(&name), merged.join(&name));
            let found = stat(&from)?;
            let directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
            let opaque = directory && self.marks.is_opaque(&from, xattrs(&from)?.opaque);
            let there = to.symlink_metadata().ok();
            match there {
                Some(there) if there.is_dir() && (!directory || opaque) => fs::remove_dir_all(&to)?,
                Some(there) if !there.is_dir() => fs::remove_file(&to)?,
                _ => {}
            }
            if self.marks.is_whiteout(&found) || self.marks.is_opaque_name(name.as_bytes()) {
                continue;
            }
            if !directory {
                self.file(&from, &to, &found)?;
                continue;
            }
            match fs::create_dir(&to) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => other?,
            }
            self.directory(&from, &to)?;
        }
        like(layer, merged)
    }

    /// A further name of the file; a copy where that is asked for, in another subvolume, or where it has as many names
    /// as the file system allows.
    fn file(&mut self, from: &Path, to: &Path, found: &Stat) -> io::Result<()> {
        let from = self.copies.get(&found.st_ino).map_or(from, |copy| copy.as_path());
        if self.links {
            match linkat(CWD, from, CWD, to, AtFlags::empty()) {
                Err(Errno::MLINK | Errno::XDEV) => {}
                other => return Ok(other?),
            }
        }
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => std::os::unix::fs::symlink(fs::read_link(from)?, to)?,
            FileType::Fifo => nix::unistd::mkfifo(to, nix::sys::stat::Mode::S_IRWXU)?,
            _ => clone_file(from, to)?,
        }
        like(from, to)?;
        if self.links && found.st_nlink > 1 {
            self.copies.insert(found.st_ino, to.to_path_buf());
        }
        Ok(())
    }
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
        remove_xattr(to, &name)?;
    }
    if !link {
        rustix::fs::chmodat(CWD, to, Mode::from_raw_mode(found.st_mode & 0o7777), AtFlags::empty())?;
    }
    for (name, value) in &wanted {
        set_xattr(to, name, value)?;
    }
    set_mtime(to, mtime(&found))
}
