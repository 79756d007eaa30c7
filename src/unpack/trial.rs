//! What files can have where layers are unpacked: which attributes, modes and times, found out by giving them to an empty
//! file. What the kernel, the file system and the user namespace make of an ACL, say, nobody else knows as well.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, mkfifoat, openat, statat, symlinkat, unlinkat, utimensat};
use rustix::io::Errno;

use super::archive::{NEWEST, OLDEST};
use super::root::{own, path_of};
use crate::action::Ids;
use crate::listing::{Entry, Kind, Time};
use crate::seal::delta::{mtime, set_xattr, timestamps, xattrs};

/// Extended attributes by name.
pub(super) type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// The file that is tried with.
const NAME: &[u8] = b"t";

/// A directory to try in.
pub(super) struct Trial {
    directory: OwnedFd,
    ids: Ids,
    /// All times that archives can name are kept as they are, but for the first and the last second, where Linux cuts
    /// fractions off if the file system has no others.
    keeps_times: bool,
}

impl Trial {
    pub fn new(path: &Path, ids: Ids) -> io::Result<Trial> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut trial = Trial { directory: openat(CWD, path, flags, Mode::empty())?, ids, keeps_times: false };
        let (least, most) = (Time { seconds: OLDEST + 1, nanos: 1 }, Time { seconds: NEWEST - 1, nanos: 999_999_999 });
        trial.keeps_times = trial.time(least)? == least && trial.time(most)? == most;
        Ok(trial)
    }

    /// Makes the file anew, of the type and with the owner and mode of an entry.
    pub fn begin(&self, entry: &Entry) -> io::Result<()> {
        self.remove()?;
        let mode = Mode::from_raw_mode(0o600);
        match &entry.kind {
            Kind::Directory { .. } => mkdirat(&self.directory, NAME, Mode::from_raw_mode(0o700))?,
            Kind::Symlink { target } => symlinkat(&**target, &self.directory, NAME)?,
            Kind::Fifo => mkfifoat(&self.directory, NAME, mode)?,
            _ => drop(openat(&self.directory, NAME, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)?),
        }
        own(&self.directory, NAME, entry, self.ids == Ids::Full)
    }

    /// Sets an attribute of the file.
    pub fn set_attribute(&self, attribute: &[u8], value: &[u8]) -> io::Result<()> {
        set_xattr(&path_of(&self.directory, NAME), attribute, value)
    }

    /// The mode and the attributes that the file has now.
    pub fn end(&self) -> io::Result<(u32, Attributes)> {
        let mode = statat(&self.directory, NAME, AtFlags::SYMLINK_NOFOLLOW)?.st_mode & 0o7777;
        Ok((mode, xattrs(&path_of(&self.directory, NAME))?.kept))
    }

    /// What becomes of a time.
    pub fn time(&self, time: Time) -> io::Result<Time> {
        if self.keeps_times && OLDEST < time.seconds && time.seconds < NEWEST {
            return Ok(time);
        }
        self.remove()?;
        symlinkat("time", &self.directory, NAME)?;
        utimensat(&self.directory, NAME, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(mtime(&statat(&self.directory, NAME, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn remove(&self) -> io::Result<()> {
        match unlinkat(&self.directory, NAME, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Ok(unlinkat(&self.directory, NAME, AtFlags::REMOVEDIR)?),
            other => Ok(other?),
        }
    }
}
