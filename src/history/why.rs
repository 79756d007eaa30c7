//! `stacker why`: why a layer was built the last time, with whose change it began, and what else followed from that.

mod show;

use std::collections::{BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ALL, Asked, Build, Found, Step, find};
use crate::action::Action;
use crate::database::{BuildId, BuiltLayer, BuiltStep, Database, Needed};
use crate::digest::{ChainId, Key, TreeDigest};
use crate::error::{Error, Result};
use crate::execute::changed_files;
use crate::graph::Need;
use crate::place::StackerDir;
use crate::reason::{Change, Files, Images, Known, Origin, Reason, Taken, compare, nearest};
use crate::text;

/// Of so many actions the one is looked for that is most like one which has no earlier one of its layer.
const SEARCHED: usize = 2000;

/// What `stacker why --json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker why")]
pub struct Explanation {
    /// The layer's name; null: an action that no build is known of.
    pub layer: Option<String>,
    /// Path of its stackerfile.
    pub stackerfile: Option<String>,
    /// The build that was looked at: the newest with this layer, or the one that was asked for.
    pub build: Option<BuildId>,
    /// What the layer was there: `hit`, `built`, `failed`, `skipped`.
    pub status: Option<String>,
    /// The answer in one line.
    pub why: String,
    /// The build that built what the layer is there. Null: none that is known.
    pub built: Option<Build>,
    /// In so many builds since then the layer was a hit.
    pub hits: usize,
    /// What ran then for the layer, in order.
    pub steps: Vec<Step>,
    /// With what it all began, if that was another layer.
    pub root: Option<Root>,
    /// Other layers that ran in that build for the same reason.
    pub followed: Vec<String>,
    /// A comparison with another action: that of --against; else, where there is no earlier action of the layer, with
    /// the one that is most like it.
    pub compared: Option<Compared>,
}

/// The layer that a change began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Root {
    /// Its name.
    pub layer: String,
    /// The build that built it.
    pub build: BuildId,
    /// The first of its steps that ran there.
    pub step: Step,
}

/// Two actions and how they differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Compared {
    /// The one.
    #[schemars(with = "String")]
    pub key: Key,
    /// The other.
    #[schemars(with = "String")]
    pub against: Key,
    /// Layers that had the latter.
    pub layers: Vec<String>,
    /// The differences from the other to the one, root causes first.
    pub changes: Vec<Change>,
}

/// Answers; what goes to stdout.
pub fn why(
    database: &Database,
    stacker: &StackerDir,
    asked: &Asked,
    against: Option<&str>,
    json: bool,
) -> Result<String> {
    let is_layer = !database.layer_builds(&asked.name, None, 1)?.is_empty();
    let keys = if is_layer { vec![] } else { database.keys_like(&asked.name)? };
    let explanation = match keys.as_slice() {
        [] => of_layer(database, asked)?,
        [key] => of_key(database, *key)?,
        _ => return Err(Error::Usage(format!("{} keys begin with {}: say more digits", keys.len(), asked.name))),
    };
    let explanation = compare_too(database, stacker, explanation, against)?;
    Ok(if json { text::json(&explanation) } else { show::text(&explanation) })
}

/// A layer as it was in the newest build, or the one that is asked for.
fn of_layer(database: &Database, asked: &Asked) -> Result<Explanation> {
    let Found { builds } = find(database, asked)?;
    let Some((id, whose, now)) = builds.first().cloned() else {
        return Err(Error::Usage(format!("no build is known with a layer {}", asked.name)));
    };
    let status = if id == whose { now.status.clone() } else { "hit".to_owned() };
    // The build that made what is there: of a layer that came from an old state again, not the last one that built it.
    let made = |built: &BuiltLayer| matches!(built.status.as_str(), "built" | "failed") && built.keys == now.keys;
    let ran = match status.as_str() {
        "skipped" => None,
        _ => builds.iter().position(|(id, whose, built)| id == whose && made(built)),
    };
    let explanation = Explanation {
        layer: Some(now.layer.clone()),
        stackerfile: Some(now.scope.clone()),
        build: Some(id),
        status: Some(status),
        ..Explanation::default()
    };
    let Some(ran) = ran else { return unbuilt(database, explanation, now, whose) };
    let hits = builds[..ran].iter().filter(|(id, whose, built)| id != whose || built.status == "hit").count();
    told(database, Explanation { hits, ..explanation }, (builds[ran].1, &builds[ran].2), None)
}

