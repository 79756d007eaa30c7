//! PID 1 of a sandbox: sets it up, starts the script, reaps, and ends when everything else has ended.
//!
//! It listens to one pipe: a byte asks to end the script, the end of the pipe says that the worker is gone. It runs
//! with all signals blocked, so that nothing from outside or inside ends it half-way.

use std::ffi::CString;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::ground::Ground;
use super::script::Program;
use super::step::{During, Report};
use super::{Sandbox, root};
use crate::action::Network;
use crate::sys;
use crate::worker::message::Failure;

/// How long a script has to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long left-over processes have when the script has ended.
const LEFT_OVER_PATIENCE: Duration = Duration::from_millis(500);
const EVERYBODY: Pid = Pid::from_raw(-1);

/// The life of PID 1.
pub fn live(sandbox: Sandbox, ground: &Ground, program: &Program, orders: PipeReader, report: PipeWriter) -> i32 {
    sys::close_except(&sandbox.kept([orders.as_raw_fd(), report.as_raw_fd()]));
    let told = match supervise(sandbox, ground, program, orders) {
        Ok(code) => Report::Ended(code),
        Err(failure) => Report::Failed(failure),
    };
    told.send(report);
    0
}

fn supervise(sandbox: Sandbox, ground: &Ground, program: &Program, orders: PipeReader) -> Result<i32, Failure> {
    become_init(&sandbox)?;
    root::enter(&sandbox, ground)?;
    let children = SigSet::from(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let children = SignalFd::with_flags(&children, flags).during("watch for ended processes")?;
    let script = program.start(sandbox.streams, sandbox.network, sandbox.setting.ids)?;
    // The script has no business in these files; being in a nested namespace, it could only list them anyway.
    prctl::set_dumpable(false).during("disown its files in /proc")?;
    Family { script, code: None, deadline: None, orders, children }.outlive()
}

/// Takes what is this process's alone: a title, signals, namespaces.
fn become_init(sandbox: &Sandbox) -> Result<(), Failure> {
    sys::default_signals();
    umask(Mode::from_bits_truncate(0o022));
    prctl::set_pdeathsig(Signal::SIGKILL).during("follow the worker's death")?;
    // The holder changed its ids, which took the files of its forks in /proc from it; writing the script's id map needs
    // those.
    prctl::set_dumpable(true).during("own its files in /proc")?;
    let title = format!("stacker: {}", sandbox.layer.replace('\0', " "));
    // A nicety: where it fails, the sandbox runs untitled.
    let _ = sys::set_command_line(&title);
    let _ = CString::new(title).map(|title| prctl::set_name(&title));
    let mut namespaces =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    if sandbox.network == Network::None {
        // For a sysfs that shows nothing of the host's; the script gets yet another one, over which it has power.
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(namespaces).during("unshare namespaces")?;
    nix::unistd::sethostname("stacker").during("set the host name")?;
    rustix::system::setdomainname(b"(none)").during("set the domain name")
}

/// The script and all that it started.
struct Family {
    script: Pid,
    /// Of the script, once it ended.
    code: Option<i32>,
    /// When who is still there gets SIGKILL.
    deadline: Option<Instant>,
    orders: PipeReader,
    children: SignalFd,
}

impl Family {
    /// Returns the script's exit code when nobody else is left.
    fn outlive(mut self) -> Result<i32, Failure> {
        loop {
            if self.reap()? == Left::Nobody {
                return Ok(self.code.unwrap_or(128 + Signal::SIGKILL as i32));
            }
            if self.code.is_some() && self.deadline.is_none() {
                self.ask_to_end(LEFT_OVER_PATIENCE);
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let _ = kill(EVERYBODY, Signal::SIGKILL);
                // Again soon: a process may have forked in between.
                self.deadline = Some(Instant::now() + Duration::from_millis(50));
            }
            self.wait()?;
        }
    }

    /// Collects all who ended.
    fn reap(&mut self) -> Result<Left, Failure> {
        loop {
            match waitpid(EVERYBODY, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.script => self.code = Some(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.script => self.code = Some(128 + signal as i32),
                Ok(WaitStatus::StillAlive) => return Ok(Left::Somebody),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(Left::Nobody),
                Err(error) => return Err(error).during("wait for the script"),
            }
        }
    }

    /// Sleeps until a process ends, an order comes or the deadline passes.
    fn wait(&mut self) -> Result<(), Failure> {
        let timeout = match self.deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                deadline.saturating_duration_since(Instant::now()).try_into().unwrap_or(PollTimeout::ZERO)
            }
        };
        let mut events = [
            PollFd::new(self.orders.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).during("wait for the script"),
        }
        let [ordered, ended] = events.map(|event| event.any().unwrap_or(true));
        if ended {
            while let Ok(Some(_)) = self.children.read_signal() {}
        }
        if ordered {
            match self.orders.read(&mut [0]) {
                Ok(1..) => self.ask_to_end(PATIENCE),
                // The worker is gone. The kernel ends everybody else with this process.
                Ok(0) | Err(_) => sys::exit(1),
            }
        }
        Ok(())
    }

    fn ask_to_end(&mut self, patience: Duration) {
        let _ = kill(EVERYBODY, Signal::SIGTERM);
        self.deadline = Some(Instant::now() + patience);
    }
}

#[derive(PartialEq, Eq)]
enum Left {
    Nobody,
    Somebody,
}
