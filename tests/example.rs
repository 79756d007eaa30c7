//! The stackerfiles of the example monorepo are ones that stacker understands, and as many as its README says.

use std::path::Path;

use stacker::graph::LayerGraph;
use stacker::load::{Options, find, load};

#[test]
fn the_example_is_a_graph_of_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monorepo");
    let options = Options { working_dir: root.clone(), ..Options::default() };
    let files = find(Path::new("."), &options).expect("the example can be read").files;
    let loaded = load(&files, &options).unwrap_or_else(|error| panic!("{error}"));
    let graph = LayerGraph::new(&loaded).unwrap_or_else(|error| panic!("{error}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(graph.warnings().is_empty(), "{:?}", graph.warnings());

    let images = graph.iter().filter(|(_, node)| !node.layer.build_only).count();
    let counts = format!("{} stackerfiles, {} layers, {images} images", files.len(), graph.len());
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the example has a README");
    assert!(readme.contains(&counts), "the README of the example does not say `{counts}`");
    for (_, node) in graph.iter() {
        assert!(readme.contains(&format!("`{}`", node.layer.name)), "the README does not mention {}", node.layer.name);
    }
}
