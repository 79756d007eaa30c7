//! Media types: which documents and layers we read, and what their layers are called in the manifests that we write.
//!
//! `skopeo copy --format v2s2` and `docker save` leave Docker's names in layouts; they mean the same bytes.

use oci_spec::image::MediaType;

/// What a descriptor of an index leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// One image.
    Manifest,
    /// A list of images or of further lists.
    Index,
    /// Neither: an artifact, a format from before 2016.
    Other,
}

/// Sorts the media type of a descriptor.
pub fn document_kind(media_type: &MediaType) -> DocumentKind {
    match media_type.as_ref() {
        "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
            DocumentKind::Manifest
        }
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            DocumentKind::Index
        }
        _ => DocumentKind::Other,
    }
}

/// The OCI name of a layer's media type, `None` when it is no tar that we can unpack.
pub fn layer_media_type(media_type: &MediaType) -> Option<MediaType> {
    Some(match media_type.as_ref() {
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::ImageLayerGzip,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => MediaType::ImageLayerZstd,
        "application/vnd.docker.image.rootfs.foreign.diff.tar" => MediaType::ImageLayerNonDistributable,
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => MediaType::ImageLayerNonDistributableGzip,
        _ => match media_type {
            MediaType::ImageLayer
            | MediaType::ImageLayerGzip
            | MediaType::ImageLayerZstd
            | MediaType::ImageLayerNonDistributable
            | MediaType::ImageLayerNonDistributableGzip
            | MediaType::ImageLayerNonDistributableZstd => media_type.clone(),
            _ => return None,
        },
    })
}
