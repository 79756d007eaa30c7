//! The threads beside a command: one renders events, one listens for signals.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Iterator};

use crate::error::{Error, Result};
use crate::progress::{Beside, Event, Mode, Watch, renderer};

/// The rendering thread.
pub struct Teller {
    sender: Sender<Event>,
    thread: JoinHandle<Watch>,
}

impl Teller {
    /// Starts it, with what is to be told first.
    pub fn start(mode: Option<Mode>, warnings: &[String], layers: usize) -> Teller {
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || {
            let (mut renderer, mut watch) = (renderer(mode), Watch::default());
            for event in receiver {
                watch.see(&event);
                renderer.show(&event);
                if let Event::End(_) | Event::Stop = event {
                    break;
                }
            }
            watch
        });
        let teller = Teller { sender, thread };
        teller.warn(warnings.to_vec());
        teller.tell(Event::Begin { layers });
        teller
    }

    /// Tells warnings.
    pub fn warn(&self, warnings: Vec<String>) {
        warnings.into_iter().for_each(|warning| self.tell(Event::Warning(warning)));
    }

    /// For whoever has something to tell.
    pub fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// The last event; waits until it is shown. Returns what went on beside steps.
    pub fn end(self, event: Event) -> Vec<Beside> {
        self.tell(event);
        // A panic of the renderer was printed by itself; the build is done all the same.
        self.thread.join().map(Watch::over).unwrap_or_default()
    }

    fn tell(&self, event: Event) {
        // Without a renderer there is nobody to tell.
        let _ = self.sender.send(event);
    }
}

/// The thread that listens for Ctrl-C, SIGTERM and SIGHUP.
pub struct Signals {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Signals {
    /// `tell` is called for the first signal; the second one ends the program at once (the sandboxes end with it).
    pub fn listen(tell: impl Fn(i32) + Send + 'static) -> Result<Signals> {
        let mut signals = Iterator::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|error| Error::Machine(format!("cannot listen for signals: {error}")))?;
        let handle = signals.handle();
        let thread = std::thread::spawn(move || {
            let mut first = true;
            for signal in &mut signals {
                if !first {
                    crate::shell::restore();
                    std::process::exit(128 + signal);
                }
                first = false;
                tell(signal);
            }
        });
        Ok(Signals { handle, thread })
    }

    /// Signals have their usual effect no longer, but nobody listens.
    pub fn stop(self) {
        self.handle.close();
        // The thread cannot panic.
        let _ = self.thread.join();
    }
}
