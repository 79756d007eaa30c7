//! Stackerfiles as text become stackerfiles as data; several mistakes are reported in one go, each with its place.
//!
//! [`find`] finds files, [`load`] reads them and their prerequisites: text is substituted, read as YAML with the
//! spelling of every scalar kept, then each directive is read as its own type. Names of other layers stay names: the
//! graph resolves them.

mod base;
pub(crate) mod binds;
pub(crate) mod container;
mod directives;
mod files;
mod find;
mod ignored;
mod imports;
mod layer;
mod model;
mod options;
mod overlay_dirs;
mod reader;
mod substitute;
mod yaml;

pub use directives::{Support, directives};
pub(crate) use files::read_text;
pub use files::{Loaded, load, load_found};
pub use find::{Found, find};
pub use model::{Base, Bind, Healthcheck, ImageSettings, Import, Layer, Place, Probe, Source, Stackerfile, Written};
pub use options::{Options, read_substitute_file, substitutes};
