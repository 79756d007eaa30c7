//! Registries: the distribution specification over [`crate::http`], for base images and for `stacker publish`.
//!
//! `name` is what people write; `host` finds out whether there is TLS, `repository` sends requests and authorizes them
//! (`challenge`, `token`, `credentials`), `upload` writes; `base` looks images up, `downloads` fetches their blobs when
//! something needs them. Everything is checked against its digest before anybody may use it. Nothing here knows stackerfiles.

mod base;
mod challenge;
mod credentials;
mod downloads;
mod host;
mod name;
mod repository;
mod token;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::http::Client;

pub use base::{Found, Lookup, Remembered};
pub use credentials::Secret;
pub use downloads::{AT_ONCE, Downloads, RemoteBlob, Tell};
use host::Host;
pub use name::{ImageName, RepositoryName, SCHEME};
pub use repository::{Access, Repository};
pub use upload::{LocalBlob, Mounted};

/// Every registry that is talked to, so that each is asked once how it listens and whether it lets us.
#[derive(Debug)]
pub struct Registries {
    http: Arc<Client>,
    /// From the command line.
    given: Option<Secret>,
    hosts: Mutex<HashMap<(String, bool), Arc<Host>>>,
    repositories: Mutex<HashMap<(RepositoryName, bool, Access), Arc<Repository>>>,
}

impl Registries {
    /// Nothing is asked yet. `given`: who we are, instead of what the user's files say.
    pub fn new(http: Arc<Client>, given: Option<Secret>) -> Registries {
        Registries { http, given, hosts: Mutex::default(), repositories: Mutex::default() }
    }

    /// A repository. `insecure`: without TLS, or without a look at certificates.
    pub fn repository(&self, name: RepositoryName, insecure: bool, access: Access) -> Arc<Repository> {
        let mut hosts = self.hosts.lock().unwrap_or_else(|broken| broken.into_inner());
        let host = hosts
            .entry((name.address().to_owned(), insecure))
            .or_insert_with(|| Arc::new(Host::new(self.http.clone(), name.address(), insecure)));
        let mut repositories = self.repositories.lock().unwrap_or_else(|broken| broken.into_inner());
        let key = (name.clone(), insecure, access);
        let make = || Arc::new(Repository::new(host.clone(), name, access, self.given.clone()));
        repositories.entry(key).or_insert_with(make).clone()
    }
}
