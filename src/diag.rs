//! Mistakes in stackerfiles, collected and shown with file, line, column, the source line and a caret.
//!
//! A stage pushes what it finds and goes on, so that one run reports several mistakes. Places are byte ranges of the
//! text after substitution. Nothing here knows what a stackerfile means.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};
use regex::{Captures, Regex};

use crate::error::Error;
use crate::load::Place;

/// How many errors, and how many warnings, are shown: rendering each reads the whole text.
const SHOWN: usize = 100;

/// Labels of one mistake that are shown.
const LABELS: usize = 20;

/// Characters of a title or a remedy that are shown.
const LONGEST_TEXT: usize = 1000;

/// Longer names are not compared: what that takes grows with the product of their lengths.
const LONGEST_NAME: usize = 200;

/// The texts that places refer to, and how they are shown.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    texts: BTreeMap<Arc<Path>, Arc<str>>,
    /// Paths beneath it are shown relative to it.
    working_dir: PathBuf,
    colour: bool,
}

/// Whether the build can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    severity: Severity,
    title: String,
    /// The first is where the mistake is; further ones belong to it (the other definition, the rest of a cycle).
    labels: Vec<(Place, String)>,
    help: Option<String>,
}

/// Several mistakes with the texts they are in.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    texts: Texts,
    list: Vec<Diagnostic>,
}

impl Texts {
    /// No texts yet. Paths beneath `working_dir` will be shown relative to it; colour means ANSI escapes.
    pub fn new(working_dir: &Path, colour: bool) -> Texts {
        Texts { texts: BTreeMap::new(), working_dir: working_dir.to_path_buf(), colour }
    }

    /// Adds or replaces the text of one file.
    pub fn insert(&mut self, path: Arc<Path>, text: Arc<str>) {
        self.texts.insert(path, text);
    }

    /// `stacker.yaml:7:21`: where something is written.
    pub fn position(&self, place: &Place) -> String {
        let text = self.texts.get(&place.path).map_or("", |text| text);
        let before = &text[..text.floor_char_boundary(place.span.start)];
        let (line, rest) = (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or(""));
        format!("{}:{line}:{}", self.shown(&place.path), rest.chars().count() + 1)
    }

    /// A path as messages show it.
    pub fn shown(&self, path: &Path) -> String {
        let relative = path.strip_prefix(&self.working_dir).ok().filter(|rest| !rest.as_os_str().is_empty());
        relative.unwrap_or(path).display().to_string()
    }
}

impl Diagnostic {
    /// An error with its title: lower case, what is wrong with what.
    pub fn error(title: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, title: title.into(), labels: Vec::new(), help: None }
    }

    /// A warning with its title.
    pub fn warning(title: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(title) }
    }

    /// Points at a place, with a few words that may be empty.
    pub fn at(mut self, place: Place, label: impl Into<String>) -> Diagnostic {
        self.labels.push((place, label.into()));
        self
    }

    /// Adds a line that says what to do.
    pub fn help(mut self, text: impl Into<String>) -> Diagnostic {
        self.help = Some(text.into());
        self
    }

    /// ``help: did you mean `imports`?`` if one of the known names resembles the unknown one.
    pub fn did_you_mean<'a>(self, unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Diagnostic {
        match nearest(unknown, known) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }

    fn order(&self) -> Option<(&Path, usize)> {
        self.labels.first().map(|(place, _)| (&*place.path, place.span.start))
    }
}

impl Diagnostics {
    /// Nothing is wrong yet.
    pub fn new(texts: Texts) -> Diagnostics {
        Diagnostics { texts, list: Vec::new() }
    }

    /// The texts, to add those of files that were just read.
    pub fn texts_mut(&mut self) -> &mut Texts {
        &mut self.texts
    }

