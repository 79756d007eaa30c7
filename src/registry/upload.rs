//! Writing to a repository: blobs in one piece or in several, manifests by digest and tag.
//!
//! A large blob goes in pieces. When one breaks, the registry is asked how far it came, and the rest follows; when it
//! knows nothing of the upload any more, that begins anew.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::base::{MANIFESTS, digest_of};
use super::repository::Repository;
use crate::digest::BlobDigest;
use crate::error::At;
use crate::http::{Failure, shown};

/// What goes in one request.
const PIECE: u64 = 8 << 20;

/// Slower lines than this are taken for broken.
const SLOWEST: u64 = 32 << 10;

/// How often an upload begins anew.
const ATTEMPTS: usize = 3;

/// What a mount came to.
#[derive(Debug)]
pub enum Mounted {
    /// The blob is there.
    Done,
    /// The registry would rather have it uploaded, to this URL.
    Upload(String),
}

/// A blob on disk.
#[derive(Clone, Copy, Debug)]
pub struct LocalBlob<'a> {
    /// Where.
    pub path: &'a Path,
    /// What its bytes hash to.
    pub digest: BlobDigest,
    /// How many they are.
    pub size: u64,
}

/// An upload that has begun.
struct Upload {
    url: String,
    /// What the registry has.
    offset: u64,
    /// A request came to nothing, and nobody knows how far.
    in_doubt: bool,
}

