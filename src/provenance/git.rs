//! What git calls the commit that a file's repository is at.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::git;

/// `git describe` of repositories, each asked once.
#[derive(Debug, Default)]
pub(super) struct Versions(HashMap<PathBuf, Option<String>>);

impl Versions {
    /// `None`: the file is in no repository, or git was asked in vain before. `Err` is a warning, given once for each
    /// repository.
    pub fn of(&mut self, file: &Path) -> Result<Option<String>, String> {
        // The path's own directory counts, not that of a file which it may link to.
        let Some(repository) = file.parent().and_then(git::repository) else { return Ok(None) };
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
    said(&git::repository(directory)?, &["rev-parse", "--verify", "HEAD"]).ok()
}

fn describe(repository: &Path) -> Result<String, String> {
    said(repository, &["describe", "--tags", "--always", "--dirty"])
}

fn said(repository: &Path, words: &[&str]) -> Result<String, String> {
    let said = git::ask(repository, words)?;
    let said = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
    if said.is_empty() { Err(format!("git {} says nothing", words.join(" "))) } else { Ok(said) }
}
