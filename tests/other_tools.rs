//! Images that were built, in the hands of other tools: skopeo, a registry, umoci, runc.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use support::identity::Identity;
use support::registry::Registry;
use support::space::{Run, Space, for_each_identity};

/// An image whose layers have something of everything.
const LAYERS: &str = r#"
tools:
  from: {type: built, tag: base}
  build_only: true
  run: |
    rm /data/doomed
    rm -r /data/full
    mkdir /data/full /srv
    echo only > /data/full/c
    cp /bin/setuid /srv/privileged
    chown 7:8 /srv/privileged
    chmod 4755 /srv/privileged
    mkdir -m 2770 /srv/shared
    chgrp 50 /srv/shared
    echo pair > /srv/a
    ln /srv/a /srv/b
    ln -s a /srv/link
app:
  from: {type: built, tag: tools}
  imports: [{path: program, dest: /usr/bin/program, mode: "0755"}]
  run: rm /srv/link
  entrypoint: [/usr/bin/program]
  cmd: [one, two words]
  environment: {GREETING: hello there}
  working_dir: /srv
  runtime_user: "1234:5678"
  labels: {com.example.team: greetings}
"#;

/// Says what it was given by the image's configuration, and shows a file of the layer beneath.
const PROGRAM: &str = "#!/bin/sh
echo \"arguments: $# $1, $2\"
echo \"environment: $GREETING\"
echo \"directory: $PWD\"
echo \"user: $(id -u):$(id -g)\"
echo \"file: $(cat b)\"
";

/// One layout for each compression, called like it.
const COMPRESSIONS: [&str; 3] = ["gzip", "zstd", "none"];

/// Builds [`LAYERS`] with each compression; only the first has to run anything.
fn build(space: &Space) -> BTreeMap<&'static str, Run> {
    space.write("program", PROGRAM);
    space.stackerfile(LAYERS);
    let build = |compression| {
        let run = space.build(&["--compression", compression, "--oci-dir", compression]);
        if compression != COMPRESSIONS[0] {
            run.built(&[]);
        }
        (compression, run)
    };
    COMPRESSIONS.into_iter().map(build).collect()
}

/// The command, which must succeed, and what it printed.
#[track_caller]
fn run(space: &Space, words: &[&str]) -> String {
    let output = try_run(space, words);
    assert!(output.status.success(), "{words:?} {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn try_run(space: &Space, words: &[&str]) -> Output {
    // Nobody's passwords, wherever they may lie and whether or not that place can be read.
    let passwords = "passwords.json";
    if !space.path(passwords).exists() {
        space.write(passwords, "{}");
    }
    let mut command = space.other_program(words);
    command.env("REGISTRY_AUTH_FILE", passwords).output().unwrap_or_else(|error| panic!("{}: {error}", words[0]))
}

fn said(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("({})\n{stdout}\n{stderr}", output.status)
}

fn json_of(space: &Space, words: &[&str]) -> Value {
    serde_json::from_str(&run(space, words)).unwrap()
}

#[test]
fn skopeo_inspects_the_same_image_in_every_compression() {
    for_each_identity(|space| {
        let runs = build(space);
        let mut configs = Vec::new();
        for (compression, built) in &runs {
            let image = format!("oci:{compression}:app");
            let inspected = json_of(space, &["skopeo", "inspect", &image]);
            assert_eq!(inspected["Digest"], built.image("app"));
            assert_eq!(inspected["Labels"], json!({"com.example.team": "greetings"}));
            let manifest = json_of(space, &["skopeo", "inspect", "--raw", &image]);
            let suffix = if *compression == "none" { String::new() } else { format!("+{compression}") };
            for layer in manifest["layers"].as_array().unwrap() {
                assert_eq!(layer["mediaType"], format!("application/vnd.oci.image.layer.v1.tar{suffix}"));
            }
            configs.push(manifest["config"]["digest"].clone());
            let config = json_of(space, &["skopeo", "inspect", "--config", &image]);
            assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 4, "{config}");
            assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/program"]));
        }
        assert!(configs.iter().all(|config| *config == configs[0]), "compression is no part of a config: {configs:?}");
    });
}

#[test]
fn a_registry_gives_back_what_was_pushed() {
    for_each_identity(|space| {
        let runs = build(space);
        let registry = Registry::start();
        for (compression, built) in &runs {
            let (layout, back) = (format!("oci:{compression}:app"), format!("oci:back-{compression}:app"));
            let remote = format!("docker://{}/{compression}/app:tag", registry.address());
            run(space, &["skopeo", "copy", "--dest-tls-verify=false", "--preserve-digests", &layout, &remote]);
            let digest = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", &remote];
            assert_eq!(run(space, &digest).trim(), built.image("app"), "{compression} in the registry");
            run(space, &["skopeo", "copy", "--src-tls-verify=false", "--preserve-digests", &remote, &back]);
            let digest = ["skopeo", "inspect", "--format", "{{.Digest}}", &back];
            assert_eq!(run(space, &digest).trim(), built.image("app"), "{compression} back from the registry");
        }
        // What came back is a base like any other.
        space.write(
            "stacker.yaml",
            "child: {from: {type: oci, url: 'back-zstd:app'}, run: cat /srv/b /data/full/c > /seen}\n",
        );
        space.build(&[]);
        assert_eq!(space.file("child", "seen").as_deref(), Some("pair\nonly\n"));
    });
}

