//! What is said of a run that the machine had a part in ending.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use support::identity::identities;
use support::skipped;
use support::space::{Space, for_each_store};

fn fails(space: &Space, script: &str) -> support::space::Run {
    space.stackerfile(&format!("bad: {{from: {{type: built, tag: base}}, run: '{script}'}}\n"));
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
        space.stackerfile(&format!("bad: {{from: {{type: built, tag: base}}, run: '{script}'}}\n"));
        let enter = format!("echo $$ > {directory}/cgroup.procs; exec \"$@\"");
        let run = space.stacker_under(&["sh", "-c", &enter, "sh"], &["build"]).ends_with(1);
        run.says(&format!("bad: {start}: the kernel killed a process because memory ran out"));
    }
    fs::remove_dir(&directory).unwrap();
}

#[test]
fn a_full_disk_is_said() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can mount a small file system: that a disk is full is not tested");
    }
    for identity in identities() {
        let space = &Space::of(identity);
        let (image, roots) = (space.path("disk"), space.roots_dir());
        fs::create_dir(&roots).unwrap();
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let (image, at) = (image.to_str().unwrap(), roots.to_str().unwrap());
        run("mkfs.ext4", &["-q", "-m", "0", image]);
        run("mount", &["-o", "loop", image, at]);
        fs::remove_dir(roots.join("lost+found")).unwrap();
        space.give(&roots);
        let failed = fails(space, "echo half > /half; dd if=/dev/zero of=/big bs=1M");
        failed
            .says("bad: the script failed with exit code 1; the disk is full: ")
            .says(&format!("file system of {at}"));
        // What was written can be looked at, for all that.
        let sh = "df / | tail -n 1; cat /half";
        let looked = space.stacker(&["shell", "bad", "--failed", "--", "sh", "-c", sh]);
        fs::remove_file(image).unwrap();
        run("umount", &[at]);
        assert_eq!(looked.code, 0, "{looked}");
        assert!(looked.stdout.ends_with("half\n"), "{looked}");
    }
}
