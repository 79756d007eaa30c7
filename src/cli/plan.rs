//! `stacker plan`: its arguments, and what they mean.

use std::path::PathBuf;

use clap::Args;

use crate::build;
use crate::error::Result;
use crate::http;
use crate::layer_type::LayerType;
use crate::plan::Request;
use crate::progress::Mode;

use super::commands::reading;
use super::graph::what;
use super::options::{Directories, compression, cores};
use super::{Codec, Reading};

/// `stacker plan`.
#[derive(Args, Debug)]
pub struct Plan {
    /// Layers to plan, with what they need (default: all); with --all, the directory to search
    #[arg(value_name = "LAYER")]
    pub layers: Vec<String>,
    /// Plan every stackerfile below a directory (default: .)
    #[arg(long)]
    pub all: bool,
    /// The stackerfile
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE", conflicts_with = "all")]
    pub file: Option<PathBuf>,
    /// How stackerfiles are read.
    #[command(flatten)]
    pub reading: Reading,
    /// Only layers that differ from those of a git commit (their definition, a file, a layer that they need), and what
    /// these need
    #[arg(long, value_name = "GITREF")]
    pub since: Option<String>,
    /// As if everything was to be built anew
    #[arg(long)]
    pub no_cache: bool,
    /// As if this layer was to be built anew
    #[arg(long, value_name = "LAYER", action = clap::ArgAction::Append)]
    pub rebuild: Vec<String>,
    /// Steps at a time (default: the cores)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// List hits too
    #[arg(long)]
    pub hits: bool,
    /// Print JSON, with a matrix for CI
    #[arg(long)]
    pub json: bool,
    /// Compression of the build that is planned
    #[arg(long, value_name = "CODEC", default_value = "gzip")]
    pub compression: Codec,
    /// Its level
    #[arg(long, value_name = "N")]
    pub compression_level: Option<i32>,
    /// Types of layers of the build that is planned
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "tar", action = clap::ArgAction::Append)]
    pub layer_type: Vec<LayerType>,
    /// As of the build that is planned
    #[arg(long, value_name = "SIZE", default_value = "64GiB")]
    pub max_layer_size: bytesize::ByteSize,
}

/// `stacker plan --help`.
pub(super) const PLAN: &str = "\
Show what a build would do now, and for how long: each layer that is not a hit, with the reason. Nothing is built and
no server is asked: bases by tag and files of servers count as they were when they were last asked for.

  HIT      the cache has it
  BUILD    it is built, whatever other layers come out as
  IF       it is built only if the layers that are named come out different from how they were
  UNKNOWN  it follows from something on a server that was never asked for here
  FAIL     it cannot be built as it is, or needs a layer that cannot

Seconds are those that the same steps took the last time. --since GITREF leaves layers that are as that commit has
them, and so is what they read: stackerfiles as the commit has them are compared with those of now, and the files that
layers take in by what git says; files that it does not track count as new, also ignored ones.

Exit code 0: planned, whatever is to be built; 1: a layer would fail.";

/// What is planned, and how it is shown.
pub(super) fn request(arguments: Plan, directories: Directories, network: http::Options) -> Result<Request> {
    let build = build::Request {
        what: what("plan", arguments.all, arguments.file.as_ref(), &arguments.layers)?,
        load: reading(&arguments.reading, &directories)?,
        no_cache: arguments.no_cache,
        rebuild: arguments.rebuild,
        keep_going: true,
        jobs: arguments.jobs.map_or_else(cores, usize::from),
        progress: Some(Mode::None),
        metadata_file: None,
        trace: None,
        cache_max_size: None,
        compression: compression(arguments.compression, arguments.compression_level)?,
        layer_types: arguments.layer_type,
        max_layer_size: arguments.max_layer_size.as_u64(),
        provenance: None,
        created: None,
        after_failure: None,
        directories,
        network,
    };
    Ok(Request { build, since: arguments.since, json: arguments.json, hits: arguments.hits })
}
