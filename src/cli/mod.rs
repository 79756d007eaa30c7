//! The command line as typed. What it means is worked out in [`options`]; each command is one function.

mod cache;
mod commands;
pub mod options;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::holder::Tier;
use crate::progress::Mode;
use crate::store::StoreKind;
use crate::text::printable;

/// Builds container images from stackerfiles, with a content-addressed cache, as an ordinary user.
#[derive(Parser, Debug)]
#[command(name = "stacker", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that are accepted before and after the command.
#[derive(Args, Debug, Clone, Default)]
pub struct Global {
    /// Database, records, listings, blobs and logs (default: a directory in the user's cache)
    #[arg(long, global = true, value_name = "DIR")]
    pub stacker_dir: Option<PathBuf>,
    /// The OCI layout that is written (default: oci)
    #[arg(long, global = true, value_name = "DIR")]
    pub oci_dir: Option<PathBuf>,
    /// Root filesystems of the layers (default: roots in the stacker directory)
    #[arg(long, global = true, value_name = "DIR")]
    pub roots_dir: Option<PathBuf>,
    /// Where `.stacker` and `roots` lie, instead of the user's cache
    #[arg(long, global = true, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Kind of snapshot store (default: btrfs where the roots directory is on it, else overlay where that works, else copy)
    #[arg(long, global = true, value_name = "TYPE")]
    pub storage_type: Option<StorageType>,
    /// Insist on a kind of sandbox (default: the best that there is)
    #[arg(long, global = true, value_name = "TIER")]
    pub sandbox: Option<Tier>,
    /// Tell which directories are used, and all that is known of an error
    #[arg(long, global = true)]
    pub debug: bool,
    /// Warnings and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// Kinds of snapshot store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageType {
    /// Stacks of deltas on any file system that overlayfs can write to.
    Overlay,
    /// A snapshot for each layer that runs build on; the roots directory must be on btrfs.
    Btrfs,
    /// A copy of the base for each run, on any file system: slow.
    Copy,
}

impl From<StorageType> for StoreKind {
    fn from(kind: StorageType) -> StoreKind {
        match kind {
            StorageType::Overlay => StoreKind::Overlay,
            StorageType::Btrfs => StoreKind::Btrfs,
            StorageType::Copy => StoreKind::Copy,
        }
    }
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Build layers and write their images to the OCI layout
    Build(Box<Build>),
    /// Run a command, or an interactive shell, in a throw-away copy of a layer
    Shell(Box<Shell>),
    /// Show the images of the OCI layout
    Inspect(Inspect),
    /// Look into the cache
    #[command(subcommand)]
    Cache(Cache),
    /// Remove what was not used for long, and what nothing refers to (the same as `cache gc`)
    Gc(Gc),
    /// Prepare this machine, as root: a btrfs for the store, ids for a user (idempotent)
    Setup(Setup),
    /// Remove the OCI layout, and the store unless it is the shared one
    Clean(Clean),
    /// Find out what builds can have on this machine, and what is to be done for the rest
    Check(Check),
}

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
    /// Write a JSON description of what was built
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Compression of the layers that are built here
    #[arg(long, value_name = "CODEC", default_value = "gzip")]
    pub compression: Codec,
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
    /// Replace ${{NAME}} in stackerfiles
    #[arg(long, value_name = "NAME=VALUE", action = clap::ArgAction::Append)]
    pub substitute: Vec<String>,
    /// A YAML map of names and values to replace
    #[arg(long, value_name = "FILE")]
    pub substitute_file: Option<PathBuf>,
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

/// `stacker inspect`.
#[derive(Args, Debug)]
pub struct Inspect {
    /// One image (default: all)
    pub tag: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `stacker cache`.
#[derive(Subcommand, Debug)]
pub enum Cache {
    /// List the stored results
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what was not used for long, and what nothing refers to
    Gc(Gc),
    /// Look whether everything in the cache is there and right; what is damaged is set aside
    #[command(long_about = VERIFY)]
    Verify {
        /// Read all contents too
        #[arg(long)]
        deep: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one action and its result
    Show {
        /// A layer's name, or the first digits of a key
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `stacker cache verify --help`.
const VERIFY: &str = "\
Look whether everything in the cache is there and right: records and the database, listings, changes of layers, their
trees, blobs. Without --deep no content is read: names, types, modes, owners, sizes, times and attributes are compared.

What is damaged is set aside (files: in `damaged` of the stacker directory, until `gc --older-than`), and made again at
once or by the next build that needs it. Builds may run meanwhile: what one of them uses is told, and left to it.

Staged imports have nothing that they could be compared with: with --deep they are set aside, and staged again when they
are needed.

Exit code 0: all is right; 1: something was damaged.";

/// `stacker gc`.
#[derive(Args, Debug)]
pub struct Gc {
    /// Remove results that no build used for so long, such as 30d, 12h or 2w (default: keep all results)
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<String>,
    /// Only tell what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// `stacker setup`.
#[derive(Args, Debug)]
pub struct Setup {
    /// Who builds (default: root)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// How large the btrfs becomes; all of it is allocated
    #[arg(long, value_name = "SIZE", default_value = "20GiB")]
    pub size: bytesize::ByteSize,
    /// Only tell what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Take back what was done; the layers in the btrfs are lost
    #[arg(long, conflicts_with_all = ["user", "size"])]
    pub undo: bool,
}

/// `stacker clean`.
#[derive(Args, Debug)]
pub struct Clean {
    /// The shared store too
    #[arg(long)]
    pub all: bool,
}

/// `stacker check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the program; returns its exit code. Must be called before any thread exists.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> i32 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only where there is nobody to read it.
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    crate::commit_point::CommitPoint::watch();
    let debug = cli.global.debug;
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            if debug {
                eprintln!("debug: {error:?}");
            }
            match &error {
                // Rendered with places already.
                crate::Error::Stackerfile(text) => eprintln!("{}", printable(text)),
                error => eprintln!("error: {}", printable(&error.to_string())),
            }
            if let Some(full) = error.full() {
                eprintln!("the disk is full: {full} ({})", crate::need::Need::Space.mend());
            }
            error.exit_code()
        }
    }
}
