//! `stacker publish`: images of the layout go to a registry, or to another layout, as they lie there.
//!
//! First it is looked whether they are what their stackerfiles say now (`current`): the same deciding as in a build, in
//! which nothing runs and no server is asked. Then what is not there yet is sent (`push`), or copied (`copy`).

mod copy;
mod current;
mod push;
mod tree;

use std::path::PathBuf;

use crate::build;
use crate::error::{Error, Result};
use crate::graph::{LayerGraph, LayerIndex};
use crate::holder::Holder;
use crate::layer_type::LayerType;
use crate::oci::{ImageRef, Layout};
use crate::registry::{ImageName, SCHEME, Secret};

/// What `stacker publish` was asked for.
pub struct Request {
    /// Which stackerfiles, how they are read, where everything lies, how the network is used, which types of layers.
    pub build: build::Request,
    /// Where images go.
    pub target: Target,
    /// What each is tagged with there.
    pub tags: Vec<String>,
    /// These alone; all when none is named.
    pub images: Vec<String>,
    /// Who we are to the registry, instead of what the user's files say.
    pub given: Option<Secret>,
    /// Without TLS, or without a look at certificates.
    pub insecure: bool,
    /// Whether images are what their stackerfiles say does not matter.
    pub force: bool,
    /// Only told.
    pub show_only: bool,
    /// Nothing is told but failures.
    pub quiet: bool,
}

/// Where images go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `docker://HOST/PREFIX`: each image to a repository of its own below that.
    Registry(String),
    /// `oci:PATH`: all to one layout.
    Layout(PathBuf),
}

/// An image that is to be published.
struct Item {
    layer: LayerIndex,
    /// The layer's name.
    name: String,
    kind: LayerType,
    /// Its entry in the layout.
    found: ImageRef,
}

impl Target {
    /// `docker://HOST/PREFIX` or `oci:PATH`.
    pub fn parse(url: &str) -> Result<Target> {
        let wrong = |why: &str| Error::Usage(format!("--url {url:?}: {why}"));
        if let Some(path) = url.strip_prefix("oci:").filter(|path| !path.is_empty()) {
            return Ok(Target::Layout(crate::inputs::absolute(path.as_ref())?));
        }
        let Some(place) = url.strip_prefix(SCHEME).map(|place| place.trim_end_matches('/')) else {
            return Err(wrong("wanted docker://HOST/PREFIX or oci:PATH"));
        };
        // With any name behind it.
        ImageName::parse(&format!("{SCHEME}{place}/name:tag")).map_err(|why| wrong(&why))?;
        Ok(Target::Registry(place.to_owned()))
    }

    /// What an image is called there.
    fn place(&self, name: &str, kind: LayerType, tag: &str) -> String {
        match self {
            Target::Registry(place) => format!("{SCHEME}{place}/{name}:{}", kind.tag(tag)),
            Target::Layout(path) => format!("oci:{}:{}", path.display(), self.tag(name, kind, tag)),
        }
    }

    /// The tag there.
    fn tag(&self, name: &str, kind: LayerType, tag: &str) -> String {
        match self {
            Target::Registry(_) => kind.tag(tag),
            Target::Layout(_) => format!("{name}_{}", kind.tag(tag)),
        }
    }
}

/// Publishes; returns what goes to stdout.
pub fn publish(request: &Request, holder: Holder) -> Result<String> {
    if request.tags.is_empty() {
        return Err(Error::Usage("publish: --tag TAG is needed: what the images are tagged with there".to_owned()));
    }
    let (files, loaded) = build::read(&request.build.what, &request.build.load)?;
    let graph = LayerGraph::new(&loaded)?;
    for warning in loaded.warnings.iter().chain(graph.warnings()).filter(|_| !request.quiet) {
        eprintln!("{warning}");
    }
    let layers = chosen(request, &graph, &files)?;
    let layout = Layout::open(&request.build.directories.oci)?;
    let items = items(request, &graph, &layers, &layout)?;
    if !request.force {
        current::check(request, &graph, &loaded, &items, &layout, holder)?;
    }
    if request.show_only {
        return Ok(shown(request, &items));
    }
    match &request.target {
        Target::Registry(place) => push::push(request, place, &graph, &items, &layout),
        Target::Layout(path) => copy::copy(request, path, &items, &layout),
    }
}

/// Layers of the stackerfiles that were named, not of their prerequisites.
fn chosen(request: &Request, graph: &LayerGraph, files: &[PathBuf]) -> Result<Vec<LayerIndex>> {
    if !request.images.is_empty() {
        let layers = request.images.iter().map(|name| graph.named(name)).collect::<Result<Vec<_>>>()?;
        return match layers.iter().find(|layer| graph[**layer].layer.build_only) {
            Some(layer) => {
                let name = &graph[*layer].layer.name;
                Err(Error::Usage(format!("--image {name}: the layer is `build_only`, so it has no image")))
            }
            None => Ok(layers),
        };
    }
    let is_ours = |place: &std::path::Path| files.iter().any(|file| file == place);
    let ours = graph.iter().filter(|(_, node)| !node.layer.build_only && is_ours(&node.layer.place.path));
    Ok(ours.map(|(layer, _)| layer).collect())
}

/// What is to be published, found in the layout.
fn items(request: &Request, graph: &LayerGraph, layers: &[LayerIndex], layout: &Layout) -> Result<Vec<Item>> {
    let mut kinds = request.build.layer_types.clone();
    kinds.sort();
    kinds.dedup();
    let images = layout.images();
    let mut items = Vec::new();
    let mut missing = Vec::new();
    for &layer in layers {
        for &kind in &kinds {
            let name = graph[layer].layer.name.clone();
            let tag = kind.tag(&name);
            match images.iter().find(|image| image.tag.as_ref() == Some(&tag)) {
                Some(found) => items.push(Item { layer, name, kind, found: found.clone() }),
                None => missing.push(tag),
            }
        }
    }
    if missing.is_empty() {
        return Ok(items);
    }
    let path = layout.path().display();
    Err(Error::Build(format!("not in the OCI layout {path}: {}; build it first", missing.join(", "))))
}

fn shown(request: &Request, items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        for tag in &request.tags {
            text += &format!("would publish {}\n", request.target.place(&item.name, item.kind, tag));
        }
    }
    text
}
