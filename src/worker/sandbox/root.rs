//! Assembles the root directory of the sandbox and moves into it. Runs as PID 1, in a mount namespace of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Mode, OFlags, ResolveFlags, open};

use super::ground::{Ground, Mount, Place};
use super::step::{During, machine_fault};
use super::{Sandbox, bind, kernel};
use crate::action::Ids;
use crate::sys;
use crate::worker::message::Failure;

/// mount(2) takes its options in one page.
const PAGE: usize = 4096;
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
const NONE: Option<&str> = None;

/// Mounts everything; afterwards `/` and the working directory are the sandbox's root, and nothing else is in reach.
pub fn enter(sandbox: &Sandbox, ground: &Ground) -> Result<(), Failure> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).during("make mounts private")?;
    let root = match sandbox.lowers {
        Some(lowers) => overlay(lowers, ground)?,
        None => bind(ground)?,
    };
    for place in &ground.places {
        match place.mount {
            Mount::Bind(index, _) => bind::mount(place, &root, &sandbox.binds[index])?,
            _ => place.mount(&root, sandbox).during(format!("mount {}", place.name))?,
        }
    }
    nix::unistd::fchdir(&root).during("enter the new root")?;
    nix::unistd::pivot_root(".", ".").during("pivot root")?;
    umount2(".", MntFlags::MNT_DETACH).during("detach the old root")?;
    nix::unistd::chdir("/").during("enter the new root")?;
    kernel::restrict()
}

/// Mounts the overlay; where a mount point is hidden by what the base removed, again with a patch on top.
fn overlay(lowers: &[PathBuf], ground: &Ground) -> Result<OwnedFd, Failure> {
    let root = mount_overlay(lowers, ground, None, &ground.work)?;
    let outside = ground.places.iter().filter(|place| !place.is_made_elsewhere());
    let hidden: Vec<&Place> = outside.filter(|place| find(&root, &place.path).is_err()).collect();
    if hidden.is_empty() {
        return Ok(root);
    }
    patch(&root, ground, &hidden).during("create the mount points that the base removed")?;
    drop(root);
    umount2(&ground.root, MntFlags::empty()).during("unmount overlay")?;
    // A volatile overlay refuses a work directory that was used.
    let work = ground.patch.join("w");
    fs::create_dir(&work).during("create a work directory")?;
    mount_overlay(lowers, ground, Some(&ground.patch.join("t")), &work)
}

fn mount_overlay(lowers: &[PathBuf], ground: &Ground, top: Option<&Path>, work: &Path) -> Result<OwnedFd, Failure> {
    let lowers = top.into_iter().chain(lowers.iter().map(PathBuf::as_path)).chain([ground.skeleton.as_path()]);
    let lowers: Vec<&OsStr> = lowers.map(Path::as_os_str).collect();
    let options = overlay_options(&lowers, &ground.upper, work);
    if options.len() >= PAGE {
        return Err(machine_fault("mount overlay", &format!("{} layers do not fit one mount", lowers.len())));
    }
    mount(Some("overlay"), &ground.root, Some("overlay"), MsFlags::empty(), Some(options.as_os_str()))
        .during("mount overlay")?;
    open_root(ground)
}

/// The upper as it is, in its place as a mount of its own, which the new root must be.
fn bind(ground: &Ground) -> Result<OwnedFd, Failure> {
    mount(Some(&ground.upper), &ground.root, NONE, MsFlags::MS_BIND, NONE).during("bind the root filesystem")?;
    open_root(ground)
}

fn open_root(ground: &Ground) -> Result<OwnedFd, Failure> {
    open(&ground.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).during("open the new root")
}

fn overlay_options(lowers: &[&OsStr], upper: &Path, work: &Path) -> OsString {
    let mut options = OsString::from("userxattr,volatile,lowerdir=");
    options.push(lowers.join(OsStr::new(":")));
    options.push(",upperdir=");
    options.push(upper);
    options.push(",workdir=");
    options.push(work);
    options
}