    /// The texts.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Adds several.
    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        self.list.extend(diagnostics);
    }

    /// Whether looking through so many names for what was meant is worth the time: not for mistakes that are not shown,
    /// and for few where the names are very many.
    pub fn may_propose(&self, names: usize) -> bool {
        self.list.len() < SHOWN && self.list.len() * names < 1 << 19
    }

    /// The build cannot go on.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// One error with the texts of all errors, or nothing if there are only warnings.
    pub fn into_error(self) -> Option<Error> {
        let texts = self.rendered(Severity::Error);
        (!texts.is_empty()).then(|| Error::Stackerfile(texts.join("\n\n")))
    }

    /// Each warning, rendered.
    pub fn warnings(&self) -> Vec<String> {
        self.rendered(Severity::Warning)
    }

    /// By file and place, the first of very many; what has no place comes first.
    fn rendered(&self, severity: Severity) -> Vec<String> {
        let mut list: Vec<&Diagnostic> = self.list.iter().filter(|d| d.severity == severity).collect();
        list.sort_by_key(|diagnostic| diagnostic.order());
        let mut texts: Vec<String> = list.iter().take(SHOWN).map(|diagnostic| self.render(diagnostic)).collect();
        if list.len() > SHOWN {
            texts.push(format!("{} more are not shown", list.len() - SHOWN));
        }
        texts
    }

    fn render(&self, diagnostic: &Diagnostic) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = shortened(&diagnostic.title);
        let mut group: Group = level.primary_title(without_credentials(&title)).elements(self.snippets(diagnostic));
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(normalize_untrusted_str(&shortened(help))));
        }
        let renderer = if self.texts.colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    /// One for each file, the file of the first label first.
    fn snippets<'a>(&'a self, diagnostic: &'a Diagnostic) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let mut paths: Vec<&Arc<Path>> = Vec::new();
        let labels = &diagnostic.labels[..diagnostic.labels.len().min(LABELS)];
        for (place, _) in labels {
            if !paths.contains(&&place.path) {
                paths.push(&place.path);
            }
        }
        let snippet = |path: &Arc<Path>| {
            let text = self.texts.texts.get(path).map_or("", |text| text);
            let annotations = labels.iter().enumerate().filter(|(_, (place, _))| place.path == *path).map(
                |(index, (place, label))| {
                    let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                    let label = (!label.is_empty()).then(|| shortened(label));
                    kind.span(first_line(text, &place.span)).label(label)
                },
            );
            Snippet::source(without_credentials(text)).path(self.texts.shown(path)).annotations(annotations)
        };
        paths.into_iter().map(snippet).collect()
    }
}

/// The text with a star for each byte of the user names and passwords in its URLs.
pub(crate) fn without_credentials(text: &str) -> Cow<'_, str> {
    static CREDENTIALS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)(https?://)([^/?#\s]+)@").expect("the pattern is constant"));
    CREDENTIALS.replace_all(text, |found: &Captures| format!("{}{}@", &found[1], "*".repeat(found[2].len())))
}

/// The beginning of a text that is too long to be read.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A caret under one line says enough; a frame around a whole layer would hide it. Also puts any range inside the text.
fn first_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    let end = text.floor_char_boundary(span.end.max(start));
    let line = text[start..end].lines().next().unwrap_or("");
    start..start + line.trim_end().len()
}

/// The known name that an unknown one was most likely meant to be.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if unknown.len() > LONGEST_NAME {
        return None;
    }
    let lower = unknown.to_lowercase();
    // The lengths alone may say that too much is different.
    let near = |name: &&str| name.len() <= LONGEST_NAME && name.len().abs_diff(unknown.len()) <= LONGEST_NAME / 3;
    let known = known.into_iter().filter(near);
    let score = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    let (distance, name) = known.map(|name| (score(name), name)).min_by_key(|(distance, _)| *distance)?;
    let tolerated = (unknown.chars().count().max(name.chars().count()) / 3).max(1);
    (distance <= tolerated && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, span: Range<usize>) -> Place {
        Place { path: Path::new(path).into(), span }
    }

    fn diagnostics() -> Diagnostics {
        let mut texts = Texts::new(Path::new("/w"), false);
        texts.insert(Path::new("/w/a/stacker.yaml").into(), "one:\n  form: x\n".into());
        texts.insert(Path::new("/other/stacker.yaml").into(), "größe:\ntwo:\n".into());
        Diagnostics::new(texts)
    }

    #[test]
    fn errors_show_places_in_order_of_the_files() {
        let mut all = diagnostics();
        all.push(Diagnostic::warning("odd").at(place("/w/a/stacker.yaml", 0..3), ""));
        all.push(
            Diagnostic::error("unknown directive `form`")
                .at(place("/w/a/stacker.yaml", 7..11), "")
                .did_you_mean("form", ["imports", "from"]),
        );
        all.push(
            Diagnostic::error("defined twice")
                .at(place("/other/stacker.yaml", 9..12), "again here")
                .at(place("/w/a/stacker.yaml", 0..3), "first here"),
        );
        assert_eq!(all.warnings().len(), 1);
        let expected = "\
error: defined twice
 --> /other/stacker.yaml:2:1
  |
2 | two:
  | ^^^ again here
  |
 ::: a/stacker.yaml:1:1
  |
1 | one:
  | --- first here

error: unknown directive `form`
 --> a/stacker.yaml:2:3
  |
2 |   form: x
  |   ^^^^
  |
  = help: did you mean `from`?";
        assert_eq!(all.into_error().map(|error| error.to_string()).as_deref(), Some(expected));
    }

    #[test]
    fn only_warnings_are_no_error() {
        let mut all = diagnostics();
        all.push(Diagnostic::warning("odd").at(place("/w/a/stacker.yaml", 40..90), ""));
        assert!(!all.has_errors());
        assert!(all.into_error().is_none());
    }

    #[test]
    fn names_that_are_far_off_are_not_proposed() {
        let cases = [
            ("import", Some("imports")),
            ("buildonly", Some("build_only")),
            ("Run", Some("run")),
            ("ru", Some("run")),
            ("xyzzy", None),
            ("", None),
        ];
        for (unknown, expected) in cases {
            assert_eq!(nearest(unknown, ["imports", "build_only", "run"]), expected, "{unknown}");
        }
    }
}
