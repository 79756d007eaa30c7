//! What a file in a delta directory is, and how it is brought into the state that a listing says.
//!
//! Nothing else touches the directory meanwhile: every process of the sandbox has ended. Names that were read from it
//! are used with calls that do not follow a link in their last component, beneath directories that were seen to be
//! directories.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags, openat};

use crate::action::Ids;
use crate::listing::{Entry, Kind, Time};
use crate::room::Room;
use crate::sys;

/// The mark of an opaque directory in a mount with `userxattr`.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// What marks belong to overlayfs and to no image.
const OVERLAY: [&[u8]; 2] = [b"user.overlay.", b"trusted.overlay."];

/// `directory/path`, where the root of the image is the directory itself.
pub(crate) fn within(directory: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { directory.to_path_buf() } else { directory.join(OsStr::from_bytes(path)) }
}

pub(crate) fn stat(path: &Path) -> io::Result<Stat> {
    Ok(rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(crate) fn mtime(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 }
}

/// The extended attributes of a file, as images keep them, and what overlayfs wrote beside them.
#[derive(Debug, Default)]
pub(crate) struct Xattrs {
    /// What a listing says.
    pub kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether the directory is marked opaque.
    pub opaque: bool,
    /// Overlayfs's own marks but that one.
    pub overlay: Vec<Vec<u8>>,
}

/// Reads the attributes of a file; of a link, its own.
pub(crate) fn xattrs(path: &Path) -> io::Result<Xattrs> {
    let mut xattrs = Xattrs::default();
    let mut names = vec![0; 1024];
    let length = grown(&mut names, |names| rustix::fs::llistxattr(path, names));
    let length = match length {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => 0,
        other => other?,
    };
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if OVERLAY.iter().any(|prefix| name.starts_with(prefix)) {
            if name == OPAQUE.as_bytes() && xattr(path, name)? == b"y" {
                xattrs.opaque = true;
            } else {
                xattrs.overlay.push(name.to_vec());
            }
        } else if is_kept(name) {
            let value = normal(name, xattr(path, name)?);
            xattrs.kept.insert(name.to_vec(), value);
        }
    }
    Ok(xattrs)
}

/// Whether an attribute belongs to the image: labels of the host's security modules and file system do not.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    let known: [&[u8]; 3] = [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    let spaces: [&[u8]; 2] = [b"user.", b"trusted."];
    known.contains(&name)
        || spaces.iter().any(|space| name.starts_with(space)) && !OVERLAY.iter().any(|prefix| name.starts_with(prefix))
}

/// File capabilities of version 3 name the root of a user namespace; in an image they are of version 2, which do not.
pub(crate) fn normal(name: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    if name == b"security.capability" && value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}

fn xattr(path: &Path, name: &[u8]) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = grown(&mut value, |value| rustix::fs::lgetxattr(path, name, value))?;
    value.truncate(length);
    Ok(value)
}

/// Calls with a larger buffer until it is large enough.
fn grown(buffer: &mut Vec<u8>, mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call(buffer) {
            Err(rustix::io::Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            result => return Ok(result?),
        }
    }
}

pub(crate) fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    match rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
        // The same error as on a full disk.
        Err(rustix::io::Errno::NOSPC) if has_room(path) => Err(io::Error::other(TOO_LARGE)),
        result => Ok(result?),
    }
}

/// What a file system says by "No space left on device" that has some.
const TOO_LARGE: &str = "its extended attributes are larger than this file system keeps (ext4: 4 KiB for each file; \
                         btrfs and xfs keep more: --roots-dir DIR)";

fn has_room(path: &Path) -> bool {
    path.parent().and_then(Room::of).is_some_and(|room| !room.is_out())
}

/// Removes an attribute; one that is not there is no error.
pub(crate) fn remove_xattr(path: &Path, name: &[u8]) -> io::Result<()> {
    match rustix::fs::lremovexattr(path, name) {
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

/// Sets the modification time (and the access time with it) of a file; of a link, its own.
pub(crate) fn set_mtime(path: &Path, time: Time) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, path, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(crate) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Opens files of a delta for reading, following no link at all.
pub(crate) struct Delta(rustix::fd::OwnedFd);

impl Delta {
    pub fn open(directory: &Path) -> io::Result<Delta> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Delta(openat(CWD, directory, flags, Mode::empty())?))
    }

    pub fn file(&self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(File::from(sys::open_resolved(&self.0, path, flags, resolve)?))
    }
}

/// Gives `path` the mode, owner (where there is more than one), attributes and time of an entry, where it is a directory.
pub(crate) fn dress(path: &Path, entry: &Entry, ids: Ids) -> io::Result<()> {
    debug_assert!(matches!(entry.kind, Kind::Directory { .. }));
    if ids == Ids::Full {
        let (uid, gid) = (rustix::fs::Uid::from_raw(entry.uid), rustix::fs::Gid::from_raw(entry.gid));
        rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // A directory inherits the default ACL of the one it was made in.
    for name in xattrs(path)?.kept.into_keys().filter(|name| !entry.xattrs.contains_key(name)) {
        remove_xattr(path, &name)?;
    }
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    for (name, value) in &entry.xattrs {
        set_xattr(path, name, value)?;
    }
    set_mtime(path, entry.mtime)
}
