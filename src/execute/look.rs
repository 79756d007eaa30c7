//! How far a layer is built, found out without running anything.

use std::collections::BTreeMap;

use crate::decide::{Decided, Run, Status, StepKind};
use crate::digest::Chain;
use crate::error::{Error, Result};
use crate::graph::LayerIndex;
use crate::worker::message::RunJob;

use super::site::Lost;
use super::{Execution, LayerReport, script};

/// Which root filesystem of a layer is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// What the layer came out as.
    Built,
    /// What its script sees when it starts.
    Before,
}

/// What there is of a layer.
pub enum Looked {
    /// All that is needed; what it lacked on disk was made again.
    There(Box<RunJob>),
    /// This layer has to be built first.
    Unbuilt(LayerIndex),
}

/// How far a layer is decided without anything being run.
pub struct DecidedLayer {
    /// All of its steps are.
    pub done: bool,
    /// Those that are, in order.
    pub decided: Vec<Decided>,
    /// The layers that it consists of so far.
    pub chain: Chain,
}

impl Execution<'_> {
    /// Looks a layer up; its own script must be there for [`View::Before`].
    pub fn look(mut self, layer: LayerIndex, view: View) -> Result<Looked> {
        if view == View::Before {
            self.decider.hold(layer);
        }
        self.find_out()?;
        let (chain, run) = match view {
            View::Built if self.decider.status(layer) == Status::Done => (self.decider.chain(layer).0.clone(), None),
            View::Built => return Ok(Looked::Unbuilt(self.first_unbuilt(layer))),
            View::Before => match self.script_of(layer) {
                Some(run) => (run.parent.clone(), Some(run)),
                None => return Ok(Looked::Unbuilt(self.first_unbuilt(layer))),
            },
        };
        let mut blobs = self.blobs(&chain)?;
        for (source, _) in run.iter().flat_map(|run| run.sources.values()) {
            blobs.extend(self.blobs(source)?);
        }
        match self.site.have_chain(&chain, &blobs, false) {
            Ok(learned) => self.learn(&learned)?,
            Err(Lost::Evicted(_)) => return Ok(Looked::Unbuilt(layer)),
            Err(Lost::Error(error)) => return Err(error),
        }
        let job = match run {
            None => self.surroundings(layer, chain)?,
            Some(run) => match script::run_job(&self.site, &self.graph[layer], &run, &blobs) {
                Ok(Ok(job)) => job,
                Ok(Err(_)) => {
                    return Err(Error::Build("an import changed while it was read: try again".to_owned()));
                }
                Err(Lost::Evicted(_)) => return Ok(Looked::Unbuilt(layer)),
                Err(Lost::Error(error)) => return Err(error),
            },
        };
        Ok(Looked::There(Box::new(job)))
    }

    /// How every layer stands, without anything being run: hits, and those that would have to be built as skipped.
    pub fn look_at_all(mut self) -> Result<BTreeMap<LayerIndex, LayerReport>> {
        self.find_out()?;
        self.decider.close();
        self.all_reports()
    }

    /// The steps of every layer that have results.
    pub fn look_at_steps(mut self) -> Result<BTreeMap<LayerIndex, DecidedLayer>> {
        self.find_out()?;
        Ok(self.decided_layers())
    }

    pub(super) fn decided_layers(&self) -> BTreeMap<LayerIndex, DecidedLayer> {
        let layer = |layer: &LayerIndex| {
            let (decided, chain) = (self.decider.decided(*layer).to_vec(), self.decider.chain(*layer).0.clone());
            (*layer, DecidedLayer { done: self.decider.status(*layer) == Status::Done, decided, chain })
        };
        self.wanted.iter().map(layer).collect()
    }

    /// Answers all questions; what would have to run is left alone.
    pub(super) fn find_out(&mut self) -> Result<()> {
        self.database.begin_reading()?;
        loop {
            while let Some(question) = self.decider.next_question() {
                self.ask_all(vec![question])?;
            }
            self.database.end_reading()?;
            if self.waiting == 0 {
                break;
            }
            // We hold a sender, so the channel cannot be closed.
            let Ok(message) = self.receiver.recv() else { break };
            self.take(message)?;
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn script_of(&mut self, layer: LayerIndex) -> Option<Run> {
        std::iter::from_fn(|| self.decider.next_run()).find(|run| run.id.layer == layer && run.kind == StepKind::Run)
    }

    /// In the order of a serial build, so that it is what the others wait for.
    fn first_unbuilt(&self, layer: LayerIndex) -> LayerIndex {
        let unbuilt = |layer: &LayerIndex| self.decider.status(*layer) != Status::Done;
        self.wanted.iter().copied().find(unbuilt).unwrap_or(layer)
    }

    /// The script's variables and network, without its imports: those are no part of what was built.
    fn surroundings(&self, layer: LayerIndex, parent: Chain) -> Result<RunJob> {
        let node = &self.graph[layer];
        let run = self.decider.run_input(layer);
        let mut environment = self.site.unkeyed.clone();
        let mut mounts = Vec::new();
        if let Some(certificates) = self.site.have_certificates()? {
            environment.extend(certificates.variables);
            mounts.push(certificates.mount);
        }
        match run {
            Some(run) => environment.extend(run.environment.clone()),
            None => environment.extend(crate::inputs::default_environment()),
        }
        Ok(RunJob {
            layer: node.layer.name.clone(),
            parent,
            script: run.map_or_else(|| "#!/bin/sh\n".to_owned(), |run| run.script.clone()),
            environment,
            mounts,
            binds: Vec::new(),
            network: node.layer.network,
            newest: 0,
            time: 0,
            draft: String::new(),
        })
    }
}
