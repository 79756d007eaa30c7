//! An image config as its JSON, with oci-spec's type beside it for reading.
//!
//! oci-spec's type alone would lose what the image-spec does not name (`Healthcheck`, `OnBuild`, `Shell`) and writes
//! its maps in random order. Here unknown fields survive, and equal configs are equal bytes.

use std::sync::OnceLock;

use oci_spec::image as spec;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::action::Platform;
use crate::digest::DiffId;
use crate::error::{Error, Result};

/// The config of an image.
#[derive(Clone, Debug)]
pub struct ImageConfiguration {
    json: Map<String, Value>,
    /// Read from `json` when it is wanted.
    spec: OnceLock<spec::ImageConfiguration>,
}

impl PartialEq for ImageConfiguration {
    fn eq(&self, other: &ImageConfiguration) -> bool {
        self.json == other.json
    }
}

impl Eq for ImageConfiguration {}

impl ImageConfiguration {
    /// Parses a config blob. Fails when it is no JSON or breaks the image-spec.
    pub fn from_slice(bytes: &[u8]) -> Result<ImageConfiguration, serde_json::Error> {
        ImageConfiguration::from_json(serde_json::from_slice(bytes)?)
    }

    /// A config from its JSON object.
    pub fn from_json(json: Map<String, Value>) -> Result<ImageConfiguration, serde_json::Error> {
        let mut json = Value::Object(json);
        json.sort_all_objects();
        let spec = spec::ImageConfiguration::deserialize(&json)?;
        let Value::Object(json) = json else { unreachable!("it was made as an object above") };
        Ok(ImageConfiguration { json, spec: spec.into() })
    }

    /// This config with some fields replaced by others that the image-spec allows. That is not checked again, since a
    /// build does this for each of its images.
    pub(crate) fn with_fields(&self, fields: impl FnOnce(&mut Map<String, Value>)) -> ImageConfiguration {
        let mut json = self.json.clone();
        fields(&mut json);
        let mut json = Value::Object(json);
        json.sort_all_objects();
        let Value::Object(json) = json else { unreachable!("it was made as an object above") };
        ImageConfiguration { json, spec: OnceLock::new() }
    }

    /// As oci-spec reads it.
    pub fn spec(&self) -> &spec::ImageConfiguration {
        let read = || spec::ImageConfiguration::deserialize(&Value::Object(self.json.clone()));
        self.spec.get_or_init(|| read().expect("fields of a valid config were replaced by valid ones"))
    }

    /// Every field, known to the image-spec or not, keys sorted.
    pub fn json(&self) -> &Map<String, Value> {
        &self.json
    }

    /// The bytes of the config blob: the same for equal configs.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.json).expect("a JSON object is always JSON")
    }

    /// `os` and `architecture`.
    pub fn platform(&self) -> Platform {
        let text = |name: &str| self.json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Platform { os: text("os"), arch: text("architecture") }
    }

    /// `rootfs.diff_ids`, bottom first; `named` tells which config it is where one is no sha256.
    pub fn diff_ids(&self, named: &str) -> Result<Vec<DiffId>> {
        let parse =
            |text: &String| text.parse().map_err(|error| Error::Build(format!("{named}: rootfs.diff_ids: {error}")));
        self.spec().rootfs().diff_ids().iter().map(parse).collect()
    }

    /// The variables of `config.Env` in their order, each `NAME=VALUE`.
    pub fn env(&self) -> &[String] {
        self.spec().config().as_ref().and_then(|config| config.env().as_deref()).unwrap_or_default()
    }
}
