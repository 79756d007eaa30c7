//! What is built, what is not built again, and what is said about it.

mod support;

use std::fs;

use support::space::{Space, for_each_identity};

const TWO: &str = "
lib:
  from: {type: built, tag: base}
  run: |
    echo lib > /lib
app:
  from: {type: built, tag: lib}
  run: |
    cat /lib > /app
  labels: {version: one}
  cmd: /bin/sh
";

#[test]
fn the_second_run_builds_nothing() {
    for_each_identity(|space| {
        space.stackerfile(TWO);
        let first = space.build(&[]);
        first.built(&["base", "lib", "app"]).says("filesystem app built successfully").says("app| + cat /lib");
        assert_eq!(space.file("app", "app").unwrap(), "lib\n");
        let second = space.build(&[]);
        second.built(&[]).says("found cached layer base").says("found cached layer app").says_not("+ cat");
        assert_eq!(second.digests(), first.digests());
        assert_eq!(second.image("app"), first.image("app"));
    });
}

#[test]
fn an_edit_builds_what_it_touches_and_says_why() {
    let space = Space::new();
    space.stackerfile(TWO);
    space.build(&[]);
    space.edit("stacker.yaml", "cat /lib > /app", "cat /lib /lib > /app");
    let edited = space.build(&[]);
    edited.built(&["app"]);
    assert_eq!(edited.layer("app").reason.as_deref(), Some("script changed: line 1"), "{edited}");
    assert_eq!(space.file("app", "app").unwrap(), "lib\nlib\n");
    // The old definition is still known.
    space.edit("stacker.yaml", "cat /lib /lib > /app", "cat /lib > /app");
    space.build(&[]).built(&[]);
    assert_eq!(space.file("app", "app").unwrap(), "lib\n");
}

#[test]
fn config_reruns_nothing_and_changes_the_image() {
    let space = Space::new();
    space.stackerfile(TWO);
    let before = space.build(&[]);
    space.edit("stacker.yaml", "version: one", "version: two");
    let after = space.build(&[]);
    after.built(&[]);
    assert_ne!(after.image("app"), before.image("app"));
    assert_eq!(after.image("lib"), before.image("lib"));
    assert_eq!(after.digests(), before.digests());
}

#[test]
fn a_base_that_comes_out_the_same_leaves_what_is_above_alone() {
    let space = Space::new();
    space.stackerfile(TWO);
    space.build(&[]);
    space.edit("stacker.yaml", "echo lib > /lib", "echo lib > /lib # a comment");
    space.build(&[]).built(&["lib"]);
    space.build(&["--rebuild", "lib"]).built(&["lib"]);
    space.edit("stacker.yaml", "echo lib", "echo other");
    space.build(&[]).built(&["lib", "app"]);
    assert_eq!(space.file("app", "app").unwrap(), "other\n");
}

#[test]
fn a_failing_script_shows_its_end_and_its_log() {
    for_each_identity(|space| {
        space.stackerfile(
            "
bad:
  from: {type: built, tag: base}
  run: |
    echo first line
    false
    echo never
above:
  from: {type: built, tag: bad}
  run: echo above
",
        );
        let run = space.stacker(&["build"]).ends_with(1);
        run.says("first line").says("+ false").says_not("bad| never").says_not("above| ");
        let logs = space.stacker_dir().join("logs");
        let log = run.stderr.split_whitespace().find(|word| word.contains(&*logs.to_string_lossy()));
        let log = log.unwrap_or_else(|| panic!("no path of a log in {run}"));
        let log = log.trim_matches(|c: char| !c.is_alphanumeric() && c != '/');
        assert!(fs::read_to_string(log).unwrap().contains("first line"), "{log}");
        // Failures are not remembered.
        let again = space.stacker(&["build"]).ends_with(1);
        again.says("+ false");
        space.edit("stacker.yaml", "false", "true");
        space.build(&[]).built(&["bad", "above"]);
    });
}

