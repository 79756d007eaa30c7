//! `stacker log`: what the scripts of a layer printed.

use super::{Asked, find};
use crate::database::Database;
use crate::error::{At, Error, Result};
use crate::place::StackerDir;

/// The output of the layer's last script, in the newest build or the one that is asked for.
pub fn log(database: &Database, stacker: &StackerDir, asked: &Asked) -> Result<Vec<u8>> {
    let found = find(database, asked)?;
    let Some((_, whose, built)) = found.builds.into_iter().next() else { return Ok(vec![]) };
    let steps = database.build_steps(whose)?;
    let ran = steps.iter().rev().filter(|step| step.layer == built.layer && step.scope == built.scope);
    let ran: Vec<_> = ran.filter(|step| matches!(step.step.as_str(), "run" | "labels")).collect();
    // A script that failed has no key among those that were decided.
    let keys = ran.iter().filter_map(|step| step.key).chain(built.keys.iter().rev().copied());
    let mut scripts = 0;
    for key in keys {
        let script = database.action(&key)?.is_some_and(|action| matches!(action.kind.name(), "run" | "labels"));
        let path = stacker.log(&key);
        if script && path.exists() {
            return std::fs::read(&path).at("read", &path);
        }
        scripts += usize::from(script);
    }
    let name = &asked.name;
    Err(Error::Usage(match scripts {
        0 => format!("layer {name} has no script, so nothing was printed"),
        _ => format!("the log of layer {name} is no longer there: it goes with the result"),
    }))
}
