//! Each command: from typed arguments to one call of the library.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::build::{self, What, build};
use crate::error::{Error, Result};
use crate::execute::View;
use crate::holder::{Holder, Insisted};
use crate::http;
use crate::inputs::absolute;
use crate::load;
use crate::progress::Mode;
use crate::shell::{self, AfterFailure, Start, shell};

use super::config::Config;
use super::describe;
use super::graph::{graph, what};
use super::options::{Directories, compression, cores, network, quota, substitute, time};
use super::{
    Build, BuildOptions, Cache, Cli, Command, Exec, Global, Grab, Reading, RecursiveBuild, Setup, Shell, Substitutes,
    UnprivSetup,
};

/// Runs a command; returns the exit code.
pub fn run(cli: Cli) -> Result<i32> {
    // These need no directories, which a machine that makes packages may not have.
    match &cli.command {
        Command::Completions(arguments) => return write(&describe::completions(arguments.shell)),
        Command::Man(arguments) => return describe::man(&arguments.dir).map(|()| 0),
        Command::Convert(arguments) => return convert(arguments),
        _ => {}
    }
    let config = Config::read(cli.global.config.as_deref())?;
    let directories = Directories::resolve(&cli.global, &config)?;
    let network = network(&cli.global, &config)?;
    let quota = quota(&cli.global, &config)?;
    if cli.global.debug {
        let Directories { stacker, roots, oci, .. } = &directories;
        let (stacker, roots, oci) = (stacker.0.display(), roots.0.display(), oci.display());
        eprintln!("debug: stacker directory {stacker}, roots directory {roots}, layout {oci}");
    }
    let insisted = (cli.global.storage_type.map(Into::into), cli.global.sandbox);
    match cli.command {
        Command::Build(mut arguments) => {
            arguments.options.provenance = arguments.options.provenance.or(config.provenance);
            build_layers(build_request(*arguments, &cli.global, directories, network), quota, insisted)
        }
        Command::RecursiveBuild(mut arguments) => {
            arguments.options.provenance = arguments.options.provenance.or(config.provenance);
            build_layers(recursive_request(*arguments, &cli.global, directories, network), quota, insisted)
        }
        Command::Plan(arguments) => {
            let request = super::plan::request(*arguments, directories, network)?;
            let holder = holder(&request.build.directories, insisted)?;
            let (text, code) = crate::plan::plan(&request, holder)?;
            print(&text).map(|_| code)
        }
        Command::Shell(arguments) => {
            let holder = holder(&directories, insisted)?;
            shell(&shell_request(*arguments, directories, network)?, holder)
        }
        Command::Exec(arguments) => {
            let holder = holder(&directories, insisted)?;
            shell(&exec_request(arguments, directories, network)?, holder)
        }
        Command::Grab(arguments) => {
            let holder = holder(&directories, insisted)?;
            let (request, path) = grab_request(arguments, directories, network)?;
            crate::grab::grab(&request, &path, holder).map(|()| 0)
        }
        Command::Publish(arguments) => {
            let request = super::publish::request(*arguments, &cli.global, directories, network)?;
            let holder = holder(&request.build.directories, insisted)?;
            print(&crate::publish::publish(&request, holder)?)
        }
        Command::Inspect(arguments) => {
            let text = crate::inspect::inspect(&directories.oci, arguments.tag.as_deref(), arguments.json)?;
            print(&text)
        }
        Command::Why(arguments) => print(&super::history::why(&directories, arguments)?),
        Command::History(arguments) => print(&super::history::history(&directories, &arguments)?),
        Command::Log(arguments) => print(&String::from_utf8_lossy(&super::history::log(&directories, arguments)?)),
        Command::Graph(arguments) => print(&graph(&arguments, &directories)?),
        Command::Report(arguments) => match super::report::report(&arguments, &directories)?.as_str() {
            "" => Ok(0),
            told => print(told),
        },
        Command::Gc(arguments) => print(&super::cache::collect(&directories, insisted, &arguments)?),
        Command::Verify(arguments) => {
            let report = super::reproduce::verify(&arguments, &cli.global, directories, network, insisted)?;
            print(&report.render(arguments.json)).map(|_| report.exit_code())
        }
        Command::Cache(Cache::Export(arguments)) => {
            let text = super::archive::export(arguments, directories, network, insisted)?;
            // Told even where it is quiet that something is missing.
            text.lines().filter(|line| !cli.global.quiet || line.starts_with("warning")).for_each(tell);
            Ok(0)
        }
        Command::Cache(Cache::Import(arguments)) => print(&super::archive::import(&arguments, &directories)?),
        Command::Cache(arguments) => {
            let (text, code) = super::cache::cache(&directories, insisted, arguments)?;
            print(&text).map(|_| code)
        }
        Command::Clean(arguments) => {
            let holder = holder(&directories, insisted)?;
            crate::clean::clean(&directories, arguments.all, &holder)?;
            Ok(0)
        }
        Command::Setup(arguments) => setup(&arguments, &cli.global),
        Command::UnprivSetup(UnprivSetup { username, uid, dry_run, .. }) => {
            crate::setup::ids_alone(username.as_deref(), uid, dry_run).map(|()| 0)
        }
        Command::Check(arguments) => {
            let report = crate::check::check(&directories, cli.global.sandbox)?;
            print(&report.show(arguments.json))?;
            Ok(report.exit_code())
        }
        Command::Completions(_) | Command::Man(_) | Command::Convert(_) => Ok(0),
    }
}

