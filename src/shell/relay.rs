//! Carries what is typed to a sandbox's terminal, and what it shows to ours, until everybody there has ended.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{read, write};
use rustix::termios::{tcgetwinsize, tcsetwinsize};
use signal_hook::SigId;
use signal_hook::consts::{SIGCONT, SIGWINCH};
use signal_hook::low_level;

use super::terminal::Raw;

/// Signals after which our terminal is looked at again; each is a byte to be read.
struct Changes {
    bytes: UnixStream,
    ids: [SigId; 2],
}

/// Returns when the other side has been closed by all who had it.
pub fn relay(other_side: &OwnedFd) -> io::Result<()> {
    // A write must not wait for a program that itself waits until we read.
    fcntl_setfl(other_side, fcntl_getfl(other_side)? | OFlags::NONBLOCK)?;
    let changes = Changes::watch()?;
    let raw = Raw::begin()?;
    let (mut typed, mut input_open) = (Vec::new(), true);
    loop {
        let stdin = io::stdin();
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !typed.is_empty());
        let mut events =
            vec![PollFd::new(other_side.as_fd(), wanted), PollFd::new(changes.bytes.as_fd(), PollFlags::POLLIN)];
        if input_open && typed.is_empty() {
            events.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let happened = |index: usize| events.get(index).and_then(PollFd::any).unwrap_or(false);
        let (there, changed, here) = (happened(0), happened(1), happened(2));
        if changed {
            changes.take(other_side, &raw)?;
        }
        if here {
            input_open = type_into(&mut typed);
        }
        if !typed.is_empty() {
            send(&mut typed, other_side);
        }
        if there && !show(other_side)? {
            return Ok(());
        }
    }
}

/// Reads what was typed; false when our terminal has gone.
fn type_into(typed: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match read(io::stdin(), &mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            typed.extend_from_slice(&buffer[..length]);
            true
        }
        Err(error) => matches!(error, rustix::io::Errno::INTR | rustix::io::Errno::AGAIN),
    }
}

/// As much as the other side takes. When it has been closed, reading from it says so.
fn send(typed: &mut Vec<u8>, other_side: &OwnedFd) {
    if let Ok(length) = write(other_side, typed) {
        typed.drain(..length);
    }
}

/// Shows what there is; false when the other side has been closed, which is EIO.
fn show(other_side: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    match read(other_side, &mut buffer) {
        Ok(0) | Err(rustix::io::Errno::IO) => Ok(false),
        Ok(length) => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&buffer[..length])?;
            stdout.flush()?;
            Ok(true)
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

impl Changes {
    fn watch() -> io::Result<Changes> {
        let (bytes, writer) = UnixStream::pair()?;
        bytes.set_nonblocking(true)?;
        let size = low_level::pipe::register(SIGWINCH, writer.try_clone()?)?;
        let ids = [size, low_level::pipe::register(SIGCONT, writer)?];
        Ok(Changes { bytes, ids })
    }

    /// Gives the other side our size, and our terminal its raw mode again.
    fn take(&self, other_side: &OwnedFd, raw: &Raw) -> io::Result<()> {
        while matches!(read(&self.bytes, &mut [0; 64]), Ok(1..)) {}
        raw.again()?;
        Ok(tcsetwinsize(other_side, tcgetwinsize(io::stdin())?)?)
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        for id in self.ids {
            low_level::unregister(id);
        }
    }
}
