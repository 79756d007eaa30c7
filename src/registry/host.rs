//! A registry: where it listens, and whether by TLS.

use std::sync::{Arc, Mutex};

use crate::error::Result;
use crate::http::{Client, Failure, Options, Requests};

/// One registry.
#[derive(Debug)]
pub struct Host {
    /// `HOST` or `HOST:PORT`.
    pub address: String,
    /// Plain http, or TLS without a look at certificates, is good enough.
    pub insecure: bool,
    /// Sends requests.
    pub http: Arc<Client>,
    /// What it was found to speak.
    scheme: Mutex<Option<&'static str>>,
}

impl Host {
    /// Nothing is asked yet.
    pub fn new(http: Arc<Client>, address: &str, insecure: bool) -> Host {
        Host { address: address.to_owned(), insecure, http, scheme: Mutex::new(None) }
    }

    /// `https://HOST:PORT`; where that is good enough and there is no TLS, `http://HOST:PORT`.
    pub fn base(&self) -> Result<String, Failure> {
        Ok(format!("{}://{}", self.scheme()?, self.address))
    }

    /// Whether a URL leads to this machine, to whatever port.
    pub fn is_at(&self, url: &str) -> bool {
        let host = |url: &str| reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        host(url).is_some_and(|found| Some(found) == host(&format!("https://{}", self.address)))
    }

    /// Makes requests.
    pub fn requests(&self) -> Result<&Requests> {
        self.http.requests(self.insecure)
    }

    fn scheme(&self) -> Result<&'static str, Failure> {
        if !self.insecure {
            return Ok("https");
        }
        let mut scheme = self.scheme.lock().unwrap_or_else(|broken| broken.into_inner());
        match *scheme {
            Some(known) => Ok(known),
            None => Ok(*scheme.insert(self.find_scheme()?)),
        }
    }

    /// Asks by TLS, then without it, again and again while nobody answers.
    fn find_scheme(&self) -> Result<&'static str, Failure> {
        let once = Client::new(Options { retries: 0, ..self.http.options().clone() });
        let [secure, plain] = ["https", "http"].map(|scheme| format!("{scheme}://{}/v2/", self.address));
        let mut is_secure = false;
        let sent = self.http.send(&format!("GET {plain}"), &mut || {
            match once.send(&format!("GET {secure}"), &mut || Ok(once.requests(true)?.get(&secure))) {
                Err(failed) if failed.status.is_none() => Ok(self.requests()?.get(&plain)),
                _ => {
                    is_secure = true;
                    // Ends the tries.
                    Err(Failure::new(String::new()))
                }
            }
        });
        match sent {
            _ if is_secure => Ok("https"),
            Ok(_) => Ok("http"),
            Err(failed) => Err(failed),
        }
    }
}
