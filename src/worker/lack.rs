//! What a job's failure says of the machine.

use std::path::Path;

use nix::libc;

use crate::error::Error;
use crate::need::Need;
use crate::room::Room;

use super::message::Failure;

impl Failure {
    /// Whose lack it shows, if it is one of these.
    pub fn lack(&self) -> Option<Need> {
        let denied = self.errno == Some(libc::EPERM) || self.errno == Some(libc::EACCES);
        let refused = denied || self.errno == Some(libc::EINVAL) || self.errno == Some(libc::ENODEV);
        let full = self.errno == Some(libc::ENOSPC) || self.errno == Some(libc::EDQUOT);
        match self.step.as_str() {
            "mount overlay" if refused || self.errno == Some(libc::EOPNOTSUPP) => Some(Need::Overlay),
            "mount /proc" if denied => Some(Need::Proc),
            // Of namespaces it says that there are as many as there may be.
            step if (denied || full) && step.starts_with("unshare ") => Some(Need::UserNamespace),
            _ if full => Some(Need::Space),
            _ => None,
        }
    }

    /// The error that it is where the machine is at fault; the job wrote to these directories.
    pub fn error<'a>(&self, written: impl IntoIterator<Item = &'a Path>) -> Error {
        let what = format!("{}: {}", self.step, self.message);
        // Overlayfs makes a directory to mount; but there may also be as many mounts as the kernel lets be.
        let mounts = self.step.starts_with("mount ");
        match (self.lack(), Room::least(written)) {
            (Some(Need::Space), Some(room)) if mounts && !room.is_out() => {
                Error::Machine(format!("{what} (there is room: are there too many mounts, see fs.mount-max?)"))
            }
            (Some(Need::Space), Some(room)) => {
                Error::Lacking(Need::Space, format!("{what}; the disk is full: {}", room.told(self.errno)))
            }
            (Some(need), _) => Error::Lacking(need, what),
            (None, _) => Error::Machine(what),
        }
    }
}
