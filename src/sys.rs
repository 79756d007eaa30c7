//! The system calls that no crate makes safely: the only place for `unsafe`, each with its argument.

use std::fs::File;
use std::io;

use memmap2::Mmap;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::unistd::{ForkResult, Pid};

/// Maps a file that nobody writes any more.
pub fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the files mapped here (listings) are written once under another name or descriptor, are immutable from
    // then on, and lie in directories that only their owner can write. Their text is never trusted to be valid.
    unsafe { Mmap::map(file) }
}

/// Which of the two processes that [`fork`] returns in.
pub enum Fork {
    /// The caller, with the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks. Only for processes without other threads.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: a child of a process with several threads may only make async-signal-safe calls. Those who call this (the
    // main process before it starts anything, the holder, workers before they use rayon, PID 1 of a sandbox) have one.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Ignores a signal, or gives it its default action again.
pub fn set_signal_action(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    debug_assert!(matches!(handler, SigHandler::SigDfl | SigHandler::SigIgn));
    // SAFETY: no handler function is installed, so nothing runs in the context of a signal.
    unsafe { nix::sys::signal::sigaction(signal, &action) }?;
    Ok(())
}
