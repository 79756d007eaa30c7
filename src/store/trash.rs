//! Removing directories of the store, whoever owns what is in them.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, fchmod, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::commit_point::CommitPoint;
use crate::seal::failure::users;
use crate::worker::message::Failure;

use super::{btrfs, failed};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// What this process, which does one job, removes at its end.
static LATER: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes directories beneath the roots directory; those that are not there are no error. Each gets out of the way at
/// once, and is then taken apart in the trash.
pub fn remove(paths: &[String]) -> Result<(), Failure> {
    beneath_roots(paths)?.try_for_each(remove_path)
}

/// Gets directories out of the way, to be removed later.
pub fn set_aside(paths: &[String]) -> Result<(), Failure> {
    beneath_roots(paths)?.try_for_each(|path| out_of_the_way(path).map(drop))
}

fn beneath_roots(paths: &[String]) -> Result<impl Iterator<Item = &Path>, Failure> {
    let is_beneath = |path: &&String| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    match paths.iter().find(|path| !is_beneath(path)) {
        Some(path) => Err(users("remove", b"", format!("{path} is not beneath the roots directory"))),
        None => Ok(paths.iter().map(Path::new)),
    }
}

/// Removes one of them; what a link leads to goes with it, but for a tree.
pub fn remove_path(path: &Path) -> Result<(), Failure> {
    match out_of_the_way(path)? {
        Some(place) => {
            CommitPoint::Trashed.reached();
            take_apart(&place).map_err(|error| failed("remove", &place, error))?;
            CommitPoint::TrashRemoved.reached();
            Ok(())
        }
        None => Ok(()),
    }
}

/// Removes one of them when the job's answer is given: nobody has to wait for that, and removing takes long on a busy disk.
pub fn remove_later(path: &Path) {
    LATER.lock().unwrap_or_else(|broken| broken.into_inner()).push(path.to_path_buf());
}

/// Removes them. What fails stays in `drafts/` or `trash/`, where gc finds it: the answer is given.
pub fn remove_what_waits() {
    let waiting = std::mem::take(&mut *LATER.lock().unwrap_or_else(|broken| broken.into_inner()));
    waiting.iter().for_each(|path| drop(remove_path(path)));
}

/// Where it is now, if something is left to remove.
fn out_of_the_way(path: &Path) -> Result<Option<PathBuf>, Failure> {
    if let Some(target) = btrfs::link_target(path) {
        fs::remove_file(path).or_else(unless_gone).map_err(|error| failed("remove", path, error))?;
        return Ok((!target.starts_with("trees")).then_some(target));
    }
    if btrfs::is_subvolume(path) {
        btrfs::make_writable(path).or_else(unless_gone).map_err(|error| failed("make writable", path, error))?;
    }
    if path.starts_with("trash") {
        return Ok(Some(path.to_path_buf()));
    }
    let place = Path::new("trash").join(unique());
    match fs::rename(path, &place) {
        Ok(()) => Ok(Some(place)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // Inside a nursery, where nobody but the link that named it knows it.
        Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(Some(path.to_path_buf())),
        Err(error) => Err(failed("rename", path, error)),
    }
}

/// Removes what is there, with the subvolumes that it is or holds as a draft's `u`.
fn take_apart(place: &Path) -> io::Result<()> {
    for path in [&place.join("u"), place] {
        if btrfs::is_subvolume(path) {
            btrfs::destroy(path).or_else(unless_gone)?;
        }
    }
    let (parent, name) = (place.parent().unwrap_or(Path::new(".")), place.file_name().unwrap_or_default());
    let parent = match openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        // A nursery that went with all that was in it.
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    match remove_tree(parent.as_fd(), name.as_bytes()) {
        // A link is never followed.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => {
            fs::remove_file(place)
        }
        other => other,
    }
    .or_else(unless_gone)
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
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
    let directory = open_directory(at, name)?;
    for item in Dir::read_from(&directory)? {
        let item = item?;
        let child = item.file_name().to_bytes();
        if child == b"." || child == b".." {
            continue;
        }
        let unlink = || unlinkat(&directory, child, AtFlags::empty());
        match unlink().or_else(|error| forced(error, || fchmod(&directory, Mode::RWXU), unlink)) {
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) if destroyed(directory.as_fd(), child) => {}
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

/// Whether it was a subvolume, which goes as a whole where the mount lets its owner do that; if not, it is writable now.
fn destroyed(at: BorrowedFd, name: &[u8]) -> bool {
    let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| found.st_ino == btrfs::SUBVOLUME) && btrfs::destroy_at(at, name).is_ok()
}

fn open_directory(at: BorrowedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(at, name, flags, Mode::empty());
    // It is no link: that would be another error.
    open().or_else(|error| forced(error, || chmodat(at, name, Mode::RWXU, AtFlags::empty()), open))
}

/// Once more where its mode keeps even the owner of a directory, who is not root, from doing it.
fn forced<T>(
    error: Errno,
    permit: impl FnOnce() -> rustix::io::Result<()>,
    again: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    if error != Errno::ACCESS {
        return Err(error);
    }
    permit()?;
    again()
}

/// A name that no other worker, dead ones included, gives: its process id may come again, but not at that moment.
pub fn unique() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{}-{}", now.as_nanos(), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
