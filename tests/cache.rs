//! `cache ls`, `cache show` and `cache diff` on a real cache: what is there, what went, and how two results differ.

mod support;

use serde_json::Value;
use support::schema::assert_fits;
use support::space::{Space, for_each_user};

fn write(space: &Space, script: &str, file: &str) {
    space.write("data/file", file);
    space.stackerfile(&format!(
        "
lib: {{from: {{type: built, tag: base}}, run: 'head -c 300000 /dev/zero > /lib'}}
app:
  from: {{type: built, tag: lib}}
  imports: [data]
  build_env: {{MODE: fast}}
  run: |
    mkdir /app
    {script}
    cp /stacker/imports/data/file /app/file
"
    ));
}

/// Two states of `app`.
fn build_both(space: &Space) {
    write(space, "echo one > /app/one", "old");
    space.build(&[]);
    write(space, "echo two > /app/two", "new!");
    space.build(&[]).built(&["app"]);
}

#[track_caller]
fn json(space: &Space, schema: &str, arguments: &[&str]) -> Value {
    let printed = space.stacker(&[arguments, &["--json"]].concat()).ends_with(0).stdout;
    let value = serde_json::from_str(&printed).unwrap();
    assert_fits(schema, &value);
    value
}

/// The kinds and layers of the results that are listed.
#[track_caller]
fn listed(space: &Space, arguments: &[&str]) -> Vec<String> {
    let rows = json(space, "cache-ls", &[&["cache", "ls"], arguments].concat());
    let text = |row: &Value| format!("{} {}", row["kind"].as_str().unwrap(), row["layers"][0].as_str().unwrap_or("-"));
    rows.as_array().unwrap().iter().map(text).collect()
}

#[test]
fn results_are_chosen_and_put_in_order() {
    for_each_user(|space| {
        build_both(space);
        assert_eq!(listed(space, &["--sort", "name"]), ["run app", "run app", "unpack base", "run lib"]);
        assert_eq!(listed(space, &["--layer", "l?b"]), ["run lib"]);
        assert_eq!(listed(space, &["--layer", "[ab]*", "--sort", "size"])[0], "unpack base");
        assert_eq!(listed(space, &["--larger-than", "100KiB", "--layer", "lib"]), ["run lib"]);
        assert_eq!(listed(space, &["--larger-than", "1GiB"]), Vec::<String>::new());
        assert_eq!(listed(space, &["--older-than", "1d"]), Vec::<String>::new());
        assert_eq!(listed(space, &["--newer-than", "1d"]).len(), 4);
        assert_eq!(listed(space, &["--status", "evicted"]), Vec::<String>::new());
        let wrong = space.stacker(&["cache", "ls", "--layer", "[a"]).ends_with(2);
        wrong.says("--layer");
        space.stacker(&["cache", "ls", "--newer-than", "soon"]).ends_with(2).says("--newer-than");
    });
}

#[test]
fn what_went_is_still_known() {
    for_each_user(|space| {
        build_both(space);
        space.stacker(&["gc", "--keep-last", "1"]).ends_with(0);
        assert_eq!(listed(space, &["--status", "evicted"]), ["run app"]);
        assert_eq!(listed(space, &[]).len(), 3);
        assert_eq!(listed(space, &["--status", "all"]).len(), 4);
        let text = space.stacker(&["cache", "ls", "--status", "all"]).ends_with(0).stdout;
        assert!(text.contains("(--keep-last 1)") && text.contains("STATUS"), "{text}");
        let gone = json(space, "cache-ls", &["cache", "ls", "--status", "evicted"]);
        let key = gone[0]["key"].as_str().unwrap();
        let shown = space.stacker(&["cache", "show", &key[..12]]).ends_with(0).stdout;
        assert!(shown.contains("(--keep-last 1)") && shown.contains("echo one"), "{shown}");
        json(space, "cache-show", &["cache", "show", key]);
        // A layer's name is that of what is there.
        let app = json(space, "cache-show", &["cache", "show", "app"]);
        assert_eq!(app.as_array().unwrap().len(), 1, "{app:#}");
        assert_eq!(app[0]["status"], "present");

        // What it held is known too.
        let difference = json(space, "cache-diff", &["cache", "diff", &key[..8], "app", "--files"]);
        check_difference(&difference);
        let text = space.stacker(&["cache", "diff", &key[..8], "app", "--files"]).ends_with(0).stdout;
        for line in ["-echo one > /app/one", "+echo two > /app/two", "-app/one file 644 0:0 4 B", "+app/two file 644"] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line}: {text}");
        }
        assert!(!text.contains("MODE"), "what is the same is not shown: {text}");
        let said = space.stacker(&["cache", "diff", key, "nobody"]).ends_with(2);
        said.says("nothing in the cache is named nobody");
    });
}

fn check_difference(difference: &Value) {
    let fields: Vec<&str> =
        difference["fields"].as_array().unwrap().iter().map(|field| field["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["script", "mount /stacker/imports/data"], "{difference:#}");
    let files = difference["files"].as_array().unwrap();
    let how = |path: &str| {
        let file = files.iter().find(|file| file["path"] == path);
        file.unwrap_or_else(|| panic!("{path} in {difference:#}"))["how"].as_str().unwrap()
    };
    assert_eq!((how("app/one"), how("app/two"), how("app/file")), ("removed", "added", "changed"));
    let file = files.iter().find(|file| file["path"] == "app/file").unwrap();
    assert_eq!((&file["old"]["size"], &file["new"]["size"]), (&Value::from(3), &Value::from(4)));
}

#[test]
fn a_result_without_data_is_told_from_one_that_went() {
    for_each_user(|space| {
        build_both(space);
        space.forget_roots();
        let blobs = space.stacker_dir().join("blobs/sha256");
        std::fs::read_dir(blobs).unwrap().for_each(|blob| std::fs::remove_file(blob.unwrap().path()).unwrap());
        assert_eq!(listed(space, &["--status", "lost"]).len(), 4);
        // Their steps run again, and then it is known that they were lost.
        space.edit("stacker.yaml", "echo two", "echo three");
        space.build(&["app"]);
        let lib = json(space, "cache-show", &["cache", "show", "lib"]);
        assert_eq!((&lib[0]["status"], &lib[0]["evicted"]["cause"]), (&"present".into(), &"missing".into()));
    });
}
