//! A file on a server of a test's own, and stackerfiles that import it.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::server::{Reply, Request, Server};
use super::space::Space;

/// One file on a server, with all that the server says of it.
pub struct Offer {
    pub server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
pub struct State {
    pub content: Vec<u8>,
    pub headers: Vec<(&'static str, String)>,
    /// Instead of the file.
    pub status: Option<u16>,
    /// The body ends after so many bytes.
    pub cut: Option<usize>,
    pub pause: Duration,
}

impl Offer {
    pub fn new(content: impl Into<Vec<u8>>, headers: &[(&'static str, &str)]) -> Offer {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let server = Server::start(move |request| shared.lock().unwrap().clone().answer(request));
        let offer = Offer { server, state };
        offer.change(|state| state.content = content.into());
        offer.headers(headers);
        offer
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub fn headers(&self, headers: &[(&'static str, &str)]) {
        self.change(|state| state.headers = headers.iter().map(|(name, value)| (*name, value.to_string())).collect());
    }

    pub fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    /// What was asked since the last time.
    pub fn asked(&self, before: &mut usize) -> Vec<Request> {
        let requests = self.server.requests().split_off(*before);
        *before += requests.len();
        requests
    }
}

impl State {
    fn answer(self, request: &Request) -> Reply {
        let tag = self.headers.iter().find(|(name, _)| *name == "etag").map(|(_, value)| value.as_str());
        let asked = |name| request.header(name).is_some_and(|asked| Some(asked) == tag);
        let mut reply = match self.status {
            Some(status) => Reply::new(status, "so it is"),
            None if asked("if-none-match") => Reply::new(304, ""),
            None if request.header("range").is_some() && !asked("if-range") => Reply::new(200, self.content),
            None => Reply::range(request, &self.content),
        };
        for (name, value) in &self.headers {
            reply = reply.with(name, value);
        }
        Reply { cut: self.cut, pause: self.pause, ..reply }
    }
}

/// A layer that copies the one import to /out.
pub fn copying(import: &str) -> String {
    format!(
        "app:\n  from: {{type: built, tag: base}}\n  imports:\n    - {import}\n  run: cat /stacker/imports/* > /out\n"
    )
}

#[track_caller]
pub fn out(space: &Space) -> String {
    space.file("app", "out").expect("app has /out")
}

pub fn sha256(content: &[u8]) -> String {
    use sha2::Digest;
    stacker::digest::hex(&sha2::Sha256::digest(content))
}

/// What lies in the directory of copies.
pub fn copies(space: &Space) -> Vec<String> {
    let names = fs::read_dir(space.stacker_dir().join("remote")).unwrap();
    let mut names: Vec<String> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
