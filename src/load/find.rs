//! `--all`: every stackerfile below a directory.
//!
//! Ignore files count where they lie inside the tree, whether or not it is a repository (but for `recursive-build`, which
//! knows none); nothing outside of it does, so that two people with the same tree find the same files. The names of all
//! that is met on the way are kept for the imports, which take in what git ignores too.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use regex::Regex;
use rustix::io::Errno;

use crate::error::{At, Error, Result};
use crate::names::{self, Kind, KnownNames, Read};

use super::Options;
use super::ignored::Rules;

/// What is below a directory.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The stackerfiles, sorted by path.
    pub files: Vec<PathBuf>,
    /// What the directories on the way hold.
    pub names: KnownNames,
}

/// The stackerfiles below a directory. Level by level, since a tree may be deeper than a thread's stack.
pub fn find(dir: &Path, options: &Options) -> Result<Found> {
    let dir = options.absolute(dir);
    if !std::fs::metadata(&dir).at("read", &dir)?.is_dir() {
        return Err(Error::Usage(format!("{} is not a directory", dir.display())));
    }
    let excluded = excluded(&dir, &options.exclude);
    let search = Search { pattern: options.pattern(), excluded, every_file: options.every_file };
    let mut found = Found { files: Vec::new(), names: KnownNames::below(&dir) };
    let mut level = vec![Below { path: dir.clone(), rules: None, is_root: true }];
    while !level.is_empty() {
        let visited: Vec<Option<Visited>> =
            level.into_par_iter().map(|below| search.visit(below)).collect::<Result<_>>()?;
        level = Vec::new();
        found.names.reserve(visited.len());
        for visited in visited.into_iter().flatten() {
            found.files.extend(visited.files);
            level.extend(visited.below);
            found.names.keep(visited.path, visited.read);
        }
    }
    found.files.sort();
    if found.files.is_empty() {
        let (dir, pattern) = (dir.display(), search.pattern);
        return Err(Error::Build(format!("there is no stackerfile below {dir}: no file matches {pattern}")));
    }
    Ok(found)
}

struct Search {
    pattern: Regex,
    excluded: HashSet<PathBuf>,
    every_file: bool,
}

/// A directory that is to be looked into.
struct Below {
    path: PathBuf,
    /// Those of the directories above it.
    rules: Option<Arc<Rules>>,
    is_root: bool,
}

/// A directory that was looked into.
struct Visited {
    path: PathBuf,
    read: Read,
    files: Vec<PathBuf>,
    below: Vec<Below>,
}

impl Search {
    /// `None`: it has just gone.
    fn visit(&self, Below { path, rules, is_root }: Below) -> Result<Option<Visited>> {
        let read = match names::read(&path, is_root) {
            Ok(read) => read,
            // It has just gone, or made place for a link or a file.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(unreadable(&path, &error.into())),
        };
        let rules = match self.every_file {
            true => None,
            false => Rules::of(&path, &read.names, rules),
        };
        let (mut files, mut below) = (Vec::new(), Vec::new());
        // Nearly no name is wanted, so that no path is made for the others.
        let mut text = path.as_os_str().as_bytes().to_vec();
        if text.last() != Some(&b'/') {
            text.push(b'/');
        }
        let length = text.len();
        for name in read.names.iter() {
            text.truncate(length);
            text.extend_from_slice(name.name.to_bytes());
            let at = Path::new(OsStr::from_bytes(&text));
            let ignored = |is_dir| rules.as_ref().is_some_and(|rules| rules.ignore(at, is_dir));
            match name.kind {
                Kind::Directory if name.name.to_bytes() == b".git" || self.excluded.contains(at) || ignored(true) => {}
                Kind::Directory => below.push(Below { path: at.into(), rules: rules.clone(), is_root: false }),
                Kind::File if self.pattern.is_match(&String::from_utf8_lossy(&text)) && !ignored(false) => {
                    files.push(std::ffi::OsString::from_vec(text.clone()).into());
                }
                Kind::File | Kind::Other => {}
            }
        }
        Ok(Some(Visited { path, read, files, below }))
    }
}

/// What cannot be read may hold stackerfiles.
fn unreadable(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    Error::Build(format!("cannot look for stackerfiles: {path}: {error}\nname it in a .stackerignore to pass it"))
}

/// stacker's own directories, spelled as the walk will meet them.
fn excluded(dir: &Path, exclude: &[PathBuf]) -> HashSet<PathBuf> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let root = real(dir);
    let spelled = |path: &PathBuf| real(path).strip_prefix(&root).ok().map(|rest| dir.join(rest));
    exclude.iter().filter_map(spelled).chain(exclude.iter().cloned()).collect()
}
