//! Asking git, and what has changed since a commit.
//!
//! git is asked about the checkout that a path lies in, whatever variables of the caller say; it takes no lock, runs no
//! monitor that its configuration names, and is left to decide which owners' repositories it trusts.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// What git prints to stdout when it is run in a directory, or why there is nothing.
pub fn ask<S: AsRef<OsStr>>(directory: &Path, words: &[S]) -> Result<Vec<u8>, String> {
    let mut command = Command::new("git");
    command.args(["-c", "core.fsmonitor=false"]).args(words).current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_another(name)) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0");
    // A `.git` that is none must not lead to a repository around it.
    if let Some(above) = repository(directory).and_then(|repository| repository.parent().map(Path::to_path_buf)) {
        command.env("GIT_CEILING_DIRECTORIES", above);
    }
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => "git is not installed".to_owned(),
        _ => format!("cannot execute git: {error}"),
    })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let what = words.first().map(|word| word.as_ref().to_string_lossy().into_owned()).unwrap_or_default();
            Err(format!("git {what}: {said} ({})", output.status))
        }
    }
}

/// The nearest directory at or above this one that has a `.git`: a directory, or a file in submodules and worktrees.
pub fn repository(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    let found = directory.ancestors().find(|directory| directory.join(".git").symlink_metadata().is_ok());
    found.map(Path::to_path_buf)
}

/// Variables by which git would look elsewhere, as in a hook. What names configuration stays: that is where CI says
/// which repositories are safe.
fn is_of_another(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let configuration = name.starts_with(b"GIT_CONFIG_") && name != b"GIT_CONFIG_PARAMETERS";
    name.starts_with(b"GIT_") && !configuration && name != b"GIT_EXEC_PATH"
}

/// How the working tree differs from a commit.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Of the working tree, without links.
    root: PathBuf,
    /// The commit, in full.
    pub commit: String,
    /// By path relative to the root. Where nothing in a directory is tracked, the directory alone.
    changed: BTreeMap<PathBuf, Change>,
}

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The commit has nothing there.
    Added,
    /// There is nothing any more.
    Deleted,
    /// Content, mode or type.
    Modified,
}

impl Changes {
    /// Since a commit that the repository around `directory` knows by this name.
    pub fn since(directory: &Path, name: &str) -> Result<Changes> {
        let Some(repository) = repository(directory) else {
            let directory = directory.display();
            return Err(Error::Usage(format!("--since {name}: {directory} is in no git repository")));
        };
        let failed = |why: String| Error::Usage(format!("--since {name}: {why}"));
        let top = line(ask(directory, &["rev-parse", "--show-toplevel"]).map_err(failed)?);
        let root = PathBuf::from(top).canonicalize().unwrap_or(repository);
        let known =
            ask(&root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")]);
        let commit = known.map_err(|_| failed(format!("git knows no such commit in {}", root.display())))?;
        let commit = line(commit).to_string_lossy().into_owned();
        let differing = ["diff", "--name-status", "-z", "--no-renames", "--ignore-submodules=none", &commit, "--"];
        let mut changed = tracked(&ask(&root, &differing).map_err(failed)?);
        let others = ask(&root, &["ls-files", "--others", "--directory", "-z"]).map_err(failed)?;
        changed.extend(words(&others).map(|path| (path.components().collect(), Change::Added)));
        Ok(Changes { root, commit, changed })
    }

    /// The paths that differ at and below a path of the host; those above it stand for it where git says no more.
    pub fn touching(&self, path: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for relative in self.spelled(path) {
            let above = relative.ancestors().skip(1).filter(|above| self.changed.contains_key(*above));
            let below = self.changed.range(relative.clone()..).map(|(path, _)| path);
            let below = below.take_while(|path| path.starts_with(&relative));
            let rest = |changed: &Path| changed.strip_prefix(&relative).map(Path::to_path_buf).unwrap_or_default();
            found.extend(above.map(|_| path.to_path_buf()).chain(below.map(|changed| join(path, &rest(changed)))));
        }
        found
    }

    /// What the commit has at a path of the host, where that is something else than lies there.
    pub fn text(&self, path: &Path) -> Option<Result<String, String>> {
        let relative = self.spelled(path).pop()?;
        let known = |path: &Path| self.changed.get(path).map(|change| (path.to_path_buf(), *change));
        match relative.ancestors().find_map(known)? {
            (_, Change::Added) => Some(Err(format!("commit {} does not have it", self.commit))),
            (changed, _) if changed != relative => None,
            _ => {
                let name = [self.commit.as_bytes(), b":", relative.as_os_str().as_bytes()].concat();
                let bytes = ask(&self.root, &["show".into(), OsString::from_vec(name)]);
                Some(bytes.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())))
            }
        }
    }

    /// Paths below a directory of the host that the commit has and that are gone.
    pub fn deleted(&self, directory: &Path) -> Vec<PathBuf> {
        let is_deleted =
            |path: &PathBuf| self.spelled(path).iter().any(|it| self.changed.get(it) == Some(&Change::Deleted));
        self.touching(directory).into_iter().filter(is_deleted).collect()
    }

    /// A path of the host relative to the root: as it is written, and, where it is a link, where that leads.
    fn spelled(&self, path: &Path) -> Vec<PathBuf> {
        let written = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => real(parent).join(name),
            _ => path.to_path_buf(),
        };
        let led = real(path);
        let different = (led != written).then_some(led);
        let inside = |path: PathBuf| path.strip_prefix(&self.root).ok().map(Path::to_path_buf);
        std::iter::once(written).chain(different).filter_map(inside).collect()
    }
}

/// Without links and `..`, also where nothing is there, or no longer.
pub fn real(path: &Path) -> PathBuf {
    let there = |above: &&Path| above.symlink_metadata().is_ok();
    let (real, rest) = path
        .ancestors()
        .filter(there)
        .find_map(|above| Some((above.canonicalize().ok()?, path.strip_prefix(above).ok()?)))
        .unwrap_or_else(|| (PathBuf::new(), path));
    rest.components().fold(real, |mut path, component| {
        match component {
            Component::ParentDir => drop(path.pop()),
            component => path.push(component),
        }
        path
    })
}

/// Without a slash at the end where there is nothing to join.
fn join(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { path.to_path_buf() } else { path.join(rest) }
}

/// What `git diff --name-status -z` says.
fn tracked(bytes: &[u8]) -> BTreeMap<PathBuf, Change> {
    let mut words = words(bytes);
    let mut changed = BTreeMap::new();
    while let (Some(status), Some(path)) = (words.next(), words.next()) {
        let change = match status.as_os_str().as_bytes().first() {
            Some(b'A') => Change::Added,
            Some(b'D') => Change::Deleted,
            _ => Change::Modified,
        };
        changed.insert(path, change);
    }
    changed
}

fn words(bytes: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| PathBuf::from(OsStr::from_bytes(word)))
}

/// Without the line feed that git ends it with.
fn line(mut bytes: Vec<u8>) -> OsString {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    OsString::from_vec(bytes)
}
