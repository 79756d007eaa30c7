//! Steps that are done once more, each as if all others came out as they did.

use std::collections::{BTreeMap, HashMap};

use crate::database::ActionResult;
use crate::decide::{Run, StepKind, Why};
use crate::digest::DiffId;
use crate::error::Result;
use crate::graph::{LayerIndex, Node};

use super::running::outcome;
use super::site::{BlobPlace, Lost};
use super::{DecidedLayer, Execution};

/// A step that is to be done once more. What it needs of layers is there.
pub struct Again<'a> {
    /// Whose it is.
    pub node: &'a Node,
    /// The step.
    pub run: &'a Run,
    /// What it came out as.
    pub result: &'a ActionResult,
    /// Blobs of our own layers that are needed and have no data.
    pub blobs: &'a HashMap<DiffId, BlobPlace>,
}

impl Execution<'_> {
    /// Hands out every step of the layers that are to be built anew, in the order of a serial build. Nothing is written down.
    pub fn again(mut self, mut step: impl FnMut(&Again) -> Result<()>) -> Result<BTreeMap<LayerIndex, DecidedLayer>> {
        loop {
            self.find_out()?;
            let Some(run) = self.decider.next_run() else { break };
            let known = match run.why {
                Why::Evicted => None,
                Why::Missing | Why::Forced => self.database.result(&run.key)?,
            };
            let there = match (&known, run.why) {
                (Some(result), Why::Forced) => self.one_again(&run, result, &mut step)?,
                (known, _) => known.is_some(),
            };
            match known.filter(|_| there) {
                Some(result) => self.decider.finished(run.id, run.key, outcome(&result), false),
                None => self.decider.failed(run.id, run.key),
            }
        }
        self.decider.close();
        Ok(self.decided_layers())
    }

    /// False where what it stands on is gone.
    fn one_again(
        &mut self,
        run: &Run,
        result: &ActionResult,
        step: &mut impl FnMut(&Again) -> Result<()>,
    ) -> Result<bool> {
        let mut blobs = self.blobs(&run.parent)?;
        for (chain, _) in run.sources.values() {
            blobs.extend(self.blobs(chain)?);
        }
        let beneath = match run.kind {
            StepKind::Run | StepKind::Labels => self.site.have_chain(&run.parent, &blobs, true),
            StepKind::Unpack | StepKind::Import(_) => self.site.have_listings(&run.parent, &blobs),
        };
        let from = run.sources.values().map(|(chain, _)| self.site.have_chain(chain, &blobs, false));
        for learned in std::iter::once(beneath).chain(from.collect::<Vec<_>>()) {
            match learned {
                Ok(learned) => self.learn(&learned)?,
                Err(Lost::Evicted(_)) => return Ok(false),
                Err(Lost::Error(error)) => return Err(error),
            }
        }
        step(&Again { node: &self.graph[run.id.layer], run, result, blobs: &blobs })?;
        Ok(true)
    }
}
