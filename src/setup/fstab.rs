//! The line that mounts the volume at every start. systemd reads it too.

use std::path::Path;

use crate::error::Result;

use super::volume::OPTIONS;
use super::{Done, Setup, lines};

const FSTAB: &str = "/etc/fstab";

impl Setup {
    pub(super) fn remember(&mut self, file: &str, roots: &str) -> Result<()> {
        let line = format!("{} {} btrfs {OPTIONS},nofail 0 0", escaped(file), escaped(roots));
        let table = Path::new(FSTAB);
        if lines::read(table)?.lines().any(|known| known == line) {
            println!("{FSTAB} has the line already");
            return Ok(());
        }
        if self.step(&format!("add to {FSTAB}: {line}")) {
            self.note(Done::Fstab { line: line.clone() })?;
            lines::add(table, &line)?;
        }
        Ok(())
    }

    pub(super) fn forget_line(&self, line: &str) -> Result<()> {
        if !self.step(&format!("remove from {FSTAB}: {line}")) {
            return Ok(());
        }
        lines::remove(Path::new(FSTAB), line)
    }
}

/// As fstab(5) wants blanks written.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012")
}
