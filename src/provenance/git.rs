//! What git calls the commit that a file's repository is at.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `git describe` of repositories, each asked once.
#[derive(Debug, Default)]
pub(super) struct Versions(HashMap<PathBuf, Option<String>>);

impl Versions {
    /// `None`: the file is in no repository, or git was asked in vain before. `Err` is a warning, given once for each
    /// repository.
    pub fn of(&mut self, file: &Path) -> Result<Option<String>, String> {
        let Some(repository) = file.parent().and_then(repository) else { return Ok(None) };
        if let Some(known) = self.0.get(&repository) {
            return Ok(known.clone());
        }
        let described = describe(&repository);
        self.0.insert(repository.clone(), described.clone().ok());
        described.map(Some).map_err(|why| {
            let repository = repository.display();
            format!("there is a .git in {repository}, but images get no git_version: {why}")
        })
    }
}

/// The commit that is checked out in a directory; `None`: it is in no repository, or git does not say.
pub(crate) fn commit(directory: &Path) -> Option<String> {
    git(&repository(directory)?, &["rev-parse", "--verify", "HEAD"]).ok()
}

/// The nearest directory, this one or above, that has a `.git`: a directory, or a file in submodules and worktrees. (Of
/// a file its path's own directory counts, not that of one which it may link to.)
fn repository(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    let found = directory.ancestors().find(|directory| directory.join(".git").symlink_metadata().is_ok());
    found.map(Path::to_path_buf)
}

fn describe(repository: &Path) -> Result<String, String> {
    git(repository, &["describe", "--tags", "--always", "--dirty"])
}

/// What git says. It takes no lock in the repository, runs no monitor that its configuration names, and it is left to
/// git which owners' repositories it trusts.
fn git(repository: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    command.args(["-c", "core.fsmonitor=false"]).args(words);
    command.current_dir(repository).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_another(name)) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0");
    // A `.git` that is none must not lead to a repository around it.
    if let Some(above) = repository.parent() {
        command.env("GIT_CEILING_DIRECTORIES", above);
    }
    let what = words.first().copied().unwrap_or_default();
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => "git is not installed".to_owned(),
        _ => format!("cannot execute git: {error}"),
    })?;
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ");
    let said = words(&output.stdout);
    match output.status.success() && !said.is_empty() {
        true => Ok(said),
        false => Err(format!("git {what}: {} ({})", words(&output.stderr), output.status)),
    }
}

/// Variables by which git would look elsewhere, as in a hook. What names configuration stays: that is where CI says
/// which repositories are safe.
fn is_of_another(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let configuration = name.starts_with(b"GIT_CONFIG_") && name != b"GIT_CONFIG_PARAMETERS";
    name.starts_with(b"GIT_") && !configuration && name != b"GIT_EXEC_PATH"
}
