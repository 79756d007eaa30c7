//! `stacker clean`: removes the layout, and the store unless it is the shared one.
//!
//! Nothing is removed that does not look like ours: a layout must have `oci-layout`, a store its database or
//! `store.json`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::options::Directories;
use crate::error::{At, Error, Result};
use crate::gc::strays;
use crate::holder::Holder;
use crate::place::{RootsDir, StackerDir};
use crate::worker::message::{Answer, Job};

/// Removes what `stacker build` made; the shared store only when `all` is asked for.
pub fn clean(directories: &Directories, all: bool, holder: &Holder) -> Result<()> {
    remove_layout(&directories.oci)?;
    if directories.shared && !all {
        return Ok(());
    }
    remove_roots(&directories.roots, holder)?;
    remove_stacker(&directories.stacker)
}

fn remove_layout(layout: &Path) -> Result<()> {
    if layout.join("oci-layout").is_file() {
        fs::remove_dir_all(layout).at("remove", layout)?;
    } else if layout.exists() {
        let layout = layout.display();
        return Err(Error::Usage(format!("{layout} is not an OCI layout; it is left alone")));
    }
    Ok(())
}

/// What subordinate ids own is removed inside the user namespace.
fn remove_roots(roots: &RootsDir, holder: &Holder) -> Result<()> {
    if !roots.store_json().is_file() {
        return Ok(());
    }
    holder.prepare()?;
    strays::adopt(roots, holder)?;
    let mut paths = Vec::new();
    for directory in RootsDir::DIRECTORIES {
        for name in names(&roots.0.join(directory))? {
            paths.push(format!("{directory}/{name}"));
        }
    }
    match holder.submit(Job::Remove { paths }, vec![])?.wait()? {
        Answer::Done => {}
        Answer::Failed(failure) => return Err(failure.error([&*roots.0])),
        other => return Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
    }
    for directory in RootsDir::DIRECTORIES {
        remove(&roots.0.join(directory))?;
    }
    remove(&roots.store_json())?;
    remove(&roots.0.join("boot.json"))?;
    // It may be where a file system is mounted; then it stays.
    let _ = fs::remove_dir(&roots.0);
    Ok(())
}

fn remove_stacker(stacker: &StackerDir) -> Result<()> {
    if !stacker.database().is_file() {
        return Ok(());
    }
    let database =
        ["stacker.db", "stacker.db-wal", "stacker.db-shm", "stacker.db.lock", "stacker.db.damaged", "pins.lock"]
            .map(|name| stacker.0.join(name));
    let directories = StackerDir::DIRECTORIES.map(|name| stacker.0.join(name));
    for path in database.iter().chain(&directories) {
        remove(path)?;
    }
    // Other things in it are not ours to remove; then it stays.
    let _ = fs::remove_dir(&stacker.0);
    Ok(())
}

fn remove(path: &PathBuf) -> Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        entries => entries
            .at("read", directory)?
            .map(|entry| Ok(entry.at("read", directory)?.file_name().to_string_lossy().into_owned()))
            .collect(),
    }
}
