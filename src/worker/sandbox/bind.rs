//! Binds: paths of the host in the sandbox.
//!
//! Root's binds come as mounts, ready but for their place. An ordinary user's are found by their path once more, since
//! the kernel binds nothing that was opened in another mount namespace; the descriptor says whether it is the same.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount as mount_at};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};

use super::ground::{Mount, Place};
use super::kernel;
use super::points::file;
use super::root::{find, magic};
use super::step::users_fault;
use crate::sys::{self, MountChange};
use crate::worker::message::{BindMount, Failure};

const NONE: Option<&str> = None;

/// Where a bind would cover what is stacker's, whatever name leads there.
const OWN: [&str; 3] = ["proc", "sys", "stacker"];

/// The mount points, what contains others first.
pub fn wanted(binds: &[(BindMount, OwnedFd)]) -> Vec<(String, Mount)> {
    let place = |(index, (bind, _)): (usize, &(BindMount, OwnedFd))| {
        (bind.place.clone(), Mount::Bind(index, bind.found.directory))
    };
    let mut places: Vec<_> = binds.iter().enumerate().map(place).collect();
    places.sort_by(|(a, _), (b, _)| Path::new(a).cmp(Path::new(b)));
    places
}

/// Refuses a place that a link of the base makes one of stacker's.
pub fn check(place: &Place) -> Result<(), Failure> {
    let own = OWN.iter().find(|own| place.path.starts_with(own));
    let path = place.path.display();
    match own {
        Some(own) => Err(fault(place, format!("it leads to /{path} in the base, and /{own} is stacker's own"))),
        None if place.path.as_os_str().is_empty() || place.path == Path::new("dev") => {
            Err(fault(place, format!("it leads to /{path} in the base")))
        }
        None => Ok(()),
    }
}

/// Mounts one.
pub fn mount(place: &Place, root: &OwnedFd, (bind, descriptor): &(BindMount, OwnedFd)) -> Result<(), Failure> {
    let failed = |error: io::Error| fault(place, error.to_string());
    if place.path.starts_with("dev") {
        make_in_dev(place, root).map_err(failed)?;
    }
    let covered = find(root, &place.path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            fault(place, "another bind lies there, and has no such file or directory".to_owned())
        }
        _ => failed(error),
    })?;
    match bind.found.mount {
        true => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(descriptor, "", &covered, "", flags).map_err(|error| failed(error.into()))?;
        }
        false => {
            let source = reach(place, bind, descriptor)?;
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount_at(Some(&magic(&source)), &magic(&covered), NONE, flags, NONE)
                .map_err(|error| failed(error.into()))?;
        }
    }
    let shown = find(root, &place.path).map_err(failed)?;
    restrict(&shown, bind.found.read_only).map_err(failed)?;
    for own in &bind.found.hidden {
        hide(&shown, Path::new(OsStr::from_bytes(own))).map_err(failed)?;
    }
    Ok(())
}

/// Opens the path that the caller has opened, by the rights of the sandbox's root.
fn reach(place: &Place, bind: &BindMount, descriptor: &OwnedFd) -> Result<OwnedFd, Failure> {
    let path = PathBuf::from(OsStr::from_bytes(&bind.found.path));
    let shown = path.display();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::empty()).map_err(|error| match error {
        Errno::ACCESS => fault(
            place,
            format!(
                "a sandbox cannot reach {shown}: it has the caller's user and primary group, no other groups and no \
                 power over directories of others"
            ),
        ),
        error => fault(place, format!("{shown}: {}", io::Error::from(error))),
    })?;
    let id = |file: &OwnedFd| fstat(file).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    match id(&file) {
        Some(found) if found == bind.found.id && id(descriptor) == Some(found) => Ok(file),
        _ => Err(fault(place, format!("{shown} is something else than a moment ago"))),
    }
}

/// No set-user-id programs, and no writing where that is asked for.
fn restrict(shown: &OwnedFd, read_only: bool) -> io::Result<()> {
    if sys::change_mount(shown, MountChange { read_only, ids_of: None }).is_ok() {
        return Ok(());
    }
    // Before Linux 5.12, without what is mounted beneath.
    let read_only = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    kernel::remount(&magic(shown), read_only | MsFlags::MS_NOSUID)
}

/// An empty directory over one that is stacker's own.
fn hide(shown: &OwnedFd, own: &Path) -> io::Result<()> {
    let covered = match find(shown, own) {
        Ok(covered) => covered,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let flags = kernel::inert() | MsFlags::MS_RDONLY;
    Ok(mount_at(Some("tmpfs"), &magic(&covered), Some("tmpfs"), flags, Some("size=0k,mode=755"))?)
}

/// The mount point, in the sandbox's own `/dev`.
fn make_in_dev(place: &Place, root: &OwnedFd) -> io::Result<()> {
    let inside = place.path.strip_prefix("dev").map_err(io::Error::other)?;
    let mut directory = find(root, Path::new("dev"))?;
    let mut names = inside.components().peekable();
    while let Some(name) = names.next() {
        let path = magic(&directory).join(name);
        let last = names.peek().is_none();
        match if last && !place.is_directory() { file(&path, b"", 0o644) } else { super::points::directory(&path) } {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        if !last {
            directory = find(&directory, Path::new(name.as_os_str()))?;
        }
    }
    Ok(())
}

fn fault(place: &Place, why: String) -> Failure {
    users_fault("prepare the sandbox", format!("cannot mount the bind {}: {why}", place.name))
}
