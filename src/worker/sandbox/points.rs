//! Mount points in a root filesystem that is mounted as it is: made in it, and taken away again.
//!
//! Afterwards it looks as if they had never been there, but for directories that the script has made its own.

use std::fs::{self, DirBuilder, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::seal::delta::{mtime, set_mtime, stat};

/// Something that was made, and how it looked.
struct Made {
    path: PathBuf,
    looks: Metadata,
}

/// What was made, in that order.
#[derive(Default)]
pub struct Points(Vec<Made>);

impl Points {
    /// Makes `path` beneath `top`, a directory or else a file, and the directories that lead there, as far as they are
    /// not there.
    pub fn make(&mut self, top: &Path, path: &Path, is_directory: bool) -> io::Result<()> {
        let mut full = top.to_path_buf();
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            full.push(name);
            let last = names.peek().is_none();
            match full.symlink_metadata() {
                // A link would lead out of it.
                Ok(found) if !last && !found.is_dir() => return Err(ErrorKind::NotADirectory.into()),
                Ok(_) => continue,
                Err(_) => {}
            }
            untouched(&full, || if last && !is_directory { file(&full, b"", 0o644) } else { directory(&full) })?;
            self.0.push(Made { looks: full.symlink_metadata()?, path: full.clone() });
        }
        Ok(())
    }

    /// Takes it all away.
    pub fn remove(self) -> io::Result<()> {
        for Made { path, looks } in self.0.into_iter().rev() {
            let found = match path.symlink_metadata() {
                Ok(found) => found,
                // The script has moved what leads there.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(error) => return Err(error),
            };
            let facts =
                |it: &Metadata| (it.dev(), it.ino(), it.mode(), it.uid(), it.gid(), it.mtime(), it.mtime_nsec());
            if facts(&found) != facts(&looks) {
                continue;
            }
            untouched(&path, || match if found.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) } {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
                other => other,
            })?;
        }
        Ok(())
    }
}

/// Does something to a name; its directory keeps the time that it has.
fn untouched(path: &Path, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let above = path.parent().unwrap_or(Path::new("."));
    let time = mtime(&stat(above)?);
    act()?;
    set_mtime(above, time)
}

/// One directory, 0755 whatever the umask is.
pub(super) fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

pub(super) fn file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))
}
