//! Which base images are needed as files, rather than as lists of what is in them.

use std::collections::{BTreeSet, HashSet};

use super::{BaseInput, Decider, SourceInput};
use crate::digest::Chain;
use crate::graph::LayerIndex;

impl Decider {
    /// The base images of layers with scripts, and of those that others copy from. If nothing is known of such an image
    /// yet, nothing that needs its files can be a hit.
    pub fn bases_for_files(&self) -> HashSet<Chain> {
        let scripts = self.wanted.iter().filter(|layer| {
            let input = &self.inputs[layer.0];
            input.run.is_some() || input.labels.is_some()
        });
        let mut layers: BTreeSet<LayerIndex> = scripts.copied().collect();
        for layer in &self.wanted {
            let sources = self.inputs[layer.0].imports.iter().map(|import| &import.source);
            layers.extend(sources.filter_map(|source| match source {
                SourceInput::Layer { layer, .. } => Some(*layer),
                SourceInput::Host { .. } => None,
            }));
        }
        layers.into_iter().filter_map(|layer| self.base_image(layer)).cloned().collect()
    }

    fn base_image(&self, mut layer: LayerIndex) -> Option<&Chain> {
        loop {
            match &self.inputs[layer.0].base {
                BaseInput::Built(base) => layer = *base,
                BaseInput::Image(chain) => return Some(chain),
                BaseInput::Tar(_) | BaseInput::LayerTar { .. } | BaseInput::Scratch => return None,
            }
        }
    }
}
