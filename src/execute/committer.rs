//! Makes results durable while a build goes on, so that a power cut takes no more than its last seconds.
//!
//! Some seconds after something was recorded, a thread syncs the file systems and renames the records; then the deciding
//! thread marks the rows. One does so at a time, and nobody while nothing is new. The end of a build does it once more.

use std::time::{Duration, Instant, SystemTime};

use crate::database::Unsynced;
use crate::error::Result;

use super::{Execution, Message};

/// How long something may be there that a power cut would take.
const EVERY: Duration = Duration::from_secs(5);

/// What is to be made durable.
#[derive(Debug, Default)]
pub(super) enum Committer {
    /// Nothing.
    #[default]
    Idle,
    /// Something, from this moment on.
    Due(Instant),
    /// A thread is at it.
    Syncing {
        /// Something was recorded since it began.
        again: bool,
    },
}

impl Execution<'_> {
    /// Something new is in the store.
    pub(super) fn recorded(&mut self) {
        match &mut self.committer {
            Committer::Idle => self.committer = Committer::Due(Instant::now() + EVERY),
            Committer::Due(_) => {}
            Committer::Syncing { again } => *again = true,
        }
    }

    /// Waits for a message. `None`: it is time to make durable what is there.
    pub(super) fn next_message(&self) -> Option<Message> {
        // We hold a sender, so the channel cannot be closed.
        match self.committer {
            Committer::Due(moment) => {
                let left = moment.checked_duration_since(Instant::now())?;
                self.receiver.recv_timeout(left).ok()
            }
            Committer::Idle | Committer::Syncing { .. } => self.receiver.recv().ok(),
        }
    }

    pub(super) fn is_committing(&self) -> bool {
        matches!(self.committer, Committer::Syncing { .. })
    }

    /// Starts the thread.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.committer = Committer::Idle;
        let Some(unsynced) = self.database.unsynced(&self.site.roots, SystemTime::now())? else { return Ok(()) };
        let sender = self.sender.clone();
        self.committer = Committer::Syncing { again: false };
        std::thread::spawn(move || {
            let end = unsynced.sync().and_then(|()| unsynced.sync_names());
            drop(sender.send(Message::Committed(unsynced, end)));
        });
        Ok(())
    }

    /// A sync that failed fails the build, as one at its end does.
    pub(super) fn committed(&mut self, unsynced: &Unsynced, end: Result<()>) -> Result<()> {
        let again = matches!(self.committer, Committer::Syncing { again: true });
        self.committer = Committer::Idle;
        match end {
            Ok(()) => self.database.mark_durable(unsynced)?,
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
        if again && self.failure.is_none() {
            self.recorded();
        }
        Ok(())
    }
}
