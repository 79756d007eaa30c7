//! The configuration file: where things lie, for who does not say it each time.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{At, Error, Result};

use super::options::variable;

/// What it says. Relative paths start at the working directory, as those of the flags.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// As `--work-dir`.
    pub work_dir: Option<PathBuf>,
    /// As `--stacker-dir`.
    pub stacker_dir: Option<PathBuf>,
    /// As `--oci-dir`.
    pub oci_dir: Option<PathBuf>,
    /// As `--roots-dir`.
    pub rootfs_dir: Option<PathBuf>,
    /// As `--ca-file`.
    pub ca_file: Option<PathBuf>,
    /// As `--provenance`.
    pub provenance: Option<bool>,
    /// As `--cache-max-size`.
    pub cache_max_size: Option<Size>,
}

/// A size as people write it, `20GiB`, or a number of bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Bytes.
    Number(u64),
    /// With its unit.
    Text(String),
}

impl Size {
    /// In bytes.
    pub fn bytes(&self) -> Result<u64> {
        match self {
            Size::Number(bytes) => Ok(*bytes),
            Size::Text(text) => text.parse::<bytesize::ByteSize>().map(|size| size.as_u64()).map_err(|_| {
                Error::Usage(format!("cache_max_size in the configuration file: {text:?} is no size; write 20GiB"))
            }),
        }
    }
}

impl Config {
    /// Reads the file that was named, which must be there, else the user's, if there is one.
    pub fn read(named: Option<&Path>) -> Result<Config> {
        let Some(path) = named.map(Path::to_path_buf).or_else(of_the_user) else { return Ok(Config::default()) };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if named.is_none() && (error.kind() == ErrorKind::NotFound || is_of_another(&path)) => {
                return Ok(Config::default());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::Usage(format!("--config: there is no {}", path.display())));
            }
            other => other.at("read", &path)?,
        };
        let read: Option<Config> = serde_yaml::from_str(&text).map_err(|error| {
            let shown = path.display().to_string();
            let places = error.to_string().replace("<input>", &shown);
            Error::Usage(format!("{shown} is no configuration file: {}", places.trim_start_matches("error: ")))
        })?;
        Ok(read.unwrap_or_default())
    }
}

/// Whether it lies where one may not look: HOME is somebody else's, as after sudo or setpriv.
fn is_of_another(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

fn of_the_user() -> Option<PathBuf> {
    let configured = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let directory = configured.or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(directory.join("stacker/conf.yaml"))
}
