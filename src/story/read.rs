//! From the rows of a build to its story.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::database::{BuildId, BuiltLayer, BuiltStep, Database};
use crate::error::Result;
use crate::export::metadata::Status;
use crate::place::tidy;
use crate::reason::{Change, Reason};

use super::{Layer, Name, Step, Story};

/// How many builds are looked through for one that had a layer.
const LOOKED_THROUGH: usize = 100;

/// One build; `None`: there is none of this number.
pub fn read(database: &Database, id: BuildId) -> Result<Option<Story>> {
    let Some(build) = database.build(id)? else { return Ok(None) };
    let steps = database.build_steps(id)?;
    let same = build.same_as.is_some();
    let mut layers = Vec::new();
    for row in database.build_layers(build.same_as.unwrap_or(id))? {
        layers.push(layer(database, row, &steps, same)?);
    }
    if layers.is_empty() {
        layers = unfinished(&steps);
    }
    let places: HashMap<Name, usize> =
        layers.iter().enumerate().map(|(place, layer)| ((layer.scope.clone(), layer.name.clone()), place)).collect();
    let steps = steps.into_iter().map(|row| step(row, &places)).collect();
    Ok(Some(Story { id, build, layers, steps }))
}

/// The newest build that had one of these layers, each by the path of its stackerfile and its name.
pub fn last_with(database: &Database, layers: &HashSet<Name>) -> Result<Option<Story>> {
    for (id, build) in database.builds(LOOKED_THROUGH)? {
        let rows = database.build_layers(build.same_as.unwrap_or(id))?;
        if rows.into_iter().any(|row| layers.contains(&name(&row.scope, &row.layer))) {
            return read(database, id);
        }
    }
    Ok(None)
}

fn name(scope: &str, layer: &str) -> Name {
    (tidy(Path::new(scope)), layer.to_owned())
}

/// `same`: the row is that of the earlier build which this one was the same as, and so a hit.
fn layer(database: &Database, row: BuiltLayer, steps: &[BuiltStep], same: bool) -> Result<Layer> {
    let mut bytes = Some(0);
    for diff_id in row.diff_ids.iter().flatten() {
        let size = database.layer(diff_id)?.map(|layer| layer.bytes);
        bytes = bytes.zip(size).map(|(sum, size)| sum + size);
    }
    let first = steps.iter().find(|step| step.scope == row.scope && step.layer == row.layer && step.reason.is_some());
    let mut needs: Vec<_> = row.needs.iter().map(|needed| (needed.layer, needed.need)).collect();
    needs.sort();
    needs.dedup();
    Ok(Layer {
        status: if same { Status::Hit } else { status(&row.status) },
        seconds: if same { 0.0 } else { row.seconds },
        reason: first.and_then(|step| step.reason.as_deref()).map(reason),
        why: first.map(differences).unwrap_or_default(),
        name: row.layer,
        scope: tidy(Path::new(&row.scope)),
        needs,
        keys: row.keys,
        bytes,
    })
}

fn step(row: BuiltStep, places: &HashMap<Name, usize>) -> Step {
    Step {
        layer: places.get(&name(&row.scope, &row.layer)).copied(),
        name: row.layer,
        kind: row.step,
        key: row.key,
        reason: row.reason.as_deref().map(reason),
        begun: row.begun,
        seconds: row.seconds,
        slot: row.slot,
        outcome: row.outcome,
    }
}

/// The layers of a build that did not end, as far as their steps tell of them.
fn unfinished(steps: &[BuiltStep]) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for step in steps {
        let scope = tidy(Path::new(&step.scope));
        let place = layers.iter().position(|layer| layer.scope == scope && layer.name == step.layer);
        let place = place.unwrap_or_else(|| {
            layers.push(Layer {
                name: step.layer.clone(),
                scope,
                needs: Vec::new(),
                keys: Vec::new(),
                status: Status::Built,
                reason: step.reason.as_deref().map(reason),
                why: differences(step),
                seconds: 0.0,
                bytes: None,
            });
            layers.len() - 1
        });
        let layer = &mut layers[place];
        layer.seconds += step.seconds.unwrap_or_default();
        layer.keys.extend(step.key);
        match step.outcome.as_deref() {
            Some("built") => {}
            Some("failed") => layer.status = Status::Failed,
            _ => layer.status = Status::Skipped,
        }
    }
    layers
}

/// What another version wrote there counts as nothing that ended.
fn status(word: &str) -> Status {
    let all = [Status::Hit, Status::Built, Status::Failed, Status::Skipped];
    all.into_iter().find(|status| status.word() == word).unwrap_or(Status::Skipped)
}

/// A reason in a few words. One that only another version knows is shown as it stands.
fn reason(text: &str) -> String {
    serde_json::from_str::<Reason>(text).map_or_else(|_| text.to_owned(), |reason| reason.to_string())
}

/// All that is known of how a step differs from the one before.
fn differences(step: &BuiltStep) -> Vec<String> {
    let Some((Reason::Changed { changes, .. }, _)) = step.why() else { return Vec::new() };
    changes.iter().flat_map(difference).collect()
}

/// One line for each file where several differ.
fn difference(change: &Change) -> Vec<String> {
    match change {
        Change::Import { place, files: Some(files), .. } | Change::Bind { place, files: Some(files) }
            if files.first.len() > 1 =>
        {
            let mut lines: Vec<String> = files.first.iter().map(|file| format!("{place}: {file}")).collect();
            let more = files.count.saturating_sub(files.first.len());
            lines.extend((more > 0).then(|| format!("{place}: {more} more")));
            lines
        }
        change => vec![change.to_string()],
    }
}
