//! What a build tells while it goes on: one enum of events, and renderers that consume it. Everything is on stderr.

mod beside;
pub mod log;
mod plain;
mod terminal;

use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::Duration;

pub use beside::{Beside, Watch};
pub use plain::Plain;
pub use terminal::Terminal;

/// Something a person may want to see.
#[derive(Clone, Debug)]
pub enum Event {
    /// The build begins, with so many layers.
    Begin {
        /// Layers to decide.
        layers: usize,
    },
    /// A step of a layer starts.
    Started {
        /// The layer's name.
        layer: String,
        /// `run`, `import`, `unpack`, `compress`.
        step: &'static str,
        /// Why it is not a hit.
        reason: String,
    },
    /// Another process builds what this layer needs.
    Waiting {
        /// The layer's name.
        layer: String,
    },
    /// Something is fetched.
    DownloadStarted {
        /// What, for a person; unlike all others at that time.
        what: String,
        /// All of it, where that is known.
        bytes: Option<u64>,
    },
    /// Another process fetches it, and is waited for.
    DownloadWaits {
        /// What, for a person.
        what: String,
    },
    /// More of it is here.
    DownloadGoesOn {
        /// As before.
        what: String,
        /// So many bytes in all.
        bytes: u64,
    },
    /// It is here, or not.
    DownloadEnded {
        /// As before.
        what: String,
        /// How long it took; `None`: it came to nothing.
        seconds: Option<f64>,
    },
    /// A line of a run's output, without its end.
    Output {
        /// The layer's name.
        layer: String,
        /// Lossy text.
        line: String,
    },
    /// A layer is decided.
    Finished {
        /// The layer's name.
        layer: String,
        /// How it ended.
        status: LayerStatus,
        /// Seconds of work in this build.
        seconds: f64,
    },
    /// A layer failed: a text for a person.
    Failed {
        /// The layer's name.
        layer: String,
        /// What happened, last lines of output included.
        message: String,
    },
    /// Something that a person should know and that stops nothing.
    Warning(String),
    /// Nothing more comes: the build was carried out.
    End(Summary),
    /// Nothing more comes: the build was cut short, and somebody else says why.
    Stop,
}

/// How a layer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStatus {
    /// Nothing ran for it.
    Hit,
    /// At least one of its actions ran.
    Built,
    /// One of its actions failed.
    Failed,
    /// Not decided, because of a failure elsewhere.
    Skipped,
}

/// The end of a build.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Counts by status.
    pub hits: usize,
    /// Counts by status.
    pub built: usize,
    /// Counts by status.
    pub failed: usize,
    /// Counts by status.
    pub skipped: usize,
    /// Wall clock.
    pub elapsed: Duration,
    /// What the hits took when they were built, seconds.
    pub saved: f64,
    /// (name, hit) of every layer that is done, in the order of a serial build.
    pub layers: Vec<(String, bool)>,
}

/// Consumes events.
pub trait Renderer: Send {
    /// Shows one event.
    fn show(&mut self, event: &Event);
}

/// Which renderer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Live lines.
    Tty,
    /// One prefixed line after the other.
    Plain,
    /// Errors and warnings only.
    None,
}

/// The renderer for a mode; without one, live lines where stderr is a terminal.
pub fn renderer(mode: Option<Mode>) -> Box<dyn Renderer> {
    match mode {
        Some(Mode::Tty) if !log::has_file() => Box::new(Terminal::new()),
        Some(Mode::Tty | Mode::Plain) => Box::new(Plain { quiet: false }),
        Some(Mode::None) => Box::new(Plain { quiet: true }),
        None if std::io::stderr().is_terminal() && !log::is_wanted() => Box::new(Terminal::new()),
        None => Box::new(Plain { quiet: false }),
    }
}

/// `0.42 s`, `12.3 s`, `3 min 07 s`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{s:.2} s"),
        s if s < 100.0 => format!("{s:.1} s"),
        s => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
    }
}

/// A warning with its title, which it has already where it was rendered with its place, in colour or not.
fn titled(text: &str) -> Cow<'_, str> {
    match text.split_once(':') {
        Some((title, _)) if title.contains("warning") => Cow::Borrowed(text),
        _ => Cow::Owned(format!("warning: {text}")),
    }
}

impl Summary {
    /// `5 layers: 3 hits, 2 built, 0 failed in 1.2 s; 14 s saved`.
    pub fn line(&self) -> String {
        let layers = self.hits + self.built + self.failed + self.skipped;
        let mut line = format!(
            "{layers} {}: {} {}, {} built, {} failed",
            plural(layers, "layer", "layers"),
            self.hits,
            plural(self.hits, "hit", "hits"),
            self.built,
            self.failed
        );
        if self.skipped > 0 {
            line += &format!(", {} skipped", self.skipped);
        }
        line += &format!(" in {}", duration(self.elapsed.as_secs_f64()));
        if self.saved >= 0.05 {
            line += &format!(", {} saved", duration(self.saved));
        }
        line
    }
}

/// One word or the other.
pub(crate) fn plural<'a>(count: usize, one: &'a str, more: &'a str) -> &'a str {
    if count == 1 { one } else { more }
}
