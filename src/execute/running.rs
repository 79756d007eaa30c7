//! Steps on their way: claimed, handed to a thread of their own, and what comes of them written down.

use std::time::Instant;

use super::{Execution, Learned, Message, StepEnd, binds, layer_info, step};
use crate::claim::{Attempt, Claim};
use crate::database::{ActionResult, Cause};
use crate::decide::{Outcome, Run, StepKind, Why};
use crate::error::Result;
use crate::holder::Tier;
use crate::progress::Event;
use crate::worker::message::Sealed;

impl Execution<'_> {
    /// Claims a key without waiting; a thread waits where another process has it.
    pub(super) fn claim(&mut self, run: Box<Run>) -> Result<()> {
        match self.claims.try_claim(&run.key)? {
            Attempt::Got(claim) => self.claimed(run, claim),
            Attempt::Busy(waiter) => {
                self.site.tell(Event::Waiting { layer: self.name(run.id.layer) });
                let sender = self.sender.clone();
                self.waiting += 1;
                std::thread::spawn(move || drop(sender.send(Message::Claimed(run, waiter.wait()))));
                Ok(())
            }
        }
    }

    /// Another process may have finished while we asked or waited.
    pub(super) fn claimed(&mut self, run: Box<Run>, claim: Claim) -> Result<()> {
        self.database.end_reading()?;
        if run.why == Why::Missing
            && let Some(result) = self.database.result(&run.key)?
        {
            drop(claim);
            self.took.insert(run.key, result.seconds);
            self.decider.finished(run.id, run.key, outcome(&result), false);
            self.labels.extend(result.labels.map(|labels| (run.key, labels)));
            return Ok(());
        }
        self.resumed.push_back((run, claim));
        Ok(())
    }

    pub(super) fn start(&mut self, run: Box<Run>, claim: Claim) -> Result<()> {
        let layer = self.name(run.id.layer);
        let why = self.reason(&run)?;
        let reason = format!("{why}{}", binds::unkeyed(&run));
        let step = run.kind.name();
        if run.why == Why::Evicted {
            self.database.note_lost(&run.key, &Cause::Missing)?;
        }
        self.database.put_note(&run.key, None)?;
        self.database.begin(&run.key, &run.action)?;
        let number = self.note_begin(run.id.layer, step, Some(run.key), Some(&why))?;
        self.note_reason(&run, &reason, why)?;
        self.site.tell(Event::Started { layer, step, reason });
        let mut blobs = self.blobs(&run.parent)?;
        for (chain, _) in run.sources.values() {
            blobs.extend(self.blobs(chain)?);
        }
        let (site, sender, node) = (self.site.clone(), self.sender.clone(), self.graph[run.id.layer].clone());
        self.busy += 1;
        std::thread::spawn(move || {
            let begun = Instant::now();
            let end = step::perform(&site, &node, &run, &blobs);
            let seconds = begun.elapsed().as_secs_f64();
            drop(sender.send(Message::Stepped { run, claim, end, seconds, number }));
        });
        Ok(())
    }

    pub(super) fn stepped(&mut self, run: Run, end: Result<(StepEnd, Learned)>, seconds: f64) -> Result<()> {
        let (end, learned) = match end {
            Ok(ended) => ended,
            Err(error) => {
                // The machine failed: let what runs come to its end, start nothing new.
                self.failure.get_or_insert(error);
                self.decider.failed(run.id, run.key);
                return Ok(());
            }
        };
        self.learn(&learned)?;
        *self.seconds.entry(run.id.layer).or_default() += seconds;
        match end {
            StepEnd::Unkept(sealed, why) => self.unkept(&run, &sealed, seconds, &why)?,
            StepEnd::Sealed(sealed) => {
                let result = result(&sealed, self.site.ready()?.tier, seconds);
                self.finish(&run, result)?;
            }
            StepEnd::Labels(labels) => {
                let result = ActionResult {
                    diff_id: None,
                    layer: None,
                    labels: Some(labels),
                    tier: self.site.ready()?.tier.to_string(),
                    seconds,
                    created: now(),
                };
                self.finish(&run, result)?;
            }
            StepEnd::Failed { message, full } => {
                let layer = self.name(run.id.layer);
                self.site.tell(Event::Failed { layer, message });
                if run.kind == StepKind::Run {
                    self.failed_runs.insert(run.id.layer, full);
                }
                self.decider.failed(run.id, run.key);
            }
            StepEnd::Evicted(chain) => self.evicted(chain, |decider| decider.postponed(run.id, run.key))?,
            StepEnd::SourceChanged(changed) => self.source_changed(&run, changed)?,
        }
        Ok(())
    }

    /// Writes a result down.
    fn finish(&mut self, run: &Run, result: ActionResult) -> Result<()> {
        let ready = self.site.ready()?;
        self.database.put_store(&self.site.roots, &ready.id, ready.store)?;
        self.database.finish(&run.key, &run.action, &result)?;
        self.recorded();
        self.took.insert(run.key, result.seconds);
        self.decider.finished(run.id, run.key, outcome(&result), true);
        self.labels.extend(result.labels.map(|labels| (run.key, labels)));
        Ok(())
    }
}

pub(super) fn result(sealed: &Sealed, tier: Tier, seconds: f64) -> ActionResult {
    ActionResult {
        diff_id: sealed.diff_id,
        layer: sealed.diff_id.map(|_| layer_info(sealed)),
        labels: None,
        tier: tier.to_string(),
        seconds,
        created: now(),
    }
}

/// What the Decider needs of a stored result.
pub(super) fn outcome(result: &ActionResult) -> Outcome {
    Outcome { diff_id: result.diff_id, newest: result.layer.as_ref().map_or(0, |layer| layer.newest.rounded_up()) }
}

/// Seconds since 1970.
fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs() as i64)
}
