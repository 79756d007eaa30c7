//! The holder: a process in the mapped user namespace, which forks one worker process for each job.
//!
//! It is forked before the main process has any thread, and enters the namespace only when the first job needs it, so
//! that a build of hits alone costs one fork. The main process keeps the caller's identity all the while.
//!
//! ```text
//! main --packets--> holder --fork--> worker (one job) --fork--> sandbox
//!  ^                                   |
//!  +------------- answer pipe ---------+
//! ```
//! When the main process ends in whatever way, its end of the socket closes and the holder ends every worker.

mod ids;
mod serve;
mod wire;

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Mutex;

use nix::unistd::Pid;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{At, Error, Result};
use crate::place::{RootsDir, StackerDir};
use crate::store::{self, Known, StoreKind};
use crate::sys::{Fork, fork};
use crate::worker::message::{Answer, Job};
use ids::IdMap;
pub use ids::Tier;

/// The main process's side of it.
pub struct Holder {
    socket: OwnedFd,
    pid: Pid,
    roots: RootsDir,
    stacker: StackerDir,
    /// What is known of the store before it is opened.
    known: Known,
    /// What came of preparing, which is tried once.
    ready: Mutex<Option<std::result::Result<Ready, String>>>,
}

/// What is known once the user namespace is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Host ids (user, group) of the sandbox's root.
    pub root: (u32, u32),
    /// How capable sandboxes are here.
    pub tier: Tier,
    /// How layers are stored.
    pub store: StoreKind,
    /// Names this very store.
    pub id: String,
}

/// A job under way.
#[derive(Debug)]
pub struct Pending {
    answer: File,
}

impl Holder {
    /// Forks it. The calling process must have no other thread. `kind` is what a user insists on.
    pub fn start(stacker: &StackerDir, roots: &RootsDir, kind: Option<StoreKind>) -> Result<Holder> {
        let failed = |error: rustix::io::Errno| Error::Machine(format!("cannot make a socket: {error}"));
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(failed)?;
        match fork().map_err(|error| Error::Machine(format!("cannot start a process: {error}")))? {
            Fork::Child => {
                drop(ours);
                crate::sys::exit(serve::serve(theirs))
            }
            Fork::Parent(pid) => Ok(Holder {
                socket: ours,
                pid,
                roots: roots.clone(),
                stacker: stacker.clone(),
                known: Known { asked: kind, ..Known::default() },
                ready: Mutex::new(None),
            }),
        }
    }

    /// What an earlier build found at the roots directory: (id, kind).
    pub fn expect(&mut self, before: Option<(String, StoreKind)>) {
        self.known.before = before;
    }

    /// Maps the user namespace and opens the store, the first time it is called.
    pub fn prepare(&self) -> Result<Ready> {
        let mut ready = self.ready.lock().unwrap_or_else(|broken| broken.into_inner());
        if let Some(known) = &*ready {
            return known.clone().map_err(Error::Machine);
        }
        let made = self.make_ready();
        *ready = Some(made.as_ref().map(Ready::clone).map_err(Error::to_string));
        made
    }

    fn make_ready(&self) -> Result<Ready> {
        let map = IdMap::choose()?;
        self.ask(wire::UNSHARE, b"", &[])?;
        map.write(self.pid.as_raw() as u32)?;
        // Before any owner is changed: a store of another map is left as it is.
        let identity = store::open_identity(&self.roots, &map.uids, &map.gids, &self.known)?;
        make_roots(&self.roots, map.root())?;
        let listings = self.stacker.0.join("listings");
        let directories = [open_directory(&self.roots.0)?, open_directory(&listings)?];
        let kind = serde_json::to_vec(&identity.backend).expect("a word is always JSON");
        self.ask(wire::ENTER, &kind, &directories)?;
        Ok(Ready { root: map.root(), tier: map.tier, store: identity.backend, id: identity.id })
    }

    /// Hands a job to a new worker.
    pub fn submit(&self, job: Job, descriptors: Vec<OwnedFd>) -> Result<Pending> {
        let failed = |error: std::io::Error| Error::Machine(format!("cannot hand a job to a worker: {error}"));
        let text = serde_json::to_vec(&job).map_err(|error| failed(error.into()))?;
        let mut file = File::from(memfd_create("job", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?);
        file.write_all(&text).and_then(|()| file.rewind()).map_err(failed)?;
        let (answer, to_answer) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let mut all = vec![file.as_fd(), to_answer.as_fd()];
        all.extend(descriptors.iter().map(AsFd::as_fd));
        wire::send(&self.socket, wire::JOB, b"", &all).map_err(failed)?;
        Ok(Pending { answer: answer.into() })
    }

    /// Ends every job, within five seconds. Nothing is left of a sandbox when this returns; calling it again does nothing.
    pub fn end(&self) {
        // Shutting down is what the holder sees, even if a copy of the socket were open somewhere. It fails, as waiting
        // does, where the holder has ended.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }

    fn ask(&self, letter: u8, text: &[u8], descriptors: &[OwnedFd]) -> Result<()> {
        let gone = || Error::Machine("the process that holds the user namespace has ended".to_owned());
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        wire::send(&self.socket, letter, text, &borrowed).map_err(|_| gone())?;
        let packet = wire::receive(&self.socket).ok().flatten().ok_or_else(gone)?;
        match packet.letter {
            wire::DONE => Ok(()),
            _ => Err(Error::Machine(String::from_utf8_lossy(&packet.text).into_owned())),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

impl Pending {
    /// Waits for the answer.
    pub fn wait(mut self) -> Result<Answer> {
        let mut text = Vec::new();
        self.answer.read_to_end(&mut text).at("read the answer of", "a worker")?;
        serde_json::from_slice(&text).map_err(|_| {
            Error::Machine("a worker process ended without an answer (killed, or out of memory?)".to_owned())
        })
    }
}

/// The roots directory with what is in it, owned by the sandbox's root.
fn make_roots(roots: &RootsDir, root: (u32, u32)) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let directories = std::iter::once(roots.0.clone()).chain(RootsDir::DIRECTORIES.map(|name| roots.0.join(name)));
    for path in directories {
        builder.create(&path).at("create", &path)?;
        // A process that was killed may have come as far as making it.
        let found = fs::metadata(&path).at("stat", &path)?;
        if found.permissions().mode() & 0o7777 != 0o700 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).at("set the mode of", &path)?;
        }
        if rustix::process::geteuid().is_root() && (found.uid(), found.gid()) != root {
            chown(&path, Some(root.0), Some(root.1)).at("chown", &path)?;
        }
    }
    Ok(())
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).at("open", path)
}
