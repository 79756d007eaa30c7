//! How many bytes of their disks things hold, each by itself and together.
//!
//! Two things hold the same bytes where they have names of one inode, or files with the same extents (reflinks,
//! snapshots). Where the file system may have the latter, each file is asked for its extents; elsewhere the blocks of
//! inodes say all. What a file shares with none of what was measured it shares with something outside.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::sys::extents::{Extent, Taken, extents, taken};

/// Numbers of things, each once, in their order.
type Owners = Vec<u32>;

/// Bytes that certain things hold together, and nothing else does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// How many.
    pub bytes: u64,
    /// By the numbers that were given; at least one.
    pub owners: Vec<u32>,
    /// Something else than what was measured holds them too, such as a layout.
    pub outside: bool,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// All bytes, each in one group.
    pub groups: Vec<Group>,
    /// Bytes that the file system has of its own for them, where it does not count them to files. A btrfs does not tell
    /// whose its metadata is: each byte of data gets the same share of it.
    pub metadata: u64,
}

/// Something to be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// A file, or a directory with all beneath it.
    pub path: String,
    /// Whose it is: numbers that the caller gives.
    pub owners: Vec<u32>,
    /// A directory's own blocks alone, or all that is in it but what has this name.
    pub part: Part,
}

/// How much of a directory is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// All.
    All,
    /// The directory itself.
    Itself,
    /// All but one entry.
    AllBut(String),
}

/// How files of a file system are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Blocks of inodes.
    Blocks,
    /// Extents of files, blocks of all else.
    Extents,
    /// Extents of files; all else is metadata.
    Btrfs,
}

/// A file with several names.
struct Linked {
    held: Held,
    /// Names that it has and that were not met yet.
    elsewhere: u64,
    owners: BTreeSet<u32>,
}

/// What one inode holds.
enum Held {
    Blocks(u64),
    Extents(Vec<Extent>),
}

/// A piece of a disk that a file has, and maybe others.
struct Piece {
    start: u64,
    end: u64,
    owners: usize,
    shared: bool,
    outside: bool,
}

/// Collects what places hold.
pub struct Meter {
    way: Way,
    /// Known sets of owners, which pieces name by number.
    sets: Vec<Owners>,
    numbers: HashMap<Owners, usize>,
    alone: HashMap<usize, u64>,
    linked: HashMap<(u64, u64), Linked>,
    pieces: Vec<Piece>,
    /// Extents of files by inode number, time of change and size: in a snapshot they are those of the original.
    seen: HashMap<(u64, i64, i64, i64), Vec<Extent>>,
    /// How full the file system is, if it is a btrfs.
    taken: Option<Taken>,
    /// Bytes of files that lie among its metadata.
    inline: u64,
}

/// Places that no disk has, for what has none of its own.
const INLINE: u64 = 1 << 62;

/// Measures places beneath one directory, which lie on its file system. What is gone meanwhile, or may not be looked at,
/// counts as nothing.
pub fn measure(directory: &Path, places: &[Place]) -> Measured {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(top) = openat(CWD, directory, flags, Mode::empty()) else { return Measured::default() };
    let mut meter = Meter::new(&top);
    for place in places {
        let number = meter.number(place.owners.iter().copied().collect());
        let path = Path::new(&place.path);
        let added = match &place.part {
            Part::Itself => meter.look(&top, path, number).map(drop),
            Part::All => meter.add(&top, path, number, None),
            Part::AllBut(name) => meter.add(&top, path, number, Some(name)),
        };
        // What is not there holds nothing.
        added.unwrap_or_default();
    }
    meter.finish()
}

impl Meter {
    fn new(top: &OwnedFd) -> Meter {
        let way = match fstatfs(top).map(|found| found.filesystem_type()) {
            Ok(BTRFS_SUPER_MAGIC) => Way::Btrfs,
            Ok(XFS_SUPER_MAGIC) => Way::Extents,
            _ => Way::Blocks,
        };
        if way != Way::Blocks {
            // What is not written yet has no place. Should that fail, it is counted by its length.
            let _ = syncfs(top);
        }
        Meter {
            way,
            sets: Vec::new(),
            numbers: HashMap::new(),
            alone: HashMap::new(),
            linked: HashMap::new(),
            pieces: Vec::new(),
            seen: HashMap::new(),
            inline: 0,
            taken: if way == Way::Btrfs { taken(top).ok() } else { None },
        }
    }

