//! From decided layers to the images of the layout: each layer's image is its base's with its own layers and settings.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use oci_spec::image::MediaType;
use rayon::prelude::*;

use crate::build::Request;
use crate::database::Database;
use crate::decide::Settings;
use crate::digest::{BlobDigest, DiffId};
use crate::error::{Error, Result};
use crate::execute::{LayerReport, Site};
use crate::export::{self, ExportLayer, ImageState};
use crate::graph::{LayerGraph, LayerIndex, NodeBase};
use crate::layer_type::Packing;
use crate::load::{ImageSettings, Layer};
use crate::oci::BaseImage;
use crate::progress::{Event, LayerStatus};
use crate::provenance::Provenance;

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
    /// How layers became blobs, each way for another image.
    pub packings: &'a [Packing],
    /// What images say of where they come from.
    pub provenance: &'a Provenance,
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
    let mut composers = Vec::new();
    for packing in export.packings {
        composers.push(Composer::new(export, packing, reports, database)?);
    }
    let tags: Vec<(LayerIndex, &Composer)> =
        emitted.iter().flat_map(|layer| composers.iter().map(|composer| (*layer, composer))).collect();
    let compose = |(layer, composer): &(LayerIndex, &Composer)| {
        let tag = composer.packing.kind().tag(&export.graph[*layer].layer.name);
        Ok((tag, composer.state(*layer)?))
    };
    let images = tags.par_iter().map(compose).collect::<Result<Vec<_>>>()?;
    for (tag, image) in &images {
        for warning in image.warnings(tag) {
            export.site.tell(Event::Warning(warning));
        }
    }
    images.par_iter().try_for_each(|(tag, image)| layout.put_image(image, tag))?;
    layout.commit(&images.into_iter().map(|(tag, _)| tag).collect::<Vec<_>>())
}

/// The image that each layer with a tag would have now, by its tag; `None`: something has to be built for it. For
/// comparing alone: blobs of tars are left out, since they may be compressed in any way.
pub fn expected(
    export: &Export,
    reports: &BTreeMap<LayerIndex, LayerReport>,
    database: &Database,
) -> Result<Vec<(String, Option<Arc<ImageState>>)>> {
    let mut images = Vec::new();
    for packing in export.packings {
        let mut composer = Composer::new(export, packing, reports, database)?;
        if let Packing::Tar(_) = packing {
            let own = reports.values().flat_map(|report| &report.own);
            composer.layers = own.map(|diff_id| (*diff_id, without_blob(diff_id))).collect();
        }
        for (layer, report) in reports {
            let is_built = matches!(report.status, LayerStatus::Hit | LayerStatus::Built);
            let tag = packing.kind().tag(&export.graph[*layer].layer.name);
            // Composing fails where a file system was not made.
            images.push((tag, if is_built { composer.state(*layer).ok() } else { None }));
        }
    }
    Ok(images)
}

fn without_blob(diff_id: &DiffId) -> ExportLayer {
    let (blob, media_type) = (BlobDigest([0; 32]), MediaType::ImageLayer);
    ExportLayer { diff_id: *diff_id, blob, size: 0, media_type, source: PathBuf::new(), created_by: None }
}

/// Composes images of one kind, on several threads.
struct Composer<'a> {
    export: &'a Export<'a>,
    packing: &'a Packing,
    reports: &'a BTreeMap<LayerIndex, LayerReport>,
    /// Each layer that has a blob in the store.
    layers: HashMap<DiffId, ExportLayer>,
    /// By layer index, as far as they are composed.
    states: Vec<OnceLock<Arc<ImageState>>>,
}

impl<'a> Composer<'a> {
    /// Looks up every blob; composing asks the database no more.
    fn new(
        export: &'a Export,
        packing: &'a Packing,
        reports: &'a BTreeMap<LayerIndex, LayerReport>,
        database: &Database,
    ) -> Result<Composer<'a>> {
        let mut layers = HashMap::new();
        database.begin_reading()?;
        let from_store = |report: &'a LayerReport| match packing {
            Packing::Tar(_) => &report.own,
            // Those of base images too.
            Packing::FileSystem(_) => &report.chain.0,
        };
        for diff_id in reports.values().flat_map(from_store) {
            if !layers.contains_key(diff_id)
                && let Some(layer) = layer(export, packing, diff_id, database)?
            {
                layers.insert(*diff_id, layer);
            }
        }
        database.end_reading()?;
        let states = (0..export.graph.len()).map(|_| OnceLock::new()).collect();
        Ok(Composer { export, packing, reports, layers, states })
    }

    /// The image of a layer; of a `build_only` layer, what it hands on.
    fn state(&self, layer: LayerIndex) -> Result<Arc<ImageState>> {
        if let Some(state) = self.states[layer.0].get() {
            return Ok(state.clone());
        }
        let node = &self.export.graph[layer];
        let base = match &node.base {
            NodeBase::Built(base) => self.state(*base)?,
            NodeBase::Oci { .. } | NodeBase::Registry { .. } => Arc::new(self.base(&self.export.images[&layer])?),
            NodeBase::Tar(_) | NodeBase::UrlTar(_) | NodeBase::LayerTar { .. } | NodeBase::Scratch => {
                Arc::new(ImageState::scratch(&node.layer.platform))
            }
        };
        let report = &self.reports[&layer];
        let own = report.own.iter().map(|diff_id| self.layer(diff_id)).collect::<Result<Vec<_>>>()?;
        let created = self.export.request.created.or(self.export.settings.source_date_epoch).or(report.time);
        let name = &node.layer.name;
        let state = match node.layer.build_only {
            true => base.derive_files_only(name, &own, created),
            false => base.derive(name, &settings(&node.layer, &report.labels, self.export.provenance), &own, created),
        };
        // Where two threads composed the same, the first one's stays.
        Ok(self.states[layer.0].get_or_init(|| Arc::new(state)).clone())
    }

    /// A base image: its tars as they are, or what was made of them.
    fn base(&self, image: &BaseImage) -> Result<ImageState> {
        let state = ImageState::from_base(image);
        match self.packing {
            Packing::Tar(_) => Ok(state),
            Packing::FileSystem(_) => {
                let layers = image.layers.iter().map(|layer| self.layer(&layer.diff_id)).collect::<Result<_>>()?;
                Ok(state.of_layers(layers))
            }
        }
    }

    fn layer(&self, diff_id: &DiffId) -> Result<ExportLayer> {
        self.layers.get(diff_id).cloned().ok_or_else(|| no_blob(diff_id))
    }
}

/// What a layer says itself wins over what its script generates, and over where it comes from.
fn settings(layer: &Layer, generated: &BTreeMap<String, String>, provenance: &Provenance) -> ImageSettings {
    let mut labels = generated.clone();
    labels.extend(layer.settings.labels.clone());
    ImageSettings { labels, annotations: provenance.annotations(layer), ..layer.settings.clone() }
}

fn no_blob(diff_id: &DiffId) -> Error {
    Error::Machine(format!("layer {diff_id} has no blob"))
}

fn layer(export: &Export, packing: &Packing, diff_id: &DiffId, database: &Database) -> Result<Option<ExportLayer>> {
    let Some((blob, size)) = database.blob(diff_id, &packing.codec())? else { return Ok(None) };
    let (diff_id, media_type) = (packing.diff_id(diff_id, &blob), packing.media_type());
    let source = export.site.stacker.blob(&blob);
    Ok(Some(ExportLayer { diff_id, blob, size, media_type, source, created_by: None }))
}
