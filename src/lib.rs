//! stacker builds container images from stackerfiles, with a content-addressed cache.
//!
//! The modules in the order of a build; ARCHITECTURE.md tells the story.

pub mod action;
pub mod diag;
pub mod digest;
pub mod error;
pub mod graph;
pub mod listing;
pub mod load;
mod order;
pub mod place;
pub mod schema;
pub mod text;
pub mod worker;

pub use error::{Error, Result};
