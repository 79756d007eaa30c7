//! From layers with names to layers with indexes. Everything that is wrong between layers is found here.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::diag::{Diagnostic, Diagnostics, Texts};
use crate::error::Result;
use crate::load::{Base, Layer, Loaded, Place, Source, Stackerfile};
use crate::order::order;
use crate::resolve::HostPath;

use super::{LayerGraph, LayerIndex, Need, Node, NodeBase, NodeImport, NodeSource};

/// A use of a layer by its name.
struct Reference<'l> {
    name: &'l str,
    place: &'l Place,
    need: Need,
}

/// A use of a layer, resolved. `layer` counts in the order of the files.
struct Edge {
    layer: usize,
    place: Place,
    need: Need,
}

pub(super) fn build(loaded: &Loaded) -> Result<LayerGraph> {
    let mut diagnostics = Diagnostics::new(loaded.texts.clone());
    let layers: Vec<&Layer> = loaded.stackerfiles.iter().flat_map(|file| &file.layers).collect();
    let names = names(&layers, &mut diagnostics);
    let visible = visible(&loaded.stackerfiles);
    let edges: Vec<Vec<Edge>> =
        layers.iter().map(|layer| edges(layer, &layers, &names, &visible, &mut diagnostics)).collect();
    let order = order(layers.len(), |layer| edges[layer].iter().map(|edge| edge.layer).collect());
    diagnostics.extend(order.cycles.iter().map(|cycle| circle(cycle, &layers, &edges)));
    let warnings = diagnostics.warnings();
    match diagnostics.into_error() {
        Some(error) => Err(error),
        None => Ok(assemble(&layers, &edges, &order.sorted, warnings)),
    }
}

/// Layers by name; a second definition is an error that shows both.
fn names<'l>(layers: &[&'l Layer], diagnostics: &mut Diagnostics) -> HashMap<&'l str, usize> {
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        let first = *names.entry(&layer.name).or_insert(index);
        if first != index {
            let diagnostic = Diagnostic::error(format!("layer `{}` is defined twice", layer.name));
            let diagnostic = diagnostic.at(layer.place.clone(), "again here");
            diagnostics.push(diagnostic.at(layers[first].place.clone(), "first here"));
        }
    }
    names
}

/// For each file, the files whose layers it may use: itself, its prerequisites and theirs. Files come in an order in
/// which prerequisites are first.
fn visible(files: &[Stackerfile]) -> HashMap<&Path, BTreeSet<&Path>> {
    let mut visible: HashMap<&Path, BTreeSet<&Path>> = HashMap::new();
    for file in files {
        let mut paths = BTreeSet::from([file.path.as_path()]);
        for (prerequisite, _) in &file.prerequisites {
            paths.extend(visible.get(prerequisite.as_path()).into_iter().flatten());
        }
        visible.insert(&file.path, paths);
    }
    visible
}

fn references(layer: &Layer) -> Vec<Reference<'_>> {
    let base = match &layer.base {
        Base::Built { tag, place } => Some(Reference { name: tag, place, need: Need::Base }),
        Base::LayerTar { layer, place, .. } => Some(Reference { name: layer, place, need: Need::Tar }),
        Base::Oci { .. } | Base::Registry { .. } | Base::Tar { .. } | Base::UrlTar { .. } | Base::Scratch => None,
    };
    let imports = layer.imports.iter().filter_map(|import| match &import.source {
        Source::Layer { layer, .. } => Some(Reference { name: layer, place: &import.place, need: Need::Import }),
        Source::Host { .. } | Source::Url { .. } => None,
    });
    base.into_iter().chain(imports).collect()
}

fn edges(
    layer: &Layer,
    layers: &[&Layer],
    names: &HashMap<&str, usize>,
    visible: &HashMap<&Path, BTreeSet<&Path>>,
    diagnostics: &mut Diagnostics,
) -> Vec<Edge> {
    let mut edges = Vec::new();
    for Reference { name, place, need } in references(layer) {
        let Some(&found) = names.get(name) else {
            let title = match need {
                Need::Base => format!("unknown base layer `{name}`"),
                Need::Tar => format!("tar base from unknown layer `{name}`"),
                Need::Import => format!("import from unknown layer `{name}`"),
            };
            let diagnostic = Diagnostic::error(title).at(place.clone(), "");
            diagnostics.push(match diagnostics.may_propose(names.len()) {
                false => diagnostic,
                true => diagnostic.did_you_mean(name, names.keys().copied().collect::<BTreeSet<_>>()),
            });
            continue;
        };
        let file = &*layers[found].place.path;
        if !visible.get(&*layer.place.path).is_some_and(|paths| paths.contains(file)) {
            diagnostics.push(not_a_prerequisite(name, place, layers[found], diagnostics.texts()));
        }
        edges.push(Edge { layer: found, place: place.clone(), need });
    }
    edges
}

