//! `stacker cache diff`: two actions field by field, and what came out of them file by file.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::table::{moment, plain};
use crate::action::{Action, Field};
use crate::digest::Key;
use crate::error::Result;
use crate::listing::{Entry, Kind, Listing, order};
use crate::reason::{Nothing, compare};
use crate::text::escape;

/// How two actions, and what came out of them, differ.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "stacker cache diff")]
pub struct Difference {
    /// The key of the one.
    pub old: Key,
    /// The key of the other.
    pub new: Key,
    /// What differs, in a few words each, root causes first.
    pub reasons: Vec<String>,
    /// The lines of their encodings that differ.
    pub fields: Vec<FieldChange>,
    /// The files of their layers that differ; absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<FileChange>>,
}

/// A line of an encoding.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldChange {
    /// What it is, with the name of a variable and the place of an import.
    pub field: String,
    /// Of the one; null: it has none.
    pub old: Option<String>,
    /// Of the other; null: it has none.
    pub new: Option<String>,
}

/// A file that differs.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileChange {
    /// Its path, as an escaped word.
    pub path: String,
    /// How.
    pub how: How,
    /// What the one has; null: nothing.
    pub old: Option<FileFacts>,
    /// What the other has; null: nothing.
    pub new: Option<FileFacts>,
}

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Only the other has it.
    Added,
    /// Only the one has it.
    Removed,
    /// Both have it.
    Changed,
}

/// What a listing says of a file.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileFacts {
    /// `file`, `directory`, `link`, `hard-link`, `fifo`, `whiteout`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Permission bits in octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time (RFC 3339).
    pub mtime: String,
    /// Bytes; null of what is no file.
    pub size: Option<u64>,
    /// blake3 of the content; null of what is no file.
    pub content: Option<String>,
    /// Where a link leads, as an escaped word; null of what is none.
    pub target: Option<String>,
    /// Extended attributes by name, as escaped words.
    pub attributes: BTreeMap<String, String>,
}

impl Difference {
    /// Of two actions.
    pub fn of(old: &Action, new: &Action) -> Difference {
        let reasons = compare(old, new, &Nothing).iter().map(ToString::to_string).collect();
        Difference { old: old.key(), new: new.key(), reasons, fields: fields(old, new), files: None }
    }

    /// For people, or (`json`) for programs.
    pub fn render(&self, json: bool) -> String {
        if json {
            return crate::text::json(self);
        }
        let mut text = format!("--- {}\n+++ {}\n", self.old, self.new);
        if self.fields.is_empty() {
            text += "the actions are the same\n";
        }
        for change in &self.fields {
            let sides = [("-", &change.old), ("+", &change.new)];
            text += &match change.field.as_str() {
                "script" => lines(change.old.as_deref().unwrap_or(""), change.new.as_deref().unwrap_or("")),
                _ => {
                    sides.iter().filter_map(|(sign, line)| Some(format!("{sign}{}\n", plain(line.as_ref()?)))).collect()
                }
            };
        }
        let Some(files) = &self.files else { return text };
        text += &format!("\nfiles that differ: {}\n", files.len());
        for FileChange { path, old, new, .. } in files {
            for (sign, facts) in [("-", old), ("+", new)] {
                text += &facts.as_ref().map(|facts| format!("{sign}{path} {}\n", facts.line())).unwrap_or_default();
            }
        }
        text
    }
}

/// The fields that differ, in the order of the encoding.
fn fields(old: &Action, new: &Action) -> Vec<FieldChange> {
    let named = |action: &Action| -> Vec<(String, String)> { action.fields().iter().map(named).collect() };
    let (before, after) = (named(old), named(new));
    let find = |all: &[(String, String)], name: &str| {
        all.iter().find(|(other, _)| other == name).map(|(_, text)| text.clone())
    };
    let mut changes = Vec::new();
    let only_before = before.iter().filter(|(name, _)| find(&after, name).is_none());
    for (field, _) in after.iter().chain(only_before) {
        let (old, new) = (find(&before, field), find(&after, field));
        if old != new {
            changes.push(FieldChange { field: field.clone(), old, new });
        }
    }
    changes
}

