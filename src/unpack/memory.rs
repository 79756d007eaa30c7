//! A layer as a tree in memory, without contents: what its listing says of it.
//!
//! Paths are followed as `openat2(RESOLVE_IN_ROOT)` does. What may depend on where layers lie is tried there (`trial`).

use std::collections::BTreeMap;
use std::io;

use rustix::io::{Errno, Result};

use super::LONGEST_NAME;
use super::target::{Id, New, Seen, Standing, Target};
use super::trial::{Attributes, Trial};
use crate::digest::ContentDigest;
use crate::listing::{Entry, Kind, Time};

/// So many links are followed for one path (the kernel's MAXSYMLINKS).
const LINKS: usize = 40;

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Index of a node.
pub(super) type Index = usize;
pub(super) const ROOT: Index = 0;

/// The tree.
pub(super) struct Memory {
    /// All that were ever made; those that were removed are in no directory.
    nodes: Vec<Node>,
    trial: Trial,
    /// Which node the trial's file stands for.
    tried: Option<Index>,
}

struct Node {
    what: What,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    xattrs: Attributes,
    /// How many names it has.
    names: u32,
}

enum What {
    File { size: u64, content: ContentDigest },
    Directory { children: BTreeMap<Box<[u8]>, Index>, parent: Index, opaque: bool },
    Symlink(Box<[u8]>),
    Fifo,
    Whiteout,
}

/// A file on its way into a node.
pub(super) struct Written {
    node: Index,
    size: u64,
    hasher: Box<blake3::Hasher>,
}

impl Memory {
    pub fn new(trial: Trial) -> Memory {
        Memory { nodes: vec![Node::new(directory(ROOT))], trial, tried: None }
    }

