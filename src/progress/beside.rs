//! What goes on beside the steps of a build: downloads, and waiting for others.

use std::collections::HashMap;
use std::time::Instant;

use super::Event;

/// Something that took a while and was no step.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// For a person.
    pub what: String,
    /// `download` or `wait`.
    pub kind: &'static str,
    /// When it began.
    pub begun: Instant,
    /// When it was over.
    pub ended: Instant,
}

/// Consumes events, and makes pairs of beginnings and ends.
#[derive(Debug, Default)]
pub struct Watch {
    open: HashMap<(&'static str, String), Instant>,
    over: Vec<Beside>,
}

impl Watch {
    /// Something happened now.
    pub fn see(&mut self, event: &Event) {
        match event {
            Event::Waiting { layer } => self.begin("wait", layer),
            Event::DownloadWaits { what } => self.begin("wait", what),
            Event::DownloadStarted { what, .. } => {
                self.end("wait", what);
                self.begin("download", what);
            }
            Event::DownloadEnded { what, .. } => {
                self.end("wait", what);
                self.end("download", what);
            }
            Event::Started { layer, .. } | Event::Finished { layer, .. } | Event::Failed { layer, .. } => {
                self.end("wait", layer);
            }
            Event::Begin { .. }
            | Event::DownloadGoesOn { .. }
            | Event::Output { .. }
            | Event::Warning(_)
            | Event::End(_)
            | Event::Stop => {}
        }
    }

    /// All that is over, in the order in which it ended.
    pub fn over(self) -> Vec<Beside> {
        self.over
    }

    fn begin(&mut self, kind: &'static str, what: &str) {
        self.open.entry((kind, what.to_owned())).or_insert_with(Instant::now);
    }

    fn end(&mut self, kind: &'static str, what: &str) {
        if let Some(begun) = self.open.remove(&(kind, what.to_owned())) {
            self.over.push(Beside { what: what.to_owned(), kind, begun, ended: Instant::now() });
        }
    }
}