/// Makes mount points in a layer above the base, where the directories that lead to them look as they do in the base.
fn patch(root: &OwnedFd, ground: &Ground, hidden: &[&Place]) -> io::Result<()> {
    let top = ground.patch.join("t");
    fs::create_dir(&ground.patch)?;
    fs::create_dir(&top)?;
    for place in hidden {
        place.make(&top)?;
    }
    let ancestors = hidden.iter().flat_map(|place| place.path.ancestors().skip(1));
    let mut ancestors: Vec<&Path> = ancestors.collect();
    // Deepest first: making an entry touches its directory.
    ancestors.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    ancestors.dedup();
    for path in ancestors {
        if let Ok(shown) = find(root, path) {
            copy_attributes(&magic(&shown), &top.join(path))?;
        }
    }
    Ok(())
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, Permissions::from_mode(metadata.mode() & 0o7777))?;
    let mut names = vec![0; 65536];
    let length = rustix::fs::listxattr(from, &mut names).unwrap_or(0);
    // Labels of the machine's security module are its own business.
    let names = names[..length].split(|byte| *byte == 0);
    for name in names.filter(|name| !name.is_empty() && !name.starts_with(b"security.")) {
        let mut value = vec![0; 65536];
        let length = rustix::fs::getxattr(from, name, &mut value)?;
        rustix::fs::setxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    let times = fs::FileTimes::new().set_modified(metadata.modified()?);
    File::open(to)?.set_times(times)
}

impl Place {
    fn mount(&self, root: &OwnedFd, sandbox: &Sandbox) -> io::Result<()> {
        let covered = find(root, &self.path)?;
        let at = magic(&covered);
        // A descriptor opened before the mount names what the mount covers; one opened after it, what it shows.
        let shown = || find(root, &self.path);
        match &self.mount {
            // What hides parts of it comes along, and cannot be taken off.
            Mount::Proc if sandbox.setting.shared_proc => {
                mount(Some("/proc"), &at, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?
            }
            Mount::Proc => mount(Some("proc"), &at, Some("proc"), kernel::inert(), NONE)?,
            Mount::Dev => {
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
                mount(Some("tmpfs"), &at, Some("tmpfs"), flags, Some("mode=755,size=65536k"))?;
                fill_dev(&magic(&shown()?), sandbox.setting.ids)?;
            }
            Mount::Sys => kernel::mount_sys(&at, sandbox.network)?,
            // What was left is in it already where nothing can be laid over anything.
            Mount::Stacker(source) => match sandbox.left.filter(|_| sandbox.lowers.is_some()) {
                None => mount(Some(source), &at, NONE, MsFlags::MS_BIND, NONE)?,
                Some(left) => {
                    let work = source.with_extension("w");
                    fs::create_dir(&work)?;
                    let options = overlay_options(&[left.as_os_str()], source, &work);
                    mount(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(options.as_os_str()))?;
                }
            },
            // It has its own way.
            Mount::Bind(..) => {}
            Mount::ReadOnly(source) => {
                mount(Some(source), &at, NONE, MsFlags::MS_BIND, NONE)?;
                let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                kernel::remount(&magic(&shown()?), flags)?;
            }
        }
        Ok(())
    }
}

/// What every program expects in `/dev`, and nothing of the machine's.
fn fill_dev(dev: &Path, ids: Ids) -> io::Result<()> {
    for name in DEVICES {
        let node = dev.join(name);
        File::create(&node)?;
        mount(Some(&Path::new("/dev").join(name)), &node, NONE, MsFlags::MS_BIND, NONE)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let pts = dev.join("pts");
    fs::create_dir(&pts)?;
    // Terminals belong to the group tty, where there is one.
    let options = match ids {
        Ids::Full => "newinstance,ptmxmode=0666,mode=0620,gid=5",
        Ids::Single => "newinstance,ptmxmode=0666,mode=0620",
    };
    mount(Some("devpts"), &pts, Some("devpts"), flags, Some(options))?;
    let shm = dev.join("shm");
    fs::create_dir(&shm)?;
    mount(Some("shm"), &shm, Some("tmpfs"), flags | MsFlags::MS_NODEV, Some("mode=1777"))?;
    for (name, target) in LINKS {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

/// Opens a path of the sandbox for use as a mount point; links can not lead out of it.
pub(super) fn find(root: &impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    sys::open_resolved(root, path, OFlags::PATH | OFlags::CLOEXEC, resolve)
}

/// The name under which mount(2) takes an open descriptor.
pub(super) fn magic(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
