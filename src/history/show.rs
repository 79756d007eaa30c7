//! Builds as text for people.

use super::{Build, Step, WholeBuild};
use crate::inspect::table::{Facts, columns, plain};
use crate::progress::duration;
use crate::reason::Origin;

/// So many digits of a commit tell it from others.
const COMMIT: usize = 10;

/// One line for each build.
pub(super) fn list(builds: &[Build]) -> String {
    if builds.is_empty() {
        return "no build is known\n".to_owned();
    }
    let row = |build: &Build| {
        vec![
            build.id.to_string(),
            build.begun.clone(),
            build.seconds.map_or_else(|| "-".to_owned(), duration),
            ending(build),
            build.commit.as_deref().map_or("-", |commit| &commit[..commit.len().min(COMMIT)]).to_owned(),
            plain(&build.command.join(" ")),
        ]
    };
    let header = ["BUILD", "BEGUN", "TOOK", "OUTCOME", "COMMIT", "COMMAND"];
    columns(Some(&header), builds.iter().map(row), &[0, 2])
}

/// What became of a build.
fn ending(build: &Build) -> String {
    let totals = &build.totals;
    let count = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let counts = [
        count(totals.failed, "failed"),
        count(totals.built, "built"),
        count(totals.hits, if totals.hits == 1 { "hit" } else { "hits" }),
        count(totals.skipped, "skipped"),
    ];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    match (build.exit_code, build.same_as) {
        (None, _) => "did not end".to_owned(),
        (Some(_), Some(same)) => format!("{} (as {same})", counts.join(", ")),
        (Some(code), None) if code > 128 => format!("interrupted: {}", counts.join(", ")),
        (Some(_), None) => counts.join(", "),
    }
}

/// Everything about a build.
pub(super) fn whole(whole: &WholeBuild) -> String {
    let build = &whole.build;
    let mut facts = Facts::default();
    facts.add("build", [build.id.to_string()]);
    facts.add("begun", [build.begun.clone()]);
    facts.add("took", build.seconds.map(duration));
    facts.add("outcome", [ending(build)]);
    facts.add("exit code", build.exit_code.map(|code| code.to_string()));
    facts.add("command", [build.command.join(" ")]);
    facts.add("directory", [build.directory.clone()]);
    facts.add("commit", build.commit.clone());
    facts.add("jobs", [build.jobs.to_string()]);
    let mut text = facts.lines();
    if !whole.layers.is_empty() {
        let row = |layer: &super::Layer| {
            let why = whole.steps.iter().find(|step| step.layer == layer.name && step.reason.is_some());
            let took = if layer.seconds > 0.0 { duration(layer.seconds) } else { "-".to_owned() };
            let why = why.map_or_else(String::new, because);
            vec![plain(&layer.name), layer.status.clone(), took, plain(&why)]
        };
        text += "\n";
        text += &columns(Some(&["LAYER", "STATUS", "TOOK", "WHY"]), whole.layers.iter().map(row), &[2]);
    }
    if !whole.steps.is_empty() {
        let row = |step: &Step| {
            let took = step.seconds.map_or_else(|| "-".to_owned(), duration);
            let outcome = step.outcome.clone().unwrap_or_else(|| "did not end".to_owned());
            let key = step.key.map_or_else(|| "-".to_owned(), |key| key.first_digits());
            let begun = duration(step.begun);
            vec![plain(&step.layer), step.step.clone(), key, step.slot.to_string(), begun, took, outcome]
        };
        let header = ["LAYER", "STEP", "KEY", "JOB", "BEGUN AFTER", "TOOK", "OUTCOME"];
        text += "\n";
        text += &columns(Some(&header), whole.steps.iter().map(row), &[3, 4, 5]);
    }
    text
}

/// Why a step ran, in a few words.
pub(super) fn because(step: &Step) -> String {
    match (&step.reason, &step.differs) {
        (Some(reason), Some(differs)) => Origin::of(&step.layer, reason, Some(differs)).why,
        (Some(reason), None) => reason.to_string(),
        (None, _) => String::new(),
    }
}
