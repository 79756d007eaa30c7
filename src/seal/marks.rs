//! How a directory on disk says what its layer removes.

use std::io;
use std::path::Path;

use rustix::fd::AsFd;
use rustix::fs::{CWD, FileType, Mode, Stat, mknodat};
use rustix::io::Errno;

use super::delta::{OPAQUE, set_xattr, stat};

/// The name in an opaque directory that layer tars have for it, and that no layer can hold.
const OPAQUE_NAME: &str = ".wh..wh..opq";

/// What stands for a removed name, and what marks a directory that hides all beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// What overlayfs reads: a character device with number 0:0, and an attribute.
    Overlayfs,
    /// What every file system has: a socket, which no layer holds; and a socket of a name that no layer holds.
    Sockets,
}

/// What a directory holds that is to be sealed, or that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A layer's own changes, and these marks.
    Changes(Marks),
    /// A whole root filesystem that began as a copy of the layers beneath: what is not there was removed. Sealing makes
    /// of it a layer's own changes, with these marks.
    Whole(Marks),
}

impl Form {
    /// How it says, or will say, what is removed.
    pub fn marks(self) -> Marks {
        match self {
            Form::Changes(marks) | Form::Whole(marks) => marks,
        }
    }
}

impl Marks {
    /// Whether something stands for a removed name.
    pub(crate) fn is_whiteout(self, stat: &Stat) -> bool {
        let kind = FileType::from_raw_mode(stat.st_mode);
        match self {
            Marks::Overlayfs => kind == FileType::CharacterDevice && stat.st_rdev == 0,
            Marks::Sockets => kind == FileType::Socket,
        }
    }

    /// Makes what stands for the removed `name` of a directory. One that is there is no error.
    pub(crate) fn whiteout(self, directory: impl AsFd, name: &[u8]) -> io::Result<()> {
        let kind = match self {
            Marks::Overlayfs => FileType::CharacterDevice,
            Marks::Sockets => FileType::Socket,
        };
        match mknodat(directory, name, kind, Mode::empty(), 0) {
            Err(Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether a name is no file of the layer but the mark of its directory.
    pub(crate) fn is_opaque_name(self, name: &[u8]) -> bool {
        self == Marks::Sockets && name == OPAQUE_NAME.as_bytes()
    }

    /// Whether a directory hides all beneath it. `attribute`: it has the one of overlayfs.
    pub(crate) fn is_opaque(self, directory: &Path, attribute: bool) -> bool {
        match self {
            Marks::Overlayfs => attribute,
            Marks::Sockets => stat(&directory.join(OPAQUE_NAME)).is_ok_and(|stat| self.is_whiteout(&stat)),
        }
    }

    /// Marks a directory that hides all beneath it.
    pub(crate) fn make_opaque(self, directory: &Path) -> io::Result<()> {
        match self {
            Marks::Overlayfs => set_xattr(directory, OPAQUE.as_bytes(), b"y"),
            Marks::Sockets => {
                let name = directory.join(OPAQUE_NAME);
                match mknodat(CWD, &name, FileType::Socket, Mode::empty(), 0) {
                    Err(Errno::EXIST) => Ok(()),
                    other => Ok(other?),
                }
            }
        }
    }
}
