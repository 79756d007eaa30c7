//! What an archive says of itself: the manifest, its first member, which names all others in their order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, Chain, ChainId, ContentDigest, DiffId, Key, TreeDigest};
use crate::place::layer_listing;

/// Raised when an older stacker could not read what a newer one writes.
pub const FORMAT: u32 = 1;

/// Bytes of a manifest: more than any store has results.
pub const LARGEST_MANIFEST: u64 = 256 << 20;

/// Bytes of a record, whose labels and variables are bounded long before.
pub const LARGEST_RECORD: u64 = 64 << 20;

/// Bytes of a listing.
pub const LARGEST_LISTING: u64 = 4 << 30;

/// The first member of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Results, sorted by key.
    pub results: Vec<ResultPart>,
    /// Listings of import trees, for the reasons of later builds; sorted.
    pub trees: Vec<TreePart>,
    /// Layers of base images, bottom first, of those that something was built upon.
    pub bases: Vec<Chain>,
    /// Their listings; sorted by diff id.
    pub base_layers: Vec<BaseLayerPart>,
    /// What images of registries in `bases` consist of, in archives that hold them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImagePart>,
    /// The layers that results stand for, in the order of a serial build.
    pub layers: Vec<LayerPart>,
    /// The keys of each layer of a stackerfile, in the order of a serial build.
    pub names: Vec<NamePart>,
}

impl Default for Manifest {
    fn default() -> Manifest {
        Manifest {
            format: FORMAT,
            results: Vec::new(),
            trees: Vec::new(),
            bases: Vec::new(),
            base_layers: Vec::new(),
            images: Vec::new(),
            layers: Vec::new(),
            names: Vec::new(),
        }
    }
}

/// A member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// blake3 of its bytes.
    pub blake3: ContentDigest,
    /// Bytes.
    pub size: u64,
}

/// `records/BLAKE3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultPart {
    /// Of the record's action.
    pub key: Key,
    /// The record, of no boot.
    pub record: Part,
    /// The layer; `None`: nothing changed, or it is labels.
    pub diff_id: Option<DiffId>,
}

/// `listings/tree-HEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreePart {
    /// What the tree is.
    pub tree: TreeDigest,
    /// Its listing.
    pub listing: Part,
}

/// `listings/sha256-HEX` of a base image's layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseLayerPart {
    /// The layer.
    pub diff_id: DiffId,
    /// Its listing.
    pub listing: Part,
}

/// An image of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePart {
    /// Of all its layers.
    pub chain: ChainId,
    /// The names that led to it: `docker://HOST/REPOSITORY:TAG`, and the digest of the manifest or index.
    pub names: Vec<(String, BlobDigest)>,
    /// Index, manifest, config, layers, with their sizes: each is a member `blobs/sha256/HEX`, once.
    pub blobs: BTreeMap<BlobDigest, u64>,
}

/// `listings/sha256-HEX` and `blobs/sha256/HEX` of a layer that came out of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerPart {
    /// The layer.
    pub diff_id: DiffId,
    /// Its listing.
    pub listing: Part,
    /// Its tar.
    pub blob: BlobPart,
}

/// A layer tar, compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPart {
    /// sha256 of its bytes.
    pub digest: BlobDigest,
    /// Bytes.
    pub size: u64,
    /// As in the table `blob`: `gzip-6/1`.
    pub codec: String,
}

/// What a layer of a stackerfile consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamePart {
    /// Its name.
    pub layer: String,
    /// Its actions, in order.
    pub keys: Vec<Key>,
}

impl Manifest {
    /// The blobs of all `images`, each once, with its size.
    pub fn image_blobs(&self) -> BTreeMap<BlobDigest, u64> {
        self.images.iter().flat_map(|image| &image.blobs).map(|(digest, size)| (*digest, *size)).collect()
    }

    /// The text as it is written, and the name of the member that holds it.
    pub fn encode(&self) -> (String, Vec<u8>) {
        let mut bytes = serde_json::to_vec(self).expect("a manifest is always JSON");
        bytes.push(b'\n');
        (format!("manifest-{}.json", ContentDigest::of(&bytes)), bytes)
    }
}

impl ResultPart {
    /// The member's name.
    pub fn member(&self) -> String {
        format!("records/{}", self.record.blake3)
    }
}

impl TreePart {
    /// The member's name.
    pub fn member(&self) -> String {
        format!("listings/tree-{}", self.tree)
    }
}

/// The name of the member that is a blob.
pub fn blob_member(digest: &BlobDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The name of the member that is a layer's listing.
pub fn listing_member(diff_id: &DiffId) -> String {
    format!("listings/{}", layer_listing(diff_id))
}

impl BlobPart {
    /// Whether it is the codec of a tar.
    pub fn is_tar(&self) -> bool {
        let Some((codec, version)) = self.codec.split_once('/') else { return false };
        let is_number = |text: &str| !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit());
        let (name, level) = codec.split_once('-').map_or((codec, None), |(name, level)| (name, Some(level)));
        let known = match (name, level) {
            ("gzip" | "zstd", Some(level)) => is_number(level),
            ("none", None) => true,
            _ => false,
        };
        known && is_number(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tars_have_codecs_of_tars() {
        let is_tar = |codec: &str| BlobPart { digest: BlobDigest([0; 32]), size: 0, codec: codec.to_owned() }.is_tar();
        for codec in ["gzip-6/1", "zstd-19/12", "none/1"] {
            assert!(is_tar(codec), "{codec}");
        }
        for codec in ["", "gzip/1", "gzip-6", "gzip-6/", "gzip-x/1", "none-1/1", "squashfs+zstd/1/x", "erofs-1/1"] {
            assert!(!is_tar(codec), "{codec}");
        }
    }
}