/// A layer that no build which is known built: a hit from elsewhere, or not tried.
fn unbuilt(database: &Database, mut explanation: Explanation, now: BuiltLayer, build: BuildId) -> Result<Explanation> {
    let rows = database.build_layers(build)?.into_iter();
    let failed: Vec<String> = rows.filter(|row| row.status == "failed").map(|row| row.layer).collect();
    explanation.why = match explanation.status.as_deref() {
        Some("skipped") if failed.is_empty() => "not tried: the build ended before".to_owned(),
        Some("skipped") => format!("not tried: {} failed", failed.join(", ")),
        _ if now.keys.is_empty() => "has nothing to run: it is what it builds on, with settings of its own".to_owned(),
        _ => "a hit in every build that is known: its result is older, or from elsewhere".to_owned(),
    };
    Ok(explanation)
}

/// The last time that an action ran, or what is known of it.
fn of_key(database: &Database, key: Key) -> Result<Explanation> {
    let Some((build, step)) = database.step_of_key(&key)? else {
        let why = "an action that no build is known of".to_owned();
        let steps = vec![Step::from(BuiltStep { key: Some(key), ..BuiltStep::default() })];
        return Ok(Explanation { why, steps, ..Explanation::default() });
    };
    let rows = database.build_layers(build)?;
    let row = rows.into_iter().find(|row| row.layer == step.layer && row.scope == step.scope);
    let row = row.unwrap_or_else(|| BuiltLayer {
        layer: step.layer.clone(),
        scope: step.scope.clone(),
        ..Default::default()
    });
    let explanation = Explanation {
        layer: Some(step.layer.clone()),
        stackerfile: Some(step.scope.clone()),
        build: Some(build),
        status: step.outcome.clone(),
        ..Explanation::default()
    };
    told(database, explanation, (build, &row), Some(key))
}

/// Why a layer's steps ran in a build, or the one with a key, and what that began with.
fn told(
    database: &Database,
    mut explanation: Explanation,
    (build, built): (BuildId, &BuiltLayer),
    key: Option<Key>,
) -> Result<Explanation> {
    let all: Vec<BuiltStep> = database.build_steps(build)?.into_iter().filter(|step| step.reason.is_some()).collect();
    let of_it = |step: &&BuiltStep| {
        step.layer == built.layer && step.scope == built.scope && key.is_none_or(|key| step.key == Some(key))
    };
    explanation.steps = all.iter().filter(of_it).cloned().map(Step::from).collect();
    explanation.built = database.build(build)?.map(|row| Build::of(build, row));
    let Some(first) = all.iter().find(of_it) else {
        explanation.why = "it ran, and nothing more is known".to_owned();
        return Ok(explanation);
    };
    let origin = Origin::of_step(first);
    let elsewhere = origin.layer != built.layer;
    explanation.why = if elsewhere { origin.to_string() } else { origin.why.clone() };
    if elsewhere {
        explanation.root = root(database, &origin, (build, &all))?;
    }
    explanation.followed = followed(&all, &origin.layer, &built.layer);
    Ok(explanation)
}

/// The step that a change began with: in the same build, else in the last one before it that built the layer.
fn root(database: &Database, origin: &Origin, (build, steps): (BuildId, &[BuiltStep])) -> Result<Option<Root>> {
    let layer = origin.layer.clone();
    if let Some(step) = steps.iter().find(|step| step.layer == layer) {
        return Ok(Some(Root { layer, build, step: step.clone().into() }));
    }
    let mut before = database.layer_builds(&layer, None, ALL)?.into_iter();
    let Some((build, _)) = before.find(|(id, row)| *id <= build && row.status == "built") else {
        return Ok(None);
    };
    let step = database.build_steps(build)?.into_iter().find(|step| step.layer == layer && step.reason.is_some());
    Ok(step.map(|step| Root { layer, build, step: step.into() }))
}

/// The other layers of a build whose first step ran because of the same one.
fn followed(steps: &[BuiltStep], root: &str, asked: &str) -> Vec<String> {
    let mut first: HashMap<&str, &BuiltStep> = HashMap::new();
    for step in steps {
        first.entry(step.layer.as_str()).or_insert(step);
    }
    let follows = |step: &&BuiltStep| step.layer != root && step.layer != asked && Origin::of_step(step).layer == root;
    let names: BTreeSet<String> = first.into_values().filter(follows).map(|step| step.layer.clone()).collect();
    names.into_iter().collect()
}

