//! Walking a host tree: every name with what lstat says, sorted as listings are. Opens directories, never files.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::broken;
use super::filter::{Filter, Own};
use super::stat_list::Stamp;
use crate::action::NodeKind;
use crate::error::{Error, Result};
use crate::listing::{join, split};

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
    fn new(path: Vec<u8>, found: Found, metadata: &Metadata) -> Seen {
        Seen { path, found, owner: (metadata.uid(), metadata.gid()), stamp: Stamp::of(metadata) }
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

/// All that is at and below `root`, in listing order. A link at `root` itself is followed.
pub(super) fn walk(root: &Path, own: &Own, wanted: Wanted) -> Result<Vec<Seen>> {
    let metadata = fs::metadata(root).map_err(|error| match fs::read_link(root) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => {
            Error::Build(format!("{} is a link to {}, which does not exist", root.display(), target.display()))
        }
        _ => broken("look at", root, &error),
    })?;
    if !metadata.is_dir() {
        return Ok(vec![Seen::new(vec![], found(root, &metadata, wanted)?, &metadata)]);
    }
    let filter = Filter::new(root, own, wanted)?;
    if filter.is_own(b"", &metadata) {
        return Err(Error::Build(format!("{} is stacker's own directory", root.display())));
    }
    let found = Found::Directory { mode: permissions(&metadata) };
    let mut seen = vec![Seen::new(vec![], found, &metadata)];
    seen.extend(beneath(root, &filter)?);
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

/// All that is below the root. Level by level, since a tree may be deeper than a thread's stack.
fn beneath(root: &Path, filter: &Filter) -> Result<Vec<Seen>> {
    let mut directories: Vec<Vec<u8>> = vec![vec![]];
    let mut levels = Vec::new();
    while !directories.is_empty() {
        let lists: Vec<Vec<Seen>> =
            directories.par_iter().map(|path| directory(root, path, filter)).collect::<Result<_>>()?;
        let below = lists.iter().flatten().filter(|seen| matches!(seen.found, Found::Directory { .. }));
        directories = below.map(|seen| seen.path.clone()).collect();
        levels.push(lists.into_iter());
    }
    Ok(in_order(levels))
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

/// The names in one directory, sorted.
fn directory(root: &Path, relative: &[u8], filter: &Filter) -> Result<Vec<Seen>> {
    let place = below(root, relative);
    let list = || fs::read_dir(&place)?.collect::<io::Result<Vec<DirEntry>>>();
    let names = list().map_err(|error| broken("list", &place, &error))?;
    let looked = names.into_par_iter().with_min_len(64).map(|name| look(root, relative, &name, filter));
    let mut children: Vec<Seen> = looked.filter_map(Result::transpose).collect::<Result<_>>()?;
    children.sort_unstable_by(|a, b| split(&a.path).1.cmp(split(&b.path).1));
    Ok(children)
}

/// One name of a directory; `None` when it is not imported, or has just gone.
fn look(root: &Path, directory: &[u8], name: &DirEntry, filter: &Filter) -> Result<Option<Seen>> {
    let path = join(directory, &name.file_name().into_vec());
    let metadata = match name.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(broken("look at", &below(root, &path), &error)),
    };
    if filter.is_ignored(&path, metadata.is_dir()) || (metadata.is_dir() && filter.is_own(&path, &metadata)) {
        return Ok(None);
    }
    let found = match metadata.is_dir() {
        true => Found::Directory { mode: permissions(&metadata) },
        false => found(&below(root, &path), &metadata, filter.wanted())?,
    };
    Ok(Some(Seen::new(path, found, &metadata)))
}

fn found(path: &Path, metadata: &Metadata, wanted: Wanted) -> Result<Found> {
    let kind = metadata.file_type();
    let special = match () {
        _ if kind.is_file() => {
            return Ok(Found::File { mode: permissions(metadata), stamp: Stamp::of(metadata) });
        }
        _ if kind.is_symlink() => {
            let target = fs::read_link(path).map_err(|error| broken("read the link", path, &error))?;
            return Ok(Found::Symlink { target: target.into_os_string().into_vec() });
        }
        _ if kind.is_fifo() => (NodeKind::Fifo, "a fifo"),
        _ if kind.is_socket() => (NodeKind::Socket, "a socket"),
        _ if kind.is_char_device() => (NodeKind::Character, "a device"),
        _ => (NodeKind::Block, "a device"),
    };
    if wanted == Wanted::All {
        return Ok(Found::Node(special.0));
    }
    let special = special.1;
    Err(Error::Build(format!("cannot import {}: it is {special}", path.display())))
}

/// The permission bits, as the host has them.
pub(super) fn permissions(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}
