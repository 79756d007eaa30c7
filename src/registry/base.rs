//! Base images at registries: what a name leads to, with the documents that say so kept in the stacker directory.
//!
//! A tag is asked for once a build. What it led to is remembered for `--offline`, and used for nothing else: where a
//! registry does not answer, a build fails rather than to take an old image for the newest.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::{Descriptor, Digest, MediaType};
use reqwest::header::{ACCEPT, HeaderMap};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::name::ImageName;
use super::repository::Repository;
use crate::action::Platform;
use crate::digest::BlobDigest;
use crate::error::{At, Error, Result};
use crate::http::Failure;
use crate::oci::{BaseImage, MAX_DOCUMENT, Source, image_of};
use crate::place::StackerDir;

/// What we read.
pub(super) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The digest of a manifest, as the registry knows it.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What a tag led to when it was asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Of a manifest or an index.
    pub digest: BlobDigest,
    /// When, in seconds since 1970.
    pub when: i64,
}

/// A base image that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What layers build on. Its blobs may not be here.
    pub image: BaseImage,
    /// Index, manifest, config and layers, with their sizes.
    pub blobs: BTreeMap<BlobDigest, u64>,
    /// Where they lie.
    pub repository: Arc<Repository>,
}

/// A name of a base, to be looked up.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// As the stackerfile has it.
    pub name: &'a ImageName,
    /// Where it lies.
    pub repository: Arc<Repository>,
    /// Where documents are kept.
    pub stacker: &'a StackerDir,
    /// Nobody is asked.
    pub offline: bool,
    /// What it led to.
    pub remembered: Option<Remembered>,
}

