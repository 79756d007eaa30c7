//! The ends of logs, and what scripts were, as far as they are kept.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::action::Kind;
use crate::database::Database;
use crate::digest::Key;
use crate::error::Result;
use crate::export::metadata::Status;
use crate::place::StackerDir;
use crate::story::Story;

use super::More;

/// Bytes of all logs in a page; what fails may have more.
const ALL: u64 = 4 << 20;
/// Bytes of one.
const EACH: u64 = 64 << 10;
/// Bytes of one that failed.
const FAILED: u64 = 512 << 10;
/// Bytes of a script.
const SCRIPT: usize = 16 << 10;

/// The end of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// It, with whatever the script printed.
    pub text: String,
    /// How many bytes the whole log has.
    pub size: u64,
    /// How many of them are before the text.
    pub left_out: u64,
    /// It was written after the build.
    pub later: bool,
}

/// What there is of each layer's logs and script.
pub fn more(story: &Story, database: &Database, stacker: &StackerDir) -> Result<Vec<More>> {
    let keys: Vec<Vec<Key>> = (0..story.layers.len()).map(|place| keys(story, place)).collect();
    let share = (ALL / keys.len().max(1) as u64).min(EACH);
    let end = Duration::from_millis(story.build.begun.max(0) as u64).saturating_add(
        story.build.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(Duration::MAX),
    );
    let end = SystemTime::UNIX_EPOCH.checked_add(end);
    let mut all = Vec::with_capacity(keys.len());
    for (layer, keys) in story.layers.iter().zip(&keys) {
        let most = if layer.status == Status::Failed { FAILED } else { share };
        let logs = keys.iter().filter_map(|key| log(&stacker.log(key), most, end)).filter(|log| log.size > 0);
        all.push(More { script: script(keys, database)?, logs: logs.collect() });
    }
    Ok(all)
}

/// Those of its steps that were decided, and those that ran.
fn keys(story: &Story, place: usize) -> Vec<Key> {
    let ran = story.steps.iter().filter(|step| step.layer == Some(place)).filter_map(|step| step.key);
    let mut seen = HashSet::new();
    story.layers[place].keys.iter().copied().chain(ran).filter(|key| seen.insert(*key)).collect()
}

fn script(keys: &[Key], database: &Database) -> Result<Option<String>> {
    for key in keys {
        if let Some(action) = database.action(key)?
            && let Kind::Run { script, .. } = action.kind
        {
            let end = script.floor_char_boundary(SCRIPT);
            return Ok(Some(if end < script.len() { format!("{}\n…", &script[..end]) } else { script }));
        }
    }
    Ok(None)
}

/// A log that cannot be read is one that is no longer there.
fn log(path: &Path, most: u64, end: Option<SystemTime>) -> Option<Log> {
    let mut file = File::open(path).ok()?;
    let facts = file.metadata().ok()?;
    let size = facts.len();
    let mut left_out = size.saturating_sub(most);
    file.seek(SeekFrom::Start(left_out)).ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    if left_out > 0 {
        // From the next line on, if there is one.
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.drain(..line);
        left_out += line as u64;
    }
    let later = end.zip(facts.modified().ok()).is_some_and(|(end, written)| written > end + Duration::from_secs(1));
    Some(Log { text: String::from_utf8_lossy(&bytes).into_owned(), size, left_out, later })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_there_is_the_end_from_a_line_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        std::fs::write(&path, "first line\nsecond line\nthird\n").expect("a file");
        let found = log(&path, 15, None).expect("a log");
        assert_eq!((found.text.as_str(), found.size, found.left_out), ("third\n", 29, 23));
        assert_eq!(log(&path, 100, None).expect("a log").left_out, 0);
        assert!(log(&path, 100, Some(SystemTime::UNIX_EPOCH)).expect("a log").later);
        assert_eq!(log(&dir.path().join("none"), 1, None), None);
    }
}
