//! Images that layers build on: reading them from OCI layouts on disk, and choosing among those of several platforms.
//!
//! Whatever is parsed (index, manifest, config) was checked against its digest first; layer blobs are only looked for,
//! who unpacks them hashes them. Nothing here writes, talks to a registry or knows stackerfiles.

mod blob;
mod choose;
mod config;
mod image;
mod layout;
mod media;
mod source;

pub use blob::{MAX_DOCUMENT, blob_path, read_document};
pub use choose::image_of;
pub use config::ImageConfiguration;
pub use image::{BaseImage, BaseLayer, BlobDescriptor};
pub use layout::{ImageRef, Layout, REF_NAME};
pub use media::{DocumentKind, document_kind, layer_media_type};
pub use source::Source;