    fn children(&self, directory: Index) -> Result<&BTreeMap<Box<[u8]>, Index>> {
        match &self.nodes[directory].what {
            What::Directory { children, .. } => Ok(children),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn find(&self, at: Index, name: &[u8]) -> Result<Index> {
        let children = self.children(at)?;
        match name {
            b"." => Ok(at),
            name if name.len() > LONGEST_NAME => Err(Errno::NAMETOOLONG),
            name => children.get(name).copied().ok_or(Errno::NOENT),
        }
    }

    fn parent(&self, directory: Index) -> Result<Index> {
        match &self.nodes[directory].what {
            What::Directory { parent, .. } => Ok(*parent),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Where a path leads from the root, as a directory.
    fn walk(&self, path: &[u8]) -> Result<Index> {
        let mut pending = vec![components(path)];
        let (mut at, mut links) = (ROOT, 0);
        while let Some(names) = pending.last_mut() {
            let Some(name) = names.next() else {
                pending.pop();
                continue;
            };
            let next = match name {
                b".." => self.parent(at)?,
                name => self.find(at, name)?,
            };
            let What::Symlink(target) = &self.nodes[next].what else {
                at = next;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP);
            }
            if target.starts_with(b"/") {
                at = ROOT;
            }
            pending.push(components(target));
        }
        self.children(at).map(|_| at)
    }

    /// Puts a new node where nothing is.
    fn add(&mut self, at: Index, name: &[u8], what: What) -> Result<Index> {
        let node = self.nodes.len();
        self.name(at, name, node)?;
        self.nodes.push(Node::new(what));
        Ok(node)
    }

    fn name(&mut self, at: Index, name: &[u8], node: Index) -> Result<()> {
        match &mut self.nodes[at].what {
            What::Directory { children, .. } if children.contains_key(name) => Err(Errno::EXIST),
            What::Directory { children, .. } => {
                children.insert(name.into(), node);
                Ok(())
            }
            _ => Err(Errno::NOTDIR),
        }
    }

    /// The names in a directory, sorted; of what is no directory, none.
    pub fn names(&self, node: Index) -> impl DoubleEndedIterator<Item = (&[u8], Index)> {
        self.children(node).into_iter().flatten().map(|(name, node)| (&**name, *node))
    }

    /// Whether a node stands for a removed name.
    pub fn is_gone(&self, node: Index) -> bool {
        matches!(self.nodes[node].what, What::Whiteout)
    }

    /// Whether a file has several names.
    pub fn is_linked(&self, node: Index) -> bool {
        let Node { what, names, .. } = &self.nodes[node];
        *names > 1 && matches!(what, What::File { .. } | What::Fifo)
    }

    /// A node as an entry of its own, without its path.
    pub fn entry(&self, node: Index) -> Entry {
        let Node { what, mode, uid, gid, mtime, xattrs, .. } = &self.nodes[node];
        let kind = match what {
            What::File { size, content } => Kind::File { size: *size, content: *content },
            What::Directory { opaque, .. } => Kind::Directory { opaque: *opaque },
            What::Symlink(target) => Kind::Symlink { target: target.to_vec() },
            What::Fifo => Kind::Fifo,
            What::Whiteout => Kind::Whiteout,
        };
        let (mode, uid, gid) = if kind == Kind::Whiteout { (0, 0, 0) } else { (*mode, *uid, *gid) };
        Entry { path: Vec::new(), kind, mode, uid, gid, mtime: *mtime, xattrs: xattrs.clone() }
    }

    fn try_with(&mut self, node: Index) -> io::Result<()> {
        if self.tried != Some(node) {
            self.trial.begin(&self.entry(node))?;
            self.tried = Some(node);
        }
        Ok(())
    }
}

impl Node {
    fn new(what: What) -> Node {
        let mode = if matches!(what, What::Symlink(_)) { 0o777 } else { 0 };
        Node { what, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Attributes::new(), names: 1 }
    }
}

fn directory(parent: Index) -> What {
    What::Directory { children: BTreeMap::new(), parent, opaque: false }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
}

impl Target for Memory {
    type Directory = Index;
    type File = Written;

    fn open(&mut self, path: &[u8]) -> io::Result<Index> {
        Ok(self.walk(path)?)
    }

    fn child(&self, at: &Index, name: &[u8]) -> io::Result<Index> {
        let child = self.find(*at, name)?;
        self.children(child)?;
        Ok(child)
    }

    fn id(&self, directory: &Index) -> Id {
        (0, *directory as u64)
    }

    fn look(&self, at: &Index, name: &[u8]) -> Result<Option<Seen>> {
        let node = match self.find(*at, name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let standing = match self.nodes[node].what {
            What::Whiteout => Standing::Whiteout,
            What::Directory { .. } => Standing::Directory,
            _ => Standing::Other,
        };
        Ok(Some(Seen { id: self.id(&node), standing }))
    }

    fn remove(&mut self, at: &Index, name: &[u8], _: Seen) -> io::Result<()> {
        let What::Directory { children, .. } = &mut self.nodes[*at].what else { return Err(Errno::NOTDIR.into()) };
        let mut gone = vec![children.remove(name).ok_or(Errno::NOENT)?];
        while let Some(node) = gone.pop() {
            self.nodes[node].names -= 1;
            if let What::Directory { children, .. } = &mut self.nodes[node].what {
                gone.extend(std::mem::take(children).into_values());
            }
        }
        Ok(())
    }

    fn make(&mut self, at: &Index, name: &[u8], new: New) -> Result<()> {
        let what = match new {
            New::Directory => directory(*at),
            New::Symlink(target) => What::Symlink(target.into()),
            New::Fifo => What::Fifo,
        };
        self.add(*at, name, what).map(drop)
    }

    fn create(&mut self, at: &Index, name: &[u8]) -> Result<Written> {
        let node = self.add(*at, name, What::File { size: 0, content: ContentDigest([0; 32]) })?;
        Ok(Written { node, size: 0, hasher: Box::default() })
    }

    fn write(&mut self, file: &mut Written, hole: u64, bytes: &[u8]) -> io::Result<()> {
        let mut left = hole;
        while left > 0 {
            let zeros = &ZEROS[..left.min(ZEROS.len() as u64) as usize];
            file.hasher.update(zeros);
            left -= zeros.len() as u64;
        }
        file.hasher.update(bytes);
        file.size += hole + bytes.len() as u64;
        Ok(())
    }

    fn close(&mut self, mut file: Written, hole: u64) -> io::Result<()> {
        self.write(&mut file, hole, b"")?;
        let content = ContentDigest(*file.hasher.finalize().as_bytes());
        self.nodes[file.node].what = What::File { size: file.size, content };
        Ok(())
    }

    fn link(&mut self, from: &Index, first: &[u8], at: &Index, name: &[u8]) -> Result<()> {
        let node = self.find(*from, first)?;
        self.name(*at, name, node)?;
        self.nodes[node].names += 1;
        Ok(())
    }

    fn mark_removed(&mut self, at: &Index, name: &[u8]) -> io::Result<()> {
        match self.add(*at, name, What::Whiteout) {
            Err(Errno::EXIST) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    fn mark_opaque(&mut self, directory: &Index) -> io::Result<()> {
        match &mut self.nodes[*directory].what {
            What::Directory { opaque, .. } => *opaque = true,
            _ => return Err(Errno::NOTDIR.into()),
        }
        Ok(())
    }

    fn own(&mut self, at: &Index, name: &[u8], entry: &Entry) -> io::Result<()> {
        let node = self.find(*at, name)?;
        let node = &mut self.nodes[node];
        (node.uid, node.gid) = (entry.uid, entry.gid);
        if !matches!(node.what, What::Symlink(_)) {
            node.mode = entry.mode;
        }
        Ok(())
    }

    fn set_attribute(&mut self, at: &Index, name: &[u8], attribute: &[u8], value: &[u8]) -> io::Result<()> {
        let node = self.find(*at, name)?;
        self.try_with(node)?;
        self.trial.set_attribute(attribute, value)
    }

    fn set_time(&mut self, at: &Index, name: &[u8], time: Time) -> io::Result<()> {
        let node = self.find(*at, name)?;
        let special = !matches!(self.nodes[node].what, What::Symlink(_)) && self.nodes[node].mode & 0o7000 != 0;
        if special {
            self.try_with(node)?;
        }
        if self.tried.take() == Some(node) {
            (self.nodes[node].mode, self.nodes[node].xattrs) = self.trial.end()?;
        }
        self.nodes[node].mtime = self.trial.time(time)?;
        Ok(())
    }
}
