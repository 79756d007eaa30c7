//! Typed readings of YAML nodes. A node of the wrong type is reported with its place, and reading goes on without it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diag::Diagnostic;

use super::Place;
use super::yaml::{Entry, Kind, Mistake, Node};

/// Reads the nodes of one file.
pub(super) struct Reader<'o> {
    path: Arc<Path>,
    working_dir: &'o Path,
    /// `--require-hash`.
    pub require_hash: bool,
    /// What was wrong so far.
    pub diagnostics: Vec<Diagnostic>,
}

impl<'o> Reader<'o> {
    pub fn new(path: Arc<Path>, working_dir: &'o Path) -> Reader<'o> {
        Reader { path, working_dir, require_hash: false, diagnostics: Vec::new() }
    }

    pub fn place(&self, span: &Range<usize>) -> Place {
        Place { path: self.path.clone(), span: span.clone() }
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// An error at one place.
    pub fn error(&mut self, span: &Range<usize>, title: impl Into<String>) {
        self.push(Diagnostic::error(title).at(self.place(span), ""));
    }

    pub fn yaml_mistakes(&mut self, mistakes: Vec<Mistake>) {
        for Mistake { title, span, other } in mistakes {
            let mut diagnostic = Diagnostic::error(title).at(self.place(&span), "");
            if let Some((span, label)) = other {
                diagnostic = diagnostic.at(self.place(&span), label);
            }
            self.push(diagnostic);
        }
    }

    /// A key deep down that means nothing here, and most likely was meant to.
    pub fn unknown_key<'k>(&mut self, entry: &Entry, of: &str, known: impl IntoIterator<Item = &'k str>) {
        let diagnostic = Diagnostic::warning(format!("unknown key `{}` in {of} is ignored", entry.key));
        self.push(diagnostic.at(self.place(&entry.key_span), "").did_you_mean(&entry.key, known));
    }

    /// A path relative to this file, absolute and without `.` and a trailing slash.
    pub fn beside(&self, path: &str) -> PathBuf {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        directory.join(path).components().collect()
    }

    /// The rule for `from.url`: relative to this file, or to the working directory when only there is something.
    pub fn beside_or_working_dir(&self, path: &str) -> PathBuf {
        let beside = self.beside(path);
        let elsewhere: PathBuf = self.working_dir.join(path).components().collect();
        let there = |path: &Path| path.symlink_metadata().is_ok();
        if !there(&beside) && there(&elsewhere) { elsewhere } else { beside }
    }

    pub fn wrong_type(&mut self, what: &str, wanted: &str, node: &Node) {
        self.error(&node.span, format!("{what} must be {wanted}, not {}", kind_name(&node.kind)));
    }

    pub fn text(&mut self, what: &str, node: &Node) -> Option<String> {
        match &node.kind {
            Kind::Scalar(text) => Some(text.to_string()),
            _ => {
                self.wrong_type(what, "a text", node);
                None
            }
        }
    }

    /// A list of texts; a blank entry is an empty text.
    pub fn texts(&mut self, what: &str, node: &Node) -> Option<Vec<String>> {
        let Kind::Sequence(nodes) = &node.kind else {
            self.wrong_type(what, "a list of texts", node);
            return None;
        };
        Some(self.entries(what, nodes))
    }

    /// The texts of a list, without those of a wrong type.
    fn entries(&mut self, what: &str, nodes: &[Node]) -> Vec<String> {
        let entry = |node: &Node| match &node.kind {
            Kind::Blank => Some(String::new()),
            _ => self.text(&format!("an entry of {what}"), node),
        };
        nodes.iter().filter_map(entry).collect()
    }

    /// A text, or a list of texts that are its lines.
    pub fn lines(&mut self, what: &str, node: &Node) -> Option<String> {
        match &node.kind {
            Kind::Scalar(text) => Some(text.to_string()),
            Kind::Sequence(nodes) => Some(self.entries(what, nodes).join("\n")),
            _ => {
                self.wrong_type(what, "a text or a list of texts", node);
                None
            }
        }
    }

    /// A list of words, or a text that is split as a shell would.
    pub fn words(&mut self, what: &str, node: &Node) -> Option<Vec<String>> {
        match &node.kind {
            Kind::Scalar(text) => match shell_words::split(text) {
                Ok(words) => Some(words),
                Err(_) => {
                    self.error(&node.span, format!("{what} has a quote that is not closed"));
                    None
                }
            },
            Kind::Sequence(nodes) => Some(self.entries(what, nodes)),
            _ => {
                self.wrong_type(what, "a text or a list of texts", node);
                None
            }
        }
    }

    /// A map of texts; a blank value is an empty text.
    pub fn map(&mut self, what: &str, node: &Node) -> Option<BTreeMap<String, String>> {
        let Kind::Mapping(entries) = &node.kind else {
            self.wrong_type(what, "a map of texts", node);
            return None;
        };
        let pair = |entry: &Entry| {
            let value = match &entry.value.kind {
                Kind::Blank => String::new(),
                _ => self.text(&format!("`{}` in {what}", entry.key), &entry.value)?,
            };
            Some((entry.key.to_string(), value))
        };
        Some(entries.iter().filter_map(pair).collect())
    }

    /// A map of environment variables.
    pub fn variables(&mut self, what: &str, node: &Node) -> Option<BTreeMap<String, String>> {
        let map = self.map(what, node)?;
        if let Kind::Mapping(entries) = &node.kind {
            for entry in entries.iter().filter(|entry| entry.key.is_empty() || entry.key.contains(['=', '\0'])) {
                self.error(&entry.key_span, format!("`{}` in {what} cannot name a variable", entry.key));
            }
        }
        Some(map)
    }

    pub fn flag(&mut self, what: &str, node: &Node) -> Option<bool> {
        let text = self.text(what, node)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => {
                self.error(&node.span, format!("{what} must be `true` or `false`, not `{text}`"));
                None
            }
        }
    }

    /// Permission bits: the digits are octal, quoted or not.
    pub fn mode(&mut self, what: &str, node: &Node) -> Option<u32> {
        let text = self.text(what, node)?;
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        let octal = !digits.is_empty() && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if octal && mode <= 0o7777 => Some(mode),
            _ => {
                self.error(&node.span, format!("{what} must be octal digits up to 7777, not `{text}`"));
                None
            }
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, what: &str, node: &Node, known: &[(&str, T)]) -> Option<T> {
        let text = self.text(what, node)?;
        let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            let title = format!("{what} must be one of {}, not `{text}`", names.join(", "));
            let diagnostic = Diagnostic::error(title).at(self.place(&node.span), "");
            self.push(diagnostic.did_you_mean(&text, known.iter().map(|(name, _)| *name)));
        }
        found
    }
}

pub(super) fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Blank => "blank",
        Kind::Scalar(_) => "a text",
        Kind::Sequence(_) => "a list",
        Kind::Mapping(_) => "a map",
    }
}
