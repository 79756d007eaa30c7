//! Text substitution: `${{VAR}}` and `${{VAR:default}}` become values before the text is read as YAML.
//!
//! One pass: values and defaults are plain text and are not looked through again. The shell's `$VAR` and `${VAR}` are
//! never touched. Knows nothing of YAML: keys and comments are text like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// The name cannot hold a colon, the default cannot hold a closing brace.
static PLACEHOLDER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\$\{\{([^}:]*)(:([^}]*))?\}\}").expect("the pattern is constant"));

/// Values by name, and which of them came from the command line.
#[derive(Clone, Debug, Default)]
pub struct Values {
    values: BTreeMap<String, String>,
    given: BTreeSet<String>,
}

/// Something that cannot be substituted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A placeholder without value or default.
    NoValue {
        /// Its name.
        name: String,
        /// The whole placeholder in the text before substitution.
        span: Range<usize>,
    },
    /// The shell's form of a variable that was given on the command line.
    ShellForm {
        /// Its name.
        name: String,
        /// `$VAR` or `${VAR}`.
        span: Range<usize>,
    },
}

impl Values {
    /// The command line wins over the file, the file over the built-ins; of two equal names on one level the last wins.
    pub fn new(
        command_line: &[(String, String)],
        file: &BTreeMap<String, String>,
        builtins: &[(String, String)],
    ) -> Values {
        let mut values: BTreeMap<String, String> = builtins.iter().cloned().collect();
        values.extend(file.clone());
        values.extend(command_line.iter().cloned());
        Values { values, given: command_line.iter().map(|(name, _)| name.clone()).collect() }
    }

    /// The names, for "did you mean".
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The text with every placeholder replaced, or everything that stands in the way.
    pub fn substitute(&self, text: &str) -> Result<String, Vec<Mistake>> {
        let mut mistakes = self.shell_forms(text);
        let mut result = String::with_capacity(text.len());
        let mut copied = 0;
        for found in PLACEHOLDER.captures_iter(text) {
            let whole = found.get_match();
            let value = self.values.get(&found[1]).map(String::as_str);
            result.push_str(&text[copied..whole.start()]);
            copied = whole.end();
            match value.or(found.get(3).map(|default| default.as_str())) {
                Some(value) => result.push_str(value),
                None => mistakes.push(Mistake::NoValue { name: found[1].to_owned(), span: whole.range() }),
            }
        }
        result.push_str(&text[copied..]);
        if mistakes.is_empty() { Ok(result) } else { Err(mistakes) }
    }

    /// Who gives VAR and writes `$VAR` expects a substitution that never happens.
    fn shell_forms(&self, text: &str) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for name in self.given.iter().filter(|name| !name.is_empty()) {
            for (start, _) in text.match_indices('$') {
                if let Some(end) = shell_form(&text[start..], name) {
                    mistakes.push(Mistake::ShellForm { name: name.clone(), span: start..start + end });
                }
            }
        }
        mistakes
    }
}

/// The length of `$NAME` or `${NAME}` at the beginning of a text that starts with a dollar.
fn shell_form(text: &str, name: &str) -> Option<usize> {
    let rest = &text[1..];
    if let Some(rest) = rest.strip_prefix('{') {
        return rest.strip_prefix(name)?.starts_with('}').then_some(name.len() + 3);
    }
    let after = rest.strip_prefix(name)?;
    let longer = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    (!longer).then_some(name.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn values() -> Values {
        let file = pairs(&[("ONE", "file"), ("TWO", "file")]).into_iter().collect();
        Values::new(
            &pairs(&[("ONE", "old"), ("ONE", "$cli,x=${{TWO}}"), ("EMPTY", "")]),
            &file,
            &pairs(&[("TWO", "b"), ("DIR", "/d")]),
        )
    }

    #[test]
    fn placeholders_become_values() {
        let table = [
            ("plain", "plain"),
            ("a ${{TWO}} b", "a file b"),
            ("${{ONE}}", "$cli,x=${{TWO}}"),
            ("${{TWO}}${{DIR}}: # ${{TWO:x}}", "file/d: # file"),
            ("${{NONE:}}|${{NONE:a:b c}}", "|a:b c"),
            ("${{EMPTY:default}}", ""),
            ("${{NONE:$x}}", "$x"),
            ("$OTHER ${OTHER} $ONES ${ONE:-x} ${{", "$OTHER ${OTHER} $ONES ${ONE:-x} ${{"),
            ("$TWO", "$TWO"),
            ("ü${{DIR}}", "ü/d"),
        ];
        for (text, expected) in table {
            assert_eq!(values().substitute(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn all_mistakes_are_found() {
        let found = values().substitute("${{NONE}} $ONE ${ONE} ${{}}");
        let expected = vec![
            Mistake::ShellForm { name: "ONE".into(), span: 10..14 },
            Mistake::ShellForm { name: "ONE".into(), span: 15..21 },
            Mistake::NoValue { name: "NONE".into(), span: 0..9 },
            Mistake::NoValue { name: "".into(), span: 22..27 },
        ];
        assert_eq!(found, Err(expected));
    }
}
