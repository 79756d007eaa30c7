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
use crate::action::Ids;
use crate::commit_point::CommitPoint;
use crate::sys::{self, Fork, fork, set_signal_action};
use crate::worker;
use crate::worker::message::{Answer, Failure, Job, Setting};

/// How long workers may take to end their sandboxes before they are killed.
const PATIENCE: Duration = Duration::from_secs(4);

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
            wire::TRY => reply(&socket, takes_uppers(packet)),
            wire::ENTER => reply(&socket, enter(packet, &mut ground)),
            wire::JOB => start(packet, ground.as_ref()),
            _ => {}
        }
    }
    end_all();
    0
}

/// What workers inherit beside the namespace.
struct Ground {
    listings: OwnedFd,
    setting: Setting,
}

fn reply(socket: &OwnedFd, outcome: Result<String, String>) {
    // Whoever asked has gone when this fails, and the next packet says so.
    let _ = match outcome {
        Ok(text) => wire::send(socket, wire::DONE, text.as_bytes(), &[]),
        Err(why) => wire::send(socket, wire::FAILED, why.as_bytes(), &[]),
    };
}

fn unshare() -> Result<String, String> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
        .map_err(|error| format!("cannot make a user namespace: {error}"))?;
    CommitPoint::NamespaceMade.reached();
    Ok(String::new())
}

/// Tries it in a process that becomes the namespace's root for that.
fn takes_uppers(packet: Packet) -> Result<String, String> {
    let setting = read_setting(&packet)?;
    let roots = packet.descriptors.first().ok_or("the roots directory is missing")?;
    let tried = worker::in_a_fork(|| {
        if !setting.bare {
            become_root(setting.ids).map_err(std::io::Error::other)?;
        }
        rustix::process::fchdir(roots)?;
        worker::takes_uppers(setting.bare)
    });
    Ok(tried.err().map_or(String::new(), |error| error.to_string()))
}

fn read_setting(packet: &Packet) -> Result<Setting, String> {
    serde_json::from_slice(&packet.text).map_err(|error| format!("cannot read the setting: {error}"))
}

/// The map is written: become its root, with the roots directory as current directory. The answer is why sandboxes can
/// have no procfs of their own, if that is so.
fn enter(packet: Packet, ground: &mut Option<Ground>) -> Result<String, String> {
    let mut setting = read_setting(&packet)?;
    if !setting.bare {
        become_root(setting.ids)?;
    }
    let mut descriptors = packet.descriptors.into_iter();
    let (Some(roots), Some(listings)) = (descriptors.next(), descriptors.next()) else {
        return Err("the directories are missing".to_owned());
    };
    rustix::process::fchdir(&roots).map_err(|error| format!("cannot change to the roots directory: {error}"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut refused = String::new();
    if !setting.bare
        && !setting.shared_proc
        && hides_parts_of_proc()
        && let Err(error) = worker::own_proc()
    {
        refused = format!("mount /proc: {error}");
        setting.shared_proc = true;
    }
    *ground = Some(Ground { listings, setting });
    CommitPoint::NamespaceEntered.reached();
    Ok(refused)
}

/// Whether something is mounted beneath `/proc`, or not all of it is mounted there: only then can the kernel refuse a
/// new one, and it is worth a try.
fn hides_parts_of_proc() -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return true };
    let mut whole = false;
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let &[_, _, _, root, place, options, ..] = words.as_slice() else { return true };
        if place.starts_with("/proc/") {
            return true;
        }
        if place == "/proc" {
            whole = root == "/" && options.split(',').any(|option| option == "rw");
        }
    }
    !whole
}

fn become_root(ids: Ids) -> Result<(), String> {
    let failed = |doing: &'static str| move |error: nix::errno::Errno| format!("cannot {doing}: {error}");
    if ids == Ids::Full {
        // Whose map is one id may not leave groups. They have no power over anything that a sandbox shows.
        nix::unistd::setgroups(&[]).map_err(failed("leave the groups of the caller"))?;
    }
    let root = (nix::unistd::Gid::from_raw(0), nix::unistd::Uid::from_raw(0));
    nix::unistd::setresgid(root.0, root.0, root.0).map_err(failed("become the sandbox's group root"))?;
    nix::unistd::setresuid(root.1, root.1, root.1).map_err(failed("become the sandbox's root"))?;
    // The change of ids made /proc/self the host root's, which is nobody here.
    let dumpable = rustix::process::DumpableBehavior::Dumpable;
    rustix::process::set_dumpable_behavior(dumpable).map_err(|error| format!("cannot own /proc/self: {error}"))
}

/// Forks a worker for a job. What goes wrong before it works is its answer.
fn start(packet: Packet, ground: Option<&Ground>) {
    let mut descriptors = packet.descriptors.into_iter();
    let (Some(job), Some(answer)) = (descriptors.next(), descriptors.next()) else { return };
    CommitPoint::JobReceived.reached();
    match fork() {
        Ok(Fork::Parent(_)) => CommitPoint::WorkerForked.reached(),
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
        Ok(job) => worker::work(job, descriptors, ground.listings.as_fd(), ground.setting),
        Err(error) => Answer::Failed(Failure {
            step: "read a job".to_owned(),
            errno: error.raw_os_error(),
            message: error.to_string(),
            users: false,
        }),
    };
    CommitPoint::JobDone.reached();
    // What is left to do must not be cut short by the build's end, which waits for it.
    let _ = set_signal_action(Signal::SIGTERM, SigHandler::SigIgn);
    let code = respond(answer, &result);
    worker::remove_what_waits();
    code
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
