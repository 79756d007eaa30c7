//! A repository of a registry: requests that are authorized, and authorized anew when the registry wants it.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use super::challenge::Challenge;
use super::credentials::{Credentials, Secret, find};
use super::host::Host;
use super::name::RepositoryName;
use super::token::{self, Giver};
use crate::error::Result;
use crate::http::{Download, Failure, Got, Requests, Same, shown};

/// What is done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A repository.
#[derive(Debug)]
pub struct Repository {
    /// Its name.
    pub name: RepositoryName,
    pub(super) host: Arc<Host>,
    access: Access,
    /// From the command line.
    given: Option<Secret>,
    /// Other repositories of the registry that blobs are taken from.
    others: Mutex<BTreeSet<String>>,
    authorization: Mutex<Option<Authorization>>,
}

/// What a request is shown with.
#[derive(Clone, PartialEq, Eq)]
enum Authorization {
    Basic(String, String),
    Bearer(String),
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

/// How a request is made: from its method and URL.
pub type Shape<'a> = &'a dyn Fn(RequestBuilder) -> Result<RequestBuilder, Failure>;

/// Makes a request; also says its URL.
pub(super) type Make<'a> = &'a mut dyn FnMut(&Requests) -> Result<(RequestBuilder, String), Failure>;

impl Repository {
    /// Nothing is asked yet. `given`: instead of what the user's files say.
    pub fn new(host: Arc<Host>, name: RepositoryName, access: Access, given: Option<Secret>) -> Repository {
        let (others, authorization) = (Mutex::default(), Mutex::default());
        Repository { name, host, access, given, others, authorization }
    }

    /// Blobs will be taken from another repository of the registry: tokens are good for that, too.
    pub fn takes_from(&self, repository: &str) {
        let new = self.others.lock().unwrap_or_else(|broken| broken.into_inner()).insert(repository.to_owned());
        if new && matches!(*self.authorization(), Some(Authorization::Bearer(_))) {
            *self.authorization() = None;
        }
    }

    /// The URL of something of this repository: `manifests/TAG`, `blobs/DIGEST`.
    pub fn url(&self, path: &str) -> Result<String, Failure> {
        Ok(format!("{}/v2/{}/{path}", self.host.base()?, self.name.repository))
    }

    /// Sends a request to a URL of the registry, with authorization. Any answer that will stay comes back, but 401.
    pub fn send(&self, method: &Method, url: &str, shape: Shape) -> Result<Response, Failure> {
        let what = format!("{method} {}", shown(url));
        self.send_with(&what, &mut |requests| Ok((shape(requests.request(method.clone(), url))?, url.to_owned())))
    }

    /// The same with requests that are made anew for each try, each with its URL.
    pub(super) fn send_with(&self, what: &str, make: Make) -> Result<Response, Failure> {
        let mut renewed = false;
        loop {
            let used = self.authorization().clone();
            let response = self.host.http.send(what, &mut || {
                let (request, url) = make(self.host.requests()?)?;
                Ok(self.authorized(request, &url, used.as_ref()))
            })?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            if renewed {
                return Err(self.refused(what, used.as_ref()));
            }
            self.renew(what, response.headers(), used.as_ref())?;
            renewed = true;
        }
    }

