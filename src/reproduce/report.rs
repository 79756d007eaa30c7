//! What was compared, for people and for programs.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::json;

/// What `stacker verify` found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker verify")]
pub struct Report {
    /// The layers that were built again, in the order of a serial build.
    pub layers: Vec<LayerVerdict>,
}

/// Whether something comes out the same each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It came out the same.
    Reproducible,
    /// It came out otherwise.
    Different,
    /// It failed the second time.
    Failed,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LayerVerdict {
    /// Its name.
    pub layer: String,
    /// Path of the stackerfile.
    pub stackerfile: String,
    /// The worst of its steps.
    pub verdict: Verdict,
    /// Its own steps, each built on what the one before came out as the first time.
    pub steps: Vec<StepVerdict>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepVerdict {
    /// `unpack`, `import`, `run` or `labels`.
    pub step: String,
    /// The key of its action.
    pub key: String,
    /// What became of it.
    pub verdict: Verdict,
    /// The diff id of the layer that is in the cache; null: nothing changed, or it is labels.
    pub first: Option<String>,
    /// The same of the second build.
    pub second: Option<String>,
    /// How long the second build took.
    pub seconds: f64,
    /// How many entries of the layer, or labels, differ.
    pub differing: u64,
    /// The first of the entries that differ.
    pub files: Vec<FileDifference>,
    /// The labels that differ.
    pub labels: Vec<LabelDifference>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// An entry of the layer that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileDifference {
    /// Absolute; bytes that are not printable ASCII as `%` and two digits.
    pub path: String,
    /// What it is in the cache; null: not there.
    pub first: Option<Looks>,
    /// What it came out as; null: not there.
    pub second: Option<Looks>,
    /// Where two files first differ.
    pub content: Option<ContentDifference>,
    /// What usually mends it.
    pub cure: Option<String>,
}

/// What a listing says of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Looks {
    /// `file`, `directory`, `link`, `hard link`, `fifo` or `removed`.
    pub kind: String,
    /// Permission bits, octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970, with nine digits of nanoseconds unless these are zero.
    pub time: String,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// blake3 of a file's content.
    pub content: Option<String>,
    /// Where a link leads.
    pub target: Option<String>,
    /// Extended attributes, values in hexadecimal.
    pub attributes: std::collections::BTreeMap<String, String>,
}

/// Where the contents of two files first differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContentDifference {
    /// In a text: the lines, shortened.
    Text {
        /// From 1.
        line: u64,
        /// In the cache; empty where the text has ended.
        first: String,
        /// The second time.
        second: String,
    },
    /// In anything else: bytes from a little before, in hexadecimal.
    Bytes {
        /// Of the first byte that differs, from 0.
        offset: u64,
        /// In the cache.
        first: String,
        /// The second time.
        second: String,
    },
}

/// A label that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelDifference {
    /// Its name.
    pub name: String,
    /// In the cache; null: not there.
    pub first: Option<String>,
    /// The second time.
    pub second: Option<String>,
}

impl Report {
    /// 0: everything came out the same.
    pub fn exit_code(&self) -> i32 {
        i32::from(self.layers.iter().any(|layer| layer.verdict != Verdict::Reproducible))
    }

    /// For people, or (`json`) for programs.
    pub fn render(&self, as_json: bool) -> String {
        if as_json {
            return json(self);
        }
        let mut text = String::new();
        for layer in &self.layers {
            layer.show(&mut text);
        }
        let good = self.layers.iter().filter(|layer| layer.verdict == Verdict::Reproducible).count();
        let count = self.layers.len();
        let _ = write!(text, "{good} of {count} layers reproducible");
        text
    }
}

impl LayerVerdict {
    // Writing to a String cannot fail.
    fn show(&self, text: &mut String) {
        let word = match self.verdict {
            Verdict::Reproducible => "reproducible",
            Verdict::Different => "NOT reproducible",
            Verdict::Failed => "FAILED the second time",
        };
        let _ = writeln!(text, "{}: {word}", self.layer);
        for step in self.steps.iter().filter(|step| step.verdict != Verdict::Reproducible) {
            step.show(text);
        }
    }
}

impl StepVerdict {
    fn show(&self, text: &mut String) {
        let Self { step, differing, files, labels, .. } = self;
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "  {step}: {failure}");
            return;
        }
        let (what, shown) = if step == "labels" { ("label", labels.len()) } else { ("entr", files.len()) };
        let plural = match (what, *differing) {
            ("entr", 1) => "y differs",
            ("entr", _) => "ies differ",
            (_, 1) => " differs",
            _ => "s differ",
        };
        let first = if (shown as u64) < *differing { format!("; the first {shown}:") } else { ":".to_owned() };
        let _ = writeln!(text, "  {step}: {differing} {what}{plural}{first}");
        files.iter().for_each(|file| file.show(text));
        for LabelDifference { name, first, second } in labels {
            let quoted = |value: &Option<String>| value.as_ref().map_or("none".to_owned(), |text| format!("{text:?}"));
            let _ = writeln!(text, "    {name}: first {}, then {}", quoted(first), quoted(second));
        }
    }
}

impl FileDifference {
    fn show(&self, text: &mut String) {
        let how = match (&self.first, &self.second) {
            (Some(first), Some(second)) => first.differs(second).join(", "),
            (Some(_), None) => "only the first time".to_owned(),
            _ => "only the second time".to_owned(),
        };
        let _ = writeln!(text, "    {}: {how}", self.path);
        let both = [("first", &self.first), ("then ", &self.second)];
        for (word, looks) in both.iter().filter_map(|(word, looks)| Some((word, looks.as_ref()?))) {
            let _ = writeln!(text, "      {word} {}", looks.line());
        }
        match &self.content {
            None => {}
            Some(ContentDifference::Text { line, first, second }) => {
                let _ = writeln!(text, "      line {line}:\n        - {first}\n        + {second}");
            }
            Some(ContentDifference::Bytes { offset, first, second }) => {
                let _ = writeln!(text, "      byte {offset}:\n        - {first}\n        + {second}");
            }
        }
        if let Some(cure) = &self.cure {
            let _ = writeln!(text, "      cure: {cure}");
        }
    }
}

impl Looks {
    fn line(&self) -> String {
        let Looks { kind, mode, uid, gid, time, .. } = self;
        let size = self.size.map_or_else(String::new, |size| format!(", {size} bytes"));
        let target = self.target.as_ref().map_or_else(String::new, |target| format!(" to {target}"));
        format!("{kind}{target}, mode {mode}, owner {uid}:{gid}, time {time}{size}")
    }

    /// In what two differ.
    fn differs(&self, other: &Looks) -> Vec<&'static str> {
        if self.kind != other.kind {
            return vec!["another type"];
        }
        let facts = [
            (self.content != other.content, "content"),
            (self.size != other.size, "size"),
            (self.target != other.target, "target"),
            (self.mode != other.mode, "mode"),
            ((self.uid, self.gid) != (other.uid, other.gid), "owner"),
            (self.time != other.time, "time"),
            (self.attributes != other.attributes, "attributes"),
        ];
        let found: Vec<&str> = facts.iter().filter(|(differs, _)| *differs).map(|(_, name)| *name).collect();
        if found.is_empty() { vec!["opaque"] } else { found }
    }
}
