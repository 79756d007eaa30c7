//! A small OCI layout, whole or broken in one way.

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use stacker::action::Platform;

use super::archive::Archive;

/// What is wrong with a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    Layer,
    LayerSize,
    Manifest,
    ManifestDigest,
    Config,
    ConfigSize,
    DiffIds,
    Media,
    Index,
    NoIndex,
    Version,
}

pub fn platform() -> Platform {
    Platform { os: "linux".into(), arch: "amd64".into() }
}

/// Writes a blob: its digest and size.
pub fn blob(root: &Path, bytes: &[u8]) -> (String, usize) {
    let hex = stacker::digest::hex(&Sha256::digest(bytes));
    fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    fs::write(root.join("blobs/sha256").join(&hex), bytes).unwrap();
    (format!("sha256:{hex}"), bytes.len())
}

fn path(root: &Path, digest: &str) -> std::path::PathBuf {
    root.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

/// Makes a layout with the tag `app`: one layer with the file `hello`.
pub fn layout(root: &Path, broken: Broken) {
    let (layer, layer_size) = blob(root, &Archive::new().file("hello", "world").end());
    let mut diff_ids = vec![layer.clone()];
    if broken == Broken::DiffIds {
        diff_ids.push(layer.clone());
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let (config, config_size) = blob(root, config.to_string().as_bytes());
    let tar = if broken == Broken::Media { "application/x-tar" } else { "application/vnd.oci.image.layer.v1.tar" };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": [{"mediaType": tar, "digest": layer, "size": layer_size}],
    });
    let (manifest, size) = blob(root, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "app"},
    }]});
    let version = if broken == Broken::Version { "2.0.0" } else { "1.0.0" };
    fs::write(root.join("oci-layout"), json!({"imageLayoutVersion": version}).to_string()).unwrap();
    fs::write(root.join("index.json"), if broken == Broken::Index { "{".into() } else { index.to_string() }).unwrap();
    match broken {
        Broken::Layer => fs::remove_file(path(root, &layer)).unwrap(),
        Broken::LayerSize => fs::write(path(root, &layer), "short").unwrap(),
        Broken::Manifest => fs::remove_file(path(root, &manifest)).unwrap(),
        Broken::ManifestDigest => {
            let mut bytes = fs::read(path(root, &manifest)).unwrap();
            bytes[0] = b' ';
            fs::write(path(root, &manifest), bytes).unwrap();
        }
        Broken::Config => fs::remove_file(path(root, &config)).unwrap(),
        Broken::ConfigSize => fs::write(path(root, &config), "{}").unwrap(),
        Broken::NoIndex => fs::remove_file(root.join("index.json")).unwrap(),
        _ => {}
    }
}

/// Gives the one image another layer: its blob, and the tar in it.
pub fn replace_layer(root: &Path, packed: &[u8], tar: &[u8]) {
    let read = |digest: &serde_json::Value| -> serde_json::Value {
        let bytes = fs::read(path(root, digest.as_str().unwrap())).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(root.join("index.json")).unwrap()).unwrap();
    let mut manifest = read(&index["manifests"][0]["digest"]);
    let mut config = read(&manifest["config"]["digest"]);
    config["rootfs"]["diff_ids"][0] = format!("sha256:{}", stacker::digest::hex(&Sha256::digest(tar))).into();
    let put = |descriptor: &mut serde_json::Value, bytes: &[u8]| {
        let (digest, size) = blob(root, bytes);
        (descriptor["digest"], descriptor["size"]) = (digest.into(), size.into());
    };
    put(&mut manifest["config"], config.to_string().as_bytes());
    put(&mut manifest["layers"][0], packed);
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    put(&mut index["manifests"][0], manifest.to_string().as_bytes());
    fs::write(root.join("index.json"), index.to_string()).unwrap();
}
