//! One graph of all layers: who builds on whom, who copies from whom. Unknown names and cycles end here.
//!
//! Pure: it reads no files and knows nothing of keys or caches.

use std::ops::Index;
use std::path::PathBuf;

use petgraph::graph::DiGraph;

use crate::load::{Import, Layer};

/// A layer of the graph. Indexes are in the order of a serial build: whatever a layer needs has a smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerIndex(pub usize);

/// A layer whose references are layers, no longer names.
#[derive(Clone, Debug)]
pub struct Node {
    /// What the stackerfile says. Its `base` and import sources are superseded by the fields below.
    pub layer: Layer,
    /// `from`.
    pub base: NodeBase,
    /// `imports`, in order.
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
    /// A tar on disk.
    Tar(PathBuf),
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
        /// Absolute, without a trailing slash.
        path: PathBuf,
        /// It was written with one.
        trailing_slash: bool,
    },
    /// A path of another layer.
    Layer {
        /// Which.
        layer: LayerIndex,
        /// Absolute path in it.
        path: String,
    },
}

/// Why one layer needs another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `from: built`.
    Base,
    /// `stacker://`.
    Import,
}

/// All layers of a build, in the order of a serial build.
#[derive(Clone, Debug, Default)]
pub struct LayerGraph {
    nodes: Vec<Node>,
    /// Edges go from what is needed to who needs it. Node weights are the indexes of `nodes`.
    edges: DiGraph<LayerIndex, Need>,
}

impl Index<LayerIndex> for LayerGraph {
    type Output = Node;
    fn index(&self, index: LayerIndex) -> &Node {
        &self.nodes[index.0]
    }
}
