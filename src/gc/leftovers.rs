//! What nothing refers to: of killed builds, of results that are gone, of images that nothing is built on any more.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::commit_point::CommitPoint;
use crate::database::Database;
use crate::error::{At, Result};
use crate::execute::FAILED_DRAFT;
use crate::pins::{Closed, Live, Pin};
use crate::place::layer_listing;
use crate::store::boot;
use crate::worker::message::Job;

use super::Gc;

impl Gc<'_> {
    /// Takes apart what is in the trash; nobody needs anything in it.
    pub(super) fn empty_trash(&mut self) -> Result<()> {
        let paths = self.names("trash")?.into_iter().map(|name| format!("trash/{name}")).collect::<Vec<_>>();
        if paths.is_empty() || self.dry_run {
            return Ok(());
        }
        self.job(Job::Remove { paths })
    }

    /// Removes what nothing refers to and no live build can be making. `before`: staged imports, and images that were
    /// built upon, go when they were last used before it, in seconds since 1970.
    pub(super) fn leftovers(&mut self, database: &Database, before: i64) -> Result<()> {
        let begun = SystemTime::now();
        let stacker = &self.directories.stacker.clone();
        let closed = Closed::wait(stacker)?;
        let live = Live::read(stacker, &closed)?;
        let made_before = live.since().map_or(begun, |since| since.min(begun));
        let used_before = UNIX_EPOCH + Duration::from_secs(before.max(0) as u64);
        if !self.dry_run {
            database.forget_bases(before, |base| live.holds(&Pin::Base(*base)))?;
        }
        let (chains, layers) = database.referenced()?;
        let shorts: HashSet<String> = chains.into_iter().chain(live.bases()).map(|chain| chain.short()).collect();
        // Directories of the workers.
        let mut gone = Vec::new();
        for directory in ["deltas", "trees"] {
            gone.extend(self.unnamed(directory, made_before, |name| shorts.contains(name))?);
        }
        gone.extend(self.unnamed("drafts", made_before, |name| name.starts_with(FAILED_DRAFT))?);
        gone.extend(self.unnamed("drafts", used_before.min(made_before), |name| !name.starts_with(FAILED_DRAFT))?);
        gone.extend(
            self.unnamed("imports", used_before.min(made_before), |name| live.holds(&Pin::Import(name.to_owned())))?,
        );
        for directory in ["nurseries", "imports"] {
            gone.extend(self.unnamed(directory, made_before, |name| !boot::is_aside(name))?);
        }
        gone.extend(self.in_nurseries(made_before)?);
        for path in &gone {
            self.gone(&format!("{path}, which nothing refers to"), std::slice::from_ref(path));
        }
        if !self.dry_run && !gone.is_empty() {
            self.job(Job::SetAside { paths: gone })?;
            CommitPoint::LeftoversSetAside.reached();
        }
        // Files of our own.
        let kept = database.remembered_layers()?;
        let listings: HashSet<String> = layers.iter().chain(&kept).map(layer_listing).collect();
        let blobs: HashSet<String> = database.known_blobs()?.iter().map(|blob| blob.hex()).collect();
        self.files(stacker.0.join("listings"), made_before, |name| {
            listings.contains(name) || name.starts_with("tree-")
        })?;
        self.files(stacker.0.join("blobs/sha256"), made_before, |name| blobs.contains(name))?;
        self.files(stacker.0.join("downloads"), used_before.min(made_before), |_| false)?;
        self.remote(&live, used_before.min(made_before))?;
        self.files(stacker.tmp(), made_before, |_| false)?;
        self.files(stacker.damaged(), used_before.min(made_before), |_| false)?;
        drop(closed);
        Ok(())
    }

    /// Entries of a directory of the workers that are not wanted and not younger than `before`.
    fn unnamed(&self, directory: &str, before: SystemTime, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut unnamed = Vec::new();
        for name in self.names(directory)? {
            let path = format!("{directory}/{name}");
            if !wanted(&name) && is_older(&self.directories.roots.0.join(&path), before) {
                unnamed.push(path);
            }
        }
        Ok(unnamed)
    }

    /// Drafts and deltas in nurseries to which no link leads, and nurseries without any whose tree is gone.
    fn in_nurseries(&self, before: SystemTime) -> Result<Vec<String>> {
        let roots = &self.directories.roots.0;
        let mut linked = HashSet::new();
        for directory in ["deltas", "drafts"] {
            let links = self.names(directory)?.into_iter();
            linked.extend(links.filter_map(|name| fs::read_link(roots.join(directory).join(name)).ok()));
        }
        let mut unlinked = Vec::new();
        for nursery in self.names("nurseries")? {
            let ours = format!("nurseries/{nursery}/.stacker");
            let names = self.names(&ours)?;
            let leads = |name: &&String| linked.contains(&Path::new("..").join(&ours).join(name));
            if names.iter().filter(leads).count() == 0 && !roots.join("trees").join(&nursery).exists() {
                if is_older(&roots.join("nurseries").join(&nursery), before) {
                    unlinked.push(format!("nurseries/{nursery}"));
                }
                continue;
            }
            let left = names.iter().filter(|name| !leads(name)).map(|name| format!("{ours}/{name}"));
            unlinked.extend(left.filter(|path| is_older(&roots.join(path), before)));
        }
        Ok(unlinked)
    }

    /// Removes files that are not wanted and not younger than `before`.
    pub(super) fn files(
        &mut self,
        directory: PathBuf,
        before: SystemTime,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<()> {
        for name in crate::record::names(&directory)? {
            let path = directory.join(&name);
            if wanted(&name) || !is_older(&path, before) {
                continue;
            }
            self.file_gone(&path, "which nothing refers to");
            if !self.dry_run {
                match path.is_dir() && !path.is_symlink() {
                    // The second place of a killed `stacker verify`.
                    true => fs::remove_dir_all(&path).at("remove", &path)?,
                    false => crate::record::remove(&path)?,
                }
                CommitPoint::LeftoverRemoved.reached();
            }
        }
        Ok(())
    }

    /// The names in a directory beneath the roots directory; none where there is no such directory.
    pub(super) fn names(&self, directory: &str) -> Result<Vec<String>> {
        let path = self.directories.roots.0.join(directory);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            other => other.at("read", &path)?,
        };
        entries.map(|entry| Ok(entry.at("read", &path)?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// Whether it got its name, or was used, before a moment; what cannot be looked at did not. By the time of the last
/// change: that of modification is an image's in much of what lies here.
pub(super) fn is_older(path: &Path, moment: SystemTime) -> bool {
    let Ok(found) = path.symlink_metadata() else { return false };
    let changed = Duration::new(found.ctime().max(0) as u64, found.ctime_nsec() as u32);
    UNIX_EPOCH + changed < moment
}
