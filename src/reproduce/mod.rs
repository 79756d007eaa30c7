//! `stacker verify`: the steps of layers are done once more in a second place, and what comes out is compared with what
//! the cache has.
//!
//! Each step stands on what the one before came out as the first time, so that a difference is shown where it arises.
//! Nothing of the second build reaches the cache, and nothing of it stays.

mod compare;
mod content;
mod cure;
mod report;
mod second;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::build::{self, Look};
use crate::database::{Database, must_exist};
use crate::digest::Key;
use crate::error::{Error, Result};
use crate::execute::{DecidedLayer, Site};
use crate::graph::{LayerGraph, LayerIndex};
use crate::holder::{Holder, Tier};
use crate::inputs::{Inputs, Scope};
use crate::pins::Pins;
use crate::shell::heeding_signals;

use report::LayerVerdict;
pub use report::{Report, StepVerdict, Verdict};
use second::Second;

/// What `stacker verify` was asked for.
pub struct Request {
    /// Which stackerfiles, and how they are read.
    pub build: build::Request,
    /// These layers; all of the stackerfiles when none is named.
    pub layers: Vec<String>,
    /// The kind of sandbox that the user insists on.
    pub sandbox: Option<Tier>,
}

/// Builds again and compares. The calling process must have no other thread.
pub fn reproduce(request: &Request, mut holder: Holder) -> Result<Report> {
    let directories = &request.build.directories;
    must_exist(&directories.stacker)?;
    holder.expect(Database::open(&directories.stacker)?.0.store(&directories.roots)?);
    let ready = holder.prepare()?;
    let second = Second::new(directories);
    // Forked before there are threads.
    let again = Holder::start(&second.stacker, &second.roots, Some(ready.store))?.insist(request.sandbox);
    let mut real = None;
    let report = compared(request, holder, (&second, again), &mut real);
    match real {
        // Its holder lives as long as the site does.
        Some(real) => second.remove(&real.holder).and(report),
        None => report,
    }
}

/// `real`: the site of the real store, once there is one.
fn compared(
    request: &Request,
    holder: Holder,
    (second, again): (&Second, Holder),
    real: &mut Option<Arc<Site>>,
) -> Result<Report> {
    let (files, loaded) = build::read(&request.build.what, &request.build.load)?;
    let graph = LayerGraph::new(&loaded)?;
    let chosen = chosen(request, &graph, &files)?;
    let wanted = build::wanted(&graph, &chosen.iter().copied().collect::<Vec<_>>());
    let look = Look::new(&request.build, &graph, &loaded, &wanted, holder, request.build.progress)?;
    *real = Some(look.site.clone());
    let report = again_in(&look, second, again, &chosen);
    look.end();
    report
}

/// Layers that were named, or else those of the stackerfiles that were, not of their prerequisites.
fn chosen(request: &Request, graph: &LayerGraph, files: &[PathBuf]) -> Result<BTreeSet<LayerIndex>> {
    if request.layers.is_empty() {
        let ours = graph.iter().filter(|(_, node)| files.iter().any(|file| **file == *node.layer.place.path));
        return Ok(ours.map(|(layer, _)| layer).collect());
    }
    request.layers.iter().map(|name| graph.named(name)).collect()
}

fn again_in(look: &Look, second: &Second, again: Holder, chosen: &BTreeSet<LayerIndex>) -> Result<Report> {
    let built = look.execution().look_at_steps()?;
    let unbuilt: Vec<&str> =
        chosen.iter().filter(|layer| !built[layer].done).map(|layer| look.graph[*layer].layer.name.as_str()).collect();
    if !unbuilt.is_empty() {
        let names = unbuilt.join(", ");
        return Err(Error::Build(format!(
            "not built as it is now, so there is nothing to compare: {names}; build it first"
        )));
    }
    second.make()?;
    let site = Arc::new(second_site(look, second, again)?);
    let mut verdicts: BTreeMap<Key, StepVerdict> = BTreeMap::new();
    let done = heeding_signals(&site, || {
        look.forced(chosen).again(|again| {
            let verdict = step::again(look, second, &site, again)?;
            verdicts.insert(again.run.key, verdict);
            Ok(())
        })
    });
    // Its workers end before what they work on is removed.
    site.holder.end();
    report(look, chosen, &done?, &verdicts)
}

/// Everything as in the real place, but where things lie.
fn second_site(look: &Look, second: &Second, again: Holder) -> Result<Site> {
    let inputs = Inputs {
        layers: Vec::new(),
        bases: Default::default(),
        trees: look.site.trees.clone(),
        bounds: look.site.bounds.clone(),
    };
    let scope = build::scope(look.request, &look.graph, look.site.owners.clone())?;
    let scope = Scope { stacker: second.stacker.clone(), ..scope };
    let directories = crate::cli::options::Directories {
        stacker: second.stacker.clone(),
        roots: second.roots.clone(),
        ..look.request.directories.clone()
    };
    let pins = Pins::start(&second.stacker)?;
    let mut site = Site::new(&directories, again, pins, inputs, scope, look.teller.sender());
    site.keeps_failures = false;
    site.ready()?;
    Ok(site)
}

fn report(
    look: &Look,
    chosen: &BTreeSet<LayerIndex>,
    done: &BTreeMap<LayerIndex, DecidedLayer>,
    verdicts: &BTreeMap<Key, StepVerdict>,
) -> Result<Report> {
    let mut report = Report::default();
    for layer in chosen {
        let node = &look.graph[*layer].layer;
        if !done[layer].done {
            let name = &node.name;
            return Err(Error::Build(format!("what layer {name} stands on is no longer in the cache: build it first")));
        }
        let keys = done[layer].decided.iter().map(|step| step.key);
        // One that is another layer's too was done for that one, if that was chosen.
        let steps: Vec<StepVerdict> = keys.filter_map(|key| verdicts.get(&key).cloned()).collect();
        let worst = |verdict| steps.iter().any(|step| step.verdict == verdict);
        let verdict = match () {
            () if worst(Verdict::Failed) => Verdict::Failed,
            () if worst(Verdict::Different) => Verdict::Different,
            () => Verdict::Reproducible,
        };
        let stackerfile = node.place.path.display().to_string();
        report.layers.push(LayerVerdict { layer: node.name.clone(), stackerfile, verdict, steps });
    }
    Ok(report)
}
