//! Runs one script in a sandbox whose root is an overlay mount, or a directory as it is.
//!
//! Three processes: the worker that calls [`run`]; PID 1 of the sandbox, ours; and the script. (Between the first two
//! stands a fourth that only waits: a process that unshares its own pid namespace can start no thread afterwards, and
//! the worker seals with many.) When `run` returns, no process of the sandbox is left and its mounts are gone, so the
//! upper directory is quiet. It knows nothing of what is sealed from it.

mod bind;
mod ground;
mod init;
mod kernel;
mod loopback;
mod points;
mod pretend;
mod root;
mod script;
mod step;
mod streams;

use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::action::Network;
use crate::listing::Stack;
use crate::sys::{self, Fork};
use crate::worker::message::{BindMount, Failure, Setting};
use ground::Ground;
use script::Program;
use step::{During, Report, machine_fault};
pub use streams::Streams;

/// The directory of the draft that is `/stacker` in the sandbox; it stays there for whoever wants what a script left.
pub const STACKER: &str = "s";

/// A script and all that it gets to see.
pub struct Sandbox<'a> {
    /// Title of PID 1.
    pub layer: &'a str,
    /// What lies at `/stacker/run`; starts with `#!`.
    pub script: &'a str,
    /// What is executed, with its arguments; a name without `/` is looked for in the environment's PATH.
    pub command: &'a [String],
    /// The whole of it.
    pub environment: &'a BTreeMap<String, String>,
    /// The base's directories, topmost first, relative to the working directory. `None`: the upper is the whole root
    /// filesystem.
    pub lowers: Option<&'a [PathBuf]>,
    /// A directory, relative too, that holds the upper `u`; all else in it is made here.
    pub draft: &'a Path,
    /// What an earlier sandbox left in `/stacker`: shown there too, never changed.
    pub left: Option<&'a Path>,
    /// (absolute place in the sandbox, what is shown there read-only).
    pub mounts: &'a [(String, PathBuf)],
    /// Paths of the host that are shown, each with its descriptor.
    pub binds: &'a [(BindMount, OwnedFd)],
    /// Names of empty directories in `/stacker`, to be written to.
    pub inside: &'a [&'a str],
    /// Network mode.
    pub network: Network,
    /// The listings of the base: where its links lead.
    pub base: &'a Stack,
    /// Standard input, output and error of the script.
    pub streams: Streams,
    /// What the machine has for it.
    pub setting: Setting,
}

impl Sandbox<'_> {
    /// The descriptors that must stay open in a process that has `others` besides.
    fn kept(&self, others: [RawFd; 2]) -> Vec<RawFd> {
        let mut kept = self.streams.and(others);
        kept.extend(self.binds.iter().map(|(_, file)| file.as_raw_fd()));
        kept
    }
}

/// Where the script lies in the sandbox.
pub const SCRIPT: &str = "/stacker/run";

/// Names in `/stacker` that no import may have.
pub const OWN_NAMES: [&str; 4] = ["imports", "run", pretend::APT_FILE, CERTIFICATES_FILE];

/// What certificates a script is to trust.
pub const CERTIFICATES_FILE: &str = ".ca-certificates.pem";

/// Runs the script to its end. Returns its exit code as a shell would say it: 128 + number for a signal.
///
/// For a single-threaded process that is user 0 of a user namespace, with ids 0 to 65535 or that one alone, with all capabilities and a
/// mount namespace of that user namespace, in the roots directory. SIGTERM while it runs ends the script; the result is
/// then a failure with EINTR, whatever the script made of it.
pub fn run(sandbox: Sandbox) -> Result<i32, Failure> {
    if sandbox.setting.bare {
        return Err(machine_fault("run the script", "there is no user namespace to run it in"));
    }
    let program = Program::new(&sandbox)?;
    let ground = Ground::prepare(&sandbox)?;
    let (orders_end, orders) = io::pipe().during("create a pipe")?;
    let (reports, report_end) = io::pipe().during("create a pipe")?;
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).during("block signals")?;
    let forked = sys::fork().during("fork");
    if let Ok(Fork::Child) = forked {
        leave(|| wait_for_init(sandbox, &ground, &program, orders_end, report_end));
    }
    drop((sandbox, orders_end, report_end));
    let outcome = match forked {
        Ok(Fork::Parent(child)) => attend(child, reports, orders, mask),
        Ok(Fork::Child) => unreachable!("the child has left"),
        Err(failure) => Err(failure),
    };
    mask.thread_set_mask().during("restore the signal mask")?;
    let cleared = ground.clear();
    outcome.and_then(|code| cleared.map(|()| code))
}