/// What could not be carried over goes to stderr, whatever else is told.
fn convert(arguments: &super::Convert) -> Result<i32> {
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    for warning in super::convert::run(arguments, &absolute(Path::new("."))?, colour)? {
        crate::progress::log::last(&crate::text::printable(&warning));
    }
    Ok(0)
}

/// Prepares the machine for a user, whose directories are not the caller's.
fn setup(arguments: &Setup, global: &Global) -> Result<i32> {
    if arguments.undo {
        return crate::setup::undo(arguments.dry_run).map(|()| 0);
    }
    let Setup { user, size, dry_run, .. } = arguments;
    let roots = global.roots_dir.as_deref().map(absolute).transpose()?;
    crate::setup::setup(&crate::setup::Request { user: user.clone(), roots, size: size.as_u64(), dry_run: *dry_run })
        .map(|()| 0)
}

/// Results go to stdout.
fn print(text: &str) -> Result<i32> {
    let mut text = crate::text::printable(text.trim_end_matches('\n')).into_owned();
    text.push('\n');
    write(text.as_bytes())
}

/// A line beside results goes to stderr.
fn tell(line: &str) {
    crate::progress::log::last(&crate::text::printable(line));
}

/// A reader that has gone (`| head`) is no failure of ours.
pub(super) fn write(bytes: &[u8]) -> Result<i32> {
    use std::io::Write;
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Machine(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(0),
    }
}

fn build_layers(request: Result<(build::Request, bool)>, quota: Option<u64>, insisted: Insisted) -> Result<i32> {
    let (mut request, order_only) = request?;
    request.cache_max_size = quota;
    if order_only {
        return print(&build::order(&request)?);
    }
    let holder = holder(&request.directories, insisted)?;
    build(&request, holder)
}

/// Forks, so it comes before any thread.
fn holder(directories: &Directories, (kind, sandbox): Insisted) -> Result<Holder> {
    Ok(Holder::start(&directories.stacker, &directories.roots, kind)?.insist(sandbox))
}

pub(super) fn reading(arguments: &Reading, directories: &Directories) -> Result<load::Options> {
    let pattern = arguments.stacker_file_pattern.as_deref().map(pattern).transpose()?;
    Ok(load::Options { pattern, ..substituting(&arguments.substitutes, directories)? })
}

pub(super) fn pattern(text: &str) -> Result<regex::Regex> {
    regex::Regex::new(text).map_err(|error| Error::Usage(format!("--stacker-file-pattern {text:?}: {error}")))
}

pub(super) fn substituting(arguments: &Substitutes, directories: &Directories) -> Result<load::Options> {
    let substitute_file = match &arguments.substitute_file {
        Some(path) => load::read_substitute_file(path)?,
        None => BTreeMap::new(),
    };
    Ok(load::Options {
        substitutes: arguments.substitute.iter().map(|text| substitute(text)).collect::<Result<_>>()?,
        substitute_file,
        substitute_path: arguments.substitute_file.as_deref().map(absolute).transpose()?,
        builtins: directories.builtins(),
        working_dir: directories.working.clone(),
        exclude: directories.own(),
        pattern: None,
        every_file: false,
        require_hash: false,
        portable: false,
        colour: std::io::IsTerminal::is_terminal(&std::io::stderr()),
        past: None,
    })
}

/// What is to be built, and whether it is only to be told in which order.
fn build_request(
    arguments: Build,
    global: &Global,
    directories: Directories,
    network: http::Options,
) -> Result<(build::Request, bool)> {
    let load = reading(&arguments.reading, &directories)?;
    let what = what("build", arguments.all, arguments.file.as_ref(), &arguments.layers)?;
    request(what, load, arguments.options, global, directories, network)
}

