//! Why a step runs: its action beside the nearest one that its layer had before.

use std::collections::HashSet;

use crate::action::Action;
use crate::database::{BuiltLayer, Evicted};
use crate::decide::{Run, StepKind, Why};
use crate::digest::{ChainId, DiffId, TreeDigest};
use crate::error::Result;
use crate::graph::{LayerIndex, NodeBase, NodeSource};
use crate::listing::Listing;
use crate::place::StackerDir;
use crate::reason::{Differs, Files, Images, Known, Origin, Reason, Taken, compare, nearest};

use super::recording::scope;
use super::step::StepEnd;
use super::{Execution, questions};

/// So many earlier actions are looked at.
const CANDIDATES: usize = 6;

/// So many builds are searched for them.
const BUILDS: usize = 32;

impl Execution<'_> {
    pub(super) fn reason(&self, run: &Run) -> Result<Reason> {
        let evicted = self.database.evicted(&run.key)?;
        match (run.why, evicted) {
            (Why::Forced, _) => return Ok(Reason::Forced),
            (Why::Missing, Some(Evicted { evicted, cause, .. })) => return Ok(Reason::Evicted { evicted, cause }),
            (Why::Evicted, Some(Evicted { evicted, cause, .. })) if self.is_newer(run, evicted)? => {
                return Ok(Reason::Evicted { evicted, cause });
            }
            (Why::Evicted, _) => return Ok(Reason::DataMissing),
            (Why::Missing, None) => {}
        }
        if let Some(why) = self.database.note(&run.key)? {
            return Ok(Reason::NotKept { why });
        }
        let beside = Beside { execution: self, run };
        match nearest(&run.action, self.earlier(run)?, &beside) {
            Some(earlier) => {
                let changes = compare(&earlier, &run.action, &beside);
                Ok(Reason::Changed { earlier: earlier.key(), changes })
            }
            None if self.database.action(&run.key)?.is_some() => Ok(Reason::NoResult),
            None => Ok(Reason::NeverBuilt),
        }
    }

    /// The nearest of them, with which a step is compared.
    pub(super) fn nearest_earlier(&self, run: &Run) -> Result<Option<Action>> {
        Ok(nearest(&run.action, self.earlier(run)?, &Beside { execution: self, run }))
    }

    /// Keeps why a layer's first step runs, and what the key came out as before, if it has run.
    pub(super) fn note_reason(&mut self, run: &Run, told: &str, why: Reason) -> Result<()> {
        let layer = run.id.layer;
        let origin = Origin::of(&self.graph[layer].layer.name, &why, None);
        self.origins.entry(layer).or_insert(origin);
        self.reasons.entry(layer).or_insert_with(|| (told.to_owned(), why));
        let result = self.database.result(&run.key)?.map(|result| result.diff_id);
        let evicted = self.database.evicted(&run.key)?.map(|evicted| evicted.diff_id);
        self.before.extend(result.or(evicted).map(|before| (run.key, before)));
        Ok(())
    }

    /// Whether something happened after the step's result was made.
    fn is_newer(&self, run: &Run, then: i64) -> Result<bool> {
        Ok(self.database.result(&run.key)?.is_none_or(|result| result.created <= then))
    }

    /// Other actions that the layer had in the step's place, the newest first.
    pub(super) fn earlier(&self, run: &Run) -> Result<Vec<Action>> {
        let (scope, name) = (scope(&self.graph[run.id.layer]), self.name(run.id.layer));
        let mut lists = vec![self.database.last_actions(&scope, &name)?];
        let built = self.database.layer_builds(&name, Some(&scope), BUILDS)?;
        lists.extend(built.into_iter().map(|(_, built)| built.keys));
        if lists.iter().all(Vec::is_empty) {
            lists.push(self.database.last_actions_anywhere(&name)?);
        }
        let steps = self.decider.kinds(run.id.layer).len();
        let (mut seen, mut actions) = (HashSet::from([run.key]), Vec::new());
        for keys in lists {
            let same_shape = keys.len() == steps;
            let places = if same_shape { run.id.step..run.id.step + 1 } else { 0..keys.len() };
            let found = keys[places].iter().rev().filter(|key| seen.insert(**key)).map(|key| self.database.action(key));
            for action in found.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                // Where steps came or went, one of the same kind.
                if same_shape || action.kind.name() == run.action.kind.name() {
                    actions.push(action);
                }
            }
            if actions.len() >= CANDIDATES {
                break;
            }
        }
        Ok(actions)
    }

    /// What the change of a layer began with: in this build, else in the last one that built it.
    fn origin_of(&self, layer: LayerIndex) -> Option<Origin> {
        if let Some(origin) = self.origins.get(&layer) {
            return Some(origin.clone());
        }
        let (scope, name) = (scope(&self.graph[layer]), self.name(layer));
        self.database.last_reason(&name, &scope).ok()?.map(|step| Origin::of_step(&step))
    }

    /// How the layer that a step came out as differs from before. What follows from it follows from that.
    pub(super) fn differs(&mut self, run: &Run, end: &StepEnd) -> Option<Differs> {
        let (StepEnd::Sealed(sealed) | StepEnd::Unkept(sealed, _)) = end else { return None };
        let (old, new) = (*self.before.get(&run.key)?, sealed.diff_id);
        if old == new {
            return None;
        }
        let files = old.zip(new).and_then(|(old, new)| layer_files(&self.site.stacker, old, new));
        let differs = Differs { old, new, files };
        if let Some((_, why)) = self.reasons.get(&run.id.layer) {
            let origin = Origin::of(&self.graph[run.id.layer].layer.name, why, Some(&differs));
            self.origins.insert(run.id.layer, origin);
        }
        Some(differs)
    }
}

