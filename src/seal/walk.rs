//! The walk over an upper directory: every name in it, in the order of a listing, beside what the layers beneath have.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{FileType, Stat};

use super::Form;
use super::delta::{Delta, mtime, stat, within, xattrs};
use super::failure::{library, machine, users};
use crate::digest::ContentDigest;
use crate::listing::{Entry, Kind, Lower, Stack, Time, View, split};
use crate::worker::message::Failure;

const BTRFS: u64 = 0x9123_683e;
/// The inode number of the root of every btrfs subvolume.
const SUBVOLUME: u64 = 256;

/// Later than every layer's time: a name that is gone tells no time.
const LATEST: Time = Time { seconds: i64::MAX, nanos: 0 };

/// One name in the upper directory.
pub(super) struct Node {
    pub entry: Entry,
    /// `None`: a whiteout that stands in the list alone.
    pub stat: Option<Stat>,
    /// Index of the directory it is in; the root's is its own.
    pub parent: usize,
    /// What stands there in the layers beneath.
    pub lower: Option<Lower>,
    /// Overlayfs's own attributes, to be removed.
    pub overlay: Vec<Vec<u8>>,
    /// Marked opaque in the upper, whatever the entry says.
    pub marked: bool,
}

/// What the walk found.
pub(super) struct Walked {
    /// In listing order; the first is the root.
    pub nodes: Vec<Node>,
    /// Paths of sockets.
    pub sockets: Vec<Vec<u8>>,
}

/// Owners of files by device and inode; all others are root's.
pub type Recorded = HashMap<(u64, u64), (u32, u32)>;

/// Who is told what a file's owner is.
#[derive(Clone, Copy, Debug)]
pub enum Owners<'a> {
    /// The file system knows.
    OnDisk,
    /// All there is belongs to one: what the layers beneath have at the same place keeps its owner, as if there had
    /// been others and nobody had changed it; what is new is root's.
    Beneath,
    /// An archive said it while it was unpacked.
    Recorded(&'a Recorded),
}

/// A name in a directory; without a stat it is gone.
type Name = (Vec<u8>, Option<Stat>);

struct Walk<'a> {
    upper: &'a Path,
    form: Form,
    btrfs: bool,
    owners: Owners<'a>,
    walked: Walked,
}

/// Reads the whole upper directory. Without `lower`, nothing is beneath and every mark is kept as it is; else each name
/// that is gone is listed as a whiteout, and no directory as opaque: the same change is the same list, in whatever way
/// it was made. Without `contents`, the digests of files are zero.
pub(super) fn walk(
    upper: &Path,
    lower: Option<&Stack>,
    form: Form,
    owners: Owners,
    contents: bool,
) -> Result<Walked, Failure> {
    let root = stat(upper).map_err(|error| machine("stat", b"", error))?;
    let file_system = rustix::fs::statfs(upper).map_err(|error| machine("statfs", b"", error.into()))?;
    let btrfs = file_system.f_type as u64 == BTRFS;
    let mut walk = Walk { upper, form, btrfs, owners, walked: Walked { nodes: Vec::new(), sockets: Vec::new() } };
    let view = lower.map(Stack::root);
    let beneath = match &view {
        Some(view) => view.itself().map_err(|error| library("read listings", error))?,
        None => None,
    };
    walk.add(Vec::new(), Some(root), 0, beneath)?;
    walk.directory(0, view, matches!(form, Form::Whole(_)))?;
    if let Owners::Beneath = owners {
        agree(&mut walk.walked.nodes);
    }
    read_details(upper, &mut walk.walked.nodes, contents)?;
    Ok(walk.walked)
}

