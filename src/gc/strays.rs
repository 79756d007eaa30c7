//! What root's killed builds were copying: host imports are copied by root, who gives them to the workers' root at the
//! end, and only that one removes what lies in the roots directory. Where nobody comes to that end, gc does.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::error::{At, Result};
use crate::holder::Holder;
use crate::place::RootsDir;
use crate::record::names;

/// Where such copies lie, or were moved to.
const DIRECTORIES: [&str; 2] = ["imports", "trash"];

/// Gives the workers' root what is still root's.
pub(crate) fn adopt(roots: &RootsDir, holder: &Holder) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for directory in DIRECTORIES.map(|name| roots.0.join(name)) {
        for path in names(&directory).unwrap_or_default().into_iter().map(|name| directory.join(name)) {
            // The copy itself is given away last.
            if ![&path, &path.join("t")].into_iter().any(|path| is_roots(path)) {
                continue;
            }
            let owner = holder.prepare()?.root;
            if owner.0 != 0 {
                give(&path, owner).map_err(std::io::Error::from).at("give away", &path)?;
            }
        }
    }
    Ok(())
}

fn is_roots(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.uid() == 0)
}

/// All that is root's at and below a path; what says that there is something comes last. No link is followed. A live
/// build may be at work in it, or take it away.
fn give(path: &Path, owner: (u32, u32)) -> rustix::io::Result<()> {
    let owner = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Some(top) = there(rustix::fs::open(path, flags, Mode::empty()))? else { return Ok(()) };
    let open = |relative: &Path| {
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        there(rustix::fs::openat2(&top, relative, flags, Mode::empty(), inside))
    };
    let mut directories = vec![PathBuf::from(".")];
    let mut looked = 0;
    while let Some(relative) = directories.get(looked).cloned() {
        looked += 1;
        let Some(directory) = open(&relative)? else { continue };
        let names = names_in(&directory)?.into_iter();
        directories.extend(names.filter(|name| name.is_directory).map(|name| relative.join(name.name)));
    }
    for relative in directories.iter().rev() {
        let Some(directory) = open(relative)? else { continue };
        for name in names_in(&directory)?.into_iter().filter(|name| name.is_roots) {
            give_one(&directory, &name.name, owner)?;
        }
    }
    give_one(CWD, path, owner)
}

struct Name {
    name: OsString,
    is_directory: bool,
    is_roots: bool,
}

fn names_in(directory: &OwnedFd) -> rustix::io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        // The directory itself may have been removed.
        let Some(entry) = there(entry)? else { break };
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        if name == "." || name == ".." {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        names.push(Name { name, is_directory, is_roots: stat.st_uid == 0 });
    }
    Ok(names)
}

fn give_one(directory: impl AsFd, name: impl rustix::path::Arg, (uid, gid): (Uid, Gid)) -> rustix::io::Result<()> {
    there(rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)).map(drop)
}

/// `None`: it has gone.
fn there<T>(result: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match result {
        Err(Errno::NOENT) => Ok(None),
        result => result.map(Some),
    }
}
