//! One image as `stacker inspect --json` prints it.

use std::collections::BTreeMap;

use oci_spec::image::MediaType;
use schemars::JsonSchema;
use serde::Serialize;

use crate::action::Platform;
use crate::digest::{BlobDigest, DiffId};
use crate::oci::{BaseImage, BaseLayer};

/// Everything about an image that its manifest and config say.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "stacker inspect")]
pub struct Image {
    /// As in `index.json`; null for an entry without a tag.
    pub tag: Option<String>,
    /// Digest of the manifest.
    pub digest: BlobDigest,
    /// Of the manifest.
    pub media_type: String,
    /// `os` and `arch`; empty where the config does not say.
    pub platform: Platform,
    /// Bytes of all layer blobs, each blob counted as often as it is used.
    pub size: u64,
    /// As in the config.
    pub created: Option<String>,
    /// As in the config.
    pub author: Option<String>,
    /// Bottom first.
    pub layers: Vec<Layer>,
    /// How it is run.
    pub config: Config,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Oldest first.
    pub history: Vec<History>,
}

/// A layer of an image.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Layer {
    /// Digest of the blob.
    pub digest: BlobDigest,
    /// Of the blob.
    pub media_type: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
}

/// The `config` object of an image config, as far as the image-spec names its fields.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Config {
    /// `NAME=VALUE` each, in their order.
    pub env: Vec<String>,
    /// Null: there is none.
    pub entrypoint: Option<Vec<String>>,
    /// Null: there is none.
    pub cmd: Option<Vec<String>>,
    /// Null: `/`.
    pub working_dir: Option<String>,
    /// Null: root.
    pub user: Option<String>,
    /// Paths.
    pub volumes: Vec<String>,
    /// `8080/tcp` and the like.
    pub exposed_ports: Vec<String>,
    /// Null: SIGTERM.
    pub stop_signal: Option<String>,
    /// By name.
    pub labels: BTreeMap<String, String>,
}

/// One entry of the history.
#[derive(Debug, Serialize, JsonSchema)]
pub struct History {
    /// When.
    pub created: Option<String>,
    /// By what.
    pub created_by: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// Any words.
    pub comment: Option<String>,
    /// No layer belongs to it.
    pub empty_layer: bool,
}

impl Image {
    /// Of what was read from a layout.
    pub fn new(tag: Option<String>, base: BaseImage, media_type: &MediaType) -> Image {
        let BaseImage { digest, config, annotations, layers, platform } = base;
        let spec = config.spec();
        let layers: Vec<Layer> = layers.into_iter().map(Layer::from).collect();
        Image {
            tag,
            digest,
            media_type: media_type.to_string(),
            platform,
            size: layers.iter().map(|layer| layer.size).sum(),
            created: spec.created().clone(),
            author: spec.author().clone(),
            layers,
            config: spec.config().as_ref().map(Config::from).unwrap_or_default(),
            annotations,
            history: spec.history().iter().flatten().map(History::from).collect(),
        }
    }
}

impl From<BaseLayer> for Layer {
    fn from(layer: BaseLayer) -> Layer {
        let BaseLayer { descriptor, diff_id, path: _ } = layer;
        Layer {
            digest: descriptor.digest,
            media_type: descriptor.media_type.to_string(),
            size: descriptor.size,
            diff_id,
        }
    }
}

impl From<&oci_spec::image::Config> for Config {
    fn from(config: &oci_spec::image::Config) -> Config {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let sorted = |list: &Option<Vec<String>>| {
            let mut list = list.clone().unwrap_or_default();
            list.sort();
            list
        };
        Config {
            env: config.env().clone().unwrap_or_default(),
            entrypoint: config.entrypoint().clone(),
            cmd: config.cmd().clone(),
            working_dir: set(config.working_dir()),
            user: set(config.user()),
            volumes: sorted(config.volumes()),
            exposed_ports: sorted(config.exposed_ports()),
            stop_signal: set(config.stop_signal()),
            labels: config.labels().iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }
}

impl From<&oci_spec::image::History> for History {
    fn from(history: &oci_spec::image::History) -> History {
        History {
            created: history.created().clone(),
            created_by: history.created_by().clone(),
            author: history.author().clone(),
            comment: history.comment().clone(),
            empty_layer: history.empty_layer().unwrap_or(false),
        }
    }
}
