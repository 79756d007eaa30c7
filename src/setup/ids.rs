//! Subordinate ids for a user.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::holder::{IDS, subordinate};

use super::{Done, Setup, lines, must_be_root, read_notes, run};

/// Below this, distributions give ids to users themselves.
const FIRST: u32 = 100_000;

/// `stacker unpriv-setup`: what every user needs, and nothing else.
pub fn ids_alone(name: Option<&str>, uid: Option<u32>, dry_run: bool) -> Result<()> {
    let name = user(name, uid)?;
    must_be_root(dry_run)?;
    Setup { dry_run, done: read_notes()? }.ids(&name)
}

/// The name of the user who is meant.
fn user(name: Option<&str>, uid: Option<u32>) -> Result<String> {
    let caller = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
    let found = match (name, uid, &caller) {
        (Some(name), ..) => nix::unistd::User::from_name(name),
        (None, Some(uid), _) => nix::unistd::User::from_uid(uid.into()),
        (None, None, Some(caller)) => nix::unistd::User::from_name(caller),
        (None, None, None) => return Err(Error::Usage("who gets the ids? Say --username NAME".to_owned())),
    };
    let Some(found) = found.ok().flatten() else {
        return Err(Error::Usage("there is no such user: see --username and --uid".to_owned()));
    };
    match uid {
        _ if found.uid.is_root() => Err(Error::Usage("root needs no subordinate ids: say --username NAME".to_owned())),
        Some(uid) if uid != found.uid.as_raw() => {
            Err(Error::Usage(format!("{} has the uid {}, not {uid}", found.name, found.uid)))
        }
        _ => Ok(found.name),
    }
}

impl Setup {
    pub(super) fn ids(&mut self, user: &str) -> Result<()> {
        for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
            let lines = subordinate(file)?;
            if lines.iter().any(|(owner, _, count)| owner == user && *count >= IDS) {
                println!("{file} gives ids to {user} already");
                continue;
            }
            let ends = lines.iter().map(|(_, first, count)| first.saturating_add(*count));
            let first = ends.max().unwrap_or(FIRST).max(FIRST);
            let range = format!("{first}-{}", first.saturating_add(IDS - 1));
            if self.step(&format!("give {user} the ids {range} in {file}")) {
                self.note(Done::Ids { user: user.to_owned(), file: file.into(), first })?;
                run("usermod", &[option, &range, user], "passwd")?;
            }
        }
        Ok(())
    }

    pub(super) fn take_ids(&self, user: &str, file: &Path, first: u32) -> Result<()> {
        let range = format!("{first}-{}", first.saturating_add(IDS - 1));
        if !self.step(&format!("take the ids {range} from {user} in {}", file.display())) {
            return Ok(());
        }
        // usermod takes none from a user who is logged in.
        let _lock = Lock::take(file)?;
        lines::remove(file, &format!("{user}:{first}:{IDS}"))
    }
}

/// What usermod and its like have while they change such a file.
struct Lock(PathBuf);

impl Lock {
    fn take(file: &Path) -> Result<Lock> {
        let path = file.with_extension("lock");
        let made = File::create_new(&path).and_then(|mut lock| write!(lock, "{}", std::process::id()));
        match made {
            Ok(()) => Ok(Lock(path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::Machine(format!(
                "{} is there: another program changes {}. Try again; remove it if none does",
                path.display(),
                file.display()
            ))),
            Err(error) => Err(error).at("create", &path),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever finds it later sees that its process has ended.
        let _ = fs::remove_file(&self.0);
    }
}