impl Lookup<'_> {
    /// What the name leads to now, of its index or manifest; that is here then. With a digest in the name, nobody is
    /// asked for what is here.
    pub fn root(&self) -> Result<BlobDigest> {
        let (name, stacker) = (self.name, self.stacker);
        if let Some(digest) = self.name.digest() {
            if document(stacker, &digest)?.is_none() {
                if self.offline {
                    return Err(Error::Build(format!(
                        "{name} is not here, and --offline asks no registry: build once without it"
                    )));
                }
                self.fetch_manifest(&digest.to_string(), Some(digest)).map_err(|failed| self.told(failed))?;
            }
            return Ok(digest);
        }
        match (self.offline, &self.remembered) {
            (true, Some(remembered)) => Ok(remembered.digest),
            (true, None) => Err(Error::Build(format!(
                "{name} was never asked for, and --offline asks no registry: build once without it, or write a digest"
            ))),
            (false, _) => self.ask().map_err(|failed| self.told(failed)),
        }
    }

    /// The image for a platform; its documents are fetched as far as they are not here.
    pub fn image(&self, root: BlobDigest, platform: &Platform) -> Result<Found> {
        let source = AtRegistry { lookup: self, blobs: RefCell::default() };
        let bytes = match document(self.stacker, &root)? {
            Some(bytes) => bytes,
            None if self.offline => return Err(self.not_here("manifest", &root)),
            None => self.fetch_manifest(&root.to_string(), Some(root)).map_err(|failed| self.told(failed))?.1,
        };
        let media_type = media_type(&bytes).map_err(|why| Error::Build(format!("{}: {root} {why}", self.name)))?;
        let descriptor = Descriptor::new(media_type, bytes.len() as u64, oci_digest(&root));
        let image = image_of(&source, &descriptor, "it", platform)?;
        Ok(Found { image, blobs: source.blobs.into_inner(), repository: self.repository.clone() })
    }

    /// Asks what the tag leads to. If that is here, it is not fetched again.
    fn ask(&self) -> Result<BlobDigest, Failure> {
        let tag = self.name.tag().unwrap_or("latest");
        if self.remembered.is_some() {
            let url = self.repository.url(&format!("manifests/{tag}"))?;
            let answer = self.repository.send(&Method::HEAD, &url, &|request| Ok(request.header(ACCEPT, MANIFESTS)))?;
            if answer.status().is_success()
                && let Some(digest) = digest_of(answer.headers())
                && document(self.stacker, &digest)?.is_some()
            {
                return Ok(digest);
            }
        }
        self.fetch_manifest(tag, None).map(|(digest, _)| digest)
    }

    /// Gets a manifest or an index, and keeps it.
    fn fetch_manifest(&self, reference: &str, wanted: Option<BlobDigest>) -> Result<(BlobDigest, Vec<u8>), Failure> {
        let url = self.repository.url(&format!("manifests/{reference}"))?;
        let (bytes, headers) = self.get(&url, MAX_DOCUMENT, MANIFESTS)?;
        let found = BlobDigest::of(&bytes);
        match wanted.or_else(|| digest_of(&headers)) {
            Some(wanted) if wanted != found => {
                let url = crate::http::shown(&url);
                return Err(Failure::new(format!(
                    "GET {url}: the registry sends something else: {} bytes with the digest {found}, wanted {wanted}",
                    bytes.len()
                )));
            }
            _ => {}
        }
        self.keep(&found, &bytes)?;
        Ok((found, bytes))
    }

    fn get(&self, url: &str, most: u64, accept: &str) -> Result<(Vec<u8>, HeaderMap), Failure> {
        let directory = self.stacker.tmp();
        let mut file = tempfile::tempfile_in(&directory).at("create a file in", &directory)?;
        let shape = |request: reqwest::blocking::RequestBuilder| Ok(request.header(ACCEPT, accept));
        let headers = self.repository.download(url, (&mut file, &directory), most, &shape, &|_, _| ())?;
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).at("read a file in", &directory)?;
        Ok((bytes, headers))
    }

    fn keep(&self, digest: &BlobDigest, bytes: &[u8]) -> Result<()> {
        crate::record::write_once_for_good(&self.stacker.tmp(), &self.stacker.blob(digest), bytes)
    }

    /// A failure, with what can be done about it.
    fn told(&self, failed: Failure) -> Error {
        let (name, repository) = (self.name, &self.repository.name);
        match (failed.status, self.name.tag()) {
            (Some(StatusCode::NOT_FOUND), Some(tag)) if self.name.digest().is_none() => {
                Error::Build(format!("{name}: there is no tag {tag:?}, or no {repository} at all ({failed})"))
            }
            (Some(StatusCode::NOT_FOUND), _) => Error::Build(format!("{name}: there is no such image ({failed})")),
            (status, _) => match &self.remembered {
                Some(remembered) if failed.unreachable || status.is_some_and(|status| !status.is_client_error()) => {
                    let (Remembered { digest, when }, failed) = (remembered, Error::from(failed));
                    let when = jiff::Timestamp::from_second(*when).unwrap_or_default();
                    Error::Build(format!("{failed}\n  --offline builds on what {name} led to at {when}: {digest}"))
                }
                _ => failed.into(),
            },
        }
    }

    fn not_here(&self, what: &str, digest: &BlobDigest) -> Error {
        let name = self.name;
        Error::Build(format!(
            "{name}: {what} {digest} is not here, and --offline asks no registry: build once without it"
        ))
    }
}

/// The documents of a base: those in the stacker directory, and the others.
struct AtRegistry<'a> {
    lookup: &'a Lookup<'a>,
    /// What was met.
    blobs: RefCell<BTreeMap<BlobDigest, u64>>,
}

