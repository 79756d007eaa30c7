//! A record is the truth about one result: an immutable file, named by the blake3 of its bytes.
//!
//! It starts in `fresh/` and is renamed to `records/` once what it speaks of is known to be on disk. The database is an
//! index over records and can be made from them again. Nothing here knows SQLite.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::digest::{ContentDigest, DiffId, Key};
use crate::error::{At, Result};
use crate::listing::Time;
use crate::place::StackerDir;

/// Format of the record files.
pub const FORMAT: u32 = 1;

/// What the cache knows about a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionResult {
    /// The layer; `None`: nothing changed, the chain stays.
    pub diff_id: Option<DiffId>,
    /// Facts about the layer; `None` when there is none.
    pub layer: Option<LayerInfo>,
    /// What a `Labels` action came out as; no other has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The tier that built it.
    pub tier: String,
    /// How long that took.
    pub seconds: f64,
    /// When, in seconds since 1970.
    pub created: i64,
}

/// Facts about a layer that follow from its listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// The newest mtime.
    pub newest: Time,
    /// Entries of the listing.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Bytes of the tar.
    pub tar_bytes: u64,
}

/// One file of `records/` or `fresh/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// The key of `action`.
    pub key: Key,
    /// What was done.
    pub action: Action,
    /// What came out.
    pub result: ActionResult,
    /// The boot in which it was written.
    pub boot: String,
}

impl Record {
    /// A record of this boot.
    pub fn new(action: &Action, result: &ActionResult, boot: &str) -> Record {
        Record {
            format: FORMAT,
            key: action.key(),
            action: action.clone(),
            result: result.clone(),
            boot: boot.to_owned(),
        }
    }

    /// Writes it to `fresh/` and gives back its name. Writing the same record again changes nothing.
    pub fn write_fresh(&self, dir: &StackerDir) -> Result<String> {
        let bytes = self.to_bytes()?;
        let name = ContentDigest::of(&bytes).hex();
        write_once(&dir.tmp(), &dir.fresh().join(&name), &bytes)?;
        Ok(name)
    }

    /// The bytes of its file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self).map_err(std::io::Error::from).at("encode", "a record")?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The inverse; `None` for what is none of ours, see [`Record::read`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Record> {
        let record = serde_json::from_slice::<Record>(bytes).ok();
        record.filter(|record| record.format == FORMAT && record.key == record.action.key())
    }

    /// Reads a record; `None` for what is none of ours: another format, bytes that do not match the name (a torn write),
    /// or an action whose key is derived differently today.
    pub fn read(path: &Path) -> Result<Option<Record>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.at("read", path)?,
        };
        let named = path.file_name().is_some_and(|name| name == ContentDigest::of(&bytes).hex().as_str());
        Ok(Record::from_bytes(&bytes).filter(|_| named))
    }

    /// Whether a file has the name that its bytes give it; one that is gone counts as such.
    pub fn is_named_right(path: &Path) -> bool {
        match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            // Read by nobody, it is no record; renaming needs no more than the directory.
            Err(_) => false,
            Ok(bytes) => path.file_name().is_some_and(|name| name == ContentDigest::of(&bytes).hex().as_str()),
        }
    }
}

impl StackerDir {
    /// Records of this boot whose data is not yet known to be on disk.
    pub fn fresh(&self) -> PathBuf {
        self.0.join("fresh")
    }

    /// Records whose data is on disk.
    pub fn records(&self) -> PathBuf {
        self.0.join("records")
    }
}

/// The names in `directory`.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).at("read", directory)? {
        // Names of records are hexadecimal: what is not UTF-8 is none.
        names.extend(entry.at("read", directory)?.file_name().into_string());
    }
    Ok(names)
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.at("remove", path),
    }
}

/// Puts a whole file at `path`, or nothing: a name under which a part could be read never exists, unless the power is cut.
pub(crate) fn write_once(tmp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    put(tmp, path, bytes, false)
}

/// As [`write_once`], for files that cannot be made again: not even a power cut leaves a part.
pub(crate) fn write_once_for_good(tmp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    put(tmp, path, bytes, true)
}

fn put(tmp: &Path, path: &Path, bytes: &[u8], for_good: bool) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(tmp).at("create a file in", tmp)?;
    file.write_all(bytes).at("write", path)?;
    if for_good {
        file.as_file().sync_all().at("sync", path)?;
    }
    file.persist(path).map_err(|error| error.error).at("rename to", path)?;
    Ok(())
}
