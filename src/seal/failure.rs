//! Failures of sealing and unpacking: whose fault, at which step.

use std::io;

use crate::Error;
use crate::text::escape;
use crate::worker::message::Failure;

/// The machine's fault: a system call failed. But a name or a path that no system takes came with what is built.
pub(crate) fn machine(doing: &str, path: &[u8], error: io::Error) -> Failure {
    let users = error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error());
    Failure { step: step(doing, path), errno: error.raw_os_error(), message: error.to_string(), users }
}

/// The fault of what was built or unpacked.
pub(crate) fn users(doing: &str, path: &[u8], message: impl Into<String>) -> Failure {
    Failure { step: step(doing, path), errno: None, message: message.into(), users: true }
}

/// An error of the library, at a step of ours.
pub(crate) fn library(doing: &str, error: Error) -> Failure {
    let errno = match &error {
        Error::Io { source, .. } => source.raw_os_error(),
        _ => None,
    };
    Failure { step: doing.to_owned(), errno, message: error.to_string(), users: error.exit_code() == 1 }
}

/// Paths in the image, readable: `/usr/bin/x`.
fn step(doing: &str, path: &[u8]) -> String {
    let path = if path.is_empty() { String::new() } else { escape(path) };
    format!("{doing} /{path}")
}
