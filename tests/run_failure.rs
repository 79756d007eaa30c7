//! What is said of a run that the machine had a part in ending.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use support::archive::Archive;
use support::identity::identities;
use support::skipped;
use support::space::{Space, for_each_store};
use support::volume::SmallDisk;

fn bad(script: &str) -> String {
    format!("bad: {{from: {{type: built, tag: base}}, run: '{script}'}}\n")
}

fn fails(space: &Space, script: &str) -> support::space::Run {
    space.stackerfile(&bad(script));
    space.stacker(&["build"]).ends_with(1)
}

/// The kernel counts killed processes for the whole machine too: a test that makes it kill some is alone.
static KILLS: Mutex<()> = Mutex::new(());

#[test]
fn a_signal_has_its_name() {
    let _alone = KILLS.lock().unwrap_or_else(|broken| broken.into_inner());
    for_each_store(|space| {
        fails(space, "kill -9 $$").says("bad: the script was ended by SIGKILL (out of memory?)");
        fails(space, "sh -c \"kill -SEGV \\$\\$\"").says("bad: the script was ended by SIGSEGV;");
        fails(space, "exit 7").says("bad: the script failed with exit code 7;").says_not("memory").says_not("disk");
    });
}

/// The memory cgroup of this process, where one can be made beneath it: (its directory, the file with its limit).
fn cgroup() -> Option<(String, &'static str)> {
    let table = fs::read_to_string("/proc/self/cgroup").ok()?;
    let named = |mark: &str| table.lines().find_map(|line| line.split_once(mark).map(|(_, path)| path.to_owned()));
    let (top, limit) = match named(":memory:") {
        Some(path) => (format!("/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"),
        None => (format!("/sys/fs/cgroup{}", named("0::")?), "memory.max"),
    };
    let directory = format!("{top}/stacker-test-{}", std::process::id());
    fs::create_dir(&directory).ok()?;
    if !Path::new(&directory).join(limit).exists() {
        let _ = fs::remove_dir(&directory);
        return None;
    }
    Some((directory, limit))
}

#[test]
fn memory_that_runs_out_is_said() {
    let _alone = KILLS.lock().unwrap_or_else(|broken| broken.into_inner());
    let Some((directory, limit)) = cgroup() else {
        return skipped("no memory cgroup can be made here: that a run was killed for memory is not tested");
    };
    fs::write(Path::new(&directory).join(limit), "150000000").unwrap();
    let space = Space::new();
    // One whose end the script sees, and one that is hidden behind another exit code.
    for (script, start) in [
        ("tail /dev/zero", "the script was ended by SIGKILL"),
        ("sh -c \"tail /dev/zero; exit 2\"", "the script failed with exit code 2"),
    ] {
        space.stackerfile(&bad(script));
        let enter = format!("echo $$ > {directory}/cgroup.procs; exec \"$@\"");
        let run = space.stacker_under(&["sh", "-c", &enter, "sh"], &["build"]).ends_with(1);
        run.says(&format!("bad: {start}: the kernel killed a process because memory ran out"));
    }
    fs::remove_dir(&directory).unwrap();
}

/// What it wrote is gone a moment after it has complained.
const CLEANS_UP: &str = "echo half > /half; dd if=/dev/zero of=/big bs=1M || { sleep 1; rm /big; exit 1; }";

#[test]
fn a_full_disk_is_said() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can mount a small file system: that a disk is full is not tested");
    }
    for identity in identities() {
        let space = &Space::of(identity);
        let disk = SmallDisk::create(space.roots_dir(), 32 << 20, 4096);
        space.give(&disk.path);
        // The machine's fault, not the script's; also where it has cleaned up after itself.
        for script in ["echo half > /half; dd if=/dev/zero of=/big bs=1M", CLEANS_UP] {
            space.stackerfile(&bad(script));
            space
                .stacker(&["build"])
                .ends_with(3)
                .says("bad: the script failed with exit code 1; the disk is full: ")
                .says(&format!("file system of {}", disk.path.display()))
                .says("stacker gc");
        }
        // What was written can be looked at, for all that.
        let sh = "df / | tail -n 1; cat /half";
        let looked = space.stacker(&["shell", "bad", "--failed", "--", "sh", "-c", sh]);
        drop(disk);
        assert_eq!(looked.code, 0, "{looked}");
        assert!(looked.stdout.ends_with("half\n"), "{looked}");
    }
}

#[test]
fn the_full_disk_of_a_layout_is_named() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can mount a small file system: that a layout's is full is not tested");
    }
    let space = &Space::new();
    let disk = SmallDisk::create(space.path("small"), 2 << 20, 64);
    space.stackerfile(&bad("head -c 3000000 /dev/urandom > /large"));
    let run = space.stacker(&["build", "--oci-dir", "small/oci"]).ends_with(3);
    run.says(&format!("space left on the file system of {}", disk.path.display())).says("stacker gc");
}

/// ext4 says of too many attributes what it says when it is full.
#[test]
fn large_attributes_are_no_full_disk() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can mount ext4: that large attributes are told from a full disk is not tested");
    }
    let space = &Space::new();
    let _disk = SmallDisk::create(space.roots_dir(), 32 << 20, 4096);
    let large = vec![b'x'; 5000];
    let archive = Archive::new().pax(&[("SCHILY.xattr.user.large", &large)]).file("file", "content").end();
    space.write("large.tar", archive);
    space.write("stacker.yaml", "large: {from: {type: tar, url: large.tar}}\n");
    let run = space.stacker(&["build"]).ends_with(3);
    run.says("unpack /file: its extended attributes are larger than this file system keeps").says_not("full");
    // A script that meets the same.
    fails(space, "echo write error: No space left on device; exit 1")
        .says("it found no space left where it wrote")
        .says_not("disk is full");
}
