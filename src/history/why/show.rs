//! Explanations as text for people.

use super::super::Step;
use super::super::show::because;
use super::{Compared, Explanation};
use crate::digest::Key;
use crate::inspect::table::plain;
use crate::reason::{Change, Differs, FileChange, Files, Reason};

/// The answer, then the details that stand behind it.
pub(super) fn text(explanation: &Explanation) -> String {
    let name = explanation.layer.as_deref().unwrap_or("key");
    let mut lines = vec![format!("{name}: {}", explanation.why)];
    lines.extend(when(explanation));
    for step in explanation.steps.iter().filter(|step| !step.step.is_empty()) {
        lines.push(format!("  {} {}: {}", step.step, key(step.key), because(step)));
        lines.extend(details(step));
    }
    if let Some(root) = &explanation.root {
        let step = &root.step;
        lines.push(format!("it began with {}, in build {}", root.layer, root.build));
        lines.push(format!("  {} {}: {}", step.step, key(step.key), because(step)));
        lines.extend(details(step));
    }
    lines.extend(compared(explanation.compared.as_ref()));
    match explanation.followed.as_slice() {
        [] => {}
        [one] => lines.push(format!("1 other layer follows from this: {one}")),
        several => lines.push(format!("{} other layers follow from this: {}", several.len(), several.join(", "))),
    }
    finish(&lines)
}

fn finish(lines: &[String]) -> String {
    lines.iter().map(|line| plain(line) + "\n").collect()
}

/// Which build, and what came after it.
fn when(explanation: &Explanation) -> Option<String> {
    let built = explanation.built.as_ref()?;
    let commit = built
        .commit
        .as_ref()
        .map_or_else(String::new, |commit| format!(", at commit {}", &commit[..commit.len().min(10)]));
    let did = match explanation.status.as_deref() {
        Some("failed") => "failed",
        _ => "built",
    };
    let hits = match explanation.hits {
        0 => String::new(),
        1 => "; a hit in 1 build since".to_owned(),
        count => format!("; a hit in {count} builds since"),
    };
    Some(format!("  {did} in build {} ({}{commit}){hits}", built.id, built.begun))
}

fn key(key: Option<Key>) -> String {
    key.map_or_else(|| "-".to_owned(), |key| key.first_digits())
}

/// All that is known of why a step ran.
fn details(step: &Step) -> Vec<String> {
    let mut lines = Vec::new();
    match &step.reason {
        Some(Reason::Changed { earlier, changes }) => {
            lines.push(format!("    compared with {}", key(Some(*earlier))));
            lines.extend(changes.iter().flat_map(change));
        }
        Some(Reason::Evicted { evicted, .. }) => {
            lines.push(format!("    its result went {}", crate::inspect::table::moment(*evicted)));
        }
        _ => {}
    }
    if let Some(Differs { files: Some(files), .. }) = &step.differs {
        lines.extend(listed(files, ""));
    }
    lines
}

/// A change with old and new.
fn change(change: &Change) -> Vec<String> {
    let pair = |what: &str, old: &str, new: &str| vec![format!("    {what}: {new:?}, was {old:?}")];
    match change {
        Change::Script { line, old, new, old_lines, new_lines } => {
            let shown = |text: &Option<String>| text.as_deref().map_or("(the end)".to_owned(), shortened);
            let mut lines = vec![format!("    script, line {line} ({new_lines} lines, were {old_lines}):")];
            lines.push(format!("      - {}", shown(old)));
            lines.push(format!("      + {}", shown(new)));
            lines
        }
        Change::Variable { name, old, new } => {
            let shown = |value: &Option<String>| {
                value.as_ref().map_or("not set".to_owned(), |value| format!("{:?}", shortened(value)))
            };
            vec![format!("    variable {name}: {}, was {}", shown(new), shown(old))]
        }
        Change::Attributes { place, old, new } => pair(&format!("attributes of {}", named(place)), old, new),
        Change::Network { old, new } => pair("network", old, new),
        Change::Platform { old, new } => pair("platform", old, new),
        Change::Ids { old, new } => pair("ids of the sandbox", old, new),
        Change::Kind { old, new } => pair("kind of step", old, new),
        Change::Time { old, new } => vec![format!("    layer time: {new}, was {old}")],
        Change::Tar { old, new, .. } => vec![format!("    tar base: {new}, was {old}")],
        Change::Base { old, new, image: None, .. } => vec![format!("    base: {new}, was {old}")],
        Change::Base { image: Some(images), .. } => {
            let shown = |image: &Option<String>| image.clone().unwrap_or_else(|| "not known".to_owned());
            vec![format!("    base: {}, was {}", shown(&images.new), shown(&images.old))]
        }
        Change::Import { place, files: Some(files), .. } => listed(files, place),
        Change::Bind { place, files: Some(files) } => listed(files, place),
        other => vec![format!("    {other}")],
    }
}

/// The files that differ, by their places.
fn listed(files: &Files, place: &str) -> Vec<String> {
    let line = |file: &FileChange| {
        let at = |path: &str| match (place, path) {
            ("", path) => format!("/{path}"),
            (place, "") => place.to_owned(),
            (place, path) => format!("{}/{path}", place.trim_end_matches('/')),
        };
        let file = FileChange { path: at(&file.path), from: file.from.as_deref().map(at), how: file.how };
        format!("    {file}")
    };
    let mut lines: Vec<String> = files.first.iter().map(line).collect();
    if files.count > files.first.len() {
        lines.push(format!("    and {} more files", files.count - files.first.len()));
    }
    lines
}

fn compared(compared: Option<&Compared>) -> Vec<String> {
    let Some(Compared { key: of, against, layers, changes }) = compared else { return vec![] };
    let layers = if layers.is_empty() { String::new() } else { format!(" of {}", layers.join(", ")) };
    let mut lines = vec![format!("  {} beside {}{layers}:", key(Some(*of)), key(Some(*against)))];
    lines.extend(changes.iter().flat_map(change));
    lines
}

fn named(place: &str) -> &str {
    if place.is_empty() { "the import" } else { place }
}

/// The beginning of a text that is too long for a line.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
