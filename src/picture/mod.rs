//! The graph of layers for people and for other programs: a tree of text, Graphviz, Mermaid, a drawing, JSON.
//!
//! It is told what the layers are, and writes texts.

mod dot;
mod layout;
mod mermaid;
mod svg;
mod tree;

use std::collections::{BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::export::metadata::Status;
use crate::graph::{LayerGraph, LayerIndex, Need, NodeBase};
use crate::http;
use crate::load::Loaded;
use crate::place::tidy;
use crate::progress::duration;

pub use svg::{STYLE, within};

/// Layers and what they need.
///
/// schema/graph.schema.json describes it; fields are added, never renamed or dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker graph")]
pub struct Picture {
    /// In the order of a serial build: what a layer needs comes before it.
    pub layers: Vec<Pictured>,
    /// The stackerfiles that they are in.
    pub stackerfiles: Vec<File>,
    /// With `--why`: the last build that had one of the layers. Not there otherwise, or if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<LastBuild>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pictured {
    /// Its name.
    pub name: String,
    /// Path of its stackerfile, relative to the working directory where it is beneath it.
    pub stackerfile: String,
    /// What it builds on.
    pub from: Origin,
    /// It becomes an image (it is not `build_only`).
    pub image: bool,
    /// The layers that it needs.
    pub needs: Vec<Needed>,
    /// With `--why`: what became of it in the last build. Not there otherwise, or if it was not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// `from` of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// `built`, `tar`, `oci`, `docker` or `scratch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The layer, file or image; null for `scratch`.
    pub what: Option<String>,
}

/// One layer that another one needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Needed {
    /// Its name.
    pub layer: String,
    /// What for: it is built upon, a tar in it is the base, or files of it are imported.
    pub kind: Need,
}

/// A stackerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// Its path, as that of a layer.
    pub path: String,
    /// The stackerfiles that it names in `config: prerequisites`.
    pub prerequisites: Vec<String>,
}

/// The build that `--why` tells of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastBuild {
    /// Its number, as `stacker history` has it.
    pub id: i64,
    /// When it began, in UTC.
    pub begun: String,
}

/// What became of a layer in a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Last {
    /// What happened.
    pub status: Status,
    /// Why its first step ran, in a few words; null where none did.
    pub reason: Option<String>,
    /// Seconds of work.
    pub seconds: f64,
}

/// How it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A tree: each layer beneath the one that it builds on.
    #[default]
    Text,
    /// For Graphviz: `stacker graph --format dot | dot -Tpng`.
    Dot,
    /// For Markdown files that have Mermaid diagrams.
    Mermaid,
    /// A drawing by itself.
    Svg,
    /// All of it, for programs (schema/graph.schema.json).
    Json,
}

impl Picture {
    /// Of some layers, which must be with all that they need.
    pub fn of(graph: &LayerGraph, loaded: &Loaded, wanted: &BTreeSet<LayerIndex>) -> Picture {
        let layers: Vec<Pictured> = wanted.iter().map(|layer| pictured(graph, loaded, *layer)).collect();
        let used: BTreeSet<&str> = layers.iter().map(|layer| layer.stackerfile.as_str()).collect();
        let files = loaded.stackerfiles.iter().map(|file| File {
            path: loaded.texts.shown(&tidy(&file.path)),
            prerequisites: file.prerequisites.iter().map(|(path, _)| loaded.texts.shown(&tidy(path))).collect(),
        });
        let stackerfiles = files.filter(|file| used.contains(file.path.as_str())).collect();
        Picture { layers, stackerfiles, build: None }
    }

    /// In a format; ends with a line feed.
    pub fn show(&self, format: Format) -> String {
        match format {
            Format::Text => tree::tree(self),
            Format::Dot => dot::dot(self),
            Format::Mermaid => mermaid::mermaid(self),
            Format::Svg => svg::alone(self),
            Format::Json => crate::text::json(self),
        }
    }

