//! Gives what fails inside the sandbox the step that it failed at, and carries the outcome from process to process.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::worker::message::Failure;

/// What PID 1 tells the worker, once.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The script ran and ended; as a shell would say it.
    Ended(i32),
    /// It did not come to that.
    Failed(Failure),
}

impl Report {
    /// Sends it; nobody is left to hear of an error.
    pub fn send(&self, mut pipe: impl Write) {
        if let Ok(text) = serde_json::to_vec(self) {
            let _ = pipe.write_all(&text);
        }
    }
}

/// `mount(…).during("mount overlay")?`
pub trait During<T> {
    /// Turns an error into a failure of the machine at this step.
    fn during(self, step: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| {
            let error = error.into();
            Failure { step: step.into(), errno: error.raw_os_error(), message: error.to_string(), users: false }
        })
    }
}

/// The script or its base can not be run as they are.
pub fn users_fault(step: &str, message: String) -> Failure {
    Failure { step: step.into(), errno: None, message, users: true }
}

/// The machine, or stacker, failed without an errno.
pub fn machine_fault(step: &str, message: &str) -> Failure {
    Failure { step: step.into(), errno: None, message: message.into(), users: false }
}
