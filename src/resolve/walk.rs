//! Walking a host tree: every name with what lstat says, sorted as listings are. Opens directories, never files.

use std::ffi::CStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::broken;
use super::filter::{Filter, Own};
use crate::action::NodeKind;
use crate::error::{Error, Result};
use crate::listing::{join, split};
use crate::names::{KnownNames, Opened};
use crate::stamp::Stamp;

/// A name in a tree.
pub(super) struct Seen {
    /// Relative to the root, whose own path is empty.
    pub path: Vec<u8>,
    /// What stands there.
    pub found: Found,
    /// Owner and group on the host.
    pub owner: (u32, u32),
    /// What a write to it changes.
    pub stamp: Stamp,
}

/// What the walk can say of a name.
pub(super) enum Found {
    Directory {
        mode: u32,
    },
    File {
        mode: u32,
        stamp: Stamp,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// Only where all is wanted.
    Node(NodeKind),
}

/// What is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What an import brings: neither what its ignore file names nor sockets and their like, which are refused.
    Import,
    /// All of it but stacker's own directories.
    All,
}

impl Seen {
    fn new(path: Vec<u8>, found: Found, stat: &Stat) -> Seen {
        Seen { path, found, owner: (stat.st_uid, stat.st_gid), stamp: Stamp::of(stat) }
    }

    /// Where it is.
    pub fn below(&self, root: &Path) -> PathBuf {
        below(root, &self.path)
    }
}

/// `root/relative`; the root itself without a slash behind it.
pub(super) fn below(root: &Path, relative: &[u8]) -> PathBuf {
    match relative.is_empty() {
        true => root.to_path_buf(),
        false => root.join(std::ffi::OsStr::from_bytes(relative)),
    }
}

/// All that is at and below `root`, in listing order. A link at `root` itself is followed. Names that are `known` are not
/// read again.
pub(super) fn walk(root: &Path, own: &Own, wanted: Wanted, known: &KnownNames) -> Result<Vec<Seen>> {
    let stat = rustix::fs::stat(root).map_err(|error| match fs::read_link(root) {
        Ok(target) if error == Errno::NOENT => {
            Error::Build(format!("{} is a link to {}, which does not exist", root.display(), target.display()))
        }
        _ => broken("look at", root, &error.into()),
    })?;
    if !is_dir(&stat) {
        return Ok(vec![Seen::new(vec![], found(root, &stat, wanted)?, &stat)]);
    }
    let filter = Filter::new(root, own, wanted)?;
    if filter.is_own(b"", &stat) {
        return Err(Error::Build(format!("{} is stacker's own directory", root.display())));
    }
    let found = Found::Directory { mode: permissions(&stat) };
    let mut seen = vec![Seen::new(vec![], found, &stat)];
    seen.extend(Walk { root, filter: &filter, known }.beneath()?);
    Ok(seen)
}

/// Bytes of all files, their holes included.
pub(super) fn size(seen: &[Seen]) -> u64 {
    let size = |seen: &Seen| match &seen.found {
        Found::File { stamp, .. } => stamp.size,
        Found::Directory { .. } | Found::Symlink { .. } | Found::Node(_) => 0,
    };
    seen.iter().map(size).fold(0, u64::saturating_add)
}

/// A walk of a directory.
struct Walk<'a> {
    root: &'a Path,
    filter: &'a Filter<'a>,
    known: &'a KnownNames,
}

impl Walk<'_> {
    /// All that is below the root. Level by level, since a tree may be deeper than a thread's stack.
    fn beneath(&self) -> Result<Vec<Seen>> {
        let mut directories: Vec<Vec<u8>> = vec![vec![]];
        let mut levels = Vec::new();
        while !directories.is_empty() {
            let lists: Vec<Vec<Seen>> =
                directories.par_iter().map(|path| self.directory(path)).collect::<Result<_>>()?;
            let below = lists.iter().flatten().filter(|seen| matches!(seen.found, Found::Directory { .. }));
            directories = below.map(|seen| seen.path.clone()).collect();
            levels.push(lists.into_iter());
        }
        Ok(in_order(levels))
    }

    /// The names in one directory, sorted.
    fn directory(&self, relative: &[u8]) -> Result<Vec<Seen>> {
        let place = below(self.root, relative);
        let opened = self.known.open(&place, relative.is_empty());
        let opened = opened.map_err(|error| broken("list", &place, &error.into()))?;
        let names: Vec<&CStr> = opened.names().map(|name| name.name).collect();
        let looked = names.par_iter().with_min_len(64).map(|name| self.look(relative, &opened, name));
        let mut children: Vec<Seen> = looked.filter_map(Result::transpose).collect::<Result<_>>()?;
        children.sort_unstable_by(|a, b| split(&a.path).1.cmp(split(&b.path).1));
        Ok(children)
    }

    /// One name of a directory; `None` when it is not imported, or has just gone.
    fn look(&self, directory: &[u8], opened: &Opened, name: &CStr) -> Result<Option<Seen>> {
        let path = join(directory, name.to_bytes());
        let stat = match opened.lstat(name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(broken("look at", &below(self.root, &path), &error.into())),
        };
        let is_dir = is_dir(&stat);
        if self.filter.is_ignored(&path, is_dir) || (is_dir && self.filter.is_own(&path, &stat)) {
            return Ok(None);
        }
        let found = match is_dir {
            true => Found::Directory { mode: permissions(&stat) },
            false => found(&below(self.root, &path), &stat, self.filter.wanted())?,
        };
        Ok(Some(Seen::new(path, found, &stat)))
    }
}

/// Puts each directory's names behind it. Those of one level are in the order in which they are met.
fn in_order(mut levels: Vec<std::vec::IntoIter<Vec<Seen>>>) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut open: Vec<std::vec::IntoIter<Seen>> = Vec::new();
    let mut list = |level: usize| levels.get_mut(level).and_then(Iterator::next).unwrap_or_default().into_iter();
    open.push(list(0));
    while let Some(names) = open.last_mut() {
        let Some(seen) = names.next() else {
            open.pop();
            continue;
        };
        let is_directory = matches!(seen.found, Found::Directory { .. });
        all.push(seen);
        if is_directory {
            open.push(list(open.len()));
        }
    }
    all
}

fn found(path: &Path, stat: &Stat, wanted: Wanted) -> Result<Found> {
    let special = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            return Ok(Found::File { mode: permissions(stat), stamp: Stamp::of(stat) });
        }
        FileType::Symlink => {
            let target = fs::read_link(path).map_err(|error| broken("read the link", path, &error))?;
            return Ok(Found::Symlink { target: target.into_os_string().into_vec() });
        }
        FileType::Fifo => (NodeKind::Fifo, "a fifo"),
        FileType::Socket => (NodeKind::Socket, "a socket"),
        FileType::CharacterDevice => (NodeKind::Character, "a device"),
        _ => (NodeKind::Block, "a device"),
    };
    if wanted == Wanted::All {
        return Ok(Found::Node(special.0));
    }
    let special = special.1;
    Err(Error::Build(format!("cannot import {}: it is {special}", path.display())))
}

/// The permission bits, as the host has them.
pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
