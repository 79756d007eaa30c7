//! The same inputs give the same layers, whoever builds them, where, and how often somebody was killed meanwhile.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::identity::identities;
use support::space::{Run, Space, for_each_identity};

/// Layers that take a moment each, in a chain and side by side.
const LAYERS: &str = "
one: {from: {type: built, tag: base}, run: 'sleep 0.1; mkdir /one; echo 1 > /one/f; chown 5:6 /one/f'}
two: {from: {type: built, tag: one}, run: 'sleep 0.1; cp /one/f /two; mkfifo /pipe; rm -r /data'}
left: {from: {type: built, tag: one}, imports: [{path: dir, dest: /dir}], run: 'sleep 0.1; ls /dir /dir/deep > /left'}
right: {from: {type: built, tag: two}, imports: [dir], run: 'sleep 0.1; cp -r /stacker/imports/dir /right'}
out: {from: {type: scratch}, imports: [{path: 'stacker://right/right', dest: /}]}
";

fn prepare(space: &Space) {
    space.write("dir/file", "file");
    space.write("dir/deep/tool", "#!/bin/sh\n");
    space.stackerfile(LAYERS);
}

fn images(run: &Run) -> Vec<String> {
    run.metadata().images.iter().map(|image| format!("{} {}", image.tag, image.digest)).collect()
}

#[test]
fn everybody_builds_the_same_layers() {
    let mut expected = None;
    let spaces = identities().into_iter().flat_map(|identity| {
        // On file systems that report other sizes of directories, and in another order.
        let btrfs = rustix::process::geteuid().is_root().then(|| Space::on_btrfs(identity));
        [Space::of(identity), Space::of(identity)].into_iter().chain(btrfs)
    });
    for (index, space) in spaces.enumerate() {
        let (umask, jobs) = if index % 2 == 0 { ("022", "1") } else { ("077", "8") };
        prepare(&space);
        let wrapper = ["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"];
        let run = space.stacker_under(&wrapper, &["build", "--jobs", jobs]).ends_with(0);
        let found = (run.digests(), images(&run));
        assert_eq!(expected.get_or_insert(found.clone()), &found, "umask {umask}, --jobs {jobs}: {run}");
    }
}

#[test]
fn a_lost_database_costs_no_layer() {
    for_each_identity(|space| {
        prepare(space);
        let before = space.build(&[]);
        for file in std::fs::read_dir(space.stacker_dir()).unwrap().map(|entry| entry.unwrap()) {
            if file.file_name().to_string_lossy().starts_with("stacker.db") {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
        let after = space.build(&[]);
        after.built(&[]);
        assert_eq!((after.digests(), images(&after)), (before.digests(), images(&before)));
    });
}

/// The process of a command that runs as somebody else is that of the program: setpriv executes it.
fn pid(child: &std::process::Child) -> Pid {
    Pid::from_child(child)
}

#[test]
fn a_signal_ends_everything_soon() {
    for_each_identity(|space| {
        // A number that is nobody else's.
        let seconds = format!("1{}", std::process::id());
        space.stackerfile(&format!(
            "long: {{from: {{type: built, tag: base}}, run: 'trap \"\" TERM INT; sleep {seconds} & sleep {seconds}'}}\n"
        ));
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let child = space.command(&["build"]).spawn().unwrap();
            wait_until("the script runs", || processes(&seconds) > 0);
            let pressed = Instant::now();
            kill_process(pid(&child), signal).unwrap();
            let run = space.run_of(&["build"], child.wait_with_output().unwrap());
            assert!(pressed.elapsed() < Duration::from_secs(30), "{:?}: {run}", pressed.elapsed());
            let run = run.ends_with(code);
            wait_until(&format!("nothing is left running after {run}"), || processes(&seconds) == 0);
        }
        space.edit("stacker.yaml", &format!("sleep {seconds} & sleep {seconds}"), "true");
        space.build(&[]).built(&["long"]);
    });
}

/// How many processes have this word in their command line.
fn processes(word: &str) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let words = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(words.split(|&byte| byte == 0).any(|found| found == word.as_bytes()))
    });
    lines.filter(|found| *found).count()
}

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn kills_at_any_moment_do_no_harm() {
    let undisturbed = Space::new();
    prepare(&undisturbed);
    let expected = undisturbed.build(&[]);
    for_each_identity(|space| {
        prepare(space);
        for attempt in 0..10u64 {
            let mut child = space.command(&["build"]).spawn().unwrap();
            // Later each time, and never at the same place twice.
            std::thread::sleep(Duration::from_millis(20 + attempt * 53 + attempt * attempt % 7));
            child.kill().unwrap();
            child.wait_with_output().unwrap();
        }
        let run = space.build(&[]);
        assert_eq!((run.digests(), images(&run)), (expected.digests(), images(&expected)), "{run}");
        space.build(&[]).built(&[]);
    });
}

