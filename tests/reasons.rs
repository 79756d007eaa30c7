//! The table of edits to a small monorepo: what runs again after each, what `stacker why` says of it in its first line,
//! and that nothing runs when the edit is taken back.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::Value;
use stacker::history::{Explanation, WholeBuild};
use support::identity::identities;
use support::schema::assert_fits;
use support::space::{Space, for_each_user};

const LAYERS: &str = "
lib:
  from: {type: built, tag: base}
  imports: [src]
  build_env_passthrough: ['PASS.*']
  run: |
    cd /stacker/imports/src
    cat a.c sub/b.c > /lib
app:
  from: {type: built, tag: lib}
  imports: ['stacker://lib/lib', conf]
  build_env: {MODE: fast}
  run: |
    echo first > /app
    cat /stacker/imports/* >> /app
web:
  from: {type: built, tag: app}
  labels: {one: two}
  run: echo ${{VERSION:1}} > /web
  generate_labels: printf 1 > /stacker/oci-labels/number
data:
  from: {type: scratch}
  imports: [{path: data, dest: /data}]
image:
  from: {type: oci, url: 'bases:one'}
  run: echo > /image
bound:
  from: {type: built, tag: base}
  binds: [shared -> /shared]
  run: test -e /shared/f
";

/// One edit, and how it is built.
struct Edit {
    what: &'static str,
    edit: fn(&Space),
    /// Options of `build`, and variables `NAME=VALUE`.
    options: &'static [&'static str],
    /// Layers and their steps that run, in any order.
    ran: &'static [&'static str],
    /// The layer that is asked for, and the answer.
    why: &'static str,
}

const fn edit(what: &'static str, edit: fn(&Space), ran: &'static [&'static str], why: &'static str) -> Edit {
    Edit { what, edit, options: &[], ran, why }
}

const fn with(options: &'static [&'static str], ran: &'static [&'static str], why: &'static str) -> Edit {
    Edit { what: "options", edit: |_| {}, options, ran, why }
}

const EDITS: &[Edit] = &[
    edit("content", |s| s.write("src/a.c", "other"), LIB, "web: lib: src/a.c changed"),
    edit("content in a directory", |s| s.write("src/sub/b.c", "other"), LIB, "app: lib: src/sub/b.c changed"),
    edit("executable", |s| mode(s, "src/a.c", 0o755), ONE, "lib: src/a.c is executable now"),
    edit("executable no longer", |s| mode(s, "src/tool", 0o644), ONE, "lib: src/tool is executable no longer"),
    edit("a mode that does not count", |s| mode(s, "src/a.c", 0o600), &[], ""),
    edit("added file", |s| s.write("src/new.c", "new"), ONE, "lib: src/new.c added"),
    edit("removed file", |s| fs::remove_file(s.path("src/tool")).unwrap(), ONE, "lib: src/tool removed"),
    edit("moved file", |s| rename(s, "src/tool", "src/sub/t"), ONE, "lib: src/sub/t moved from src/tool"),
    edit("link retargeted", |s| link(s, "sub/b.c", "src/link"), ONE, "lib: src/link leads elsewhere"),
    edit("another type", |s| become_directory(s, "src/tool"), ONE, "lib: src/tool is of another type"),
    edit("empty directory", |s| fs::create_dir(s.path("src/empty")).unwrap(), ONE, "lib: src/empty added"),
    edit("two files", two_files, LIB, "lib: src/a.c changed (+1 file)"),
    edit("touched file", |s| s.write("src/a.c", "a\n"), &[], ""),
    edit("one file", |s| s.write("conf", "other"), APP, "app: conf changed"),
    edit("script line", |s| s.edit("stacker.yaml", "first", "1st"), APP, "web: app: script changed: line 1"),
    edit(
        "script comment",
        |s| s.edit("stacker.yaml", "    echo first", "    # x\n    echo first"),
        &["app run"],
        "app: script changed: line 1",
    ),
    edit(
        "script end",
        |s| s.edit("stacker.yaml", ">> /app\n", ">> /app\n    true\n"),
        &["app run"],
        "app: script changed: line 3",
    ),
    edit("build_env", |s| s.edit("stacker.yaml", "fast", "slow"), &["app run"], "app: variable MODE changed"),
    edit("build_env added", |s| s.edit("stacker.yaml", "fast", "fast, X: y"), &["app run"], "app: variable X added"),
    with(&["PASS_IT=1"], ONE, "lib: variable PASS_IT added"),
    with(&["http_proxy=http://127.0.0.1:1", "NO_PROXY=x"], &[], ""),
    with(&["TERM=xterm", "LANG=C.UTF-8"], &[], ""),
    with(&["SOURCE_DATE_EPOCH=1500000000"], ALL, "data: layer time changed"),
    with(&["--substitute", "VERSION=2"], &["web run", "web labels"], "web: script changed: line 1"),
    with(&["--rebuild", "lib"], ONE, "lib: forced"),
    edit(
        "base retag",
        |s| s.edit("stacker.yaml", "bases:one", "bases:two"),
        &["image run"],
        "image: base changed: oci:BASES:one to oci:BASES:two",
    ),
    edit("tar base", |s| s.write("base.tar", tar(true)), TAR, "web: base: tar base changed"),
    edit(
        "platform",
        |s| s.edit("stacker.yaml", "data:\n", "data:\n  arch: s390x\n"),
        &["data import"],
        "data: platform changed",
    ),
    edit(
        "network",
        |s| s.edit("stacker.yaml", "  build_env:", "  network: none\n  build_env:"),
        &["app run"],
        "app: network changed",
    ),
    edit(
        "import mode",
        |s| s.edit("stacker.yaml", ", conf]", ", {path: conf, mode: 0600}]"),
        &["app run"],
        "app: mode or owner of /stacker/imports/conf changed",
    ),
    edit(
        "import dest",
        |s| s.edit("stacker.yaml", "dest: /data", "dest: /srv"),
        &["data import"],
        "data: place, mode or owner of the import changed",
    ),
    edit(
        "import added",
        |s| s.edit("stacker.yaml", "[src]", "[src, data]"),
        ONE,
        "lib: import /stacker/imports/data added",
    ),
    edit(
        "imported by another name",
        |s| renamed(s, "conf", "etc", ", conf]", ", etc]"),
        &["app run"],
        "app: import /stacker/imports/conf removed, 1 more",
    ),
    edit("moved, to the same place", |s| renamed(s, "data", "moved", "path: data", "path: moved"), &[], ""),
    edit("bind", |s| s.write("shared/f", "other"), &["bound run"], "bound: bind /shared: f changed"),
    edit(
        "generate_labels",
        |s| s.edit("stacker.yaml", "printf 1", "printf 2"),
        &["web labels"],
        "web: script changed: line 1",
    ),
    edit("label", |s| s.edit("stacker.yaml", "one: two", "one: three"), &[], ""),
    edit(
        "image settings",
        |s| s.edit("stacker.yaml", "  labels: {one", "  cmd: [x]\n  environment: {A: b}\n  labels: {one"),
        &[],
        "",
    ),
    edit("comment in YAML", |s| s.edit("stacker.yaml", "web:", "# a comment\nweb:"), &[], ""),
    edit("label removed", |s| s.edit("stacker.yaml", "  labels: {one: two}\n", ""), &[], ""),
    edit("renamed layer", |s| s.edit("stacker.yaml", "web:", "www:"), &[], ""),
];

const LIB: &[&str] = &["lib run", "app run", "web run", "web labels"];
const ONE: &[&str] = &["lib run"];
const APP: &[&str] = &["app run", "web run", "web labels"];
const TAR: &[&str] = &["base unpack", "lib run", "app run", "web run", "web labels", "bound run"];
const ALL: &[&str] =
    &["base unpack", "lib run", "app run", "web run", "web labels", "bound run", "data import", "image run"];

fn mode(space: &Space, path: &str, mode: u32) {
    fs::set_permissions(space.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

fn rename(space: &Space, from: &str, to: &str) {
    fs::rename(space.path(from), space.path(to)).unwrap();
}

fn renamed(space: &Space, from: &str, to: &str, written: &str, rewritten: &str) {
    rename(space, from, to);
    space.edit("stacker.yaml", written, rewritten);
}

fn link(space: &Space, to: &str, path: &str) {
    let _ = fs::remove_file(space.path(path));
    symlink(to, space.path(path)).unwrap();
}

fn become_directory(space: &Space, path: &str) {
    fs::remove_file(space.path(path)).unwrap();
    fs::create_dir(space.path(path)).unwrap();
}

fn two_files(space: &Space) {
    space.write("src/a.c", "2");
    space.write("src/sub/b.c", "2");
}

fn tar(other: bool) -> Vec<u8> {
    let archive = support::base::archive();
    if other { archive.file("other", "other").end() } else { archive.end() }
}

/// The sources as they are before each edit.
fn prepare(space: &Space) {
    for name in ["src", "data", "shared", "moved"] {
        let _ = fs::remove_dir_all(space.path(name));
    }
    let _ = fs::remove_file(space.path("etc"));
    for (path, text) in [
        ("src/a.c", "a\n"),
        ("src/sub/b.c", "b\n"),
        ("src/tool", "tool"),
        ("conf", "conf\n"),
        ("data/x", "x"),
        ("shared/f", "f"),
    ] {
        space.write(path, text);
    }
    mode(space, "src/tool", 0o755);
    link(space, "a.c", "src/link");
    space.write("base.tar", tar(false));
    space.stackerfile(LAYERS);
}

/// Builds, with options and variables, and gives what `history` tells of that.
#[track_caller]
fn build(space: &Space, options: &[&str]) -> WholeBuild {
    let (variables, options): (Vec<&str>, Vec<&str>) =
        options.iter().partition(|option| option.contains('=') && !option.starts_with("VERSION"));
    let mut command = space.command(&[&["build"], options.as_slice()].concat());
    command.envs(variables.iter().map(|variable| variable.split_once('=').unwrap()));
    space.run_of(&["build"], command.output().unwrap()).ends_with(0);
    let builds = json(space, "history", &["history", "-n", "1", "--json"]);
    let id = builds["builds"][0]["id"].to_string();
    serde_json::from_value(json(space, "history-show", &["history", "show", &id, "--json"])).unwrap()
}

#[track_caller]
fn json(space: &Space, schema: &str, arguments: &[&str]) -> Value {
    let value = serde_json::from_str(&space.stacker(arguments).ends_with(0).stdout).unwrap();
    assert_fits(schema, &value);
    value
}

fn ran(build: &WholeBuild) -> Vec<String> {
    let steps = build.steps.iter().filter(|step| step.step != "compress");
    let mut ran: Vec<String> = steps.map(|step| format!("{} {}", step.layer, step.step)).collect();
    ran.sort();
    ran
}

/// The first line of `stacker why`.
#[track_caller]
fn why(space: &Space, layer: &str) -> String {
    let said = space.stacker(&["why", layer]).ends_with(0).stdout;
    let explanation: Explanation = serde_json::from_value(json(space, "why", &["why", layer, "--json"])).unwrap();
    let first = said.lines().next().unwrap_or_default().to_owned();
    assert_eq!(first, format!("{layer}: {}", explanation.why));
    first.replace(space.path("bases").to_str().unwrap(), "BASES")
}

#[test]
fn after_each_edit_runs_what_it_touches_and_why_says_so() {
    std::thread::scope(|scope| {
        for identity in identities() {
            scope.spawn(move || all_edits(&Space::of(identity)));
        }
    });
}

fn all_edits(space: &Space) {
    space.stackerfile("one: {from: {type: built, tag: base}}\ntwo: {from: {type: built, tag: base}, run: echo > /2}\n");
    space.build(&["--oci-dir", "bases"]);
    prepare(space);
    build(space, &[]);
    for Edit { what, edit, options, ran: expected, why: said } in EDITS {
        edit(space);
        let built = build(space, options);
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort();
        assert_eq!(ran(&built), expected, "after an edit of {what} {options:?}");
        if let Some((layer, _)) = said.split_once(':') {
            assert_eq!(why(space, layer), *said, "after an edit of {what} {options:?}");
        }
        // And back.
        prepare(space);
        assert_eq!(ran(&build(space, &[])), Vec::<String>::new(), "when {what} {options:?} was taken back");
    }
}

/// What `stacker why` prints, as lines.
#[track_caller]
fn lines(space: &Space, arguments: &[&str]) -> Vec<String> {
    let said = space.stacker(&[&["why"], arguments].concat()).ends_with(0).stdout;
    said.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn switching_branches_builds_nothing_on_the_way_back() {
    let space = Space::new();
    space.stackerfile("one: {from: {type: built, tag: base}}\n");
    space.build(&["--oci-dir", "bases"]);
    prepare(&space);
    build(&space, &[]);
    let branch = || {
        two_files(&space);
        space.edit("stacker.yaml", "first", "1st");
        space.edit("stacker.yaml", "fast", "slow");
    };
    branch();
    assert_eq!(ran(&build(&space, &[])), ["app run", "lib run", "web labels", "web run"]);
    prepare(&space);
    let back = build(&space, &[]);
    assert_eq!((ran(&back), back.build.same_as), (vec![], Some(2)));
    branch();
    let there = build(&space, &[]);
    assert_eq!((ran(&there), there.build.same_as), (vec![], Some(3)));
    // An edit here is explained by what was here, not by what is different there.
    prepare(&space);
    space.write("src/a.c", "edited");
    build(&space, &[]);
    assert_eq!(why(&space, "lib"), "lib: src/a.c changed");
    // A copy of the checkout elsewhere has all of it.
    let other = space.path("../copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(space.path("")).arg(&other).status().unwrap();
    assert!(copied.success());
    let file = other.join("stacker.yaml");
    space.build(&["-f", file.to_str().unwrap()]).built(&[]);
    // Who asks here means this one; that one has a name of its own.
    assert_eq!(why(&space, "lib"), "lib: src/a.c changed");
    let there = lines(&space, &["lib", "-f", file.to_str().unwrap()]);
    assert_eq!(there[0], "lib: a hit in every build that is known: its result is older, or from elsewhere");
}

#[test]
fn why_tells_of_builds_that_were() {
    for_each_user(|space| {
        space.stackerfile("one: {from: {type: built, tag: base}}\n");
        space.build(&["--oci-dir", "bases"]);
        prepare(space);
        build(space, &[]);
        space.write("src/a.c", "edited\n");
        space.edit("stacker.yaml", "fast", "slow");
        build(space, &[]);
        space.build(&[]).built(&[]);
        let said = lines(space, &["app"]);
        assert_eq!(said[0], "app: variable MODE changed");
        assert!(
            said[1].starts_with("built in build 3 (") && said[1].ends_with("); a hit in 1 build since"),
            "{said:?}"
        );
        assert!(said.contains(&"variable MODE: \"slow\", was \"fast\"".to_owned()), "{said:?}");
        assert!(said.contains(&"/stacker/imports/lib changed".to_owned()), "{said:?}");
        let said = lines(space, &["web"]);
        assert_eq!(said[0], "web: app: variable MODE changed");
        assert!(said.contains(&"it began with app, in build 3".to_owned()), "{said:?}");
        let said = lines(space, &["lib"]);
        assert_eq!(said[0], "lib: src/a.c changed");
        assert!(said.contains(&"/stacker/imports/src/a.c changed".to_owned()), "{said:?}");
        // Of an earlier build, and beside an action that is named.
        assert_eq!(lines(space, &["lib", "--build", "2"])[0], "lib: never built");
        let steps = json(space, "history-show", &["history", "show", "2", "--json"])["steps"].clone();
        let first =
            steps.as_array().unwrap().iter().find(|step| step["layer"] == "lib" && step["step"] == "run").unwrap();
        let key = first["key"].as_str().unwrap();
        assert_eq!(lines(space, &["lib", "--against", &key[..20]])[0], "lib: src/a.c changed");
        assert_eq!(lines(space, &[key])[0], "lib: never built");
        for (arguments, says) in [
            (vec!["why", "lip"], "did you mean `lib`?"),
            (vec!["why", "lib", "--build", "77"], "there is no build 77: builds 1 to 4 are known"),
            (vec!["why", "lib", "--build", "1"], "there was no layer lib in build 1"),
            (vec!["why", "lib", "--against", "0000000"], "no key begins with 0000000"),
            (vec!["why", "lib", "-f", "other.yaml"], "a layer lib is known only of"),
            (vec!["history", "show", "9"], "there is no build 9"),
            (vec!["log", "data"], "layer data has no script"),
        ] {
            space.stacker(&arguments).ends_with(2).says(says);
        }
        // Evicted: by which rule, and that it came out the same.
        sql(
            space,
            "UPDATE result SET last_used = 0 WHERE key = (SELECT key FROM build_step WHERE layer = 'lib' AND build = 3
                        AND step = 'run')",
        );
        space.stacker(&["gc", "--older-than", "1h"]).ends_with(0);
        assert_eq!(lines(space, &["lib"])[0], "lib: src/a.c changed");
        assert_eq!(ran(&build(space, &[])), ["lib run"]);
        assert_eq!(lines(space, &["lib"])[0], "lib: evicted: not used for 1 hour");
    });
}

fn sql(space: &Space, statement: &str) {
    let path = space.stacker_dir().join("stacker.db");
    rusqlite::Connection::open(path).unwrap().execute_batch(statement).unwrap();
}

#[test]
fn a_script_that_never_comes_out_the_same_is_named() {
    let space = Space::new();
    let layers = "
random: {from: {type: built, tag: base}, run: cat /proc/sys/kernel/random/uuid > /id}
above: {from: {type: built, tag: random}, run: echo > /above}
again: {from: {type: built, tag: above}, run: echo > /again}
";
    space.stackerfile(layers);
    build(&space, &[]);
    let built = build(&space, &["--rebuild", "random"]);
    assert_eq!(ran(&built), ["above run", "again run", "random run"]);
    assert_eq!(why(&space, "random"), "random: forced, and came out different: id changed");
    assert_eq!(why(&space, "again"), "again: random: forced, and came out different: id changed");
    let said = lines(&space, &["above"]);
    assert_eq!(said.last().unwrap(), "1 other layer follows from this: again");
    // A layer of another name that does nearly the same.
    space.stackerfile(&format!("{layers}other: {{from: {{type: built, tag: again}}, run: echo > /above}}\n"));
    build(&space, &[]);
    let said = lines(&space, &["other"]);
    assert_eq!(said[0], "other: never built");
    assert!(said.iter().any(|line| line.contains("of above:")), "{said:?}");
}

#[test]
fn logs_are_found_by_layer_and_build() {
    for_each_user(|space| {
        let script = |words: &str| format!("app: {{from: {{type: built, tag: base}}, run: {words}}}\n");
        space.stackerfile(&script("echo one"));
        space.build(&[]);
        space.stackerfile(&script("echo two; exit 1"));
        space.stacker(&["build"]).ends_with(1);
        let log = |arguments: &[&str]| space.stacker(&[&["log", "app"], arguments].concat()).ends_with(0).stdout;
        assert_eq!(log(&[]), "+ echo two\ntwo\n+ exit 1\n");
        assert_eq!(log(&["--build", "1"]), "+ echo one\none\n");
        assert_eq!(lines(space, &["app"])[0], "app: script changed: line 1");
        space.build(&["base"]);
        let listed = space.stacker(&["history"]).ends_with(0).stdout;
        let outcomes: Vec<&str> = listed.lines().skip(1).collect();
        assert!(outcomes[0].contains(" 1 hit ") && outcomes[1].contains("1 failed, 1 hit"), "{listed}");
    });
}
