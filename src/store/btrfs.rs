//! The btrfs store: a read-only snapshot holds the whole root filesystem of each layer that runs build on.
//!
//! ```text
//! trees/CHAIN12           read-only snapshot of the nearest tree beneath, with the deltas above it laid over
//! nurseries/CHAIN12       writable snapshot of that tree: of interest is only where it counts its inodes from
//!   .stacker/NAME         draft of a run on the tree; later, its delta
//! drafts/NAME             of a run: a link to its place in the nursery
//! deltas/CHAIN12          of a run: a link to its place in the nursery; of the lowest layer: to its tree
//! ```
//! A file that a run writes must not have the inode number of a file of the base: overlayfs shows both with one device
//! number, and programs take files with both numbers equal for one file. Every subvolume counts its inodes by itself,
//! so uppers lie in a snapshot of the base, which goes on counting where the base ended. Leaves, on which nothing runs,
//! cost no subvolume.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};
use rustix::fs::{Mode, OFlags, openat};

use crate::commit_point::CommitPoint;
use crate::digest::{Chain, ChainId, DiffId};
use crate::listing::{Kind, Listing};
use crate::place;
use crate::seal::failure::library;
use crate::seal::{Form, Marks};
use crate::sys::btrfs;
use crate::worker::message::Failure;

use super::{Purpose, SnapshotStore, failed, keep, merge, nearest_tree, plain_draft, stacked, too_high, trash};

/// The inode number of the root of every btrfs subvolume.
pub(super) const SUBVOLUME: u64 = 256;
/// What is ours in a nursery. A base may have such a directory too: its snapshot's is removed.
const OURS: &str = ".stacker";

/// See the module's header.
pub struct Btrfs;

impl SnapshotStore for Btrfs {
    fn form(&self) -> Form {
        Form::Changes(Marks::Overlayfs)
    }

    fn lowers(&self, chain: &Chain, exists: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
        let ids = chain.ids();
        stacked(&ids, nearest_tree(&ids, exists))
    }

    fn needs_tree(&self, chain: &Chain, for_run: bool, exists: &dyn Fn(&Path) -> bool) -> Option<Chain> {
        if for_run {
            let wanted = chain.0.is_empty() || exists(&place::tree(&chain.id()));
            return (!wanted).then(|| chain.clone());
        }
        too_high(chain, nearest_tree(&chain.ids(), exists))
    }

    fn new_draft(&self, name: &str, purpose: Purpose) -> Result<PathBuf, Failure> {
        match purpose {
            Purpose::Run(base) | Purpose::Reopen(base) => {
                let ids = base.ids();
                match nearest_tree(&ids, &|path| path.exists()) {
                    Some(at) => nursed_draft(name, &ids[at]),
                    None => plain_draft(name),
                }
            }
            Purpose::Unpack(parent) if parent.0.is_empty() => {
                let draft = Path::new("drafts").join(name);
                fs::create_dir(&draft).map_err(|error| failed("create", &draft, error))?;
                create_subvolume(&draft.join("u"))?;
                Ok(draft)
            }
            Purpose::Unpack(_) | Purpose::Import => plain_draft(name),
        }
    }

    fn keep_delta(&self, draft: &Path, parent: ChainId, diff_id: DiffId, listing: &Listing) -> Result<(), Failure> {
        let id = parent.push(diff_id);
        let (upper, target) = (draft.join("u"), place::delta(&id));
        if let Some(home) = link_target(draft) {
            // The names of deltas in a nursery are taken once, so that nothing has to be replaced.
            let kept = home.with_file_name(trash::unique());
            fs::rename(&upper, &kept).map_err(|error| failed("rename", &upper, error))?;
            CommitPoint::UpperKept.reached();
            link(&target, &kept)?;
        } else if is_subvolume(&upper) && is_whole(listing)? {
            keep_tree(&upper, &place::tree(&id))?;
            link(&target, &place::tree(&id))?;
        } else {
            keep(&upper, &target)?;
        }
        CommitPoint::DeltaNamed.reached();
        trash::remove_later(draft);
        Ok(())
    }

    fn make_tree(&self, chain: &Chain) -> Result<(), Failure> {
        let target = place::tree(&chain.id());
        if target.exists() {
            return Ok(());
        }
        let ids = chain.ids();
        let beneath = nearest_tree(&ids, &|path| path.exists());
        let draft = Path::new("drafts").join(trash::unique());
        fs::create_dir(&draft).map_err(|error| failed("create", &draft, error))?;
        let merged = draft.join("u");
        match beneath {
            Some(at) => snapshot(&place::tree(&ids[at]), &merged)?,
            None => create_subvolume(&merged)?,
        }
        let above = ids.len() - beneath.map_or(0, |at| at + 1);
        merge::merge_all(&stacked(&ids, beneath)[..above], &merged, Marks::Overlayfs)?;
        CommitPoint::TreeMerged.reached();
        keep_tree(&merged, &target)?;
        trash::remove_path(&draft)
    }
}

/// Read-only after it has its name: the kernel moves no read-only directory. Nobody writes to a tree in any case.
fn keep_tree(from: &Path, to: &Path) -> Result<(), Failure> {
    keep(from, to)?;
    CommitPoint::TreeNamed.reached();
    set_read_only(to, true)?;
    CommitPoint::TreeSealed.reached();
    Ok(())
}

