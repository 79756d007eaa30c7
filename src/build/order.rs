//! `stacker build --order-only`.

use crate::error::Result;
use crate::graph::{LayerGraph, LayerIndex};
use crate::load;
use crate::progress::{Event, Mode};
use crate::tell::Teller;

use super::{Request, find, named, wanted};

/// A line for each layer that would be built, in the order of a serial build.
pub fn order(request: &Request) -> Result<String> {
    let files = find(&request.what, &request.load)?;
    let loaded = load::load(&files, &request.load)?;
    let graph = LayerGraph::new(&loaded)?;
    let layers = wanted(&graph, &named(&graph, &request.what)?);
    let warnings: Vec<String> = loaded.warnings.iter().chain(graph.warnings()).cloned().collect();
    Teller::start(Some(Mode::None), &warnings, layers.len()).end(Event::Stop);
    let name = |layer: LayerIndex| graph[layer].layer.name.as_str();
    let line = |layer: LayerIndex| {
        let needs: Vec<&str> = graph.needs(layer).into_iter().map(name).collect();
        let file = loaded.texts.shown(&graph[layer].layer.place.path);
        match needs.as_slice() {
            [] => format!("{} ({file})\n", name(layer)),
            needs => format!("{} ({file}): needs {}\n", name(layer), needs.join(", ")),
        }
    };
    Ok(layers.into_iter().map(line).collect())
}
