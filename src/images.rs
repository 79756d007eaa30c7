//! From decided layers to the images of the layout: each layer's image is its base's with its own layers and settings.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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
    let mut composer = Composer { export, reports, database, states: HashMap::new() };
    let layout = export::Export::open(&export.request.directories.oci)?;
    let mut images = Vec::new();
    database.begin_reading()?;
    for layer in emitted {
        let name = export.graph[layer].layer.name.clone();
        let image = composer.state(layer)?;
        for warning in image.warnings(&name) {
            export.site.tell(Event::Warning(warning));
        }
        images.push((name, image));
    }
    database.end_reading()?;
    images.par_iter().try_for_each(|(name, image)| layout.put_image(image, name).map(drop))?;
    layout.commit(&images.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
}

struct Composer<'a> {
    export: &'a Export<'a>,
    reports: &'a BTreeMap<LayerIndex, LayerReport>,
    database: &'a Database,
    states: HashMap<LayerIndex, Arc<ImageState>>,
}

impl Composer<'_> {
    /// The image of a layer; of a `build_only` layer, what it hands on.
    fn state(&mut self, layer: LayerIndex) -> Result<Arc<ImageState>> {
        if let Some(state) = self.states.get(&layer) {
            return Ok(state.clone());
        }
        let node = &self.export.graph[layer];
        let base = match &node.base {
            NodeBase::Built(base) => self.state(*base)?,
            NodeBase::Oci { .. } => Arc::new(ImageState::from_base(&self.export.images[&layer])),
            NodeBase::Tar(_) | NodeBase::Scratch => Arc::new(ImageState::scratch(&node.layer.platform)),
        };
        let report = &self.reports[&layer];
        let own = report.own.iter().map(|diff_id| self.layer(diff_id)).collect::<Result<Vec<_>>>()?;
        let created = self.export.request.created.or(self.export.settings.source_date_epoch).or(report.time);
        let name = &node.layer.name;
        let state = match node.layer.build_only {
            true => base.derive_files_only(name, &own, created),
            false => base.derive(name, &node.layer.settings, &own, created),
        };
        let state = Arc::new(state);
        self.states.insert(layer, state.clone());
        Ok(state)
    }

    fn layer(&self, diff_id: &DiffId) -> Result<ExportLayer> {
        let compression = self.export.request.compression;
        let Some((blob, size)) = self.database.blob(diff_id, &codec(compression))? else {
            return Err(Error::Machine(format!("layer {diff_id} has no blob")));
        };
        let media_type = match compression {
            Compression::Gzip(_) => MediaType::ImageLayerGzip,
            Compression::Zstd(_) => MediaType::ImageLayerZstd,
            Compression::None => MediaType::ImageLayer,
        };
        let source = self.export.site.stacker.blob(&blob);
        Ok(ExportLayer { diff_id: *diff_id, blob, size, media_type, source, created_by: None })
    }
}
