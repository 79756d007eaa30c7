//! What builds come to that nobody disturbs: what a disturbed one is compared with.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Mutex;

use stacker::digest::DiffId;

use super::space::Space;

/// Of all layers, by name.
pub type Digests = Vec<(String, Vec<DiffId>)>;

/// See the module's header.
pub struct Undisturbed {
    pub space: Space,
    known: Mutex<HashMap<String, Digests>>,
}

impl Undisturbed {
    pub fn new() -> Undisturbed {
        Undisturbed { space: Space::new(), known: Mutex::default() }
    }

    /// Of the sources that `write` writes; each is built once.
    pub fn digests(&self, sources: impl Debug, write: impl FnOnce(&Space)) -> Digests {
        let mut known = self.known.lock().unwrap_or_else(|broken| broken.into_inner());
        let build = || {
            write(&self.space);
            self.space.build(&[]).digests()
        };
        known.entry(format!("{sources:?}")).or_insert_with(build).clone()
    }
}
