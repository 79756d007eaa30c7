//! Which of the kernel's own files a script sees, and how: `/sys` read-only, and `/proc` without what tells about or
//! changes the machine, as other container runtimes mask it.
//!
//! The script gets a mount namespace of a nested user namespace, so it can not take these mounts away.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::step::During;
use crate::action::Network;
use crate::worker::message::Failure;

const NONE: Option<&str> = None;

/// Hidden: a file shows as `/dev/null`, a directory as an empty one.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The flags of a mount that needs none of what they forbid.
pub fn inert() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Mounts sysfs at `at`. It shows a network namespace, and only the owner of that may mount it afresh; else the host's,
/// which [`restrict`] makes read-only.
pub fn mount_sys(at: &Path, network: Network) -> io::Result<()> {
    let fresh = || mount(Some("sysfs"), at, Some("sysfs"), inert() | MsFlags::MS_RDONLY, NONE);
    if network == Network::None && fresh().is_ok() {
        return Ok(());
    }
    Ok(mount(Some("/sys"), at, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?)
}

/// Masks what must not be seen and write-protects what must not be changed. Called in the new root.
pub fn restrict() -> Result<(), Failure> {
    let submounts = mounts_beneath(Path::new("/sys")).during("read /proc/self/mountinfo")?;
    for path in submounts {
        match remount(&path, inert() | MsFlags::MS_RDONLY) {
            // Behind a directory that is closed to us (debugfs), so to the script too.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && statvfs(&path).is_err() => {}
            other => other.during(format!("make {} read-only", path.display()))?,
        }
    }
    for path in READ_ONLY.map(Path::new) {
        write_protect(path).during(format!("make {} read-only", path.display()))?;
    }
    for path in MASKED.map(Path::new) {
        mask(path).during(format!("mask {}", path.display()))?;
    }
    Ok(())
}

/// Adds `flags` to a mount, keeping those it has: an outer user namespace may have locked them.
pub fn remount(path: &Path, flags: MsFlags) -> io::Result<()> {
    let has = statvfs(path)?.flags();
    let kept = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let kept = kept.into_iter().filter(|(on, _)| has.contains(*on)).map(|(_, flag)| flag);
    let flags = kept.fold(flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND, |all, flag| all | flag);
    Ok(mount(NONE, path, NONE, flags, NONE)?)
}

fn write_protect(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    remount(path, inert() | MsFlags::MS_RDONLY)
}

fn mask(path: &Path) -> io::Result<()> {
    let Ok(metadata) = path.metadata() else { return Ok(()) };
    if metadata.is_dir() {
        return Ok(mount(Some("tmpfs"), path, Some("tmpfs"), inert() | MsFlags::MS_RDONLY, Some("size=0k,mode=755"))?);
    }
    Ok(mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE)?)
}

/// Every mount at or beneath a directory, in the order they were made.
fn mounts_beneath(top: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let fifth = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescape);
    Ok(table.split(|byte| *byte == b'\n').filter_map(fifth).filter(|path| path.starts_with(top)).collect())
}

/// The kernel writes blanks, newlines and backslashes as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        match digits {
            Some(digits) => {
                path.push(digits.iter().fold(0, |value: u8, digit| value.wrapping_mul(8) + (digit - b'0')));
                rest = &after[3..];
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}
