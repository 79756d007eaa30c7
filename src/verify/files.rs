//! Files of the stacker directory: listings of import trees, blobs, and how a damaged file is set aside.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Verify;
use super::known::Known;
use crate::digest::{BlobDigest, TreeDigest};
use crate::error::{At, Result};
use crate::listing::{self, Entry, Kind, Listing, order, tree_digest};
use crate::pins::Pin;
use crate::place::StackerDir;
use crate::record::{LayerInfo, names};
use crate::resolve::sha256_file;

/// Moves a file to `damaged/`.
///
/// A blob may be the same file as one of a layout: that one is emptied, so that the next export sees that it is not
/// there, which it does by size.
pub(super) fn set_aside(stacker: &StackerDir, kind: &str, path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).at("stat", path)?;
    if !found.is_file() || found.nlink() == 1 {
        return fs::rename(path, place(stacker, kind, path)).at("rename", path);
    }
    copy_aside(stacker, kind, path)?;
    OpenOptions::new().write(true).truncate(true).open(path).at("empty", path)?;
    crate::record::remove(path)
}

/// Copies a file to `damaged/`.
pub(super) fn copy_aside(stacker: &StackerDir, kind: &str, path: &Path) -> Result<()> {
    fs::copy(path, place(stacker, kind, path)).map(drop).at("copy", path)
}

/// A free name in `damaged/`.
fn place(stacker: &StackerDir, kind: &str, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let place = |count: u32| match count {
        0 => stacker.damaged().join(format!("{kind}-{name}")),
        count => stacker.damaged().join(format!("{kind}-{name}.{count}")),
    };
    (0..).map(place).find(|place| place.symlink_metadata().is_err()).unwrap_or_else(|| place(0))
}

/// What the file itself shows to be wrong; `None` also where there is no file. `shared`: workers read it.
pub(super) fn wrong_file(path: &Path, owner: u32, shared: bool) -> Option<String> {
    let found = fs::symlink_metadata(path).ok()?;
    if !found.is_file() {
        return Some("is no file".to_owned());
    }
    if found.uid() != owner {
        return Some(format!("belongs to user {}, should be {owner}", found.uid()));
    }
    (shared && found.mode() & 0o004 == 0).then(|| "workers cannot read it".to_owned())
}

/// Reads a whole listing; `None` for a text that nobody would write. Also says what it holds.
pub(crate) fn whole_listing(path: &Path) -> Option<(Vec<Entry>, LayerInfo)> {
    let listing = Listing::open(path).ok()?;
    let entries: Vec<Entry> = listing.entries().collect::<Result<_>>().ok()?;
    let mut text = Vec::new();
    listing::write(entries.iter(), &mut text).ok()?;
    let sorted = entries.windows(2).all(|pair| order(&pair[0], &pair[1]).is_lt());
    let size = |entry: &Entry| match entry.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    };
    let info = LayerInfo {
        newest: entries.iter().map(|entry| entry.mtime).max().unwrap_or_default(),
        entries: entries.len() as u64,
        bytes: entries.iter().map(size).fold(0, u64::wrapping_add),
        tar_bytes: 0,
    };
    (sorted && text == listing.bytes()).then_some((entries, info))
}

impl Verify<'_> {
    /// Compressed layers: the size that the database knows; with `deep`, the digest that is their name.
    pub(super) fn blobs(&mut self, known: &Known) -> Result<()> {
        let sizes = self.database.blob_sizes()?;
        let of_bases = self.database.base_blobs()?;
        let directory = self.directories.stacker.0.join("blobs/sha256");
        for name in names(&directory)? {
            // Of another name it is gc's.
            let Ok(digest) = format!("sha256:{name}").parse::<BlobDigest>() else { continue };
            let path = directory.join(&name);
            let (row, of_base) = (sizes.get(&digest), of_bases.get(&digest));
            self.report.checked.blobs += 1;
            let size = row.map(|(_, size)| *size).or(of_base.map(|(size, _)| *size));
            let Some(why) = self.wrong_blob(&path, &digest, size) else { continue };
            let layer = row.and_then(|(diff_id, _)| known.layers.get(diff_id));
            let of = match (layer, of_base) {
                (Some(layer), _) => &layer.of,
                (None, Some(_)) => "a base image",
                (None, None) => "nothing",
            };
            let mut pins = layer.map_or_else(Vec::new, |layer| layer.pins.clone());
            pins.extend(of_base.iter().flat_map(|(_, chains)| chains).map(|chain| Pin::Base(*chain)));
            let done = self.set_file_aside("blob", &path, &pins)?;
            self.damaged(format!("blob of {of}"), &path, why, done);
        }
        for (digest, (diff_id, _)) in sizes {
            let path = self.directories.stacker.blob(&digest);
            if path.symlink_metadata().is_err()
                && let Some(layer) = known.layers.get(&diff_id)
                && !self.report.damaged.iter().any(|found| found.path == path)
            {
                self.note(format!("blob of {}", layer.of), &path, "missing", "made again when it is needed");
            }
        }
        Ok(())
    }

    /// What is wrong with a file that is named by its sha256.
    pub(super) fn wrong_blob(&self, path: &Path, digest: &BlobDigest, size: Option<u64>) -> Option<String> {
        if let Some(why) = wrong_file(path, self.owner, false) {
            return Some(why);
        }
        // Removed meanwhile, by gc: nothing is wrong.
        let found = path.metadata().ok()?.len();
        if let Some(size) = size.filter(|size| *size != found) {
            return Some(format!("{found} bytes, should be {size}"));
        }
        if !self.deep {
            return None;
        }
        match sha256_file(path).map(BlobDigest) {
            Err(_) if !path.exists() => None,
            Err(error) => Some(error.to_string()),
            Ok(found) => (found != *digest).then(|| format!("its bytes have the digest {found}")),
        }
    }

    /// Listings of import trees, which are named by what they say (but for times, which nobody asks them for).
    pub(super) fn import_trees(&mut self) -> Result<()> {
        let directory = self.directories.stacker.0.join("listings");
        for name in names(&directory)? {
            let Some(digest) = name.strip_prefix("tree-").and_then(|hex| hex.parse::<TreeDigest>().ok()) else {
                continue;
            };
            let path = directory.join(&name);
            self.report.checked.listings += 1;
            let why = match wrong_file(&path, self.owner, false) {
                Some(why) => why,
                None => match whole_listing(&path) {
                    Some((entries, _)) if tree_digest(&entries) == digest => continue,
                    Some(_) => "is not of the tree that its name says".to_owned(),
                    None if !path.exists() => continue,
                    None => "is no whole listing".to_owned(),
                },
            };
            let done = self.set_file_aside("listing", &path, &[])?;
            self.damaged("listing of an import".to_owned(), &path, why, done);
        }
        Ok(())
    }
}

/// The first of some paths that is there.
pub(super) fn first_there(paths: &[PathBuf]) -> Option<&PathBuf> {
    paths.iter().find(|path| path.symlink_metadata().is_ok())
}
