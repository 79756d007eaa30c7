//! What outlives results: listings and logs, which explain later builds. Only their size is bounded.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::action::{Action, Kind, Shows};
use crate::commit_point::CommitPoint;
use crate::database::Database;
use crate::digest::{Key, TreeDigest};
use crate::error::Result;
use crate::pins::{Closed, Live};
use crate::place::{StackerDir, layer_listing};
use crate::record;

use super::Gc;
use super::leftovers::is_older;

/// What listings and logs without a result may take: enough for some ten thousand layers.
pub const BOUND: u64 = 1 << 30;

/// A file that belongs to no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes on its disk.
    pub bytes: u64,
}

/// Listings of layers that no result has, of import trees, and logs of keys without a result.
pub fn remains(stacker: &StackerDir, database: &Database) -> Result<Vec<Remains>> {
    let (_, layers) = database.referenced()?;
    let listings: HashSet<String> = layers.iter().map(layer_listing).collect();
    let logs: HashSet<String> = database.result_keys()?.iter().map(log_name).collect();
    let mut remains = Vec::new();
    for (directory, used) in [("listings", listings), ("logs", logs)] {
        let directory = stacker.0.join(directory);
        for name in record::names(&directory)?.into_iter().filter(|name| !used.contains(name)) {
            let path = directory.join(name);
            if let Ok(found) = path.symlink_metadata() {
                remains.push(Remains { path, bytes: found.blocks() * 512 });
            }
        }
    }
    Ok(remains)
}

/// Their names, relative to the stacker directory.
pub fn names(stacker: &StackerDir, database: &Database) -> Result<HashSet<String>> {
    let name = |file: Remains| Some(file.path.strip_prefix(&stacker.0).ok()?.to_str()?.to_owned());
    Ok(remains(stacker, database)?.into_iter().filter_map(name).collect())
}

impl Gc<'_> {
    /// Removes of all that outlives results what was not used for longest, until it takes no more than `bound`.
    pub(super) fn bound_history(&mut self, database: &Database, bound: u64) -> Result<()> {
        let stacker = &self.directories.stacker;
        let closed = Closed::wait(stacker)?;
        let made_before = Live::read(stacker, &closed)?.since().unwrap_or_else(SystemTime::now);
        let mut remains = remains(stacker, database)?;
        let mut bytes: u64 = remains.iter().map(|file| file.bytes).sum();
        if bytes <= bound {
            return Ok(());
        }
        let (used, mut gone) = (last_uses(database)?, Vec::new());
        remains.sort_by_cached_key(|file| Reverse(last_use(file, &used)));
        while bytes > bound
            && let Some(file) = remains.pop()
        {
            // A running build may have just written it.
            if !is_older(&file.path, made_before) {
                continue;
            }
            bytes -= file.bytes;
            if !self.dry_run {
                record::remove(&file.path)?;
                CommitPoint::LeftoverRemoved.reached();
                forget(database, &file)?;
            }
            gone.push(file.path);
        }
        drop(closed);
        for path in gone {
            self.file_gone(&path, "which only explains what was built long ago");
        }
        Ok(())
    }
}

/// The facts of a layer go with its listing.
fn forget(database: &Database, file: &Remains) -> Result<()> {
    match name(file).strip_prefix("sha256-").and_then(|hex| format!("sha256:{hex}").parse().ok()) {
        Some(diff_id) => database.forget_layer(&diff_id),
        None => Ok(()),
    }
}

fn name(file: &Remains) -> &str {
    file.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn log_name(key: &Key) -> String {
    format!("{}.log", key.hex())
}

/// When a result that a file explains was last used; else when the file was written. In seconds since 1970.
fn last_use(file: &Remains, used: &HashMap<String, i64>) -> i64 {
    let written = || file.path.symlink_metadata().map_or(0, |found| found.mtime());
    used.get(name(file)).copied().unwrap_or_else(written)
}

/// By the name of a file.
fn last_uses(database: &Database) -> Result<HashMap<String, i64>> {
    let mut used: HashMap<String, i64> = HashMap::new();
    let mut note = |name: String, moment: i64| {
        let known = used.entry(name).or_insert(moment);
        *known = moment.max(*known);
    };
    let evicted = database.all_evicted()?;
    let gone = evicted.iter().map(|(key, evicted)| (*key, evicted.diff_id, evicted.last_used));
    let there = database.list()?.into_iter().map(|row| (row.key, row.diff_id, row.last_used));
    for (key, diff_id, moment) in gone.chain(there) {
        note(log_name(&key), moment);
        if let Some(diff_id) = diff_id {
            note(layer_listing(&diff_id), moment);
        }
        for tree in database.action(&key)?.iter().flat_map(trees) {
            note(format!("tree-{}", tree.hex()), moment);
        }
    }
    Ok(used)
}

/// The import trees that an action reads.
fn trees(action: &Action) -> Vec<TreeDigest> {
    match &action.kind {
        Kind::Import { tree, .. } => vec![*tree],
        Kind::Run { mounts, binds, .. } => {
            let bound = binds.iter().filter_map(|bind| match &bind.shows {
                Shows::Tree { tree, .. } => Some(*tree),
                Shows::Node { .. } | Shows::Anything => None,
            });
            mounts.iter().map(|mount| mount.tree).chain(bound).collect()
        }
        Kind::Unpack { .. } | Kind::Labels { .. } => vec![],
    }
}
