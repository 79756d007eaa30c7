//! The schema of the metadata file in the repository is the one that the code generates, and real metadata fits it.

use std::collections::BTreeSet;

use serde_json::Value;
use stacker::digest::{BlobDigest, DiffId, Key};
use stacker::export::metadata::{ImageReport, LayerReport, Metadata, Status};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/metadata.schema.json");

#[test]
fn the_schema_file_is_current() {
    let generated = Metadata::schema();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(PATH, &generated).expect("the schema directory can be written");
    }
    let file = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(file == generated, "schema/ is stale; renew it: UPDATE_SCHEMA=1 cargo test --test metadata_schema");
}

/// The schema's object that describes a type.
fn described<'a>(schema: &'a Value, name: Option<&str>) -> &'a Value {
    name.map_or(schema, |name| &schema["$defs"][name])
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn what_is_written_has_the_fields_of_the_schema() {
    let layer = LayerReport {
        name: "app".into(),
        stackerfile: "/src/stacker.yaml".into(),
        key: Some(Key([1; 32])),
        status: Status::Built,
        seconds: 1.5,
        reason: Some("script changed".into()),
        diff_ids: vec![DiffId([2; 32])],
    };
    let image = ImageReport { tag: "app".into(), digest: BlobDigest([3; 32]) };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.json");
    Metadata::new(vec![layer], vec![image]).write(&path).expect("the file is written");
    let written: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    let schema: Value = serde_json::from_str(&Metadata::schema()).expect("JSON");
    for (object, name) in [
        (&written, None),
        (&written["layers"][0], Some("LayerReport")),
        (&written["totals"], Some("Totals")),
        (&written["images"][0], Some("ImageReport")),
    ] {
        let described = described(&schema, name);
        assert_eq!(names(object), names(&described["properties"]), "{name:?}");
        for (property, text) in described["properties"].as_object().expect("an object") {
            assert!(text["description"].is_string() || text["$ref"].is_string(), "{property} has no description");
        }
    }
    assert_eq!(written["layers"][0]["status"], "built");
    assert_eq!(written["totals"]["built"], 1);
}
