//! From layers to an OCI layout: image configs and manifests as pure functions, then the layout that holds them.
//!
//! ```text
//! oci/
//!   oci-layout index.json blobs/sha256/HEX      as the image-spec says
//!   .stacker-blobs                              what stacker put there: one digest a line, see `sweep`
//!   .stacker.lock                               held while index.json is replaced
//!   .stacker-tmp-XXXXXX                         a blob on its way to its name
//! ```
//! Whoever reads the layout while it changes never misses a blob: blobs come first, then the index, and what nobody
//! refers to any more goes last. Nothing here knows stackerfiles, keys or how a layer was made.

mod blobs;
mod config;
mod index;
mod layout;
pub mod metadata;
mod state;
mod sweep;

pub use layout::{Export, Written};
pub use state::{Document, ExportLayer, ImageState, MAX_LAYERS};
