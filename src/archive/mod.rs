//! Archives of results: one file that makes the builds of other machines hits (`stacker cache export` and `import`).
//!
//! An archive is a tar whose first member, the manifest, names all others. It holds what no other machine can make
//! without running the steps: records, and the layers as tars, with their listings. It knows neither owners of a store nor
//! kinds of stores. cache-format.md describes it.

mod export;
mod images;
mod import;
mod manifest;
mod members;
mod sound;

pub use export::{Exported, Request, export};
pub use import::{Imported, import};
