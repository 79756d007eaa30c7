//! One image of a layout: its config and where its layers lie.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageManifest, MediaType};

use super::blob::{blob_path, parse, read_document, sha256};
use super::{ImageConfiguration, layer_media_type};
use crate::action::Platform;
use crate::digest::{BlobDigest, Chain, DiffId};
use crate::error::{At, Error, Result};
use crate::layer_type::LayerType;
use crate::regular;

/// An image that layers build on.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// Digest of its manifest.
    pub digest: BlobDigest,
    /// The config, checked against its digest.
    pub config: ImageConfiguration,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Bottom first.
    pub layers: Vec<BaseLayer>,
    /// What it was looked up for.
    pub platform: Platform,
}

/// One layer of a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseLayer {
    /// The blob.
    pub descriptor: BlobDescriptor,
    /// What the uncompressed tar hashes to, according to the config.
    pub diff_id: DiffId,
    /// Where the blob lies.
    pub path: PathBuf,
}

/// A layer's blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobDescriptor {
    /// OCI's name of it, also where the layout used Docker's.
    pub media_type: MediaType,
    /// sha256 of the compressed bytes.
    pub digest: BlobDigest,
    /// Bytes.
    pub size: u64,
}

impl BaseImage {
    /// The layers by diff id.
    pub fn chain(&self) -> Chain {
        Chain(self.layers.iter().map(|layer| layer.diff_id).collect())
    }

    /// A base must be made of tars: nothing is unpacked of file systems, which are to be mounted.
    pub(super) fn must_be_of_tars(self, root: &Path) -> Result<BaseImage> {
        for layer in &self.layers {
            if let Some(kind) = LayerType::of_file_system(&layer.descriptor.media_type) {
                let (root, kind, digest) = (root.display(), kind.name(), layer.descriptor.digest);
                return Err(Error::Build(format!(
                    "OCI layout {root}: layer {digest} is a {kind} file system, which cannot be built upon: take the image \
                     of tars (the tag without -{kind}, made with --layer-type tar)"
                )));
            }
        }
        Ok(self)
    }

    /// Reads manifest and config of the image that `descriptor` names in the layout at `root`.
    pub(super) fn read(root: &Path, descriptor: &Descriptor) -> Result<BaseImage> {
        let manifest = read_manifest(root, descriptor)?;
        let config_bytes = read_document(root, manifest.config(), "config")?;
        let config = parse(root, manifest.config().digest(), "config", &config_bytes)?;
        let config = ImageConfiguration::from_json(config).map_err(|error| {
            let digest = manifest.config().digest();
            Error::Build(format!("OCI layout {}: config {digest} is no image config: {error}", root.display()))
        })?;
        let diff_ids = config.diff_ids(&blob_path(root, &sha256(root, manifest.config().digest())?))?;
        if diff_ids.len() != manifest.layers().len() {
            return Err(Error::Build(format!(
                "OCI layout {}: manifest {} has {} layers, but its config names {} diff ids",
                root.display(),
                descriptor.digest(),
                manifest.layers().len(),
                diff_ids.len(),
            )));
        }
        let layers = manifest.layers().iter().zip(diff_ids);
        let layers = layers.map(|(layer, diff_id)| BaseLayer::find(root, layer, diff_id)).collect::<Result<_>>()?;
        let annotations = manifest.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let digest = sha256(root, descriptor.digest())?;
        let platform = config.platform();
        Ok(BaseImage { digest, config, annotations, layers, platform })
    }
}

impl BaseLayer {
    fn find(root: &Path, descriptor: &Descriptor, diff_id: DiffId) -> Result<BaseLayer> {
        let digest = sha256(root, descriptor.digest())?;
        let path = blob_path(root, &digest);
        let wrong = |why: String| Error::Build(format!("OCI layout {}: layer {digest} {why}", root.display()));
        let media_type = layer_media_type(descriptor.media_type())
            .or_else(|| LayerType::of_file_system(descriptor.media_type()).map(|_| descriptor.media_type().clone()))
            .ok_or_else(|| wrong(format!("has media type {}, which is no layer tar", descriptor.media_type())))?;
        match regular::open(&path).and_then(|file| file.map(|file| file.metadata()).transpose()) {
            Ok(None) => return Err(wrong(format!("is damaged: {} is not a file", path.display()))),
            Ok(Some(found)) if found.len() == descriptor.size() => {}
            Ok(Some(found)) => {
                let (found, wanted) = (found.len(), descriptor.size());
                return Err(wrong(format!("is damaged: {} has {found} bytes, expected {wanted}", path.display())));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(wrong(format!("is missing: there is no {}", path.display())));
            }
            Err(error) => return Err(error).at("open", &path),
        }
        Ok(BaseLayer { descriptor: BlobDescriptor { media_type, digest, size: descriptor.size() }, diff_id, path })
    }
}

/// Reads and checks a manifest.
pub(crate) fn read_manifest(root: &Path, descriptor: &Descriptor) -> Result<ImageManifest> {
    let bytes = read_document(root, descriptor, "manifest")?;
    parse(root, descriptor.digest(), "manifest", &bytes)
}