/// Whether a directory, or the nearest one above that exists, is on btrfs.
pub fn is_btrfs(path: &Path) -> bool {
    let mut paths = path.ancestors().chain([Path::new(".")]);
    let found = paths.find_map(|path| statfs(path).ok());
    found.is_some_and(|found| found.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// Whether this is the root of a subvolume.
pub(super) fn is_subvolume(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.ino() == SUBVOLUME) && is_btrfs(path)
}

/// Makes a subvolume writable, else it can neither be moved nor destroyed.
pub(super) fn make_writable(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|subvolume| btrfs::set_read_only(subvolume.as_fd(), false))
}

/// Destroys a writable subvolume; where the mount does not let its owner do that, takes it apart.
pub(super) fn destroy(path: &Path) -> io::Result<()> {
    let (parent, name) = parent_and_name(path);
    match File::open(parent).and_then(|parent| btrfs::destroy_subvolume(parent, name)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => fs::remove_dir_all(path),
        other => other,
    }
}

/// Destroys the subvolume `name` of a directory. That of another file system is none.
pub(super) fn destroy_at(directory: BorrowedFd, name: &[u8]) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    btrfs::set_read_only(openat(directory, name, flags, Mode::empty())?.as_fd(), false)?;
    btrfs::destroy_subvolume(directory, OsStr::from_bytes(name))
}

/// Where a link of ours leads, relative to the roots directory. `None`: it is none.
pub(super) fn link_target(link: &Path) -> Option<PathBuf> {
    let text = fs::read_link(link).ok()?;
    let target = text.strip_prefix("..").ok()?;
    target.components().all(|part| matches!(part, Component::Normal(_))).then(|| target.to_path_buf())
}

/// A draft in the nursery of a base.
fn nursed_draft(name: &str, base: &ChainId) -> Result<PathBuf, Failure> {
    let nursery = place::nursery(base);
    if !nursery.exists() {
        make_nursery(base, &nursery)?;
    }
    let home = nursery.join(OURS).join(trash::unique());
    for path in [&home, &home.join("u")] {
        fs::create_dir(path).map_err(|error| failed("create", path, error))?;
    }
    CommitPoint::NurseryPlaceMade.reached();
    let draft = Path::new("drafts").join(name);
    symlink(Path::new("..").join(&home), &draft).map_err(|error| failed("create", &draft, error))?;
    Ok(draft)
}

fn make_nursery(base: &ChainId, nursery: &Path) -> Result<(), Failure> {
    let made = Path::new("drafts").join(trash::unique());
    snapshot(&place::tree(base), &made)?;
    let ours = made.join(OURS);
    let prepare = || -> io::Result<()> {
        // The main process looks through it, whoever owns the image's root.
        lchown(&made, Some(0), Some(0))?;
        fs::set_permissions(&made, Permissions::from_mode(0o755))?;
        match fs::symlink_metadata(&ours) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&ours)?,
            Ok(_) => fs::remove_file(&ours)?,
            Err(_) => {}
        }
        fs::create_dir(&ours)?;
        fs::set_permissions(&ours, Permissions::from_mode(0o755))
    };
    prepare().map_err(|error| failed("prepare", &made, error))?;
    CommitPoint::NurseryPrepared.reached();
    keep(&made, nursery)?;
    CommitPoint::NurseryNamed.reached();
    // Still there when another process was first.
    trash::remove_path(&made)
}

/// Makes `at` a link to something of ours. One that leads somewhere stays, one that leads nowhere is replaced.
fn link(at: &Path, to: &Path) -> Result<(), Failure> {
    if at.exists() {
        return if to.starts_with("trees") { Ok(()) } else { trash::remove_path(to) };
    }
    let made = Path::new("drafts").join(trash::unique());
    symlink(Path::new("..").join(to), &made).map_err(|error| failed("create", &made, error))?;
    CommitPoint::DeltaLinkMade.reached();
    fs::rename(&made, at).map_err(|error| failed("rename to", at, error))
}

/// Whether a lowest layer is a root filesystem as it stands: one that removes things is not.
fn is_whole(listing: &Listing) -> Result<bool, Failure> {
    for entry in listing.entries() {
        let entry = entry.map_err(|error| library("read a listing", error))?;
        if matches!(entry.kind, Kind::Whiteout | Kind::Directory { opaque: true }) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn create_subvolume(path: &Path) -> Result<(), Failure> {
    let (parent, name) = parent_and_name(path);
    let made = File::open(parent).and_then(|parent| btrfs::create_subvolume(parent, name));
    made.map_err(|error| failed("create the subvolume", path, error))?;
    CommitPoint::SubvolumeMade.reached();
    Ok(())
}

fn snapshot(from: &Path, to: &Path) -> Result<(), Failure> {
    let (parent, name) = parent_and_name(to);
    let made = || btrfs::snapshot(File::open(from)?, File::open(parent)?, name);
    made().map_err(|error| failed("make a snapshot of", from, error))?;
    CommitPoint::SnapshotMade.reached();
    Ok(())
}

fn set_read_only(path: &Path, read_only: bool) -> Result<(), Failure> {
    let set = File::open(path).and_then(|subvolume| btrfs::set_read_only(subvolume.as_fd(), read_only));
    set.map_err(|error| failed("make read-only", path, error))
}

fn parent_and_name(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new(".")), path.file_name().unwrap_or_default())
}
