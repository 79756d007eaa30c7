//! One image: its config and where its layers lie.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::image::{Descriptor, ImageManifest, MediaType};

use super::source::{Source, parse};
use super::{ImageConfiguration, layer_media_type};
use crate::action::Platform;
use crate::digest::{BlobDigest, Chain, DiffId};
use crate::error::{Error, Result};
use crate::layer_type::LayerType;

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
    pub(super) fn must_be_of_tars(self, source: &dyn Source) -> Result<BaseImage> {
        for layer in &self.layers {
            if let Some(kind) = LayerType::of_file_system(&layer.descriptor.media_type) {
                let (shown, kind, digest) = (source.shown(), kind.name(), layer.descriptor.digest);
                return Err(Error::Build(format!(
                    "{shown}: layer {digest} is a {kind} file system, which cannot be built upon: take the image of \
                     tars (the tag without -{kind}, made with --layer-type tar)"
                )));
            }
        }
        Ok(self)
    }

    /// Reads manifest and config of the image that `descriptor` names.
    pub(super) fn read(source: &dyn Source, descriptor: &Descriptor) -> Result<BaseImage> {
        let manifest = read_manifest(source, descriptor)?;
        let config = read_config(source, manifest.config())?;
        let diff_ids = config.diff_ids(&format!("{}: config {}", source.shown(), manifest.config().digest()))?;
        if diff_ids.len() != manifest.layers().len() {
            return Err(Error::Build(format!(
                "{}: manifest {} has {} layers, but its config names {} diff ids",
                source.shown(),
                descriptor.digest(),
                manifest.layers().len(),
                diff_ids.len(),
            )));
        }
        let layers = manifest.layers().iter().zip(diff_ids);
        let layers = layers.map(|(layer, diff_id)| BaseLayer::find(source, layer, diff_id)).collect::<Result<_>>()?;
        let annotations = manifest.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let digest = source.sha256(descriptor)?;
        let platform = config.platform();
        Ok(BaseImage { digest, config, annotations, layers, platform })
    }
}

impl BaseLayer {
    fn find(source: &dyn Source, descriptor: &Descriptor, diff_id: DiffId) -> Result<BaseLayer> {
        let digest = source.sha256(descriptor)?;
        let media_type = layer_media_type(descriptor.media_type())
            .or_else(|| LayerType::of_file_system(descriptor.media_type()).map(|_| descriptor.media_type().clone()))
            .ok_or_else(|| {
                let (shown, found) = (source.shown(), descriptor.media_type());
                Error::Build(format!("{shown}: layer {digest} has media type {found}, which is no layer tar"))
            })?;
        let path = source.layer(&digest, descriptor.size())?;
        Ok(BaseLayer { descriptor: BlobDescriptor { media_type, digest, size: descriptor.size() }, diff_id, path })
    }
}

/// Reads and checks a manifest.
pub(super) fn read_manifest(source: &dyn Source, descriptor: &Descriptor) -> Result<ImageManifest> {
    let bytes = source.document(descriptor, "manifest")?;
    parse(source, descriptor, "manifest", &bytes)
}

/// Reads and checks a config.
pub(super) fn read_config(source: &dyn Source, descriptor: &Descriptor) -> Result<ImageConfiguration> {
    let bytes = source.document(descriptor, "config")?;
    let json = parse(source, descriptor, "config", &bytes)?;
    ImageConfiguration::from_json(json).map_err(|error| {
        let (shown, digest) = (source.shown(), descriptor.digest());
        Error::Build(format!("{shown}: config {digest} is no image config: {error}"))
    })
}
