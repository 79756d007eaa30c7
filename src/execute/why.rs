//! Why a step runs: its action beside the one that its layer had the last time.

use crate::action::Action;
use crate::decide::{Run, Why};
use crate::digest::Key;
use crate::error::Result;
use crate::reason::{Reason, compare};

use super::recording::scope;
use super::{Execution, questions};

impl Execution<'_> {
    pub(super) fn reason(&self, run: &Run) -> Result<Reason> {
        match run.why {
            Why::Forced => return Ok(Reason::Forced),
            Why::Evicted => return Ok(Reason::Evicted),
            Why::Missing => {}
        }
        let node = &self.graph[run.id.layer];
        let scope = scope(node);
        let mut earlier = self.database.last_actions(&scope, &node.layer.name)?;
        if earlier.is_empty() {
            earlier = self.database.last_actions_anywhere(&node.layer.name)?;
        }
        let kinds = self.decider.kinds(run.id.layer);
        let same_shape = earlier.len() == kinds.len();
        let old = match earlier.get(run.id.step) {
            Some(key) if *key == run.key => {
                return Ok(self.database.note(key)?.map_or(Reason::NoResult, Reason::NotKept));
            }
            Some(key) if same_shape => self.database.action(key)?,
            _ => self.nearest(&earlier, run)?,
        };
        let files = |old, new| questions::changed_files(&self.site, old, new);
        Ok(old.map_or(Reason::NeverBuilt, |old| Reason::Changed(compare(&old, &run.action, &files))))
    }

    /// Where steps came or went: the last earlier action of the same kind.
    pub(super) fn nearest(&self, earlier: &[Key], run: &Run) -> Result<Option<Action>> {
        let mut nearest = None;
        for key in earlier {
            nearest = self.database.action(key)?.filter(|old| old.kind.name() == run.action.kind.name()).or(nearest);
        }
        Ok(nearest)
    }
}