#[test]
fn what_is_published_is_read_by_skopeo() {
    let space = Space::new();
    let built = &build(&space)["gzip"];
    let registry = Registry::start();
    let url = format!("docker://{}/team", registry.address());
    let publish = ["publish", "--oci-dir", "gzip", "--url", &url, "--tag", "v1", "--skip-tls", "--image", "app"];
    space.stacker(&publish).ends_with(0);
    let remote = format!("{url}/app:v1");
    let digest = run(&space, &["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", &remote]);
    assert_eq!(digest.trim(), built.image("app"));
    let back = ["skopeo", "copy", "--src-tls-verify=false", "--preserve-digests", &remote, "oci:back:app"];
    run(&space, &back);
}

#[test]
fn a_plain_push_keeps_the_digest() {
    let space = Space::new();
    let built = &build(&space)["gzip"];
    let registry = Registry::start();
    let remote = format!("docker://{}/app:tag", registry.address());
    run(&space, &["skopeo", "copy", "--dest-tls-verify=false", "oci:gzip:app", &remote]);
    let digest = run(&space, &["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", &remote]);
    assert_eq!(digest.trim(), built.image("app"));
}

/// Unpacks an image to `bundle-COMPRESSION`, in the way that its user can.
fn unpack(space: &Space, compression: &str) -> String {
    let mut layout = compression.to_owned();
    if compression == "zstd" {
        // umoci 0.4 cannot read it; skopeo can.
        layout = "unzstd".to_owned();
        run(space, &["skopeo", "copy", "--dest-decompress", "oci:zstd:app", "dir:plain"]);
        run(space, &["skopeo", "copy", "dir:plain", "oci:unzstd:app"]);
    }
    let (image, bundle) = (format!("{layout}:app"), format!("bundle-{compression}"));
    let rootless: &[&str] = if is_root(space) { &[] } else { &["--rootless"] };
    run(space, &[&["umoci", "unpack"], rootless, &["--image", &image, &bundle]].concat());
    bundle
}

fn is_root(space: &Space) -> bool {
    space.identity() == Identity::Own && rustix::process::geteuid().is_root()
}

#[test]
fn umoci_unpacks_files_as_the_script_left_them() {
    for_each_identity(|space| {
        build(space);
        for compression in COMPRESSIONS {
            let root = space.path(unpack(space, compression)).join("rootfs");
            let entry = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
            for gone in ["data/doomed", "data/full/a", "srv/link", "stacker"] {
                assert!(fs::symlink_metadata(root.join(gone)).is_err(), "{gone} with {compression}");
            }
            assert_eq!(fs::read_to_string(root.join("data/full/c")).unwrap(), "only\n");
            assert_eq!(entry("srv/a").ino(), entry("srv/b").ino());
            assert!(entry("data/link").is_symlink() && entry("srv/privileged").is_file());
            owners_and_modes(space, &root);
        }
    });
}

fn owners_and_modes(space: &Space, root: &Path) {
    let expected = [
        ("bin/setuid", 7, 8, 0o4755),
        ("srv/privileged", 7, 8, 0o4755),
        ("srv/shared", 0, 50, 0o2770),
        ("srv/a", 0, 0, 0o644),
        ("usr/bin/program", 0, 0, 0o755),
        ("tmp", 0, 0, 0o1777),
        ("root", 0, 0, 0o700),
    ];
    for (name, uid, gid, mode) in expected {
        let entry = fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!(entry.mode() & 0o7777, mode, "{name}");
        // Without root all of it is the user's.
        if is_root(space) {
            assert_eq!((entry.uid(), entry.gid()), (uid, gid), "{name}");
        }
    }
}

#[test]
fn runc_runs_an_image() {
    for_each_identity(|space| {
        build(space);
        for compression in ["gzip", "zstd"] {
            let bundle = unpack(space, compression);
            // Without root a container has one user, so the image's own must give way to it.
            let user = if is_root(space) { "1234:5678" } else { "0:0" };
            configure(space, &bundle, |process| {
                if !is_root(space) {
                    process["user"] = json!({"uid": 0, "gid": 0});
                }
            });
            let Some(said) = runc(space, &bundle) else { return };
            let expected = format!(
                "arguments: 2 one, two words\nenvironment: hello there\ndirectory: /srv\nuser: {user}\nfile: pair\n"
            );
            assert_eq!(said, expected, "{compression}");
        }
    });
}

/// Changes a bundle's process, which is to have no terminal.
fn configure(space: &Space, bundle: &str, change: impl Fn(&mut Value)) {
    let path = space.path(bundle).join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    change(&mut config["process"]);
    fs::write(&path, config.to_string()).unwrap();
}

/// What a bundle's program prints; nothing on a machine where not even a bundle that is not ours can be run.
fn runc(space: &Space, bundle: &str) -> Option<String> {
    let run_it = |bundle: &str| {
        let state = space.path("runc-state").display().to_string();
        let id = format!("stacker-test-{}-{bundle}", std::process::id());
        try_run(space, &["runc", "--root", &state, "run", "--bundle", bundle, &id])
    };
    let output = run_it(bundle);
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap());
    }
    space.write("probe/rootfs/busybox", fs::read("/bin/busybox").unwrap());
    run(space, &["chmod", "755", "probe/rootfs/busybox"]);
    let rootless: &[&str] = if is_root(space) { &[] } else { &["--rootless"] };
    run(space, &[&["runc", "spec", "--bundle", "probe"], rootless].concat());
    configure(space, "probe", |process| process["args"] = json!(["/busybox", "true"]));
    let probe = run_it("probe");
    assert!(!probe.status.success(), "runc run {bundle} {}", said(&output));
    support::skipped(&format!("runc cannot run here as {}: {}", space.identity(), said(&probe)));
    None
}
