//! A profile that lets this program make user namespaces, where AppArmor keeps ordinary users from it (Ubuntu since 23.10).

use std::fs;
use std::path::Path;

use crate::error::{At, Error, Result};

use super::{Done, Setup, remove_if_there, run};

const SWITCH: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
const PROFILE: &str = "/etc/apparmor.d/stacker";

impl Setup {
    pub(super) fn profile(&mut self) -> Result<()> {
        if fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() != "1") || !Path::new(SWITCH).exists() {
            println!("AppArmor does not restrict user namespaces here");
            return Ok(());
        }
        let program =
            std::env::current_exe().map_err(|error| Error::Machine(format!("cannot find this program: {error}")))?;
        let text = profile(&program.to_string_lossy());
        let path = Path::new(PROFILE);
        if fs::read_to_string(path).is_ok_and(|known| known == text) {
            println!("{PROFILE} is there already");
            return Ok(());
        }
        if self.step(&format!("write {PROFILE} for {} and load it", program.display())) {
            self.note(Done::Profile { file: path.to_path_buf() })?;
            fs::write(path, text).at("write", path)?;
            run("apparmor_parser", &["-Q", PROFILE], "apparmor")?;
            run("apparmor_parser", &["-r", PROFILE], "apparmor")?;
        }
        Ok(())
    }

    pub(super) fn unload_profile(&self, file: &Path) -> Result<()> {
        if !self.step(&format!("unload and remove {}", file.display())) {
            return Ok(());
        }
        if file.exists() {
            run("apparmor_parser", &["-R", &file.to_string_lossy()], "apparmor")?;
        }
        remove_if_there(file)
    }
}

/// The text of the profile for a program.
pub fn profile(program: &str) -> String {
    format!(
        "# By `stacker setup`. Not confined otherwise: builds use programs of their own, in sandboxes.\n\
         abi <abi/4.0>,\ninclude <tunables/global>\n\n\
         profile stacker {program:?} flags=(unconfined) {{\n  userns,\n  include if exists <local/stacker>\n}}\n"
    )
}
