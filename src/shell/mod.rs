//! `stacker shell`, and what `stacker build` opens after a failure: a command in a step's surroundings.
//!
//! Nothing that it does is kept, but what it changes in a failed draft that a build opens for it.

mod open;
mod relay;
mod terminal;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::build::{What, read, settle, wanted};
use crate::cli::options::Directories;
use crate::database::Database;
use crate::decide::{Decider, Settings};
use crate::error::{At, Error, Result};
use crate::execute::{self, Execution, Looked, Lost, Site, View, failed_draft};
use crate::graph::{LayerGraph, LayerIndex, Node};
use crate::holder::Holder;
use crate::http;
use crate::inputs::{self, Inputs, Scope};
use crate::load::{Loaded, Options};
use crate::pins::{Pin, Pins};
use crate::progress::Mode;
use crate::remote::{self, Fetching};
use crate::tell::Teller;
use crate::worker::message::{FailedDraft, JOB_FILE, RunJob, ShellJob};

pub(crate) use open::heeding_signals;
pub use terminal::restore;

/// What `stacker shell` was asked for.
pub struct Request {
    /// Where everything lies.
    pub directories: Directories,
    /// Which stackerfiles.
    pub what: What,
    /// Substitutes, patterns and directories for loading.
    pub load: Options,
    /// The layer's name; `None`: the first one of the stackerfile.
    pub layer: Option<String>,
    /// `--before`, `--failed`, or neither.
    pub start: Start,
    /// What to run; a shell when it is empty.
    pub command: Vec<String>,
    /// How the network is used, where what is looked at must be fetched.
    pub network: http::Options,
}

/// Where the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In a root filesystem that was built.
    View(View),
    /// In what the last run left when it failed.
    Failed,
}

/// What a build does in a failed draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// `--shell-fail`.
    Shell,
    /// `--on-run-failure`.
    Command(String),
}

/// An interactive shell: bash where there is one.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "if command -v bash > /dev/null; then exec bash; fi; exec sh"];

/// Runs the command; its exit code.
pub fn shell(request: &Request, holder: Holder) -> Result<i32> {
    let ((site, run, failed), arch) = find_layer(request, holder)?;
    open::open(&site, &arch, job(&site, run, failed, &request.command))
}

/// What is asked for, as far as it is there, and its architecture; the data that it needs is made.
pub(crate) fn find_layer(request: &Request, holder: Holder) -> Result<(Opened, String)> {
    let (_, loaded) = read(&request.what, &request.load)?;
    let mut graph = LayerGraph::new(&loaded)?;
    let layer = match &request.layer {
        Some(name) => graph.named(name)?,
        None => first(&loaded, &graph)?,
    };
    let (database, mut warnings) = Database::open(&request.directories.stacker)?;
    warnings.extend(settle(&request.directories, &database)?);
    warnings.splice(0..0, loaded.warnings.iter().chain(graph.warnings()).cloned());
    let teller = Teller::start(Some(Mode::None), &warnings, 1);
    let opened = match request.start {
        Start::Failed => failed(request, holder, &graph[layer], &database, &teller),
        Start::View(view) => look(request, holder, (&mut graph, &loaded, layer), view, &database, &teller),
    };
    teller.end(crate::progress::Event::Stop);
    Ok((opened?, graph[layer].layer.platform.arch.clone()))
}

/// The first layer of the file that was named, which comes after its prerequisites.
fn first(loaded: &Loaded, graph: &LayerGraph) -> Result<LayerIndex> {
    match loaded.stackerfiles.last().and_then(|file| file.layers.first()) {
        Some(layer) => graph.named(&layer.name),
        None => Err(Error::Usage("the stackerfile has no layer".to_owned())),
    }
}

/// All that a command needs.
pub(crate) type Opened = (Arc<Site>, RunJob, Option<FailedDraft>);

/// The root filesystem of a layer, or of what its script starts from.
fn look(
    request: &Request,
    holder: Holder,
    (graph, loaded, layer): (&mut LayerGraph, &Loaded, LayerIndex),
    view: View,
    database: &Database,
    teller: &Teller,
) -> Result<Opened> {
    if view == View::Before && graph[layer].layer.run.is_none() {
        let name = &graph[layer].layer.name;
        return Err(Error::Usage(format!("layer {name} has no `run`, so there is nothing before it")));
    }
    let wanted = wanted(graph, &[layer]);
    let scope = scope(request, &holder)?;
    let pins = Pins::start(&request.directories.stacker)?;
    let progress = Some(Mode::None);
    teller.warn(remote::fetch(
        graph,
        &Fetching {
            loaded,
            wanted: &wanted,
            scope: &scope,
            database,
            pins: &pins,
            progress,
            beside: RefCell::default(),
        },
    )?);
    let inputs = inputs::resolve(graph, loaded, &wanted, &scope, database)?;
    let source_date_epoch = inputs::source_date_epoch(&scope.host)?;
    let settings = Settings { source_date_epoch, keep_going: true, ids: holder.ids()?.0 };
    let decider = Decider::new(inputs.layers.clone(), wanted.clone(), settings);
    let site = Arc::new(Site::new(&request.directories, holder, pins, inputs, scope, teller.sender()));
    let options = execute::Options {
        jobs: 1,
        packings: Vec::new(),
        emitted: Default::default(),
        layout: PathBuf::new(),
        texts: loaded.texts.clone(),
        recording: None,
    };
    let execution = Execution::new(graph, wanted, decider, site.clone(), database, options);
    match execution.look(layer, view)? {
        Looked::There(run) => Ok((site, *run, None)),
        Looked::Unbuilt(layer) => {
            let name = &graph[layer].layer.name;
            let build = build_line(&request.what, name);
            Err(Error::Build(format!(
                "layer {name}, as it and what it reads are now, is not built; build it with: {build}"
            )))
        }
    }
}

