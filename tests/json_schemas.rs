//! The schemas in the repository are those that the code generates. That what commands print fits them is seen in each
//! command's own tests.

mod support;

use serde_json::Value;
use stacker::digest::{BlobDigest, DiffId, Key};
use stacker::export::metadata::{ImageReport, LayerReport, Metadata, Status};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema");

#[test]
fn the_schema_files_are_current() {
    for (name, generated) in stacker::schema::outputs() {
        let path = format!("{DIRECTORY}/{name}.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &generated).expect("the schema directory can be written");
        }
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(file == generated, "schema/ is stale; renew it: UPDATE_SCHEMA=1 cargo test --test json_schemas");
    }
}

#[test]
fn every_field_is_described() {
    for (name, text) in stacker::schema::outputs() {
        let schema: Value = serde_json::from_str(&text).expect("JSON");
        let defined = schema["$defs"].as_object().into_iter().flatten().map(|(_, object)| object);
        for object in std::iter::once(&schema).chain(defined) {
            for (property, text) in object["properties"].as_object().into_iter().flatten() {
                assert!(text["description"].is_string() || text["$ref"].is_string(), "{name}: {property}");
            }
        }
    }
}

#[test]
fn metadata_as_it_is_written_fits_its_schema() {
    let layer = LayerReport {
        name: "app".into(),
        stackerfile: "/src/stacker.yaml".into(),
        key: Some(Key([1; 32])),
        status: Status::Built,
        seconds: 1.5,
        reason: Some("forced".into()),
        why: Some(stacker::reason::Reason::Forced),
        diff_ids: vec![DiffId([2; 32])],
    };
    let image = ImageReport { tag: "app".into(), digest: BlobDigest([3; 32]) };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.json");
    Metadata::new(vec![layer], vec![image]).write(&path).expect("the file is written");
    let written: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    support::schema::assert_fits("metadata", &written);
    assert_eq!(written["layers"][0]["status"], "built");
    assert_eq!(written["totals"]["built"], 1);
}