impl Walk<'_> {
    /// Without a `stat` it is a whiteout.
    fn add(
        &mut self,
        path: Vec<u8>,
        stat: Option<Stat>,
        parent: usize,
        lower: Option<Lower>,
    ) -> Result<usize, Failure> {
        let entry = match &stat {
            Some(stat) if !self.is_whiteout(stat) => self.entry(path, stat, lower.as_ref())?,
            mark => whiteout(path, mark.as_ref().map_or(LATEST, mtime)),
        };
        self.walked.nodes.push(Node { entry, stat, parent, lower, overlay: Vec::new(), marked: false });
        Ok(self.walked.nodes.len() - 1)
    }

    fn entry(&self, path: Vec<u8>, stat: &Stat, lower: Option<&Lower>) -> Result<Entry, Failure> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory { opaque: false },
            FileType::RegularFile => Kind::File { size: stat.st_size as u64, content: ContentDigest([0; 32]) },
            FileType::Symlink => Kind::Symlink { target: Vec::new() },
            FileType::Fifo => Kind::Fifo,
            _ => return Err(users("seal", &path, "is a device node, which a layer cannot hold")),
        };
        let (uid, gid) = self.owner(&kind, stat, lower);
        let (mode, mtime) = (stat.st_mode & 0o7777, mtime(stat));
        Ok(Entry { path, kind, mode, uid, gid, mtime, xattrs: Default::default() })
    }

    /// Whether something on disk stands for a removed name.
    fn is_whiteout(&self, stat: &Stat) -> bool {
        matches!(self.form, Form::Changes(marks) if marks.is_whiteout(stat))
    }

    fn is_gone(&self, stat: &Option<Stat>) -> bool {
        stat.is_none_or(|stat| self.is_whiteout(&stat))
    }

    fn owner(&self, kind: &Kind, stat: &Stat, lower: Option<&Lower>) -> (u32, u32) {
        match self.owners {
            Owners::OnDisk => (stat.st_uid, stat.st_gid),
            Owners::Beneath => lower.and_then(|lower| inherited(kind, lower)).unwrap_or((0, 0)),
            Owners::Recorded(known) => known.get(&(stat.st_dev, stat.st_ino)).copied().unwrap_or((0, 0)),
        }
    }

    /// Adds everything below the directory `index`, whose place in the layers beneath is `view`. `whole`: nothing shines
    /// through from there.
    fn directory(&mut self, index: usize, view: Option<View>, whole: bool) -> Result<(), Failure> {
        let path = self.walked.nodes[index].entry.path.clone();
        let full = within(self.upper, &path);
        let found = xattrs(&full).map_err(|error| machine("read attributes of", &path, error))?;
        let opaque = matches!(self.form, Form::Changes(marks) if marks.is_opaque(&full, found.opaque));
        let node = &mut self.walked.nodes[index];
        node.entry.kind = Kind::Directory { opaque: opaque && view.is_none() };
        (node.marked, node.entry.xattrs, node.overlay) = (found.opaque, found.kept, found.overlay);
        let whole = whole || opaque;
        let mut names = self.names(&path, &full)?;
        if let Some(view) = view.as_ref().filter(|view| whole && view.exists()) {
            names.extend(gone(view, &names)?);
        }
        names.sort_by(|(a, a_stat), (b, b_stat)| (!self.is_gone(a_stat), a).cmp(&(!self.is_gone(b_stat), b)));
        for (name, stat) in names {
            let child = if path.is_empty() { name.clone() } else { [path.as_slice(), b"/", &name].concat() };
            let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
            if kind == Some(FileType::Socket) && !self.is_gone(&stat) {
                self.walked.sockets.push(child);
                continue;
            }
            let read = |error| library("read listings", error);
            let lower = view.as_ref().map(|view| view.child(&name)).transpose().map_err(read)?.flatten();
            let directory = kind == Some(FileType::Directory);
            let below = if directory {
                view.as_ref().map(|view| view.directory(&name)).transpose().map_err(read)?
            } else {
                None
            };
            let index = self.add(child, stat, index, lower)?;
            if directory {
                self.directory(index, below, whole)?;
            }
        }
        Ok(())
    }

    /// The names in a directory.
    fn names(&self, path: &[u8], full: &Path) -> Result<Vec<Name>, Failure> {
        let read = |error| machine("read", path, error);
        let mut items = std::fs::read_dir(full).and_then(|items| items.collect::<Result<Vec<_>, _>>()).map_err(read)?;
        // Which of several is told must not be the file system's choice.
        items.sort_by_cached_key(|item| item.file_name());
        let mut names = Vec::new();
        for item in items {
            let name = item.file_name().as_bytes().to_vec();
            let stat = stat(&full.join(item.file_name())).map_err(read)?;
            if matches!(self.form, Form::Changes(marks) if marks.is_opaque_name(&name) && marks.is_whiteout(&stat)) {
                continue;
            }
            check_name(path, &name)?;
            if self.btrfs && FileType::from_raw_mode(stat.st_mode) == FileType::Directory && stat.st_ino == SUBVOLUME {
                let child = [path, b"/", &name].concat();
                return Err(users("seal", &child, "is a btrfs subvolume, which a layer cannot hold"));
            }
            names.push((name, Some(stat)));
        }
        Ok(names)
    }
}

