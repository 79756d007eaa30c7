//! Room on disks: how much a file system has, and what to tell when it had none.

use std::io;
use std::path::{Path, PathBuf};

use nix::libc;

/// Less room than this is none: file systems keep a little back.
const NONE: u64 = 1024 * 1024;
/// So few inodes are none: who found none may have given some back since.
const FEW: u64 = 16;

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
        self.bytes < NONE || self.few_inodes()
    }

    fn few_inodes(&self) -> bool {
        self.inodes.is_some_and(|inodes| inodes < FEW)
    }

    /// How much, for a person.
    pub fn left(&self) -> String {
        let bytes = bytesize::ByteSize(self.bytes);
        self.inodes.map_or_else(|| bytes.to_string(), |inodes| format!("{bytes} and {inodes} inodes"))
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
        let path = self.path.display();
        match self.inodes.filter(|_| self.few_inodes()) {
            Some(inodes) if self.bytes >= NONE => write!(f, "{inodes} inodes left on the file system of {path}"),
            _ if self.bytes < NONE => {
                write!(f, "{} of space left on the file system of {path}", bytesize::ByteSize(self.bytes))
            }
            // Somebody has made room, or what found none has cleaned up after itself.
            _ => write!(f, "there was no space left on the file system of {path} ({} by now)", self.left()),
        }
    }
}

/// Whether an error says that a disk, or somebody's share of it, is full.
pub fn is_lacking(error: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind())
}
