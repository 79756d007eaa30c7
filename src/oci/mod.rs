//! OCI layouts on disk: reading the images that layers build on.
//!
//! Whatever is parsed (index, manifest, config) was checked against its digest first; layer blobs are only looked for,
//! who unpacks them hashes them. Nothing here writes, talks to a registry or knows stackerfiles.

mod blob;
mod config;
mod image;
mod layout;
mod media;

pub use blob::{MAX_DOCUMENT, blob_path, read_document};
pub use config::ImageConfiguration;
pub use image::{BaseImage, BaseLayer, BlobDescriptor};
pub use layout::{ImageRef, Layout, REF_NAME};
pub use media::{DocumentKind, document_kind, layer_media_type};
