//! The system calls that no crate makes safely: the only place for `unsafe`, each with its argument.

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// Maps a file that nobody writes any more.
pub fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the files mapped here (listings) are written once under another name or descriptor, are immutable from
    // then on, and lie in directories that only their owner can write. Their text is never trusted to be valid.
    unsafe { Mmap::map(file) }
}
