//! Writing images into a layout that other tools, and other stackers, use at the same time.
//!
//! Blobs are put without any lock. The commit takes the lock, puts again what a sweep of another process has removed
//! meanwhile, merges its tags into the index as it is *now*, replaces it, and sweeps. Killed at any point it leaves
//! the old index or the new one, each complete, and blobs that a later commit sweeps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use oci_spec::image::{Descriptor, MediaType, PlatformBuilder};
use serde_json::Value;

use super::blobs::{clone_file, create_file, file_size, write_file};
use super::index::Index;
use super::state::{Document, ImageState, descriptor};
use super::sweep::{Notes, sweep};
use crate::commit_point::CommitPoint;
use crate::digest::BlobDigest;
use crate::error::{At, Error, Result};
use crate::oci::{REF_NAME, blob_path};

const LOCK: &str = ".stacker.lock";

/// A layout that is being written to.
#[derive(Debug)]
pub struct Export {
    root: PathBuf,
    /// As it was when the layout was opened.
    index: Index,
    /// What the tags of `index` lead to.
    tagged: HashMap<String, BlobDigest>,
    notes: Notes,
    pending: Mutex<Pending>,
}

/// A tag of the layout after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The tag.
    pub tag: String,
    /// Of the manifest that it leads to.
    pub digest: BlobDigest,
    /// It led elsewhere, or nowhere, before.
    pub changed: bool,
}

/// What a commit will do.
#[derive(Debug, Default)]
struct Pending {
    /// Descriptors for the index by tag.
    entries: BTreeMap<String, Value>,
    /// Every blob that the entries need.
    blobs: BTreeMap<BlobDigest, Origin>,
    /// Those that were not there before.
    added: BTreeSet<BlobDigest>,
    /// Blobs that were seen in the layout, with their sizes.
    seen: HashMap<BlobDigest, u64>,
    /// What the manifests of this build lead to, whether they are new or not.
    images: HashMap<BlobDigest, Vec<BlobDigest>>,
}

/// Where the bytes of a blob come from.
#[derive(Clone, Debug)]
enum Origin {
    File { source: PathBuf, size: u64 },
    Bytes(Vec<u8>),
}

impl Export {
    /// Opens the layout at `oci_dir`, making it where there is none. A directory with other things in it is refused.
    pub fn open(oci_dir: &Path) -> Result<Export> {
        create(oci_dir)?;
        let index = Index::read(&oci_dir.join("index.json"))?.unwrap_or_else(Index::empty);
        let root = oci_dir.to_path_buf();
        let tagged = index.digests().into_iter().map(|(tag, digest)| (tag.to_owned(), digest)).collect();
        Ok(Export { notes: Notes::of(&root), root, index, tagged, pending: Mutex::default() })
    }

    /// Whether `tag` leads to this manifest already and all blobs are there, by name and size.
    fn is_current(&self, image: &ImageState, tag: &str, config: &Document, manifest: &Document) -> bool {
        self.tagged.get(tag) == Some(&manifest.digest)
            && [manifest, config].iter().all(|document| self.has(&document.digest, document.bytes.len() as u64))
            && image.layers.iter().all(|layer| self.has(&layer.blob, layer.size))
    }

    /// Puts all blobs of an image, its config and its manifest, and remembers the tag for the commit. An image that is
    /// current already adds nothing.
    pub fn put_image(&self, image: &ImageState, tag: &str) -> Result<()> {
        let config = image.config_document();
        let manifest = image.manifest(&config);
        let leads_to = image.layers.iter().map(|layer| layer.blob).chain([config.digest]).collect();
        self.pending().images.insert(manifest.digest, leads_to);
        if self.is_current(image, tag, &config, &manifest) {
            self.pending().entries.remove(tag);
            return Ok(());
        }
        for layer in &image.layers {
            let origin = Origin::File { source: layer.source.clone(), size: layer.size };
            self.put(&layer.blob, origin)?;
        }
        let entry = entry(image, tag, manifest.bytes.len() as u64, &manifest.digest);
        self.put(&config.digest, Origin::Bytes(config.bytes))?;
        self.put(&manifest.digest, Origin::Bytes(manifest.bytes))?;
        let mut json = serde_json::to_value(&entry).expect("a descriptor is always JSON");
        json.sort_all_objects();
        self.pending().entries.insert(tag.to_owned(), json);
        Ok(())
    }

    /// Puts all that an entry of another layout leads to, as it is there, and remembers the tag for the commit.
    pub fn put_copy(&self, from: &Path, entry: &Descriptor, blobs: &[(BlobDigest, u64)], tag: &str) -> Result<()> {
        for (digest, size) in blobs {
            self.put(digest, Origin::File { source: blob_path(from, digest), size: *size })?;
        }
        let mut entry = entry.clone();
        let mut annotations = entry.annotations().clone().unwrap_or_default();
        annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        entry.set_annotations(Some(annotations));
        let mut json = serde_json::to_value(&entry).expect("a descriptor is always JSON");
        json.sort_all_objects();
        self.pending().entries.insert(tag.to_owned(), json);
        Ok(())
    }

