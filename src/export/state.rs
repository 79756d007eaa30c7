//! An image before it is written: what a layer hands to the layers that build on it.
//!
//! `scratch` or `from_base` starts a line; each emitted layer derives the next state; a `build_only` layer hands on its
//! files alone, so that its children inherit the settings of what lies beneath it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::image::{Descriptor, HistoryBuilder, ImageManifestBuilder, MediaType};
use serde_json::{Map, Value, json};

use super::config::{Layers, config, config_of_layers, rfc3339};
use crate::action::Platform;
use crate::digest::{BlobDigest, Chain, DiffId};
use crate::load::ImageSettings;
use crate::oci::{BaseImage, ImageConfiguration};
use crate::provenance::is_of_one_image;

/// Docker refuses images of 127 layers and more; a warning comes well before.
pub const MAX_LAYERS: usize = 100;

/// One layer of an image with its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportLayer {
    /// sha256 of the uncompressed tar; of a file system, of its blob.
    pub diff_id: DiffId,
    /// sha256 of the compressed bytes.
    pub blob: BlobDigest,
    /// Bytes of the blob.
    pub size: u64,
    /// How it is compressed.
    pub media_type: MediaType,
    /// Where the blob lies now: in the store or in a base's layout.
    pub source: PathBuf,
    /// `created_by` of its history entry; `None`: `stacker build of NAME`.
    pub created_by: Option<String>,
}

/// An image: everything that its config and manifest are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageState {
    /// Complete, with the diff ids of `layers`.
    pub config: ImageConfiguration,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Bottom first.
    pub layers: Vec<ExportLayer>,
    /// What the image is for.
    pub platform: Platform,
}

/// A JSON document as it lies in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their sha256.
    pub digest: BlobDigest,
}

impl ImageState {
    /// No layers and no settings: what `scratch` and tar bases start from.
    pub fn scratch(platform: &Platform) -> ImageState {
        let json = json!({
            "architecture": platform.arch,
            "os": platform.os,
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let json = json.as_object().cloned().unwrap_or_else(Map::new);
        let config = ImageConfiguration::from_json(json).expect("what the image-spec wants is there");
        ImageState { config, annotations: BTreeMap::new(), layers: Vec::new(), platform: platform.clone() }
    }

    /// An image of a layout.
    pub fn from_base(base: &BaseImage) -> ImageState {
        let layers = base.layers.iter().map(|layer| ExportLayer {
            diff_id: layer.diff_id,
            blob: layer.descriptor.digest,
            size: layer.descriptor.size,
            media_type: layer.descriptor.media_type.clone(),
            source: layer.path.clone(),
            created_by: None,
        });
        ImageState {
            config: base.config.clone(),
            annotations: base.annotations.clone(),
            layers: layers.collect(),
            platform: base.platform.clone(),
        }
    }

    /// The same image of other layers: each in the place of one of its own.
    pub fn of_layers(&self, layers: Vec<ExportLayer>) -> ImageState {
        let history = whole_history(&self.config, layers.len());
        let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        ImageState { config: config_of_layers(&self.config, Layers { diff_ids, history }), layers, ..self.clone() }
    }

    /// The image of the layer `name` on top of this one, without the annotations that tell where this one comes from.
    /// `created` is in seconds since 1970; `None` keeps the base's.
    pub fn derive(
        &self,
        name: &str,
        settings: &ImageSettings,
        new_layers: &[ExportLayer],
        created: impl Into<Option<i64>>,
    ) -> ImageState {
        let created = created.into();
        let (layers, told) = self.stacked(name, new_layers, created);
        let mut annotations = self.annotations.clone();
        annotations.retain(|name, _| !is_of_one_image(name));
        annotations.extend(settings.annotations.clone());
        let config = config(&self.config, settings, told, &self.platform, created);
        ImageState { config, annotations, layers, platform: self.platform.clone() }
    }

    /// What a `build_only` layer `name` hands on: its files, and the settings of what it was built on.
    pub fn derive_files_only(
        &self,
        name: &str,
        new_layers: &[ExportLayer],
        created: impl Into<Option<i64>>,
    ) -> ImageState {
        let (layers, told) = self.stacked(name, new_layers, created.into());
        ImageState { config: config_of_layers(&self.config, told), layers, ..self.clone() }
    }

    /// The layers by diff id.
    pub fn chain(&self) -> Chain {
        Chain(self.layers.iter().map(|layer| layer.diff_id).collect())
    }

    /// `created` of the config, in seconds since 1970.
    pub fn created(&self) -> Option<i64> {
        let created: jiff::Timestamp = self.config.spec().created().as_ref()?.parse().ok()?;
        Some(created.as_second())
    }

    /// The config blob.
    pub fn config_document(&self) -> Document {
        Document::of(self.config.to_bytes())
    }

    /// The manifest blob, for the config blob of the same image.
    pub fn manifest(&self, config: &Document) -> Document {
        let layer = |layer: &ExportLayer| descriptor(layer.media_type.clone(), layer.size, &layer.blob);
        let mut manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config.bytes.len() as u64, &config.digest))
            .layers(self.layers.iter().map(layer).collect::<Vec<_>>())
            .build()
            .expect("all that a manifest needs was set");
        if !self.annotations.is_empty() {
            manifest.set_annotations(Some(self.annotations.clone().into_iter().collect()));
        }
        let mut json = serde_json::to_value(&manifest).expect("a manifest is always JSON");
        json.sort_all_objects();
        Document::of(serde_json::to_vec(&json).expect("a JSON value is always JSON"))
    }