    fn number(&mut self, owners: BTreeSet<u32>) -> usize {
        let owners: Owners = owners.into_iter().collect();
        if let Some(number) = self.numbers.get(&owners) {
            return *number;
        }
        self.sets.push(owners.clone());
        self.numbers.insert(owners, self.sets.len() - 1);
        self.sets.len() - 1
    }

    /// Adds a path with all beneath it, but for entries of it called `without`. One directory is open at a time, however
    /// deep it goes: the way back is `..`.
    fn add(&mut self, top: &OwnedFd, path: &Path, owners: usize, without: Option<&str>) -> Result<(), Errno> {
        if self.look(top, path, owners)? != FileType::Directory {
            return Ok(());
        }
        let mut here = open_directory(top, path)?;
        let mut pending = vec![self.directory(&here, owners, without)?];
        while let Some(names) = pending.last_mut() {
            match names.pop() {
                Some(name) => {
                    // Gone, or put out of the way.
                    let Ok(below) = open_directory(&here, &name) else { continue };
                    let Ok(names) = self.directory(&below, owners, None) else { continue };
                    here = below;
                    pending.push(names);
                }
                None => {
                    pending.pop();
                    if !pending.is_empty() {
                        here = open_directory(&here, "..")?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds what is in a directory; gives back the directories among it.
    fn directory(&mut self, at: &OwnedFd, owners: usize, without: Option<&str>) -> Result<Vec<Vec<u8>>, Errno> {
        let mut below = Vec::new();
        for entry in Dir::read_from(at)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || without.is_some_and(|without| name == without.as_bytes()) {
                continue;
            }
            if let Ok(FileType::Directory) = self.look(at, name, owners) {
                below.push(name.to_vec());
            }
        }
        Ok(below)
    }

    /// Adds one name.
    fn look(&mut self, at: &OwnedFd, name: impl rustix::path::Arg + Copy, owners: usize) -> Result<FileType, Errno> {
        let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        let is_file = kind == FileType::RegularFile;
        if kind != FileType::Directory && found.st_nlink > 1 {
            let id = (found.st_dev, found.st_ino);
            if !self.linked.contains_key(&id) {
                let held = self.held(at, name, &found, is_file);
                self.linked.insert(id, Linked { held, elsewhere: found.st_nlink as u64, owners: BTreeSet::new() });
            }
            let set = self.sets[owners].clone();
            if let Some(linked) = self.linked.get_mut(&id) {
                linked.elsewhere = linked.elsewhere.saturating_sub(1);
                linked.owners.extend(set);
            }
            return Ok(kind);
        }
        match self.held(at, name, &found, is_file) {
            Held::Blocks(bytes) => *self.alone.entry(owners).or_default() += bytes,
            Held::Extents(extents) => self.extents(&extents, owners, false, false),
        }
        Ok(kind)
    }

    fn held(&mut self, at: &OwnedFd, name: impl rustix::path::Arg + Copy, found: &Stat, is_file: bool) -> Held {
        let blocks = Held::Blocks(found.st_blocks as u64 * 512);
        match (self.way, is_file) {
            (Way::Blocks, _) | (Way::Extents, false) => return blocks,
            (Way::Btrfs, false) => return Held::Blocks(0),
            (Way::Extents | Way::Btrfs, true) => {}
        }
        let version = (found.st_ino, found.st_ctime, found.st_ctime_nsec as i64, found.st_size);
        if let Some(known) = self.seen.get(&version) {
            return Held::Extents(known.clone());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let asked = openat(at, name, flags, Mode::empty()).map_err(Into::into).and_then(extents);
        // What may not be opened is counted by its blocks.
        let Ok(mut asked) = asked else { return blocks };
        for extent in asked.iter_mut().filter(|extent| extent.inline && self.way == Way::Btrfs) {
            let bytes = extent.bytes.min(found.st_size as u64);
            *extent = Extent { start: INLINE + self.inline, bytes, placed: true, ..*extent };
            self.inline += bytes;
        }
        if asked.iter().any(|extent| extent.shared || extent.inline) {
            self.seen.insert(version, asked.clone());
        }
        Held::Extents(asked)
    }

    /// `linked`: the inode has several names, of which `outside` says whether all were met.
    fn extents(&mut self, extents: &[Extent], owners: usize, linked: bool, outside: bool) {
        for extent in extents {
            if extent.placed && (extent.shared || extent.inline || linked) {
                let (start, end) = (extent.start, extent.start + extent.bytes);
                self.pieces.push(Piece { start, end, owners, shared: extent.shared, outside });
            } else {
                *self.alone.entry(owners).or_default() += extent.bytes;
            }
        }
    }

    /// Pieces that lie over each other are cut where one of them begins or ends, so that each part has its own owners.
    fn sweep(&mut self, groups: &mut HashMap<(Owners, bool), u64>) {
        self.pieces.sort_by_key(|piece| piece.start);
        let mut open: Vec<&Piece> = Vec::new();
        let (mut at, mut next) = (0, 0);
        while next < self.pieces.len() || !open.is_empty() {
            open.retain(|piece| piece.end > at);
            while let Some(piece) = self.pieces.get(next).filter(|piece| open.is_empty() || piece.start <= at) {
                at = at.max(piece.start);
                open.push(piece);
                next += 1;
            }
            let Some(end) = open.iter().map(|piece| piece.end).min() else { continue };
            let end = self.pieces.get(next).map_or(end, |piece| end.min(piece.start));
            *groups.entry(self.shared_by(&open)).or_default() += end - at;
            at = end;
        }
    }

    /// Whose a part is, and whether somebody else's too: the kernel says that it is shared, and one file was met that has it.
    fn shared_by(&self, open: &[&Piece]) -> (Owners, bool) {
        let owners: BTreeSet<u32> = open.iter().flat_map(|piece| self.sets[piece.owners].iter().copied()).collect();
        let alone = open.len() == 1 && open[0].shared && owners.len() == 1;
        let outside = alone || open.iter().any(|piece| piece.outside);
        (owners.into_iter().collect(), outside)
    }

    fn finish(mut self) -> Measured {
        let mut groups: HashMap<(Owners, bool), u64> = HashMap::new();
        for (_, Linked { held, elsewhere, owners }) in std::mem::take(&mut self.linked) {
            let outside = elsewhere > 0;
            let number = self.number(owners);
            match held {
                Held::Blocks(bytes) => *groups.entry((self.sets[number].clone(), outside)).or_default() += bytes,
                Held::Extents(extents) => self.extents(&extents, number, true, outside),
            }
        }
        for (number, bytes) in &self.alone {
            *groups.entry((self.sets[*number].clone(), false)).or_default() += bytes;
        }
        self.sweep(&mut groups);
        let group = |((owners, outside), bytes)| Group { bytes, owners, outside };
        let mut groups: Vec<Group> = groups.into_iter().filter(|(_, bytes)| *bytes > 0).map(group).collect();
        let metadata = self.taken.map_or(0, |taken| with_metadata(&mut groups, taken, self.inline));
        Measured { groups, metadata }
    }
}

/// The share of a btrfs's metadata, without the bytes of files in it. Where files are compressed they take less than
/// their extents say: never more than all that is taken.
fn with_metadata(groups: &mut [Group], taken: Taken, inline: u64) -> u64 {
    let all: u64 = groups.iter().map(|group| group.bytes).sum();
    let ours = all.saturating_sub(inline);
    if ours > taken.data {
        let part = (taken.data + inline) as f64 / all as f64;
        groups.iter_mut().for_each(|group| group.bytes = (group.bytes as f64 * part) as u64);
    }
    match taken.data {
        0 => 0,
        data => ((taken.metadata as f64 * (ours.min(data) as f64 / data as f64)) as u64).saturating_sub(inline),
    }
}

fn open_directory(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}
