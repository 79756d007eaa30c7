//! Base images: of layouts on disk, and of registries, which are asked once for each name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::{Scope, base_place};
use crate::action::Platform;
use crate::database::Database;
use crate::diag::{Diagnostic, Diagnostics};
use crate::digest::{BlobDigest, ChainId};
use crate::error::{Error, Result};
use crate::graph::{LayerGraph, LayerIndex, NodeBase};
use crate::load::Place;
use crate::oci::{BaseImage, Layout};
use crate::registry::{Access, Found, ImageName, Lookup, Registries, RemoteBlob};

/// The base images of a build.
#[derive(Debug, Default)]
pub struct Bases {
    /// By the layers that build on them.
    pub images: HashMap<LayerIndex, Arc<BaseImage>>,
    /// The blobs that lie at registries.
    pub remote: HashMap<BlobDigest, RemoteBlob>,
    /// What each image of a registry consists of, its documents included, by its chain.
    pub blobs: BTreeMap<ChainId, BTreeMap<BlobDigest, u64>>,
}

/// One name of a registry, with the layers that want it, by platform.
struct Wanted<'a> {
    lookup: Lookup<'a>,
    layers: BTreeMap<Platform, Vec<LayerIndex>>,
    place: Place,
}

/// What a name led to, and the images there.
type Answer = Result<(BlobDigest, Vec<(Platform, Found)>)>;

/// Finds the base image of every wanted layer that has one.
pub(super) fn find(
    graph: &LayerGraph,
    wanted: &BTreeSet<LayerIndex>,
    scope: &Scope,
    database: &Database,
    diagnostics: &mut Diagnostics,
) -> Result<Bases> {
    let mut bases = Bases { images: on_disk(graph, wanted, diagnostics), ..Bases::default() };
    let wanted = at_registries(graph, wanted, scope, database)?;
    let answers: Vec<(&Wanted, Answer)> = wanted.par_iter().map(|wanted| (wanted, look_up(wanted))).collect();
    let mut led_to = Vec::new();
    for (wanted, answer) in answers {
        let (root, images) = match answer {
            Ok(answer) => answer,
            Err(Error::Build(message)) => {
                diagnostics.push(Diagnostic::error(message).at(wanted.place.clone(), ""));
                continue;
            }
            Err(error) => return Err(error),
        };
        if wanted.lookup.name.digest().is_none() && !wanted.lookup.offline {
            led_to.push((wanted.lookup.name, root));
        }
        for (platform, found) in images {
            bases.add(&wanted.layers[&platform], root, found);
        }
    }
    database.put_references(&led_to)?;
    Ok(bases)
}

/// The layers whose base was never found out from here, with what is missing.
pub fn unknown(
    graph: &LayerGraph,
    wanted: &BTreeSet<LayerIndex>,
    scope: &Scope,
    database: &Database,
) -> Result<BTreeMap<LayerIndex, String>> {
    let mut unknown = BTreeMap::new();
    for wanted in at_registries(graph, wanted, scope, database)? {
        match look_up(&wanted) {
            Ok(_) => {}
            Err(Error::Build(message)) => {
                let layers = wanted.layers.values().flatten();
                unknown.extend(layers.map(|layer| (*layer, message.clone())));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(unknown)
}

impl Bases {
    fn add(&mut self, layers: &[LayerIndex], root: BlobDigest, found: Found) {
        let Found { image, blobs, repository } = found;
        debug_assert!(blobs.contains_key(&root), "what a name leads to is read");
        for layer in &image.layers {
            let blob = RemoteBlob { repository: repository.clone(), size: layer.descriptor.size };
            self.remote.insert(layer.descriptor.digest, blob);
        }
        self.blobs.entry(image.chain().id()).or_default().extend(blobs);
        let image = Arc::new(image);
        self.images.extend(layers.iter().map(|layer| (*layer, image.clone())));
    }
}

fn on_disk(
    graph: &LayerGraph,
    wanted: &BTreeSet<LayerIndex>,
    diagnostics: &mut Diagnostics,
) -> HashMap<LayerIndex, Arc<BaseImage>> {
    let mut found: HashMap<_, Arc<BaseImage>> = HashMap::new();
    let mut images = HashMap::new();
    for &index in wanted {
        let node = &graph[index];
        let NodeBase::Oci { layout, tag } = &node.base else { continue };
        let name = (layout.clone(), tag.clone(), node.layer.platform.clone());
        if let Some(image) = found.get(&name) {
            images.insert(index, image.clone());
            continue;
        }
        match Layout::open(layout).and_then(|layout| layout.find(tag.as_deref(), &node.layer.platform)) {
            Ok(image) => {
                let image = Arc::new(image);
                found.insert(name, image.clone());
                images.insert(index, image);
            }
            Err(error) => {
                let place = base_place(node);
                diagnostics.push(Diagnostic::error(error.to_string()).at(place, ""));
            }
        }
    }
    images
}

fn at_registries<'a>(
    graph: &'a LayerGraph,
    layers: &BTreeSet<LayerIndex>,
    scope: &'a Scope,
    database: &Database,
) -> Result<Vec<Wanted<'a>>> {
    let registries = Registries::new(scope.http.clone(), None);
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut known: HashMap<(&ImageName, bool), usize> = HashMap::new();
    for &index in layers {
        let node = &graph[index];
        let NodeBase::Registry { name, insecure } = &node.base else { continue };
        let at = match known.get(&(name, *insecure)) {
            Some(at) => *at,
            None => {
                let repository = registries.repository(name.repository(), *insecure, Access::Pull);
                let remembered = database.reference(name)?;
                let (stacker, offline) = (&scope.stacker, scope.http.options().offline);
                let lookup = Lookup { name, repository, stacker, offline, remembered };
                wanted.push(Wanted { lookup, layers: BTreeMap::new(), place: base_place(node) });
                known.insert((name, *insecure), wanted.len() - 1);
                wanted.len() - 1
            }
        };
        wanted[at].layers.entry(node.layer.platform.clone()).or_default().push(index);
    }
    Ok(wanted)
}

fn look_up(wanted: &Wanted) -> Answer {
    let root = wanted.lookup.root()?;
    let image = |platform: &Platform| Ok((platform.clone(), wanted.lookup.image(root, platform)?));
    Ok((root, wanted.layers.keys().map(image).collect::<Result<_>>()?))
}
