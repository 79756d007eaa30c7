//! Base images of registries: in archives of who asks for it, so that builds elsewhere need no registry.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use crate::build::Look;
use crate::commit_point::CommitPoint;
use crate::digest::BlobDigest;
use crate::error::{Error, Result};
use crate::registry::ImageName;
use crate::resolve::sha256_file;

use super::export::Gathered;
use super::import::{Import, put};
use super::manifest::{ImagePart, Manifest};

impl Gathered {
    /// Base images of registries, whole.
    pub(super) fn images(&mut self, look: &Look) -> Result<()> {
        let known = look.database.base_blobs()?;
        for base in &self.manifest.bases {
            let chain = base.id();
            let of_it = known.iter().filter(|(_, (_, chains))| chains.contains(&chain));
            let blobs: BTreeMap<BlobDigest, u64> = of_it.map(|(digest, (size, _))| (*digest, *size)).collect();
            if blobs.is_empty() {
                continue;
            }
            if let Some(missing) = blobs.keys().find(|digest| blob_file(look, digest).is_none()) {
                let why = "which lies neither in the cache nor in the layout: build an image on it first";
                return Err(Error::Build(format!("a base image has the blob {missing}, {why}")));
            }
            let mut names = look.database.references()?;
            names.retain(|(_, digest)| blobs.contains_key(digest));
            self.manifest.images.push(ImagePart { chain, names, blobs });
        }
        Ok(())
    }
}

/// Where a blob of a base image lies: in the store, unless the layout has it.
pub(super) fn blob_file(look: &Look, digest: &BlobDigest) -> Option<PathBuf> {
    let layout = look.request.directories.oci.join("blobs/sha256").join(digest.hex());
    let mut places = [look.site.stacker.blob(digest), layout].into_iter();
    places.find(|path| sha256_file(path).is_ok_and(|found| BlobDigest(found) == *digest))
}

impl<R: Read> Import<'_, R> {
    /// Base images of registries, as if they had been fetched.
    pub(super) fn images(&mut self, manifest: &Manifest) -> Result<()> {
        for (digest, size) in manifest.image_blobs() {
            let file = self.blob(&digest, size)?;
            if !self.stacker.blob(&digest).exists() {
                put(file, &self.stacker.blob(&digest), CommitPoint::BlobNamed)?;
            }
        }
        let blobs = manifest.images.iter().map(|image| (image.chain, image.blobs.clone())).collect();
        self.database.put_base_blobs(&blobs)?;
        let mut names = Vec::new();
        for (name, digest) in manifest.images.iter().flat_map(|image| &image.names) {
            let name = ImageName::parse(name).map_err(|why| self.reader.damaged(&why))?;
            // What was asked for here is as new at least.
            if self.database.reference(&name)?.is_none() {
                names.push((name, *digest));
            }
        }
        let names: Vec<_> = names.iter().map(|(name, digest)| (name, *digest)).collect();
        self.database.put_references(&names)
    }
}
