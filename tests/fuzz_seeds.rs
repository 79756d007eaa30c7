//! The seeds of the fuzz targets, each given to its target once: what fuzzing found stays found.

#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code)]
mod fuzz;
mod support;

use std::path::Path;

fn replay(name: &str) {
    let (_, target) = fuzz::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut count = 0;
    for seed in std::fs::read_dir(&seeds).expect("the target has seeds") {
        let path = seed.unwrap().path();
        eprintln!("{}", path.display());
        target(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 2, "{name} has {count} seeds");
}

#[test]
fn stackerfile() {
    replay("stackerfile");
}

#[test]
fn dockerfile() {
    replay("dockerfile");
}

#[test]
fn unpack() {
    if support::mapped::root("unpack") {
        replay("unpack");
    }
}

#[test]
fn stored() {
    replay("stored");
}

#[test]
fn layout() {
    replay("layout");
}
