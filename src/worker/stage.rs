//! Staging: trees for imports, copied out of layers, with the owners that only a worker can set.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmodat, chownat};

use crate::action::{Attributes, Ids};
use crate::commit_point::CommitPoint;
use crate::digest::{Chain, TreeDigest};
use crate::listing::{Entry, Kind, Time, apply, join, order, tree_digest};
use crate::place;
use crate::seal::delta::{mtime, set_mtime, set_xattr, stat, within, xattrs};
use crate::seal::failure::{library, machine, users};
use crate::seal::hash_file;

use super::message::Failure;
use super::{Worker, failed};

impl Worker<'_> {
    /// Copies `path` of a chain to `imports/NAME/t` and says what it is; the overrides come after that.
    pub(super) fn stage_from_layer(
        &self,
        chain: &Chain,
        path: &[u8],
        attributes: &Attributes,
        time: i64,
        name: &str,
    ) -> Result<TreeDigest, Failure> {
        let directory = Path::new("imports").join(name);
        fs::create_dir(&directory).map_err(|error| failed("create", &directory, error))?;
        self.with_view(chain, &directory, |root| self.stage_from(root, chain, path, attributes, time, &directory))
    }

    /// Calls `read` with a directory that shows a chain, made in `directory` for that long.
    pub(super) fn with_view<T>(
        &self,
        chain: &Chain,
        directory: &Path,
        read: impl FnOnce(&Path) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let view = directory.join("m");
        fs::create_dir(&view).map_err(|error| failed("create", &view, error))?;
        CommitPoint::StageMade.reached();
        if self.setting.bare {
            // Nothing can be mounted, so the layers are laid over each other in a directory.
            self.store.make_tree(chain)?;
            fs::remove_dir(&view).map_err(|error| failed("remove", &view, error))?;
            return read(&place::tree(&chain.id()));
        }
        self.mount_view(chain, &view)?;
        let found = read(&view);
        nix::mount::umount2(&view, nix::mount::MntFlags::MNT_DETACH)
            .map_err(|error| failed("unmount", &view, error.into()))?;
        fs::remove_dir(&view).map_err(|error| failed("remove", &view, error))?;
        found
    }

    /// `root` shows the chain.
    fn stage_from(
        &self,
        root: &Path,
        chain: &Chain,
        path: &[u8],
        attributes: &Attributes,
        time: i64,
        directory: &Path,
    ) -> Result<TreeDigest, Failure> {
        let mut entries = copy(&within(root, path), &directory.join("t"))?;
        CommitPoint::LayerImportCopied.reached();
        if self.setting.ids == Ids::Single {
            self.restore_owners(chain, path, &mut entries)?;
        }
        // Sorted as listings are; a directory is never far from its children.
        entries.sort_by(order);
        let digest = tree_digest(&entries);
        finish(&directory.join("t"), entries, attributes, time, self.setting.ids)?;
        Ok(digest)
    }

    /// The owners that the listings know, which the files on disk could not be given to.
    fn restore_owners(&self, chain: &Chain, path: &[u8], entries: &mut [Entry]) -> Result<(), Failure> {
        let stack = self.stack(chain)?;
        for entry in entries {
            let full = if entry.path.is_empty() { path.to_vec() } else { join(path, &entry.path) };
            if let Some(known) = stack.lookup(&full).map_err(|error| library("read listings", error))? {
                (entry.uid, entry.gid) = (known.uid, known.gid);
            }
        }
        Ok(())
    }

    /// A chain to read from, mounted in a mount namespace of this worker's own.
    fn mount_view(&self, chain: &Chain, at: &Path) -> Result<(), Failure> {
        let lowers = self.lowers(chain);
        let done = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
            .and_then(|()| match lowers.as_slice() {
                [] => Ok(()),
                [only] => mount(Some(only), at, None::<&str>, MsFlags::MS_BIND, None::<&str>),
                several => {
                    let names: Vec<_> = several.iter().map(|path| path.to_string_lossy()).collect();
                    let options = format!("lowerdir={},userxattr", names.join(":"));
                    mount(Some("overlay"), at, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str()))
                }
            });
        done.map_err(|error| failed("mount layers at", at, error.into()))
    }
}