#[test]
fn a_failure_ends_the_build_unless_told_to_keep_going() {
    let space = Space::new();
    space.stackerfile(
        "
bad: {from: {type: built, tag: base}, run: exit 3}
above: {from: {type: built, tag: bad}, run: echo above}
good: {from: {type: built, tag: base}, run: echo good > /good}
",
    );
    let run = space.stacker(&["build", "--keep-going"]).ends_with(1);
    let status = |name: &str| format!("{:?}", run.layer(name).status);
    assert_eq!([status("bad"), status("above"), status("good")], ["Failed", "Skipped", "Built"], "{run}");
    let totals = run.metadata().totals;
    assert_eq!((totals.layers, totals.built, totals.failed, totals.skipped), (4, 2, 1, 1), "{run}");
    space.build(&["good"]).built(&[]);
}

#[test]
fn equal_layers_are_built_once() {
    let space = Space::new();
    let twin = |name: &str| {
        format!(
            "{name}: {{from: {{type: built, tag: base}}, run: 'sleep 0.3; cat /proc/sys/kernel/random/uuid > /id'}}\n"
        )
    };
    space.stackerfile(&format!("{}{}{}", twin("one"), twin("two"), twin("three")));
    let run = space.build(&["--jobs", "3"]);
    assert_eq!(run.metadata().totals.built, 2, "{run}");
    let ids: Vec<_> = ["one", "two", "three"].iter().map(|tag| space.file(tag, "id").unwrap()).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

#[test]
fn an_empty_change_is_no_layer() {
    let space = Space::new();
    space.stackerfile("same: {from: {type: built, tag: base}, run: 'touch /x; rm /x; cat /etc/passwd'}\n");
    let run = space.build(&[]);
    let digests = run.digests();
    // `/` itself was written to, so its time may be all there is.
    let names = |tag: &str| digests.iter().find(|(name, _)| name == tag).unwrap().1.len();
    assert!(names("same") <= names("base") + 1);
    space.build(&[]).built(&[]);
    space.edit("stacker.yaml", "touch /x; rm /x; cat", "cat");
    let run = space.build(&[]);
    assert_eq!(run.layer("same").diff_ids, run.layer("base").diff_ids, "{run}");
}

#[test]
fn the_step_sees_its_documented_surroundings() {
    for_each_identity(|space| {
        space.stackerfile(
            "
env:
  from: {type: built, tag: base}
  build_env: {GIVEN: 'a b'}
  run: |
    set +x
    test \"$(id -u)\" = 0
    test \"$(pwd)\" = /
    test \"$(umask)\" = 0022
    test \"$(hostname)\" = stacker
    test \"$TERM\" = dumb && test \"$HOME\" = /root && test \"$GIVEN\" = 'a b'
    test -n \"$SOURCE_DATE_EPOCH\" && test -z \"$SECRET\"
    ! env | grep -q ^STACKER
    echo heard > /dev/stderr && echo heard > /dev/stdout
    test -c /dev/null && test -d /proc/self && test -d /sys/kernel
    ! read -r line
    grep -q stacker /etc/hosts
    test \"$(cat /proc/1/cmdline | tr -d '\\0')\" != ''
",
        );
        let mut command = space.command(&["build"]);
        command.env("SECRET", "x").env("TERM", "xterm");
        let run = space.run_of(&["build"], command.output().unwrap()).ends_with(0);
        assert_eq!(run.layer("env").diff_ids, run.layer("base").diff_ids, "something of ours is in the layer: {run}");
    });
}

#[test]
fn named_layers_alone_are_built() {
    let space = Space::new();
    space.stackerfile(TWO);
    space.build(&["lib"]).built(&["base", "lib"]);
    space.build(&["app"]).built(&["app"]);
    space.stacker(&["build", "ap"]).ends_with(2).says("did you mean `app`?");
}
