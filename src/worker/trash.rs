//! Removing directories of the store, whoever owns what is in them.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::seal::failure::users;

use super::failed;
use super::message::Failure;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Removes directories beneath the roots directory; those that are not there are no error. Each gets out of the way at
/// once, and is then taken apart in the trash.
pub fn remove(paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        let path = Path::new(path);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(users("remove", b"", format!("{} is not beneath the roots directory", path.display())));
        }
        let mut place = path.to_path_buf();
        if !path.starts_with("trash") {
            place = Path::new("trash").join(unique());
            match fs::rename(path, &place) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(|error| failed("rename", path, error))?,
            }
        }
        let name = place.file_name().unwrap_or_default().as_bytes();
        match open_trash().and_then(|trash| remove_tree(trash.as_fd(), name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A link is never followed.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => {
                fs::remove_file(&place).map_err(|error| failed("remove", &place, error))?;
            }
            other => other.map_err(|error| failed("remove", &place, error))?,
        }
    }
    Ok(())
}

fn open_trash() -> io::Result<OwnedFd> {
    Ok(openat(CWD, "trash", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// How deep a directory is taken apart where it lies. Each level holds a descriptor and a part of the stack, and a
/// script can make directories deeper than either, and deeper than a path is long.
const DEEPEST: usize = 64;

/// Removes the directory `name` of `at` with all that is in it. What lies deep in it is first moved to `at`.
pub(crate) fn remove_tree(at: BorrowedFd, name: &[u8]) -> io::Result<()> {
    let mut pending = vec![name.to_vec()];
    while let Some(next) = pending.pop() {
        remove_directory(at, at, &next, 0, &mut pending)?;
    }
    Ok(())
}

fn remove_directory(
    top: BorrowedFd,
    at: BorrowedFd,
    name: &[u8],
    depth: usize,
    pending: &mut Vec<Vec<u8>>,
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(at, name, flags, Mode::empty())?;
    for item in Dir::read_from(&directory)? {
        let item = item?;
        let child = item.file_name().to_bytes();
        if child == b"." || child == b".." {
            continue;
        }
        match unlinkat(&directory, child, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) if depth < DEEPEST => {
                remove_directory(top, directory.as_fd(), child, depth + 1, pending)?;
            }
            Err(Errno::ISDIR) => {
                let name = unique().into_bytes();
                renameat(&directory, child, top, &name[..])?;
                pending.push(name);
            }
            other => other?,
        }
    }
    Ok(unlinkat(at, name, AtFlags::REMOVEDIR)?)
}

/// A name that no other worker, dead ones included, gives: its process id may come again, but not at that moment.
pub(super) fn unique() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{}-{}", now.as_nanos(), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
