//! `generate_labels`: what a script leaves as labels, when it runs, and who inherits them.

mod support;

use std::collections::BTreeMap;
use std::fs;

use stacker::action::Platform;
use stacker::oci::Layout;
use support::space::{Space, for_each_identity, for_each_store};

/// The labels in an image's config.
#[track_caller]
fn labels(space: &Space, tag: &str) -> BTreeMap<String, String> {
    let layout = Layout::open(space.path("oci")).unwrap();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let image = layout.find(Some(tag), &Platform { os: "linux".into(), arch: arch.into() }).unwrap();
    let labels = image.config.json().get("config").and_then(|config| config.get("Labels")).cloned();
    labels.map(|labels| serde_json::from_value(labels).unwrap()).unwrap_or_default()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

const APP: &str = "
app:
  from: {type: built, tag: base}
  imports: [file]
  binds: [{source: dir, dest: /bound, key: none}]
  build_env: {SECRET: s}
  labels: {explicit: written, both: written}
  run: echo result > /version
  generate_labels: |
    cd /stacker/oci-labels
    cat /version > org.example.version
    printf '%s' \"$(ls)\" > empty
    printf both > both
    test ! -e /stacker/imports/file && test ! -e /bound && test -z \"$SECRET\"
    rm /version; echo gone > /gone
";

#[test]
fn labels_come_from_the_result_and_leave_it_alone() {
    for_each_store(|space| {
        space.write("file", "file");
        space.write("dir/x", "x");
        space.stackerfile(APP);
        let run = space.build(&[]);
        let expected = [
            ("both", "written"),
            ("empty", "org.example.version"),
            ("explicit", "written"),
            ("org.example.version", "result\n"),
        ];
        assert_eq!(labels(space, "app"), map(&expected));
        assert_eq!(run.layer("app").diff_ids.len(), 2);
        assert_eq!((space.file("app", "version"), space.file("app", "gone")), (Some("result\n".into()), None));
        let drafts = fs::read_dir(space.roots_dir().join("drafts"));
        assert!(drafts.is_err() || drafts.unwrap().next().is_none());
        let image = run.image("app");
        let again = space.build(&[]);
        assert_eq!(again.built(&[]).image("app"), image);
        // An edit runs nothing but what was edited.
        space.edit("stacker.yaml", "printf both", "printf other > other; printf both");
        let run = space.build(&[]);
        run.built(&["app"]).says("app: labels (script changed: line 4)").says_not("app: run");
        assert_eq!(labels(space, "app")["other"], "other");
        // And where the layer comes out the same nothing runs at all.
        space.edit("stacker.yaml", "echo result >", "echo  result >");
        space.build(&[]).says("app: run").says_not("app: labels");
        space.edit("stacker.yaml", "echo  result", "echo new");
        space.build(&[]).says("app: run").says("app: labels (base changed: app: script changed: line");
        assert_eq!(labels(space, "app")["org.example.version"], "new\n");
    });
}

#[test]
fn labels_are_kept_like_other_results() {
    for_each_identity(|space| {
        space.stackerfile(
            "app: {from: {type: built, tag: base}, generate_labels: printf one > /stacker/oci-labels/label}\n",
        );
        space.build(&[]).built(&["base", "app"]);
        let listed = space.stacker(&["cache", "ls"]).ends_with(0).stdout;
        assert!(listed.lines().any(|line| line.contains(" labels ") && line.contains(" app ")), "{listed}");
        let shown = space.stacker(&["cache", "show", "app"]).ends_with(0).stdout;
        assert!(shown.contains("label = one") && shown.contains("kind labels"), "{shown}");
        let json: serde_json::Value =
            serde_json::from_str(&space.stacker(&["cache", "show", "app", "--json"]).ends_with(0).stdout).unwrap();
        assert_eq!(json[0]["labels"]["label"], "one");
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
        space.stacker(&["gc"]).ends_with(0);
        // The database is made anew from the records.
        fs::remove_file(space.stacker_dir().join("stacker.db")).unwrap();
        space.build(&[]).says("made anew from 2 records").built(&[]);
        assert_eq!(labels(space, "app"), map(&[("label", "one")]));
        // A record that is gone is found missing, and its step runs again.
        let key = space.build(&[]).layer("app").key.unwrap();
        let records = space.stacker_dir().join("records");
        for entry in fs::read_dir(&records).unwrap().map(Result::unwrap) {
            if fs::read_to_string(entry.path()).unwrap().contains(&format!("\"key\":\"{key}\"")) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        space.stacker(&["cache", "verify"]).ends_with(1);
        space.build(&[]).built(&["app"]);
        assert_eq!(labels(space, "app"), map(&[("label", "one")]));
        let database = rusqlite::Connection::open(space.stacker_dir().join("stacker.db")).unwrap();
        database.execute("UPDATE result SET last_used = last_used - 864000", []).unwrap();
        drop(database);
        let told = space.stacker(&["gc", "--older-than", "9d"]).ends_with(0).stdout;
        assert!(told.contains("labels of app"), "{told}");
        assert_eq!(fs::read_dir(&records).unwrap().count(), 0);
        space.build(&[]).built(&["base", "app"]);
    });
}

#[test]
fn emitted_bases_hand_their_labels_on() {
    for_each_identity(|space| {
        space.stackerfile(
            "
one:
  from: {type: built, tag: base}
  generate_labels: |
    printf one > /stacker/oci-labels/one
    printf one > /stacker/oci-labels/over
hidden:
  from: {type: built, tag: one}
  build_only: true
  generate_labels: printf hidden > /stacker/oci-labels/hidden
top:
  from: {type: built, tag: hidden}
  run: echo > /top
  generate_labels: printf top > /stacker/oci-labels/over
",
        );
        space.build(&[]);
        assert_eq!(labels(space, "one"), map(&[("one", "one"), ("over", "one")]));
        assert_eq!(labels(space, "top"), map(&[("one", "one"), ("over", "top")]));
        space.build(&[]).built(&[]);
    });
}

#[test]
fn what_cannot_be_a_label_is_told() {
    for_each_identity(|space| {
        space.write("secret", "of the host");
        let secret = space.path("secret");
        for (script, message) in [
            ("printf '\\377' > bad", "/stacker/oci-labels/bad is not UTF-8"),
            ("mkdir sub", "/stacker/oci-labels/sub is no file"),
            ("mkfifo pipe", "/stacker/oci-labels/pipe is no file"),
            (&format!("ln -s {} link", secret.display()), "/stacker/oci-labels/link is no file"),
            ("cd /; rm -r /stacker/oci-labels; ln -s /etc /stacker/oci-labels", "oci-labels is no longer a directory"),
            ("dd if=/dev/zero of=big bs=1024 count=1025", "more than 1 MiB in all"),
            ("touch \"$(printf 'a\\377b')\"", "has a name that is not UTF-8"),
            ("exit 7", "the script failed with exit code 7"),
        ] {
            let directive =
                "app:\n  from: {type: built, tag: base}\n  generate_labels: |\n    cd /stacker/oci-labels\n";
            space.stackerfile(&format!("{directive}    {script}\n"));
            space.stacker(&["build"]).ends_with(1).says(message).says_not("--failed");
            assert!(fs::read_dir(space.roots_dir().join("drafts")).unwrap().next().is_none());
        }
        // No labels are no mistake.
        space.stackerfile("app: {from: {type: built, tag: base}, generate_labels: rm -r /stacker/oci-labels}\n");
        space.build(&[]);
        assert_eq!(labels(space, "app"), map(&[]));
        space.build(&[]).built(&[]);
    });
}

#[test]
fn every_kind_of_sandbox_generates_labels_or_says_why_not() {
    let app = "app: {from: {type: built, tag: base}, generate_labels: id -u > /stacker/oci-labels/id}\n";
    for tier in ["single-id", "shared-proc"] {
        for_each_identity(|space| {
            space.stackerfile(app);
            space.build(&["--sandbox", tier]);
            assert_eq!(labels(space, "app"), map(&[("id", "0\n")]));
        });
    }
    for_each_identity(|space| {
        space.stackerfile(app);
        let run = space.stacker(&["build", "--sandbox", "none"]).ends_with(3);
        run.says("layer app has a `generate_labels`, and the sandbox is of the kind none");
    });
}
