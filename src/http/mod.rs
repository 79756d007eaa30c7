//! HTTP as registries and downloads need it: the system's certificates and proxies, tries that are repeated, and bodies
//! that go on where they broke.
//!
//! Blocking, for threads. reqwest does the protocol; what is here is when to try again (`retry`) and how to come by
//! the rest of a file (`download`). oci-client was read and not taken: its errors have no headers.

mod download;
mod failure;
mod retry;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::Certificate;
use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::{DATE, ETAG, HeaderMap, LAST_MODIFIED};
use reqwest::redirect::{Attempt, Policy};

use crate::error::{At, Error, Result};

pub use download::{Begin, Download, Got, Same};
pub use failure::Failure;
use retry::Tries;
pub use retry::may_pass;

/// What reqwest's client is for those who make requests.
pub type Requests = reqwest::blocking::Client;

/// How the network is used, from the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file with certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Nothing is asked; what is remembered is used.
    pub offline: bool,
    /// How often a request is repeated that failed for a reason that may pass.
    pub retries: usize,
    /// How long a server may be silent.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { ca_file: None, offline: false, retries: 5, patience: Duration::from_secs(60) }
    }
}

/// Sends requests. Making one costs nothing: certificates are read when the first request is sent.
#[derive(Debug)]
pub struct Client {
    options: Options,
    trusting: OnceLock<Requests>,
    checking: OnceLock<Requests>,
}

/// What is asked, for messages: `GET https://host/path`, without credentials and queries (which may hold signatures).
pub fn shown(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut url) => {
            // Neither fails for http and https.
            let _ = (url.set_username(""), url.set_password(None));
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) => url.to_owned(),
    }
}

/// A URL as it is asked for: without what is behind `#`, which servers never see.
pub fn url(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(mut url) => {
            url.set_fragment(None);
            Ok(url.to_string())
        }
        Err(error) => Err(format!("`{text}` is no URL: {error}")),
    }
}

/// The name of the file that a URL leads to: the last part of its path. None for one that ends at the host.
pub fn name(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let last = url.path_segments()?.rfind(|part| !part.is_empty())?;
    let name = percent_encoding::percent_decode_str(last).decode_utf8().ok()?.into_owned();
    (!name.contains(['/', '\0']) && name != "." && name != "..").then_some(name)
}

impl Client {
    /// A client that has sent nothing yet.
    pub fn new(options: Options) -> Client {
        Client { options, trusting: OnceLock::new(), checking: OnceLock::new() }
    }

    /// How the network is used.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where requests are made. `insecure`: certificates are not checked.
    pub fn requests(&self, insecure: bool) -> Result<&Requests> {
        let kept = if insecure { &self.trusting } else { &self.checking };
        if let Some(requests) = kept.get() {
            return Ok(requests);
        }
        let made = self.make(insecure)?;
        // Another thread may have been first; theirs is as good.
        Ok(kept.get_or_init(|| made))
    }

    fn make(&self, insecure: bool) -> Result<Requests> {
        // Fails where it was done before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Requests::builder()
            .user_agent(concat!("stacker/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.options.patience)
            .timeout(self.options.patience)
            .redirect(Policy::custom(follow))
            .tls_danger_accept_invalid_certs(insecure);
        if let Some(file) = &self.options.ca_file {
            builder = builder.tls_certs_merge(certificates(file)?);
        }
        builder.build().map_err(|error| Error::Machine(format!("cannot use the network: {}", failure::deepest(&error))))
    }

    /// Sends what `request` makes, again and again while that may help. Any answer that will stay as it is comes back,
    /// whatever its status. `what` is told in errors: `GET https://host/path`.
    pub fn send(
        &self,
        what: &str,
        request: &mut dyn FnMut() -> Result<RequestBuilder, Failure>,
    ) -> Result<Response, Failure> {
        let mut tries = Tries::new(self.options.retries);
        loop {
            let failed = match request()?.send() {
                Ok(response) if !retry::may_pass(response.status()) => return Ok(response),
                Ok(response) => Failure::status(what, response),
                Err(error) => Failure::sending(what, &error),
            };
            tries.wait(failed)?;
        }
    }
}

/// What tells whether a later answer is the same file, byte for byte (RFC 9110, 8.8): a strong `ETag`, else
/// `Last-Modified` if it was so long ago when the server answered that a later change has another one.
pub fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok();
    let strong = text(ETAG).filter(|tag| tag.starts_with('"'));
    let settled = || {
        let (modified, answered) = (date(text(LAST_MODIFIED)?)?, text(DATE).and_then(date));
        // Clocks differ; without the server's own, more must have passed.
        let answered = answered.unwrap_or_else(|| jiff::Timestamp::now().as_second() - 60);
        if answered - modified >= 2 { text(LAST_MODIFIED) } else { None }
    };
    strong.or_else(settled).map(str::to_owned)
}

/// Seconds since 1970.
fn date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp().as_second())
}

/// Ten redirects at most, and none from https to http.
fn follow(attempt: Attempt) -> reqwest::redirect::Action {
    let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    match attempt.url().scheme() {
        "http" if was_secure => {
            let refused = format!("refused a redirect from https to {}", shown(attempt.url().as_str()));
            attempt.error(refused)
        }
        _ if attempt.previous().len() > 10 => attempt.error("more than ten redirects"),
        _ => attempt.follow(),
    }
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<Certificate>> {
    let pem = std::fs::read(file).at("read", file)?;
    let wrong = |why: &str| Error::Usage(format!("--ca-file {}: {why}", file.display()));
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if found.is_empty() => Err(wrong("it holds no certificate (PEM is needed)")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(&failure::deepest(&error))),
    }
}
