//! Bases of which nothing but the listing is needed: what is built on them without being unpacked.

mod support;

use std::fs;

use stacker::digest::Chain;
use support::archive::{Archive, Member};
use support::base;
use support::registry::{Dialect, Image, Registry, image};
use support::space::{Run, Space, for_each_store, for_each_user};

const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// What stands over a small root filesystem: a link on the way to a `dest`, directories that only lie beneath, removed
/// names, what is left out, times and owners.
fn second() -> Archive {
    Archive::new()
        .member(Member { kind: b'5', name: b"usr/lib/", mode: 0o2755, uid: 7, gid: 8, mtime: 50, ..Member::default() })
        .symlink("lib", "usr/lib")
        .pax(&[("mtime", b"1700000000.5"), ("SCHILY.xattr.user.note", b"1")])
        .file("tmp/new", "new")
        .hard_link("lib/new", "tmp/new")
        .file("data/.wh.doomed", "")
        .file("data/full/.wh..wh..opq", "")
        .member(Member { kind: b'3', name: b"dev/null", ..Member::default() })
}

fn base() -> Image {
    image(ARCH, Dialect::Oci, &[base::tar(), second().end()])
}

/// Layers without a script, on the base.
const IMPORTS: &str = "app:
  from: {type: oci, url: 'image:base'}
  overlay_dirs: [{source: over, dest: /}]
  imports:
    - {path: file, dest: /lib/through}
    - {path: file, dest: /data/full/}
";

/// And a script.
const RUN: &str = "  run: |
    test \"$(cat /usr/lib/through /tmp/new)\" = \"filenew\"
    test ! -e /data/doomed && test ! -e /data/full/a && test -h /lib
    stat -c '%a %n' /tmp /usr/lib > /seen
";

fn prepare(space: &Space) {
    base().write_layout(&space.path("image"), "base");
    space.write("file", "file");
    space.write("over/etc/over", "over");
}

