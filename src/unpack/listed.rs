//! The listing of a tree in memory.

use std::collections::HashMap;
use std::fs::File;

use super::memory::{Index, Memory, ROOT};
use crate::digest::DiffId;
use crate::listing::{Entry, Kind, join};
use crate::seal::{check_name, seal_listed};
use crate::worker::message::{Failure, Sealed};

/// A layer that was listed without being unpacked.
pub struct Listed {
    memory: Memory,
    /// What was left out, and why.
    warnings: Vec<String>,
    /// The first name of each file that has several.
    first: HashMap<Index, Vec<u8>>,
    entries: Vec<Entry>,
}

impl Listed {
    pub(super) fn new(memory: Memory, warnings: Vec<String>) -> Listed {
        Listed { memory, warnings, first: HashMap::new(), entries: Vec::new() }
    }

    /// Writes the listing, as sealing writes that of the layer once it is unpacked.
    pub fn seal(mut self, diff_id: DiffId, listing_out: &mut File) -> Result<Sealed, Failure> {
        // What comes next is the last. Children stand right behind their directory, whiteouts before all others.
        let mut pending = vec![(ROOT, Vec::new())];
        while let Some((node, path)) = pending.pop() {
            self.add(node, &path);
            self.memory.names(node).try_for_each(|(name, _)| check_name(&path, name))?;
            for gone in [false, true] {
                let children = self.memory.names(node).rev().filter(|(_, child)| self.memory.is_gone(*child) == gone);
                pending.extend(children.map(|(name, child)| (child, join(&path, name))));
            }
        }
        seal_listed(&self.entries, diff_id, self.warnings, listing_out)
    }

    fn add(&mut self, node: Index, path: &[u8]) {
        let mut entry = Entry { path: path.to_vec(), ..self.memory.entry(node) };
        if self.memory.is_linked(node) {
            match self.first.get(&node) {
                Some(to) => entry.kind = Kind::HardLink { to: to.clone() },
                None => drop(self.first.insert(node, path.to_vec())),
            }
        }
        self.entries.push(entry);
    }
}
