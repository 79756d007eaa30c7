//! Which layers and stacks there should be data of, and who may be using it: from results and base images.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::database::Database;
use crate::digest::{Chain, ChainId, DiffId};
use crate::error::Result;
use crate::pins::Pin;

/// What the database knows of.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub layers: BTreeMap<DiffId, Layer>,
    /// By the short form of their ids.
    stacks: HashMap<String, Chain>,
    /// What a build pins that relies on a stack.
    pins: HashMap<ChainId, Vec<Pin>>,
}

/// A layer.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Its tar is ours: it came out of an action.
    pub ours: bool,
    /// The stacks that it is on top of.
    pub stacks: BTreeSet<ChainId>,
    /// What a build pins that relies on it.
    pub pins: Vec<Pin>,
    /// Whose it is, for people.
    pub of: String,
}

impl Known {
    pub fn read(database: &Database) -> Result<Known> {
        let mut known = Known::default();
        let mut chains = HashMap::from([(ChainId::SCRATCH, Chain::default())]);
        for (base, _) in database.bases()? {
            for (index, id) in base.ids().into_iter().enumerate() {
                known.add(base.0[index], id, Pin::Base(id), "a base image");
                chains.insert(id, Chain(base.0[..=index].to_vec()));
            }
        }
        let mut open = Vec::new();
        for row in database.list()? {
            let (Some(diff_id), Some(action)) = (row.diff_id, database.action(&row.key)?) else { continue };
            let of = if row.layers.is_empty() { row.key.first_digits() } else { row.layers.join(", ") };
            let id = action.base.push(diff_id);
            known.add(diff_id, id, Pin::Result(row.key), &of).ours = true;
            open.push((action.base, diff_id));
        }
        // A stack is known once what is beneath it is.
        loop {
            let before = open.len();
            open.retain(|(base, diff_id)| {
                let Some(chain) = chains.get(base).map(|chain| chain.with(Some(*diff_id))) else { return true };
                chains.insert(base.push(*diff_id), chain);
                false
            });
            if open.len() == before {
                break;
            }
        }
        known.stacks = chains.into_iter().map(|(id, chain)| (id.short(), chain)).collect();
        Ok(known)
    }

    /// The stack whose directories have this name.
    pub fn stack(&self, short: &str) -> Option<&Chain> {
        self.stacks.get(short)
    }

    /// What a build pins that relies on a stack.
    pub fn pins(&self, stack: &ChainId) -> &[Pin] {
        self.pins.get(stack).map_or(&[], |pins| pins)
    }

    /// Whose a stack is, for people.
    pub fn of(&self, stack: &Chain) -> &str {
        stack.0.last().and_then(|top| self.layers.get(top)).map_or("nothing", |layer| &layer.of)
    }

    fn add(&mut self, diff_id: DiffId, stack: ChainId, pin: Pin, of: &str) -> &mut Layer {
        self.pins.entry(stack).or_default().push(pin.clone());
        let layer = self.layers.entry(diff_id).or_default();
        layer.stacks.insert(stack);
        layer.pins.push(pin);
        if layer.of.is_empty() {
            layer.of = of.to_owned();
        }
        layer
    }
}