    /// Fills a file with what lies at a URL, from what the file holds already.
    pub fn download(
        &self,
        url: &str,
        (file, path): (&mut File, &Path),
        most: u64,
        shape: Shape,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<HeaderMap, Failure> {
        let what = format!("GET {}", shown(url));
        let mut renewed_at = None;
        loop {
            let used = self.authorization().clone();
            let mut request = || Ok(self.authorized(shape(self.host.requests()?.get(url))?, url, used.as_ref()));
            let download = Download { what: &what, request: &mut request, path, same: Same::ByDigest, most, progress };
            let response = match self.host.http.download(download, file)? {
                Got::Whole(headers) => return Ok(headers),
                Got::Other(response) if response.status() != StatusCode::UNAUTHORIZED => {
                    return Err(self.explained(&what, response));
                }
                Got::Other(response) => response,
            };
            // A long download outlives several tokens.
            let length = file.metadata().map_or(0, |found| found.len());
            if renewed_at.is_some_and(|at| length <= at) {
                return Err(self.refused(&what, used.as_ref()));
            }
            self.renew(&what, response.headers(), used.as_ref())?;
            renewed_at = Some(length);
        }
    }

    /// An answer that is none; where something is denied it tells to whom.
    pub fn explained(&self, what: &str, response: Response) -> Failure {
        let mut failed = Failure::status(what, response);
        if failed.status == Some(StatusCode::FORBIDDEN)
            && let Ok(credentials) = self.credentials()
        {
            failed.message += &format!("; {}", whose(&credentials));
        }
        failed
    }

    /// To our registry alone; redirects to other places lose it too.
    fn authorized(&self, request: RequestBuilder, url: &str, authorization: Option<&Authorization>) -> RequestBuilder {
        let ours = self.host.base().is_ok_and(|base| url.strip_prefix(&base).is_some_and(|path| path.starts_with('/')));
        match authorization.filter(|_| ours) {
            None => request,
            Some(Authorization::Basic(username, password)) => request.basic_auth(username, Some(password)),
            Some(Authorization::Bearer(token)) => request.bearer_auth(token),
        }
    }

    /// Gets another authorization than `used`, unless another thread just did.
    fn renew(&self, what: &str, headers: &HeaderMap, used: Option<&Authorization>) -> Result<(), Failure> {
        let mut held = self.authorization();
        if held.as_ref() != used {
            return Ok(());
        }
        let credentials = self.credentials()?;
        *held = Some(match (Challenge::of(headers), &credentials.secret) {
            (None, _) => {
                let message = format!("{what}: the server answers 401, and wants to be shown nothing that is known");
                return Err(Failure::new(message));
            }
            (Some(Challenge::Basic), Some(Secret::Password { username, password })) => {
                let basic = Authorization::Basic(username.clone(), password.clone());
                if used == Some(&basic) {
                    return Err(self.refused(what, used));
                }
                basic
            }
            (Some(Challenge::Basic), _) => return Err(self.refused(what, used)),
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let scopes = self.scopes(scope.as_deref());
                let secure = self.host.base()?.starts_with("https://");
                // Certificates of somebody else are looked at all the same.
                let insecure = self.host.insecure && self.host.is_at(&realm);
                let giver = Giver { realm: &realm, service: service.as_deref(), scopes: &scopes, secure, insecure };
                let told = |mut failed: Failure| {
                    if failed.status.is_some_and(|status| status.is_client_error()) {
                        failed.message += &format!("; {}", whose(&credentials));
                    }
                    failed
                };
                Authorization::Bearer(token::get(&self.host.http, &giver, &credentials).map_err(told)?)
            }
        });
        Ok(())
    }

    fn scopes(&self, wanted: Option<&str>) -> Vec<String> {
        let actions = if self.access == Access::Push { "pull,push" } else { "pull" };
        let mut scopes = vec![format!("repository:{}:{actions}", self.name.repository)];
        let others = self.others.lock().unwrap_or_else(|broken| broken.into_inner());
        scopes.extend(others.iter().map(|other| format!("repository:{other}:pull")));
        // A registry that names its repositories otherwise knows best what it wants.
        for scope in wanted.iter().flat_map(|scopes| scopes.split(' ')) {
            if !scopes.iter().any(|known| known == scope) {
                scopes.push(scope.to_owned());
            }
        }
        scopes
    }

    fn credentials(&self) -> Result<Credentials, Failure> {
        match &self.given {
            Some(secret) => Ok(Credentials { secret: Some(secret.clone()), whence: "the command line".to_owned() }),
            None => Ok(find(&self.name)?),
        }
    }

    fn refused(&self, what: &str, used: Option<&Authorization>) -> Failure {
        let (registry, name) = (&self.name.registry, &self.name);
        let why = match self.credentials() {
            Err(failed) => return failed,
            Ok(credentials) if used.is_none() && credentials.secret.is_some() => {
                "it wants a name and a password".into()
            }
            Ok(credentials) => whose(&credentials),
        };
        let mut failed = Failure::new(format!("{what}: {registry} lets us not in (401), or there is no {name}; {why}"));
        failed.status = Some(StatusCode::UNAUTHORIZED);
        failed
    }

    fn authorization(&self) -> MutexGuard<'_, Option<Authorization>> {
        self.authorization.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// With which credentials something was refused.
fn whose(credentials: &Credentials) -> String {
    let Credentials { secret, whence } = credentials;
    match secret {
        Some(secret) => format!("asked as {} with the credentials of {whence}", secret.shown()),
        None => format!(
            "asked without credentials, since there are none for it in {whence} (`podman login` and `docker login` write \
             them)"
        ),
    }
}
