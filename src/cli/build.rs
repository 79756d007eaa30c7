//! What `stacker build` takes, and commands that read stackerfiles as it does.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::layer_type::LayerType;
use crate::progress::Mode;
use crate::provenance::NAMESPACE;

use super::options::namespace;

/// `stacker build`.
#[derive(Args, Debug)]
pub struct Build {
    /// Layers to build, with what they need (default: all); with --all, the directory to search
    #[arg(value_name = "LAYER")]
    pub layers: Vec<String>,
    /// Build every stackerfile below a directory (default: .)
    #[arg(long)]
    pub all: bool,
    /// The stackerfile
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE", conflicts_with = "all")]
    pub file: Option<PathBuf>,
    /// How stackerfiles are read.
    #[command(flatten)]
    pub reading: Reading,
    /// How layers are built.
    #[command(flatten)]
    pub options: BuildOptions,
}

/// `stacker recursive-build`.
#[derive(Args, Debug)]
pub struct RecursiveBuild {
    /// Where to look for stackerfiles; ignore files do not count
    #[arg(long, short = 'd', value_name = "DIR", default_value = ".")]
    pub search_dir: PathBuf,
    /// Which files are stackerfiles, matched against the absolute path
    #[arg(long, short = 'p', value_name = "REGEX", default_value = r"\/stacker.yaml$")]
    pub stacker_file_pattern: String,
    /// What is replaced in stackerfiles.
    #[command(flatten)]
    pub substitutes: Substitutes,
    /// How layers are built.
    #[command(flatten)]
    pub options: BuildOptions,
}

/// How layers are built.
#[derive(Args, Debug)]
pub struct BuildOptions {
    /// Build everything anew and replace the stored results
    #[arg(long)]
    pub no_cache: bool,
    /// Build this layer anew
    #[arg(long, value_name = "LAYER", action = clap::ArgAction::Append)]
    pub rebuild: Vec<String>,
    /// Build all that does not depend on a failure
    #[arg(long)]
    pub keep_going: bool,
    /// Steps at a time (default: the cores)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// How progress is shown (default: live lines on a terminal, else plain)
    #[arg(long, value_name = "MODE")]
    pub progress: Option<Mode>,
    /// Print the layers in the order in which they would be built, and build none
    #[arg(long)]
    pub order_only: bool,
    /// Refuse stackerfiles with an import from http(s) that has no `hash`
    #[arg(long)]
    pub require_hash: bool,
    /// Accepted for scripts that have it; images have no dm-verity data
    #[arg(long)]
    pub no_verity: bool,
    /// Annotate manifests with the stackerfile, stacker's version and `git describe` (a `--provenance=false` wins over
    /// `provenance: true` in the configuration file)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub provenance: Option<bool>,
    /// With --provenance: the names are NS.stacker.stacker_yaml, NS.stacker.stacker_version, NS.stacker.git_version
    #[arg(long, value_name = "NS", default_value = NAMESPACE, value_parser = namespace)]
    pub annotations_namespace: String,
    /// Write a JSON description of what was built
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Write when each step ran, in the trace-event format that Perfetto and chrome://tracing read
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Compression of the tars that are built here
    #[arg(long, value_name = "CODEC", default_value = "gzip")]
    pub compression: Codec,
    /// What the layers of images are; given several times, or as a list, each gives an image of its own
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "tar", action = clap::ArgAction::Append)]
    pub layer_type: Vec<LayerType>,
    /// Level of the compression (gzip 1-9, zstd 1-19)
    #[arg(long, value_name = "N")]
    pub compression_level: Option<i32>,
    /// Largest layer that is unpacked, and largest import: bytes without compression
    #[arg(long, value_name = "SIZE", default_value = "64GiB")]
    pub max_layer_size: bytesize::ByteSize,
    /// Creation time of the images: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub created: Option<String>,
    /// After a run fails, open a shell in what it left
    #[arg(long)]
    pub shell_fail: bool,
    /// After a run fails, run a command of /bin/sh in what it left
    #[arg(long, value_name = "CMD", conflicts_with = "shell_fail")]
    pub on_run_failure: Option<String>,
}

/// How stackerfiles are read.
#[derive(Args, Debug)]
pub struct Reading {
    /// With --all: which files are stackerfiles, matched against the absolute path (default: /stacker\.yaml$)
    #[arg(long, value_name = "REGEX", requires = "all")]
    pub stacker_file_pattern: Option<String>,
    /// What is replaced.
    #[command(flatten)]
    pub substitutes: Substitutes,
}