impl Repository {
    /// Whether a blob is there.
    pub fn has_blob(&self, digest: &BlobDigest) -> Result<bool, Failure> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = self.send(&Method::HEAD, &url, &Ok)?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.explained(&format!("HEAD {}", shown(&url)), answer)),
        }
    }

    /// The digest of the manifest that a tag, or a digest, leads to. `None`: there is none, or the registry does not
    /// say.
    pub fn manifest_digest(&self, reference: &str) -> Result<Option<BlobDigest>, Failure> {
        let url = self.url(&format!("manifests/{reference}"))?;
        let answer = self.send(&Method::HEAD, &url, &|request| Ok(request.header(ACCEPT, MANIFESTS)))?;
        match answer.status() {
            StatusCode::OK => Ok(digest_of(answer.headers())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.explained(&format!("HEAD {}", shown(&url)), answer)),
        }
    }

    /// Takes a blob from another repository of the registry.
    pub fn mount(&self, digest: &BlobDigest, from: &str) -> Result<Mounted, Failure> {
        self.takes_from(from);
        let url = self.url("blobs/uploads/")?;
        let query = [("mount", digest.to_string()), ("from", from.to_owned())];
        let answer = self.send(&Method::POST, &url, &|request| Ok(request.query(&query)))?;
        match answer.status() {
            StatusCode::CREATED => Ok(Mounted::Done),
            StatusCode::ACCEPTED => location(&url, &answer).map(Mounted::Upload),
            // Not allowed to read there, say.
            _ => self.begin().map(Mounted::Upload),
        }
    }

    /// Puts a blob there. `begun`: an upload for it.
    pub fn upload(&self, blob: LocalBlob, begun: Option<String>) -> Result<(), Failure> {
        let file = File::open(blob.path).at("open", blob.path)?;
        let found = file.metadata().at("stat", blob.path)?.len();
        if found != blob.size {
            let (path, size, digest) = (blob.path.display(), blob.size, blob.digest);
            return Err(Failure::new(format!("blob {digest} is damaged: {path} has {found} bytes, expected {size}")));
        }
        let url = begun.map_or_else(|| self.begin(), Ok)?;
        let mut upload = Upload { url, offset: 0, in_doubt: false };
        for _ in 0..ATTEMPTS {
            while blob.size > PIECE && upload.offset < blob.size {
                self.send_piece(&mut upload, &file, blob)?;
            }
            if self.finish(&mut upload, &file, blob)? {
                return Ok(());
            }
        }
        Err(Failure::new(format!("PUT {}: the registry loses what it gets, again and again", shown(&upload.url))))
    }

    /// Puts a manifest there, by tag or digest.
    pub fn put_manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<(), Failure> {
        let url = self.url(&format!("manifests/{reference}"))?;
        let shape = |request: RequestBuilder| Ok(request.header(CONTENT_TYPE, media_type).body(bytes.to_vec()));
        let answer = self.send(&Method::PUT, &url, &shape)?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(self.explained(&format!("PUT {}", shown(&url)), answer)),
        }
    }

    fn begin(&self) -> Result<String, Failure> {
        let url = self.url("blobs/uploads/")?;
        let answer = self.send(&Method::POST, &url, &|request| Ok(request.body("")))?;
        match answer.status() {
            StatusCode::ACCEPTED => location(&url, &answer),
            _ => Err(self.explained(&format!("POST {}", shown(&url)), answer)),
        }
    }

    /// Sends the next piece.
    fn send_piece(&self, upload: &mut Upload, file: &File, blob: LocalBlob) -> Result<(), Failure> {
        let what = format!("PATCH {}", shown(&upload.url));
        let mut again = 0;
        loop {
            let sent = self.send_each(&what, &Method::PATCH, upload, &|upload, request| {
                let (at, bytes) = (upload.offset, piece(file, blob, upload.offset)?);
                if bytes.is_empty() {
                    return Err(Failure::new(String::new()));
                }
                let range = format!("{at}-{}", at + bytes.len() as u64 - 1);
                let octets = request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_RANGE, range);
                Ok(octets.timeout(self.patience(bytes.len() as u64)).body(bytes))
            });
            // The answer to the last piece was lost.
            if upload.offset >= blob.size {
                upload.in_doubt = false;
                return Ok(());
            }
            let answer = sent?;
            match answer.status() {
                StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT => {
                    let sent = piece_length(blob, upload.offset);
                    upload.offset = came_to(&answer).unwrap_or(upload.offset + sent).min(blob.size);
                    upload.url = location(&upload.url, &answer).unwrap_or_else(|_| upload.url.clone());
                    return Ok(());
                }
                // It has something else than we think, or nothing any more.
                StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND if again < ATTEMPTS => {
                    again += 1;
                    upload.in_doubt = true;
                }
                _ => return Err(self.explained(&what, answer)),
            }
        }
    }

    /// Ends an upload: all of a small blob, nothing more of a large one. False: it had to begin anew.
    fn finish(&self, upload: &mut Upload, file: &File, blob: LocalBlob) -> Result<bool, Failure> {
        let what = format!("PUT {}", shown(&upload.url));
        let digest = [("digest", blob.digest.to_string())];
        let small = blob.size <= PIECE;
        let sent = self.send_each(&what, &Method::PUT, upload, &|_, request| {
            let bytes = if small { piece(file, blob, 0)? } else { Vec::new() };
            let octets = request.header(CONTENT_TYPE, "application/octet-stream").query(&digest);
            Ok(octets.timeout(self.patience(bytes.len() as u64)).body(bytes))
        });
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(true),
            // An answer may have been lost, and then the upload is no more.
            Ok(answer) => match self.has_blob(&blob.digest) {
                Ok(true) => Ok(true),
                _ if !small && upload.offset < blob.size => Ok(false),
                _ => Err(self.explained(&what, answer)),
            },
            Err(failed) => Err(failed),
        }
    }

    /// Sends a request to the URL of an upload. Before it is sent once more, the registry is asked what it has of it; of
    /// a small blob it wants all of it again.
    fn send_each(
        &self,
        what: &str,
        method: &Method,
        upload: &mut Upload,
        shape: &dyn Fn(&Upload, RequestBuilder) -> Result<RequestBuilder, Failure>,
    ) -> Result<Response, Failure> {
        self.send_with(what, &mut |requests| {
            if upload.in_doubt {
                self.find_out(upload)?;
            }
            upload.in_doubt = true;
            let request = shape(upload, requests.request(method.clone(), &upload.url))?;
            Ok((request, upload.url.clone()))
        })
        .inspect(|_| upload.in_doubt = false)
    }

    /// Asks how far an upload came. One that is gone is begun anew.
    fn find_out(&self, upload: &mut Upload) -> Result<(), Failure> {
        let answer = self.send(&Method::GET, &upload.url, &Ok)?;
        match answer.status() {
            StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED => {
                upload.offset = came_to(&answer).unwrap_or(0);
                upload.url = location(&upload.url, &answer).unwrap_or_else(|_| upload.url.clone());
            }
            _ => *upload = Upload { url: self.begin()?, offset: 0, in_doubt: false },
        }
        Ok(())
    }

    fn patience(&self, bytes: u64) -> Duration {
        self.host.http.options().patience + Duration::from_secs(bytes / SLOWEST)
    }
}

fn piece_length(blob: LocalBlob, at: u64) -> u64 {
    PIECE.min(blob.size.saturating_sub(at))
}

fn piece(file: &File, blob: LocalBlob, at: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; piece_length(blob, at) as usize];
    file.read_exact_at(&mut bytes, at).at("read", blob.path)?;
    Ok(bytes)
}

/// How many bytes the registry has: `Range: 0-99`. Of an upload without any, some say `0-0`, which is taken for none: a
/// byte that is sent twice is refused, and asked for again.
fn came_to(answer: &Response) -> Option<u64> {
    let range = answer.headers().get(RANGE)?.to_str().ok()?;
    let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

/// Where the upload goes on.
fn location(asked: &str, answer: &Response) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::new(format!("POST {}: {why}", shown(asked)));
    let text = answer.headers().get(LOCATION).and_then(|text| text.to_str().ok());
    let text = text.ok_or_else(|| wrong("the registry does not say where the upload goes"))?;
    let base = Url::parse(asked).map_err(|error| wrong(&error.to_string()))?;
    Ok(base.join(text).map_err(|error| wrong(&error.to_string()))?.to_string())
}