/// Whether a layer can hold a name in a directory.
pub(crate) fn check_name(directory: &[u8], name: &[u8]) -> Result<(), Failure> {
    if name.starts_with(b".wh.") {
        let why = "a layer cannot hold a name that starts with `.wh.`: it means a removed file";
        return Err(users("seal", &[directory, b"/", name].concat(), why));
    }
    Ok(())
}

/// What a directory of the layers beneath has and the one on disk, with `names`, has not.
fn gone(view: &View, names: &[Name]) -> Result<Vec<Name>, Failure> {
    let there: HashSet<&[u8]> = names.iter().map(|(name, _)| name.as_slice()).collect();
    let beneath = view.children().map_err(|error| library("read listings", error))?;
    let beneath = beneath.iter().map(|entry| split(&entry.path).1);
    Ok(beneath.filter(|name| !there.contains(name)).map(|name| (name.to_vec(), None)).collect())
}

fn whiteout(path: Vec<u8>, mtime: Time) -> Entry {
    Entry { path, kind: Kind::Whiteout, mode: 0, uid: 0, gid: 0, mtime, xattrs: Default::default() }
}

/// The owner of what stands beneath, where it is of the same kind.
fn inherited(kind: &Kind, lower: &Lower) -> Option<(u32, u32)> {
    let same = std::mem::discriminant(kind) == std::mem::discriminant(&lower.entry.kind);
    same.then_some((lower.entry.uid, lower.entry.gid))
}

/// The names of one file have one owner: that of the first which has something beneath.
fn agree(nodes: &mut [Node]) {
    let mut owners = HashMap::new();
    for node in nodes.iter().filter(|node| linked(node)) {
        if let Some(owner) = node.lower.as_ref().and_then(|lower| inherited(&node.entry.kind, lower)) {
            owners.entry(inode(node)).or_insert(owner);
        }
    }
    for node in nodes.iter_mut().filter(|node| linked(node)) {
        (node.entry.uid, node.entry.gid) = owners.get(&inode(node)).copied().unwrap_or((0, 0));
    }
}

/// Reads what stat does not tell, in parallel: contents, link texts, attributes. Each inode's content is read once.
fn read_details(upper: &Path, nodes: &mut [Node], contents: bool) -> Result<(), Failure> {
    let delta = Delta::open(upper).map_err(|error| machine("open", b"", error))?;
    let mut seen = HashMap::new();
    let first: Vec<usize> = (0..nodes.len())
        .map(|index| if linked(&nodes[index]) { *seen.entry(inode(&nodes[index])).or_insert(index) } else { index })
        .collect();
    nodes.par_iter_mut().enumerate().filter(|(index, _)| first[*index] == *index).try_for_each(|(_, node)| {
        read_node(upper, &delta, node, contents).map_err(|error| machine("read", &node.entry.path, error))
    })?;
    for (index, &from) in first.iter().enumerate().filter(|&(index, &from)| from != index) {
        let Entry { kind, xattrs, .. } = nodes[from].entry.clone();
        let overlay = nodes[from].overlay.clone();
        let node = &mut nodes[index];
        (node.entry.kind, node.entry.xattrs, node.overlay) = (kind, xattrs, overlay);
    }
    Ok(())
}

fn read_node(upper: &Path, delta: &Delta, node: &mut Node, contents: bool) -> std::io::Result<()> {
    let full = within(upper, &node.entry.path);
    match &mut node.entry.kind {
        Kind::Directory { .. } | Kind::Whiteout | Kind::HardLink { .. } => return Ok(()),
        Kind::Symlink { target } => *target = std::fs::read_link(&full)?.into_os_string().as_bytes().to_vec(),
        Kind::File { content, size } if contents => {
            (*content, *size) = super::content::hash(delta.file(&node.entry.path)?)?;
        }
        Kind::File { .. } | Kind::Fifo => {}
    }
    let found = xattrs(&full)?;
    node.entry.xattrs = found.kept;
    node.overlay = found.overlay;
    Ok(())
}

/// Whether a node may have further names that a listing ties together.
pub(super) fn linked(node: &Node) -> bool {
    matches!(node.entry.kind, Kind::File { .. } | Kind::HardLink { .. } | Kind::Fifo)
        && node.stat.is_some_and(|stat| stat.st_nlink > 1)
}

pub(super) fn inode(node: &Node) -> Option<(u64, u64)> {
    node.stat.map(|stat| (stat.st_dev, stat.st_ino))
}
