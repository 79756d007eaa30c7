//! A btrfs in a file, mounted where the store of layers is.
//!
//! The file is allocated as a whole: with a sparse one, a full host file system would turn the btrfs read-only in the
//! middle of a build. For the same reason nothing is discarded, neither by mkfs nor by the mount.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use nix::fcntl::posix_fallocate;

use crate::digest::ContentDigest;
use crate::error::{At, Error, Result};
use crate::store::is_btrfs;

use super::{Builder, Done, HOME, Setup, run};

/// How it is mounted.
pub(super) const OPTIONS: &str = "loop,user_subvol_rm_allowed,noatime,nodiscard";
/// btrfs makes no smaller one.
const SMALLEST: u64 = 110 << 20;

impl Setup {
    pub(super) fn volume(&mut self, roots: &Path, size: u64, builder: &Builder) -> Result<()> {
        if is_btrfs(roots) {
            println!("{} is on btrfs already", roots.display());
            return Ok(());
        }
        if fs::read_dir(roots).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::Usage(format!(
                "{} holds a store already: remove it with `stacker clean --all`, or say another --roots-dir",
                roots.display()
            )));
        }
        if size < SMALLEST {
            return Err(Error::Usage(format!("--size: a btrfs has at least {}", ByteSize::b(SMALLEST))));
        }
        let file = file_of(roots);
        self.make_file(&file, size)?;
        let (file, at) = (file.to_string_lossy(), roots.to_string_lossy());
        if self.step(&format!("mount {file} at {at} ({OPTIONS})")) {
            make_directories(roots, builder)?;
            self.note(Done::Mount { roots: roots.to_path_buf() })?;
            run("mount", &["-t", "btrfs", "-o", OPTIONS, &file, &at], "mount")?;
            chown(roots, Some(builder.uid), Some(builder.gid)).at("chown", roots)?;
            fs::set_permissions(roots, fs::Permissions::from_mode(0o700)).at("set the mode of", roots)?;
        }
        self.remember(&file, &at)
    }

    /// Made under another name: a file that is there has its btrfs.
    fn make_file(&mut self, file: &Path, size: u64) -> Result<()> {
        if file.exists() {
            println!("{} is there already", file.display());
            return Ok(());
        }
        if !self.step(&format!("make {} of {} with a btrfs in it", file.display(), ByteSize::b(size))) {
            return Ok(());
        }
        fs::create_dir_all(HOME).at("create", HOME)?;
        self.note(Done::Volume { file: file.to_path_buf() })?;
        let made = file.with_extension("new");
        let made_whole = allocate(&made, size)
            .and_then(|()| run("mkfs.btrfs", &["-q", "-f", "-K", &made.to_string_lossy()], "btrfs-progs"))
            .and_then(|()| fs::rename(&made, file).at("rename to", file));
        if made_whole.is_err() {
            // The error says more than that this failed too.
            let _ = fs::remove_file(&made);
        }
        made_whole
    }

    pub(super) fn unmount(&self, roots: &Path) -> Result<()> {
        if !self.step(&format!("unmount {}, with all layers in it", roots.display())) || !is_btrfs(roots) {
            return Ok(());
        }
        run("umount", &[&roots.to_string_lossy()], "mount")?;
        // Its place is left where it cannot be removed.
        let _ = fs::remove_dir(roots);
        Ok(())
    }
}

/// One for each place.
fn file_of(roots: &Path) -> PathBuf {
    let name = ContentDigest::of(roots.as_os_str().as_encoded_bytes()).short();
    Path::new(HOME).join(format!("{name}.img"))
}

fn allocate(path: &Path, size: u64) -> Result<()> {
    let file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).at("create", path)?;
    posix_fallocate(&file, 0, size as i64).map_err(std::io::Error::from).map_err(|error| {
        let size = ByteSize::b(size);
        Error::Machine(format!("cannot allocate {size} for {}: {error}; say a smaller --size", path.display()))
    })
}

/// The directories that lead to the store belong to its user, as those of its builds would.
fn make_directories(roots: &Path, builder: &Builder) -> Result<()> {
    let missing: Vec<&Path> = roots.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        fs::create_dir(path).at("create", path)?;
        chown(path, Some(builder.uid), Some(builder.gid)).at("chown", path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at("set the mode of", path)?;
    }
    Ok(())
}
