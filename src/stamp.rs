//! Stamps: what the kernel says of a file or directory and a write to it changes, and whether it can be relied on.

use std::os::fd::AsFd;

use rustix::fs::Stat;

use crate::listing::Time;

/// The coarsest time stamps of any file system that matters (FAT's), in seconds.
const GRANULARITY: i64 = 2;

/// What lstat says of a file and a change of content changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub size: u64,
    pub inode: u64,
    pub mtime: Time,
    pub ctime: Time,
}

impl Stamp {
    pub fn of(stat: &Stat) -> Stamp {
        Stamp {
            size: stat.st_size as u64,
            inode: stat.st_ino,
            mtime: Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
            ctime: Time { seconds: stat.st_ctime, nanos: stat.st_ctime_nsec as u32 },
        }
    }

    /// Whether any write after this moment leaves another stamp.
    pub fn is_settled(&self, moment: Time) -> bool {
        let newest = self.mtime.max(self.ctime);
        Time { seconds: newest.seconds.saturating_add(GRANULARITY), ..newest } < moment
    }
}

/// Whether a file's or directory's stamps come from this machine's clock.
pub(crate) fn is_local(file: impl AsFd) -> bool {
    // linux/magic.h: ext, btrfs, xfs, tmpfs, overlayfs, f2fs, bcachefs; zfs (2fc12fc1).
    const LOCAL: [u64; 8] =
        [0xef53, 0x9123_683e, 0x5846_5342, 0x0102_1994, 0x794c_7630, 0xf2f5_2010, 0xca45_1a4e, 0x2fc1_2fc1];
    rustix::fs::fstatfs(file).is_ok_and(|system| LOCAL.contains(&(system.f_type as u64)))
}

/// The clock that the kernel stamps files with: it lags a few milliseconds behind the precise one.
pub(crate) fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Time { seconds: now.tv_sec, nanos: now.tv_nsec as u32 }
}
