//! Why a script failed, where the machine had a part in it: a signal, memory, disk.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::need::Need;
use crate::room::Room;

/// What the machine counted before a run, and what the script said of it.
pub struct Resources {
    roots: PathBuf,
    /// Processes of our cgroup, and of those beneath it, that were killed for memory.
    cgroup_kills: Option<u64>,
    /// The same for the whole machine.
    kills: Option<u64>,
    /// What the store's file system had left when the script said that it found no room.
    heard: Option<Room>,
    /// It said that of somebody's share of the disk.
    quota: bool,
}

/// Why a script failed.
pub struct Blame {
    /// For a person.
    pub text: String,
    /// The disk was full: not the script's fault.
    pub full: bool,
}

impl Resources {
    /// As they are now, for a run on a store at `roots`.
    pub fn now(roots: &Path) -> Resources {
        Resources {
            roots: roots.to_path_buf(),
            cgroup_kills: memory_files().iter().find_map(|file| count(file)),
            kills: count(Path::new("/proc/vmstat")),
            heard: None,
            quota: false,
        }
    }

    /// Looks at the disk when the script complains of it: what it has written may be gone when it ends.
    pub fn hear(&mut self, line: &str) {
        self.quota |= line.contains("Disk quota exceeded");
        if line.contains("No space left on device") && !self.heard.as_ref().is_some_and(Room::is_out) {
            self.heard = Room::of(&self.roots);
        }
    }

    /// Why the run ended with this code.
    pub fn why(&self, code: i32) -> Blame {
        let now = Resources::now(&self.roots);
        let ours = grown(self.cgroup_kills, now.cgroup_kills);
        let killed = code == 128 + Signal::SIGKILL as i32;
        let mut text = match signal(code) {
            Some(name) => format!("the script was ended by {name}"),
            None => format!("the script failed with exit code {code}"),
        };
        if ours || (killed && grown(self.kills, now.kills)) {
            text += ": the kernel killed a process because memory ran out";
        } else if killed {
            text += " (out of memory?)";
        }
        let (disk, full) = self.disk();
        Blame { text: text + &disk, full }
    }

    /// Whether the store's file system is or was full; and what else the script may have met.
    fn disk(&self) -> (String, bool) {
        let now = Room::of(&self.roots).filter(Room::is_out);
        let (heard, mend) = (&self.heard, Need::Space.mend());
        if let Some(room) = now.as_ref().or(heard.as_ref().filter(|room| room.is_out())) {
            return (format!("; the disk is full: {room} ({mend})"), true);
        }
        if self.quota {
            let roots = self.roots.display();
            return (format!("; the disk quota on the file system of {roots} is used up ({mend})"), true);
        }
        let Some(room) = heard else { return (String::new(), false) };
        let left = room.left();
        (
            format!(
                "; it found no space left where it wrote, while the store's file system had {left} (its /dev is small; \
                 ext4 says the same of extended attributes of more than 4 KiB)"
            ),
            false,
        )
    }
}

/// The name of the signal that an exit code of a shell stands for.
fn signal(code: i32) -> Option<String> {
    let number = code.checked_sub(128).filter(|number| (1..=64).contains(number))?;
    Some(Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned()))
}

/// Where our cgroup's kills may be counted: version 2, then 1, then what a container shows as its root.
fn memory_files() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut files = Vec::new();
    for line in table.lines() {
        let mut words = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (words.next(), words.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            files.push(Path::new("/sys/fs/cgroup").join(path).join("memory.events"));
        } else if controllers.split(',').any(|name| name == "memory") {
            let top = Path::new("/sys/fs/cgroup/memory");
            files.extend([top.join(path), top.to_path_buf()].map(|directory| directory.join("memory.oom_control")));
        }
    }
    files.push("/sys/fs/cgroup/memory.events".into());
    files
}

/// The number after `oom_kill`.
fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn grown(before: Option<u64>, now: Option<u64>) -> bool {
    matches!((before, now), (Some(before), Some(now)) if now > before)
}
