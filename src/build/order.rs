//! What would be built, seen without building: `stacker build --order-only` and `stacker graph`.

use std::collections::{BTreeSet, HashMap};

use crate::database::Database;
use crate::error::Result;
use crate::graph::{LayerGraph, LayerIndex};
use crate::inspect::table::moment;
use crate::load::{self, Loaded};
use crate::picture::{Last, LastBuild, Picture};
use crate::place::tidy;
use crate::progress::{Event, Mode};
use crate::story;
use crate::tell::Teller;

use super::{Request, What, named, read, wanted};

/// A line for each layer that would be built, in the order of a serial build.
pub fn order(request: &Request) -> Result<String> {
    let (loaded, graph, layers) = look(&request.what, &request.load)?;
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

/// The layers that would be built, and what they need; with a database, also what became of them in the last build.
pub fn picture(what: &What, options: &load::Options, database: Option<&Database>) -> Result<Picture> {
    let (loaded, graph, layers) = look(what, options)?;
    let mut picture = Picture::of(&graph, &loaded, &layers);
    let Some(database) = database else { return Ok(picture) };
    let named = |layer: &LayerIndex| {
        let layer = &graph[*layer].layer;
        (tidy(&layer.place.path), layer.name.clone())
    };
    let names: Vec<story::Name> = layers.iter().map(named).collect();
    let Some(story) = story::last_with(database, &names.iter().cloned().collect())? else { return Ok(picture) };
    picture.build = Some(LastBuild { id: story.id, begun: moment(story.build.begun / 1000) });
    let last = |layer: story::Layer| {
        let story::Layer { scope, name, status, reason, seconds, .. } = layer;
        ((scope, name), Last { status, reason, seconds })
    };
    let mut last: HashMap<story::Name, Last> = story.layers.into_iter().map(last).collect();
    for (layer, name) in picture.layers.iter_mut().zip(&names) {
        layer.last = last.remove(name);
    }
    Ok(picture)
}

/// Reads stackerfiles and tells what there is to warn of.
fn look(what: &What, options: &load::Options) -> Result<(Loaded, LayerGraph, BTreeSet<LayerIndex>)> {
    let (_, loaded) = read(what, options)?;
    let graph = LayerGraph::new(&loaded)?;
    let layers = wanted(&graph, &named(&graph, what)?);
    let warnings: Vec<String> = loaded.warnings.iter().chain(graph.warnings()).cloned().collect();
    Teller::start(Some(Mode::None), &warnings, layers.len()).end(Event::Stop);
    Ok((loaded, graph, layers))
}
