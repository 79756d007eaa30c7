//! Imports on demand: staged beneath `imports` of the roots directory, once for the same files, owners and times.

use std::collections::HashMap;
use std::fs::{self, File};

use crate::action::Attributes;
use crate::commit_point::CommitPoint;
use crate::digest::{Chain, DiffId, Key, TreeDigest};
use crate::error::{At, Error, Result};
use crate::pins::Pin;
use crate::resolve::HostPath;
use crate::worker::message::{Answer, Job};

use super::site::{BlobPlace, Lost, Site};

impl Site {
    /// A host import under its name beneath `imports`, staged if it is not there. `None`: the source is no longer what
    /// the key assumed.
    pub fn have_host_import(
        &self,
        at: &HostPath,
        tree: TreeDigest,
        attributes: Attributes,
        time: i64,
    ) -> Result<Option<String>> {
        let name = import_name(tree, attributes, time);
        self.in_turn(format!("import {name}"), || {
            if self.has_import(&name)? {
                return Ok(Some(name));
            }
            let Some(tmp) = self.stage_host(at, tree, attributes, time)? else { return Ok(None) };
            self.keep_import(&tmp, &name)?;
            Ok(Some(name))
        })
    }

    /// Copies a host import to a fresh directory beneath `imports`.
    pub fn stage_host(
        &self,
        at: &HostPath,
        tree: TreeDigest,
        attributes: Attributes,
        time: i64,
    ) -> Result<Option<String>> {
        let ready = self.ready()?;
        let tmp = self.fresh_import()?;
        let directory = self.roots.import(&tmp);
        fs::create_dir(&directory).at("create", &directory)?;
        std::os::unix::fs::chown(&directory, Some(ready.root.0), Some(ready.root.1)).at("chown", &directory)?;
        let staged = crate::resolve::stage(&at.path, &self.trees[at], &attributes, time, &directory, ready.root)?;
        CommitPoint::HostImportCopied.reached();
        if staged != tree {
            self.remove(vec![format!("imports/{tmp}")])?;
            return Ok(None);
        }
        if attributes.uid.is_some() || attributes.gid.is_some() {
            self.job(Job::Own { name: tmp.clone(), attributes, time }, vec![])?;
        }
        Ok(Some(tmp))
    }

    /// A `stacker://` import under its name beneath `imports`.
    pub fn have_layer_import(
        &self,
        from: &(Chain, Vec<u8>),
        tree: TreeDigest,
        attributes: Attributes,
        time: i64,
        blobs: &HashMap<DiffId, BlobPlace>,
    ) -> Result<String, Lost> {
        let name = import_name(tree, attributes, time);
        self.in_turn(format!("import {name}"), || {
            if !self.has_import(&name)? {
                let tmp = self.stage_layer(from, tree, attributes, time, blobs)?;
                self.keep_import(&tmp, &name)?;
            }
            Ok(name)
        })
    }

    /// Copies a path of a layer to a fresh directory beneath `imports`.
    pub fn stage_layer(
        &self,
        (chain, path): &(Chain, Vec<u8>),
        tree: TreeDigest,
        attributes: Attributes,
        time: i64,
        blobs: &HashMap<DiffId, BlobPlace>,
    ) -> Result<String, Lost> {
        // What could be learned is known: the layer was decided before this step could be.
        self.have_chain(chain, blobs, false)?;
        let tmp = self.fresh_import()?;
        let job = Job::StageFromLayer { chain: chain.clone(), path: path.clone(), attributes, time, name: tmp.clone() };
        match self.job(job, vec![])? {
            Answer::Staged(found) if found == tree => Ok(tmp),
            Answer::Staged(found) => Err(Error::Machine(format!(
                "{} of layer {} is damaged in the store: its listing says {tree}, its files are {found}",
                String::from_utf8_lossy(path),
                chain.id()
            ))
            .into()),
            other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}")).into()),
        }
    }

    /// A name beneath `imports` that nobody else uses. What will be there stays: gc takes every import that nobody relies
    /// on, also one that is not yet complete.
    fn fresh_import(&self) -> Result<String> {
        let tmp = self.unique();
        self.pins.pin([Pin::Import(tmp.clone())], || Ok(()))?;
        Ok(tmp)
    }

    /// Whether a staged tree is there. From then on it stays, or what will have its name.
    pub(super) fn has_import(&self, name: &str) -> Result<bool> {
        let path = self.roots.import(name);
        self.pins.pin([Pin::Import(name.to_owned())], || {
            let there = path.exists();
            if there {
                // When it was last used, for gc. Where that cannot be written it is taken for older than it is.
                let now = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
                let _ = File::open(&path).and_then(|directory| directory.set_times(now));
            }
            Ok(there)
        })
    }

    pub(super) fn keep_import(&self, tmp: &str, name: &str) -> Result<()> {
        let to = self.roots.import(name);
        match fs::rename(self.roots.import(tmp), &to) {
            Ok(()) => {
                CommitPoint::ImportNamed.reached();
                Ok(())
            }
            // Another process was first.
            Err(_) if to.exists() => self.remove(vec![format!("imports/{tmp}")]),
            Err(error) => Err(error).at("rename to", to),
        }
    }
}

/// The name beneath `imports` of a staged tree: the same files with the same owners and times are staged once.
pub(super) fn import_name(tree: TreeDigest, attributes: Attributes, time: i64) -> String {
    Key::of(format!("{tree}{} {time}", attributes.words()).as_bytes()).short()
}
