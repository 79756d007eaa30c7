//! Where the documents and layers of an image are: in a layout, or at a registry that is asked for what is not here.

use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;

use super::blob::{blob_path, read_document, sha256};
use crate::digest::BlobDigest;
use crate::error::{At, Error, Result};
use crate::regular;

/// What an image is read from.
pub trait Source {
    /// Its name in messages: `OCI layout /path`, `docker://host/name:tag`.
    fn shown(&self) -> String;

    /// Reads the document that a descriptor names, checked against size and digest; `what` says in messages what it
    /// should be ("manifest", "config").
    fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>>;

    /// Where the blob of a layer lies, or will lie when it is needed.
    fn layer(&self, digest: &BlobDigest, size: u64) -> Result<PathBuf>;

    /// The digest as ours; other algorithms than sha256 are an error.
    fn sha256(&self, descriptor: &Descriptor) -> Result<BlobDigest> {
        sha256(&self.shown(), descriptor.digest())
    }
}

/// Parses a checked document.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    source: &dyn Source,
    descriptor: &Descriptor,
    what: &str,
    bytes: &[u8],
) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (shown, digest) = (source.shown(), descriptor.digest());
        Error::Build(format!("{shown}: {what} {digest} can not be understood: {error}"))
    })
}

/// The layout at a path.
pub(super) struct OnDisk<'a>(pub &'a Path);

impl Source for OnDisk<'_> {
    fn shown(&self) -> String {
        format!("OCI layout {}", self.0.display())
    }

    fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        read_document(self.0, descriptor, what)
    }

    fn layer(&self, digest: &BlobDigest, size: u64) -> Result<PathBuf> {
        let path = blob_path(self.0, digest);
        let wrong = |why: String| Error::Build(format!("{}: layer {digest} {why}", self.shown()));
        match regular::open(&path).and_then(|file| file.map(|file| file.metadata()).transpose()) {
            Ok(None) => Err(wrong(format!("is damaged: {} is not a file", path.display()))),
            Ok(Some(found)) if found.len() == size => Ok(path),
            Ok(Some(found)) => {
                let found = found.len();
                Err(wrong(format!("is damaged: {} has {found} bytes, expected {size}", path.display())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(wrong(format!("is missing: there is no {}", path.display())))
            }
            Err(error) => Err(error).at("open", &path),
        }
    }
}