    /// Places of layers by their names.
    fn places(&self) -> HashMap<&str, usize> {
        self.layers.iter().enumerate().map(|(place, layer)| (layer.name.as_str(), place)).collect()
    }

    /// The layers of each stackerfile by their places, in the order in which the files come up.
    fn by_file(&self) -> Vec<(&str, Vec<usize>)> {
        let mut files: Vec<(&str, Vec<usize>)> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (place, layer) in self.layers.iter().enumerate() {
            let at = *known.entry(&layer.stackerfile).or_insert(files.len());
            if at == files.len() {
                files.push((&layer.stackerfile, Vec::new()));
            }
            files[at].1.push(place);
        }
        files
    }

    /// Prerequisites none of whose layers is used: edges between layers do not show these. By places in
    /// [`Picture::by_file`].
    fn unused_prerequisites(&self) -> Vec<(usize, usize)> {
        let files: HashMap<&str, usize> =
            self.by_file().iter().enumerate().map(|(at, (path, _))| (*path, at)).collect();
        let places = self.places();
        let file = |layer: &Pictured| files[layer.stackerfile.as_str()];
        let used: BTreeSet<(usize, usize)> = self
            .layers
            .iter()
            .flat_map(|layer| layer.needs.iter().map(move |needed| (layer, needed)))
            .filter_map(|(layer, needed)| Some((file(layer), file(&self.layers[*places.get(&*needed.layer)?]))))
            .collect();
        let named = self.stackerfiles.iter().flat_map(|file| {
            let from = files.get(&*file.path);
            file.prerequisites.iter().filter_map(|path| Some((*from?, *files.get(&**path)?))).collect::<Vec<_>>()
        });
        named.filter(|edge| !used.contains(edge)).collect()
    }
}

impl Pictured {
    /// `built in 1.2 s: script changed`, `hit`; nothing where nothing is known.
    fn fate(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        let mut text = last.status.word().to_owned();
        if last.seconds > 0.0 {
            text += &format!(" in {}", duration(last.seconds));
        }
        if let Some(reason) = &last.reason {
            text += &format!(": {reason}");
        }
        Some(text)
    }
}

impl Origin {
    /// `tar base.tar`, `scratch`.
    fn text(&self) -> String {
        match &self.what {
            Some(what) => format!("{} {what}", self.kind),
            None => self.kind.clone(),
        }
    }
}

fn pictured(graph: &LayerGraph, loaded: &Loaded, index: LayerIndex) -> Pictured {
    let node = &graph[index];
    let name = |layer: LayerIndex| graph[layer].layer.name.clone();
    let mut needs = graph.uses(index);
    needs.sort();
    needs.dedup();
    Pictured {
        name: node.layer.name.clone(),
        stackerfile: loaded.texts.shown(&tidy(&node.layer.place.path)),
        from: origin(&node.base, loaded, &name),
        image: !node.layer.build_only,
        needs: needs.into_iter().map(|(layer, kind)| Needed { layer: name(layer), kind }).collect(),
        last: None,
    }
}

fn origin(base: &NodeBase, loaded: &Loaded, name: &dyn Fn(LayerIndex) -> String) -> Origin {
    let (kind, what) = match base {
        NodeBase::Built(layer) => ("built", Some(name(*layer))),
        NodeBase::Oci { layout, tag } => {
            let layout = loaded.texts.shown(&tidy(layout));
            ("oci", Some(tag.as_ref().map_or(layout.clone(), |tag| format!("{layout}:{tag}"))))
        }
        NodeBase::Registry { name, .. } => ("docker", Some(name.to_string())),
        NodeBase::Tar(path) => ("tar", Some(loaded.texts.shown(&tidy(path)))),
        NodeBase::UrlTar(url) => ("tar", Some(http::shown(url))),
        NodeBase::LayerTar { layer, path } => ("tar", Some(format!("stacker://{}{path}", name(*layer)))),
        NodeBase::Scratch => ("scratch", None),
    };
    Origin { kind: kind.to_owned(), what }
}
