//! File systems in loop files, for as long as they are held.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a store needs at most in a test; the file is sparse.
const BYTES: u64 = 16 << 30;

/// One of btrfs.
pub struct Volume {
    image: PathBuf,
    /// Where it is mounted.
    pub path: PathBuf,
}

impl Volume {
    /// Makes it beside `path` and mounts it there, so that whoever owns a subvolume may destroy it. For root.
    pub fn create(path: PathBuf) -> Volume {
        let image = path.with_extension("img");
        File::create(&image).unwrap().set_len(BYTES).unwrap();
        fs::create_dir(&path).unwrap();
        run("mkfs.btrfs", &["-q", "-K", image.to_str().unwrap()]);
        let volume = Volume { image, path };
        volume.mount();
        volume
    }

    /// Mounts it again.
    pub fn mount(&self) {
        let options = "loop,user_subvol_rm_allowed,noatime,nodiscard";
        run("mount", &["-o", options, self.image.to_str().unwrap(), self.path.to_str().unwrap()]);
    }

    /// Takes it away, as a reboot does.
    pub fn unmount(&self) {
        run("umount", &[self.path.to_str().unwrap()]);
    }

    /// The subvolumes in it, by path.
    pub fn subvolumes(&self) -> Vec<String> {
        let output = Command::new("btrfs").args(["subvolume", "list", "-o"]).arg(&self.path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut paths: Vec<String> =
            text.lines().filter_map(|line| line.split(" path ").nth(1)).map(str::to_owned).collect();
        paths.sort();
        paths
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // It may be unmounted already.
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        let _ = fs::remove_file(&self.image);
        let _ = fs::remove_dir(&self.path);
    }
}

/// One of ext4, small enough to be filled.
pub struct SmallDisk {
    image: PathBuf,
    /// Where it is mounted.
    pub path: PathBuf,
}

impl SmallDisk {
    /// Makes it beside `path`, a directory, and mounts it there. For root.
    pub fn create(path: PathBuf, bytes: u64, inodes: u32) -> SmallDisk {
        let image = path.with_extension("img");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", "-N", &inodes.to_string(), image.to_str().unwrap()]);
        fs::create_dir_all(&path).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), path.to_str().unwrap()]);
        fs::remove_dir(path.join("lost+found")).unwrap();
        SmallDisk { image, path }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        let _ = fs::remove_file(&self.image);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether files beneath this path lie on btrfs.
pub fn is_btrfs(path: &Path) -> bool {
    stacker::store::is_btrfs(path)
}
