//! The builds that were, as they are in the database: `stacker history`, `why` and `log`.
//!
//! Nothing here reads stackerfiles: a layer is known by its name and by the builds that it was in.

pub mod log;
mod show;
pub mod why;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::database::{BuildId, BuildRow, BuiltLayer, BuiltStep, Database};
use crate::diag::nearest;
use crate::digest::Key;
use crate::error::{Error, Result};
use crate::export::metadata::Totals;
use crate::reason::{Differs, Reason};
use crate::text;

pub use why::Explanation;

/// More builds than are kept.
const ALL: usize = 100_000;

/// One build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker history: a build")]
pub struct Build {
    /// Its number.
    pub id: BuildId,
    /// When it began: RFC 3339, in UTC.
    pub begun: String,
    /// How long it took; null: it runs, or was killed.
    pub seconds: Option<f64>,
    /// The command line.
    pub command: Vec<String>,
    /// Where it was called.
    pub directory: String,
    /// The commit that was checked out there.
    pub commit: Option<String>,
    /// Steps at a time.
    pub jobs: usize,
    /// Its exit code; null: it runs, or was killed.
    pub exit_code: Option<i32>,
    /// The build with the very same layers, if this one did nothing.
    pub same_as: Option<BuildId>,
    /// Its layers by how they ended.
    pub totals: Totals,
}

/// What `stacker history --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker history")]
pub struct Builds {
    /// The newest first.
    pub builds: Vec<Build>,
}

/// What `stacker history show --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker history show")]
pub struct WholeBuild {
    /// The build.
    pub build: Build,
    /// Its layers, in the order of a serial build.
    pub layers: Vec<Layer>,
    /// What ran, in the order in which it began.
    pub steps: Vec<Step>,
}

/// One layer of a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Path of its stackerfile.
    pub stackerfile: String,
    /// `hit`, `built`, `failed`, `skipped`.
    pub status: String,
    /// Names of the layers that it takes something from.
    pub needs: Vec<String>,
    /// The keys of its steps, as far as they were decided.
    #[schemars(with = "Vec<String>")]
    pub keys: Vec<Key>,
    /// Seconds of work in that build.
    pub seconds: f64,
}

/// One step that ran in a build, or the compression of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The layer's name.
    pub layer: String,
    /// `unpack`, `import`, `run`, `labels`, `compress`.
    pub step: String,
    /// Its key; null: a compression.
    #[schemars(with = "Option<String>")]
    pub key: Option<Key>,
    /// Why it ran; null: a compression.
    pub reason: Option<Reason>,
    /// The same in a few words.
    pub why: Option<String>,
    /// How it came out different from the last time that the same action ran, if it did.
    pub differs: Option<Differs>,
    /// Seconds after the build began.
    pub begun: f64,
    /// How long it took; null: it did not end.
    pub seconds: Option<f64>,
    /// Which of the build's jobs it had, from 0.
    pub slot: usize,
    /// `built`, `failed`, or why there is neither.
    pub outcome: Option<String>,
}

impl Build {
    fn of(id: BuildId, row: BuildRow) -> Build {
        let begun = jiff::Timestamp::from_millisecond(row.begun).unwrap_or_default();
        Build {
            id,
            begun: begun.round(jiff::Unit::Second).unwrap_or(begun).to_string(),
            seconds: row.seconds,
            command: row.command,
            directory: row.directory.to_string_lossy().into_owned(),
            commit: row.commit,
            jobs: row.jobs,
            exit_code: row.outcome,
            same_as: row.same_as,
            totals: row.totals,
        }
    }
}

impl From<BuiltStep> for Step {
    fn from(step: BuiltStep) -> Step {
        let (reason, differs) = step.why().map_or((None, None), |(reason, differs)| (Some(reason), differs));
        let BuiltStep { layer, step, key, begun, seconds, slot, outcome, .. } = step;
        let why = reason.as_ref().map(Reason::to_string);
        Step { layer, step, key, reason, why, differs, begun, seconds, slot, outcome }
    }
}

/// `stacker history`: the newest builds, at most so many.
pub fn list(database: &Database, count: usize, json: bool) -> Result<String> {
    let builds: Vec<Build> = database.builds(count)?.into_iter().map(|(id, row)| Build::of(id, row)).collect();
    Ok(if json { text::json(&Builds { builds }) } else { show::list(&builds) })
}

/// `stacker history show`.
pub fn show(database: &Database, id: BuildId, json: bool) -> Result<String> {
    let Some(row) = database.build(id)? else { return Err(no_build(database, id)?) };
    let rows = database.build_layers(row.same_as.unwrap_or(id))?;
    let did_nothing = row.same_as.is_some();
    let layer = |built: &BuiltLayer| Layer {
        name: built.layer.clone(),
        stackerfile: built.scope.clone(),
        status: if did_nothing { "hit".to_owned() } else { built.status.clone() },
        needs: names(&rows, built),
        keys: built.keys.clone(),
        seconds: if did_nothing { 0.0 } else { built.seconds },
    };
    let layers = rows.iter().map(layer).collect();
    let steps = database.build_steps(id)?.into_iter().map(Step::from).collect();
    let whole = WholeBuild { build: Build::of(id, row), layers, steps };
    Ok(if json { text::json(&whole) } else { show::whole(&whole) })
}

