//! `store.json`: which store this is, and with which ids its files are owned.
//!
//! A store that was written with another id map would show wrong owners, so it is refused rather than used.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::ContentDigest;
use crate::error::{At, Error, Result};
use crate::place::RootsDir;

/// Format of the roots directory.
const FORMAT: u32 = 1;

/// What `store.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the roots directory.
    pub format: u32,
    /// Random; names this very store.
    pub id: String,
    /// `overlay`.
    pub backend: String,
    /// Extents (inside, outside, count) of the user ids.
    pub uids: Vec<(u32, u32, u32)>,
    /// Extents of the group ids.
    pub gids: Vec<(u32, u32, u32)>,
}

/// Reads the identity of a store, or gives a new one to an empty roots directory. Another id map or backend is an error.
pub fn open(roots: &RootsDir, uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) -> Result<Identity> {
    let path = roots.store_json();
    let wanted = Identity {
        format: FORMAT,
        id: String::new(),
        backend: "overlay".to_owned(),
        uids: uids.to_vec(),
        gids: gids.to_vec(),
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return create(&path, wanted),
        Err(error) => return Err(error).at("read", &path),
    };
    let found: Identity = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Machine(format!("{} can not be understood: {error}", path.display())))?;
    if (Identity { id: String::new(), ..found.clone() }) == wanted {
        return Ok(found);
    }
    let path = roots.0.display();
    let why = if found.format != FORMAT {
        format!("has format {}, this stacker knows {FORMAT}", found.format)
    } else if found.backend != wanted.backend {
        format!("is of the kind {}, not {}", found.backend, wanted.backend)
    } else {
        format!("was written with other ids: users {:?}, now {:?}", found.uids, wanted.uids)
    };
    Err(Error::Machine(format!(
        "the store {path} {why}: choose another one with --roots-dir DIR and --stacker-dir DIR, or remove it"
    )))
}

fn create(path: &Path, identity: Identity) -> Result<Identity> {
    let mut random = [0; 32];
    let mut filled = 0;
    while filled < random.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut random[filled..], flags).at("get random bytes for", path)?;
    }
    let identity = Identity { id: ContentDigest(random).short(), ..identity };
    let mut text = serde_json::to_vec_pretty(&identity).map_err(std::io::Error::from).at("encode", path)?;
    text.push(b'\n');
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).at("create", directory)?;
    crate::record::write_once(directory, path, &text)?;
    Ok(identity)
}
