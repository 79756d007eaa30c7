//! `stacker graph`.

use std::path::PathBuf;

use clap::Args;

use crate::build::{self, What};
use crate::database::open_existing;
use crate::error::{Error, Result};
use crate::inputs::absolute;
use crate::picture::Format;

use super::Reading;
use super::commands::{file, reading};
use super::options::Directories;

/// `stacker graph`.
#[derive(Args, Debug)]
pub struct Graph {
    /// Layers to show, with what they need (default: all); with --all, the directory to search
    #[arg(value_name = "LAYER")]
    pub layers: Vec<String>,
    /// Show the layers of every stackerfile below a directory (default: .)
    #[arg(long)]
    pub all: bool,
    /// The stackerfile
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE", conflicts_with = "all")]
    pub file: Option<PathBuf>,
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// What became of each layer in the last build, and why
    #[arg(long)]
    pub why: bool,
    /// How stackerfiles are read.
    #[command(flatten)]
    pub reading: Reading,
}

/// What `stacker graph` prints.
pub fn graph(arguments: &Graph, directories: &Directories) -> Result<String> {
    let load = reading(&arguments.reading, directories)?;
    let what = what("graph", arguments.all, arguments.file.as_ref(), &arguments.layers)?;
    // Where nothing was built, there was no last build.
    let database = match arguments.why && directories.stacker.database().exists() {
        true => Some(open_existing(&directories.stacker)?),
        false => None,
    };
    Ok(build::picture(&what, &load, database.as_ref())?.show(arguments.format))
}

/// Which layers are meant by a command that takes them as `build` does.
pub fn what(command: &str, all: bool, given: Option<&PathBuf>, names: &[String]) -> Result<What> {
    if !all {
        return Ok(What::File(file(given)?, names.to_vec()));
    }
    match names {
        [] => Ok(What::All(absolute(".".as_ref())?)),
        [directory] => Ok(What::All(absolute(directory.as_ref())?)),
        _ => Err(Error::Usage(format!("{command} --all takes one directory; for some layers, use -f FILE LAYER…"))),
    }
}
