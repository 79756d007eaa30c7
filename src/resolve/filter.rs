//! What is never part of an import: stacker's own directories, and what `.stackerignore` names.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::Stat;

use super::broken;
use super::walk::Wanted;
use crate::error::{Error, Result};
use crate::regular;

/// The file at the root of an imported directory that says what of it is not imported.
pub(super) const IGNORE_FILE: &str = ".stackerignore";

/// stacker's own directories.
#[derive(Debug)]
pub(super) struct Own {
    paths: Vec<PathBuf>,
    /// Device and inode: a path with links in it leads to the same directory.
    ids: HashSet<(u64, u64)>,
}

impl Own {
    pub fn new(paths: Vec<PathBuf>) -> Own {
        let found = paths.iter().filter_map(|path| fs::metadata(path).ok());
        let ids = found.map(|dir| (dir.dev(), dir.ino())).collect();
        Own { paths, ids }
    }
}

/// What the walk of one tree leaves out.
pub(super) struct Filter<'a> {
    own: &'a Own,
    root: PathBuf,
    ignored: Gitignore,
    wanted: Wanted,
}

impl<'a> Filter<'a> {
    /// Reads the ignore file, if the tree has one and it counts.
    pub fn new(root: &Path, own: &'a Own, wanted: Wanted) -> Result<Filter<'a>> {
        let absolute = std::path::absolute(root).map_err(|error| broken("resolve", root, &error))?;
        let ignored = match wanted {
            Wanted::Import => read_ignore_file(root)?,
            Wanted::All => Gitignore::empty(),
        };
        Ok(Filter { own, root: absolute, ignored, wanted })
    }

    /// What is walked.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Whether the directory is one of stacker's own.
    pub fn is_own(&self, relative: &[u8], stat: &Stat) -> bool {
        self.own.ids.contains(&(stat.st_dev, stat.st_ino))
            || self.own.paths.contains(&self.root.join(OsStr::from_bytes(relative)))
    }

    /// Whether `.stackerignore` names this path, or is it.
    pub fn is_ignored(&self, relative: &[u8], is_dir: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(relative));
        if self.wanted == Wanted::All {
            return false;
        }
        (!is_dir && relative == IGNORE_FILE.as_bytes()) || self.ignored.matched(path, is_dir).is_ignore()
    }
}

/// What the ignore file of an imported directory leaves out of it.
pub struct Ignored {
    root: PathBuf,
    ignored: Gitignore,
}

impl Ignored {
    /// Of what is imported from a path of the host.
    pub fn of(root: &Path) -> Result<Ignored> {
        Ok(Ignored { root: root.to_path_buf(), ignored: read_ignore_file(root)? })
    }

    /// Whether a path at or below the root is left out, or was when it was there. What the ignore file itself says is
    /// not left out: it decides what is.
    pub fn leaves_out(&self, path: &Path) -> bool {
        match path.strip_prefix(&self.root) {
            Ok(relative) if relative.as_os_str().is_empty() || relative == Path::new(IGNORE_FILE) => false,
            Ok(relative) => self.ignored.matched_path_or_any_parents(relative, path.is_dir()).is_ignore(),
            Err(_) => false,
        }
    }
}

/// More is no list of patterns.
const LONGEST: u64 = 16 << 20;

fn read_ignore_file(root: &Path) -> Result<Gitignore> {
    let path = root.join(IGNORE_FILE);
    let mut text = Vec::new();
    let wrong = |why: String| Error::Build(format!("{}: {why}", path.display()));
    match regular::open(&path) {
        Ok(Some(file)) => file.take(LONGEST + 1).read_to_end(&mut text),
        Ok(None) => return Ok(Gitignore::empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Gitignore::empty()),
        Err(error) => Err(error),
    }
    .map_err(|error| broken("read", &path, &error))?;
    if text.len() as u64 > LONGEST {
        return Err(wrong(format!("it has more than {} MiB", LONGEST >> 20)));
    }
    let text = String::from_utf8(text).map_err(|_| wrong("not UTF-8".to_owned()))?;
    let mut builder = GitignoreBuilder::new("");
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        builder.add_line(None, line).map_err(|error| wrong(format!("line {}: {error}", number + 1)))?;
    }
    builder.build().map_err(|error| wrong(error.to_string()))
}
