//! Which kind of sandbox a build gets: what it insists on, else the best that there is.

use std::fmt;

use super::ids::{IdMap, Tier};
use crate::action::Ids;
use crate::error::{Error, Result};
use crate::need::Need;

/// A sandbox that is less than it could be.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// What is taken instead.
    pub tier: Tier,
    /// What is lacking.
    pub need: Need,
    /// What was seen of that.
    pub why: String,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let cost = match self.tier {
            Tier::SingleId => "every file that a layer adds belongs to root, and chown changes nothing",
            Tier::SharedProc => {
                "a `run` sees the names of the processes outside, and /proc/PID is not the process that it calls PID"
            }
            Tier::None => "no layer with a `run` can be built",
            Tier::Full | Tier::Inner => "nothing is lost",
        };
        write!(f, "the sandbox is of the kind {}: {cost}. {}", self.tier, self.need.lacking(&self.why))
    }
}

/// What is known before anything was tried: it decides about keys, and builds of hits alone get no further.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The ids.
    pub map: IdMap,
    /// Where it is less than there could be.
    pub fallback: Option<Fallback>,
}

impl Choice {
    /// For whoever calls.
    pub fn new(wanted: Option<Tier>) -> Result<Choice> {
        let plain = |map| Ok(Choice { map, fallback: None });
        match wanted {
            Some(Tier::None) => plain(IdMap::without_namespace()),
            Some(Tier::SingleId) => plain(IdMap::single()),
            Some(Tier::SharedProc) => plain(IdMap::choose()?),
            Some(Tier::Full | Tier::Inner) => {
                let map = IdMap::choose()?;
                match map.inner == (wanted == Some(Tier::Inner)) {
                    true => plain(map),
                    false if map.inner => {
                        Err(Error::Lacking(Need::Ids, "this container has no ids beside its own".to_owned()))
                    }
                    false => Err(Error::Usage(
                        "--sandbox inner is for root of a container that has no ids beside its own".to_owned(),
                    )),
                }
            }
            None => match IdMap::choose() {
                Err(Error::Lacking(need, why)) => {
                    let fallback = Some(Fallback { tier: Tier::SingleId, need, why });
                    Ok(Choice { map: IdMap::single(), fallback })
                }
                other => plain(other?),
            },
        }
    }

    /// What keys say of it.
    pub fn ids(&self) -> Ids {
        self.map.ids
    }

    /// The tier, now that it is known whether sandboxes have a procfs of their own.
    pub fn tier(&self, shared_proc: bool) -> Tier {
        match self.map.ids {
            Ids::Single => Tier::SingleId,
            Ids::Full if shared_proc => Tier::SharedProc,
            Ids::Full if self.map.inner => Tier::Inner,
            Ids::Full => Tier::Full,
        }
    }
}
