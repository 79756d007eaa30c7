//! Subordinate ids for a user.

use std::path::Path;

use crate::error::Result;
use crate::holder::{IDS, subordinate};

use super::{Done, Setup, run};

/// Below this, distributions give ids to users themselves.
const FIRST: u32 = 100_000;

impl Setup {
    pub(super) fn ids(&mut self, user: &str) -> Result<()> {
        for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
            let lines = subordinate(file)?;
            if lines.iter().any(|(owner, _, count)| owner == user && *count >= IDS) {
                println!("{file} gives ids to {user} already");
                continue;
            }
            let ends = lines.iter().map(|(_, first, count)| first.saturating_add(*count));
            let first = ends.max().unwrap_or(FIRST).max(FIRST);
            let range = format!("{first}-{}", first.saturating_add(IDS - 1));
            if self.step(&format!("give {user} the ids {range} in {file}")) {
                self.note(Done::Ids { user: user.to_owned(), file: file.into(), first })?;
                run("usermod", &[option, &range, user], "passwd")?;
            }
        }
        Ok(())
    }

    pub(super) fn take_ids(&self, user: &str, file: &Path, first: u32) -> Result<()> {
        let range = format!("{first}-{}", first.saturating_add(IDS - 1));
        let option = if file.ends_with("subuid") { "--del-subuids" } else { "--del-subgids" };
        match self.step(&format!("take the ids {range} from {user} in {}", file.display())) {
            true => run("usermod", &[option, &range, user], "passwd"),
            false => Ok(()),
        }
    }
}
