//! Substitutions of the stackerfile that is written: `${{NAME:default}}`, and the file with all of them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

static PLACEHOLDER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\$\{\{([^}:]*)(:([^}]*))?\}\}").expect("the pattern is constant"));

/// Names with their values, and what each is for.
#[derive(Debug, Default)]
pub(super) struct Substitutions {
    values: BTreeMap<String, (String, String)>,
}

impl Substitutions {
    /// The placeholder for a value that users may want to change. The value itself holds none, see [`plain`].
    pub fn placeholder(&mut self, name: &str, value: &str, purpose: &str) -> String {
        self.values.entry(name.to_owned()).or_insert_with(|| (value.to_owned(), purpose.to_owned()));
        match value.contains('}') {
            // A default cannot hold one; the file can.
            true => format!("${{{{{name}}}}}"),
            false => format!("${{{{{name}:{value}}}}}"),
        }
    }

    /// Where the default of a name would be another than what it has already.
    pub fn is_taken(&self, name: &str, value: &str) -> bool {
        self.values.get(name).is_some_and(|(known, _)| known != value)
    }

    /// As a YAML map of texts.
    pub fn file(&self) -> String {
        let mut text = String::new();
        for (name, (value, purpose)) in &self.values {
            text += &format!("# {purpose}\n{name}: {}\n", super::render::scalar(value));
        }
        text
    }
}

/// Text as it stands, kept from being taken for a placeholder.
pub(super) fn guarded(text: &str) -> String {
    text.replace("${{", "${{DOLLAR:$}}{{")
}

/// A text with each placeholder replaced by its default.
pub(super) fn plain(text: &str) -> String {
    let default = |found: &regex::Captures| found.get(3).map_or("", |default| default.as_str()).to_owned();
    PLACEHOLDER.replace_all(text, default).into_owned()
}

/// Whether anything in it can be substituted.
pub(super) fn has_placeholder(text: &str) -> bool {
    PLACEHOLDER.captures_iter(text).any(|found| &found[1] != "DOLLAR")
}

/// Whether a placeholder's default has a slash, at which the text cannot be parted.
pub(super) fn has_slash_within(text: &str) -> bool {
    PLACEHOLDER.find_iter(text).any(|found| found.as_str().contains('/'))
}

/// `${NAME:-word}` of a name that is a placeholder without a default.
pub(super) fn with_default(value: &str, word: &str) -> String {
    match value.strip_suffix(":}}") {
        Some(start) if value.starts_with("${{") && !has_placeholder(word) && !word.contains('}') => {
            format!("{start}:{word}}}}}")
        }
        _ => value.to_owned(),
    }
}
