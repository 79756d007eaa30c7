//! A stackerfile as data: substituted, checked, every directive of its own type, every host path absolute.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Attributes, Network, Platform};
use crate::registry::ImageName;
use crate::resolve::Modes;

/// One file that was read.
#[derive(Clone, Debug)]
pub struct Stackerfile {
    /// Absolute.
    pub path: PathBuf,
    /// The text after substitution, which every [`Place`] refers to.
    pub text: Arc<str>,
    /// The same with built-in directories left as placeholders, and without the user names
    /// and passwords of URLs, so that nothing in it is of this host. Empty unless
    /// [`portable`](super::Options::portable) texts were asked for.
    pub portable: Arc<str>,
    /// `config.prerequisites`, absolute, each with its place in this file.
    pub prerequisites: Vec<(PathBuf, Place)>,
    /// In file order.
    pub layers: Vec<Layer>,
}

/// Bytes of a stackerfile's text, for a caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Absolute path of the stackerfile.
    pub path: Arc<std::path::Path>,
    /// Byte range in its substituted text.
    pub span: Range<usize>,
}

/// One layer as its stackerfile says it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Name and tag.
    pub name: String,
    /// Of the name.
    pub place: Place,
    /// `from`.
    pub base: Base,
    /// Those of `overlay_dirs`, then those of `imports`, each in the order of the file.
    pub imports: Vec<Import>,
    /// The script's lines joined, without the default `#!` line.
    pub run: Option<String>,
    /// `generate_labels`, as `run`.
    pub generate_labels: Option<String>,
    /// `binds`, in the order of the file.
    pub binds: Vec<Bind>,
    /// Environment of the run.
    pub build_env: BTreeMap<String, String>,
    /// Anchored regexes over names of host variables; compiled once here so that a bad one has a place.
    pub build_env_passthrough: Vec<regex::Regex>,
    /// What goes to the image config and manifest, never into a key.
    pub settings: ImageSettings,
    /// Built, never tagged.
    pub build_only: bool,
    /// Network of the run.
    pub network: Network,
    /// Platform of the result; `os`/`arch` or the host's.
    pub platform: Platform,
    /// `os` or `arch` was written.
    pub platform_given: bool,
}

impl Layer {
    /// All that it says, without where: two layers say the same if these texts are equal. `real` spells a path of the
    /// host as it is known by.
    pub fn definition(&self, real: impl Fn(&Path) -> PathBuf) -> String {
        let nowhere = Place { path: Path::new("").into(), span: 0..0 };
        let mut layer = Layer { place: nowhere.clone(), ..self.clone() };
        match &mut layer.base {
            Base::Built { place, .. }
            | Base::Oci { place, .. }
            | Base::Registry { place, .. }
            | Base::Tar { place, .. }
            | Base::LayerTar { place, .. }
            | Base::UrlTar { place, .. } => *place = nowhere.clone(),
            Base::Scratch => {}
        }
        if let Base::Tar { path, .. } | Base::Oci { layout: path, .. } = &mut layer.base {
            *path = real(path);
        }
        for import in &mut layer.imports {
            import.place = nowhere.clone();
            if let Source::Host { path, .. } = &mut import.source {
                *path = real(path);
            }
        }
        for bind in &mut layer.binds {
            (bind.place, bind.source) = (nowhere.clone(), real(&bind.source));
        }
        format!("{layer:?}")
    }
}

/// `from`.
#[derive(Clone, Debug)]
pub enum Base {
    /// Another layer.
    Built {
        /// Its name.
        tag: String,
        /// Of the name.
        place: Place,
    },
    /// A tag of an OCI layout on disk.
    Oci {
        /// Absolute path of the layout.
        layout: PathBuf,
        /// The tag, or `None` when the layout's only manifest is meant.
        tag: Option<String>,
        /// Of the url.
        place: Place,
    },
    /// An image at a registry.
    Registry {
        /// Its name.
        name: ImageName,
        /// Plain http, or TLS without a look at certificates, is good enough.
        insecure: bool,
        /// Of the url.
        place: Place,
    },
    /// A tar on disk.
    Tar {
        /// Absolute.
        path: PathBuf,
        /// Of the url.
        place: Place,
    },
    /// A tar that is a file of another layer: `stacker://layer/path`.
    LayerTar {
        /// Name.
        layer: String,
        /// Absolute path in it.
        path: String,
        /// Of the url.
        place: Place,
    },
    /// A tar on a server.
    UrlTar {
        /// http or https; it may hold credentials, which are not shown.
        url: String,
        /// Of the url.
        place: Place,
    },
    /// An empty root.
    Scratch,
}