/// What a field is called, by which it finds that of the other action, and its text.
fn named(field: &Field) -> (String, String) {
    let line = field.line();
    let first = line.split(' ').next().unwrap_or_default().to_owned();
    match field {
        Field::Script(script) => (first, (*script).to_owned()),
        Field::Variable(name, _) => (format!("{first} {name}"), line),
        Field::Mount(mount) => (format!("{first} {}", mount.place), line),
        Field::Bind(bind) => (format!("{first} {}", bind.place), line),
        Field::Node(place, path, _) => (format!("{first} {place}/{path}"), line),
        _ => (first, line),
    }
}

/// The lines of two scripts that differ: all between the first and the last that do.
fn lines(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let shorter = old.len().min(new.len());
    let first = (0..shorter).find(|at| old[*at] != new[*at]).unwrap_or(shorter);
    let same_end = |at: &usize| old[old.len() - 1 - at] == new[new.len() - 1 - at];
    let last = (0..shorter - first).take_while(same_end).count();
    let mut text = format!("@@ script, line {} @@\n", first + 1);
    for (sign, lines) in [("-", &old[first..old.len() - last]), ("+", &new[first..new.len() - last])] {
        lines.iter().for_each(|line| text += &format!("{sign}{}\n", plain(line)));
    }
    text
}

/// The entries of two listings that differ; `None`: there is no layer, so nothing in it.
pub fn files(old: Option<&Listing>, new: Option<&Listing>) -> Result<Vec<FileChange>> {
    let entries = |listing: Option<&Listing>| -> Result<Vec<Entry>> {
        listing.map_or(Ok(vec![]), |listing| listing.entries().collect())
    };
    let (old, new) = (entries(old)?, entries(new)?);
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut changes = Vec::new();
    loop {
        let which = match (old.peek(), new.peek()) {
            (None, None) => return Ok(changes),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => order(one, other),
        };
        let before = if which.is_le() { old.next() } else { None };
        let after = if which.is_ge() { new.next() } else { None };
        if before == after {
            continue;
        }
        let how = match which {
            Ordering::Less => How::Removed,
            Ordering::Greater => How::Added,
            Ordering::Equal => How::Changed,
        };
        let path = before.or(after).map(|entry| escape(&entry.path)).unwrap_or_default();
        changes.push(FileChange { path, how, old: before.map(FileFacts::of), new: after.map(FileFacts::of) });
    }
}

impl FileFacts {
    fn of(entry: &Entry) -> FileFacts {
        let (mut size, mut content, mut target) = (None, None, None);
        let kind = match &entry.kind {
            Kind::File { size: bytes, content: digest } => {
                (size, content) = (Some(*bytes), Some(digest.to_string()));
                "file"
            }
            Kind::Directory { .. } => "directory",
            Kind::Symlink { target: text } => {
                target = Some(escape(text));
                "link"
            }
            Kind::HardLink { to } => {
                target = Some(escape(to));
                "hard-link"
            }
            Kind::Fifo => "fifo",
            Kind::Whiteout => "whiteout",
        };
        let attributes = entry.xattrs.iter().map(|(name, value)| (escape(name), escape(value))).collect();
        let (mode, mtime) = (format!("{:o}", entry.mode), time(entry.mtime.seconds, entry.mtime.nanos));
        FileFacts { kind, mode, uid: entry.uid, gid: entry.gid, mtime, size, content, target, attributes }
    }

    /// `file 644 0:0 12 B of 8e4c7c1b99db, 2000-01-01T00:00:02Z`.
    fn line(&self) -> String {
        let FileFacts { kind, mode, uid, gid, mtime, size, content, target, attributes } = self;
        let mut line = format!("{kind} {mode} {uid}:{gid}");
        if let (Some(size), Some(content)) = (size, content) {
            line += &format!(" {size} B of {}", content.get(..12).unwrap_or(content));
        }
        if let Some(target) = target {
            line += &format!(" -> {target}");
        }
        line += &format!(", {mtime}");
        attributes.iter().for_each(|(name, value)| line += &format!(" {name}={value}"));
        line
    }
}

fn time(seconds: i64, nanos: u32) -> String {
    let exact = jiff::Timestamp::new(seconds, nanos as i32);
    exact.map_or_else(|_| moment(seconds), |time| time.to_string())
}
