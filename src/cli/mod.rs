//! The command line as typed. What it means is worked out in [`options`]; each command is one function.

mod archive;
mod build;
mod cache;
mod cache_arguments;
mod commands;
pub mod config;
mod convert;
mod describe;
mod graph;
mod history;
pub mod options;
mod plan;
mod publish;
mod report;
mod reproduce;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::holder::Tier;
use crate::progress::log::last;
use crate::store::StoreKind;
use crate::text::printable;

pub use archive::{Export, Import};
pub use build::{Build, BuildOptions, Codec, Exec, Grab, Publish, Reading, RecursiveBuild, Shell, Substitutes};
pub use cache_arguments::{Cache, Gc, Ls};
pub use convert::Convert;
pub use graph::Graph;
pub use plan::Plan;
pub use report::ReportArguments;
pub use reproduce::Verify;

/// Builds container images from stackerfiles, with a content-addressed cache, as an ordinary user.
#[derive(Parser, Debug)]
#[command(name = "stacker", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Show progress, as happens anyway (after the command, `build` has --progress MODE)
    #[arg(long = "progress", conflicts_with = "no_progress")]
    pub show_progress: bool,
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that are accepted before and after the command.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Options of every command")]
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
    /// What the cache may hold when a build is over, such as 20GiB: what is worth least goes (default: all stays)
    #[arg(long, global = true, value_name = "SIZE")]
    pub cache_max_size: Option<bytesize::ByteSize>,
    /// YAML file with work_dir, stacker_dir, oci_dir, rootfs_dir, ca_file, provenance, cache_max_size (default: ~/.config/stacker/conf.yaml, if there is one)
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
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
    /// Plain lines instead of live ones
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Write what is told to the end of a file instead of stderr (an error that ends the program: to both)
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Begin each line that is told with the time
    #[arg(long, global = true)]
    pub log_timestamp: bool,
    /// How the network is used.
    #[command(flatten)]
    pub network: Network,
}

/// How registries and other servers are asked.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Use what is remembered of registries and servers, and ask none
    #[arg(long, global = true)]
    pub offline: bool,
    /// Certificates (PEM) to trust besides the system's; scripts get them too
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How often to ask again after a failure that may pass (default: 5)
    #[arg(long, global = true, value_name = "N")]
    pub retries: Option<u8>,
    /// How long a server may be silent (default: 60)
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub network_timeout: Option<u16>,
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
    /// Build the layers of all stackerfiles below a directory
    RecursiveBuild(Box<RecursiveBuild>),
    /// Show what a build would do, and for how long
    #[command(long_about = plan::PLAN)]
    Plan(Box<Plan>),
    /// Run a command, or an interactive shell, in a throw-away copy of a layer
    Shell(Box<Shell>),
    /// Run a command, or a shell, in a throw-away copy of a layer (`shell`, with the Go tool's arguments)
    #[command(visible_alias = "chroot")]
    Exec(Exec),
    /// Copy a file or directory out of a layer into the current directory
    Grab(Grab),
    /// Make a stackerfile of a Dockerfile
    Convert(Convert),
    /// Send images of the OCI layout to a registry, or copy them to another layout
    #[command(long_about = PUBLISH)]
    Publish(Box<Publish>),
    /// Build layers once more, and show what comes out otherwise
    Verify(Verify),
    /// Show the layers and what they need: as a tree, a drawing, for Graphviz or Mermaid, as JSON
    Graph(Graph),
    /// Write a page that shows a build: what ran and why, when, how large, with logs
    Report(ReportArguments),
    /// Show the images of the OCI layout
    Inspect(Inspect),
    /// Tell why a layer was built
    Why(history::Why),
    /// List the builds that were, or show one of them
    History(history::History),
    /// Print what the script of a layer printed
    Log(history::Log),
    /// Look into the cache
    #[command(subcommand)]
    Cache(Cache),
    /// Remove what was not used for long, and what nothing refers to (the same as `cache gc`)
    Gc(Gc),
    /// Prepare this machine, as root: a btrfs for the store, ids for a user (idempotent)
    Setup(Setup),
    /// Give a user subordinate ids, as root (the part of `setup` that every user needs)
    UnprivSetup(UnprivSetup),
    /// Remove the OCI layout, and the store unless it is the shared one
    Clean(Clean),
    /// Find out what builds can have on this machine, and what is to be done for the rest
    Check(Check),
    /// Print what makes a shell complete command lines of stacker
    Completions(Completions),
    /// Write manual pages, one for each command
    Man(Man),
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

/// `stacker publish --help`.
const PUBLISH: &str = "\
Send images of the OCI layout to a registry, or copy them to another layout, as they lie there. What is there already is
not sent again; blobs that other repositories of the registry have are taken from there.

Before anything is sent, it is looked whether the images are what their stackerfiles say now: as a build looks, but
nothing is built and no server is asked (bases by tag count as they were when they were last asked for). Images that are
not, and those with layers that are never cached, need --force.";

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

/// `stacker unpriv-setup`.
#[derive(Args, Debug)]
pub struct UnprivSetup {
    /// Who gets them (default: the user of --uid, else who called sudo)
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// The user's number
    #[arg(long)]
    pub uid: Option<u32>,
    /// Accepted for scripts that have it; group ids are given to the user by name
    #[arg(long)]
    pub gid: Option<u32>,
    /// Only tell what would be done
    #[arg(long)]
    pub dry_run: bool,
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

/// `stacker completions`.
#[derive(Args, Debug)]
#[command(after_help = COMPLETIONS)]
pub struct Completions {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// The end of `stacker completions --help`.
const COMPLETIONS: &str = "\
For bash:  stacker completions bash > ~/.local/share/bash-completion/completions/stacker
For zsh:   stacker completions zsh > DIR/_stacker, where DIR is in fpath
For fish:  stacker completions fish > ~/.config/fish/completions/stacker.fish";

/// `stacker man`.
#[derive(Args, Debug)]
pub struct Man {
    /// Where to write them, such as ~/.local/share/man/man1
    pub dir: PathBuf,
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
    let log = crate::progress::log::open(cli.global.log_file.as_deref(), cli.global.log_timestamp);
    match log.and_then(|()| commands::run(cli)) {
        Ok(code) => code,
        Err(error) => {
            if debug {
                eprintln!("debug: {error:?}");
            }
            match &error {
                // Rendered with places already.
                crate::Error::Stackerfile(text) => last(&printable(text)),
                error => last(&format!("error: {}", printable(&error.to_string()))),
            }
            if let Some(full) = error.full() {
                last(&format!("the disk is full: {full} ({})", crate::need::Need::Space.mend()));
            }
            error.exit_code()
        }
    }
}
