//! Opening what must be a regular file, where somebody else may have put something else: a fifo makes who opens it wait
//! for ever, a device may never end.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens a regular file for reading, through links. `None`: it is something else.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path);
    let file = match file {
        // A socket; links that go in a circle.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NXIO | Errno::LOOP)) => return Ok(None),
        other => other?,
    };
    Ok(file.metadata()?.is_file().then_some(file))
}
