//! From decided layers to the images of the layout: each layer's image is its base's with its own layers and settings.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use oci_spec::image::MediaType;
use rayon::prelude::*;

use crate::build::Request;
use crate::database::Database;
use crate::decide::Settings;
use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::execute::{LayerReport, Site, codec};
use crate::export::{self, ExportLayer, ImageState};
use crate::graph::{LayerGraph, LayerIndex, NodeBase};
use crate::load::ImageSettings;
use crate::oci::BaseImage;
use crate::progress::{Event, LayerStatus};
use crate::worker::message::Compression;

/// An image in the layout.
pub use crate::export::Written;

/// What exporting needs to know.
pub struct Export<'a> {
    /// What was asked for.
    pub request: &'a Request,
    /// The layers.
    pub graph: &'a LayerGraph,
    /// Base images by layer.
    pub images: &'a HashMap<LayerIndex, Arc<BaseImage>>,
    /// Where blobs lie.
    pub site: &'a Site,
    /// SOURCE_DATE_EPOCH.
    pub settings: Settings,
}

/// Writes and tags the image of every emitted layer that is done; other tags stay.
pub fn export(
    export: &Export,
    reports: &BTreeMap<LayerIndex, LayerReport>,
    database: &Database,
) -> Result<Vec<Written>> {
    let done = |status| matches!(status, LayerStatus::Hit | LayerStatus::Built);
    let emitted: Vec<LayerIndex> = reports
        .iter()
        .filter(|(layer, report)| done(report.status) && !export.graph[**layer].layer.build_only)
        .map(|(layer, _)| *layer)
        .collect();
    if emitted.is_empty() {
        return Ok(vec![]);
    }
    let layout = export::Export::open(&export.request.directories.oci)?;
    let composer = Composer::new(export, reports, database)?;
    let compose = |layer: &LayerIndex| Ok((export.graph[*layer].layer.name.clone(), composer.state(*layer)?));
    let images = emitted.par_iter().map(compose).collect::<Result<Vec<_>>>()?;
    for (name, image) in &images {
        for warning in image.warnings(name) {
            export.site.tell(Event::Warning(warning));
        }
    }
    images.par_iter().try_for_each(|(name, image)| layout.put_image(image, name))?;
    layout.commit(&images.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
}

/// Composes images, on several threads.
struct Composer<'a> {
    export: &'a Export<'a>,
    reports: &'a BTreeMap<LayerIndex, LayerReport>,
    /// Each own layer that has a blob.
    layers: HashMap<DiffId, ExportLayer>,
    /// By layer index, as far as they are composed.
    states: Vec<OnceLock<Arc<ImageState>>>,
}

impl<'a> Composer<'a> {
    /// Looks up every blob; composing asks the database no more.
    fn new(
        export: &'a Export,
        reports: &'a BTreeMap<LayerIndex, LayerReport>,
        database: &Database,
    ) -> Result<Composer<'a>> {
        let mut layers = HashMap::new();
        database.begin_reading()?;
        for diff_id in reports.values().flat_map(|report| &report.own) {
            if !layers.contains_key(diff_id)
                && let Some(layer) = layer(export, diff_id, database)?
            {
                layers.insert(*diff_id, layer);
            }
        }
        database.end_reading()?;
        let states = (0..export.graph.len()).map(|_| OnceLock::new()).collect();
        Ok(Composer { export, reports, layers, states })
    }

    /// The image of a layer; of a `build_only` layer, what it hands on.
    fn state(&self, layer: LayerIndex) -> Result<Arc<ImageState>> {
        if let Some(state) = self.states[layer.0].get() {
            return Ok(state.clone());
        }
        let node = &self.export.graph[layer];
        let base = match &node.base {
            NodeBase::Built(base) => self.state(*base)?,
            NodeBase::Oci { .. } => Arc::new(ImageState::from_base(&self.export.images[&layer])),
            NodeBase::Tar(_) | NodeBase::LayerTar { .. } | NodeBase::Scratch => {
                Arc::new(ImageState::scratch(&node.layer.platform))
            }
        };
        let report = &self.reports[&layer];
        let own = |diff_id| self.layers.get(diff_id).cloned().ok_or_else(|| no_blob(diff_id));
        let own = report.own.iter().map(own).collect::<Result<Vec<_>>>()?;
        let created = self.export.request.created.or(self.export.settings.source_date_epoch).or(report.time);
        let name = &node.layer.name;
        let state = match node.layer.build_only {
            true => base.derive_files_only(name, &own, created),
            false => base.derive(name, &settings(&node.layer.settings, &report.labels), &own, created),
        };
        // Where two threads composed the same, the first one's stays.
        Ok(self.states[layer.0].get_or_init(|| Arc::new(state)).clone())
    }
}

/// What a layer says itself wins over what its script generates.
fn settings(own: &ImageSettings, generated: &BTreeMap<String, String>) -> ImageSettings {
    let mut labels = generated.clone();
    labels.extend(own.labels.clone());
    ImageSettings { labels, ..own.clone() }
}

fn no_blob(diff_id: &DiffId) -> Error {
    Error::Machine(format!("layer {diff_id} has no blob"))
}

fn layer(export: &Export, diff_id: &DiffId, database: &Database) -> Result<Option<ExportLayer>> {
    let compression = export.request.compression;
    let Some((blob, size)) = database.blob(diff_id, &codec(compression))? else { return Ok(None) };
    let media_type = match compression {
        Compression::Gzip(_) => MediaType::ImageLayerGzip,
        Compression::Zstd(_) => MediaType::ImageLayerZstd,
        Compression::None => MediaType::ImageLayer,
    };
    let source = export.site.stacker.blob(&blob);
    Ok(Some(ExportLayer { diff_id: *diff_id, blob, size, media_type, source, created_by: None }))
}
