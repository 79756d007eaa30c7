//! The line that mounts the volume at every start. systemd reads it too.

use std::fs;
use std::path::Path;

use crate::error::{At, Result};

use super::volume::OPTIONS;
use super::{Done, Setup};

const FSTAB: &str = "/etc/fstab";

impl Setup {
    pub(super) fn remember(&mut self, file: &str, roots: &str) -> Result<()> {
        let line = format!("{} {} btrfs {OPTIONS},nofail 0 0", escaped(file), escaped(roots));
        let text = read()?;
        if text.lines().any(|known| known == line) {
            println!("{FSTAB} has the line already");
            return Ok(());
        }
        if self.step(&format!("add to {FSTAB}: {line}")) {
            self.note(Done::Fstab { line: line.clone() })?;
            let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            write(&format!("{text}{newline}{line}\n"))?;
        }
        Ok(())
    }

    pub(super) fn forget_line(&self, line: &str) -> Result<()> {
        if !self.step(&format!("remove from {FSTAB}: {line}")) {
            return Ok(());
        }
        let kept: String = read()?.lines().filter(|known| *known != line).map(|known| format!("{known}\n")).collect();
        write(&kept)
    }
}

fn read() -> Result<String> {
    match fs::read_to_string(FSTAB) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.at("read", FSTAB),
    }
}

/// At once or not at all, with the mode that it had.
fn write(text: &str) -> Result<()> {
    let mode = fs::metadata(FSTAB).map(|found| found.permissions()).ok();
    let path = Path::new(FSTAB);
    crate::record::write_once_for_good(Path::new("/etc"), path, text.as_bytes())?;
    let mode = mode.unwrap_or_else(|| std::os::unix::fs::PermissionsExt::from_mode(0o644));
    fs::set_permissions(path, mode).at("set the mode of", path)
}

/// As fstab(5) wants blanks written.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012")
}