/// It works as long as both files happen to be read, as `--all` does.
fn not_a_prerequisite(name: &str, place: &Place, found: &Layer, texts: &Texts) -> Diagnostic {
    let title =
        format!("layer `{name}` is in {}, which is no prerequisite of this file", texts.shown(&found.place.path));
    let diagnostic = Diagnostic::warning(title).at(place.clone(), "").at(found.place.clone(), "defined here");
    diagnostic.help("name that file in `config: {prerequisites: […]}`, so that this one can be built alone")
}

/// `a -> b -> a`, with the place of each use.
fn circle(cycle: &[usize], layers: &[&Layer], edges: &[Vec<Edge>]) -> Diagnostic {
    let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|layer| layers[*layer].name.as_str()).collect();
    let mut diagnostic = Diagnostic::error(format!("layers need each other in a circle: {}", names.join(" -> ")));
    for (at, layer) in cycle.iter().enumerate() {
        let next = cycle[(at + 1) % cycle.len()];
        if let Some(edge) = edges[*layer].iter().find(|edge| edge.layer == next) {
            diagnostic = diagnostic.at(edge.place.clone(), format!("`{}` needs `{}`", names[at], layers[next].name));
        }
    }
    diagnostic
}

fn assemble(layers: &[&Layer], edges: &[Vec<Edge>], sorted: &[usize], warnings: Vec<String>) -> LayerGraph {
    let mut places = vec![LayerIndex(0); layers.len()];
    for (at, layer) in sorted.iter().enumerate() {
        places[*layer] = LayerIndex(at);
    }
    let count = layers.len();
    let mut graph = LayerGraph {
        nodes: Vec::with_capacity(count),
        edges: DiGraph::with_capacity(count, 2 * count),
        by_name: HashMap::with_capacity(count),
        warnings,
    };
    for (at, &number) in sorted.iter().enumerate() {
        let mut needed = edges[number].iter().map(|edge| places[edge.layer]);
        graph.nodes.push(node(layers[number], &mut needed));
        graph.by_name.insert(layers[number].name.clone(), LayerIndex(at));
        graph.edges.add_node(LayerIndex(at));
        for edge in &edges[number] {
            graph.edges.add_edge(NodeIndex::new(places[edge.layer].0), NodeIndex::new(at), edge.need);
        }
    }
    graph
}

/// `needed` gives the layers in the order of [`references`].
fn node(layer: &Layer, needed: &mut impl Iterator<Item = LayerIndex>) -> Node {
    let mut next = || needed.next().expect("every reference of a graph without errors has its edge");
    let base = match &layer.base {
        Base::Built { .. } => NodeBase::Built(next()),
        Base::Oci { layout, tag, .. } => NodeBase::Oci { layout: layout.clone(), tag: tag.clone() },
        Base::Tar { path, .. } => NodeBase::Tar(path.clone()),
        Base::LayerTar { path, .. } => NodeBase::LayerTar { layer: next(), path: path.clone() },
        Base::Registry { name, insecure, .. } => NodeBase::Registry { name: name.clone(), insecure: *insecure },
        Base::UrlTar { url, .. } => NodeBase::UrlTar(url.clone()),
        Base::Scratch => NodeBase::Scratch,
    };
    let import = |import: &crate::load::Import| {
        let source = match &import.source {
            Source::Host { path, trailing_slash } => {
                let at = HostPath { path: path.clone(), modes: import.written.modes() };
                NodeSource::Host { at, trailing_slash: *trailing_slash }
            }
            Source::Layer { path, .. } => NodeSource::Layer { layer: next(), path: path.clone() },
            Source::Url { url } => NodeSource::Url(url.clone()),
        };
        NodeImport { import: import.clone(), source }
    };
    Node { base, imports: layer.imports.iter().map(import).collect(), layer: Arc::new(layer.clone()) }
}
