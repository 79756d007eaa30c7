//! `store.json`: which store this is, and with which ids its files are owned.
//!
//! A store that was written with another id map would show wrong owners, so it is refused rather than used.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::commit_point::CommitPoint;
use crate::database::boot_id;
use crate::digest::ContentDigest;
use crate::error::{At, Error, Result};
use crate::place::RootsDir;

use super::{StoreKind, boot, is_btrfs};

/// Format of the roots directory.
const FORMAT: u32 = 1;

/// What `store.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the roots directory.
    pub format: u32,
    /// Random; names this very store.
    pub id: String,
    /// How layers are stored.
    pub backend: StoreKind,
    /// Extents (inside, outside, count) of the user ids.
    pub uids: Vec<(u32, u32, u32)>,
    /// Extents of the group ids.
    pub gids: Vec<(u32, u32, u32)>,
}

/// What is known of a store before it is opened.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The kind that the user insists on.
    pub asked: Option<StoreKind>,
    /// Id and kind that an earlier build found in this place.
    pub before: Option<(String, StoreKind)>,
}

/// Reads the identity of a store, or gives a new one to an empty roots directory. Another id map or backend is an
/// error, and so is a place where a file system is not mounted. `takes_uppers` finds out whether overlayfs can write to
/// the roots directory; it is asked only where there is no store yet.
pub fn open(
    roots: &RootsDir,
    uids: &[(u32, u32, u32)],
    gids: &[(u32, u32, u32)],
    known: &Known,
    takes_uppers: &dyn Fn() -> Result<bool>,
) -> Result<Identity> {
    let path = roots.store_json();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let backend = new_kind(roots, known, takes_uppers)?;
            let (uids, gids) = (uids.to_vec(), gids.to_vec());
            return create(roots, &path, Identity { format: FORMAT, id: String::new(), backend, uids, gids });
        }
        Err(error) => return Err(error).at("read", &path),
    };
    let place = roots.0.display();
    let found: Found = serde_json::from_slice(&bytes).map_err(|error| {
        let path = path.display();
        Error::Machine(format!("{path} can not be understood ({error}): `stacker cache verify` writes it anew"))
    })?;
    let asked = known.asked.map(|kind| kind.to_string());
    let why = if found.format != FORMAT {
        format!("has format {}, this stacker knows {FORMAT}", found.format)
    } else if asked.as_ref().is_some_and(|asked| *asked != found.backend) {
        format!("is of the kind {}, not {}", found.backend, asked.unwrap_or_default())
    } else if found.uids != uids || found.gids != gids {
        format!("was written with other ids: users {:?}, now {uids:?}", found.uids)
    } else {
        match serde_json::from_slice(&bytes) {
            Ok(identity) => return check(identity, roots),
            Err(_) => format!("is of the kind {}, which this stacker does not know", found.backend),
        }
    };
    Err(Error::Machine(format!(
        "the store {place} {why}: choose another one with --roots-dir DIR and --stacker-dir DIR, or remove it"
    )))
}

/// Whether there is a `store.json` that nobody would write.
pub fn is_damaged(roots: &RootsDir) -> bool {
    std::fs::read(roots.store_json()).is_ok_and(|bytes| serde_json::from_slice::<Found>(&bytes).is_err())
}

/// What is read first, whoever wrote it.
#[derive(Deserialize)]
struct Found {
    format: u32,
    backend: String,
    uids: Vec<(u32, u32, u32)>,
    gids: Vec<(u32, u32, u32)>,
}

/// A btrfs store that was copied to another file system has lost its subvolumes.
fn check(identity: Identity, roots: &RootsDir) -> Result<Identity> {
    if identity.backend == StoreKind::Btrfs && !is_btrfs(&roots.0) {
        return Err(not_btrfs(roots, "the store"));
    }
    Ok(identity)
}

fn new_kind(roots: &RootsDir, known: &Known, takes_uppers: &dyn Fn() -> Result<bool>) -> Result<StoreKind> {
    let btrfs = is_btrfs(&roots.0);
    match (known.asked, &known.before) {
        (Some(StoreKind::Btrfs), _) if !btrfs => Err(not_btrfs(roots, "--storage-type btrfs: ")),
        (Some(asked), _) => Ok(asked),
        (None, Some((id, StoreKind::Btrfs))) if !btrfs => Err(Error::Machine(format!(
            "{} is empty, and the store {id} that was there is on btrfs: is its file system not mounted? Mount it; or, if \
             the store is gone for good, go on without it: --storage-type overlay",
            roots.0.display()
        ))),
        (None, _) if btrfs => Ok(StoreKind::Btrfs),
        (None, _) => Ok(if takes_uppers()? { StoreKind::Overlay } else { StoreKind::Copy }),
    }
}

fn not_btrfs(roots: &RootsDir, what: &str) -> Error {
    let place = roots.0.display();
    Error::Machine(format!("{what} {place} is not on btrfs: `stacker setup` puts it there, --roots-dir DIR elsewhere"))
}

fn create(roots: &RootsDir, path: &Path, identity: Identity) -> Result<Identity> {
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
    // Before there can be anything in it that a power cut could damage.
    boot::begin(roots, &boot_id()?)?;
    crate::record::write_once_for_good(directory, path, &text)?;
    CommitPoint::StoreWritten.reached();
    Ok(identity)
}