/// How two layers differ, where both listings are there.
pub fn layer_files(stacker: &StackerDir, old: DiffId, new: DiffId) -> Option<Files> {
    let open = |diff_id| Listing::open(&stacker.listing(&diff_id)).ok();
    Files::between(&open(old)?, &open(new)?, true).ok()
}

/// What this build knows beside two actions.
struct Beside<'a> {
    execution: &'a Execution<'a>,
    run: &'a Run,
}

impl Known for Beside<'_> {
    fn files(&self, old: TreeDigest, new: TreeDigest) -> Option<Files> {
        questions::changed_files(&self.execution.site.stacker, old, new)
    }

    fn origin(&self, taken: Taken) -> Option<Origin> {
        let (execution, id) = (self.execution, self.run.id);
        let node = &execution.graph[id.layer];
        match (taken, &node.base) {
            // What the layer's own steps before it came out as.
            (Taken::Base(..), _) if id.step > 0 => execution.origins.get(&id.layer).cloned(),
            (Taken::Base(old, _), NodeBase::Built(base)) => {
                let (scope, name) = (scope(&execution.graph[*base]), execution.name(*base));
                // Else it was another layer.
                let was = execution.database.layer_builds(&name, Some(&scope), BUILDS).ok()?;
                was.iter().any(|(_, built)| built.chain == Some(old)).then(|| execution.origin_of(*base))?
            }
            (Taken::Tar, NodeBase::LayerTar { layer, .. }) => execution.origin_of(*layer),
            (Taken::Base(..) | Taken::Tar, _) => None,
            (Taken::Import(place), _) => {
                let kinds = execution.decider.kinds(id.layer);
                let import = match kinds[id.step] {
                    StepKind::Import(index) => node.imports.get(index),
                    _ => node.imports.iter().find(|import| import.places().iter().any(|seen| seen == place)),
                };
                match &import?.source {
                    NodeSource::Layer { layer, .. } => execution.origin_of(*layer),
                    _ => None,
                }
            }
        }
    }

    fn images(&self, old: ChainId, _new: ChainId) -> Option<Images> {
        let (execution, layer) = (self.execution, self.run.id.layer);
        if self.run.id.step > 0 {
            return None;
        }
        let new = execution.image(layer);
        let (scope, name) = (scope(&execution.graph[layer]), execution.name(layer));
        let was = execution.database.layer_builds(&name, Some(&scope), BUILDS).ok()?;
        let stood_on = |built: &BuiltLayer| -> Option<ChainId> {
            Some(execution.database.action(built.keys.first()?).ok()??.base)
        };
        let old = was.iter().find(|(_, built)| built.image.is_some() && stood_on(built) == Some(old));
        let old = old.and_then(|(_, built)| built.image.clone());
        (old.is_some() || new.is_some()).then_some(Images { old, new })
    }
}
