//! Where a script's input comes from and its output goes to.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::step::During;
use crate::holder::wire;
use crate::worker::message::Failure;

/// What a sandbox reads from and writes to.
pub enum Streams {
    /// No input; output and error go to one descriptor.
    Output(OwnedFd),
    /// Standard input, output and error.
    Own([OwnedFd; 3]),
    /// A terminal of the sandbox's own, so that `tty` and job control work there.
    Terminal {
        /// Its other side is sent over this socket, as a packet [`wire::TERMINAL`].
        socket: OwnedFd,
        /// Rows and columns.
        size: (u16, u16),
    },
}

impl Streams {
    /// The descriptors that must stay open in a process that has `others` besides.
    pub(super) fn and(&self, others: [RawFd; 2]) -> Vec<RawFd> {
        let own = match self {
            Streams::Output(one) | Streams::Terminal { socket: one, .. } => vec![one.as_raw_fd()],
            Streams::Own(three) => three.iter().map(AsRawFd::as_raw_fd).collect(),
        };
        [own, others.to_vec()].concat()
    }

    /// Makes them the standard descriptors of this process, which leads a session and is in the sandbox's root.
    pub(super) fn connect(&self) -> Result<(), Failure> {
        match self {
            Streams::Output(output) => {
                let null = std::fs::File::open("/dev/null").during("open /dev/null")?;
                redirect(&null, output, output)
            }
            Streams::Own([input, output, error]) => redirect(input, output, error),
            Streams::Terminal { socket, size } => {
                let terminal = open_terminal(socket, *size)?;
                redirect(&terminal, &terminal, &terminal)
            }
        }
    }
}

fn redirect(input: impl AsFd, output: impl AsFd, error: impl AsFd) -> Result<(), Failure> {
    nix::unistd::dup2_stdin(input).during("redirect the input")?;
    nix::unistd::dup2_stdout(output).during("redirect the output")?;
    nix::unistd::dup2_stderr(error).during("redirect the errors")
}

/// A terminal of the sandbox's own devpts, which controls this session.
fn open_terminal(socket: &OwnedFd, (rows, columns): (u16, u16)) -> Result<OwnedFd, Failure> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let outside = openpt(flags).during("open a terminal")?;
    unlockpt(&outside).during("unlock the terminal")?;
    let inside = ioctl_tiocgptpeer(&outside, flags).during("open the terminal's other side")?;
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&inside, size).during("set the terminal's size")?;
    rustix::process::ioctl_tiocsctty(&inside).during("take the terminal")?;
    wire::send(socket, wire::TERMINAL, b"", &[outside.as_fd()]).during("hand the terminal out")?;
    Ok(inside)
}
