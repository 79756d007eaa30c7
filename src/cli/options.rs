//! The command line as meant: directories resolved, words parsed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::http;
use crate::inputs::absolute;
use crate::place::{RootsDir, StackerDir};
use crate::worker::message::Compression;

use super::config::{Config, Size};
use super::{Codec, Global};

/// Where this invocation reads and writes.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Of the main process.
    pub stacker: StackerDir,
    /// Of the workers.
    pub roots: RootsDir,
    /// The layout.
    pub oci: PathBuf,
    /// The current directory.
    pub working: PathBuf,
    /// The store is the user's, shared by all checkouts.
    pub shared: bool,
}

impl Directories {
    /// Those that jobs write to.
    pub fn written(&self) -> [&Path; 2] {
        [&self.stacker.0, &self.roots.0]
    }

    /// Explicit flags, else `--work-dir`, else the configuration file, else an existing `.stacker` here, else the user's
    /// cache.
    pub fn resolve(global: &Global, config: &Config) -> Result<Directories> {
        let working = std::env::current_dir()
            .map_err(|error| Error::Machine(format!("cannot find out the current directory: {error}")))?;
        // What a flag says of all of them must not be half true.
        let config = match &global.work_dir {
            Some(_) => Config { oci_dir: config.oci_dir.clone(), ..Config::default() },
            None => config.clone(),
        };
        let chosen = |flag: &Option<PathBuf>, config: &Option<PathBuf>| {
            flag.as_deref().or(config.as_deref()).map(absolute).transpose()
        };
        let configured = config.stacker_dir.is_some() || config.work_dir.is_some();
        let stacker_dir = chosen(&global.stacker_dir, &config.stacker_dir)?;
        let local = match chosen(&global.work_dir, &config.work_dir)? {
            None if working.join(".stacker").is_dir() => Some(working.clone()),
            directory => directory,
        };
        // What the configuration file names is as good as the cache: it is there for all that the user builds.
        let shared = (local.is_none() || configured) && global.stacker_dir.is_none();
        let stacker = match (&stacker_dir, &local) {
            (Some(directory), _) => directory.clone(),
            (None, Some(local)) => local.join(".stacker"),
            (None, None) => user_cache()?,
        };
        let roots = match (chosen(&global.roots_dir, &config.rootfs_dir)?, &local) {
            (Some(directory), _) => directory,
            (None, Some(local)) if stacker_dir.is_none() => local.join("roots"),
            (None, _) => stacker.join("roots"),
        };
        let oci = chosen(&global.oci_dir, &config.oci_dir)?.map_or_else(|| absolute(Path::new("oci")), Ok)?;
        Ok(Directories { stacker: StackerDir(stacker), roots: RootsDir(roots), oci, working, shared })
    }

    /// Directories that are never part of an import and never searched for stackerfiles.
    pub fn own(&self) -> Vec<PathBuf> {
        vec![self.stacker.0.clone(), self.roots.0.clone(), self.oci.clone()]
    }

    /// What `${{STACKER_…_DIR}}` stands for.
    pub fn builtins(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            ("STACKER_ROOTFS_DIR".to_owned(), text(&self.roots.0)),
            ("STACKER_STACKER_DIR".to_owned(), text(&self.stacker.0)),
            ("STACKER_OCI_DIR".to_owned(), text(&self.oci)),
            ("STACKER_WORK_DIR".to_owned(), text(&self.working)),
        ]
    }
}

/// How the network is used: flags, else the configuration file.
pub fn network(global: &Global, config: &Config) -> Result<http::Options> {
    let given = &global.network;
    let usual = http::Options::default();
    Ok(http::Options {
        ca_file: given.ca_file.as_deref().or(config.ca_file.as_deref()).map(absolute).transpose()?,
        offline: given.offline,
        retries: given.retries.map_or(usual.retries, usize::from),
        patience: given.network_timeout.map_or(usual.patience, |seconds| Duration::from_secs(seconds.into())),
    })
}

/// What the cache may hold when a build is over, in bytes: the flag, else the configuration file.
pub fn quota(global: &Global, config: &Config) -> Result<Option<u64>> {
    match global.cache_max_size {
        Some(size) => Ok(Some(size.as_u64())),
        None => config.cache_max_size.as_ref().map(Size::bytes).transpose(),
    }
}

/// A path that a variable names.
pub(super) fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn user_cache() -> Result<PathBuf> {
    if let Some(cache) = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        return Ok(cache.join("stacker"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/cache/stacker"));
    }
    match variable("HOME") {
        Some(home) => Ok(home.join(".cache/stacker")),
        None => Err(Error::Usage("neither HOME nor XDG_CACHE_HOME is set: say --stacker-dir DIR".to_owned())),
    }
}

/// `--compression` with its level.
pub fn compression(codec: Codec, level: Option<i32>) -> Result<Compression> {
    let wrong = |range| Error::Usage(format!("--compression-level: {codec:?} takes a level from {range}"));
    match (codec, level) {
        (Codec::Gzip, None) => Ok(Compression::Gzip(6)),
        (Codec::Gzip, Some(level @ 1..=9)) => Ok(Compression::Gzip(level as u32)),
        (Codec::Gzip, Some(_)) => Err(wrong("1 to 9")),
        (Codec::Zstd, None) => Ok(Compression::Zstd(3)),
        (Codec::Zstd, Some(level @ 1..=19)) => Ok(Compression::Zstd(level)),
        (Codec::Zstd, Some(_)) => Err(wrong("1 to 19")),
        (Codec::None, None) => Ok(Compression::None),
        (Codec::None, Some(_)) => Err(Error::Usage("--compression-level: none has no level".to_owned())),
    }
}

/// What the names of annotations begin with, which is checked whether or not it is used.
pub fn namespace(text: &str) -> std::result::Result<String, String> {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    match text.is_empty() || text.ends_with('.') || text.contains(odd) {
        true => Err("wanted something like com.example".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// `NAME=VALUE`, split at the first `=`.
pub fn substitute(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::Usage(format!("--substitute: wanted NAME=VALUE, found {text:?}"))),
    }
}

/// RFC 3339, or seconds since 1970.
pub fn time(text: &str) -> Result<i64> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    text.parse::<jiff::Timestamp>()
        .map(|time| time.as_second())
        .map_err(|error| Error::Usage(format!("--created {text:?}: {error}")))
}

/// A span such as `30d`, `12h` or `2w`, in seconds.
pub fn age(flag: &str, text: &str) -> Result<u64> {
    let wrong = |error: jiff::Error| Error::Usage(format!("{flag} {text:?}: {error}; write 30d, 12h or 2w"));
    let span: jiff::Span = text.parse().map_err(wrong)?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let seconds = span.total((jiff::Unit::Second, days)).map_err(wrong)?;
    if seconds < 0.0 {
        return Err(Error::Usage(format!("{flag} {text:?} lies in the future")));
    }
    Ok(seconds as u64)
}

/// The cores that the cgroup gives.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
