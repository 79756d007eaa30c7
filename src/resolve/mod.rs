//! What a build imports from the host, by digest; and how it gets into the store.
//!
//! A tree is walked on every build (`walk`), but a file is read only where its stat list (`stat_list`) cannot vouch
//! for it. Entries are root's, without attributes and times; their modes are normalised, or the host's. Staging
//! (`stage`) walks and hashes again what it copies, so that what a step sees is what its key says. Nothing here knows
//! layers, keys or where stat lists are kept.

mod bound;
mod filter;
mod keep;
mod stage;
mod stat_list;
mod walk;

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use rustix::fs::OFlags;

use crate::digest::TreeDigest;
use crate::error::{Error, Result};
use crate::listing::{Entry, Time, tree_digest};
use crate::names::KnownNames;
use crate::stamp::{self, Stamp};
pub use filter::Ignored;
use filter::Own;
use stat_list::{Known, Record, What};
use walk::{Found, Seen, Wanted};

pub use bound::{Bound, Look, Owners, list_path, shown};
pub use keep::{digests_of, keep_tree_listing, sha256_file, sha256_of};
pub use stage::stage;

/// What of the host's modes a tree has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Modes {
    /// The owner's execute bit of files: 0755, else 0644. Directories are 0755.
    Normalised,
    /// All of them.
    Host,
}

impl Modes {
    fn of_file(self, mode: u32) -> u32 {
        match self {
            Modes::Normalised if mode & 0o100 != 0 => 0o755,
            Modes::Normalised => 0o644,
            Modes::Host => mode,
        }
    }

    fn of_directory(self, mode: u32) -> u32 {
        match self {
            Modes::Normalised => 0o755,
            Modes::Host => mode,
        }
    }
}

/// A path of the host, and as what it is looked at: with other modes it is another tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath {
    /// Absolute, without a trailing slash.
    pub path: PathBuf,
    /// What of its modes counts.
    pub modes: Modes,
}

impl HostPath {
    /// With normalised modes.
    pub fn normalised(path: PathBuf) -> HostPath {
        HostPath { path, modes: Modes::Normalised }
    }

    /// The path by which its stat list is kept: with the host's modes it ends in a slash.
    pub fn list_path(&self) -> PathBuf {
        match self.modes {
            Modes::Normalised => self.path.clone(),
            Modes::Host => self.path.join(""),
        }
    }
}

/// A file or directory of the host, as an import sees it.
#[derive(Clone, Debug)]
pub struct HostTree {
    /// What it is.
    pub digest: TreeDigest,
    root: Entry,
    list: Vec<u8>,
    own: Arc<Own>,
    modes: Modes,
}

impl HostTree {
    /// The file or directory itself; its path is empty.
    pub fn root(&self) -> &Entry {
        &self.root
    }

    /// All entries in order. They are decoded here: a build that changes nothing never needs them.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        stat_list::entries(&self.list).ok_or_else(|| Error::Machine(format!("the list of tree {} broke", self.digest)))
    }

    /// Keeps the tree's listing, so that a later build can say which files changed. Nearly free when it is there.
    pub fn keep_listing(&self, dir: &crate::place::StackerDir) -> Result<()> {
        if dir.tree_listing(&self.digest).exists() {
            return Ok(());
        }
        keep_tree_listing(dir, &self.digest, &self.entries()?)
    }
}

/// What looking at a host path yields.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What is there.
    pub tree: HostTree,
    /// The device of the path itself (of the link, if it is one): stat lists are kept by path and device.
    pub device: u64,
    /// The stat list to keep, if the old one can be improved on.
    pub stat_list: Option<Vec<u8>>,
}

/// Finds out what host paths hold.
#[derive(Clone, Debug)]
pub struct Resolver<'n> {
    own: Arc<Own>,
    most: u64,
    known: Cow<'n, KnownNames>,
}