#[test]
fn two_builds_at_once_share_the_work() {
    for_each_identity(|space| {
        space.stackerfile(
            "
a: {from: {type: built, tag: base}, run: 'sleep 0.5; cat /proc/sys/kernel/random/uuid > /id'}
b: {from: {type: built, tag: a}, run: 'sleep 0.5; cat /proc/sys/kernel/random/uuid > /id2'}
",
        );
        let files = ["one.json", "two.json"];
        let children = files.map(|file| space.command(&["build", "--metadata-file", file]).spawn().unwrap());
        let outputs = children.map(|child| child.wait_with_output().unwrap());
        let mut runs = Vec::new();
        for (file, output) in files.iter().zip(outputs) {
            space.run_of(&["build"], output).ends_with(0);
            let text = std::fs::read(space.path(file)).unwrap();
            runs.push(serde_json::from_slice::<stacker::export::metadata::Metadata>(&text).unwrap());
        }
        assert_eq!(runs[0].totals.built + runs[1].totals.built, 3, "{runs:#?}");
        let digests = |run: &stacker::export::metadata::Metadata| -> Vec<_> {
            run.layers.iter().map(|layer| layer.diff_ids.clone()).collect()
        };
        assert_eq!(digests(&runs[0]), digests(&runs[1]));
        space.build(&[]).built(&[]);
    });
}

#[test]
fn a_store_that_was_made_half_way_is_completed() {
    let space = Space::new();
    prepare(&space);
    for directory in ["trash", "drafts"] {
        // As a build leaves it that is killed between making it and giving it away.
        std::fs::create_dir_all(space.roots_dir().join(directory)).unwrap();
    }
    space.build(&[]);
    space.build(&["--no-cache"]);
}

#[test]
fn a_store_of_other_ids_is_refused_and_left_alone() {
    let space = Space::new();
    prepare(&space);
    space.build(&[]);
    let file = space.roots_dir().join("store.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut store: serde_json::Value = serde_json::from_str(&text).unwrap();
    store["uids"][0][1] = 77.into();
    std::fs::write(&file, store.to_string()).unwrap();
    let run = space.stacker(&["build", "--no-cache"]).ends_with(3);
    run.says("written with other ids");
    std::fs::write(&file, text).unwrap();
    space.build(&[]).built(&[]);
}

#[test]
fn several_that_miss_the_same_layer_wait_for_it() {
    for_each_identity(|space| {
        let layers = |round: u32| {
            let layer = |n| format!("l{n}: {{from: {{type: built, tag: base}}, run: 'echo {round} > /l{n}'}}\n");
            (0..6).map(layer).collect::<String>()
        };
        space.stackerfile(&layers(1));
        let before = space.build(&[]);
        // Neither the layers nor what they could be made of again.
        space.forget_roots();
        let blobs = space.stacker_dir().join("blobs/sha256");
        fs::remove_dir_all(&blobs).unwrap();
        fs::create_dir(&blobs).unwrap();
        space.give(&blobs);
        space.stackerfile(&layers(2));
        let run = space.build(&["--jobs", "6"]);
        assert_eq!(run.layer("base").diff_ids, before.layer("base").diff_ids);
        space.build(&[]).built(&[]);
    });
}
