//! Room on disks: how much a file system has, and what to tell when it had none.

use std::io;
use std::path::{Path, PathBuf};

use nix::libc;

/// Less room than this is none: file systems keep a little back.
const NONE: u64 = 1024 * 1024;

/// What the file system of a path has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    path: PathBuf,
    bytes: u64,
    /// Where inodes are counted.
    inodes: Option<u64>,
}

impl Room {
    /// At this moment, for a path or what is to become one.
    pub fn of(path: &Path) -> Option<Room> {
        let path = path.ancestors().find(|path| path.is_dir())?;
        let found = rustix::fs::statvfs(path).ok()?;
        Some(Room {
            path: path.to_path_buf(),
            bytes: found.f_bavail.saturating_mul(found.f_frsize),
            inodes: (found.f_files > 0).then_some(found.f_favail),
        })
    }

    /// Of some paths the one with the least.
    pub fn least<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Option<Room> {
        paths.into_iter().filter_map(Room::of).min_by_key(|room| (!room.is_out(), room.bytes))
    }

    /// Whether nothing more can be written.
    pub fn is_out(&self) -> bool {
        self.bytes < NONE || self.inodes == Some(0)
    }

    /// How much of what there is least of.
    pub fn left(&self) -> String {
        if self.bytes >= NONE && self.inodes == Some(0) { "no inode".to_owned() } else { self.bytes().to_string() }
    }

    /// How many bytes, for a person.
    pub fn bytes(&self) -> bytesize::ByteSize {
        bytesize::ByteSize(self.bytes)
    }

    /// What was found by who got this errno there.
    pub fn told(&self, errno: Option<i32>) -> String {
        if errno == Some(libc::EDQUOT) {
            return format!("the disk quota on the file system of {} is used up", self.path.display());
        }
        self.to_string()
    }
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (path, bytes) = (self.path.display(), self.bytes());
        match (self.bytes < NONE, self.inodes) {
            (false, Some(0)) => write!(f, "no inode left on the file system of {path}"),
            (true, _) => write!(f, "{bytes} of space left on the file system of {path}"),
            // Somebody has made room, or what found none has cleaned up after itself.
            _ => write!(f, "there was no space left on the file system of {path} ({bytes} by now)"),
        }
    }
}

/// Whether an error says that a disk, or somebody's share of it, is full.
pub fn is_lacking(error: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind())
}
