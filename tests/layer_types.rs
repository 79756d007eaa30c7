//! `--layer-type`: images whose layers are file systems, made by the programs of the system.

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::archive::{Archive, Member};
use support::skipped;
use support::space::{Run, Space, for_each_identity, for_each_store};

const LAYERS: &str = "
app:
  from: {type: built, tag: base}
  run: |
    rm /data/doomed
    rm -r /data/full
    mkdir /data/full
    echo new > /data/full/new
    echo one > /linked
    ln /linked /data/other-name
    ln -s linked /link
    mkfifo /fifo
    chown 70:80 /linked
    chmod 2750 /data/full
    touch -d @500000000 /data/full/new
  environment: {A: b}
";

/// What was made of each layer of an image, the lowest first, as media type and blob.
fn layers(space: &Space, tag: &str) -> Vec<(String, String)> {
    let image = document(space, &image(space, tag));
    let layer = |layer: &Value| (text(&layer["mediaType"]), text(&layer["digest"]));
    image["layers"].as_array().unwrap().iter().map(layer).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn index(space: &Space) -> Vec<(String, String)> {
    let index: Value = serde_json::from_slice(&fs::read(space.path("oci/index.json")).unwrap()).unwrap();
    let tag = |entry: &Value| text(&entry["annotations"]["org.opencontainers.image.ref.name"]);
    index["manifests"].as_array().unwrap().iter().map(|entry| (tag(entry), text(&entry["digest"]))).collect()
}

fn tags(space: &Space) -> Vec<String> {
    index(space).into_iter().map(|(tag, _)| tag).collect()
}

fn image(space: &Space, tag: &str) -> String {
    index(space).into_iter().find(|(found, _)| found == tag).unwrap_or_else(|| panic!("no tag {tag}")).1
}

fn blob(space: &Space, digest: &str) -> PathBuf {
    space.path("oci/blobs").join(digest.replace(':', "/"))
}

fn document(space: &Space, digest: &str) -> Value {
    serde_json::from_slice(&fs::read(blob(space, digest)).unwrap()).unwrap()
}

/// Name and time of every blob of the store.
fn store(space: &Space) -> BTreeMap<String, std::time::SystemTime> {
    let entries = fs::read_dir(space.stacker_dir().join("blobs/sha256")).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().modified().unwrap()))
        .collect()
}

/// File systems that are mounted, one upon the other, until this goes.
struct Mounted(Vec<PathBuf>);

impl Mounted {
    fn layers(space: &Space, tag: &str, kind: &str) -> Mounted {
        let mut mounted = Mounted(Vec::new());
        for (number, (_, digest)) in layers(space, tag).iter().enumerate() {
            let source = blob(space, digest).display().to_string();
            mounted.mount(space, &format!("{kind}-{number}"), &["-t", kind, "-o", "loop,ro", &source]);
        }
        if mounted.0.len() == 1 {
            return mounted;
        }
        let lowers: Vec<String> = mounted.0.iter().rev().map(|path| path.display().to_string()).collect();
        // As who runs such images does it: as root, with attributes of the kind `trusted`.
        let options = format!("ro,lowerdir={}", lowers.join(":"));
        mounted.mount(space, &format!("{kind}-all"), &["-t", "overlay", "-o", &options, "overlay"]);
        mounted
    }

    fn mount(&mut self, space: &Space, name: &str, arguments: &[&str]) {
        let place = space.directory().join(name);
        fs::create_dir_all(&place).unwrap();
        let output = Command::new("mount").args(arguments).arg(&place).output().unwrap();
        assert!(output.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        self.0.push(place);
    }

    /// The whole root filesystem.
    fn root(&self) -> &Path {
        self.0.last().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for place in self.0.iter().rev() {
            let _ = Command::new("umount").arg(place).status();
        }
    }
}

/// What `find` tells of all files but of how large directories are.
fn looks(root: &Path) -> BTreeSet<String> {
    let script = r#"cd "$1"; find . ! -type d -printf '%p %y %m %U:%G %T@ %s %n %l\n'; find . -type d -printf '%p %y %m %U:%G %T@\n'
        find . -type f -exec sha256sum {} +; getfattr -R -d -m - . 2> /dev/null | grep -v overlay"#;
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(root).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.replace(".0000000000", "")).collect()
}

/// The root filesystem of a layer as `stacker` has it, unpacked by another tool for root.
fn expected(space: &Space, tag: &str) -> BTreeSet<String> {
    let bundle = space.directory().join(format!("bundle-{tag}"));
    let source = format!("{}:{tag}", space.path("oci").display());
    let output = Command::new("umoci").args(["unpack", "--image", &source]).arg(&bundle).output();
    let output = output.expect("umoci");
    assert!(output.status.success(), "umoci: {}", String::from_utf8_lossy(&output.stderr));
    looks(&bundle.join("rootfs"))
}

