//! Archives unpacked for a look at what came of them.

use std::fs::{self, symlink_metadata as stat};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use stacker::listing::Stack;
use stacker::seal::Marks;
use stacker::unpack::{MAX_LAYER_SIZE, Whiteouts, unpack_onto};
use stacker::worker::message::Failure;

use super::archive::Archive;

/// An archive that was unpacked, beside something that must not be reached.
pub struct Unpacked {
    space: tempfile::TempDir,
    pub warnings: Vec<String>,
}

impl Unpacked {
    pub fn of(tar: impl Read, whiteouts: Whiteouts) -> Result<Unpacked, Failure> {
        Unpacked::at_most(MAX_LAYER_SIZE, tar, whiteouts)
    }

    pub fn at_most(most: u64, tar: impl Read, whiteouts: Whiteouts) -> Result<Unpacked, Failure> {
        let space = tempfile::tempdir().unwrap();
        // Beside the root: what must never be reached.
        fs::write(space.path().join("outside"), "untouched").unwrap();
        fs::create_dir(space.path().join("root")).unwrap();
        let result = unpack_onto(tar, &space.path().join("root"), whiteouts, &Stack::default(), most, None);
        assert_eq!(fs::read(space.path().join("outside")).unwrap(), b"untouched");
        let beside: Vec<_> = fs::read_dir(space.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 2, "something was made outside: {beside:?}");
        let mut unpacked = Unpacked { warnings: Vec::new(), space };
        unpacked.warnings = result?;
        Ok(unpacked)
    }

    pub fn path(&self, name: impl AsRef<std::ffi::OsStr>) -> std::path::PathBuf {
        self.space.path().join("root").join(Path::new(name.as_ref()))
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn xattr(&self, name: &str, attribute: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(self.path(name), attribute, &mut value[..]).ok()?;
        Some(value[..length].to_vec())
    }

    pub fn is_whiteout(&self, name: &str) -> bool {
        stat(self.path(name)).is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
    }

    pub fn is_opaque(&self, name: &str) -> bool {
        self.xattr(name, "user.overlay.opaque").as_deref() == Some(b"y")
    }
}

impl Drop for Unpacked {
    /// Some are deeper than the standard library can remove.
    fn drop(&mut self) {
        let _ = std::process::Command::new("rm").arg("-rf").arg(self.space.path().join("root")).status();
    }
}

pub fn base(archive: Archive) -> Unpacked {
    Unpacked::of(&archive.end()[..], Whiteouts::Literal).unwrap_or_else(|failure| panic!("{failure:?}"))
}

pub fn layer(archive: Archive) -> Unpacked {
    Unpacked::of(&archive.end()[..], Whiteouts::Oci(Marks::Overlayfs)).unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// The failure is the archive's fault and says `why`.
pub fn refused(archive: Archive, why: &str) {
    refused_bytes(&archive.end(), why);
}

pub fn refused_bytes(tar: &[u8], why: &str) {
    match Unpacked::of(tar, Whiteouts::Literal) {
        Ok(_) => panic!("unpacked, though: {why}"),
        Err(failure) => {
            let text = format!("{}: {}", failure.step, failure.message);
            assert!(failure.users, "blames the machine: {text}");
            assert!(text.contains(why), "{text:?} does not say {why:?}");
        }
    }
}