/// The layers that one takes something from, each once.
fn names(rows: &[BuiltLayer], built: &BuiltLayer) -> Vec<String> {
    let mut names: Vec<String> =
        built.needs.iter().filter_map(|need| rows.get(need.layer)).map(|row| row.layer.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn no_build(database: &Database, id: BuildId) -> Result<Error> {
    let (newest, oldest) = (database.builds(1)?, database.builds(ALL)?.pop());
    Ok(Error::Usage(match (newest.first(), oldest) {
        (Some((newest, _)), Some((oldest, _))) => {
            format!("there is no build {id}: builds {oldest} to {newest} are known, see stacker history")
        }
        _ => format!("there is no build {id}: no build is known"),
    }))
}

/// The layer that is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its name, or the first digits of a key.
    pub name: String,
    /// It is in this stackerfile, or in one that was built with it.
    pub file: Option<PathBuf>,
    /// Its stackerfile is below this directory.
    pub below: Option<PathBuf>,
    /// As it was in this build.
    pub build: Option<BuildId>,
    /// Where it is asked.
    pub working: PathBuf,
}

/// A layer in the builds that it was in, the newest first.
struct Found {
    /// With the build whose rows they are, which is another one where nothing was done.
    builds: Vec<(BuildId, BuildId, BuiltLayer)>,
}

/// Finds the builds of a layer; an error where there are none.
fn find(database: &Database, asked: &Asked) -> Result<Found> {
    let rows = database.layer_builds(&asked.name, None, ALL)?;
    if rows.is_empty() {
        return Err(unknown(database, asked)?);
    }
    let all = database.builds(ALL)?;
    if let Some(id) = asked.build
        && !all.iter().any(|(known, _)| *known == id)
    {
        return Err(no_build(database, id)?);
    }
    let mut builds = Vec::new();
    for (id, row) in all.iter().filter(|(id, _)| asked.build.is_none_or(|build| *id <= build)) {
        let whose = row.same_as.unwrap_or(*id);
        let of_it = rows.iter().filter(|(build, _)| *build == whose);
        builds.extend(of_it.map(|(_, built)| (*id, whose, built.clone())));
    }
    if let Some(id) = asked.build {
        builds.retain(|(build, ..)| *build <= id);
        if builds.first().is_none_or(|(newest, ..)| *newest != id) {
            return Err(Error::Usage(format!(
                "there was no layer {} in build {id}; see stacker history show {id}",
                asked.name
            )));
        }
    }
    let Some(scope) = scope(database, asked, &builds)? else { return Err(elsewhere(asked, &builds)) };
    builds.retain(|(.., built)| built.scope == scope);
    Ok(Found { builds })
}

/// The stackerfile that is meant: what is named, else the nearest to where it is asked, else that of the newest build.
fn scope(database: &Database, asked: &Asked, builds: &[(BuildId, BuildId, BuiltLayer)]) -> Result<Option<String>> {
    let scopes = || builds.iter().map(|(.., built)| &built.scope);
    if let Some(file) = &asked.file {
        if let Some(scope) = scopes().find(|scope| Path::new(scope) == file) {
            return Ok(Some(scope.clone()));
        }
        // It may be in a prerequisite.
        for (_, whose, built) in builds.iter().take(10) {
            if database.build_layers(*whose)?.iter().any(|other| Path::new(&other.scope) == file) {
                return Ok(Some(built.scope.clone()));
            }
        }
        return Ok(None);
    }
    if let Some(directory) = &asked.below {
        return Ok(scopes().find(|scope| Path::new(scope).starts_with(directory)).cloned());
    }
    let here = asked.working.join("stacker.yaml");
    let near = scopes().find(|scope| Path::new(scope) == here);
    let near = near.or_else(|| scopes().find(|scope| Path::new(scope).starts_with(&asked.working)));
    Ok(near.or_else(|| scopes().next()).cloned())
}

fn unknown(database: &Database, asked: &Asked) -> Result<Error> {
    let names = database.layer_names()?;
    let proposal = nearest(&asked.name, names.iter().map(String::as_str));
    let proposal =
        proposal.map_or_else(|| "; see stacker history".to_owned(), |name| format!("; did you mean `{name}`?"));
    Ok(Error::Usage(format!("no build is known with a layer `{}`{proposal}", asked.name)))
}

fn elsewhere(asked: &Asked, builds: &[(BuildId, BuildId, BuiltLayer)]) -> Error {
    let known: std::collections::BTreeSet<&str> = builds.iter().map(|(.., built)| built.scope.as_str()).collect();
    let known: Vec<&str> = known.into_iter().collect();
    Error::Usage(format!("a layer {} is known only of {}", asked.name, known.join(", ")))
}