impl<'n> Resolver<'n> {
    /// `exclude`: stacker's own directories, absolute; they are never part of a tree.
    pub fn new(exclude: Vec<PathBuf>) -> Resolver<'n> {
        Resolver { own: Arc::new(Own::new(exclude)), most: u64::MAX, known: Cow::Owned(KnownNames::default()) }
    }

    /// Refuses trees whose files have more bytes than this, before it reads any of them.
    pub fn at_most(self, most: u64) -> Resolver<'n> {
        Resolver { most, ..self }
    }

    /// With what directories hold that were read before.
    pub fn knowing(self, names: &'n KnownNames) -> Resolver<'n> {
        Resolver { known: Cow::Borrowed(names), ..self }
    }

    /// The tree at `path` with normalised modes.
    pub fn tree(&self, path: &Path, list: Option<&[u8]>) -> Result<Resolved> {
        self.look(&HostPath::normalised(path.to_path_buf()), list)
    }

    /// The tree, reading only the files that `list` (of an earlier look at the same) cannot vouch for. What keeps the
    /// host's modes must be a directory. What is wrong with the path is the user's to mend: [`Error::Build`].
    pub fn look(&self, HostPath { path, modes }: &HostPath, list: Option<&[u8]>) -> Result<Resolved> {
        let modes = *modes;
        let device = fs::symlink_metadata(path).map_err(|error| broken("look at", path, &error))?.dev();
        let seen = walk::walk(path, &self.own, Wanted::Import, &self.known)?;
        if modes == Modes::Host && !matches!(seen[0].found, Found::Directory { .. }) {
            return Err(Error::Build(format!("{} is not a directory, as `overlay_dirs` needs", path.display())));
        }
        if walk::size(&seen) > self.most {
            return Err(Error::Build(crate::unpack::oversized(&path.display().to_string(), self.most)));
        }
        let (tree, stat_list) = self.judge(path, modes, &seen.iter().collect::<Vec<_>>(), list)?;
        Ok(Resolved { tree, device, stat_list })
    }

    /// The tree of what was seen, and the stat list to keep, if the old one can be improved on.
    fn judge(
        &self,
        path: &Path,
        modes: Modes,
        seen: &[&Seen],
        list: Option<&[u8]>,
    ) -> Result<(HostTree, Option<Vec<u8>>)> {
        let mut known = Known::read(list);
        let pairs: Vec<(&Seen, Option<Record>)> = seen.iter().map(|&seen| (seen, known.find(&seen.path))).collect();
        let vouched = pairs.iter().all(|(seen, old)| old.is_some_and(|old| vouches(&old, seen, modes)));
        if let (true, Some(list), Some(digest)) = (vouched && known.len() == seen.len(), list, known.digest()) {
            let tree = self.host_tree(digest, modes, pairs.iter().filter_map(|(_, old)| *old), list.to_vec())?;
            return Ok((tree, None));
        }
        let records =
            pairs.par_iter().map(|(seen, old)| record(path, seen, *old, modes)).collect::<Result<Vec<_>>>()?;
        let improved = known.len() != seen.len()
            || records.iter().zip(&pairs).any(|(new, (_, old))| old.is_none_or(|old| new.improves_on(&old)));
        let entries: Vec<Entry> = records.iter().map(Record::entry).collect();
        let digest = tree_digest(&entries);
        let list = stat_list::encode(&digest, &records);
        let stat_list = improved.then(|| list.clone());
        let tree = self.host_tree(digest, modes, records.iter().copied(), list)?;
        Ok((tree, stat_list))
    }

    fn host_tree<'a>(
        &self,
        digest: TreeDigest,
        modes: Modes,
        mut records: impl Iterator<Item = Record<'a>>,
        list: Vec<u8>,
    ) -> Result<HostTree> {
        let root = records.next().ok_or_else(|| Error::Machine(format!("tree {digest} is empty")))?.entry();
        Ok(HostTree { digest, root, list, own: self.own.clone(), modes })
    }
}

/// Whether a record still says what is there. Directories are known by their names and modes and links by their texts,
/// all of which the walk has just read.
fn vouches(old: &Record, seen: &Seen, modes: Modes) -> bool {
    match (&old.what, &seen.found) {
        (What::Directory { mode }, Found::Directory { mode: found }) => *mode == modes.of_directory(*found),
        (What::Symlink { target }, Found::Symlink { target: found }) => target == found,
        (What::File { mode, stamp, .. }, Found::File { mode: found, stamp: now }) => {
            stamp == now && *mode == modes.of_file(*found) && old.is_settled()
        }
        _ => false,
    }
}

/// The record of what was seen: the old one where it can be trusted, else one made by reading the file.
fn record<'a>(root: &Path, seen: &'a Seen, old: Option<Record<'a>>, modes: Modes) -> Result<Record<'a>> {
    if let Some(old) = old.filter(|old| vouches(old, seen, modes)) {
        return Ok(old);
    }
    let what = match &seen.found {
        Found::Directory { mode } => What::Directory { mode: modes.of_directory(*mode) },
        Found::Symlink { target } => What::Symlink { target },
        Found::File { .. } | Found::Node(_) => {
            let path = seen.below(root);
            read(&path, &seen.path, modes).map_err(|error| broken("read", &path, &error))?
        }
    };
    Ok(Record { path: &seen.path, what })
}

/// Hashes a file. The moment is taken before it is opened and the stamp after, so that a write during the reading
/// leaves a stamp that is not yet settled, or another one.
fn read(path: &Path, relative: &[u8], modes: Modes) -> io::Result<What<'static>> {
    let before = stamp::now();
    let file = open(path, relative)?;
    let stat = rustix::fs::fstat(&file)?;
    let moment = if stamp::is_local(&file) { before } else { Time { seconds: before.seconds - REMOTE_SKEW, ..before } };
    let (content, size) = crate::seal::hash_file(file)?;
    let stamp = Stamp { size, ..Stamp::of(&stat) };
    let mode = modes.of_file(walk::permissions(&stat));
    Ok(What::File { mode, stamp, moment, content })
}

/// Opens what the walk said is a regular file, and makes sure that it still is one. Only the root may be a link.
fn open(path: &Path, relative: &[u8]) -> io::Result<File> {
    let follow = if relative.is_empty() { OFlags::empty() } else { OFlags::NOFOLLOW };
    // Without NONBLOCK, opening a fifo that has taken the file's place would wait forever.
    let flags = follow | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no longer a file")),
    }
}

/// How far a server's clock may be behind ours, in seconds.
const REMOTE_SKEW: i64 = 60;

/// The user's import cannot be had.
fn broken(doing: &str, path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::Build(format!("{} does not exist", path.display())),
        _ => Error::Build(format!("cannot {doing} {}: {error}", path.display())),
    }
}
