//! One graph of all layers: who builds on whom, who copies from whom. Unknown names and cycles end here.
//!
//! Pure: it reads no files and knows nothing of keys or caches.

mod build;

use std::collections::{BTreeSet, HashMap};
use std::ops::Index;
use std::path::PathBuf;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diag::nearest;
use crate::error::{Error, Result};
use crate::load::{Import, Layer, Loaded};
use crate::registry::ImageName;
use crate::resolve::HostPath;

/// A layer of the graph. Indexes are in the order of a serial build: whatever a layer needs has a smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerIndex(pub usize);

/// A layer whose references are layers, no longer names.
#[derive(Clone, Debug)]
pub struct Node {
    /// What the stackerfile says. Its `base` and import sources are superseded by the fields below.
    pub layer: Arc<Layer>,
    /// `from`.
    pub base: NodeBase,
    /// `overlay_dirs` and `imports`, in order.
    pub imports: Vec<NodeImport>,
}

/// `from` with names resolved.
#[derive(Clone, Debug)]
pub enum NodeBase {
    /// Another layer of this graph.
    Built(LayerIndex),
    /// A tag of an OCI layout.
    Oci {
        /// Absolute path of the layout.
        layout: PathBuf,
        /// `None`: its only manifest.
        tag: Option<String>,
    },
    /// An image at a registry.
    Registry {
        /// Its name.
        name: ImageName,
        /// Without TLS, or without a look at certificates.
        insecure: bool,
    },
    /// A tar on disk.
    Tar(PathBuf),
    /// A tar on a server, until it is here: see [`LayerGraph::put_files`].
    UrlTar(String),
    /// A tar in another layer.
    LayerTar {
        /// Which.
        layer: LayerIndex,
        /// Absolute path in it.
        path: String,
    },
    /// Nothing.
    Scratch,
}

/// An import with names resolved.
#[derive(Clone, Debug)]
pub struct NodeImport {
    /// Place, dest, attributes, hash. (Its `source` is superseded.)
    pub import: Import,
    /// Where it comes from.
    pub source: NodeSource,
}

/// Where an import comes from.
#[derive(Clone, Debug)]
pub enum NodeSource {
    /// A file or directory of the host.
    Host {
        /// Where.
        at: HostPath,
        /// It was written with a trailing slash.
        trailing_slash: bool,
    },
    /// A path of another layer.
    Layer {
        /// Which.
        layer: LayerIndex,
        /// Absolute path in it, with its trailing slash where it was written with one.
        path: String,
    },
    /// A file on a server, until it is here: see [`LayerGraph::put_files`].
    Url(String),
}

impl NodeImport {
    /// Where a script sees what comes out of a layer; nowhere, if it has a `dest` or comes from elsewhere.
    pub fn places(&self) -> Vec<String> {
        let NodeSource::Layer { path, .. } = &self.source else { return vec![] };
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        self.import.seen_in().iter().map(|place| format!("{place}/{name}")).collect()
    }
}

/// Why one layer needs another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// `from: built`.
    Base,
    /// `from: tar` with `stacker://`.
    Tar,
    /// `stacker://` of an import.
    Import,
}

/// All layers of a build, in the order of a serial build.
#[derive(Clone, Debug, Default)]
pub struct LayerGraph {
    nodes: Vec<Node>,
    /// Edges go from what is needed to who needs it. Node weights are the indexes of `nodes`, and equal petgraph's.
    edges: DiGraph<LayerIndex, Need>,
    by_name: HashMap<String, LayerIndex>,
    warnings: Vec<String>,
}

impl LayerGraph {
    /// Resolves every name. Two layers of one name, unknown names and cycles are in the one error.
    pub fn new(loaded: &Loaded) -> Result<LayerGraph> {
        build::build(loaded)
    }

    /// How many layers.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// No layer at all.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every layer in the order of a serial build.
    pub fn iter(&self) -> impl Iterator<Item = (LayerIndex, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (LayerIndex(index), node))
    }

    /// The layer of this name.
    pub fn find(&self, name: &str) -> Option<LayerIndex> {
        self.by_name.get(name).copied()
    }

    /// The layer of a name from the command line; an error that proposes one if there is none.
    pub fn named(&self, name: &str) -> Result<LayerIndex> {
        self.find(name).ok_or_else(|| {
            let proposal = nearest(name, self.iter().map(|(_, node)| node.layer.name.as_str()));
            let proposal = proposal.map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
            Error::Usage(format!("there is no layer `{name}`{proposal}"))
        })
    }

    /// What a layer builds on or copies from, each once, in the order of a serial build.
    pub fn needs(&self, layer: LayerIndex) -> Vec<LayerIndex> {
        self.neighbours(layer, Direction::Incoming)
    }

    /// Each use that a layer makes of another: which one, and what for.
    pub fn uses(&self, layer: LayerIndex) -> Vec<(LayerIndex, Need)> {
        let edges = self.edges.edges_directed(NodeIndex::new(layer.0), Direction::Incoming);
        edges.map(|edge| (self.edges[edge.source()], *edge.weight())).collect()
    }

    /// Who builds on a layer or copies from it, each once, in the order of a serial build.
    pub fn dependents(&self, layer: LayerIndex) -> Vec<LayerIndex> {
        self.neighbours(layer, Direction::Outgoing)
    }

    /// These layers and all that they need, in the order of a serial build.
    pub fn closure(&self, layers: &[LayerIndex]) -> Vec<LayerIndex> {
        let mut found: BTreeSet<LayerIndex> = BTreeSet::new();
        let mut open = layers.to_vec();
        while let Some(layer) = open.pop() {
            if found.insert(layer) {
                open.extend(self.needs(layer));
            }
        }
        found.into_iter().collect()
    }

    /// Lets what comes from servers be what lies on the host instead, where `file` knows it by URL and `hash`.
    pub fn put_files(&mut self, file: impl Fn(&str, Option<&[u8; 32]>) -> Option<PathBuf>) {
        for node in &mut self.nodes {
            if let NodeBase::UrlTar(url) = &node.base
                && let Some(path) = file(url, None)
            {
                node.base = NodeBase::Tar(path);
            }
            for import in &mut node.imports {
                if let NodeSource::Url(url) = &import.source
                    && let Some(path) = file(url, import.import.hash.as_ref())
                {
                    let at = HostPath::normalised(path);
                    import.source = NodeSource::Host { at, trailing_slash: false };
                }
            }
        }
    }

    /// Rendered warnings about how layers refer to each other.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn neighbours(&self, layer: LayerIndex, direction: Direction) -> Vec<LayerIndex> {
        let neighbours = self.edges.neighbors_directed(NodeIndex::new(layer.0), direction);
        let sorted: BTreeSet<LayerIndex> = neighbours.map(|node| self.edges[node]).collect();
        sorted.into_iter().collect()
    }
}

impl Index<LayerIndex> for LayerGraph {
    type Output = Node;
    fn index(&self, index: LayerIndex) -> &Node {
        &self.nodes[index.0]
    }
}
