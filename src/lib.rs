//! stacker builds container images from stackerfiles, with a content-addressed cache.
//!
//! The modules in the order of a build; ARCHITECTURE.md tells the story.

pub mod action;
pub mod archive;
pub mod binfmt;
pub mod build;
pub mod check;
pub mod claim;
pub mod clean;
pub mod cli;
pub mod commit_point;
pub mod compress;
pub mod convert;
pub mod database;
pub mod decide;
pub mod diag;
pub mod digest;
pub mod error;
pub mod execute;
pub mod export;
pub mod gc;
pub mod grab;
pub mod graph;
pub mod history;
pub mod holder;
pub mod http;
pub mod images;
pub mod inputs;
pub mod inspect;
pub mod layer_type;
pub mod listing;
pub mod load;
pub mod need;
pub mod oci;
pub mod picture;
pub mod pins;
pub mod place;
pub mod progress;
pub mod provenance;
pub mod publish;
pub mod reason;
pub mod record;
pub mod registry;
pub mod remote;
pub mod report;
pub mod reproduce;
pub mod resolve;
pub mod schema;
pub mod seal;
pub mod setup;
pub mod shell;
pub mod store;
pub mod story;
pub mod text;
pub mod trace;
pub mod unpack;
pub mod usage;
pub mod verify;
pub mod worker;

mod order;
mod regular;
mod room;
mod sys;
mod tell;

pub use error::{Error, Result};
