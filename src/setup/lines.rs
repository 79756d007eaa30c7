//! Files of the system that are lines, each an entry of its own.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{At, Result};

/// The text; one that is not there is empty.
pub(super) fn read(file: &Path) -> Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.at("read", file),
    }
}

pub(super) fn add(file: &Path, line: &str) -> Result<()> {
    let text = read(file)?;
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write(file, &format!("{text}{newline}{line}\n"))
}

/// A line that is not there is no error.
pub(super) fn remove(file: &Path, line: &str) -> Result<()> {
    let kept: String = read(file)?.lines().filter(|known| *known != line).map(|known| format!("{known}\n")).collect();
    write(file, &kept)
}

/// At once or not at all, with the mode that it had.
fn write(file: &Path, text: &str) -> Result<()> {
    let mode = fs::metadata(file).map(|found| found.permissions()).ok();
    crate::record::write_once_for_good(file.parent().unwrap_or(Path::new("/")), file, text.as_bytes())?;
    let mode = mode.unwrap_or_else(|| PermissionsExt::from_mode(0o644));
    fs::set_permissions(file, mode).at("set the mode of", file)
}
