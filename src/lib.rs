//! stacker builds container images from stackerfiles, with a content-addressed cache.
//!
//! The modules in the order of a build; ARCHITECTURE.md tells the story.

pub mod action;
pub mod claim;
pub mod database;
pub mod digest;
pub mod error;
pub mod export;
pub mod graph;
pub mod listing;
pub mod load;
pub mod oci;
pub mod place;
pub mod record;
pub mod text;
pub mod unpack;
pub mod worker;

pub use error::{Error, Result};
