//! Listings of import trees as files, and sha256 of host files.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::commit_point::CommitPoint;
use crate::digest::{ContentDigest, TreeDigest};
use crate::error::{At, Result};
use crate::listing::{self, Entry};
use crate::place::StackerDir;

/// Writes the listing of an import tree, unless it is there: what a digest names never changes.
pub fn keep_tree_listing(dir: &StackerDir, tree: &TreeDigest, entries: &[Entry]) -> Result<()> {
    let path = dir.tree_listing(tree);
    if path.exists() {
        return Ok(());
    }
    let tmp = tempfile::NamedTempFile::new_in(dir.tmp()).at("create a file in", dir.tmp())?;
    let mut out = BufWriter::new(tmp.as_file());
    listing::write(entries.iter(), &mut out).and_then(|()| out.flush()).at("write", tmp.path())?;
    drop(out);
    tmp.as_file().set_permissions(Permissions::from_mode(0o644)).at("chmod", tmp.path())?;
    tmp.persist(&path).map_err(|error| error.error).at("rename", &path)?;
    CommitPoint::TreeListingNamed.reached();
    Ok(())
}

/// The sha256 of a file, for comparing with the one that a stackerfile gives.
pub fn sha256_file(path: &Path) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    each_piece(path, |piece| hasher.update(piece))?;
    Ok(hasher.finalize().into())
}

/// The same, if the file is still what its digest says.
pub fn sha256_of(path: &Path, content: &ContentDigest) -> Result<Option<[u8; 32]>> {
    let (mut hasher, mut same) = (Sha256::new(), blake3::Hasher::new());
    each_piece(path, |piece| {
        hasher.update(piece);
        same.update(piece);
    })?;
    Ok((same.finalize().as_bytes() == &content.0).then(|| hasher.finalize().into()))
}

/// The blake3 and the sha256 of a file, of which nothing is known yet.
pub fn digests_of(path: &Path) -> Result<(ContentDigest, [u8; 32])> {
    let (mut hasher, mut content) = (Sha256::new(), blake3::Hasher::new());
    each_piece(path, |piece| {
        hasher.update(piece);
        content.update(piece);
    })?;
    Ok((ContentDigest(*content.finalize().as_bytes()), hasher.finalize().into()))
}

fn each_piece(path: &Path, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut file = File::open(path).at("open", path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path),
        }
    }
}
