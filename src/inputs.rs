//! From the graph to the Decider's inputs: every host file by digest, every base image by its layers.
//!
//! This is where a build asks the host's file systems; stat lists make asking again cheap. Errors of several layers are
//! reported together, each with its place.

mod bases;
mod binds;
mod hashes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::action::Bind;
use crate::database::Database;
use crate::decide::{BaseInput, ImportInput, LayerInputs, RunInput, SourceInput, SourceKind};
use crate::diag::{Diagnostic, Diagnostics};
use crate::digest::{Chain, ContentDigest};
use crate::error::{At, Error, Result};
use crate::graph::{LayerGraph, LayerIndex, Node, NodeBase, NodeImport, NodeSource};
use crate::http;
use crate::listing::Kind;
use crate::load::{Base, Loaded, Place, Source};
use crate::names::KnownNames;
use crate::oci::BaseImage;
use crate::place::StackerDir;
use crate::resolve::{Bound, HostPath, HostTree, Owners, Resolver};

pub use hashes::check_hashes;
pub(crate) use hashes::{remember_sha256, remembered_sha256};

/// Host import trees.
pub type Trees = HashMap<HostPath, Arc<HostTree>>;

/// What lies at the sources of binds.
pub type Bounds = HashMap<PathBuf, Arc<Bound>>;

pub use bases::{Bases, unknown as unknown_bases};

/// Everything that the layers of a build take from the host.
pub struct Inputs {
    /// By layer index.
    pub layers: Vec<LayerInputs>,
    /// Base images.
    pub bases: Bases,
    /// Host import trees.
    pub trees: Trees,
    /// What lies at the sources of binds.
    pub bounds: Bounds,
}