/// Whether the program for a type is there, and new enough.
fn has(kind: &str) -> bool {
    let space = Space::new();
    space.write("stacker.yaml", "none: {from: {type: scratch}}\n");
    let run = space.stacker(&["build", "--layer-type", kind]);
    if run.code != 0 {
        run.says("To mend it: apt-get install ");
        skipped(&format!("images of {kind} layers: {}", run.stderr.lines().last().unwrap_or_default()));
    }
    run.code == 0
}

fn images_of(kind: &str) {
    if !has(kind) {
        return;
    }
    let images = RefCell::new(BTreeSet::new());
    for_each_store(|space| {
        space.stackerfile(LAYERS);
        let run = space.build(&["--layer-type", "tar", "--layer-type", kind]);
        run.says_not("warning");
        let [base, app] = ["base", "app"].map(|name| format!("{name}-{kind}"));
        assert_eq!(tags(space), ["base", &base, "app", &app]);
        assert!(run.image(&app) == image(space, &app) && run.image("app") == image(space, "app"));
        is_made_of(space, &app, kind);
        assert!(space.stacker(&["inspect", &app]).ends_with(0).stdout.contains(kind));
        once_and_again(space, &app, kind);
        if rustix::process::geteuid().is_root() {
            let mounted = Mounted::layers(space, &app, kind);
            let (found, wanted) = (looks(mounted.root()), expected(space, "app"));
            let differing: Vec<_> = found.symmetric_difference(&wanted).collect();
            assert!(differing.is_empty(), "{differing:#?}");
            let kept = found.iter().any(|line| line.contains("./data/full/new f 644 0:0 500000000"));
            assert!(kept, "{found:#?}");
        } else {
            skipped("mounting what was made needs root");
        }
        images.borrow_mut().insert(image(space, &app));
        // Alone, beside what is there.
        let run = space.build(&["--layer-type", kind, "app"]);
        assert_eq!(run.metadata().images.len(), 2);
        assert_eq!(tags(space).len(), 4);
    });
    assert_eq!(images.take().len(), 1, "the bytes depend on who builds, or on the store");
    owners_do_not_depend_on_the_sandbox(kind);
}

/// Owners come from listings where all files belong to one.
fn owners_do_not_depend_on_the_sandbox(kind: &str) {
    let images = RefCell::new(BTreeSet::new());
    for_each_identity(|space| {
        for sandbox in ["full", "single-id"] {
            let space = Space::of(space.identity());
            space.stackerfile("");
            space.build(&["--layer-type", kind, "--sandbox", sandbox, "--jobs", "3"]);
            images.borrow_mut().insert(image(&space, &format!("base-{kind}")));
        }
    });
    assert_eq!(images.take().len(), 1, "the bytes depend on the sandbox");
}

/// Every layer, and what the config says of them.
fn is_made_of(space: &Space, tag: &str, kind: &str) {
    let layers = layers(space, tag);
    assert_eq!(layers.len(), 2);
    let config = document(space, &text(&document(space, &image(space, tag))["config"]["digest"]));
    let diff_ids: Vec<String> = config["rootfs"]["diff_ids"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(diff_ids, layers.iter().map(|(_, digest)| digest.clone()).collect::<Vec<_>>());
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
    assert!(config["config"]["Env"].as_array().unwrap().iter().any(|variable| variable == "A=b"));
    for (media_type, _) in layers {
        assert!(media_type.starts_with(&format!("application/vnd.stacker.image.layer.{kind}+")), "{media_type}");
        assert!(!media_type.contains("verity"));
    }
}

/// A file system is made once, and again when it is lost.
fn once_and_again(space: &Space, tag: &str, kind: &str) {
    let (before, made) = (image(space, tag), store(space));
    let build = |arguments: &[&str]| space.build(&[&["--layer-type", kind], arguments].concat());
    build(&["--layer-type", "tar"]).built(&[]);
    assert_eq!(store(space), made);
    for digest in layers(space, tag).into_iter().map(|(_, digest)| digest) {
        fs::remove_file(space.stacker_dir().join("blobs").join(digest.replace(':', "/"))).unwrap();
        fs::remove_file(blob(space, &digest)).unwrap();
    }
    build(&[]).built(&[]);
    assert_eq!(image(space, tag), before);
    assert_eq!(store(space).len(), made.len());
    space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
    // No layer comes out of a file system.
    space.forget_roots();
    build(&["--rebuild", "app"]).built(&["app"]);
    assert_eq!(image(space, tag), before);
}

/// A root with looks of its own, times before 1970 and with fractions, a capability, an ACL.
fn odd() -> Vec<u8> {
    let capability = [&[1, 0, 0, 2, 0, 4][..], &[0; 14]].concat();
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in [(1u8, 6u8, u32::MAX), (2, 4, 7), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)] {
        acl.extend([tag, 0, rights, 0]);
        acl.extend(id.to_le_bytes());
    }
    let long = "long/".repeat(30);
    let directory = |name: &'static [u8], uid| Member {
        kind: b'5',
        name,
        mode: 0o751,
        uid,
        gid: 4,
        mtime: 77,
        ..Member::default()
    };
    Archive::new()
        .member(directory(b"./", 3))
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("mtime", b"1000.25")])
        .file("able", "x")
        .pax(&[("SCHILY.xattr.system.posix_acl_access", &acl)])
        .file("shared", "x")
        .pax(&[("mtime", b"-5")])
        .file("old", "x")
        .pax(&[("path", format!("{long}file").as_bytes())])
        .file("short", "x")
        .pax(&[("path", "grün\nzwei".as_bytes())])
        .file("plain", vec![b'y'; 300_000])
        .end()
}