/// With `--against`, or where the layer never was anything else.
fn compare_too(
    database: &Database,
    stacker: &StackerDir,
    mut explanation: Explanation,
    against: Option<&str>,
) -> Result<Explanation> {
    let Some(action) = action_of(database, &explanation, against)? else { return Ok(explanation) };
    let needs = needs(database, &explanation)?;
    let known = Past { database, stacker, needs };
    let other = match against {
        Some(digits) => Some(named(database, digits)?),
        None if explanation.is_alone() => like(database, &action, &known)?,
        None => None,
    };
    let Some(other) = other else { return Ok(explanation) };
    let (key, against_key) = (action.key(), other.key());
    let compared = Compared {
        key,
        against: against_key,
        layers: database.layers_of_key(&against_key)?,
        changes: compare(&other, &action, &known),
    };
    if against.is_some() {
        explanation.why = match compared.changes.is_empty() {
            true => "the two are the same".to_owned(),
            false => Reason::Changed { earlier: against_key, changes: compared.changes.clone() }.to_string(),
        };
    }
    explanation.compared = Some(compared);
    Ok(explanation)
}

/// The action that is compared: of the kind of the other one, where there are several.
fn action_of(database: &Database, explanation: &Explanation, against: Option<&str>) -> Result<Option<Action>> {
    let kind = against.map(|digits| named(database, digits)).transpose()?.map(|action| action.kind.name());
    let mut keys: Vec<Key> = explanation.steps.iter().filter_map(|step| step.key).collect();
    if let (Some(layer), Some(build)) = (&explanation.layer, explanation.build) {
        let whose = database.build(build)?.and_then(|row| row.same_as).unwrap_or(build);
        let rows = database.build_layers(whose)?;
        keys.extend(rows.into_iter().filter(|row| row.layer == *layer).flat_map(|row| row.keys));
    }
    let mut actions = Vec::new();
    for key in keys {
        actions.extend(database.action(&key)?);
    }
    let found = actions.iter().find(|action| kind.is_none_or(|kind| action.kind.name() == kind));
    match (found, kind) {
        (None, Some(kind)) => {
            Err(Error::Usage(format!("--against is a key of kind {kind}, which the layer does not have")))
        }
        (found, _) => Ok(found.cloned()),
    }
}

fn named(database: &Database, digits: &str) -> Result<Action> {
    match database.keys_like(digits)?.as_slice() {
        [key] => match database.action(key)? {
            Some(action) => Ok(action),
            None => Err(Error::Usage(format!("the action of {key} is of another version of stacker"))),
        },
        [] => Err(Error::Usage(format!("no key begins with {digits}; see stacker cache ls"))),
        keys => Err(Error::Usage(format!("{} keys begin with {digits}: say more digits", keys.len()))),
    }
}

/// The action that is most like another one: with the same script or the same imports.
fn like(database: &Database, action: &Action, known: &Past) -> Result<Option<Action>> {
    let alike = |other: &Action| other.key() != action.key() && action.shares_with(other);
    let others = database.last_begun(action.kind.name(), SEARCHED)?;
    Ok(nearest(action, others.into_iter().filter(alike).collect(), known))
}

/// What the layer takes from others, with their names and stackerfiles.
fn needs(database: &Database, explanation: &Explanation) -> Result<Vec<(Needed, String, String)>> {
    let (Some(layer), Some(build)) = (&explanation.layer, explanation.build) else { return Ok(vec![]) };
    let whose = database.build(build)?.and_then(|row| row.same_as).unwrap_or(build);
    let rows = database.build_layers(whose)?;
    let Some(row) = rows.iter().find(|row| row.layer == *layer) else { return Ok(vec![]) };
    let named = |need: &Needed| {
        let other = rows.get(need.layer)?;
        Some((need.clone(), other.layer.clone(), other.scope.clone()))
    };
    Ok(row.needs.iter().filter_map(named).collect())
}

/// What the database knows beside two actions.
struct Past<'a> {
    database: &'a Database,
    stacker: &'a StackerDir,
    needs: Vec<(Needed, String, String)>,
}

impl Known for Past<'_> {
    fn files(&self, old: TreeDigest, new: TreeDigest) -> Option<Files> {
        changed_files(self.stacker, old, new)
    }

    fn origin(&self, taken: Taken) -> Option<Origin> {
        let is_it = |need: &Needed| match taken {
            Taken::Base(..) => need.need == Need::Base,
            Taken::Tar => need.need == Need::Tar,
            Taken::Import(place) => need.need == Need::Import && need.places.iter().any(|seen| seen == place),
        };
        let (_, layer, scope) = self.needs.iter().find(|(need, ..)| is_it(need))?;
        self.database.last_reason(layer, scope).ok()?.map(|step| Origin::of_step(&step))
    }

    fn images(&self, _: ChainId, _: ChainId) -> Option<Images> {
        None
    }
}

impl Explanation {
    /// No earlier action of the layer is known.
    fn is_alone(&self) -> bool {
        let first = self.steps.first();
        first.is_some_and(|step| matches!(step.reason, None | Some(Reason::NeverBuilt)))
    }
}
