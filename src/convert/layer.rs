//! What is written: layers as plain data, every value a text that may hold placeholders.

use std::ops::Range;

/// One layer of the stackerfile.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// What could not be carried over, and what it came from.
    pub comments: Vec<String>,
    pub name: String,
    pub base: Base,
    pub build_only: bool,
    /// `os` and `arch`, where the Dockerfile names them.
    pub platform: Option<(String, String)>,
    /// Source and dest of the one `overlay_dirs` entry.
    pub overlay: Option<(String, String)>,
    pub imports: Vec<OutImport>,
    /// Source and dest.
    pub binds: Vec<(String, String)>,
    pub network_none: bool,
    pub build_env: Vec<(String, String)>,
    /// Stands before the script.
    pub preamble: Option<Preamble>,
    pub run: Option<String>,
    /// Only of the last layer of a stage.
    pub settings: Settings,
}

/// `from`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Base {
    #[default]
    Scratch,
    Docker(String),
    Tar(String),
    Built(String),
}

/// An entry of `imports`.
#[derive(Clone, Debug, Default)]
pub(super) struct OutImport {
    pub path: String,
    pub dest: Option<String>,
    pub mode: Option<String>,
    pub uid: Option<String>,
    pub gid: Option<String>,
    pub hash: Option<String>,
}

/// A piece of shell that several scripts begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preamble {
    /// Of its YAML anchor.
    pub name: &'static str,
    pub text: &'static str,
    /// It is written here; later ones refer to it.
    pub first: bool,
}

/// The image's configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub environment: Vec<(String, String)>,
    pub labels: Vec<(String, String)>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub stop_signal: Option<String>,
    pub volumes: Vec<String>,
    pub exposed_ports: Vec<String>,
    /// Empty: none.
    pub healthcheck: Option<Vec<(String, Vec<String>)>>,
}

/// Replaces the value of a name, or adds it.
pub(super) fn set(pairs: &mut Vec<(String, String)>, name: String, value: String) {
    match pairs.iter_mut().find(|(known, _)| *known == name) {
        Some(pair) => pair.1 = value,
        None => pairs.push((name, value)),
    }
}

/// Something that a stackerfile says otherwise or not at all.
#[derive(Clone, Debug)]
pub(super) struct Remark {
    pub span: Range<usize>,
    pub title: String,
    pub help: Option<String>,
}
