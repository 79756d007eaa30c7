//! Runs one command in a sandbox of its own, on the caller's terminal or with the caller's descriptors.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{relay, terminal};
use crate::binfmt::{self, Foreign};
use crate::error::{At, Error, Result};
use crate::execute::{Site, hand_over};
use crate::holder::wire;
use crate::need::Need;
use crate::tell::Signals;
use crate::worker::message::{Answer, Failure, Job, ShellJob};

/// Runs it to its end, in a layer of this architecture; the exit code as a shell would say it.
pub fn open(site: &Arc<Site>, arch: &str, mut job: ShellJob) -> Result<i32> {
    site.ready()?;
    // Nothing that a person does in a shell is kept, but in what is not an input.
    let binds = hand_over(site, &mut job.run, true)?;
    let layer = job.run.layer.clone();
    let answer = heeding_signals(site, || match terminal::size() {
        Some(size) => on_terminal(site, job, binds, size),
        None => with_descriptors(site, job, binds),
    })?;
    code(site, &layer, arch, answer)
}

/// Does what jobs take part in; Ctrl-C and its like end those.
pub(crate) fn heeding_signals<T>(site: &Arc<Site>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let interrupted = Arc::new(AtomicI32::new(0));
    let (theirs, by) = (site.clone(), interrupted.clone());
    let signals = Signals::listen(move |signal| {
        by.store(signal, Ordering::SeqCst);
        // Ending takes a while, in which a second signal must be heard.
        let site = theirs.clone();
        std::thread::spawn(move || site.holder.end());
    })?;
    let done = work();
    signals.stop();
    match interrupted.load(Ordering::SeqCst) {
        0 => done,
        signal => Err(Error::Interrupted(signal)),
    }
}

/// Standard input, output and error are the command's.
fn with_descriptors(site: &Site, job: ShellJob, binds: Vec<OwnedFd>) -> Result<Answer> {
    let copy = |fd: std::os::fd::BorrowedFd| fd.try_clone_to_owned().at("duplicate", "a standard descriptor");
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut own = vec![copy(input.as_fd())?, copy(output.as_fd())?, copy(error.as_fd())?];
    own.extend(binds);
    site.holder.submit(Job::Shell(Box::new(job)), own)?.wait()
}

/// The command has a terminal of its own, and ours shows it: Ctrl-C and its like are the command's, and none of its
/// programs holds a descriptor of ours.
fn on_terminal(site: &Site, mut job: ShellJob, binds: Vec<OwnedFd>, size: (u16, u16)) -> Result<Answer> {
    job.terminal = Some(size);
    if let Ok(kind) = std::env::var("TERM") {
        job.run.environment.insert("TERM".to_owned(), kind);
    }
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|error| Error::Machine(format!("cannot make a socket: {error}")))?;
    let pending = site.holder.submit(Job::Shell(Box::new(job)), std::iter::once(theirs).chain(binds).collect())?;
    // Nothing comes where the command could not be started; the answer says why.
    let packet = wire::receive(&ours).ok().flatten();
    if let Some(other_side) = packet.and_then(|packet| packet.descriptors.into_iter().next()) {
        relayed(other_side)?;
    }
    pending.wait()
}

fn relayed(other_side: OwnedFd) -> Result<()> {
    relay::relay(&other_side).map_err(|error| Error::Machine(format!("cannot show the command's terminal: {error}")))
}

/// What cannot be started has the exit codes that shells give it.
fn code(site: &Site, layer: &str, arch: &str, answer: Answer) -> Result<i32> {
    match answer {
        Answer::Ended { code } => Ok(code),
        Answer::Failed(failure) => {
            let text = format!("{}: {}", failure.step, failure.message);
            match failure.errno {
                _ if !failure.users => Err(site.fault(&failure)),
                None => Err(Error::Build(text)),
                Some(errno) => {
                    let lack = lack(layer, arch, &failure);
                    if let Some(why) = lack.clone().filter(|_| errno == Errno::ENOEXEC as i32) {
                        return Err(Error::Lacking(Need::Binfmt, why));
                    }
                    // The program is not there, or else a handler for it that the kernel looks for in the sandbox.
                    let missing = errno == Errno::ENOENT as i32;
                    let more = lack.filter(|_| missing).map_or_else(String::new, |why| format!("; {why}"));
                    eprintln!("error: {text}{more}");
                    Ok(if missing { 127 } else { 126 })
                }
            }
        }
        other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
    }
}

/// Why programs of a layer for another processor do not run here, as builds say it of scripts. It is asked after the
/// failure only: what an image says of its processor need not be true of a program in it.
fn lack(layer: &str, arch: &str, failure: &Failure) -> Option<String> {
    let why = match binfmt::look(arch) {
        Foreign::Lacks(why) => why,
        Foreign::Unknown if failure.errno == Some(Errno::ENOEXEC as i32) => {
            format!("the kernel has no handler for its programs ({})", failure.message)
        }
        _ => return None,
    };
    Some(format!("layer {layer} is for {arch}, and {why}"))
}
