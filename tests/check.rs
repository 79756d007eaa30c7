//! `stacker check` tells what is there, what is not, and what mends it; a build that fails for that says the same.

mod support;

use serde_json::Value;
use support::container::{Container, Rules, available};
use support::space::{Run, Space, for_each_identity};

fn probe(run: &Run, name: &str) -> Value {
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    let probes = report["probes"].as_array().unwrap();
    let found = probes.iter().find(|probe| probe["name"] == name);
    found.unwrap_or_else(|| panic!("no probe {name} in {run}")).clone()
}

/// Whether it is there; what is missing must say what it is for and what mends it.
fn ok(run: &Run, name: &str) -> bool {
    let probe = probe(run, name);
    assert_ne!(probe["found"], "", "{probe}");
    assert_ne!(probe["needed_for"], "", "{probe}");
    let ok = probe["ok"].as_bool().unwrap();
    assert_eq!(probe["mend"].is_null(), ok, "{probe}");
    ok
}

fn under(space: &Space, container: &Container, arguments: &[&str]) -> Run {
    let wrapper = container.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    space.stacker_under(&wrapper, arguments)
}

#[test]
fn a_machine_that_has_everything() {
    for_each_identity(|space| {
        let run = space.stacker(&["check", "--json"]).ends_with(0);
        for name in ["user-namespace", "newuidmap", "ids", "chown", "overlay", "proc", "run", "space"] {
            assert!(ok(&run, name), "{name}: {run}");
        }
        for name in ["btrfs", "network-helper", "binfmt"] {
            ok(&run, name);
        }
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        support::schema::assert_fits("check", &report);
        assert_eq!(report["sandbox"], "full");
        let text = space.stacker(&["check"]).ends_with(0).stdout;
        assert!(text.contains("/bin/true ran in") && text.ends_with("sandbox: full\n"), "{text}");
        // Nothing is left, not even a store.
        assert!(!space.has_roots() && !space.stacker_dir().exists());
        let beside = std::fs::read_dir(space.directory()).unwrap();
        let names: Vec<_> = beside.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), if space.volume().is_some() { 4 } else { 2 }, "{names:?}");
    });
}

#[test]
fn a_store_that_is_there_is_left_alone() {
    for_each_identity(|space| {
        space.stackerfile("");
        space.build(&[]);
        space.stacker(&["check"]).ends_with(0);
        space.build(&[]).built(&[]);
    });
}

#[test]
fn no_run_can_work() {
    let space = Space::new();
    if !available(&space) {
        return;
    }
    let container = Container::new(&space, Rules::default());
    let run = under(&space, &container, &["check", "--json"]).ends_with(1);
    assert!(!ok(&run, "user-namespace") && !ok(&run, "run"), "{run}");
    assert!(ok(&run, "space"), "{run}");
    // A build says the same.
    let namespace = probe(&run, "user-namespace");
    space.stackerfile("one: {from: {type: built, tag: base}, run: 'true'}\n");
    let build = under(&space, &container, &["build"]).ends_with(3);
    build.says(namespace["mend"].as_str().unwrap()).says(namespace["needed_for"].as_str().unwrap());
}

#[test]
fn a_directory_on_an_overlay_takes_runs_that_copy() {
    let space = Space::new();
    if !available(&space) {
        return;
    }
    let container = Container::new(&space, Rules { system_calls: true, whole_proc: true, ..Rules::default() });
    // The volume of the other tests is what flags of its own would name.
    let wrapper = container.wrapper();
    let program = space.directory().join("bin/stacker");
    let stacker_in = |place: &str, arguments: &[&str]| {
        let roots = format!("{place}/roots");
        let directories = ["--stacker-dir", place, "--roots-dir", &roots];
        let wrapper = wrapper.iter().map(String::as_str);
        let words: Vec<&str> =
            wrapper.chain([program.to_str().unwrap()]).chain(arguments.iter().copied()).chain(directories).collect();
        space.run_of(arguments, space.other_program(&words).output().unwrap())
    };
    let stacker = |arguments: &[&str]| stacker_in("/srv/one", arguments);
    let run = stacker(&["check", "--json"]).ends_with(0);
    assert!(ok(&run, "user-namespace") && ok(&run, "chown") && !ok(&run, "overlay") && ok(&run, "run"), "{run}");
    let mend = probe(&run, "overlay")["mend"].as_str().unwrap().to_owned();
    space.stackerfile("one: {from: {type: built, tag: base}, run: 'true'}\n");
    stacker(&["build"]).ends_with(0).says("the store is of the kind copy").says(&mend);
    // Who insists on another one is told why that is not to be had.
    stacker_in("/srv/two", &["--storage-type", "overlay", "build"]).ends_with(3).says("mount overlay").says(&mend);
}

#[test]
fn btrfs_is_tried() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("mounting btrfs needs root");
    }
    let space = Space::new();
    let (file, place) = (space.path("btrfs.img"), space.path("btrfs"));
    let script = "truncate -s 200M $1 && mkfs.btrfs -q $1 && mkdir $2 && mount -o loop,user_subvol_rm_allowed $1 $2";
    let words = ["sh", "-ec", script, "sh", file.to_str().unwrap(), place.to_str().unwrap()];
    let output = space.other_program(&words).output().unwrap();
    if !output.status.success() {
        return support::skipped(&format!("no btrfs here: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let roots = place.join("roots").display().to_string();
    let mut command = space.other_program(&[space.directory().join("bin/stacker").to_str().unwrap(), "check"]);
    let output = command.args(["--json", "--roots-dir", &roots]).output().unwrap();
    let left = std::fs::read_dir(&place).unwrap().count();
    assert!(space.other_program(&["umount", place.to_str().unwrap()]).status().unwrap().success());
    let run = space.run_of(&["check"], output);
    assert!(ok(&run, "btrfs"), "{run}");
    assert!(ok(&run, "space") || probe(&run, "space")["found"].as_str().unwrap().contains("MiB free"), "{run}");
    assert_eq!(left, 0, "subvolumes are left");
}

#[test]
fn the_switch_that_is_off_is_named() {
    let off = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c", off, "sh"];
    let space = Space::new();
    let run = space.stacker_under(&wrapper, &["check", "--json"]).ends_with(1);
    assert!(!ok(&run, "user-namespace") && !ok(&run, "run"), "{run}");
    let mend = "sudo sysctl -w user.max_user_namespaces=15000";
    assert_eq!(probe(&run, "user-namespace")["mend"], mend);
    space.stackerfile("one: {from: {type: built, tag: base}, run: 'true'}\n");
    space.stacker_under(&wrapper, &["build", "base"]).ends_with(0).says("of the kind none").says(mend);
    space.stacker_under(&wrapper, &["build"]).ends_with(3).says("layer one has a `run`").says(mend);
}

#[test]
fn a_newuidmap_that_may_not_work_is_named() {
    for identity in support::identity::identities() {
        if rustix::process::geteuid().is_root() && identity == support::identity::Identity::Own {
            // Root writes its maps itself.
            continue;
        }
        let space = Space::of(identity);
        let wrapper = ["setpriv", "--no-new-privs"];
        let run = space.stacker_under(&wrapper, &["check", "--json"]).ends_with(1);
        assert!(!ok(&run, "newuidmap") && !ok(&run, "run"), "{run}");
        space.stackerfile("one: {from: {type: built, tag: base}, run: 'true'}\n");
        space.stacker_under(&wrapper, &["build"]).ends_with(3).says("newuidmap failed").says("--sandbox single-id");
        space.stacker_under(&wrapper, &["build", "--sandbox", "single-id"]).ends_with(0);
    }
}
