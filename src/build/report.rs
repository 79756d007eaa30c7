//! What a build came to: the summary, the metadata file, the exit code.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::execute::LayerReport;
use crate::export::metadata;
use crate::graph::{LayerGraph, LayerIndex};
use crate::images::Written;
use crate::progress::{LayerStatus, Summary};

/// Everything that a report is made of.
pub struct Outcome<'a> {
    /// The layers.
    pub graph: &'a LayerGraph,
    /// How each wanted one ended.
    pub reports: &'a BTreeMap<LayerIndex, LayerReport>,
    /// The images in the layout.
    pub written: &'a [Written],
    /// Wall clock.
    pub elapsed: Duration,
}

/// 0, or 1 when a layer failed, or 3 when one did because the disk was full.
pub fn exit_code(reports: &BTreeMap<LayerIndex, LayerReport>) -> i32 {
    let failed = |report: &LayerReport| report.status == LayerStatus::Failed;
    match reports.values().any(failed) {
        false => 0,
        true if reports.values().any(|report| report.full) => 3,
        true => 1,
    }
}

impl Outcome<'_> {
    /// The first layer whose script failed.
    pub fn failed_run(&self) -> Option<LayerIndex> {
        self.reports.iter().find(|(_, report)| report.run_failed).map(|(layer, _)| *layer)
    }

    fn count(&self, status: LayerStatus) -> usize {
        self.reports.values().filter(|report| report.status == status).count()
    }

    /// For the end of the output.
    pub fn summary(&self) -> Summary {
        let done = |report: &LayerReport| matches!(report.status, LayerStatus::Hit | LayerStatus::Built);
        let layers = self.reports.iter().filter(|(_, report)| done(report));
        Summary {
            hits: self.count(LayerStatus::Hit),
            built: self.count(LayerStatus::Built),
            failed: self.count(LayerStatus::Failed),
            skipped: self.count(LayerStatus::Skipped),
            elapsed: self.elapsed,
            saved: self.reports.values().map(|report| report.saved).sum(),
            layers: layers
                .map(|(layer, report)| (self.graph[*layer].layer.name.clone(), report.status == LayerStatus::Hit))
                .collect(),
        }
    }

    /// `--metadata-file`.
    pub fn write_metadata(&self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let layers = self.reports.iter().map(|(layer, report)| self.layer(*layer, report)).collect();
        let images = self
            .written
            .iter()
            .map(|image| metadata::ImageReport { tag: image.tag.clone(), digest: image.digest })
            .collect();
        metadata::Metadata::new(layers, images).write(path)
    }

    fn layer(&self, layer: LayerIndex, report: &LayerReport) -> metadata::LayerReport {
        let node = &self.graph[layer];
        metadata::LayerReport {
            name: node.layer.name.clone(),
            stackerfile: node.layer.place.path.display().to_string(),
            key: report.key,
            status: match report.status {
                LayerStatus::Hit => metadata::Status::Hit,
                LayerStatus::Built => metadata::Status::Built,
                LayerStatus::Failed => metadata::Status::Failed,
                LayerStatus::Skipped => metadata::Status::Skipped,
            },
            seconds: report.seconds,
            reason: report.reason.clone(),
            why: report.why.clone(),
            diff_ids: report.chain.0.clone(),
        }
    }
}
