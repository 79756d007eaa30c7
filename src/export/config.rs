//! The image config as a pure function: the base's config, then the layer's own settings.
//!
//! Who inherits what is decided by which base is passed; see [`super::ImageState`]. No clock, no host, no user: equal
//! arguments give equal bytes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::action::Platform;
use crate::digest::DiffId;
use crate::inputs::DEFAULT_PATH;
use crate::load::{Healthcheck, ImageSettings};
use crate::oci::ImageConfiguration;

/// Fields of Docker configs that tell how the *base* was built: untrue for an image on top of it.
const NOT_INHERITED: [&str; 7] = [
    "container",
    "container_config",
    "docker_version",
    "id",
    "moby.buildkit.buildinfo.v1",
    "moby.buildkit.cache.v0",
    "parent",
];

/// The config of an image: `base`'s with `settings` applied, made of exactly these layers. `created` is in seconds since 1970; `None` keeps the base's.
pub(super) fn config(
    base: &ImageConfiguration,
    settings: &ImageSettings,
    layers: Layers,
    platform: &Platform,
    created: Option<i64>,
) -> ImageConfiguration {
    let other_platform = &base.platform() != platform;
    base.with_fields(|json| {
        json.retain(|name, _| !NOT_INHERITED.contains(&name.as_str()));
        if other_platform {
            json.retain(|name, _| !["variant", "os.version", "os.features"].contains(&name.as_str()));
        }
        json.insert("architecture".into(), json!(platform.arch));
        json.insert("os".into(), json!(platform.os));
        json.insert("author".into(), json!("stacker"));
        if let Some(created) = created {
            json.insert("created".into(), json!(rfc3339(created)));
        }
        layers.insert_into(json);
        let mut own = match json.remove("config") {
            Some(Value::Object(own)) => own,
            _ => Map::new(),
        };
        apply(&mut own, settings);
        json.insert("config".into(), Value::Object(own));
    })
}

/// `base`'s config for other layers, all else as it is.
pub(super) fn config_of_layers(base: &ImageConfiguration, layers: Layers) -> ImageConfiguration {
    base.with_fields(|json| layers.insert_into(json))
}

/// What a config says of the layers.
pub(super) struct Layers {
    /// Bottom first.
    pub diff_ids: Vec<DiffId>,
    /// One entry for each of them, and those of steps that made none.
    pub history: Vec<Value>,
}

impl Layers {
    fn insert_into(self, json: &mut Map<String, Value>) {
        json.insert("rootfs".into(), json!({"type": "layers", "diff_ids": self.diff_ids}));
        json.insert("history".into(), Value::Array(self.history));
    }
}

/// Seconds since 1970 as RFC 3339 in UTC, without a fraction.
pub(super) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Applies settings to the `config` object of an image config.
fn apply(own: &mut Map<String, Value>, settings: &ImageSettings) {
    let env = environment_of(own, &settings.environment);
    own.insert("Env".into(), json!(env));
    if let Some(entrypoint) = &settings.entrypoint {
        list(own, "Entrypoint", entrypoint);
        // As in a Dockerfile: arguments of another program make no sense for this one.
        own.remove("Cmd");
    }
    if let Some(cmd) = &settings.cmd {
        list(own, "Cmd", cmd);
    }
    let texts = [
        ("WorkingDir", &settings.working_dir),
        ("User", &settings.runtime_user),
        ("StopSignal", &settings.stop_signal),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            own.insert(name.into(), json!(text));
        }
    }
    if let Some(healthcheck) = &settings.healthcheck {
        own.insert("Healthcheck".into(), healthcheck_of(healthcheck));
    }
    insert_all(own, "Labels", settings.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
    let places = |names: &[String]| names.iter().map(|name| (name.clone(), json!({}))).collect::<Vec<_>>();
    insert_all(own, "Volumes", places(&settings.volumes).into_iter());
    insert_all(own, "ExposedPorts", places(&settings.exposed_ports).into_iter());
}

/// Docker's extension of the image-spec, times in nanoseconds. What is not said is left out, for the engine to choose.
fn healthcheck_of(healthcheck: &Healthcheck) -> Value {
    let Healthcheck::Probe(probe) = healthcheck else { return json!({"Test": ["NONE"]}) };
    let mut object = Map::new();
    object.insert("Test".into(), json!(probe.test));
    let times = [
        ("Interval", probe.interval),
        ("Timeout", probe.timeout),
        ("StartPeriod", probe.start_period),
        ("StartInterval", probe.start_interval),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            // The loader takes none that is longer than this can say.
            object.insert(name.into(), json!(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)));
        }
    }
    if let Some(retries) = probe.retries {
        object.insert("Retries".into(), json!(retries));
    }
    Value::Object(object)
}

/// The base's variables in their order, each with its new value where it has one, then the new ones by name.
fn environment_of(own: &Map<String, Value>, new: &BTreeMap<String, String>) -> Vec<String> {
    let inherited = own.get("Env").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut names: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let inherited = inherited.map(|line| line.split_once('=').unwrap_or((line, "")));
    for (name, value) in inherited.chain(new.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        if values.insert(name.to_owned(), value.to_owned()).is_none() {
            names.push(name.to_owned());
        }
    }
    if !values.contains_key("PATH") {
        names.insert(0, "PATH".to_owned());
        values.insert("PATH".to_owned(), DEFAULT_PATH.to_owned());
    }
    names.iter().map(|name| format!("{name}={}", values[name])).collect()
}

/// Sets a list; an empty one is the same as none.
fn list(own: &mut Map<String, Value>, name: &str, words: &[String]) {
    if words.is_empty() {
        own.remove(name);
    } else {
        own.insert(name.into(), json!(words));
    }
}

/// Adds members to the object `name`, which appears only when there is something in it.
fn insert_all(own: &mut Map<String, Value>, name: &str, members: impl Iterator<Item = (String, Value)>) {
    let mut object = match own.remove(name) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    };
    object.extend(members);
    if !object.is_empty() {
        own.insert(name.into(), Value::Object(object));
    }
}
