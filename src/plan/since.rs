//! Which layers what changed since a commit concerns: those that their stackerfile says something else of, those that
//! take in a file that is another one, and all that need these.
//!
//! Stackerfiles are read as the commit has them, with the substitutes of now. Files are compared by what git says: those
//! that it does not track count as new, also ignored ones, since imports take them in; those outside of the repository
//! count as unchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::build::{self, What};
use crate::error::{Error, Result};
use crate::git::{self, Changes};
use crate::graph::{LayerGraph, LayerIndex, Node, NodeBase, NodeSource};
use crate::load::{self, Loaded};
use crate::resolve::Ignored;

use super::report::{Affected, Cause, DeletedLayer, Since};

/// What changed.
pub(super) struct Found {
    reference: String,
    commit: String,
    /// Every layer that is concerned, and the first reason.
    pub affected: BTreeMap<LayerIndex, Why>,
    /// Names and stackerfiles of layers that are no more.
    deleted: Vec<(String, PathBuf)>,
}

/// Why a layer is concerned.
#[derive(Clone, Debug)]
pub(super) enum Why {
    New,
    Definition,
    File(PathBuf),
    Needs(LayerIndex),
    Unreadable,
}

/// Compares with a commit; the second is what to warn of.
pub(super) fn find(
    reference: &str,
    build: &build::Request,
    files: &[PathBuf],
    graph: &LayerGraph,
) -> Result<(Found, Vec<String>)> {
    let start = match &build.what {
        What::All(directory) => directory.as_path(),
        What::File(file, _) => file.parent().unwrap_or(Path::new("/")),
    };
    let changes = Arc::new(Changes::since(start, reference)?);
    let mut found = Found {
        reference: reference.to_owned(),
        commit: changes.commit.clone(),
        affected: BTreeMap::new(),
        deleted: Vec::new(),
    };
    let mut warnings = Vec::new();
    let old = match then(build, files, &changes, &mut warnings) {
        Ok(old) => Some(old),
        Err(Error::Stackerfile(why)) => {
            let title = format!("the stackerfiles of {reference} cannot be read, so every layer counts as changed");
            warnings.push(format!("{title}:\n{why}"));
            None
        }
        Err(error) => return Err(error),
    };
    if let Some(old) = &old {
        let is_gone = |(name, _): &(&String, &(String, PathBuf))| graph.find(name).is_none();
        let mut gone: Vec<_> =
            old.iter().filter(is_gone).map(|(name, (_, file))| (name.clone(), file.clone())).collect();
        gone.sort();
        found.deleted = gone;
    }
    let own: Vec<PathBuf> = build.directories.own();
    for (layer, node) in graph.iter() {
        let needed = || graph.needs(layer).into_iter().find(|needed| found.affected.contains_key(needed));
        let why = match old.as_ref().map(|old| old.get(&node.layer.name)) {
            None => Some(Why::Unreadable),
            Some(None) => Some(Why::New),
            Some(Some((definition, _))) if *definition != node.layer.definition(git::real) => Some(Why::Definition),
            _ => changed_file(node, &changes, &own)?.map(Why::File).or_else(|| needed().map(Why::Needs)),
        };
        found.affected.extend(why.map(|why| (layer, why)));
    }
    Ok((found, warnings))
}

/// What the stackerfiles of the commit say, by the layers' names, and in which file.
fn then(
    build: &build::Request,
    files: &[PathBuf],
    changes: &Arc<Changes>,
    warnings: &mut Vec<String>,
) -> Result<HashMap<String, (String, PathBuf)>> {
    let mut options = load::Options { past: Some(changes.clone()), portable: false, ..build.load.clone() };
    let path = options.substitute_path.clone();
    match path.and_then(|path| Some((changes.text(&path)?, path))) {
        None => {}
        Some((Ok(text), path)) => options.substitute_file = load::substitutes(&path, Ok(text))?,
        Some((Err(why), path)) => warnings
            .push(format!("what {} said is not known ({why}): its values are taken for those of now", path.display())),
    }
    let had = |file: &PathBuf| !matches!(changes.text(file), Some(Err(_)));
    let mut files: BTreeSet<PathBuf> = files.iter().filter(|file| had(file)).cloned().collect();
    if let What::All(directory) = &build.what {
        let pattern = options.pattern();
        let is_one = |path: &PathBuf| pattern.is_match(&path.to_string_lossy());
        files.extend(changes.deleted(directory).into_iter().filter(is_one));
    }
    let loaded = load::load(&files.into_iter().collect::<Vec<_>>(), &options)?;
    let layers = loaded.stackerfiles.iter().flat_map(|file| &file.layers);
    Ok(layers
        .map(|layer| (layer.name.clone(), (layer.definition(git::real), layer.place.path.to_path_buf())))
        .collect())
}

/// The first file that a layer takes in and that differs.
fn changed_file(node: &Node, changes: &Changes, own: &[PathBuf]) -> Result<Option<PathBuf>> {
    let mut plain: Vec<&Path> = node.layer.binds.iter().filter(|bind| bind.keyed).map(|bind| &*bind.source).collect();
    match &node.base {
        NodeBase::Tar(path) => plain.push(path),
        NodeBase::Oci { layout, .. } => plain.push(layout),
        _ => {}
    }
    let is_own = |path: &PathBuf| own.iter().any(|own| path.starts_with(own));
    if let Some(changed) = plain.iter().flat_map(|path| changes.touching(path)).find(|path| !is_own(path)) {
        return Ok(Some(changed));
    }
    for import in &node.imports {
        let NodeSource::Host { at, .. } = &import.source else { continue };
        let touched: Vec<PathBuf> = changes.touching(&at.path).into_iter().filter(|path| !is_own(path)).collect();
        if touched.is_empty() {
            continue;
        }
        let ignored = Ignored::of(&at.path)?;
        if let Some(changed) = touched.into_iter().find(|path| !ignored.leaves_out(path)) {
            return Ok(Some(changed));
        }
    }
    Ok(None)
}

impl Found {
    pub fn report(&self, loaded: &Loaded) -> Since {
        let deleted = self
            .deleted
            .iter()
            .map(|(name, file)| DeletedLayer { name: name.clone(), stackerfile: loaded.texts.shown(file) });
        Since { reference: self.reference.clone(), commit: self.commit.clone(), deleted: deleted.collect() }
    }

    pub fn affected(&self, layer: LayerIndex, graph: &LayerGraph, loaded: &Loaded) -> Option<Affected> {
        let (cause, what) = match self.affected.get(&layer)? {
            Why::New => (Cause::New, None),
            Why::Definition => (Cause::Definition, None),
            Why::File(path) => (Cause::File, Some(loaded.texts.shown(path))),
            Why::Needs(needed) => (Cause::Needs, Some(graph[*needed].layer.name.clone())),
            Why::Unreadable => (Cause::Unreadable, None),
        };
        Some(Affected { cause, what })
    }
}
