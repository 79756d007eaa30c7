//! Layouts that are broken, or do not hold what was asked for: each error names the layout and what is wrong with it.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use stacker::action::Platform;
use stacker::oci::Layout;
use support::layout::{Broken, blob, layout, platform};

fn error(path: &Path, tag: Option<&str>) -> String {
    let layout = match Layout::open(path) {
        Ok(layout) => layout,
        Err(error) => return checked(error, path),
    };
    checked(layout.find(tag, &platform()).expect_err("it was found"), path)
}

fn checked(error: stacker::Error, path: &Path) -> String {
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text:?} does not name the layout");
    assert_eq!(error.exit_code(), 1, "{text}: what is built on is the user's");
    text
}

#[test]
fn an_image_is_found_by_tag_and_platform() {
    let space = tempfile::tempdir().unwrap();
    layout(space.path(), Broken::Nothing);
    let layout = Layout::open(space.path()).unwrap();
    let image = layout.find(Some("app"), &platform()).unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.config.env(), ["A=b"]);
    assert!(image.layers[0].path.is_file());
    assert_eq!(image.chain().0, [image.layers[0].diff_id]);
    // The only image needs no tag.
    assert_eq!(layout.find(None, &platform()).unwrap().digest, image.digest);
    let other = Platform { arch: "s390x".into(), ..platform() };
    let text = layout.find(Some("app"), &other).unwrap_err().to_string();
    assert!(text.contains("wanted linux/s390x") && text.contains("is for linux/"), "{text}");
}

#[test]
fn broken_layouts_say_what_is_broken() {
    let cases = [
        (Broken::Layer, "is missing"),
        (Broken::LayerSize, "is damaged"),
        (Broken::Manifest, "manifest sha256:"),
        (Broken::ManifestDigest, "is damaged: the bytes of"),
        (Broken::Config, "config sha256:"),
        (Broken::ConfigSize, "does not have the expected"),
        (Broken::DiffIds, "has 1 layers, but its config names 2 diff ids"),
        (Broken::Media, "is no layer tar"),
        (Broken::Index, "index.json can not be understood"),
        (Broken::Version, "version \"2.0.0\" is not supported"),
        (Broken::NoIndex, "it has no file \"index.json\""),
    ];
    for (broken, says) in cases {
        let space = tempfile::tempdir().unwrap();
        layout(space.path(), broken);
        let text = error(space.path(), Some("app"));
        assert!(text.contains(says), "{broken:?}: {text:?} does not say {says:?}");
    }
}

#[test]
fn what_is_no_layout_is_said_to_be_none() {
    let space = tempfile::tempdir().unwrap();
    assert!(error(&space.path().join("nothing"), None).contains("there is nothing at that path"));
    assert!(error(space.path(), None).contains("it has no file \"oci-layout\""));
    let file = space.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(error(&file, None).contains("it is not a directory"));
}

#[test]
fn an_unknown_tag_offers_the_nearest() {
    let space = tempfile::tempdir().unwrap();
    layout(space.path(), Broken::Nothing);
    let text = error(space.path(), Some("ap"));
    assert!(text.contains("no tag \"ap\"") && text.contains("did you mean \"app\"?"), "{text}");
    let text = error(space.path(), Some("entirely-else"));
    assert!(!text.contains("did you mean") && text.contains("tags here: app"), "{text}");
}

#[test]
fn nested_indexes_are_followed_and_attestations_are_not() {
    let space = tempfile::tempdir().unwrap();
    let root = space.path();
    layout(root, Broken::Nothing);
    let index: Value = serde_json::from_slice(&std::fs::read(root.join("index.json")).unwrap()).unwrap();
    let mut image = index["manifests"][0].clone();
    image.as_object_mut().unwrap().remove("annotations");
    let mut attestation = image.clone();
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let kind = "application/vnd.oci.image.index.v1+json";
    let inner = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [attestation, image]});
    let (digest, size) = blob(root, inner.to_string().as_bytes());
    let tag = json!({"org.opencontainers.image.ref.name": "multi"});
    let outer = json!({"mediaType": kind, "digest": digest, "size": size, "annotations": tag});
    std::fs::write(root.join("index.json"), json!({"schemaVersion": 2, "manifests": [outer]}).to_string()).unwrap();
    let found = Layout::open(root).unwrap().find(Some("multi"), &platform()).unwrap();
    assert_eq!(found.digest.to_string(), image["digest"]);
}