/// Gives a staged tree its overrides and times. The main process has staged it as the sandbox's root.
pub(super) fn own(tree: &Path, attributes: &Attributes, time: i64, ids: Ids) -> Result<(), Failure> {
    let mut entries = Vec::new();
    describe(tree, b"", &mut entries)?;
    finish(tree, entries, &Attributes { mode: None, ..*attributes }, time, ids)?;
    CommitPoint::ImportOwned.reached();
    Ok(())
}

/// Mode, owner and attributes of each entry with the overrides, and the time of all: children before their directory.
fn finish(tree: &Path, mut entries: Vec<Entry>, attributes: &Attributes, time: i64, ids: Ids) -> Result<(), Failure> {
    for entry in entries.iter_mut().rev() {
        apply(attributes, entry);
        let full = within(tree, &entry.path);
        let set = || -> io::Result<()> {
            if ids == Ids::Full {
                let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
                chownat(CWD, &full, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if !matches!(entry.kind, Kind::Symlink { .. }) {
                // After the owner: changing that takes setuid bits and capabilities away.
                chmodat(CWD, &full, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
            }
            entry.xattrs.iter().try_for_each(|(name, value)| set_xattr(&full, name, value))?;
            set_mtime(&full, Time::from_seconds(time))
        };
        set().map_err(|error| machine("stage", &entry.path, error))?;
    }
    Ok(())
}

/// Copies a file or a tree; every hard link becomes a file of its own. The answer says what was copied.
fn copy(from: &Path, to: &Path) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    describe(from, b"", &mut entries)?;
    for entry in &mut entries {
        let (source, target) = (within(from, &entry.path), within(to, &entry.path));
        let made = match &mut entry.kind {
            Kind::Directory { .. } => fs::create_dir(&target),
            Kind::Symlink { target: text } => std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(text), &target),
            Kind::Fifo => nix::unistd::mkfifo(&target, nix::sys::stat::Mode::S_IRWXU).map_err(io::Error::from),
            Kind::File { size, content } => copy_file(&source, &target).map(|found| (*content, *size) = found),
            Kind::HardLink { .. } | Kind::Whiteout => Ok(()),
        };
        made.map_err(|error| machine("copy", &entry.path, error))?;
    }
    Ok(entries)
}

fn copy_file(from: &Path, to: &Path) -> io::Result<(crate::digest::ContentDigest, u64)> {
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        io::copy(&mut source, &mut target)?;
    }
    hash_file(File::open(to)?)
}

/// What stands at `tree` and below it, directories before what is in them. Contents are not read here.
pub(super) fn describe(tree: &Path, path: &[u8], entries: &mut Vec<Entry>) -> Result<(), Failure> {
    let full = within(tree, path);
    let failed = |error| machine("read", path, error);
    let stat = stat(&full).map_err(failed)?;
    use rustix::fs::FileType;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory { opaque: false },
        FileType::RegularFile => {
            Kind::File { size: stat.st_size as u64, content: crate::digest::ContentDigest([0; 32]) }
        }
        FileType::Symlink => {
            Kind::Symlink { target: fs::read_link(&full).map_err(failed)?.as_os_str().as_bytes().to_vec() }
        }
        FileType::Fifo => Kind::Fifo,
        _ => return Err(users("copy", path, "is a device or a socket, which cannot be copied")),
    };
    let directory = matches!(kind, Kind::Directory { .. });
    let attributes = xattrs(&full).map_err(failed)?.kept;
    let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
    entries.push(Entry { path: path.to_vec(), kind, mode, uid, gid, mtime: mtime(&stat), xattrs: attributes });
    if directory {
        for item in fs::read_dir(&full).map_err(failed)? {
            let name = item.map_err(failed)?.file_name();
            describe(tree, &join(path, name.as_bytes()), entries)?;
        }
    }
    Ok(())
}