/// What of the command line and the host reaches the inputs.
pub struct Scope {
    /// Where listings are kept.
    pub stacker: StackerDir,
    /// stacker's own directories: never part of an import.
    pub exclude: Vec<PathBuf>,
    /// Whom a script takes for the owners of binds.
    pub owners: Owners,
    /// Bytes that one import may have.
    pub max_layer_size: u64,
    /// The host's variables.
    pub host: BTreeMap<String, String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--rebuild`.
    pub rebuild: BTreeSet<LayerIndex>,
    /// For what is on servers.
    pub http: Arc<http::Client>,
}

/// Host variables that reach a run and are never in a key.
pub const PROXY_VARIABLES: [&str; 10] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// What PATH is when nobody sets it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Resolves the inputs of the wanted layers; the others get empty ones that nobody looks at.
pub fn resolve(
    graph: &LayerGraph,
    loaded: &Loaded,
    wanted: &BTreeSet<LayerIndex>,
    scope: &Scope,
    database: &Database,
) -> Result<Inputs> {
    let mut diagnostics = Diagnostics::new(loaded.texts.clone());
    let trees = host_trees(graph, wanted, (scope, &loaded.names), database, &mut diagnostics)?;
    let bounds = binds::look(graph, wanted, scope, database, &mut diagnostics)?;
    let bases = bases::find(graph, wanted, scope, database, &mut diagnostics)?;
    if let Some(error) = diagnostics.into_error() {
        return Err(error);
    }
    // They are large: collecting results would copy them as the list grows.
    let mut layers = Vec::with_capacity(graph.len());
    for (index, node) in graph.iter() {
        layers.push(match wanted.contains(&index) {
            true => layer_inputs(index, node, (&trees, &bounds), &bases.images, scope)?,
            false => LayerInputs {
                base: BaseInput::Scratch,
                platform: node.layer.platform.clone(),
                imports: vec![],
                run: None,
                labels: None,
                forced: false,
            },
        });
    }
    Ok(Inputs { layers, bases, trees, bounds })
}

/// Hashes every host path once, in parallel, with the stat lists that the database holds.
fn host_trees(
    graph: &LayerGraph,
    wanted: &BTreeSet<LayerIndex>,
    (scope, names): (&Scope, &KnownNames),
    database: &Database,
    diagnostics: &mut Diagnostics,
) -> Result<Trees> {
    let mut paths = BTreeMap::new();
    for &index in wanted {
        let node = &graph[index];
        if let NodeBase::Tar(path) = &node.base {
            paths.entry(HostPath::normalised(path.clone())).or_insert_with(|| base_place(node));
        }
        for import in &node.imports {
            if let NodeSource::Host { at, .. } = &import.source {
                paths.entry(at.clone()).or_insert_with(|| import.import.place.clone());
            }
        }
    }
    let resolver = Resolver::new(scope.exclude.clone()).at_most(scope.max_layer_size).knowing(names);
    let mut known = Vec::with_capacity(paths.len());
    database.begin_reading()?;
    for (at, place) in paths {
        // The path itself may be missing; the resolver says so.
        let device = std::fs::symlink_metadata(&at.path).map(|found| found.dev()).unwrap_or(0);
        let list = database.stat_list(&at.list_path(), device)?;
        known.push((at, place, list));
    }
    database.end_reading()?;
    let results: Vec<_> = known
        .into_par_iter()
        .map(|(at, place, list)| {
            let resolved = resolver.look(&at, list.as_deref());
            // For the reasons of later builds.
            let kept = resolved.as_ref().map_or(Ok(()), |resolved| resolved.tree.keep_listing(&scope.stacker));
            (at, place, kept.and(resolved))
        })
        .collect();
    let mut trees = HashMap::with_capacity(results.len());
    let mut lists = Vec::new();
    for (at, place, resolved) in results {
        match resolved {
            Ok(resolved) => {
                if let Some(list) = resolved.stat_list {
                    lists.push((at.list_path(), resolved.device, list));
                }
                trees.insert(at, Arc::new(resolved.tree));
            }
            Err(Error::Build(message)) => diagnostics.push(Diagnostic::error(message).at(place, "")),
            Err(error) => return Err(error),
        }
    }
    database.put_stat_lists(&lists)?;
    Ok(trees)
}

/// Where a layer says what it builds on.
pub fn base_place(node: &Node) -> Place {
    match &node.layer.base {
        Base::Built { place, .. }
        | Base::Oci { place, .. }
        | Base::Registry { place, .. }
        | Base::Tar { place, .. }
        | Base::UrlTar { place, .. }
        | Base::LayerTar { place, .. } => place.clone(),
        Base::Scratch => node.layer.place.clone(),
    }
}

fn layer_inputs(
    index: LayerIndex,
    node: &Node,
    (trees, bounds): (&Trees, &Bounds),
    images: &HashMap<LayerIndex, Arc<BaseImage>>,
    scope: &Scope,
) -> Result<LayerInputs> {
    let base = match &node.base {
        NodeBase::Scratch => BaseInput::Scratch,
        NodeBase::Built(base) => BaseInput::Built(*base),
        NodeBase::Tar(path) => BaseInput::Tar(file_content(path, &trees[&HostPath::normalised(path.clone())])?),
        NodeBase::UrlTar(url) => return Err(unfetched(url)),
        NodeBase::LayerTar { layer, path } => BaseInput::LayerTar { layer: *layer, path: path.clone() },
        NodeBase::Oci { .. } | NodeBase::Registry { .. } => {
            BaseInput::Image(Chain(images[&index].layers.iter().map(|layer| layer.diff_id).collect()))
        }
    };
    let imports = node.imports.iter().map(|import| import_input(import, trees)).collect::<Result<_>>()?;
    let layer = &node.layer;
    let run = layer.run.as_ref();
    let run = run.map(|script| run_input(node, script, &scope.host, &layer.build_env, binds::of(node, bounds)));
    let labels = layer.generate_labels.as_ref();
    let labels = labels.map(|script| run_input(node, script, &scope.host, &BTreeMap::new(), vec![]));
    let forced = scope.no_cache || scope.rebuild.contains(&index);
    Ok(LayerInputs { base, platform: layer.platform.clone(), imports, run, labels, forced })
}

fn import_input(import: &NodeImport, trees: &Trees) -> Result<ImportInput> {
    let (source, path, contents) = match &import.source {
        NodeSource::Host { at, trailing_slash } => {
            let tree = &trees[at];
            let source = SourceInput::Host { tree: tree.digest, kind: tree_kind(tree) };
            (source, at.path.to_string_lossy().into_owned(), *trailing_slash)
        }
        NodeSource::Layer { layer, path } => {
            let source = SourceInput::Layer { layer: *layer, path: path.clone() };
            (source, path.trim_end_matches('/').to_owned(), path.ends_with('/'))
        }
        NodeSource::Url(url) => return Err(unfetched(url)),
    };
    let basename = match &import.import.source {
        Source::Url { url } => http::name(url).unwrap_or_default(),
        _ => path.rsplit('/').next().unwrap_or_default().to_owned(),
    };
    Ok(ImportInput {
        source,
        basename,
        contents,
        dest: import.import.dest.clone(),
        seen_in: import.import.seen_in(),
        attributes: import.import.attributes,
    })
}

/// It should have been fetched before its layer's inputs are made.
pub(crate) fn unfetched(url: &str) -> Error {
    Error::Machine(format!("{} was not fetched", http::shown(url)))
}

/// A file or a directory.
pub fn tree_kind(tree: &HostTree) -> SourceKind {
    match &tree.root().kind {
        Kind::Directory { .. } => SourceKind::Directory,
        _ => SourceKind::File,
    }
}

fn file_content(path: &Path, tree: &HostTree) -> Result<ContentDigest> {
    match &tree.root().kind {
        Kind::File { content, .. } => Ok(*content),
        _ => Err(Error::Build(format!("the tar base {} is not a file", path.display()))),
    }
}

/// The variables that every script has.
pub fn default_environment() -> BTreeMap<String, String> {
    [("PATH", DEFAULT_PATH), ("TERM", "dumb"), ("HOME", "/root")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// Script and keyed environment: defaults, then what passes through, then `build_env`; the last wins.
fn run_input(
    node: &Node,
    script: &str,
    host: &BTreeMap<String, String>,
    build_env: &BTreeMap<String, String>,
    binds: Vec<Bind>,
) -> RunInput {
    let layer = &node.layer;
    let mut environment = default_environment();
    if let Some(epoch) = host.get("SOURCE_DATE_EPOCH") {
        environment.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.clone());
    }
    let mentions = |text: &str| text.contains("STACKER_LAYER_NAME");
    if mentions(script) || build_env.iter().any(|(name, value)| mentions(name) || mentions(value)) {
        environment.insert("STACKER_LAYER_NAME".to_owned(), layer.name.clone());
    }
    for (name, value) in host {
        let keyed = !PROXY_VARIABLES.contains(&name.as_str());
        if keyed && layer.build_env_passthrough.iter().any(|pattern| pattern.is_match(name)) {
            environment.insert(name.clone(), value.clone());
        }
    }
    environment.extend(build_env.clone());
    let script = if script.starts_with("#!") { script.to_owned() } else { format!("#!/bin/sh -xe\n{script}") };
    RunInput { script, environment, binds, network: layer.network }
}

/// The host's variables that are valid UTF-8; others can not be keyed and do not pass through.
pub fn host_variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// SOURCE_DATE_EPOCH of the host.
pub fn source_date_epoch(host: &BTreeMap<String, String>) -> Result<Option<i64>> {
    host.get("SOURCE_DATE_EPOCH")
        .map(|text| match text.parse::<i64>() {
            Ok(seconds) if (0..1 << 33).contains(&seconds) => Ok(seconds),
            Ok(_) => Err(Error::Usage(format!("SOURCE_DATE_EPOCH is before 1970 or after 2242: {text}"))),
            Err(_) => Err(Error::Usage(format!("SOURCE_DATE_EPOCH is not a number: {text:?}"))),
        })
        .transpose()
}

/// Absolute, without following links: what a path on the command line means.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).at("resolve", path)
}
