//! Where lines go that are no live lines: stderr, or the file of `--log-file`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use crate::error::{At, Result};

/// Set once, before anything is told; without it lines go to stderr as they are.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    file: Option<Mutex<File>>,
    times: bool,
}

/// Lines go to a file from now on, at its end, or have the time before them, or both.
pub fn open(file: Option<&Path>, times: bool) -> Result<()> {
    let opened = file.map(|path| File::options().create(true).append(true).open(path).at("open", path)).transpose()?;
    // A second call would find nothing to do.
    let _ = LOG.set(Log { file: opened.map(Mutex::new), times });
    Ok(())
}

/// Whether there is a place for lines, or a form, that live lines have not.
pub(super) fn is_wanted() -> bool {
    has_file() || LOG.get().is_some_and(|log| log.times)
}

/// Whether lines go to a file.
pub(super) fn has_file() -> bool {
    LOG.get().is_some_and(|log| log.file.is_some())
}

/// Writes a line.
pub fn line(text: &str) {
    let log = LOG.get();
    let time = match log {
        Some(log) if log.times => jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ ").to_string(),
        _ => String::new(),
    };
    match log.and_then(|log| log.file.as_ref()) {
        Some(file) => {
            let mut file = file.lock().unwrap_or_else(|broken| broken.into_inner());
            // A log that cannot be written is no reason to build nothing.
            let _ = file.write_all(format!("{time}{text}\n").as_bytes());
        }
        None => eprintln!("{time}{text}"),
    }
}

/// Why the program ends: in the file, and on stderr all the same.
pub fn last(text: &str) {
    line(text);
    if has_file() {
        eprintln!("{text}");
    }
}