fn odd_files(kind: &str) {
    if !has(kind) {
        return;
    }
    let images = RefCell::new(BTreeSet::new());
    for_each_identity(|space| {
        space.write("odd.tar", odd());
        space.write("stacker.yaml", "odd: {from: {type: tar, url: odd.tar}}\n");
        let run = space.build(&["--layer-type", "tar", "--layer-type", kind]);
        let lost =
            "1 attributes of files that squashfs cannot hold are not in the image (the first is /shared: system.posix";
        if kind == "squashfs" {
            run.says(lost)
        } else {
            run.says_not("attributes")
        };
        images.borrow_mut().insert(image(space, &format!("odd-{kind}")));
        if !rustix::process::geteuid().is_root() {
            return skipped("mounting what was made needs root");
        }
        let mounted = Mounted::layers(space, &format!("odd-{kind}"), kind);
        let [found, wanted] = [looks(mounted.root()), expected(space, "odd")].map(|lines| {
            // What the README says of them.
            let lost = |line: &&String| {
                !line.contains("acl_access") && !line.starts_with("# file: shared") && !line.contains("./old f")
            };
            let text =
                |line: &String| if kind == "squashfs" { line.replace("1000.2500000000", "1000") } else { line.clone() };
            lines.iter().filter(lost).map(text).collect::<BTreeSet<_>>()
        });
        let differing: Vec<_> = found.symmetric_difference(&wanted).collect();
        assert!(differing.is_empty(), "{differing:#?}");
        assert!(found.contains(". d 751 3:4 77") && found.iter().any(|line| line.contains("security.capability")));
    });
    assert_eq!(images.take().len(), 1, "the bytes depend on who builds, or on the store");
}

#[test]
fn odd_files_in_squashfs() {
    odd_files("squashfs");
}

#[test]
fn odd_files_in_erofs() {
    odd_files("erofs");
}

#[test]
fn images_of_squashfs() {
    images_of("squashfs");
}

#[test]
fn images_of_erofs() {
    images_of("erofs");
}

#[test]
fn layers_of_a_base_image_are_made_file_systems_too() {
    if !has("squashfs") {
        return;
    }
    for_each_store(|space| {
        space.stackerfile(LAYERS);
        space.build(&["--layer-type", "tar,squashfs"]);
        let before = layers(space, "app-squashfs");
        fs::rename(space.path("oci"), space.path("layout")).unwrap();
        // Another store, which has seen none of it.
        fs::remove_dir_all(space.stacker_dir()).unwrap();
        space.forget_roots();
        space.write("stacker.yaml", "mine: {from: {type: oci, url: 'layout:app'}, environment: {MINE: x}}\n");
        space.build(&["--layer-type", "squashfs"]);
        assert_eq!(layers(space, "mine-squashfs"), before);
        is_made_of(space, "mine-squashfs", "squashfs");
        space.build(&["--layer-type", "squashfs"]).built(&[]);
        space.write("stacker.yaml", "mine: {from: {type: oci, url: 'layout:app-squashfs'}}\n");
        space.stacker(&["build"]).ends_with(1).says("is a squashfs file system, which cannot be built upon");
        // What was made of the base goes with it.
        let connection = rusqlite::Connection::open(space.stacker_dir().join("stacker.db")).unwrap();
        connection.execute("UPDATE base SET last_used = last_used - 8640000", []).unwrap();
        drop(connection);
        assert_eq!(store(space).len(), 2);
        space.stacker(&["gc", "--older-than", "10d"]).ends_with(0);
        assert_eq!(store(space).len(), 0);
    });
}

#[track_caller]
fn refused(run: Run, code: i32, told: &[&str]) {
    let run = run.ends_with(code);
    for text in told {
        run.says(text);
    }
    run.says_not("base: unpack");
}

#[test]
fn what_cannot_be_done_is_told_before_anything_runs() {
    let space = Space::new();
    space.stackerfile("");
    let without = |kind: &str| space.stacker_under(&["env", "PATH=/nowhere"], &["build", "--layer-type", kind, "base"]);
    refused(without("squashfs"), 3, &["there is no mksquashfs in PATH", "apt-get install squashfs-tools"]);
    refused(without("erofs"), 3, &["there is no mkfs.erofs in PATH", "apt-get install erofs-utils"]);
    space.stackerfile("base-squashfs: {from: {type: scratch}}\n");
    let same = space.stacker(&["build", "--layer-type", "tar,squashfs"]);
    refused(same, 2, &["with --layer-type squashfs the image of layer base is tagged base-squashfs"]);
    space.stacker(&["build", "--layer-type", "ext4"]).ends_with(2).says("squashfs");
    space.build(&["--layer-type", "tar"]);
}
