//! Small documents of a layout (indexes, manifests, configs), read whole and checked against size and digest.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm};

use crate::digest::BlobDigest;
use crate::error::{At, Error, Result};
use crate::regular;

/// Registries refuse manifests above 4 MB; a layout whose "manifest" is larger is broken or hostile.
pub const MAX_DOCUMENT: u64 = 16 << 20;

/// Where a blob lies in the layout at `root`.
pub fn blob_path(root: &Path, digest: &BlobDigest) -> PathBuf {
    root.join("blobs/sha256").join(digest.hex())
}

/// The digest as ours; other algorithms than sha256 are an error that names what it was found in.
pub(crate) fn sha256(shown: &str, digest: &Digest) -> Result<BlobDigest> {
    match (digest.algorithm(), digest.to_string().parse()) {
        (DigestAlgorithm::Sha256, Ok(digest)) => Ok(digest),
        _ => Err(Error::Build(format!("{shown}: the digest {digest} is not supported, only sha256 is"))),
    }
}

/// Reads the document that a descriptor names; `what` says in messages what it should be ("manifest", "config").
pub fn read_document(root: &Path, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
    let digest = sha256(&format!("OCI layout {}", root.display()), descriptor.digest())?;
    let path = blob_path(root, &digest);
    let wrong = |why: String| Error::Build(format!("OCI layout {}: {what} {digest} {why}", root.display()));
    let file = match regular::open(&path) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(wrong(format!("is damaged: {} is not a file", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong(format!("is missing: there is no {}", path.display())));
        }
        Err(error) => return Err(error).at("open", &path),
    };
    if descriptor.size() > MAX_DOCUMENT {
        return Err(wrong(format!(
            "is said to have {} bytes; more than {MAX_DOCUMENT} are refused",
            descriptor.size()
        )));
    }
    let mut bytes = Vec::with_capacity(descriptor.size() as usize + 1);
    file.take(descriptor.size() + 1).read_to_end(&mut bytes).at("read", &path)?;
    if bytes.len() as u64 != descriptor.size() {
        return Err(wrong(format!(
            "is damaged: {} does not have the expected {} bytes",
            path.display(),
            descriptor.size()
        )));
    }
    let found = BlobDigest::of(&bytes);
    if found != digest {
        return Err(wrong(format!("is damaged: the bytes of {} have digest {found}", path.display())));
    }
    Ok(bytes)
}
