//! All that an entry of a layout leads to: an image, or an index with several.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use crate::digest::BlobDigest;
use crate::error::{Error, Result};
use crate::oci::{DocumentKind, Layout, document_kind, read_document};

/// More documents than any image has.
const MOST: usize = 10_000;

/// What is published together.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Manifests and indexes; each comes after what it leads to.
    pub documents: Vec<Document>,
    /// Configs and layers, with their sizes.
    pub blobs: BTreeMap<BlobDigest, u64>,
}

/// A manifest or an index.
#[derive(Debug)]
pub(super) struct Document {
    pub digest: BlobDigest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl Tree {
    /// Reads and checks all documents.
    pub fn read(layout: &Layout, descriptor: &Descriptor) -> Result<Tree> {
        let mut tree = Tree::default();
        tree.add(layout, descriptor)?;
        Ok(tree)
    }

    /// The last document, to which tags lead.
    pub fn root(&self) -> &Document {
        self.documents.last().expect("reading adds a document or fails")
    }

    fn add(&mut self, layout: &Layout, descriptor: &Descriptor) -> Result<()> {
        let wrong = |why: String| {
            let (path, digest) = (layout.path().display(), descriptor.digest());
            Error::Build(format!("OCI layout {path}: {digest} {why}"))
        };
        if self.documents.len() > MOST {
            return Err(wrong(format!("leads to more than {MOST} documents")));
        }
        let digest = digest(descriptor).ok_or_else(|| wrong("is no sha256 digest".to_owned()))?;
        let (what, is_index) = match document_kind(descriptor.media_type()) {
            DocumentKind::Index => ("index", true),
            DocumentKind::Manifest => ("manifest", false),
            DocumentKind::Other => {
                return Err(wrong(format!("is no image, its media type is {}", descriptor.media_type())));
            }
        };
        let bytes = read_document(layout.path(), descriptor, what)?;
        let broken = |error: serde_json::Error| wrong(format!("can not be understood: {error}"));
        if is_index {
            let index: ImageIndex = serde_json::from_slice(&bytes).map_err(broken)?;
            index.manifests().iter().try_for_each(|inner| self.add(layout, inner))?;
        } else {
            let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(broken)?;
            for blob in manifest.layers().iter().chain([manifest.config()]) {
                let digest = self::digest(blob).ok_or_else(|| wrong(format!("has the blob {}", blob.digest())))?;
                self.blobs.insert(digest, blob.size());
            }
        }
        let media_type = descriptor.media_type().to_string();
        self.documents.push(Document { digest, media_type, bytes });
        Ok(())
    }
}

fn digest(descriptor: &Descriptor) -> Option<BlobDigest> {
    descriptor.digest().to_string().parse().ok()
}
