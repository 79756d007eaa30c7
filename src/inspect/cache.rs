//! What the cache holds, for `stacker cache ls` and `stacker cache show`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::table::{Facts, NOTHING_THERE, bytes, columns, moment, plain};
use crate::action::{Action, Field};
pub use crate::database::{CacheRow, Cause, Status};
use crate::digest::{DiffId, Key};
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CachePath {
    /// `log`, `listing`, `blob`, `delta`, `tree`, `nursery`.
    pub name: String,
    /// Where.
    pub path: PathBuf,
    /// Its size, if it is a file.
    pub bytes: Option<u64>,
}

/// A result as JSON.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "stacker cache ls")]
pub struct Listed {
    /// The key of its action.
    key: Key,
    /// What was done: `unpack`, `import`, `run` or `labels`.
    kind: String,
    /// Layers whose last build used it; where none did, those of which an earlier one is known to have.
    layers: Vec<String>,
    /// The layer of the image that came out; null: nothing changed, or labels did.
    diff_id: Option<DiffId>,
    /// Bytes of file content.
    bytes: u64,
    /// How long it took to build.
    seconds: f64,
    /// When it was built (RFC 3339).
    created: String,
    /// When a build last used it, within an hour (RFC 3339).
    last_used: String,
    /// Whether it is there.
    status: Status,
    /// The last time that it went, also of a result that is there again; absent where it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    evicted: Option<Eviction>,
}

/// When and why a result went.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Eviction {
    /// When (RFC 3339).
    when: String,
    /// By which rule.
    cause: Cause,
}

/// A result as JSON, with all that led to it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "stacker cache show")]
pub struct Shown {
    /// The result.
    #[serde(flatten)]
    row: Listed,
    /// What was done.
    action: Action,
    /// The text whose digest is the key.
    encoding: String,
    /// The labels that came out; absent where a layer did.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    /// Where its data lies, as far as it is there.
    paths: Vec<CachePath>,
}

/// One line for each result; JSON: an array with an object for each.
pub fn render_list(rows: &[CacheRow], json: bool) -> String {
    if json {
        return text::json(&rows.iter().map(Listed::of).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        return "the cache holds no such results\n".to_owned();
    }
    let mut header = vec!["KEY", "KIND", "LAYERS", "RESULT", "SIZE", "TOOK", "BUILT", "LAST USED"];
    // Usually all are there.
    let differ = rows.iter().any(|row| row.status != Status::Present);
    header.extend(differ.then_some("STATUS"));
    let cells = |row: &CacheRow| {
        let mut cells = vec![
            row.key.first_digits(),
            plain(&row.kind),
            row.layer_names(),
            row.result(|diff_id| diff_id.first_digits()),
            row.size(),
            duration(row.seconds),
            moment(row.created),
            moment(row.last_used),
        ];
        cells.extend(differ.then(|| row.state()));
        cells
    };
    columns(Some(&header), rows.iter().map(cells), &[4, 5])
}

/// Everything about some results; JSON: an array with an object for each.
pub fn render_entries(entries: &[CacheEntry], json: bool) -> String {
    match json {
        true => text::json(&entries.iter().map(Shown::of).collect::<Vec<_>>()),
        false => entries.iter().map(CacheEntry::text).collect::<Vec<_>>().join("\n"),
    }
}

impl Listed {
    fn of(row: &CacheRow) -> Listed {
        let CacheRow { key, kind, layers, diff_id, bytes, seconds, created, last_used, status, evicted } = row.clone();
        let (created, last_used) = (moment(created), moment(last_used));
        let evicted = evicted.map(|(when, cause)| Eviction { when: moment(when), cause });
        Listed { key, kind, layers, diff_id, bytes, seconds, created, last_used, status, evicted }
    }
}

impl Shown {
    fn of(entry: &CacheEntry) -> Shown {
        let CacheEntry { action, row, labels, paths } = entry.clone();
        Shown { row: Listed::of(&row), encoding: action.encoding(), action, labels, paths }
    }
}

impl CacheRow {
    fn result(&self, of: impl Fn(DiffId) -> String) -> String {
        match self.diff_id {
            Some(diff_id) => of(diff_id),
            None if self.kind == "labels" => "labels".to_owned(),
            None => "no change".to_owned(),
        }
    }

    /// `evicted 2026-11-29T20:00:00Z (--keep-last 3)`.
    fn state(&self) -> String {
        match (self.status, &self.evicted) {
            (Status::Present, _) => "present".to_owned(),
            (Status::Lost, _) => "lost".to_owned(),
            (Status::Evicted, Some((when, cause))) => format!("evicted {} ({})", moment(*when), cause.rule()),
            (Status::Evicted, None) => "evicted".to_owned(),
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
        facts.add("status", [if row.status == Status::Evicted { "evicted".to_owned() } else { row.state() }]);
        facts.add("evicted", row.evicted.iter().map(|(when, cause)| format!("{} ({})", moment(*when), cause.rule())));
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
