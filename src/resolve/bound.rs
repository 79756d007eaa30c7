//! What a bind shows: all that a script can see of a path of the host, but for times.
//!
//! Contents come from a stat list, as those of imports. Owners and attributes are asked for each time, since they cost
//! no more than the walk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::walk::{self, Found, Seen, Wanted};
use super::{Modes, Resolver, broken};
use crate::action::{NodeKind, Shows};
use crate::digest::TreeDigest;
use crate::error::Result;
use crate::listing::{Entry, tree_digest};
use crate::place::StackerDir;
use crate::seal::delta::xattrs;
use crate::stamp::Stamp;
use crate::text::escape;

/// (first id inside, first id outside, how many).
type Extent = (u32, u32, u32);

/// Whom a script takes for the owner of a file of the host.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    /// The map of users.
    pub uids: Vec<Extent>,
    /// The map of groups.
    pub gids: Vec<Extent>,
}

/// The kernel's name for who has no number inside.
const NOBODY: u32 = 65_534;

impl Owners {
    fn of(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        (inside(&self.uids, uid), inside(&self.gids, gid))
    }
}

fn inside(map: &[Extent], id: u32) -> u32 {
    let extent = map.iter().find(|(_, outside, count)| id >= *outside && id - outside < *count);
    extent.map_or(NOBODY, |(inside, outside, _)| inside + (id - outside))
}

/// What lies at the source of a bind.
#[derive(Clone, Debug)]
pub enum Bound {
    /// A file or directory.
    Tree(BoundTree),
    /// Something without content.
    Node(NodeKind),
}

/// A file or directory as a script sees it.
#[derive(Clone, Debug)]
pub struct BoundTree {
    digest: TreeDigest,
    nodes: BTreeMap<String, NodeKind>,
    entries: Vec<Entry>,
    stamps: Vec<Stamp>,
    /// The stat list that vouches for it.
    list: Vec<u8>,
}

/// A look at a bind's source.
pub struct Look {
    /// What is there.
    pub bound: Bound,
    /// The device of the path itself.
    pub device: u64,
    /// The stat list to keep, if the old one can be improved on.
    pub stat_list: Option<Vec<u8>>,
}

impl Resolver<'_> {
    /// What a script sees of `path`, reading only the files that `list` (of an earlier such look) can not vouch for.
    pub fn bound(&self, path: &Path, owners: &Owners, list: Option<&[u8]>) -> Result<Look> {
        let device = fs::symlink_metadata(path).map_err(|error| broken("look at", path, &error))?.dev();
        let seen = walk::walk(path, &self.own, Wanted::All, &self.known)?;
        if let Found::Node(node) = seen[0].found {
            return Ok(Look { bound: Bound::Node(node), device, stat_list: None });
        }
        let mut nodes = BTreeMap::new();
        let mut files = Vec::new();
        for seen in &seen {
            match seen.found {
                Found::Node(node) => drop(nodes.insert(escape(&seen.path), node)),
                _ => files.push(seen),
            }
        }
        let (tree, stat_list) = self.judge(path, Modes::Host, &files, list)?;
        let mut entries = tree.entries()?;
        entries.par_iter_mut().zip(&files).try_for_each(|(entry, seen)| dress(path, entry, seen, owners))?;
        let (digest, stamps) = (tree_digest(&entries), files.iter().map(|seen| seen.stamp).collect());
        let bound = Bound::Tree(BoundTree { digest, nodes, entries, stamps, list: tree.list });
        Ok(Look { bound, device, stat_list })
    }
}

/// Gives an entry its owners and attributes.
fn dress(root: &Path, entry: &mut Entry, seen: &Seen, owners: &Owners) -> Result<()> {
    (entry.uid, entry.gid) = owners.of(seen.owner);
    let mut path = seen.below(root);
    if seen.path.is_empty() {
        // A link at the root is followed.
        path = path.canonicalize().map_err(|error| broken("resolve", &path, &error))?;
    }
    match xattrs(&path) {
        Ok(found) => entry.xattrs = found.kept,
        // What went since the walk is told by the next look.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(broken("read the attributes of", &path, &error)),
    }
    Ok(())
}

/// The path by which the stat list of a bind is kept: nothing else ends like that.
pub fn list_path(source: &Path) -> PathBuf {
    let mut path = source.as_os_str().to_owned();
    path.push("//");
    path.into()
}

impl Bound {
    /// As it is in a key; `source` is as the stackerfile has it.
    pub fn shows(&self, source: &str) -> Shows {
        match self {
            Bound::Tree(tree) => Shows::Tree { tree: tree.digest, nodes: tree.nodes.clone() },
            Bound::Node(node) => Shows::Node { node: *node, source: source.to_owned() },
        }
    }

    /// The stat list to begin the next look with.
    pub fn list(&self) -> Option<&[u8]> {
        match self {
            Bound::Tree(tree) => Some(&tree.list),
            Bound::Node(_) => None,
        }
    }

    /// Keeps its listing, so that a later build can say which files changed.
    pub fn keep_listing(&self, dir: &StackerDir) -> Result<()> {
        match self {
            Bound::Tree(tree) => super::keep_tree_listing(dir, &tree.digest, &tree.entries),
            Bound::Node(_) => Ok(()),
        }
    }

    /// What was written to between two looks: the first path in it, and how. Also where the content is what it was,
    /// since it may have been something else in between.
    pub fn first_change(&self, after: &Bound) -> Option<(Vec<u8>, &'static str)> {
        let (Bound::Tree(old), Bound::Tree(new)) = (self, after) else {
            return (self.shows("") != after.shows("")).then(|| (vec![], "is something else now"));
        };
        let facts = |tree: &'_ BoundTree| {
            let facts = tree.entries.iter().zip(&tree.stamps);
            facts.map(|(entry, stamp)| (entry.path.clone(), (entry.clone(), *stamp))).collect::<BTreeMap<_, _>>()
        };
        let (before, now) = (facts(old), facts(new));
        let gone = before.keys().find(|path| !now.contains_key(*path)).map(|path| (path.clone(), "was removed"));
        let added = now.keys().find(|path| !before.contains_key(*path)).map(|path| (path.clone(), "was added"));
        let same = now.iter().filter_map(|(path, new)| Some((path, before.get(path)?, new)));
        let mut touched = None;
        let mut changed = None;
        for (path, (entry, stamp), (new, now)) in same {
            if entry != new {
                changed = changed.or(Some((path.clone(), "was changed")));
            } else if !stamp.is_untouched(now) {
                touched = touched.or(Some((path.clone(), "was written to")));
            }
        }
        let nodes = || {
            let differs = |(path, node): &(&String, &NodeKind)| old.nodes.get(*path) != Some(node);
            let path = new.nodes.iter().find(differs).map(|(path, _)| path);
            let path = path.or_else(|| old.nodes.keys().find(|path| !new.nodes.contains_key(*path)));
            path.map(|path| (path.as_bytes().to_vec(), "came, went or changed"))
        };
        changed.or(added).or(gone).or_else(nodes).or(touched)
    }
}

impl Stamp {
    /// The sizes of directories are the file system's own business.
    fn is_untouched(&self, now: &Stamp) -> bool {
        (self.inode, self.mtime, self.ctime) == (now.inode, now.mtime, now.ctime)
    }
}

/// A path in a bind, for people.
pub fn shown(source: &Path, path: &[u8]) -> String {
    match path.is_empty() {
        true => source.display().to_string(),
        false => source.join(std::ffi::OsStr::from_bytes(path)).display().to_string(),
    }
}
