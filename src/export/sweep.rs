//! Which blobs of a layout stacker may remove: those that it put there and that the index no longer leads to.
//!
//! `.stacker-blobs` holds one digest a line of each blob that stacker added. A line is appended before its blob gets its
//! name, so a killed process leaves no blob without a line; lines that are torn or lead to nothing do no harm. The file
//! is only rewritten under the layout's lock. A line that another process appends in that moment may be lost; its
//! writer notes it again before it commits.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::blobs::{remove_if_there, remove_leftovers, replace_file};
use super::index::{Index, digest_of};
use crate::commit_point::CommitPoint;
use crate::digest::BlobDigest;
use crate::error::{At, Result};
use crate::oci::{DocumentKind, MAX_DOCUMENT, blob_path, document_kind};

/// The name of the file in the layout's root.
const NOTES: &str = ".stacker-blobs";

/// The file that says which blobs are stacker's.
#[derive(Debug)]
pub(super) struct Notes {
    path: PathBuf,
}

impl Notes {
    /// Of the layout at `root`.
    pub fn of(root: &Path) -> Notes {
        Notes { path: root.join(NOTES) }
    }

    /// What is noted.
    pub fn read(&self) -> Result<BTreeSet<BlobDigest>> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error).at("read", &self.path),
        }
    }

    /// Adds lines; each write is one line or several whole ones.
    pub fn append<'a>(&self, digests: impl IntoIterator<Item = &'a BlobDigest>) -> Result<()> {
        let lines: String = digests.into_iter().map(|digest| format!("{digest}\n")).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = File::options().append(true).create(true).open(&self.path).at("open", &self.path)?;
        file.write_all(lines.as_bytes()).at("write", &self.path)?;
        CommitPoint::LayoutBlobNoted.reached();
        Ok(())
    }

    fn replace(&self, digests: &BTreeSet<BlobDigest>) -> Result<()> {
        let lines: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
        replace_file(&self.path, lines.as_bytes())
    }
}

/// Removes the noted blobs that `index` does not lead to, and what killed processes left. The lock must be held and
/// `index` be the one on disk. `images` says what some manifests lead to, the others are read.
pub(super) fn sweep(root: &Path, index: &Index, images: &HashMap<BlobDigest, Vec<BlobDigest>>) -> Result<()> {
    let notes = Notes::of(root);
    let noted = notes.read()?;
    let live = reachable(root, index, images)?;
    let (kept, gone): (BTreeSet<_>, BTreeSet<_>) = noted.iter().copied().partition(|digest| live.contains(digest));
    for digest in &gone {
        remove_if_there(&blob_path(root, digest))?;
        CommitPoint::LayoutBlobRemoved.reached();
    }
    if !gone.is_empty() {
        notes.replace(&kept)?;
    }
    remove_leftovers(root)
}

/// Every blob that the index leads to. A document that is missing or broken leads nowhere: its image can not be used.
fn reachable(
    root: &Path,
    index: &Index,
    images: &HashMap<BlobDigest, Vec<BlobDigest>>,
) -> Result<BTreeSet<BlobDigest>> {
    let mut live = BTreeSet::new();
    let mut open: Vec<Value> = index.entries.clone();
    while let Some(descriptor) = open.pop() {
        let Some(digest) = digest_of(&descriptor) else { continue };
        let media_type = descriptor.get("mediaType").and_then(Value::as_str).unwrap_or_default();
        if !live.insert(digest) || document_kind(&media_type.into()) == DocumentKind::Other {
            continue;
        }
        if let Some(blobs) = images.get(&digest) {
            live.extend(blobs);
            continue;
        }
        let Some(document) = read(&blob_path(root, &digest))? else { continue };
        let list = |name: &str| document.get(name).and_then(Value::as_array).into_iter().flatten();
        live.extend(list("layers").chain(document.get("config")).filter_map(digest_of));
        open.extend(list("manifests").chain(document.get("subject")).cloned());
    }
    Ok(live)
}

fn read(path: &Path) -> Result<Option<Value>> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() <= MAX_DOCUMENT => {
            let bytes = std::fs::read(path).at("read", path)?;
            Ok(serde_json::from_slice(&bytes).ok())
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("stat", path),
    }
}
