//! `stacker cache`: what the database knows, gathered for [`crate::inspect`] to show.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::database::{CacheRow, Database, Status, open_existing};
use crate::digest::Key;
use crate::error::{Error, Result};
use crate::gc::{Request, gc};
use crate::holder::{Holder, Insisted};
use crate::inspect;
use crate::inspect::cache::{CacheEntry, CachePath, render_entries, render_list};
use crate::inspect::diff::Difference;
use crate::inspect::filter::Filter;
use crate::listing::Listing;
use crate::verify::verify;

use super::options::{Directories, age};
use super::{Cache, Gc, Ls};

/// Does `stacker gc`; returns what goes to stdout.
pub fn collect(directories: &Directories, (kind, sandbox): Insisted, arguments: &Gc) -> Result<String> {
    let older_than = arguments.older_than.as_deref().map(|text| age("--older-than", text)).transpose()?;
    let holder = Holder::start(&directories.stacker, &directories.roots, kind)?.insist(sandbox);
    let max_size = arguments.max_size.map(|size| size.as_u64());
    let Gc { keep_last, dry_run, .. } = *arguments;
    gc(directories, &holder, &Request { older_than, keep_last, max_size, spare: false, dry_run })
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
        Cache::Du { json } => {
            let (kind, sandbox) = insisted;
            let holder = Holder::start(&directories.stacker, &directories.roots, kind)?.insist(sandbox);
            let database = open_existing(&directories.stacker)?;
            Ok(crate::usage::report::usage(directories, &holder, &database)?.render(json))
        }
        Cache::Ls(arguments) => list(directories, &arguments),
        Cache::Diff { old, new, files, json } => diff(directories, [&old, &new], files).map(|found| found.render(json)),
        Cache::Show { name, json } => {
            let database = open_existing(&directories.stacker)?;
            let chosen = named(&all(directories, &database)?, &name)?;
            let entries =
                chosen.into_iter().map(|row| entry(directories, &database, row)).collect::<Result<Vec<_>>>()?;
            Ok(render_entries(&entries, json))
        }
    };
    Ok((text?, 0))
}

/// All results, also those that went.
fn all(directories: &Directories, database: &Database) -> Result<Vec<CacheRow>> {
    let mut rows = database.list()?;
    for row in &mut rows {
        if is_lost(directories, database, row)? {
            row.status = Status::Lost;
        }
    }
    rows.extend(database.list_evicted()?);
    Ok(rows)
}

/// Whether nothing is left of what a result stands for.
fn is_lost(directories: &Directories, database: &Database, row: &CacheRow) -> Result<bool> {
    let (Some(diff_id), Some(action)) = (row.diff_id, database.action(&row.key)?) else { return Ok(false) };
    let (chain, roots) = (action.base.push(diff_id), &directories.roots);
    if roots.delta(&chain).exists() || roots.tree(&chain).exists() {
        return Ok(false);
    }
    Ok(!database.tars(&diff_id)?.iter().any(|blob| directories.stacker.blob(blob).exists()))
}

fn list(directories: &Directories, arguments: &Ls) -> Result<String> {
    let span = |flag: &str, text: &Option<String>| text.as_deref().map(|text| age(flag, text)).transpose();
    let glob = |text: &String| {
        globset::Glob::new(text)
            .map(|glob| glob.compile_matcher())
            .map_err(|error| Error::Usage(format!("--layer {text:?}: {error}")))
    };
    let filter = Filter {
        layer: arguments.layer.as_ref().map(glob).transpose()?,
        older_than: span("--older-than", &arguments.older_than)?,
        newer_than: span("--newer-than", &arguments.newer_than)?,
        larger_than: arguments.larger_than.map(|size| size.as_u64()),
        status: arguments.statuses(),
        sort: arguments.sort,
    };
    let rows = all(directories, &open_existing(&directories.stacker)?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    Ok(render_list(&filter.apply(rows, now), arguments.json))
}

/// Two actions, and with `files` what came out of them.
fn diff(directories: &Directories, names: [&str; 2], files: bool) -> Result<Difference> {
    let database = open_existing(&directories.stacker)?;
    let rows = all(directories, &database)?;
    let [old, new] = names.map(|name| one(&rows, name));
    let (old, new) = (old?, new?);
    let action = |row: &CacheRow| match database.action(&row.key)? {
        Some(action) => Ok(action),
        None => Err(Error::Machine(format!("the action of {} is not in the database", row.key))),
    };
    let mut difference = Difference::of(&action(&old)?, &action(&new)?);
    if files {
        let (old, new) = (listing(directories, &old)?, listing(directories, &new)?);
        difference.files = Some(inspect::diff::files(old.as_ref(), new.as_ref())?);
    }
    Ok(difference)
}

/// What a result's layer holds; `None`: it has none.
fn listing(directories: &Directories, row: &CacheRow) -> Result<Option<Listing>> {
    let Some(diff_id) = &row.diff_id else { return Ok(None) };
    let path = directories.stacker.listing(diff_id);
    if !path.exists() {
        let key = row.key.short();
        return Err(Error::Usage(format!(
            "the list of what {key} holds is no longer kept; without --files its action is"
        )));
    }
    Listing::open(&path).map(Some)
}

/// The one result that a name stands for: of those that are there, else of those that went.
fn one(rows: &[CacheRow], name: &str) -> Result<CacheRow> {
    let found = named(rows, name)?;
    let there: Vec<&CacheRow> = found.iter().filter(|row| row.status != Status::Evicted).collect();
    match (there.as_slice(), found.as_slice()) {
        ([row], _) => Ok((*row).clone()),
        ([], [row]) => Ok(row.clone()),
        _ => {
            let keys = found.iter().map(|row| format!("{} ({})", row.key.first_digits(), row.kind));
            let keys = keys.collect::<Vec<_>>().join(", ");
            Err(Error::Usage(format!("{name} stands for several results; say the first digits of one: {keys}")))
        }
    }
}

/// By a layer's name, else by the first digits (four or more) of the key. By name, results that are there come before
/// those that went.
fn named(rows: &[CacheRow], name: &str) -> Result<Vec<CacheRow>> {
    let of_layer = |row: &&CacheRow| row.layers.iter().any(|layer| layer == name);
    let of_key = |row: &&CacheRow| name.len() >= 4 && row.key.hex().starts_with(name);
    let mut found: Vec<CacheRow> = rows.iter().filter(|row| of_layer(row) || of_key(row)).cloned().collect();
    if found.iter().any(|row| row.status != Status::Evicted) {
        found.retain(|row| row.status != Status::Evicted || of_key(&row));
    }
    match found.is_empty() {
        true => Err(Error::Usage(format!("nothing in the cache is named {name}; see stacker cache ls --status all"))),
        false => Ok(found),
    }
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
