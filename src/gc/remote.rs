//! Copies of files from servers that no build used for long.

use std::collections::HashSet;
use std::fs::File;
use std::time::SystemTime;

use crate::error::Result;
use crate::pins::{Live, Pin};
use crate::record::names;
use crate::remote::{COPY, MARK, Note, PART, RESUME};

use super::Gc;
use super::leftovers::is_older;

impl Gc<'_> {
    /// Removes copies that were last used before a moment and that no live build relies on, what is written about them,
    /// and parts that were not gone on with since.
    pub(super) fn remote(&mut self, live: &Live, before: SystemTime) -> Result<()> {
        let directory = self.directories.stacker.remote();
        if !directory.is_dir() {
            return Ok(());
        }
        let names = names(&directory)?;
        let is_young = |name: &str| !is_older(&directory.join(name), before);
        let mut kept = HashSet::new();
        for name in &names {
            let Some(digest) = name.strip_prefix(COPY).and_then(|hex| format!("sha256:{hex}").parse().ok()) else {
                continue;
            };
            let mark = format!("{name}{MARK}");
            // A mark that is not there was not used either.
            let used = is_young(name) || (names.contains(&mark) && is_young(&mark));
            if used || live.holds(&Pin::Remote(digest)) {
                kept.extend([name.clone(), mark]);
            }
        }
        for name in &names {
            let path = directory.join(name);
            if let Some(note) = Note::read(&path)
                && kept.contains(&format!("{COPY}{}", note.sha256.hex()))
            {
                kept.insert(name.clone());
            }
            if let Some(url) = name.strip_suffix(PART)
                && (is_young(name) || File::open(&path).is_ok_and(|part| part.try_lock().is_err()))
            {
                kept.extend([name.clone(), format!("{url}{RESUME}")]);
            }
        }
        self.files(directory, before, |name| kept.contains(name))
    }
}
