//! What an archive is unpacked into, as far as the rules of unpacking need it: a directory on disk (`root`), or a tree
//! in memory of which only the listing is wanted (`memory`).
//!
//! The rules are the same code for both, so what they must agree upon is here: each call does what the system call of
//! its name does, and fails with its errno. No name that is given to a call has a slash in it, and none is followed.

use std::io;

use rustix::io::Result;

use crate::listing::{Entry, Time};

/// What tells a file from all others that are there at the same time (on disk: device and inode).
pub(super) type Id = (u64, u64);

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub id: Id,
    pub standing: Standing,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The mark of a removed name.
    Whiteout,
    Directory,
    Other,
}

/// What a name is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum New<'a> {
    Directory,
    /// With this text.
    Symlink(&'a [u8]),
    Fifo,
}

pub(super) trait Target {
    /// A directory that was opened: the same one whatever becomes of its name.
    type Directory: Clone;
    /// A file that is being written.
    type File;

    /// The directory at `path`, to which links are followed, absolute ones and `..` too, as if nothing was outside of the
    /// target. The empty path is the root.
    fn open(&mut self, path: &[u8]) -> io::Result<Self::Directory>;

    /// The directory `name` in another one, which is no link.
    fn child(&self, at: &Self::Directory, name: &[u8]) -> io::Result<Self::Directory>;

    /// Which directory it is.
    fn id(&self, directory: &Self::Directory) -> Id;

    /// What stands at a name; `.` is the directory itself.
    fn look(&self, at: &Self::Directory, name: &[u8]) -> Result<Option<Seen>>;

    /// Takes away what was seen, with all that is in it.
    fn remove(&mut self, at: &Self::Directory, name: &[u8], seen: Seen) -> io::Result<()>;

    /// Makes a name that is not there.
    fn make(&mut self, at: &Self::Directory, name: &[u8], new: New) -> Result<()>;

    /// Makes a file that is not there, to be written.
    fn create(&mut self, at: &Self::Directory, name: &[u8]) -> Result<Self::File>;

    /// Goes on with a file: a hole of so many bytes, then these.
    fn write(&mut self, file: &mut Self::File, hole: u64, bytes: &[u8]) -> io::Result<()>;

    /// The end of a file, after a hole of so many bytes.
    fn close(&mut self, file: Self::File, hole: u64) -> io::Result<()>;

    /// One more name of the file `first` in `from`.
    fn link(&mut self, from: &Self::Directory, first: &[u8], at: &Self::Directory, name: &[u8]) -> Result<()>;

    /// Marks a name as removed from the layers beneath. One that is marked, or there, is no error.
    fn mark_removed(&mut self, at: &Self::Directory, name: &[u8]) -> io::Result<()>;

    /// Marks a directory that hides all beneath it.
    fn mark_opaque(&mut self, directory: &Self::Directory) -> io::Result<()>;

    /// Gives a name the owner and the mode of an entry.
    fn own(&mut self, at: &Self::Directory, name: &[u8], entry: &Entry) -> io::Result<()>;

    /// Sets an attribute of a name.
    fn set_attribute(&mut self, at: &Self::Directory, name: &[u8], attribute: &[u8], value: &[u8]) -> io::Result<()>;

    /// Sets the modification time of a name, after which nothing else of it is set.
    fn set_time(&mut self, at: &Self::Directory, name: &[u8], time: Time) -> io::Result<()>;
}
