//! The directory that an archive is unpacked into, which no name in the archive can leave.
//!
//! The directory of every name is opened with `openat2(RESOLVE_IN_ROOT)`: links that the archive itself made are
//! followed as a process in the image would follow them, absolute ones and `..` too. The last component of a name is
//! never followed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::seal::Marks;
use crate::store::trash::remove_tree;
use crate::sys;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The root, and the directory that was used last: neighbours in an archive mostly share it.
pub(super) struct Root {
    root: Rc<OwnedFd>,
    /// How removed names are marked.
    pub marks: Marks,
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

/// What stood at a name before it was cleared for something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Whiteout,
    /// A directory that may stay.
    Directory,
    /// Something that is gone now.
    Other,
}

impl Root {
    pub fn open(path: &Path, marks: Marks) -> io::Result<Root> {
        Ok(Root { root: Rc::new(openat(CWD, path, DIRECTORY, Mode::empty())?), marks, last: None })
    }

    /// The directory at `path`, which must exist.
    pub fn directory(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        match &self.last {
            Some((last, fd)) if last == path => Ok(fd.clone()),
            _ => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let fd = Rc::new(sys::open_resolved(&*self.root, path, DIRECTORY, resolve)?);
                self.last = Some((path.to_vec(), fd.clone()));
                Ok(fd)
            }
        }
    }

    /// Says which directory was used last.
    pub fn used(&mut self, path: &[u8], directory: &Rc<OwnedFd>) {
        self.last = Some((path.to_vec(), directory.clone()));
    }

    /// What stands at `name`; nothing is removed.
    pub fn standing(&self, directory: &OwnedFd, name: &[u8]) -> io::Result<Before> {
        match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(Before::Nothing),
            Ok(stat) if self.marks.is_whiteout(&stat) => Ok(Before::Whiteout),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(Before::Directory),
            Ok(_) => Ok(Before::Other),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes way for something new at `name`; a directory stays if it may.
    pub fn clear(&mut self, directory: &OwnedFd, name: &[u8], keep_directory: bool) -> io::Result<Before> {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Before::Nothing),
            other => other?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && keep_directory {
            return Ok(Before::Directory);
        }
        // The directory used last, or a link on the way to it, may be what goes.
        self.last = None;
        if is_directory {
            remove_tree(directory.as_fd(), name)?;
        } else {
            unlinkat(directory, name, AtFlags::empty())?;
        }
        Ok(if self.marks.is_whiteout(&stat) { Before::Whiteout } else { Before::Other })
    }
}

/// The directory `name` of a directory, which is no link.
pub(super) fn child(directory: &OwnedFd, name: &[u8]) -> io::Result<Rc<OwnedFd>> {
    Ok(Rc::new(openat(directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?))
}

/// A path for the calls that know no directory descriptors (those on extended attributes).
pub(super) fn path_of(directory: &OwnedFd, name: &[u8]) -> PathBuf {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    PathBuf::from(std::ffi::OsString::from_vec(path))
}
