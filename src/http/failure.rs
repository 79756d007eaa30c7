//! Why a request came to nothing, and whether the next may come to something.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::Response;

use super::retry;
use crate::error::Error;

/// A request that came to nothing, for a person.
#[derive(Debug)]
pub struct Failure {
    /// What was asked and what happened.
    pub message: String,
    /// What the server answered, if it did.
    pub status: Option<StatusCode>,
    /// Nobody answered: no name, no connection, or a broken one.
    pub unreachable: bool,
    /// It may pass, after so long if the server says.
    pub(super) again: Option<Option<Duration>>,
    /// It was this machine: the disk is full, a file can not be read.
    pub(super) machine: Option<Box<Error>>,
}

/// Longer texts of servers are cut.
const MOST: usize = 400;

impl Failure {
    /// One that stays.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), status: None, unreachable: false, again: None, machine: None }
    }

    /// One that the next try may not meet: a body that is not what it should be.
    pub fn passing(message: impl Into<String>) -> Failure {
        Failure { again: Some(None), ..Failure::new(message) }
    }

    /// An answer that is none.
    pub fn status(what: &str, response: Response) -> Failure {
        let status = response.status();
        let again = retry::may_pass(status).then(|| retry::after(response.headers()));
        let mut message = format!("{what}: the server answers {}", named(status));
        if let Some(text) = said(response) {
            message += &format!(": {text}");
        }
        Failure { status: Some(status), again, ..Failure::new(message) }
    }

    /// Nothing was answered.
    pub(super) fn sending(what: &str, error: &reqwest::Error) -> Failure {
        let (why, hint) = (deepest(error), hint(error));
        let stays = is_certificate(error) || error.is_redirect() || error.is_builder();
        let message = format!("{what}: {why}{hint}");
        Failure { unreachable: !error.is_builder(), again: (!stays).then_some(None), ..Failure::new(message) }
    }

    /// A body broke off.
    pub(super) fn reading(what: &str, error: &io::Error) -> Failure {
        let why = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
        let why = why.map_or_else(|| error.to_string(), deepest);
        Failure { unreachable: true, ..Failure::passing(format!("{what}: the connection broke: {why}")) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.machine {
            Some(error) => error.fmt(f),
            None => f.write_str(&self.message),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.machine.map_or(Error::Build(failure.message), |error| *error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { machine: Some(Box::new(error)), ..Failure::new("") }
    }
}

fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// What the server says for a person: the messages of a registry's error document, else the text itself, if it is one.
fn said(response: Response) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    response.take(1 << 16).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let document = serde_json::from_str::<serde_json::Value>(&text).ok();
    let errors = document.as_ref().and_then(|document| document["errors"].as_array());
    let text = match errors {
        Some(errors) => errors.iter().map(told).collect::<Vec<_>>().join("; "),
        None if text.contains('<') => return None,
        None => text.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    let cut: String = text.chars().take(MOST).collect();
    (!cut.is_empty()).then_some(cut)
}

/// One error of the distribution specification: code, message, detail.
fn told(error: &serde_json::Value) -> String {
    let code = error["code"].as_str().unwrap_or_default();
    match error["message"].as_str() {
        Some(message) if !message.is_empty() => format!("{message} ({code})"),
        _ => code.to_owned(),
    }
}

/// The innermost reason, which is the one that tells something.
pub(super) fn deepest(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Whether the server is not who it should be.
fn is_certificate(error: &reqwest::Error) -> bool {
    let mut inner = error.source();
    while let Some(source) = inner {
        if let Some(rustls::Error::InvalidCertificate(_)) = source.downcast_ref() {
            return true;
        }
        // An io::Error passes over what it holds, which may be another one.
        let held = source.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner = held.map_or_else(|| source.source(), |held| Some(held as &dyn std::error::Error));
    }
    false
}

fn hint(error: &reqwest::Error) -> &'static str {
    match is_certificate(error) {
        true => " (--ca-file FILE trusts further certificates)",
        false => "",
    }
}
