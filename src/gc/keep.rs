//! Which results the newest states of each layer consist of.

use std::collections::{HashMap, HashSet};

use crate::database::Database;
use crate::digest::Key;
use crate::error::Result;

/// The results of the newest `count` states of each layer name, as builds left them. A state is what the steps of a layer
/// were in a build: builds between which nothing changed have the same.
pub(super) fn newest(database: &Database, count: u32) -> Result<HashSet<Key>> {
    let mut states: HashMap<String, Vec<Vec<Key>>> = HashMap::new();
    for (layer, keys) in database.layer_states()? {
        let known = states.entry(layer).or_default();
        if known.len() < count as usize && !known.contains(&keys) {
            known.push(keys);
        }
    }
    Ok(states.into_values().flatten().flatten().collect())
}
