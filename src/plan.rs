//! `stacker plan`: what a build would do now, and for how long. Nothing is built and no server is asked.
//!
//! The layers are decided by the code that decides builds ([`Execution::foresee`]); here that is put into words and
//! numbers, and cut down to what changed since a commit.
//!
//! [`Execution::foresee`]: crate::execute::Execution::foresee

mod parts;
mod report;
mod schedule;
mod show;
mod since;

use std::collections::{BTreeMap, BTreeSet};

use crate::build::{self, Ahead};
use crate::error::Result;
use crate::execute::Foresight;
use crate::graph::{LayerGraph, LayerIndex};
use crate::holder::Holder;
use crate::load::Loaded;
use crate::progress::Mode;

pub use report::{
    Affected, Cause, DeletedLayer, Forecast, Matrix, MatrixEntry, Plan, PlannedLayer, PlannedStep, PlannedTotals,
    Since, Status,
};

/// What `stacker plan` was asked for.
pub struct Request {
    /// The build that is planned.
    pub build: build::Request,
    /// Only what changed since this commit.
    pub since: Option<String>,
    /// JSON instead of a table.
    pub json: bool,
    /// Hits are listed too.
    pub hits: bool,
}

/// What goes to stdout, and the exit code: 1 where a layer would fail.
pub fn plan(request: &Request, holder: Holder) -> Result<(String, i32)> {
    let plan = made(request, holder)?;
    let code = i32::from(plan.layers.iter().any(|layer| layer.status == Status::Fail));
    Ok((if request.json { plan.json() } else { show::table(&plan, request.hits) }, code))
}

fn made(request: &Request, holder: Holder) -> Result<Plan> {
    let build = &request.build;
    let (files, loaded) = build::read(&build.what, &build.load)?;
    let graph = LayerGraph::new(&loaded)?;
    let asked = build::wanted(&graph, &build::named(&graph, &build.what)?);
    let mut warnings: Vec<String> = loaded.warnings.iter().chain(graph.warnings()).cloned().collect();
    let (since, asked) = match &request.since {
        None => (None, asked),
        Some(name) => {
            let (since, told) = since::find(name, build, &files, &graph)?;
            warnings.extend(told);
            let affected: Vec<LayerIndex> = since.affected.keys().filter(|it| asked.contains(it)).copied().collect();
            (Some(since), build::wanted(&graph, &affected))
        }
    };
    let (foresight, unknown) = foresee(build, &graph, &loaded, &asked, warnings, holder)?;
    let parts =
        parts::Parts { graph: &graph, loaded: &loaded, asked: &asked, unknown: &unknown, since: since.as_ref() };
    Ok(parts.plan(&foresight, build.jobs))
}

/// What becomes of the layers, and those that follow from what was never asked for.
fn foresee(
    build: &build::Request,
    graph: &LayerGraph,
    loaded: &Loaded,
    asked: &BTreeSet<LayerIndex>,
    warnings: Vec<String>,
    holder: Holder,
) -> Result<(Foresight, BTreeMap<LayerIndex, String>)> {
    let ahead = Ahead::new(build, graph, loaded, holder, warnings)?;
    let unknown = with_dependents(graph, asked, ahead.unknown(asked)?);
    let known: BTreeSet<LayerIndex> = asked.iter().filter(|layer| !unknown.contains_key(layer)).copied().collect();
    let emitted = known.iter().filter(|layer| !graph[**layer].layer.build_only).copied().collect();
    let look = ahead.look(&known, Some(Mode::None))?;
    let foresight = look.emitting(emitted).foresee();
    look.end();
    Ok((foresight?, unknown))
}

/// Whatever needs an unknown layer is unknown too. What a layer needs has a smaller index.
fn with_dependents(
    graph: &LayerGraph,
    asked: &BTreeSet<LayerIndex>,
    mut unknown: BTreeMap<LayerIndex, String>,
) -> BTreeMap<LayerIndex, String> {
    for &layer in asked {
        if let Some(needed) = graph.needs(layer).into_iter().find(|needed| unknown.contains_key(needed)) {
            let why = format!("it needs {}", graph[needed].layer.name);
            unknown.entry(layer).or_insert(why);
        }
    }
    unknown
}