    /// Makes the tags visible. `tag_order` lists the tags of this build in the order of a serial build; the answer
    /// names those of them that the layout has then. Nothing is written when nothing changes.
    pub fn commit(self, tag_order: &[String]) -> Result<Vec<Written>> {
        let Export { root, index: before, notes, pending, .. } = self;
        let Pending { entries, blobs, added, images, .. } =
            pending.into_inner().unwrap_or_else(|lock| lock.into_inner());
        if entries.is_empty() && before.is_in(tag_order) {
            return Ok(written(&before, &before, tag_order));
        }
        let path = root.join("index.json");
        let _lock = lock(&root)?;
        let before = Index::read(&path)?.unwrap_or_else(Index::empty);
        let mut added = added;
        for (digest, origin) in &blobs {
            if !is_there(&root, digest, origin.size()) {
                added.insert(*digest);
            }
        }
        let noted = notes.read()?;
        notes.append(added.difference(&noted))?;
        for (digest, origin) in &blobs {
            origin.put(&root, digest)?;
        }
        let after = before.merged(&entries, tag_order);
        if after != before {
            write_file(&root, &path, &after.to_bytes())?;
            CommitPoint::IndexWritten.reached();
        }
        sweep(&root, &after, &images)?;
        Ok(written(&before, &after, tag_order))
    }

    fn put(&self, digest: &BlobDigest, origin: Origin) -> Result<()> {
        if !self.has(digest, origin.size()) {
            self.notes.append([digest])?;
            origin.put(&self.root, digest)?;
            self.pending().added.insert(*digest);
        }
        self.pending().blobs.insert(*digest, origin);
        Ok(())
    }

    /// Looks on disk once for each blob.
    fn has(&self, digest: &BlobDigest, size: u64) -> bool {
        if let Some(seen) = self.pending().seen.get(digest) {
            return size == *seen;
        }
        let Some(found) = size_of(&self.root, digest) else { return false };
        self.pending().seen.insert(*digest, found);
        size == found
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(|lock| lock.into_inner())
    }
}

impl Origin {
    fn size(&self) -> u64 {
        match self {
            Origin::File { size, .. } => *size,
            Origin::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Makes the blob, unless it is there with the right size.
    fn put(&self, root: &Path, digest: &BlobDigest) -> Result<()> {
        if is_there(root, digest, self.size()) {
            return Ok(());
        }
        let target = blob_path(root, digest);
        match self {
            Origin::Bytes(bytes) => write_file(root, &target, bytes)?,
            Origin::File { source, size } => {
                let found = std::fs::metadata(source).at("stat", source)?.len();
                if *size != found {
                    return Err(Error::Machine(format!(
                        "blob {digest} is damaged: {} has {found} bytes, expected {size}",
                        source.display()
                    )));
                }
                clone_file(root, source, &target)?;
            }
        }
        CommitPoint::LayoutBlobNamed.reached();
        Ok(())
    }
}

fn size_of(root: &Path, digest: &BlobDigest) -> Option<u64> {
    file_size(&blob_path(root, digest))
}

fn is_there(root: &Path, digest: &BlobDigest, size: u64) -> bool {
    size_of(root, digest) == Some(size)
}

/// The descriptor of an image in the index.
fn entry(image: &ImageState, tag: &str, size: u64, digest: &BlobDigest) -> Descriptor {
    let mut platform = PlatformBuilder::default()
        .architecture(image.platform.arch.as_str())
        .os(image.platform.os.as_str())
        .build()
        .expect("all that a platform needs was set");
    platform.set_variant(image.config.spec().variant().clone());
    let mut entry = descriptor(MediaType::ImageManifest, size, digest);
    entry.set_annotations(Some([(REF_NAME.to_owned(), tag.to_owned())].into()));
    entry.set_platform(Some(platform));
    entry
}

fn written(before: &Index, after: &Index, tags: &[String]) -> Vec<Written> {
    let (before, after) = (before.digests(), after.digests());
    let one = |tag: &String| {
        let digest = *after.get(tag.as_str())?;
        Some(Written { tag: tag.clone(), digest, changed: before.get(tag.as_str()) != Some(&digest) })
    };
    tags.iter().filter_map(one).collect()
}

/// Waits for other writers; the lock ends with the file that is given back.
fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
    file.lock().at("lock", &path)?;
    Ok(file)
}

/// Makes what a layout needs; several processes may do so at once.
fn create(root: &Path) -> Result<()> {
    let marker = root.join("oci-layout");
    if !marker.exists() {
        refuse_other_directories(root)?;
    }
    let blobs = root.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).at("create", &blobs)?;
    let index = root.join("index.json");
    if !index.exists() {
        create_file(&index, &Index::empty().to_bytes(), root)?;
    }
    if !marker.exists() {
        create_file(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#, root)?;
        CommitPoint::LayoutMade.reached();
    }
    Ok(())
}

/// A directory without `oci-layout` must hold nothing but what a killed process may have left of a layout.
fn refuse_other_directories(root: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).at("read", root),
    };
    for entry in entries {
        let name = entry.at("read", root)?.file_name();
        // `oci-layout`: another process makes the same layout at this moment.
        let known = ["blobs", "index.json", "oci-layout"];
        let ours = name.as_encoded_bytes().starts_with(b".stacker") || known.iter().any(|n| name == *n);
        if !ours {
            let (root, name) = (root.display(), name.to_string_lossy());
            return Err(Error::Usage(format!(
                "{root} is no OCI layout, and it is not empty (it holds {name:?}): choose another --oci-dir"
            )));
        }
    }
    Ok(())
}