/// The names of what lies in a directory of the workers.
fn names(space: &Space, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(space.roots_dir().join(directory)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Only what is above the base was made.
#[track_caller]
fn nothing_of_the_base(space: &Space, run: &Run) {
    let mut own: Vec<String> = Chain(run.layer("app").diff_ids).ids()[2..].iter().map(|id| id.short()).collect();
    own.sort();
    assert_eq!(names(space, "deltas"), own, "{run}");
    for directory in ["trees", "nurseries", "drafts"] {
        assert_eq!(names(space, directory), [""; 0], "{directory}: {run}");
    }
}

fn listings(space: &Space) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(space.stacker_dir().join("listings")).unwrap().map(|entry| entry.unwrap());
    let mut listings: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    listings.sort();
    listings
}

fn another(space: &Space) -> Space {
    match space.kind() {
        "btrfs" => Space::on_btrfs(space.identity()),
        "copy" => Space::with_copies(space.identity()),
        _ => Space::of(space.identity()),
    }
}

#[test]
fn imports_do_not_unpack_their_base() {
    for_each_store(|space| {
        // As it comes out where the base is there as files.
        let other = another(space);
        prepare(&other);
        other.write("stacker.yaml", "first:\n  from: {type: oci, url: 'image:base'}\n  run: 'true > /first'\n");
        other.build(&[]);
        assert!(names(&other, "deltas").len() > 2);
        other.write("stacker.yaml", IMPORTS);
        let expected = other.build(&[]);

        prepare(space);
        space.write("stacker.yaml", IMPORTS);
        let run = space.build(&[]);
        nothing_of_the_base(space, &run);
        assert_eq!(run.image("app"), expected.image("app"), "{run}");
        assert_eq!(run.stderr.matches("/dev/null is a device node: left out").count(), 1, "{run}");
        assert_eq!(space.file("app", "usr/lib/through").as_deref(), Some("file"));
        let listed = listings(space);
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
        space.stacker(&["gc"]).ends_with(0);
        assert_eq!(listings(space), listed, "listings of a base stay");
        space.build(&[]).built(&[]);

        // A script needs the files, and nothing else changes.
        space.write("stacker.yaml", format!("{IMPORTS}{RUN}"));
        other.write("stacker.yaml", format!("{IMPORTS}{RUN}"));
        let (run, expected) = (space.build(&[]), other.build(&[]));
        run.built(&["app"]);
        assert_eq!(run.layer("app").key, expected.layer("app").key);
        assert_eq!(run.image("app"), expected.image("app"), "{run}");
        assert_eq!(space.file("app", "seen").as_deref(), Some("1777 /tmp\n2755 /usr/lib\n"));
        for (name, text) in listed {
            assert_eq!(fs::read(space.stacker_dir().join("listings").join(&name)).unwrap(), text, "{name}");
        }
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
        space.write("stacker.yaml", IMPORTS);
        space.build(&[]).built(&[]);
    });
}

#[test]
fn with_one_id_and_with_no_sandbox_too() {
    for_each_user(|space| {
        prepare(space);
        space.write("stacker.yaml", format!("{IMPORTS}{RUN}"));
        let expected = space.build(&["--sandbox", "single-id"]);
        let diff_ids = expected.layer("app").diff_ids;
        for tier in ["single-id", "none"] {
            let other = Space::of(space.identity());
            prepare(&other);
            other.write("stacker.yaml", IMPORTS);
            let run = other.build(&["--sandbox", tier]);
            nothing_of_the_base(&other, &run);
            assert_eq!(run.layer("app").diff_ids, diff_ids[..diff_ids.len() - 1], "{tier}: {run}");
            if tier == "single-id" {
                other.write("stacker.yaml", format!("{IMPORTS}{RUN}"));
                let run = other.build(&["--sandbox", tier]);
                assert_eq!(run.layer("app").diff_ids, diff_ids, "{run}");
            }
            other.stacker(&["--sandbox", tier, "cache", "verify", "--deep"]).ends_with(0);
        }
    });
}

#[test]
fn a_base_at_a_registry_too() {
    for_each_user(|space| {
        let registry = Registry::start();
        registry.put("base", "one", &base());
        space.write("file", "file");
        let from = format!("{{type: docker, url: 'docker://{}/base:one', insecure: true}}", registry.address());
        let imports = format!("app:\n  from: {from}\n  imports: [{{path: file, dest: /lib/through}}]\n");
        space.write("stacker.yaml", &imports);
        let run = space.build(&[]);
        nothing_of_the_base(space, &run);
        assert_eq!(space.file("app", "usr/lib/through").as_deref(), Some("file"));
        space.write("stacker.yaml", format!("{imports}  run: cat /lib/through > /seen\n"));
        space.build(&["--offline"]).built(&["app"]);
        assert_eq!(space.file("app", "seen").as_deref(), Some("file"));
    });
}

#[test]
fn the_same_layer_on_other_layers_has_other_directories() {
    for_each_user(|space| {
        let closed = Member { kind: b'5', name: b"tmp/", mode: 0o711, ..Member::default() };
        let top = Archive::new().file("tmp/new", "new").end();
        let one = image(ARCH, Dialect::Oci, &[base::tar(), top.clone()]);
        let other = image(ARCH, Dialect::Oci, &[base::archive().member(closed).end(), top]);
        one.write_layout(&space.path("one"), "base");
        other.write_layout(&space.path("other"), "base");
        space.write("file", "file");
        let on = |base: &str, more: &str| format!("{base}:\n  from: {{type: oci, url: '{base}:base'}}\n  {more}\n");
        space.write("stacker.yaml", on("one", "imports: [{path: file, dest: /tmp/file}]"));
        space.build(&[]);
        space.write("stacker.yaml", on("other", "run: stat -c %a /tmp > /seen"));
        space.build(&[]);
        assert_eq!(space.file("other", "seen").as_deref(), Some("711\n"));
    });
}

#[test]
fn a_layer_that_cannot_be_unpacked_cannot_be_listed() {
    let space = Space::new();
    space.write("file", "file");
    for (odd, why) in [
        (Archive::new().file("a/../../out", "x"), "may lead out of the image"),
        (Archive::new().file("a", "x").file("a/b", "x"), "is no directory in this archive"),
        (Archive::new().file(".wh.a/b", "x"), "a layer cannot hold a name that starts with `.wh.`"),
    ] {
        let _ = fs::remove_dir_all(space.path("image"));
        image(ARCH, Dialect::Oci, &[odd.end()]).write_layout(&space.path("image"), "base");
        space.write(
            "stacker.yaml",
            "app:\n  from: {type: oci, url: 'image:base'}\n  imports: [{path: file, dest: /x}]\n",
        );
        space.stacker(&["build"]).ends_with(1).says(why);
        assert_eq!(names(&space, "deltas"), [""; 0]);
        assert_eq!(names(&space, "drafts"), [""; 0]);
        assert_eq!(listings(&space).iter().filter(|(name, _)| !name.starts_with("tree-")).count(), 0);
    }
}