    /// What a person should know about the image called `name`.
    pub fn warnings(&self, name: &str) -> Vec<String> {
        let layers = self.layers.len();
        if layers <= MAX_LAYERS {
            return Vec::new();
        }
        vec![format!("{name} has {layers} layers; Docker can not run images with more than 127")]
    }

    /// More layers, and what the config then says of them: each its diff id and one history entry.
    fn stacked(&self, name: &str, new_layers: &[ExportLayer], created: Option<i64>) -> (Vec<ExportLayer>, Layers) {
        let mut history = whole_history(&self.config, self.layers.len());
        for layer in new_layers {
            let by = layer.created_by.clone().unwrap_or_else(|| format!("stacker build of {name}"));
            let mut entry = HistoryBuilder::default().author("stacker").created_by(by);
            if let Some(created) = created {
                entry = entry.created(rfc3339(created));
            }
            history.push(to_json(entry));
        }
        let layers = [&self.layers, new_layers].concat();
        let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        (layers, Layers { diff_ids, history })
    }
}

impl Document {
    fn of(bytes: Vec<u8>) -> Document {
        Document { digest: BlobDigest::of(&bytes), bytes }
    }
}

pub(super) fn descriptor(media_type: MediaType, size: u64, digest: &BlobDigest) -> Descriptor {
    let digest: oci_spec::image::Digest = digest.to_string().parse().expect("a sha256 digest is a digest");
    Descriptor::new(media_type, size, digest)
}

/// The base's history with exactly one entry (beside those of empty layers) for each of its `layers`: tools that read
/// both lists together refuse others, and some builders write no history at all.
fn whole_history(config: &ImageConfiguration, layers: usize) -> Vec<Value> {
    let mut history = config.json().get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_empty = |entry: &Value| entry.get("empty_layer").and_then(Value::as_bool).unwrap_or_default();
    let told = history.iter().filter(|entry| !is_empty(entry)).count();
    if told > layers {
        history.clear();
    }
    let missing = if told > layers { layers } else { layers - told };
    history.extend((0..missing).map(|_| to_json(HistoryBuilder::default().created_by("unknown"))));
    history
}

fn to_json(entry: HistoryBuilder) -> Value {
    let entry = entry.build().expect("no field of a history entry is required");
    serde_json::to_value(&entry).expect("a history entry is always JSON")
}