fn recursive_request(
    arguments: RecursiveBuild,
    global: &Global,
    directories: Directories,
    network: http::Options,
) -> Result<(build::Request, bool)> {
    let pattern = Some(pattern(&arguments.stacker_file_pattern)?);
    let load = load::Options { pattern, every_file: true, ..substituting(&arguments.substitutes, &directories)? };
    request(What::All(absolute(&arguments.search_dir)?), load, arguments.options, global, directories, network)
}

/// How progress is shown.
pub(super) fn mode(global: &Global, given: Option<Mode>) -> Option<Mode> {
    match (global.quiet, given, global.no_progress) {
        (true, ..) => Some(Mode::None),
        (_, None, true) => Some(Mode::Plain),
        (_, mode, _) => mode,
    }
}

fn request(
    what: What,
    load: load::Options,
    arguments: BuildOptions,
    global: &Global,
    directories: Directories,
    network: http::Options,
) -> Result<(build::Request, bool)> {
    let provenance = arguments.provenance.unwrap_or_default();
    let request = build::Request {
        what,
        load: load::Options { require_hash: arguments.require_hash, portable: provenance, ..load },
        provenance: provenance.then_some(arguments.annotations_namespace),
        no_cache: arguments.no_cache,
        rebuild: arguments.rebuild,
        keep_going: arguments.keep_going,
        jobs: arguments.jobs.map_or_else(cores, usize::from),
        progress: mode(global, arguments.progress),
        metadata_file: arguments.metadata_file,
        trace: arguments.trace,
        compression: compression(arguments.compression, arguments.compression_level)?,
        layer_types: arguments.layer_type,
        max_layer_size: arguments.max_layer_size.as_u64(),
        created: arguments.created.as_deref().map(time).transpose()?,
        after_failure: match arguments.on_run_failure {
            Some(command) => Some(AfterFailure::Command(command)),
            None => arguments.shell_fail.then_some(AfterFailure::Shell),
        },
        cache_max_size: None,
        directories,
        network,
    };
    Ok((request, arguments.order_only))
}

fn shell_request(arguments: Shell, directories: Directories, network: http::Options) -> Result<shell::Request> {
    Ok(shell::Request {
        what: what_to_look_in(arguments.all.as_ref(), arguments.file.as_ref())?,
        load: reading(&arguments.reading, &directories)?,
        layer: Some(arguments.layer),
        start: match (arguments.before, arguments.failed) {
            (_, true) => Start::Failed,
            (true, _) => Start::View(View::Before),
            _ => Start::View(View::Built),
        },
        command: arguments.command,
        directories,
        network,
    })
}

/// A command that is one word is split, since the Go tool hands it on as a line.
fn exec_request(arguments: Exec, directories: Directories, network: http::Options) -> Result<shell::Request> {
    let command = match arguments.command.as_slice() {
        [line] => shell_words::split(line).map_err(|error| Error::Usage(format!("{line:?}: {error}")))?,
        _ => arguments.command,
    };
    Ok(shell::Request {
        what: What::File(file(arguments.file.as_ref())?, Vec::new()),
        load: substituting(&arguments.substitutes, &directories)?,
        layer: arguments.layer,
        start: Start::View(View::Built),
        command,
        directories,
        network,
    })
}

/// The layer to look for, and the path in it.
fn grab_request(arguments: Grab, directories: Directories, network: http::Options) -> Result<(shell::Request, String)> {
    let Some((layer, path)) = arguments.what.split_once(':').filter(|(layer, _)| !layer.is_empty()) else {
        return Err(Error::Usage(format!("grab: wanted LAYER:PATH, found {:?}", arguments.what)));
    };
    let request = shell::Request {
        what: what_to_look_in(arguments.all.as_ref(), arguments.file.as_ref())?,
        load: reading(&arguments.reading, &directories)?,
        layer: Some(layer.to_owned()),
        start: Start::View(View::Built),
        command: Vec::new(),
        directories,
        network,
    };
    Ok((request, path.to_owned()))
}

fn what_to_look_in(all: Option<&PathBuf>, given: Option<&PathBuf>) -> Result<What> {
    match all {
        Some(directory) => Ok(What::All(absolute(directory)?)),
        None => Ok(What::File(file(given)?, Vec::new())),
    }
}

/// The stackerfile that is meant.
pub(super) fn file(given: Option<&PathBuf>) -> Result<PathBuf> {
    absolute(given.map_or(Path::new("stacker.yaml"), PathBuf::as_path))
}
