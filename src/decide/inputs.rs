//! What deciding starts from: plain data, every host input by digest.

use std::collections::BTreeMap;

use crate::action::{Attributes, Bind, Network, Platform};
use crate::digest::{Chain, ContentDigest, TreeDigest};
use crate::graph::LayerIndex;

use super::SourceKind;

/// What the deciding of one layer starts from: every host input by digest.
#[derive(Clone, Debug)]
pub struct LayerInputs {
    /// What it builds on.
    pub base: BaseInput,
    /// Platform of the result.
    pub platform: Platform,
    /// In the order of the stackerfile.
    pub imports: Vec<ImportInput>,
    /// The script and its surroundings.
    pub run: Option<RunInput>,
    /// The script that generates labels, which has no binds.
    pub labels: Option<RunInput>,
    /// Every action of this layer counts as missing.
    pub forced: bool,
}

/// What a layer builds on.
#[derive(Clone, Debug)]
pub enum BaseInput {
    /// Another layer of the graph.
    Built(LayerIndex),
    /// The layers of an image.
    Image(Chain),
    /// A tar, by content.
    Tar(ContentDigest),
    /// A tar in another layer; asked for when that layer is done.
    LayerTar {
        /// Which.
        layer: LayerIndex,
        /// Absolute path in it.
        path: String,
    },
    /// Nothing.
    Scratch,
}

/// One import.
#[derive(Clone, Debug)]
pub struct ImportInput {
    /// Where it comes from.
    pub source: SourceInput,
    /// Last component of the path; what a place that ends in `/` is completed with.
    pub basename: String,
    /// The path was written with a trailing slash: a directory's contents are meant.
    pub contents: bool,
    /// `dest` as written; `None`: mounted.
    pub dest: Option<String>,
    /// The directories in which it is mounted.
    pub seen_in: &'static [&'static str],
    /// Overrides.
    pub attributes: Attributes,
}

/// Where an import comes from.
#[derive(Clone, Debug)]
pub enum SourceInput {
    /// A host tree, by content.
    Host {
        /// What it is.
        tree: TreeDigest,
        /// A file or a directory.
        kind: SourceKind,
    },
    /// A path of another layer; asked for when that layer is done.
    Layer {
        /// Which.
        layer: LayerIndex,
        /// Absolute path in it.
        path: String,
    },
}

/// The script and its surroundings.
#[derive(Clone, Debug)]
pub struct RunInput {
    /// With its `#!` line.
    pub script: String,
    /// Variables in the key; SOURCE_DATE_EPOCH is added here when the host has none.
    pub environment: BTreeMap<String, String>,
    /// In the order of the stackerfile.
    pub binds: Vec<Bind>,
    /// Network mode.
    pub network: Network,
}

impl LayerInputs {
    /// The layers that this one builds on or copies from.
    pub fn needs(&self) -> impl Iterator<Item = LayerIndex> + '_ {
        let base = match self.base {
            BaseInput::Built(base) | BaseInput::LayerTar { layer: base, .. } => Some(base),
            _ => None,
        };
        base.into_iter().chain(self.imports.iter().filter_map(|import| match import.source {
            SourceInput::Layer { layer, .. } => Some(layer),
            SourceInput::Host { .. } => None,
        }))
    }
}
