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
mod tier;
pub mod wire;

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::Pid;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::action::Ids;
use crate::commit_point::CommitPoint;
use crate::error::{At, Error, Result};
use crate::need::Need;
use crate::place::{RootsDir, StackerDir};
use crate::resolve::Owners;
use crate::store::{self, Known, StoreKind};
use crate::sys::{Fork, fork};
use crate::worker::message::{Answer, Job, Setting};
use ids::IdMap;
pub use ids::{IDS, Tier, find_program, subordinate};
use tier::Choice;
pub use tier::Fallback;

/// The kind of store and of sandbox that the user insists on.
pub type Insisted = (Option<StoreKind>, Option<Tier>);

/// The main process's side of it.
pub struct Holder {
    socket: OwnedFd,
    pid: Pid,
    roots: RootsDir,
    stacker: StackerDir,
    /// What is known of the store before it is opened.
    known: Known,
    wanted: Option<Tier>,
    /// What came of preparing, which is tried once.
    ready: Mutex<Option<Result<Ready>>>,
    /// What is to be told of the sandbox, once.
    fallback: Mutex<Option<Fallback>>,
    /// What is to be told of the store, once.
    slow: AtomicBool,
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
                wanted: None,
                ready: Mutex::default(),
                fallback: Mutex::default(),
                slow: AtomicBool::new(false),
            }),
        }
    }

    /// What an earlier build found at the roots directory: (id, kind).
    pub fn expect(&mut self, before: Option<(String, StoreKind)>) {
        self.known.before = before;
    }

    /// With `--sandbox`.
    pub fn insist(mut self, wanted: Option<Tier>) -> Holder {
        self.wanted = wanted;
        self
    }

    /// Which owners files can have. Known at once and without a process; where that is fewer than there could be, the
    /// second value says so.
    pub fn ids(&self) -> Result<(Ids, Option<Fallback>)> {
        let choice = Choice::new(self.wanted)?;
        Ok((choice.ids(), choice.fallback))
    }

    /// Whom a script takes for the owners of binds.
    pub fn owners(&self) -> Result<Owners> {
        Ok(Choice::new(self.wanted)?.map.owners())
    }

    /// The user namespace of sandboxes, where binds are to be mounted with its map. It must be prepared.
    pub fn shifts_into(&self) -> Result<Option<File>> {
        if !Choice::new(self.wanted)?.map.is_shifted() {
            return Ok(None);
        }
        let path = format!("/proc/{}/ns/user", self.pid);
        File::open(&path).at("open", &path).map(Some)
    }

    /// What is to be told of the sandboxes that [`Holder::prepare`] came to; only once.
    pub fn take_fallback(&self) -> Option<Fallback> {
        self.fallback.lock().unwrap_or_else(|broken| broken.into_inner()).take()
    }

    /// What is to be told of sandboxes and store; only once.
    pub fn take_notices(&self) -> Vec<String> {
        let slow = self.slow.swap(false, Ordering::Relaxed).then(|| {
            let mend = Need::Overlay.mend();
            format!(
                "the store is of the kind copy: each `run` works on a copy of its whole base, and all of that is searched \
                 for what it changed. For one that is not: {mend}"
            )
        });
        self.take_fallback().map(|fallback| fallback.to_string()).into_iter().chain(slow).collect()
    }

    /// Maps the user namespace and opens the store, the first time it is called.
    pub fn prepare(&self) -> Result<Ready> {
        let mut ready = self.ready.lock().unwrap_or_else(|broken| broken.into_inner());
        if let Some(known) = &*ready {
            return known.as_ref().map_err(Error::again).cloned();
        }
        let made = self.make_ready();
        *ready = Some(made.as_ref().map_err(Error::again).cloned());
        made
    }

    fn make_ready(&self) -> Result<Ready> {
        let choice = Choice::new(self.wanted)?;
        let (choice, bare) = self.enter_namespace(choice)?;
        let map = &choice.map;
        // Before any owner is changed: a store of another map is left as it is.
        let mut setting = Setting { ids: choice.ids(), bare, ..Setting::default() };
        let takes_uppers = || self.takes_uppers(setting, map.root());
        let identity = store::open_identity(&self.roots, &map.uids, &map.gids, &self.known, &takes_uppers)?;
        make_roots(&self.roots, map.root())?;
        CommitPoint::RootsMade.reached();
        let listings = self.stacker.0.join("listings");
        let directories = [open_directory(&self.roots.0)?, open_directory(&listings)?];
        let insists = matches!(self.wanted, Some(Tier::SharedProc));
        let store = identity.backend;
        (setting.shared_proc, setting.store) = (insists, store);
        // Who asked for it knows.
        self.slow.store(store == StoreKind::Copy && self.known.asked.is_none(), Ordering::Relaxed);
        let refused = self.ask(wire::ENTER, encoded(setting)?.as_bytes(), &directories)?;
        if !refused.is_empty() {
            if matches!(self.wanted, Some(Tier::Full | Tier::Inner)) {
                return Err(Error::Lacking(Need::Proc, refused));
            }
            self.tell(Fallback { tier: Tier::SharedProc, need: Need::Proc, why: refused.clone() });
        }
        let tier = if bare { Tier::None } else { choice.tier(insists || !refused.is_empty()) };
        Ok(Ready { root: map.root(), tier, store, id: identity.id })
    }

    /// Whether overlayfs can write to the roots directory, which is made for that.
    fn takes_uppers(&self, setting: Setting, root: (u32, u32)) -> Result<bool> {
        make_roots(&self.roots, root)?;
        let refused = self.ask(wire::TRY, encoded(setting)?.as_bytes(), &[open_directory(&self.roots.0)?])?;
        Ok(refused.is_empty())
    }

    /// Puts the holder into a user namespace with the chosen ids. Where the kernel has none for it, and nobody insists,
    /// what can be done without is left: the second value is true then.
    fn enter_namespace(&self, choice: Choice) -> Result<(Choice, bool)> {
        if self.wanted == Some(Tier::None) {
            return Ok((choice, true));
        }
        match self.ask(wire::UNSHARE, b"", &[]) {
            Ok(_) => {
                choice.map.write(self.pid.as_raw() as u32)?;
                Ok((choice, false))
            }
            // Keys were made for owners that can not be had without a namespace.
            Err(error) if self.wanted.is_some() || IdMap::without_namespace().ids != choice.ids() => {
                Err(Error::Lacking(Need::UserNamespace, error.to_string()))
            }
            Err(error) => {
                self.tell(Fallback { tier: Tier::None, need: Need::UserNamespace, why: error.to_string() });
                Ok((Choice { map: IdMap::without_namespace(), ..choice }, true))
            }
        }
    }

    fn tell(&self, fallback: Fallback) {
        *self.fallback.lock().unwrap_or_else(|broken| broken.into_inner()) = Some(fallback);
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

    /// What the holder says when it has done something.
    fn ask(&self, letter: u8, text: &[u8], descriptors: &[OwnedFd]) -> Result<String> {
        let gone = || Error::Machine("the process that holds the user namespace has ended".to_owned());
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        wire::send(&self.socket, letter, text, &borrowed).map_err(|_| gone())?;
        let packet = wire::receive(&self.socket).ok().flatten().ok_or_else(gone)?;
        let text = String::from_utf8_lossy(&packet.text).into_owned();
        if packet.letter == wire::DONE { Ok(text) } else { Err(Error::Machine(text)) }
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

fn encoded(setting: Setting) -> Result<String> {
    serde_json::to_string(&setting).map_err(std::io::Error::from).at("encode", "a setting")
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).at("open", path)
}