/// What a fork does instead of returning.
fn leave(life: impl FnOnce() -> i32) -> ! {
    sys::exit(catch_unwind(AssertUnwindSafe(life)).unwrap_or(101))
}

/// The process between: starts PID 1 in a new pid namespace and ends with it.
fn wait_for_init(sandbox: Sandbox, ground: &Ground, program: &Program, orders: PipeReader, report: PipeWriter) -> i32 {
    sys::close_except(&sandbox.kept([orders.as_raw_fd(), report.as_raw_fd()]));
    let forked = prctl::set_pdeathsig(Signal::SIGKILL)
        .during("follow the worker's death")
        .and_then(|()| unshare(CloneFlags::CLONE_NEWPID).during("unshare the pid namespace"))
        .and_then(|()| sys::fork().during("fork PID 1"));
    match forked {
        Ok(Fork::Child) => leave(|| init::live(sandbox, ground, program, orders, report)),
        Ok(Fork::Parent(init)) => {
            drop((sandbox, orders, report));
            while waitpid(init, None) == Err(Errno::EINTR) {}
            0
        }
        Err(failure) => {
            Report::Failed(failure).send(report);
            1
        }
    }
}

/// The worker's part: passes SIGTERM on, waits for the report and for the processes to be gone.
fn attend(child: Pid, reports: PipeReader, orders: PipeWriter, mask: SigSet) -> Result<i32, Failure> {
    // As it was for every signal but the one that is read from a descriptor.
    let mut waiting = mask;
    waiting.add(Signal::SIGTERM);
    waiting.thread_set_mask().during("unblock signals")?;
    let (text, interrupted) = listen(reports, orders)?;
    while waitpid(child, None) == Err(Errno::EINTR) {}
    if interrupted {
        let (step, message) = ("run the script".into(), "interrupted by SIGTERM".into());
        return Err(Failure { step, errno: Some(Errno::EINTR as i32), message, users: false });
    }
    match serde_json::from_slice(&text) {
        Ok(Report::Ended(code)) => Ok(code),
        Ok(Report::Failed(failure)) => Err(failure),
        Err(_) => Err(machine_fault("run the script", "the sandbox's PID 1 ended without a report")),
    }
}

/// Reads the report to its end; says whether SIGTERM came meanwhile.
fn listen(mut reports: PipeReader, mut orders: PipeWriter) -> Result<(Vec<u8>, bool), Failure> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&SigSet::from(Signal::SIGTERM), flags).during("watch for SIGTERM")?;
    let mut text = Vec::new();
    let mut interrupted = false;
    loop {
        let mut events =
            [PollFd::new(reports.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).during("wait for the sandbox"),
        }
        let [reported, signalled] = events.map(|event| event.any().unwrap_or(true));
        if signalled && let Ok(Some(_)) = signals.read_signal() {
            interrupted = true;
            // PID 1 may just have ended: then there is nobody to tell.
            let _ = orders.write(b"t");
        }
        let mut part = [0; 4096];
        if reported {
            match reports.read(&mut part).during("read the sandbox's report")? {
                0 => return Ok((text, interrupted)),
                length => text.extend_from_slice(&part[..length]),
            }
        }
    }
}
