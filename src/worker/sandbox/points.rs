//! Mount points in a root filesystem that is mounted as it is: made in it, and taken away again.
//!
//! Afterwards it looks as if they had never been there, but for directories that the script has made its own.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ground::{Place, directory, file};
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
    /// Makes a place beneath `top`, with the directories that lead there, as far as they are not there.
    pub fn make(&mut self, top: &Path, place: &Place) -> io::Result<()> {
        let mut full = top.to_path_buf();
        let mut names = place.path.components().peekable();
        while let Some(name) = names.next() {
            full.push(name);
            let last = names.peek().is_none();
            match full.symlink_metadata() {
                // A link would lead out of it.
                Ok(found) if !last && !found.is_dir() => return Err(ErrorKind::NotADirectory.into()),
                Ok(_) => continue,
                Err(_) => {}
            }
            untouched(
                &full,
                || if last && !place.is_directory() { file(&full, b"", 0o644) } else { directory(&full) },
            )?;
            self.0.push(Made { looks: full.symlink_metadata()?, path: full.clone() });
        }
        Ok(())
    }

    /// Takes it all away.
    pub fn remove(self) -> io::Result<()> {
        for Made { path, looks } in self.0.into_iter().rev() {
            let found = match path.symlink_metadata() {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
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
