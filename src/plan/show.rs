//! A plan for people: a table of what would not be a hit, and how long it takes.

use std::io::IsTerminal;

use crate::inspect::table::{columns, plain};
use crate::progress::duration;

use super::report::{Affected, Cause, Forecast, Plan, PlannedLayer, Status};

/// Columns where nobody says how many there are.
const WIDTH: usize = 80;

/// The table and the lines beneath it. `hits`: those are listed too.
pub(super) fn table(plan: &Plan, hits: bool) -> String {
    let rows: Vec<Vec<String>> = plan
        .layers
        .iter()
        .filter(|layer| hits || layer.status != Status::Hit || layer.affected.is_some())
        .map(|layer| row(plan, layer))
        .collect();
    let mut text = match rows.is_empty() {
        true => String::new(),
        false => columns(Some(&["LAYER", "STATUS", "SECONDS", "WHY"]), rows, &[2]) + "\n",
    };
    if let Some(width) = width() {
        text = text.lines().map(|line| cut(line, width) + "\n").collect();
    }
    text + &totals(plan)
}

fn row(plan: &Plan, layer: &PlannedLayer) -> Vec<String> {
    let status = match layer.status {
        Status::Hit => "HIT",
        Status::Build => "BUILD",
        Status::If => "IF",
        Status::Unknown => "UNKNOWN",
        Status::Fail => "FAIL",
    };
    let seconds = match (layer.status, layer.seconds) {
        (Status::Build | Status::If, Some(seconds)) => format!("{seconds:.1}"),
        (Status::Hit, _) => String::new(),
        _ => "?".to_owned(),
    };
    let why = match layer.status {
        Status::If => condition(layer),
        Status::Hit => plan.since.as_ref().and(layer.affected.as_ref()).map(affected).unwrap_or_default(),
        _ => plain(layer.reason.as_deref().unwrap_or_default()),
    };
    vec![layer.name.clone(), status.to_owned(), seconds, why]
}

/// What must happen for a layer to be built.
fn condition(layer: &PlannedLayer) -> String {
    let gone = layer.steps.iter().filter(|step| step.status == Status::If).all(|step| step.data_is_gone);
    match (layer.on.as_slice(), gone) {
        ([], _) => "what it stands on has to be unpacked to know".to_owned(),
        (names, true) => format!("its data is gone: if {} needs it", listed(names)),
        (names, false) => format!("if {} comes out different", listed(names)),
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [one] => one.clone(),
        [one, other] => format!("{one} or {other}"),
        [one, rest @ ..] => format!("{one} or one of {} others", rest.len()),
        [] => String::new(),
    }
}

/// What changed of a layer that is a hit all the same.
fn affected(affected: &Affected) -> String {
    let what = affected.what.as_deref().unwrap_or_default();
    match affected.cause {
        Cause::New => "new".to_owned(),
        Cause::Definition => "its definition changed".to_owned(),
        Cause::File => format!("{what} changed"),
        Cause::Needs => format!("it needs {what}"),
        Cause::Unreadable => "the commit cannot be read".to_owned(),
    }
}

fn totals(plan: &Plan) -> String {
    let totals = &plan.totals;
    let mut parts = vec![format!("{} to build", totals.build)];
    let more = [(totals.r#if, "perhaps"), (totals.unknown, "unknown"), (totals.fail, "to fail")];
    parts.extend(more.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    parts.push(format!("{} {}", totals.hit, if totals.hit == 1 { "hit" } else { "hits" }));
    let mut text = parts.join(", ") + "\n";
    if let Some(since) = &plan.since {
        let changed = plan.layers.iter().filter(|layer| layer.affected.is_some()).count();
        let changed = format!("{changed} {} by changes since {}", layers(changed, "affected"), since.reference);
        let gone: Vec<&str> = since.deleted.iter().map(|layer| layer.name.as_str()).collect();
        text += &changed;
        text += &if gone.is_empty() { "\n".to_owned() } else { format!("; no longer there: {}\n", gone.join(", ")) };
    }
    if plan.least.steps > 0 {
        text += &format!("{}\n", forecast(&plan.least, plan.jobs));
    }
    if plan.most.steps > plan.least.steps {
        text += &format!("if all of it is built: {}\n", forecast(&plan.most, plan.jobs));
    }
    text
}

fn layers(count: usize, what: &str) -> String {
    format!("{} {what}", if count == 1 { "layer is" } else { "layers are" })
}

/// `about 12 s with 2 jobs (17 s of work); the longest path is 9 s: a -> b`.
fn forecast(forecast: &Forecast, jobs: usize) -> String {
    let Forecast { steps, steps_without_time: unknown, work, elapsed, critical_path, critical_seconds } = forecast;
    if steps == unknown {
        let steps = if *steps == 1 { "1 step that".to_owned() } else { format!("{steps} steps that") };
        return format!("{steps} never ran here: how long that takes is not known");
    }
    let jobs = if jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") };
    let about = if *unknown == 0 { "about" } else { "at least" };
    let beside = match unknown {
        0 => String::new(),
        1 => " and 1 step whose time is not known".to_owned(),
        unknown => format!(" and {unknown} steps whose time is not known"),
    };
    let path = match critical_path.as_slice() {
        [first, .., last] if critical_path.len() > 4 => {
            format!("{first} -> … {} more … -> {last}", critical_path.len() - 2)
        }
        path => path.join(" -> "),
    };
    format!(
        "{about} {} with {jobs} ({} of work{beside});\n  the longest path takes {}: {path}",
        duration(*elapsed),
        duration(*work),
        duration(*critical_seconds)
    )
}

/// Of the terminal; `None`: whoever reads it gets whole lines.
fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout).ok().map(|size| usize::from(size.ws_col));
    Some(size.filter(|width| *width > 0).unwrap_or(WIDTH))
}

/// A line that fits, with a mark where something was cut off.
fn cut(line: &str, width: usize) -> String {
    match line.chars().count() > width {
        true => line.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => line.to_owned(),
    }
}