/// What the last run of a layer left when it failed.
fn failed(request: &Request, holder: Holder, node: &Node, database: &Database, teller: &Teller) -> Result<Opened> {
    let none =
        Inputs { layers: Vec::new(), bases: Default::default(), trees: Default::default(), bounds: Default::default() };
    let pins = Pins::start(&request.directories.stacker)?;
    let scope = scope(request, &holder)?;
    let site = Arc::new(Site::new(&request.directories, holder, pins, none, scope, teller.sender()));
    match failed_run(&site, node, database)? {
        Some(run) => Ok((site, run, Some(FailedDraft { name: failed_draft(node), itself: false }))),
        None => {
            let name = &node.layer.name;
            let build = build_line(&request.what, name);
            Err(Error::Build(format!(
                "no failed run of layer {name} is kept: a failure is, until the layer is built the next time; build it \
                 with: {build}"
            )))
        }
    }
}

/// Opens what a run left that has just failed. The build has failed, whatever becomes of this.
pub fn after_failure(site: &Arc<Site>, node: &Node, database: &Database, then: &AfterFailure) -> Result<()> {
    let name = &node.layer.name;
    let Some(run) = failed_run(site, node, database)? else {
        return Err(Error::Build(format!("the failed run of {name} left nothing to look into")));
    };
    let command = match then {
        AfterFailure::Shell => {
            eprintln!("a shell in what {name} left when it failed; /stacker/run is its script; `exit` ends the build");
            Vec::new()
        }
        AfterFailure::Command(command) => ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
    };
    let draft = FailedDraft { name: failed_draft(node), itself: true };
    let arch = &node.layer.platform.arch;
    open::open(site, arch, job(site, run, Some(draft), &command)).map(|_| ())
}

/// How a failed run was started; its base is there.
fn failed_run(site: &Site, node: &Node, database: &Database) -> Result<Option<RunJob>> {
    site.ready()?;
    let path = site.roots.0.join("drafts").join(failed_draft(node)).join(JOB_FILE);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.at("read", &path)?,
    };
    let run: RunJob = serde_json::from_slice(&text)
        .map_err(|error| Error::Machine(format!("{} can not be understood: {error}", path.display())))?;
    let gone =
        |what| Error::Build(format!("{what} of the failed run is no longer in the store: build the layer again"));
    site.pins.pin(run.parent.ids().into_iter().map(Pin::Base), || Ok(()))?;
    match site.have_chain(&run.parent, &site.own_blobs(database, &run.parent)?, false) {
        Ok(learned) => {
            for (diff_id, info) in &learned {
                database.put_layer(diff_id, info)?;
            }
        }
        Err(Lost::Evicted(_)) => return Err(gone("the base")),
        Err(Lost::Error(error)) => return Err(error),
    }
    if run.mounts.iter().any(|(_, name)| !site.roots.import(name).exists()) {
        return Err(gone("an import"));
    }
    Ok(Some(run))
}

fn job(site: &Site, run: RunJob, failed: Option<FailedDraft>, command: &[String]) -> ShellJob {
    let shell = || SHELL.map(str::to_owned).to_vec();
    let command = if command.is_empty() { shell() } else { command.to_vec() };
    ShellJob { run: RunJob { draft: site.unique(), ..run }, command, failed, terminal: None }
}

fn scope(request: &Request, holder: &Holder) -> Result<Scope> {
    Ok(Scope {
        owners: holder.owners()?,
        stacker: request.directories.stacker.clone(),
        exclude: request.directories.own(),
        host: inputs::host_variables(),
        no_cache: false,
        rebuild: Default::default(),
        // What is looked at was built already.
        max_layer_size: u64::MAX,
        http: Arc::new(http::Client::new(request.network.clone())),
    })
}

fn build_line(what: &What, layer: &str) -> String {
    match what {
        What::All(directory) => format!("stacker build --all {}", shell_words::quote(&directory.to_string_lossy())),
        What::File(file, _) => format!("stacker build{} {layer}", file_option(file)),
    }
}

/// What a command line needs so that it reads this stackerfile.
pub fn file_option(file: &Path) -> String {
    match std::env::current_dir().is_ok_and(|here| file == here.join("stacker.yaml")) {
        true => String::new(),
        false => format!(" -f {}", shell_words::quote(&file.to_string_lossy())),
    }
}
