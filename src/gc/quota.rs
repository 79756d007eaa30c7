//! The quota: when a build is over, the store has no more than so many bytes.
//!
//! To measure the whole store after each build would take too long. What each directory of the workers holds is remembered
//! by name, since it does not change, so that only what is new is measured; and nothing is, where no directory has a new
//! name. Only when the sum is too much is all of it measured again, and something removed.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::options::Directories;
use crate::database::Database;
use crate::error::Result;
use crate::holder::Holder;
use crate::store::boot;
use crate::usage::meter::{Part, Place};
use crate::usage::{Survey, measure_files, measure_roots, names};

use super::{Gc, Request, size};

/// Directories of the workers, each entry of which is remembered.
const REMEMBERED: [&str; 5] = ["deltas", "trees", "imports", "drafts", "trash"];
/// Directories in which everything new gets a name.
const WATCHED: [&str; 6] = ["blobs/sha256", "listings", "logs", "remote", "deltas", "trees"];

/// What a store that is held within its quota says.
pub struct Held {
    /// What was removed, if anything was.
    pub told: String,
    /// It was not enough.
    pub too_much: bool,
}

/// Removes what is worth least until the store has no more than `max` bytes; what running builds use stays. `None`: it has
/// no more.
pub fn hold(directories: &Directories, holder: &Holder, database: &Database, max: u64) -> Result<Option<Held>> {
    if is_unchanged(directories, database, max)? || estimate(directories, holder, database)? <= max {
        return Ok(None);
    }
    let mut gc = Gc::new(directories, holder, false);
    gc.collect(database, &Request { max_size: Some(max), spare: true, ..Request::default() })?;
    let (count, freed, total) = (gc.told.len(), gc.freed, gc.survey.total());
    let (freed, left, quota) = (size(freed), size(total), size(max));
    let told = format!("the cache was over its quota of {quota}: removed {count} things, {freed}; {left} are left");
    Ok((count > 0 || total > max).then_some(Held { told, too_much: total > max }))
}

/// Remembers what was measured, each byte by the first thing that holds it.
pub(super) fn remember(directories: &Directories, database: &Database, survey: &Survey) -> Result<()> {
    let sizes = survey.attributed().into_iter().filter(|(name, _)| is_remembered(name)).collect();
    database.put_sizes(&directories.roots, &sizes, survey.total(), moment(), true)
}

fn is_remembered(name: &str) -> bool {
    name.split_once('/').is_some_and(|(directory, _)| REMEMBERED.contains(&directory))
}

/// Nanoseconds since 1970; what is stamped later was changed later.
fn moment() -> i64 {
    let moment = SystemTime::now() - boot::lag();
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// Whether the store was small enough when it was last measured, and nothing was added to it since.
fn is_unchanged(directories: &Directories, database: &Database, max: u64) -> Result<bool> {
    let Some((total, measured)) = database.total_size(&directories.roots)? else { return Ok(false) };
    let changed = |name: &str| {
        let beneath = [&directories.stacker.0, &directories.roots.0];
        let found = beneath.iter().find_map(|directory| fs::metadata(directory.join(name)).ok());
        found.is_some_and(|found| found.mtime() * 1_000_000_000 + found.mtime_nsec() >= measured)
    };
    Ok(total <= max && !WATCHED.iter().any(|name| changed(name)))
}

/// What is remembered, and what is new. Too much rather than too little, where several things hold the same.
fn estimate(directories: &Directories, holder: &Holder, database: &Database) -> Result<u64> {
    let measured = moment();
    let known = database.sizes(&directories.roots)?;
    let (mut total, mut new) = (0, Vec::new());
    for directory in REMEMBERED {
        for name in names(&directories.roots.0.join(directory))? {
            let name = format!("{directory}/{name}");
            match known.get(&name) {
                Some(bytes) => total += bytes,
                None => new.push(name),
            }
        }
    }
    let sizes = measure_new(directories, holder, new)?;
    total += sizes.values().sum::<u64>() + measure_files(directories)?;
    database.put_sizes(&directories.roots, &sizes, total, measured, false)?;
    Ok(total)
}

/// What of them something that was measured before holds too is counted there.
fn measure_new(directories: &Directories, holder: &Holder, new: Vec<String>) -> Result<HashMap<String, u64>> {
    if new.is_empty() {
        return Ok(HashMap::new());
    }
    let place = |(number, name): (usize, &String)| {
        let link = fs::read_link(directories.roots.0.join(name)).ok();
        let leads = link.and_then(|link| Some(link.strip_prefix("..").ok()?.to_str()?.to_owned()));
        // A tree that a delta leads to is measured as a tree.
        let path = leads.filter(|path| !path.starts_with("trees/")).unwrap_or_else(|| name.clone());
        Place { path, owners: vec![number as u32], part: Part::All }
    };
    let measured = measure_roots(directories, holder, new.iter().enumerate().map(place).collect())?;
    let mut sizes: HashMap<String, u64> = new.iter().map(|name| (name.clone(), 0)).collect();
    let data: u64 = measured.groups.iter().map(|group| group.bytes).sum();
    let overhead = measured.metadata as f64 / data.max(1) as f64;
    for group in measured.groups.iter().filter(|group| !group.outside) {
        let first = group.owners.first().and_then(|owner| new.get(*owner as usize));
        if let Some(bytes) = first.and_then(|name| sizes.get_mut(name)) {
            *bytes += group.bytes + (group.bytes as f64 * overhead) as u64;
        }
    }
    Ok(sizes)
}
