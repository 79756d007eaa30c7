//! What a user reads when stackerfiles are wrong. Each `mistakes/NAME.yaml` has its messages beside it in `NAME.txt`;
//! `UPDATE_FIXTURES=1 cargo test --test load_mistakes` writes them anew, for review.

use std::path::{Path, PathBuf};

use stacker::graph::LayerGraph;
use stacker::load::{Options, find, load};

const MISTAKES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/load/mistakes");

/// All errors and warnings of these files.
fn messages(files: &[PathBuf], options: &Options) -> String {
    let loaded = match load(files, options) {
        Ok(loaded) => loaded,
        Err(error) => return error.to_string(),
    };
    let mut messages = loaded.warnings.clone();
    match LayerGraph::new(&loaded) {
        Ok(graph) => messages.extend_from_slice(graph.warnings()),
        Err(error) => messages.push(error.to_string()),
    }
    messages.join("\n\n")
}

#[test]
fn messages_are_as_recorded() {
    let options = Options {
        working_dir: MISTAKES.into(),
        substitutes: vec![("GIVEN".into(), "x".into())],
        pattern: Some(regex::Regex::new(r"\.yaml$").expect("a pattern")),
        ..Options::default()
    };
    let files = find(Path::new("."), &options).expect("the fixtures can be read").files;
    assert!(files.len() > 5);
    for file in files {
        let found = messages(std::slice::from_ref(&file), &options) + "\n";
        let recorded = file.with_extension("txt");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&recorded, &found).expect("the fixtures can be written");
        }
        let expected = std::fs::read_to_string(&recorded).unwrap_or_default();
        assert!(found == expected, "{}:\n{found}\nbut expected:\n{expected}", file.display());
    }
}
