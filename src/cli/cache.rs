//! `stacker cache`: what the database knows, gathered for [`crate::inspect`] to show.

use crate::database::{CacheRow, Database, open_existing};
use crate::digest::Key;
use crate::error::{Error, Result};
use crate::gc::{Request, gc};
use crate::holder::{Holder, Insisted};
use crate::inspect::cache::{CacheEntry, CachePath, render_entries, render_list};
use crate::verify::verify;

use super::options::{Directories, age};
use super::{Cache, Gc};

/// Does `stacker gc`; returns what goes to stdout.
pub fn collect(directories: &Directories, (kind, sandbox): Insisted, arguments: &Gc) -> Result<String> {
    let older_than = arguments.older_than.as_deref().map(age).transpose()?;
    let holder = Holder::start(&directories.stacker, &directories.roots, kind)?.insist(sandbox);
    gc(directories, &holder, &Request { older_than, dry_run: arguments.dry_run })
}

/// Does the subcommand; returns what goes to stdout, and the exit code.
pub fn cache(directories: &Directories, insisted: Insisted, command: Cache) -> Result<(String, i32)> {
    let text = match command {
        // They need more than that, see `commands`.
        Cache::Export(_) | Cache::Import(_) => Ok(String::new()),
        Cache::Gc(arguments) => collect(directories, insisted, &arguments),
        Cache::Verify { deep, json } => {
            let report = verify(directories, insisted, deep)?;
            return Ok((report.render(json), report.exit_code()));
        }
        Cache::Ls { json } => Ok(render_list(&open_existing(&directories.stacker)?.list()?, json)),
        Cache::Show { name, json } => {
            let database = open_existing(&directories.stacker)?;
            let chosen: Vec<CacheRow> = database.list()?.into_iter().filter(|row| is_named(row, &name)).collect();
            if chosen.is_empty() {
                return Err(Error::Usage(format!("nothing in the cache is named {name}; see stacker cache ls")));
            }
            let entries =
                chosen.into_iter().map(|row| entry(directories, &database, row)).collect::<Result<Vec<_>>>()?;
            Ok(render_entries(&entries, json))
        }
    };
    Ok((text?, 0))
}

/// By a layer's name, else by the first digits (four or more) of the key.
fn is_named(row: &CacheRow, name: &str) -> bool {
    row.layers.iter().any(|layer| layer == name) || (name.len() >= 4 && row.key.hex().starts_with(name))
}

fn entry(directories: &Directories, database: &Database, found: CacheRow) -> Result<CacheEntry> {
    let Some(action) = database.action(&found.key)? else {
        return Err(Error::Machine(format!("the action of {} is not in the database", found.key)));
    };
    let labels = database.result(&found.key)?.and_then(|result| result.labels);
    Ok(CacheEntry { action, labels, paths: paths(directories, database, &found.key, found.diff_id)?, row: found })
}

/// Where the data of a result lies, as far as it is there.
fn paths(
    directories: &Directories,
    database: &Database,
    key: &Key,
    diff_id: Option<crate::digest::DiffId>,
) -> Result<Vec<CachePath>> {
    let mut paths = vec![("log".to_owned(), directories.stacker.log(key))];
    if let Some(diff_id) = diff_id {
        paths.push(("listing".to_owned(), directories.stacker.listing(&diff_id)));
        for blob in database.blobs(&diff_id)? {
            paths.push(("blob".to_owned(), directories.stacker.blob(&blob)));
        }
        if let Some(action) = database.action(key)? {
            let (chain, roots) = (action.base.push(diff_id), &directories.roots);
            let nursery = roots.0.join(crate::place::nursery(&chain));
            let more = [("delta", roots.delta(&chain)), ("tree", roots.tree(&chain)), ("nursery", nursery)];
            paths.extend(more.map(|(name, path)| (name.to_owned(), path)));
        }
    }
    let there = paths.into_iter().filter(|(_, path)| path.exists());
    Ok(there
        .map(|(name, path)| {
            let bytes = std::fs::metadata(&path).ok().filter(|found| found.is_file()).map(|found| found.len());
            CachePath { name, path, bytes }
        })
        .collect())
}
