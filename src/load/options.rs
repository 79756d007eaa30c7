//! What the command line says about reading stackerfiles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diag::{Diagnostic, Diagnostics, Texts};
use crate::error::Result;
use crate::git::Changes;

use super::files::read_text;
use super::reader::Reader;
use super::yaml;

/// What the command line says about reading stackerfiles.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--substitute NAME=VALUE`, in order.
    pub substitutes: Vec<(String, String)>,
    /// `--substitute-file`, as [`read_substitute_file`] gives it.
    pub substitute_file: BTreeMap<String, String>,
    /// Where that is, absolute.
    pub substitute_path: Option<PathBuf>,
    /// `STACKER_ROOTFS_DIR` and its like.
    pub builtins: Vec<(String, String)>,
    /// Absolute. Relative paths start here, messages show paths relative to it.
    pub working_dir: PathBuf,
    /// stacker's own directories: never descended into.
    pub exclude: Vec<PathBuf>,
    /// `--stacker-file-pattern`, matched against absolute paths. `None`: `/stacker\.yaml$`.
    pub pattern: Option<regex::Regex>,
    /// Ignore files do not count when stackerfiles are looked for.
    pub every_file: bool,
    /// `--require-hash`: an import from http(s) without a hash is a mistake.
    pub require_hash: bool,
    /// Texts without the built-in directories are wanted too, for `--provenance`.
    pub portable: bool,
    /// Messages have ANSI colours.
    pub colour: bool,
    /// Files are read as they were then.
    pub past: Option<Arc<Changes>>,
}

impl Options {
    /// An absolute path for one from the command line, without `.` and a trailing slash.
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        self.working_dir.join(path).components().collect()
    }

    /// Which files are stackerfiles.
    pub fn pattern(&self) -> regex::Regex {
        let usual = || regex::Regex::new(r"/stacker\.yaml$").expect("the pattern is constant");
        self.pattern.clone().unwrap_or_else(usual)
    }

    /// Nothing is wrong yet.
    pub(super) fn diagnostics(&self) -> Diagnostics {
        Diagnostics::new(Texts::new(&self.working_dir, self.colour))
    }
}

/// Reads a YAML map of texts. Values keep their spelling; a blank one is the empty text.
pub fn read_substitute_file(path: &Path) -> Result<BTreeMap<String, String>> {
    substitutes(path, read_text(path))
}

/// The same of what a path held, or the reason why that is not known.
pub fn substitutes(path: &Path, text: Result<String, String>) -> Result<BTreeMap<String, String>> {
    let mut diagnostics = Diagnostics::new(Texts::new(Path::new(""), false));
    let map = match text {
        Ok(text) => substitute_map(path, &text, &mut diagnostics),
        Err(reason) => {
            diagnostics.push(Diagnostic::error(format!("cannot read substitute file {}: {reason}", path.display())));
            None
        }
    };
    match diagnostics.into_error() {
        Some(error) => Err(error),
        None => Ok(map.unwrap_or_default()),
    }
}

fn substitute_map(path: &Path, text: &str, diagnostics: &mut Diagnostics) -> Option<BTreeMap<String, String>> {
    let shown: Arc<Path> = path.into();
    diagnostics.texts_mut().insert(shown.clone(), text.into());
    let mut reader = Reader::new(shown, Path::new(""));
    let (node, mistakes) = yaml::parse(text);
    reader.yaml_mistakes(mistakes);
    let map =
        node.filter(|node| node.kind != yaml::Kind::Blank).and_then(|node| reader.map("a substitute file", &node));
    diagnostics.extend(reader.diagnostics);
    map
}