/// One entry of `imports`, `import` or `overlay_dirs`.
#[derive(Clone, Debug)]
pub struct Import {
    /// In which of these it stands.
    pub written: Written,
    /// Of the path.
    pub place: Place,
    /// Where it comes from.
    pub source: Source,
    /// As written, absolute, with its trailing slash.
    pub dest: Option<String>,
    /// `mode`, `uid`, `gid`.
    pub attributes: Attributes,
    /// sha256 that a file must have.
    pub hash: Option<[u8; 32]>,
}

/// One entry of `binds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Of the source.
    pub place: Place,
    /// The source as written.
    pub written: String,
    /// The source, absolute, without a trailing slash.
    pub source: PathBuf,
    /// Absolute, without a trailing slash.
    pub dest: String,
    /// `key: content`; else its content is no input.
    pub keyed: bool,
}

/// The directive that an import stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// `imports`.
    Imports,
    /// `import`, the old spelling.
    Import,
    /// `overlay_dirs`: a directory whose contents go to a `dest`, with the host's modes.
    OverlayDirs,
}

impl Written {
    /// What of the host's modes it keeps.
    pub fn modes(self) -> Modes {
        match self {
            Written::Imports | Written::Import => Modes::Normalised,
            Written::OverlayDirs => Modes::Host,
        }
    }
}

impl Import {
    /// The directories in which it is seen during a run, each under its own name. None: it has a `dest`.
    pub fn seen_in(&self) -> &'static [&'static str] {
        match (&self.dest, self.written) {
            (Some(_), _) | (None, Written::OverlayDirs) => &[],
            (None, Written::Imports) => &["/stacker/imports"],
            (None, Written::Import) => &["/stacker/imports", "/stacker"],
        }
    }
}

/// Where an import comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file or directory of the host.
    Host {
        /// Absolute, without a trailing slash.
        path: PathBuf,
        /// It was written with one.
        trailing_slash: bool,
    },
    /// A file or directory of another layer: `stacker://layer/path`.
    Layer {
        /// Name.
        layer: String,
        /// Absolute path in it, with its trailing slash where it was written with one.
        path: String,
    },
    /// A file on a server.
    Url {
        /// http or https; it may hold credentials, which are not shown.
        url: String,
    },
}

/// Directives that end in image config and manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// Variables; replace those of the base.
    pub environment: BTreeMap<String, String>,
    /// Config labels.
    pub labels: BTreeMap<String, String>,
    /// Manifest annotations.
    pub annotations: BTreeMap<String, String>,
    /// `None`: inherited.
    pub cmd: Option<Vec<String>>,
    /// `None`: inherited. `full_command` sets this, and `cmd` to empty.
    pub entrypoint: Option<Vec<String>>,
    /// `None`: inherited.
    pub working_dir: Option<String>,
    /// `None`: inherited.
    pub runtime_user: Option<String>,
    /// Added to the base's.
    pub volumes: Vec<String>,
    /// Added to the base's, each `PORT/PROTOCOL`.
    pub exposed_ports: Vec<String>,
    /// `None`: inherited.
    pub stop_signal: Option<String>,
    /// `None`: inherited. Replaces the base's as a whole.
    pub healthcheck: Option<Healthcheck>,
}

/// `healthcheck`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// Containers are not checked, whatever the base says.
    None,
    /// How they are.
    Probe(Probe),
}

/// How a container is asked whether it is well. What is `None` the engine chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// `CMD` and a program with its arguments, or `CMD-SHELL` and a command.
    pub test: Vec<String>,
    /// Between two tests.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// How long after the start failures do not count.
    pub start_period: Option<Duration>,
    /// Between two tests in that time.
    pub start_interval: Option<Duration>,
    /// Failures in a row until it counts as ill.
    pub retries: Option<u32>,
}
