//! What a step's action is made of: its inputs, and what is asked about layers that are done.

use std::collections::BTreeMap;

use crate::action::{Action, Kind, Mount};
use crate::digest::{ContentDigest, TreeDigest};
use crate::graph::LayerIndex;

use super::{
    Answer, BaseInput, Decider, ImportInput, LAYER_TIME_STEP, LayerInputs, Question, RunInput, SourceInput, SourceKind,
    Sources, Status, StepKind, Taken,
};

impl Decider {
    /// The action of the next step, when all it is made of is known.
    pub(super) fn action(&mut self, layer: LayerIndex, step: StepKind) -> Option<(Action, Sources)> {
        let input = self.inputs[layer.0].clone();
        let time = self.layers[layer.0].newest.saturating_add(LAYER_TIME_STEP);
        let mut sources = BTreeMap::new();
        let kind = match step {
            StepKind::Unpack => match &input.base {
                BaseInput::Tar(tar) => Kind::Unpack { tar: *tar },
                BaseInput::LayerTar { layer: from, path } => {
                    Kind::Unpack { tar: self.tar(layer, *from, path, &mut sources)? }
                }
                _ => return None,
            },
            StepKind::Import(index) => {
                let import = &input.imports[index];
                let (tree, kind) = self.source(layer, index, import, &mut sources)?;
                let question = Question::Place {
                    chain: self.layers[layer.0].chain.clone(),
                    dest: import.dest.clone().unwrap_or_default(),
                    basename: import.basename.clone(),
                    kind,
                    contents: import.contents,
                };
                match self.ask(layer, question)? {
                    Answer::Place(dest) => Kind::Import { tree, dest, attributes: import.attributes },
                    _ => return None,
                }
            }
            StepKind::Run => self.run_kind(layer, &input, time, &mut sources)?,
            StepKind::Labels => {
                let RunInput { script, environment, network, .. } = input.labels.clone()?;
                Kind::Labels { script, environment: self.with_epoch(environment, time), network }
            }
        };
        let base = self.layers[layer.0].chain.id();
        Some((Action { platform: input.platform.clone(), ids: self.ids, base, time, kind }, sources))
    }

    fn run_kind(&mut self, layer: LayerIndex, input: &LayerInputs, time: i64, sources: &mut Sources) -> Option<Kind> {
        let run = input.run.clone()?;
        let environment = self.with_epoch(run.environment, time);
        let mut mounts = Vec::new();
        let mut all_known = true;
        for (index, import) in input.imports.iter().enumerate().filter(|(_, import)| import.dest.is_none()) {
            // Every source is asked for at once, so that what they need is found out in parallel.
            match self.source(layer, index, import, sources) {
                Some((tree, _)) => mounts.extend(import.seen_in.iter().map(|directory| Mount {
                    place: format!("{directory}/{}", import.basename),
                    tree,
                    attributes: import.attributes,
                })),
                None => all_known = false,
            }
        }
        all_known.then_some(Kind::Run {
            script: run.script,
            environment,
            mounts,
            binds: run.binds,
            network: run.network,
        })
    }

    /// Of a step whose time is `time`.
    fn with_epoch(&self, mut environment: BTreeMap<String, String>, time: i64) -> BTreeMap<String, String> {
        if !self.host_epoch {
            environment.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| time.to_string());
        }
        environment
    }

    /// What an import is. A `stacker://` path is looked up in the finished layer.
    fn source(
        &mut self,
        layer: LayerIndex,
        index: usize,
        import: &ImportInput,
        sources: &mut Sources,
    ) -> Option<(TreeDigest, SourceKind)> {
        match &import.source {
            SourceInput::Host { tree, kind } => Some((*tree, *kind)),
            SourceInput::Layer { layer: from, path } => {
                if self.layers[from.0].status != Status::Done {
                    return None;
                }
                let chain = self.layers[from.0].chain.clone();
                let question = Question::Tree { chain: chain.clone(), path: path.clone() };
                match self.ask(layer, question)? {
                    Answer::Tree { tree, kind, resolved } => {
                        sources.insert(Taken::Import(index), (chain, resolved));
                        Some((tree, kind))
                    }
                    _ => None,
                }
            }
        }
    }

    /// The content of a tar base in another layer, when that is done.
    fn tar(&mut self, layer: LayerIndex, from: LayerIndex, path: &str, sources: &mut Sources) -> Option<ContentDigest> {
        let from = &self.layers[from.0];
        if from.status != Status::Done {
            return None;
        }
        let chain = from.chain.clone();
        match self.ask(layer, Question::Content { chain: chain.clone(), path: path.to_owned() })? {
            Answer::Content { content, resolved } => {
                sources.insert(Taken::Base, (chain, resolved));
                Some(content)
            }
            _ => None,
        }
    }
}
