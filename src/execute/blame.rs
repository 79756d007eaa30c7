//! Why a script failed, where the machine had a part in it: a signal, memory, disk.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::check::Need;

/// Less room than this is none: file systems keep a little back.
const FULL: u64 = 1024 * 1024;

/// What the machine counted before a run.
pub struct Resources {
    /// Processes of our cgroup, and of those beneath it, that were killed for memory.
    cgroup_kills: Option<u64>,
    /// The same for the whole machine.
    kills: Option<u64>,
}

impl Resources {
    /// As they are now.
    pub fn now() -> Resources {
        Resources {
            cgroup_kills: memory_files().iter().find_map(|file| count(file)),
            kills: count(Path::new("/proc/vmstat")),
        }
    }

    /// What to tell of a run that ended with this code, whose last lines of output are `last`, on a store at `roots`.
    pub fn why(&self, code: i32, last: &VecDeque<String>, roots: &Path) -> String {
        let now = Resources::now();
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
        text + &disk(last, roots)
    }
}

/// The name of the signal that an exit code of a shell stands for.
fn signal(code: i32) -> Option<String> {
    let number = code.checked_sub(128).filter(|number| (1..=64).contains(number))?;
    Some(Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned()))
}

/// Whether the store's file system is full, or the script said that it found no room.
fn disk(last: &VecDeque<String>, roots: &Path) -> String {
    let Ok(found) = rustix::fs::statvfs(roots) else { return String::new() };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let roots = roots.display();
    if free < FULL {
        let free = bytesize::ByteSize(free);
        return format!(
            "; the disk is full: {free} of space left on the file system of {roots} ({})",
            Need::Space.mend()
        );
    }
    if found.f_files > 0 && found.f_favail == 0 {
        return format!("; the disk is full: no inode left on the file system of {roots} ({})", Need::Space.mend());
    }
    let says = |text| last.iter().any(|line| line.contains(text));
    match (says("No space left on device"), says("Disk quota exceeded")) {
        (_, true) => format!("; the disk quota of the file system of {roots} is used up"),
        (true, _) => {
            let free = bytesize::ByteSize(free);
            let mend = Need::Space.mend();
            format!("; it found no space left ({free} are free by now on the file system of {roots}; {mend})")
        }
        _ => String::new(),
    }
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
