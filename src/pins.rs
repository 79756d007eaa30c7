//! What running builds rely on, so that `gc` leaves it alone.
//!
//! Each build writes what it is about to use to a file of its own under `pins/`, which it keeps locked while it lives: a
//! free lock is a dead owner, and nothing has to be repaired. To write a pin and to see that the thing is there is one
//! step, under a shared lock on `pins.lock`; to see that nobody pins a thing and to put it out of reach is one step too,
//! under the exclusive lock. Both take moments, whatever is built or removed, so neither waits long for the other; and a
//! build with nothing to do writes nothing to the database.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::commit_point::CommitPoint;
use crate::digest::{BlobDigest, ChainId, Key};
use crate::error::{At, Result};
use crate::place::StackerDir;
use crate::record::names;

/// Something that a build relies on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// The result of an action, with all data that it stands for.
    Result(Key),
    /// The layer on top of a stack: of a base image, say.
    Base(ChainId),
    /// A staged import.
    Import(String),
    /// A copy of a file from a server.
    Remote(BlobDigest),
}

/// The pins of this process.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Locked as long as we live.
    file: File,
    gate: File,
    pinned: HashSet<Pin>,
}

/// What the live builds rely on, at this moment.
#[derive(Debug, Default)]
pub struct Live {
    pins: HashSet<String>,
    /// When the first of them began.
    since: Option<SystemTime>,
}

/// While it is held, no build can pin anything.
#[derive(Debug)]
pub struct Closed {
    _gate: File,
}

impl Pins {
    /// For one build.
    pub fn start(dir: &StackerDir) -> Result<Pins> {
        let gate = gate(dir)?;
        gate.lock_shared().at("lock", gate_path(dir))?;
        let made = tempfile::Builder::new().prefix("").rand_bytes(12).tempfile_in(dir.pins());
        let (file, path) =
            made.at("create a file in", dir.pins())?.keep().map_err(|error| error.error).at("keep", dir.pins())?;
        file.lock().at("lock", &path)?;
        CommitPoint::PinsMade.reached();
        gate.unlock().at("unlock", gate_path(dir))?;
        Ok(Pins { path, state: Mutex::new(State { file, gate, pinned: HashSet::new() }) })
    }

    /// Pins things, and looks at them before anybody can take them away.
    pub fn pin<T>(&self, things: impl IntoIterator<Item = Pin>, look: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(|broken| broken.into_inner());
        let new: Vec<Pin> = things.into_iter().filter(|pin| !state.pinned.contains(pin)).collect();
        let text: String = new.iter().map(|pin| format!("{pin}\n")).collect();
        state.gate.lock_shared().at("lock", &self.path)?;
        let looked = state.file.write_all(text.as_bytes()).at("write", &self.path).and_then(|()| {
            CommitPoint::Pinned.reached();
            look()
        });
        state.gate.unlock().at("unlock", &self.path)?;
        state.pinned.extend(new);
        looked
    }
}

impl Pins {
    /// Nothing is relied on any more.
    pub fn release(&self) {
        let _ = fs::remove_file(&self.path);
        // Unlocked it says nothing any more; gc removes it when this could not.
        let _ = self.state.lock().unwrap_or_else(|broken| broken.into_inner()).file.unlock();
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.release();
    }
}

impl Live {
    /// Reads the pins of all live builds, and removes what dead ones left. The gate must be closed.
    pub fn read(dir: &StackerDir, _closed: &Closed) -> Result<Live> {
        let mut live = Live::default();
        for name in names(&dir.pins())? {
            let path = dir.pins().join(name);
            let mut file = match File::open(&path) {
                // Its build has just ended.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.at("open", &path)?,
            };
            match file.try_lock() {
                Ok(()) => crate::record::remove(&path)?,
                Err(TryLockError::WouldBlock) => {
                    let made = file.metadata().and_then(|found| found.created().or_else(|_| found.modified()));
                    let made = made.at("stat", &path)?;
                    live.since = Some(live.since.map_or(made, |since| since.min(made)));
                    let mut text = String::new();
                    file.read_to_string(&mut text).at("read", &path)?;
                    live.pins.extend(text.lines().map(str::to_owned));
                }
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
            }
        }
        Ok(live)
    }

    /// Whether a live build relies on it.
    pub fn holds(&self, pin: &Pin) -> bool {
        self.pins.contains(&pin.to_string())
    }

    /// The stacks whose topmost layer is relied on.
    pub fn bases(&self) -> impl Iterator<Item = ChainId> + '_ {
        self.pins.iter().filter_map(|pin| pin.strip_prefix("base ")?.parse().ok())
    }

    /// The moment before which nothing was made by a live build.
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }
}

impl Closed {
    /// Waits for those who are pinning at this moment.
    pub fn wait(dir: &StackerDir) -> Result<Closed> {
        let gate = gate(dir)?;
        gate.lock().at("lock", gate_path(dir))?;
        Ok(Closed { _gate: gate })
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Pin::Result(key) => write!(f, "result {}", key.hex()),
            Pin::Base(chain) => write!(f, "base {chain}"),
            Pin::Import(name) => write!(f, "import {name}"),
            Pin::Remote(copy) => write!(f, "remote {}", copy.hex()),
        }
    }
}

fn gate_path(dir: &StackerDir) -> PathBuf {
    dir.0.join("pins.lock")
}

fn gate(dir: &StackerDir) -> Result<File> {
    let path = gate_path(dir);
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)
}