impl Source for AtRegistry<'_> {
    fn shown(&self) -> String {
        self.lookup.name.to_string()
    }

    fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        let (lookup, digest, size) = (self.lookup, self.sha256(descriptor)?, descriptor.size());
        if size > MAX_DOCUMENT {
            let name = lookup.name;
            return Err(Error::Build(format!(
                "{name}: {what} {digest} is said to have {size} bytes; more than {MAX_DOCUMENT} are refused"
            )));
        }
        let bytes = match document(lookup.stacker, &digest)? {
            Some(bytes) => bytes,
            None if lookup.offline => return Err(lookup.not_here(what, &digest)),
            None if what == "config" => self.fetch_config(&digest, size)?,
            None => {
                let fetched = lookup.fetch_manifest(&digest.to_string(), Some(digest));
                fetched.map_err(|failed| lookup.told(failed))?.1
            }
        };
        if bytes.len() as u64 != size {
            let (name, found) = (lookup.name, bytes.len());
            return Err(Error::Build(format!("{name}: {what} {digest} has {found} bytes, and is said to have {size}")));
        }
        self.blobs.borrow_mut().insert(digest, size);
        Ok(bytes)
    }

    fn layer(&self, digest: &BlobDigest, size: u64) -> Result<PathBuf> {
        self.blobs.borrow_mut().insert(*digest, size);
        Ok(self.lookup.stacker.blob(digest))
    }
}

impl AtRegistry<'_> {
    fn fetch_config(&self, digest: &BlobDigest, size: u64) -> Result<Vec<u8>> {
        let lookup = self.lookup;
        let url = lookup.repository.url(&format!("blobs/{digest}"))?;
        let (bytes, _) = lookup.get(&url, size, "*/*").map_err(|failed| lookup.told(failed))?;
        let found = BlobDigest::of(&bytes);
        if found != *digest {
            let url = crate::http::shown(&url);
            return Err(Error::Build(format!(
                "GET {url}: the registry sends something else: {} bytes with the digest {found}, wanted {size} bytes \
                 with the digest {digest}",
                bytes.len()
            )));
        }
        lookup.keep(digest, &bytes)?;
        Ok(bytes)
    }
}

/// A document that is here. One that is damaged counts as missing.
fn document(stacker: &StackerDir, digest: &BlobDigest) -> Result<Option<Vec<u8>>> {
    let path: &Path = &stacker.blob(digest);
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() > MAX_DOCUMENT => return Ok(None),
        other => other.at("stat", path)?,
    };
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => Ok(Some(other.at("read", path)?).filter(|bytes| BlobDigest::of(bytes) == *digest)),
    }
}

/// What the registry says that the digest is.
pub(super) fn digest_of(headers: &HeaderMap) -> Option<BlobDigest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

fn oci_digest(digest: &BlobDigest) -> Digest {
    digest.to_string().parse().expect("a sha256 digest is a digest")
}

/// What a document is, from what it says of itself; the registry's header is no part of what was checked. The error
/// says what is wrong with it.
fn media_type(bytes: &[u8]) -> Result<MediaType, String> {
    let json: Value = serde_json::from_slice(bytes).map_err(|error| format!("can not be understood: {error}"))?;
    if json["schemaVersion"] == 1 {
        return Err("is a manifest of docker's schema 1, which is not supported: push the image again with a tool of \
                    this decade"
            .to_owned());
    }
    let (is_index, is_manifest) = (json["manifests"].is_array(), json["layers"].is_array());
    match (json["mediaType"].as_str(), is_index, is_manifest) {
        (_, true, true) => Err("is an index and a manifest at once".to_owned()),
        (Some(said), ..) => Ok(said.into()),
        (None, true, false) => Ok(MediaType::ImageIndex),
        (None, false, true) => Ok(MediaType::ImageManifest),
        (None, false, false) => Err("is neither an index nor a manifest".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_they_are() {
        let of = |text: &str| media_type(text.as_bytes());
        assert_eq!(of(r#"{"schemaVersion": 2, "manifests": []}"#), Ok(MediaType::ImageIndex));
        assert_eq!(of(r#"{"schemaVersion": 2, "layers": []}"#), Ok(MediaType::ImageManifest));
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        assert_eq!(of(&format!(r#"{{"mediaType": "{docker}", "layers": []}}"#)), Ok(docker.into()));
        assert!(of(r#"{"schemaVersion": 1}"#).unwrap_err().contains("schema 1"));
        assert!(of(r#"{"manifests": [], "layers": []}"#).unwrap_err().contains("at once"));
        assert!(of("{}").unwrap_err().contains("neither"));
        assert!(of("<html>").unwrap_err().contains("can not be understood"));
    }
}
