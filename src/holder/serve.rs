//! The holder's own side: single-threaded, it enters the user namespace, forks workers, and ends them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::ids::set_name;
use super::wire::{self, Packet};
use crate::store::StoreKind;
use crate::sys::{self, Fork, fork, set_signal_action};
use crate::worker;
use crate::worker::message::{Answer, Failure, Job};

/// How long workers may take to end their sandboxes before they are killed.
const PATIENCE: Duration = Duration::from_secs(4);

/// What every job starts from.
struct Ground {
    /// The listings directory.
    listings: OwnedFd,
    /// What the roots directory is.
    store: StoreKind,
}

/// Serves until the main process has gone; the exit code.
pub fn serve(socket: OwnedFd) -> i32 {
    set_name("stacker: holder");
    // A process group of its own: Ctrl-C on the terminal reaches the main process alone, which then closes the socket.
    let _ = rustix::process::setsid();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let _ = set_signal_action(signal, SigHandler::SigIgn);
    }
    // Ended workers vanish by themselves; their answers come through pipes.
    let _ = set_signal_action(Signal::SIGCHLD, SigHandler::SigIgn);
    let mut ground = None;
    while let Ok(Some(packet)) = wire::receive(&socket) {
        match packet.letter {
            wire::UNSHARE => reply(&socket, unshare()),
            wire::ENTER => reply(&socket, enter(packet, &mut ground)),
            wire::JOB => start(packet, ground.as_ref()),
            _ => {}
        }
    }
    end_all();
    0
}

fn reply(socket: &OwnedFd, outcome: Result<(), String>) {
    // Whoever asked has gone when this fails, and the next packet says so.
    let _ = match outcome {
        Ok(()) => wire::send(socket, wire::DONE, b"", &[]),
        Err(why) => wire::send(socket, wire::FAILED, why.as_bytes(), &[]),
    };
}

fn unshare() -> Result<(), String> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
        .map_err(|error| format!("cannot make a user namespace: {error}; does this system allow them?"))
}

/// The map is written: become its root, with the roots directory as current directory.
fn enter(packet: Packet, ground: &mut Option<Ground>) -> Result<(), String> {
    let failed = |doing: &'static str| move |error: nix::errno::Errno| format!("cannot {doing}: {error}");
    nix::unistd::setgroups(&[]).map_err(failed("leave the groups of the caller"))?;
    let root = (nix::unistd::Gid::from_raw(0), nix::unistd::Uid::from_raw(0));
    nix::unistd::setresgid(root.0, root.0, root.0).map_err(failed("become the sandbox's group root"))?;
    nix::unistd::setresuid(root.1, root.1, root.1).map_err(failed("become the sandbox's root"))?;
    // The change of ids made /proc/self the host root's, which is nobody here.
    let dumpable = rustix::process::DumpableBehavior::Dumpable;
    rustix::process::set_dumpable_behavior(dumpable).map_err(|error| format!("cannot own /proc/self: {error}"))?;
    let mut descriptors = packet.descriptors.into_iter();
    let (Some(roots), Some(found)) = (descriptors.next(), descriptors.next()) else {
        return Err("the directories are missing".to_owned());
    };
    rustix::process::fchdir(&roots).map_err(|error| format!("cannot change to the roots directory: {error}"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let store =
        serde_json::from_slice(&packet.text).map_err(|error| format!("cannot tell the kind of store: {error}"))?;
    *ground = Some(Ground { listings: found, store });
    Ok(())
}

/// Forks a worker for a job. What goes wrong before it works is its answer.
fn start(packet: Packet, ground: Option<&Ground>) {
    let mut descriptors = packet.descriptors.into_iter();
    let (Some(job), Some(answer)) = (descriptors.next(), descriptors.next()) else { return };
    match fork() {
        Ok(Fork::Parent(_)) => {}
        Ok(Fork::Child) => {
            become_worker();
            let code = match ground {
                Some(ground) => work(File::from(job), descriptors.collect(), ground, File::from(answer)),
                None => 1,
            };
            sys::exit(code)
        }
        Err(error) => {
            let failure = Failure {
                step: "start a worker".to_owned(),
                errno: error.raw_os_error(),
                message: error.to_string(),
                users: false,
            };
            respond(File::from(answer), &Answer::Failed(failure));
        }
    }
}

/// Undoes what is only right for the holder.
fn become_worker() {
    set_name("stacker: worker");
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        let _ = set_signal_action(signal, SigHandler::SigDfl);
    }
}

fn work(mut job: File, descriptors: Vec<OwnedFd>, ground: &Ground, answer: File) -> i32 {
    let mut text = Vec::new();
    let read = job.read_to_end(&mut text).and_then(|_| Ok(serde_json::from_slice::<Job>(&text)?));
    drop(job);
    let result = match read {
        Ok(job) => worker::work(job, descriptors, ground.listings.as_fd(), ground.store),
        Err(error) => Answer::Failed(Failure {
            step: "read a job".to_owned(),
            errno: error.raw_os_error(),
            message: error.to_string(),
            users: false,
        }),
    };
    respond(answer, &result)
}

fn respond(mut pipe: File, answer: &Answer) -> i32 {
    let written = serde_json::to_vec(answer).map_err(std::io::Error::from).and_then(|text| pipe.write_all(&text));
    i32::from(written.is_err())
}

/// Ends every worker, and this process with the last of them.
fn end_all() {
    let group = nix::unistd::getpgrp();
    let _ = nix::sys::signal::killpg(group, Signal::SIGTERM);
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        // SIGCHLD is ignored: this fails with ECHILD when no child is left.
        if waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
}
