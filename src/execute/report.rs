//! What a build leaves behind for its summary and for the next build.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::graph::LayerIndex;

use super::recording::scope;
use super::{Execution, LayerReport};

impl Execution<'_> {
    pub(super) fn reports(&mut self) -> Result<BTreeMap<LayerIndex, LayerReport>> {
        let reports = self.all_reports()?;
        self.remember_actions()?;
        self.database.end_reading()?;
        Ok(reports)
    }

    pub(super) fn all_reports(&mut self) -> Result<BTreeMap<LayerIndex, LayerReport>> {
        let clone = |(name, value): (&String, &String)| (name.clone(), value.clone());
        let mut reports = BTreeMap::new();
        self.database.begin_reading()?;
        for &layer in &self.wanted {
            let decided = self.decider.decided(layer);
            let chain = self.decider.chain(layer).0;
            let hits = decided.iter().filter(|decided| !decided.built);
            let saved = hits.filter_map(|hit| self.took.get(&hit.key)).sum();
            let report = LayerReport {
                status: self.layer_status(layer),
                seconds: self.seconds.get(&layer).copied().unwrap_or_default(),
                saved,
                reason: self.reasons.get(&layer).map(|(told, _)| told.clone()),
                why: self.reasons.get(&layer).map(|(_, why)| why.clone()),
                key: decided.last().map(|decided| decided.key),
                chain: chain.clone(),
                time: decided
                    .iter()
                    .filter(|decided| decided.outcome.diff_id.is_some())
                    .map(|decided| decided.time)
                    .next_back(),
                own: decided.iter().filter_map(|decided| decided.outcome.diff_id).collect(),
                labels: decided.iter().filter_map(|it| self.labels.get(&it.key)).flatten().map(clone).collect(),
                run_failed: self.failed_runs.contains_key(&layer),
                full: self.failed_runs.get(&layer) == Some(&true),
            };
            reports.insert(layer, report);
        }
        Ok(reports)
    }

    /// The keys of this build, for the reasons of the next.
    pub(super) fn remember_actions(&self) -> Result<()> {
        let keys = |layer| self.decider.decided(layer).iter().map(|decided| decided.key).collect::<Vec<_>>();
        let all: Vec<_> = self
            .wanted
            .iter()
            .map(|&layer| (scope(&self.graph[layer]), self.name(layer), keys(layer)))
            .filter(|(.., keys)| !keys.is_empty())
            .collect();
        let rows: Vec<_> = all.iter().map(|(scope, name, keys)| (&**scope, &**name, &**keys)).collect();
        self.database.put_all_last_actions(&rows)?;
        self.database.note_uses()
    }
}
