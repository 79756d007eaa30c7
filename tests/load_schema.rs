//! The schema in the repository is the one that the code generates, and speaks of exactly the directives that are read.

use std::collections::BTreeSet;

use stacker::load::{Support, directives};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/stackerfile.schema.json");

#[test]
fn the_schema_file_is_current() {
    let generated = stacker::schema::stackerfile();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(PATH, &generated).expect("the schema directory can be written");
    }
    let file = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(file == generated, "schema/ is stale; renew it: UPDATE_SCHEMA=1 cargo test --test load_schema");
}

#[test]
fn the_schema_has_the_directives_that_are_read() {
    let schema: serde_json::Value = serde_json::from_str(&stacker::schema::stackerfile()).expect("JSON");
    let layer = schema["definitions"]["Layer"]["properties"].as_object().expect("a map");
    let described: BTreeSet<&str> = layer.keys().map(String::as_str).collect();
    let read: BTreeSet<&str> =
        directives().filter(|(_, support)| *support == Support::Now).map(|(name, _)| name).collect();
    assert_eq!(described, read);
    for (name, directive) in layer {
        assert!(directive.get("description").is_some(), "{name} has no description");
    }
}

#[test]
fn the_readme_has_every_directive() {
    let readme = include_str!("../README.md");
    let table = readme.split_once("| directive |").expect("a table of directives").1;
    let table = table.split_once("\n\n").expect("the table ends").0;
    let rows: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()).collect();
    let described: BTreeSet<&str> = rows.iter().flat_map(|row| row.trim_matches('`').split("`, `")).collect();
    let read: BTreeSet<&str> =
        directives().filter(|(_, support)| *support != Support::Reserved).map(|(name, _)| name).collect();
    assert_eq!(described, read);
    for (name, _) in directives().filter(|(_, support)| *support == Support::Reserved) {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
    }
}
