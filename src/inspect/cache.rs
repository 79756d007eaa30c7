//! What the cache holds, for `stacker cache ls` and `stacker cache show`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::table::{Facts, NOTHING_THERE, bytes, columns, moment, plain};
use crate::action::{Action, Field};
pub use crate::database::CacheRow;
use crate::digest::DiffId;
use crate::progress::duration;
use crate::text;

/// One result with what led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheEntry {
    /// What was done.
    pub action: Action,
    /// What came out.
    pub row: CacheRow,
    /// The labels, if those are what came out.
    pub labels: Option<BTreeMap<String, String>>,
    /// Where its data lies, as far as it is there.
    pub paths: Vec<CachePath>,
}

/// A file or directory that belongs to a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePath {
    /// `log`, `listing`, `blob`, `delta`.
    pub name: String,
    /// Where.
    pub path: PathBuf,
    /// Its size, if it is a file.
    pub bytes: Option<u64>,
}

/// One line for each result; JSON: an array with an object for each.
pub fn render_list(rows: &[CacheRow], json: bool) -> String {
    if json {
        return text::json(&rows.iter().map(CacheRow::json).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        return "the cache holds no results\n".to_owned();
    }
    let header = ["KEY", "KIND", "LAYERS", "RESULT", "SIZE", "TOOK", "BUILT", "LAST USED"];
    let cells = |row: &CacheRow| {
        vec![
            first_digits(&row.key.hex()),
            plain(&row.kind),
            row.layer_names(),
            row.result(|diff_id| first_digits(&diff_id.hex())),
            row.size(),
            duration(row.seconds),
            moment(row.created),
            moment(row.last_used),
        ]
    };
    columns(Some(&header), rows.iter().map(cells), &[4, 5])
}

/// Everything about some results; JSON: an array with an object for each.
pub fn render_entries(entries: &[CacheEntry], json: bool) -> String {
    match json {
        true => text::json(&entries.iter().map(CacheEntry::json).collect::<Vec<_>>()),
        false => entries.iter().map(CacheEntry::text).collect::<Vec<_>>().join("\n"),
    }
}

impl CacheRow {
    fn json(&self) -> Value {
        let CacheRow { key, kind, layers, diff_id, bytes, seconds, created, last_used } = self;
        json!({
            "key": key,
            "kind": kind,
            "layers": layers,
            "diff_id": diff_id,
            "bytes": bytes,
            "seconds": seconds,
            "created": moment(*created),
            "last_used": moment(*last_used),
        })
    }

    fn result(&self, of: impl Fn(DiffId) -> String) -> String {
        match self.diff_id {
            Some(diff_id) => of(diff_id),
            None if self.kind == "labels" => "labels".to_owned(),
            None => "no change".to_owned(),
        }
    }

    fn layer_names(&self) -> String {
        match self.layers.is_empty() {
            true => NOTHING_THERE.to_owned(),
            false => plain(&self.layers.join(", ")),
        }
    }

    fn size(&self) -> String {
        self.diff_id.map_or(NOTHING_THERE.to_owned(), |_| bytes(self.bytes))
    }
}

impl CacheEntry {
    fn json(&self) -> Value {
        let CacheEntry { action, row, labels, paths } = self;
        let path = |found: &CachePath| {
            let CachePath { name, path, bytes } = found;
            json!({"name": name, "path": path.to_string_lossy(), "bytes": bytes})
        };
        let mut json = row.json();
        json["action"] = json!(action);
        json["encoding"] = json!(action.encoding());
        if let Some(labels) = labels {
            json["labels"] = json!(labels);
        }
        json["paths"] = paths.iter().map(path).collect();
        json
    }

    fn text(&self) -> String {
        let CacheEntry { action, row, labels, paths } = self;
        let mut facts = Facts::default();
        facts.add("key", [row.key.to_string()]);
        facts.add("layers", [row.layer_names()]);
        let result = match (row.diff_id, labels) {
            (Some(diff_id), _) => diff_id.to_string(),
            (None, Some(labels)) => format!("{} labels", labels.len()),
            (None, None) => "no change, so no layer".to_owned(),
        };
        facts.add("result", [result]);
        let labels = labels.iter().flatten().map(|(name, value)| format!("{} = {}", plain(name), plain(value)));
        facts.add("labels", labels);
        facts.add("size", row.diff_id.map(|_| bytes(row.bytes)));
        facts.add("took", [duration(row.seconds)]);
        facts.add("built", [moment(row.created)]);
        facts.add("last used", [moment(row.last_used)]);
        for found in paths {
            let size = found.bytes.map(|count| format!(" ({})", bytes(count))).unwrap_or_default();
            facts.add(&found.name, [format!("{}{size}", found.path.display())]);
        }
        let mut text = facts.lines();
        text.push_str("action\n");
        for line in action_lines(action) {
            text.push_str("  ");
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// The lines of the encoding, only that a script stands there line by line.
fn action_lines(action: &Action) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for field in action.fields() {
        match field {
            Field::Script(script) => {
                lines.push("script".to_owned());
                lines.extend(script.lines().map(|line| format!("  | {}", script_line(line))));
            }
            field => lines.push(plain(&field.line())),
        }
    }
    lines
}

/// Tabs become blanks; every other control character is shown as what it is.
fn script_line(line: &str) -> String {
    line.split('\t').map(plain).collect::<Vec<_>>().join("    ")
}

/// As many digits as tell results apart; `cache show` takes them.
fn first_digits(hex: &str) -> String {
    hex.chars().take(16).collect()
}
