//! Each command: from typed arguments to one call of the library.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::build::{self, What, build};
use crate::error::{Error, Result};
use crate::holder::Holder;
use crate::inputs::absolute;
use crate::load;
use crate::progress::Mode;

use super::options::{Directories, compression, cores, substitute, time};
use super::{Build, Cli, Command, Global};

/// Runs a command; returns the exit code.
pub fn run(cli: Cli) -> Result<i32> {
    let directories = Directories::resolve(&cli.global)?;
    if cli.global.debug {
        let Directories { stacker, roots, oci, .. } = &directories;
        let (stacker, roots, oci) = (stacker.0.display(), roots.0.display(), oci.display());
        eprintln!("debug: stacker directory {stacker}, roots directory {roots}, layout {oci}");
    }
    let kind = cli.global.storage_type.map(Into::into);
    match cli.command {
        Command::Build(arguments) => {
            // Forks, so it comes before any thread.
            let holder = Holder::start(&directories.stacker, &directories.roots, kind)?;
            build(&request(*arguments, &cli.global, directories)?, holder)
        }
        Command::Inspect(arguments) => {
            let text = crate::inspect::inspect(&directories.oci, arguments.tag.as_deref(), arguments.json)?;
            print(&text)
        }
        Command::Gc(arguments) => print(&super::cache::collect(&directories, kind, &arguments)?),
        Command::Cache(arguments) => {
            let (text, code) = super::cache::cache(&directories, kind, arguments)?;
            print(&text).map(|_| code)
        }
        Command::Clean(arguments) => {
            let holder = Holder::start(&directories.stacker, &directories.roots, kind)?;
            crate::clean::clean(&directories, arguments.all, &holder)?;
            Ok(0)
        }
    }
}

/// Results go to stdout; a reader that has gone (`| head`) is no failure of ours.
fn print(text: &str) -> Result<i32> {
    use std::io::Write;
    let mut text = text.trim_end_matches('\n').to_owned();
    text.push('\n');
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Machine(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(0),
    }
}

fn request(arguments: Build, global: &Global, directories: Directories) -> Result<build::Request> {
    let substitute_file = match &arguments.substitute_file {
        Some(path) => load::read_substitute_file(path)?,
        None => BTreeMap::new(),
    };
    let pattern = match &arguments.stacker_file_pattern {
        Some(text) => Some(
            regex::Regex::new(text)
                .map_err(|error| Error::Usage(format!("--stacker-file-pattern {text:?}: {error}")))?,
        ),
        None => None,
    };
    let load = load::Options {
        substitutes: arguments.substitute.iter().map(|text| substitute(text)).collect::<Result<_>>()?,
        substitute_file,
        builtins: directories.builtins(),
        working_dir: directories.working.clone(),
        exclude: directories.own(),
        pattern,
        colour: std::io::IsTerminal::is_terminal(&std::io::stderr()),
    };
    Ok(build::Request {
        what: what(&arguments)?,
        load,
        no_cache: arguments.no_cache,
        rebuild: arguments.rebuild,
        keep_going: arguments.keep_going,
        jobs: arguments.jobs.map_or_else(cores, usize::from),
        progress: if global.quiet { Some(Mode::None) } else { arguments.progress },
        metadata_file: arguments.metadata_file,
        compression: compression(arguments.compression, arguments.compression_level)?,
        created: arguments.created.as_deref().map(time).transpose()?,
        directories,
    })
}

fn what(arguments: &Build) -> Result<What> {
    if !arguments.all {
        let file = arguments.file.clone().unwrap_or_else(|| PathBuf::from("stacker.yaml"));
        return Ok(What::File(absolute(&file)?, arguments.layers.clone()));
    }
    match arguments.layers.as_slice() {
        [] => Ok(What::All(absolute(".".as_ref())?)),
        [directory] => Ok(What::All(absolute(directory.as_ref())?)),
        _ => Err(Error::Usage("build --all takes one directory; to build some layers, use -f FILE LAYER…".to_owned())),
    }
}
