//! What the binds of a build's layers show.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::{Bounds, Scope};
use crate::action::{self, Shows};
use crate::database::Database;
use crate::diag::{Diagnostic, Diagnostics};
use crate::error::{Error, Result};
use crate::graph::{LayerGraph, LayerIndex, Node};
use crate::load::Bind;
use crate::resolve::{Resolver, list_path};

/// Looks at every source once, in parallel, with the stat lists that the database holds. What is no input need only be
/// there.
pub(super) fn look(
    graph: &LayerGraph,
    wanted: &BTreeSet<LayerIndex>,
    scope: &Scope,
    database: &Database,
    diagnostics: &mut Diagnostics,
) -> Result<Bounds> {
    let mut sources: BTreeMap<&Path, &Bind> = BTreeMap::new();
    // Without a script nobody sees them.
    let layers = wanted.iter().map(|&index| &graph[index].layer).filter(|layer| layer.run.is_some());
    for bind in layers.flat_map(|layer| &layer.binds) {
        match allowed(bind, &scope.exclude) {
            Err(message) => diagnostics.push(Diagnostic::error(message).at(bind.place.clone(), "")),
            Ok(()) if bind.keyed => drop(sources.entry(&bind.source).or_insert(bind)),
            Ok(()) => {}
        }
    }
    let resolver = Resolver::new(scope.exclude.clone());
    let mut known = Vec::new();
    for (source, bind) in sources {
        let device = std::fs::symlink_metadata(source).map_or(0, |found| found.dev());
        known.push((source, bind, database.stat_list(&list_path(source), device)?));
    }
    let looks: Vec<_> = known
        .into_par_iter()
        .map(|(source, bind, list)| (source, bind, resolver.bound(source, &scope.owners, list.as_deref())))
        .collect();
    let (mut bounds, mut lists) = (HashMap::new(), Vec::new());
    for (source, bind, look) in looks {
        match look {
            Ok(look) => {
                lists.extend(look.stat_list.map(|list| (list_path(source), look.device, list)));
                look.bound.keep_listing(&scope.stacker)?;
                bounds.insert(source.to_path_buf(), Arc::new(look.bound));
            }
            Err(Error::Build(message)) => diagnostics.push(Diagnostic::error(message).at(bind.place.clone(), "")),
            Err(error) => return Err(error),
        }
    }
    database.put_stat_lists(&lists)?;
    Ok(bounds)
}

/// Whether there is something, and nothing of stacker's own.
fn allowed(bind: &Bind, exclude: &[PathBuf]) -> Result<(), String> {
    let source = bind.source.display();
    let real = bind.source.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("the bind's source {source} does not exist"),
        _ => format!("cannot look at the bind's source {source}: {error}"),
    })?;
    let own = |own: &&PathBuf| real.starts_with(own) || own.canonicalize().is_ok_and(|own| real.starts_with(own));
    match exclude.iter().find(own) {
        Some(own) => Err(format!("the bind's source {source} is in stacker's own directory {}", own.display())),
        None => Ok(()),
    }
}

/// The binds of a layer as they are in its key.
pub(super) fn of(node: &Node, bounds: &Bounds) -> Vec<action::Bind> {
    let shows = |bind: &Bind| match bounds.get(&bind.source).filter(|_| bind.keyed) {
        Some(bound) => bound.shows(&bind.written),
        None => Shows::Anything,
    };
    node.layer.binds.iter().map(|bind| action::Bind { place: bind.dest.clone(), shows: shows(bind) }).collect()
}
