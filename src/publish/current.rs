//! Whether the images of the layout are what their stackerfiles say now.
//!
//! The layers are decided as a build would, but nothing runs, and no server is asked: bases by tag are what they were
//! when they were last asked for. What would then be written is compared with what lies there: config and annotations,
//! and so the layers by their diff ids. How they are compressed, what `--created` was, and what `--provenance` told, does not
//! count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Item, Request};
use crate::build::{Look, wanted};
use crate::error::{Error, Result};
use crate::export::ImageState;
use crate::graph::{LayerGraph, LayerIndex};
use crate::holder::Holder;
use crate::images::{self, Export};
use crate::load::Loaded;
use crate::oci::{BaseImage, DocumentKind, Layout, document_kind};
use crate::progress::Mode;
use crate::provenance::{Provenance, is_of_one_image};

/// An error that names all images that are not what a build would make.
pub(super) fn check(
    request: &Request,
    graph: &LayerGraph,
    loaded: &Loaded,
    items: &[Item],
    layout: &Layout,
    holder: Holder,
) -> Result<()> {
    let layers: Vec<LayerIndex> = items.iter().map(|item| item.layer).collect();
    let expected = expected(request, graph, loaded, &wanted(graph, &layers), holder)?;
    let mut stale = Vec::new();
    for item in items {
        let tag = item.kind.tag(&item.name);
        let why = match expected.iter().find(|(expected, _)| *expected == tag) {
            Some((_, Some(image))) => difference(image, item, layout)?,
            _ => Some("it has to be built"),
        };
        if let Some(why) = why {
            stale.push(format!("\n  {tag}: {why}"));
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    let path = layout.path().display();
    Err(Error::Build(format!(
        "images in the OCI layout {path} are not what their stackerfiles say now:{}\n  build them first, or publish \
         with --force what is there",
        stale.concat()
    )))
}

/// What a build would write, by tag.
fn expected(
    request: &Request,
    graph: &LayerGraph,
    loaded: &Loaded,
    wanted: &BTreeSet<LayerIndex>,
    holder: Holder,
) -> Result<Vec<(String, Option<Arc<ImageState>>)>> {
    let look = Look::new(&request.build, graph, loaded, wanted, holder, Some(Mode::None))?;
    let export = Export {
        request: &request.build,
        graph: &look.graph,
        images: &look.bases,
        site: &look.site,
        settings: look.settings,
        packings: &look.packings,
        provenance: &Provenance::default(),
    };
    let reports = look.execution().look_at_all();
    let expected = reports.and_then(|reports| images::expected(&export, &reports, &look.database));
    look.end();
    expected
}

/// How an image in the layout differs from what a build would write.
fn difference(expected: &ImageState, item: &Item, layout: &Layout) -> Result<Option<&'static str>> {
    if document_kind(item.found.descriptor.media_type()) != DocumentKind::Manifest {
        return Ok(Some("there is an index of several images"));
    }
    let found = layout.manifests_of(&item.found)?;
    let Some(found) = found.first() else { return Ok(Some("there is no image")) };
    let found: BaseImage = layout.read(found)?;
    let diff_ids = |layers: &mut dyn Iterator<Item = crate::digest::DiffId>| layers.collect::<Vec<_>>();
    let there = diff_ids(&mut found.layers.iter().map(|layer| layer.diff_id));
    Ok(if there != diff_ids(&mut expected.layers.iter().map(|layer| layer.diff_id)) {
        Some("it has other layers")
    } else if timeless(found.config.json()) != timeless(expected.config.json()) {
        Some("its configuration is another")
    } else if lasting(&found.annotations) != lasting(&expected.annotations) {
        Some("its annotations are others")
    } else {
        None
    })
}

/// Annotations without those of `--provenance`, which a build may have had.
fn lasting(annotations: &BTreeMap<String, String>) -> BTreeMap<&String, &String> {
    annotations.iter().filter(|(name, _)| !is_of_one_image(name)).collect()
}

/// A config without the times at which it says that it was made.
fn timeless(config: &Map<String, Value>) -> Map<String, Value> {
    let mut config = config.clone();
    config.remove("created");
    for entry in config.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("created");
        }
    }
    config
}