/// What is replaced in stackerfiles.
#[derive(Args, Debug)]
pub struct Substitutes {
    /// Replace ${{NAME}} in stackerfiles
    #[arg(long, value_name = "NAME=VALUE", action = clap::ArgAction::Append)]
    pub substitute: Vec<String>,
    /// A YAML map of names and values to replace
    #[arg(long, value_name = "FILE")]
    pub substitute_file: Option<PathBuf>,
}

/// `stacker publish`.
#[derive(Args, Debug)]
pub struct Publish {
    /// The stackerfile whose images are published
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE", conflicts_with = "search_dir")]
    pub file: Option<PathBuf>,
    /// Publish the images of all stackerfiles below a directory; ignore files do not count
    #[arg(long, short = 'd', value_name = "DIR")]
    pub search_dir: Option<PathBuf>,
    /// With --search-dir: which files are stackerfiles, matched against the absolute path
    #[arg(long, short = 'p', value_name = "REGEX", default_value = r"\/stacker.yaml$")]
    pub stacker_file_pattern: String,
    /// What is replaced in stackerfiles.
    #[command(flatten)]
    pub substitutes: Substitutes,
    /// Where to: docker://HOST/PREFIX (image NAME becomes HOST/PREFIX/NAME:TAG), or oci:PATH (becomes the tag NAME_TAG)
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// What the images are tagged with there
    #[arg(long, value_name = "TAG", action = clap::ArgAction::Append)]
    pub tag: Vec<String>,
    /// Only this image (default: all that are not `build_only`)
    #[arg(long, value_name = "NAME", action = clap::ArgAction::Append)]
    pub image: Vec<String>,
    /// Who we are to the registry (default: $REGISTRY_USERNAME, else what docker and podman have on file)
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// With --username (default: $REGISTRY_PASSWORD)
    #[arg(long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Take any certificate of the registry, and plain http where it has no TLS
    #[arg(long)]
    pub skip_tls: bool,
    /// Publish what is in the layout, even if a build would make something else now
    #[arg(long)]
    pub force: bool,
    /// Only tell what would be published
    #[arg(long)]
    pub show_only: bool,
    /// What the layers of the images are
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "tar")]
    pub layer_type: Vec<LayerType>,
}

/// `stacker shell`.
#[derive(Args, Debug)]
pub struct Shell {
    /// The layer
    #[arg(value_name = "LAYER")]
    pub layer: String,
    /// What its script starts from, with the imports, instead of what it came out as
    #[arg(long, conflicts_with = "failed")]
    pub before: bool,
    /// What its last run left when it failed
    #[arg(long)]
    pub failed: bool,
    /// The stackerfile
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE", conflicts_with = "all")]
    pub file: Option<PathBuf>,
    /// Look for the layer in every stackerfile below a directory
    #[arg(long, value_name = "DIR")]
    pub all: Option<PathBuf>,
    /// How stackerfiles are read.
    #[command(flatten)]
    pub reading: Reading,
    /// What to run, looked for in the PATH of the layer's `run` (default: bash or else sh)
    #[arg(value_name = "CMD", last = true)]
    pub command: Vec<String>,
}

/// `stacker exec`, also called `chroot`.
#[derive(Args, Debug)]
pub struct Exec {
    /// The stackerfile
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What is replaced in stackerfiles.
    #[command(flatten)]
    pub substitutes: Substitutes,
    /// The layer (default: the first one of the stackerfile)
    #[arg(value_name = "LAYER")]
    pub layer: Option<String>,
    /// What to run, with its arguments; a single one is split as a shell would (default: bash or else sh)
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// `stacker grab`.
#[derive(Args, Debug)]
pub struct Grab {
    /// The layer, and a path in it; links are followed
    #[arg(value_name = "LAYER:PATH")]
    pub what: String,
    /// The stackerfile
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE", conflicts_with = "all")]
    pub file: Option<PathBuf>,
    /// Look for the layer in every stackerfile below a directory
    #[arg(long, value_name = "DIR")]
    pub all: Option<PathBuf>,
    /// How stackerfiles are read.
    #[command(flatten)]
    pub reading: Reading,
}

/// Codecs of layer blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// Read by every tool.
    Gzip,
    /// Smaller and faster, not read by older tools.
    Zstd,
    /// Plain tar.
    None,
}
