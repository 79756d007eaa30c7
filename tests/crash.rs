//! Kills, full disks, and many at once: the next build is right, and nobody has to repair anything.
//!
//! STACKER_TEST_KILLS says how many random kills there are (default: 12), STACKER_TEST_SEED at which moments.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use stacker::digest::DiffId;
use support::identity::identities;
use support::processes::beneath;
use support::skipped;
use support::space::{Run, Space, for_each_identity, for_each_identity_at_once};
use support::undisturbed::Undisturbed;
use support::volume::SmallDisk;

const LAYERS: &str = "
one: {from: {type: built, tag: base}, run: 'echo ROUND > /one; for i in $(seq 30); do echo $i > /f$i; done'}
two: {from: {type: built, tag: one}, imports: [{path: data, dest: /data}], run: 'cat /data/file > /two; rm /f1'}
left: {from: {type: built, tag: two}, run: 'cp /bin/busybox /left'}
right: {from: {type: built, tag: two}, imports: ['stacker://one/one'], run: 'cp /stacker/imports/one /right'}
out: {from: {type: scratch}, imports: [{path: 'stacker://right/right', dest: /out/}]}
";

fn write(space: &Space, round: u64) {
    space.write("data/file", format!("content {round}"));
    space.stackerfile(&LAYERS.replace("ROUND", &round.to_string()));
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn whoever_is_killed_the_next_build_is_right() {
    let seed = number("STACKER_TEST_SEED", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let kills = number("STACKER_TEST_KILLS", 12);
    eprintln!("STACKER_TEST_KILLS={kills} STACKER_TEST_SEED={seed}");
    let undisturbed = Undisturbed::new();
    for_each_identity_at_once(|space| {
        let mut state = seed | 1;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        check(space, &undisturbed, u64::MAX, seed);
        // How long a build after an edit takes here.
        let begun = Instant::now();
        write(space, u64::MAX - 1);
        space.build(&[]);
        let longest = begun.elapsed();
        let mut killed = 0;
        for round in 0.. {
            write(space, round);
            if let Some(whom) = kill_one(space, &mut state, longest) {
                *counts.entry(whom).or_default() += 1;
                killed += 1;
            }
            if killed == kills || round % 4 == 3 {
                check(space, &undisturbed, round, seed);
            }
            if killed == kills {
                break;
            }
        }
        let store = if space.volume().is_some() { "btrfs" } else { "overlay" };
        eprintln!("as {}, {store}: killed {counts:?}", space.identity());
    });
}

/// Builds, and kills one of the three kinds of process at a random moment. `None`: the build was over by then.
fn kill_one(space: &Space, state: &mut u64, longest: Duration) -> Option<&'static str> {
    let mut child = space.command(&["build"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(longest * (random(state) % 1000) as u32 / 1000);
    let whom = ["stacker", "holder", "worker"][(random(state) % 3) as usize];
    let found = |name| beneath(child.id()).into_iter().find(|(_, found)| found.contains(name)).map(|(pid, _)| pid);
    let victim = if whom == "stacker" { None } else { found(whom).and_then(Pid::from_raw) };
    let killed = match victim.map(|pid| kill_process(pid, Signal::KILL)) {
        Some(Ok(())) => Some(whom),
        // Where it is not there at that moment, the whole goes.
        _ => child.try_wait().unwrap().is_none().then_some("stacker"),
    };
    if killed == Some("stacker") {
        child.kill().unwrap();
    }
    let begun = Instant::now();
    child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60), "it hangs without its {whom}");
    killed
}

/// The build comes out as if nothing had happened, and does nothing the second time.
fn check(space: &Space, undisturbed: &Undisturbed, round: u64, seed: u64) {
    let expected = undisturbed.digests(round, |space| write(space, round));
    write(space, round);
    let run = space.build(&[]);
    assert_eq!(run.digests(), expected, "round {round}, seed {seed}: {run}");
    space.build(&[]).built(&[]);
}

#[test]
fn eight_builds_and_gc_at_once_share_what_they_can() {
    for_each_identity(|space| {
        // Each prints something else whenever it runs: built twice, it would differ.
        let random = "cat /proc/sys/kernel/random/uuid";
        space.stackerfile(&format!(
            "
common: {{from: {{type: built, tag: base}}, run: 'sleep 0.3; {random} > /common'}}
a: {{from: {{type: built, tag: common}}, run: '{random} > /a'}}
b: {{from: {{type: built, tag: common}}, run: '{random} > /b'}}
c: {{from: {{type: built, tag: a}}, imports: ['stacker://b/b'], run: 'cp /stacker/imports/b /c; {random} > /d'}}
"
        ));
        let graphs = [&["a"][..], &["b"], &["c"], &[]];
        let done: Vec<HashMap<String, Vec<DiffId>>> = std::thread::scope(|scope| {
            let builds: Vec<_> = (0..8)
                .map(|number| {
                    scope.spawn(move || {
                        let (layout, metadata) = (format!("oci-{number}"), format!("metadata-{number}.json"));
                        let mut arguments = vec!["build", "--oci-dir", &layout, "--metadata-file", &metadata];
                        arguments.extend(graphs[number % graphs.len()]);
                        space.run_of(&arguments, space.command(&arguments).output().unwrap()).ends_with(0);
                        digests(&space.path(&metadata))
                    })
                })
                .collect();
            let gc = scope.spawn(|| {
                for _ in 0..20 {
                    if !space.stacker_dir().join("stacker.db").exists() {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                    space.stacker(&["gc", "--older-than", "1h"]).ends_with(0);
                }
            });
            gc.join().unwrap();
            builds.into_iter().map(|build| build.join().unwrap()).collect()
        });
        let all = space.build(&[]);
        all.built(&[]);
        let all: HashMap<_, _> = all.digests().into_iter().collect();
        for (number, done) in done.iter().enumerate() {
            for (layer, digests) in done {
                assert_eq!(digests, &all[layer], "{layer} of build {number} was built apart");
            }
        }
    });
}

fn digests(metadata: &Path) -> HashMap<String, Vec<DiffId>> {
    let metadata: stacker::export::metadata::Metadata = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    metadata.layers.into_iter().map(|layer| (layer.name, layer.diff_ids)).collect()
}

#[test]
fn a_full_disk_is_said_and_survived() {
    if !rustix::process::geteuid().is_root() {
        return skipped("full disks: only root can mount a small one");
    }
    let points = number("STACKER_TEST_FULL_DISKS", 6);
    for identity in identities() {
        let (space, undisturbed) = (Space::of(identity), Space::of(identity));
        write(&undisturbed, 0);
        let expected = undisturbed.build(&[]).digests();
        let disk = SmallDisk::create(space.stacker_dir(), 64 << 20, 1024);
        let place = &disk.path;
        fs::create_dir(place.join("roots")).unwrap();
        std::os::unix::fs::symlink(place.join("roots"), space.roots_dir()).unwrap();
        for path in [place, &place.join("roots")] {
            space.give(path);
        }
        write(&space, 0);
        let mut failures: HashMap<&str, usize> = HashMap::new();
        for point in 0..points {
            // Room for a part of what a build writes, each time a little more: of bytes, and of inodes.
            for what in ["space", "inode"] {
                let filler = place.join("filler");
                match what {
                    "space" => fill_up(&filler, point * 6_000_000 / points),
                    _ => use_up_inodes(&filler, point * 500 / points),
                }
                let failed = space.stacker(&["build", "--no-cache"]);
                if failed.code != 0 {
                    *failures.entry(what).or_default() += 1;
                    says_what_is_full(&failed.ends_with(3), &space, what);
                }
                if space.stacker_dir().join("stacker.db").exists() {
                    space.stacker(&["gc"]).ends_with(0);
                }
                let removed = if filler.is_dir() { fs::remove_dir_all(&filler) } else { fs::remove_file(&filler) };
                removed.unwrap();
                let after = space.build(&[]);
                assert_eq!(after.digests(), expected, "full at point {point} ({what}): {after}");
                space.stacker(&["gc", "--older-than", "0s"]);
            }
        }
        eprintln!("full: {failures:?}");
        assert_eq!(failures.len(), 2, "the disk was never full: {failures:?}");
    }
}

/// Which file system it is, and what makes room.
fn says_what_is_full(failed: &Run, space: &Space, what: &str) {
    failed.says(what).says("stacker gc --older-than");
    let directories = [space.stacker_dir(), space.roots_dir()];
    let named = |directory: &PathBuf| failed.stderr.contains(&format!("file system of {}", directory.display()));
    assert!(directories.iter().any(named), "what is full is not named: {failed}");
}

/// Leaves so much room.
fn fill_up(filler: &Path, room: u64) {
    let free = rustix::fs::statvfs(filler.parent().unwrap()).unwrap();
    let size = (free.f_bavail * free.f_frsize).saturating_sub(room);
    // It ends earlier where the file system needs some for itself.
    let _ = fs::write(filler, vec![0; size as usize]);
}

/// Leaves so many inodes.
fn use_up_inodes(filler: &Path, room: u64) {
    fs::create_dir(filler).unwrap();
    let free = rustix::fs::statvfs(filler).unwrap().f_favail;
    for number in room..free {
        fs::write(filler.join(number.to_string()), "").unwrap();
    }
}
