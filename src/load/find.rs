//! `--all`: every stackerfile below a directory.
//!
//! Ignore files count where they lie inside the tree, whether or not it is a repository (but for `recursive-build`, which
//! knows none); nothing outside of it does, so that two people with the same tree find the same files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use ignore::{DirEntry, WalkBuilder, WalkState};
use regex::Regex;

use crate::error::{At, Error, Result};

use super::Options;

/// The stackerfiles below a directory, sorted by path.
pub fn find(dir: &Path, options: &Options) -> Result<Vec<PathBuf>> {
    let dir = options.absolute(dir);
    if !std::fs::metadata(&dir).at("read", &dir)?.is_dir() {
        return Err(Error::Usage(format!("{} is not a directory", dir.display())));
    }
    let pattern = options.pattern();
    let (sender, receiver) = mpsc::channel();
    walk(&dir, options).build_parallel().run(|| {
        let sender = sender.clone();
        let pattern = &pattern;
        Box::new(move |entry| {
            let wanted = visit(entry, pattern).is_none_or(|found| sender.send(found).is_ok());
            if wanted { WalkState::Continue } else { WalkState::Quit }
        })
    });
    drop(sender);
    let mut files = receiver.into_iter().collect::<Result<Vec<PathBuf>>>()?;
    files.sort();
    if files.is_empty() {
        let dir = dir.display();
        return Err(Error::Build(format!("there is no stackerfile below {dir}: no file matches {pattern}")));
    }
    Ok(files)
}

fn walk(dir: &Path, options: &Options) -> WalkBuilder {
    let excluded = excluded(dir, &options.exclude);
    let mut walk = WalkBuilder::new(dir);
    walk.standard_filters(false)
        .git_ignore(!options.every_file)
        .require_git(false)
        .follow_links(false)
        .filter_entry(move |entry| entry.file_name() != ".git" && !excluded.contains(entry.path()));
    if !options.every_file {
        walk.add_custom_ignore_filename(".stackerignore");
    }
    walk
}

/// A stackerfile, or a reason not to trust the walk; `None` for everything else.
fn visit(entry: Result<DirEntry, ignore::Error>, pattern: &Regex) -> Option<Result<PathBuf>> {
    let entry = match entry {
        Ok(entry) => entry,
        Err(error) => return failure(error).map(Err),
    };
    let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
    let matches = is_file && pattern.is_match(&entry.path().to_string_lossy());
    matches.then(|| Ok(entry.into_path()))
}

/// What cannot be read may hold stackerfiles; what went away meanwhile does not.
fn failure(error: ignore::Error) -> Option<Error> {
    let gone = error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    (!gone)
        .then(|| Error::Build(format!("cannot look for stackerfiles: {error}\nname it in a .stackerignore to pass it")))
}

/// stacker's own directories, spelled as the walk will meet them.
fn excluded(dir: &Path, exclude: &[PathBuf]) -> HashSet<PathBuf> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let root = real(dir);
    let spelled = |path: &PathBuf| real(path).strip_prefix(&root).ok().map(|rest| dir.join(rest));
    exclude.iter().filter_map(spelled).chain(exclude.iter().cloned()).collect()
}
