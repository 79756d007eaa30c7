//! `stacker history`, `why`, `log`: what was typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::database::{BuildId, open_existing};
use crate::error::Result;
use crate::history::{self, Asked};
use crate::inputs::absolute;

use super::options::Directories;

/// `stacker why --help`.
const WHY: &str = "\
Tell why a layer was built the last time: the first file, variable or line that differed from the layer's nearest earlier
action, root causes first. Where the change began in another layer, that one is told, and which others followed from it.

Of a layer that was a hit it is told in which build it was made as it is, and why. This is about builds that were; none
is made, and no stackerfile is read.";

/// `stacker why`.
#[derive(Args, Debug)]
#[command(long_about = WHY)]
pub struct Why {
    /// A layer's name, or the first digits of a key
    #[arg(value_name = "LAYER|KEY")]
    pub name: String,
    /// Which layer of that name.
    #[command(flatten)]
    pub which: Which,
    /// Compare with this action instead (the first digits of its key)
    #[arg(long, value_name = "KEY")]
    pub against: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which layer of a name is meant, and in which build.
#[derive(Args, Debug)]
pub struct Which {
    /// Of this stackerfile, or one that was built with it (default: the nearest to here)
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE", conflicts_with = "all")]
    pub file: Option<PathBuf>,
    /// Of a stackerfile below a directory (default: this one)
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = ".")]
    pub all: Option<PathBuf>,
    /// As it was in this build (default: the newest with the layer)
    #[arg(long, value_name = "ID")]
    pub build: Option<BuildId>,
}

/// `stacker history`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct History {
    /// How many builds to list
    #[arg(short = 'n', value_name = "N", default_value_t = 20)]
    pub count: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Something else than a list.
    #[command(subcommand)]
    pub command: Option<HistoryCommand>,
}

/// The commands of `stacker history`.
#[derive(Subcommand, Debug)]
pub enum HistoryCommand {
    /// Show one build: its layers, and what ran
    Show {
        /// Its number
        id: BuildId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `stacker log`.
#[derive(Args, Debug)]
pub struct Log {
    /// A layer's name
    pub layer: String,
    /// Which layer of that name.
    #[command(flatten)]
    pub which: Which,
}

impl Which {
    fn of(self, name: String, directories: &Directories) -> Result<Asked> {
        let path = |path: Option<PathBuf>| path.as_deref().map(absolute).transpose();
        let (file, below) = (path(self.file)?, path(self.all)?);
        Ok(Asked { name, file, below, build: self.build, working: directories.working.clone() })
    }
}

/// Does `stacker why`; returns what goes to stdout.
pub fn why(directories: &Directories, arguments: Why) -> Result<String> {
    let Why { name, which, against, json } = arguments;
    let asked = which.of(name, directories)?;
    let database = open_existing(&directories.stacker)?;
    history::why::why(&database, &directories.stacker, &asked, against.as_deref(), json)
}

/// Does `stacker history`; returns what goes to stdout.
pub fn history(directories: &Directories, arguments: &History) -> Result<String> {
    let database = open_existing(&directories.stacker)?;
    match &arguments.command {
        None => history::list(&database, arguments.count, arguments.json),
        Some(HistoryCommand::Show { id, json }) => history::show(&database, *id, *json),
    }
}

/// Does `stacker log`; returns what goes to stdout.
pub fn log(directories: &Directories, arguments: Log) -> Result<Vec<u8>> {
    let asked = arguments.which.of(arguments.layer, directories)?;
    history::log::log(&open_existing(&directories.stacker)?, &directories.stacker, &asked)
}
