//! The story of `stacker build`, from stackerfiles to an OCI layout.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::cli::options::Directories;
use crate::database::{BuildId, Database};
use crate::decide::{Decider, Settings};
use crate::digest::Chain;
use crate::error::{Error, Result};
use crate::execute::{self, Execution, Recording, Site};
use crate::gc;
use crate::graph::{LayerGraph, LayerIndex};
use crate::holder::Holder;
use crate::http;
use crate::images::{self, Export};
use crate::inputs::{self, Inputs, Scope};
use crate::layer_type::{LayerType, Packing};
use crate::load::{self, Found, Loaded};
use crate::pins::{Pin, Pins};
use crate::progress::log::line;
use crate::progress::{Beside, Event, Mode};
use crate::provenance::Provenance;
use crate::remote::{self, Fetching};
use crate::resolve::Owners;
use crate::shell::{AfterFailure, after_failure};
use crate::store;
use crate::story;
use crate::tell;
use crate::trace::Trace;
use crate::worker::message::Compression;

mod look;
mod order;
mod report;

pub use look::{Ahead, Look};
pub use order::{order, picture};

/// What `stacker build` was asked for.
pub struct Request {
    /// Where everything lies.
    pub directories: Directories,
    /// Which stackerfiles.
    pub what: What,
    /// Substitutes, patterns and directories for loading.
    pub load: load::Options,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--rebuild`.
    pub rebuild: Vec<String>,
    /// `--keep-going`.
    pub keep_going: bool,
    /// `--jobs`.
    pub jobs: usize,
    /// `--progress`.
    pub progress: Option<Mode>,
    /// `--metadata-file`.
    pub metadata_file: Option<PathBuf>,
    /// `--trace`.
    pub trace: Option<PathBuf>,
    /// `--compression`, `--compression-level`.
    pub compression: Compression,
    /// `--layer-type`.
    pub layer_types: Vec<LayerType>,
    /// `--max-layer-size`, bytes.
    pub max_layer_size: u64,
    /// `--provenance`, with the namespace of the annotations.
    pub provenance: Option<String>,
    /// `--created`.
    pub created: Option<i64>,
    /// `--shell-fail`, `--on-run-failure`.
    pub after_failure: Option<AfterFailure>,
    /// `--cache-max-size`, bytes.
    pub cache_max_size: Option<u64>,
    /// `--offline`, `--ca-file` and their like.
    pub network: http::Options,
}

/// Which layers are built.
pub enum What {
    /// Every stackerfile below a directory.
    All(PathBuf),
    /// The layers of one file (all when none is named) and what they need.
    File(PathBuf, Vec<String>),
}

/// Builds; returns the exit code.
pub fn build(request: &Request, mut holder: Holder) -> Result<i32> {
    let begun = Instant::now();
    let recording = Some(Recording::start(&request.directories.working, request.jobs));
    let (_, loaded) = read(&request.what, &request.load)?;
    let mut graph = LayerGraph::new(&loaded)?;
    let wanted = wanted(&graph, &named(&graph, &request.what)?);
    let (database, mut warnings) = Database::open(&request.directories.stacker)?;
    warnings.extend(settle(&request.directories, &database)?);
    holder.expect(database.store(&request.directories.roots)?);
    let packings = packings(request, &graph, &wanted)?;
    let scope = scope(request, &graph, holder.owners()?)?;
    // What is fetched from now on is not taken for a leftover.
    let pins = Pins::start(&request.directories.stacker)?;
    let (progress, beside) = (request.progress, RefCell::default());
    let fetching = Fetching {
        loaded: &loaded,
        wanted: &wanted,
        scope: &scope,
        database: &database,
        pins: &pins,
        progress,
        beside,
    };
    warnings.extend(remote::fetch(&mut graph, &fetching)?);
    let mut beside = fetching.beside.take();
    let inputs = inputs::resolve(&graph, &loaded, &wanted, &scope, &database)?;
    inputs::check_hashes(&graph, &loaded, &wanted, &inputs, &database)?;
    let provenance = provenance(request, &loaded, &graph, &wanted, &mut warnings);
    warnings.splice(0..0, loaded.warnings.iter().chain(graph.warnings()).cloned());
    let (ids, fallback) = holder.ids()?;
    warnings.extend(fallback.map(|fallback| fallback.to_string()));

    let teller = tell::Teller::start(request.progress, &warnings, wanted.len());
    pin_bases(&pins, &inputs, &database)?;
    let settings =
        Settings { source_date_epoch: inputs::source_date_epoch(&scope.host)?, keep_going: request.keep_going, ids };
    let images = inputs.bases.images.clone();
    let decider = Decider::new(inputs.layers.clone(), wanted.clone(), settings);
    let site = Arc::new(Site::new(&request.directories, holder, pins, inputs, scope, teller.sender()));
    let options = execute::Options {
        jobs: request.jobs,
        packings: packings.clone(),
        texts: loaded.texts.clone(),
        layout: request.directories.oci.clone(),
        emitted: wanted.iter().copied().filter(|layer| !graph[*layer].layer.build_only).collect(),
        recording,
    };
    let mut execution = Execution::new(&graph, wanted, decider, site.clone(), &database, options);
    let signals = tell::Signals::listen(execution.on_signal())?;
    let export = Export {
        request,
        graph: &graph,
        images: &images,
        site: &site,
        settings,
        packings: &packings,
        provenance: &provenance,
    };
    let done = execution.run().and_then(|reports| {
        let made = SystemTime::now();
        let written = images::export(&export, &reports, &database)?;
        database.commit_durable(&request.directories.roots, made)?;
        Ok((reports, written))
    });
    signals.stop();
    let code = done.as_ref().map_or_else(Error::exit_code, |(reports, _)| report::exit_code(reports));
    let noted = execution.record(code);
    let id = noted.as_ref().ok().copied().flatten();
    let (reports, written) = match done.and_then(|done| noted.map(|_| done)) {
        Ok(done) => done,
        Err(error) => {
            beside.extend(teller.end(Event::Stop));
            // What it failed of counts.
            let _ = write_trace(request, &database, id, (begun, &beside));
            return Err(error);
        }
    };
    let outcome = report::Outcome { graph: &graph, reports: &reports, written: &written, elapsed: begun.elapsed() };
    beside.extend(teller.end(Event::End(outcome.summary())));
    outcome.write_metadata(request.metadata_file.as_deref())?;
    write_trace(request, &database, id, (begun, &beside))?;
    open_what_failed(request, &outcome, &site, &database)?;
    hold_quota(request, &site, &database)?;
    Ok(code)
}

/// `--trace`.
fn write_trace(
    request: &Request,
    database: &Database,
    id: Option<BuildId>,
    (begun, beside): (Instant, &[Beside]),
) -> Result<()> {
    let (Some(path), Some(id)) = (&request.trace, id) else { return Ok(()) };
    match story::read(database, id)? {
        Some(story) => Trace::of(&story, begun, beside).write(path),
        None => Ok(()),
    }
}

/// The base images of a build stay while it lives.
fn pin_bases(pins: &Pins, inputs: &Inputs, database: &Database) -> Result<()> {
    let bases: Vec<_> = inputs.bases.images.values().map(|image| image.chain()).collect();
    pins.pin(bases.iter().flat_map(Chain::ids).map(Pin::Base), || {
        database.put_bases(&bases)?;
        database.put_base_blobs(&inputs.bases.blobs)
    })
}

/// `--shell-fail` and `--on-run-failure`.
fn open_what_failed(request: &Request, outcome: &report::Outcome, site: &Arc<Site>, database: &Database) -> Result<()> {
    let (Some(then), Some(layer)) = (&request.after_failure, outcome.failed_run()) else { return Ok(()) };
    match after_failure(site, &outcome.graph[layer], database, then) {
        Err(error @ Error::Interrupted(_)) => Err(error),
        // The build has failed for another reason, which counts.
        Err(error) => {
            eprintln!("warning: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// `--cache-max-size`. What this build used is not needed any more.
fn hold_quota(request: &Request, site: &Site, database: &Database) -> Result<()> {
    let Some(max) = request.cache_max_size else { return Ok(()) };
    site.pins.release();
    database.note_uses()?;
    let Some(held) = gc::quota::hold(&request.directories, &site.holder, database, max)? else { return Ok(()) };
    match held.too_much {
        true => line(&format!("warning: {}; running builds use those", held.told)),
        false if request.progress == Some(Mode::None) => {}
        false => line(&held.told),
    }
    Ok(())
}

/// Finds and reads stackerfiles, and those that they need. Also the paths of those that were asked for.
pub fn read(what: &What, options: &load::Options) -> Result<(Vec<PathBuf>, Loaded)> {
    let found = match what {
        What::All(directory) => load::find(directory, options)?,
        What::File(file, _) => Found { files: vec![file.clone()], ..Found::default() },
    };
    Ok((found.files.clone(), load::load_found(found, options)?))
}

/// Distrusts what a power cut may have left; the answer is what to tell of it.
pub fn settle(directories: &Directories, database: &Database) -> Result<Option<String>> {
    let count = store::boot::settle(&directories.stacker, &directories.roots, database.boot())?;
    let told =
        || format!("{count} things in the store were not known to be on disk when the machine stopped: set aside");
    Ok((count > 0).then(told))
}

/// The layers that are asked for.
pub fn named(graph: &LayerGraph, what: &What) -> Result<Vec<LayerIndex>> {
    match what {
        What::File(_, names) if !names.is_empty() => names.iter().map(|name| graph.named(name)).collect(),
        _ => Ok(graph.iter().map(|(index, _)| index).collect()),
    }
}

/// Layers and all they need.
pub fn wanted(graph: &LayerGraph, layers: &[LayerIndex]) -> BTreeSet<LayerIndex> {
    graph.closure(layers).into_iter().collect()
}

/// How layers become blobs. The tags that this makes must not be those of other layers.
pub(crate) fn packings(request: &Request, graph: &LayerGraph, wanted: &BTreeSet<LayerIndex>) -> Result<Vec<Packing>> {
    for layer in wanted.iter().map(|layer| &graph[*layer].layer).filter(|layer| !layer.build_only) {
        for kind in request.layer_types.iter().filter(|kind| **kind != LayerType::Tar) {
            let tag = kind.tag(&layer.name);
            if graph.find(&tag).is_some() {
                let (name, kind) = (&layer.name, kind.name());
                let why = format!("with --layer-type {kind} the image of layer {name} is tagged {tag}");
                return Err(Error::Usage(format!("{why}, but there is a layer of that name")));
            }
        }
    }
    Packing::of(&request.layer_types, request.compression, &request.directories.stacker.tmp())
}

/// What images say of where they come from: nothing, if that was not asked for.
fn provenance(
    request: &Request,
    loaded: &load::Loaded,
    graph: &LayerGraph,
    wanted: &BTreeSet<LayerIndex>,
    warnings: &mut Vec<String>,
) -> Provenance {
    let Some(namespace) = &request.provenance else { return Provenance::default() };
    let emitted = wanted.iter().map(|layer| &*graph[*layer].layer).filter(|layer| !layer.build_only);
    let (provenance, told) = Provenance::of(namespace, loaded, emitted);
    warnings.extend(told);
    provenance
}

/// What of the command line and the host reaches the inputs.
pub(crate) fn scope(request: &Request, graph: &LayerGraph, owners: Owners) -> Result<Scope> {
    Ok(Scope {
        stacker: request.directories.stacker.clone(),
        exclude: request.directories.own(),
        owners,
        host: inputs::host_variables(),
        max_layer_size: request.max_layer_size,
        http: Arc::new(http::Client::new(request.network.clone())),
        no_cache: request.no_cache,
        rebuild: request.rebuild.iter().map(|name| graph.named(name)).collect::<Result<_>>()?,
    })
}
