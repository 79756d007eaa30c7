//! The directory that an archive is unpacked into, which no name in the archive can leave.
//!
//! The directory of every name is opened with `openat2(RESOLVE_IN_ROOT)`: links that the archive itself made are
//! followed as a process in the image would follow them, absolute ones and `..` too. The last component of a name is
//! never followed.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chmodat, chownat, fstat, linkat, mkdirat,
    mkfifoat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};

use super::target::{Id, New, Seen, Standing, Target};
use crate::listing::{Entry, Kind, Time};
use crate::seal::delta::{set_xattr, timestamps};
use crate::seal::{Marks, Recorded};
use crate::store::trash::remove_tree;
use crate::sys;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory on disk.
pub(super) struct Root<'a> {
    root: Rc<Opened>,
    /// How removed names are marked.
    marks: Marks,
    /// Owners that are not given to files.
    owners: Option<&'a mut Recorded>,
}

/// A directory in it.
pub(super) struct Opened {
    fd: OwnedFd,
    id: Id,
}

impl<'a> Root<'a> {
    pub fn open(path: &Path, marks: Marks, owners: Option<&'a mut Recorded>) -> io::Result<Root<'a>> {
        let root = opened(openat(CWD, path, DIRECTORY, Mode::empty())?)?;
        Ok(Root { root, marks, owners })
    }
}

fn opened(fd: OwnedFd) -> io::Result<Rc<Opened>> {
    let id = id(&fstat(&fd)?);
    Ok(Rc::new(Opened { fd, id }))
}

fn id(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

impl Target for Root<'_> {
    type Directory = Rc<Opened>;
    type File = File;

    fn open(&mut self, path: &[u8]) -> io::Result<Rc<Opened>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        opened(sys::open_resolved(&self.root.fd, path, DIRECTORY, resolve)?)
    }

    fn child(&self, at: &Rc<Opened>, name: &[u8]) -> io::Result<Rc<Opened>> {
        opened(openat(&at.fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?)
    }

    fn id(&self, directory: &Rc<Opened>) -> Id {
        directory.id
    }

    fn look(&self, at: &Rc<Opened>, name: &[u8]) -> Result<Option<Seen>> {
        let stat = match statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let standing = match FileType::from_raw_mode(stat.st_mode) {
            _ if self.marks.is_whiteout(&stat) => Standing::Whiteout,
            FileType::Directory => Standing::Directory,
            _ => Standing::Other,
        };
        Ok(Some(Seen { id: id(&stat), standing }))
    }

    fn remove(&mut self, at: &Rc<Opened>, name: &[u8], seen: Seen) -> io::Result<()> {
        match seen.standing {
            Standing::Directory => remove_tree(at.fd.as_fd(), name),
            _ => Ok(unlinkat(&at.fd, name, AtFlags::empty())?),
        }
    }

    fn make(&mut self, at: &Rc<Opened>, name: &[u8], new: New) -> Result<()> {
        match new {
            New::Directory => mkdirat(&at.fd, name, Mode::from_raw_mode(0o700)),
            New::Symlink(target) => symlinkat(target, &at.fd, name),
            New::Fifo => mkfifoat(&at.fd, name, Mode::from_raw_mode(0o600)),
        }
    }

    fn create(&mut self, at: &Rc<Opened>, name: &[u8]) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&at.fd, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
    }

    fn write(&mut self, file: &mut File, hole: u64, bytes: &[u8]) -> io::Result<()> {
        if hole > 0 {
            let end = file.stream_position()?.checked_add(hole).ok_or(Errno::FBIG)?;
            file.seek(SeekFrom::Start(end))?;
        }
        file.write_all(bytes)
    }

    fn close(&mut self, mut file: File, hole: u64) -> io::Result<()> {
        match hole {
            0 => Ok(()),
            hole => {
                let end = file.stream_position()?.checked_add(hole).ok_or(Errno::FBIG)?;
                file.set_len(end)
            }
        }
    }

    fn link(&mut self, from: &Rc<Opened>, first: &[u8], at: &Rc<Opened>, name: &[u8]) -> Result<()> {
        linkat(&from.fd, first, &at.fd, name, AtFlags::empty())
    }

    fn mark_removed(&mut self, at: &Rc<Opened>, name: &[u8]) -> io::Result<()> {
        self.marks.whiteout(&at.fd, name)
    }

    fn mark_opaque(&mut self, directory: &Rc<Opened>) -> io::Result<()> {
        self.marks.make_opaque(&path_of(&directory.fd, b"."))
    }

    fn own(&mut self, at: &Rc<Opened>, name: &[u8], entry: &Entry) -> io::Result<()> {
        if let Some(owners) = &mut self.owners {
            // Whatever had this inode before has gone.
            let stat = statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
            owners.insert(id(&stat), (entry.uid, entry.gid));
        }
        own(&at.fd, name, entry, self.owners.is_none())
    }

    fn set_attribute(&mut self, at: &Rc<Opened>, name: &[u8], attribute: &[u8], value: &[u8]) -> io::Result<()> {
        set_xattr(&path_of(&at.fd, name), attribute, value)
    }

    fn set_time(&mut self, at: &Rc<Opened>, name: &[u8], time: Time) -> io::Result<()> {
        Ok(utimensat(&at.fd, name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Owner first, where there is more than one: changing it takes setuid bits and capabilities away.
pub(super) fn own(at: &OwnedFd, name: &[u8], entry: &Entry, owner: bool) -> io::Result<()> {
    if owner {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        chmodat(at, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    Ok(())
}

/// A path for the calls that know no directory descriptors (those on extended attributes).
pub(super) fn path_of(directory: &OwnedFd, name: &[u8]) -> PathBuf {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    PathBuf::from(std::ffi::OsString::from_vec(path))
}
