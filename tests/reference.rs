//! What directives mean, row by row: where imports go, who inherits what, what is substituted, how values are spelled,
//! and what differs from the Go tool.

mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use support::space::{Run, Space, for_each_identity};

/// The `config` of an image's configuration, and the annotations of its manifest.
fn image(space: &Space, tag: &str) -> (Value, Value) {
    let read = |digest: &Value| -> Value {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        serde_json::from_slice(&fs::read(space.path("oci/blobs/sha256").join(hex)).unwrap()).unwrap()
    };
    let index: Value = serde_json::from_slice(&fs::read(space.path("oci/index.json")).unwrap()).unwrap();
    let name = "org.opencontainers.image.ref.name";
    let mut entries = index["manifests"].as_array().unwrap().iter();
    let entry = entries.find(|entry| entry["annotations"][name] == tag).unwrap_or_else(|| panic!("no image {tag}"));
    let manifest = read(&entry["digest"]);
    (read(&manifest["config"]["digest"])["config"].clone(), manifest["annotations"].clone())
}

/// (path, dest, where the file must be), for a file `f`, a directory `dir` with `inner`, and a base that has the
/// directories /has/f and /other.
const PLACES: [(&str, &str, &str); 13] = [
    ("f", "/a/", "a/f"),
    ("f", "/b/x", "b/x"),
    ("f", "/has/x", "has/x"),
    ("f", "/other", "other/f"),
    ("f", "/has/f", "has/f/f"),
    ("f", "/", "f"),
    ("dir", "/c", "c/inner"),
    ("dir", "/c/d", "c/d/inner"),
    ("dir/", "/e", "e/inner"),
    ("dir/", "/g/", "g/inner"),
    ("dir", "/h/", "h/dir/inner"),
    ("dir", "/has/", "has/dir/inner"),
    ("dir", "/", "dir/inner"),
];

#[test]
fn each_path_and_dest_has_its_place() {
    for_each_identity(|space| {
        space.write("f", "here");
        space.write("dir/inner", "here");
        let mut layers = "
has: {from: {type: built, tag: base}, run: mkdir -p /has/f /other}
holder: {from: {type: built, tag: base}, imports: [f, dir], run: cp -r /stacker/imports/f /stacker/imports/dir /}
"
        .to_owned();
        for (number, (path, dest, _)) in PLACES.iter().enumerate() {
            // What is imported from a layer has the places of what is imported from the host.
            for (from, source) in [("host", (*path).to_owned()), ("layer", format!("stacker://holder/{path}"))] {
                layers += &format!(
                    "{from}-{number}: {{from: {{type: built, tag: has}}, imports: [{{path: '{source}', dest: {dest}}}]}}\n"
                );
            }
        }
        space.stackerfile(&layers);
        space.build(&[]);
        for (number, (path, dest, place)) in PLACES.iter().enumerate() {
            for from in ["host", "layer"] {
                let found = space.file(&format!("{from}-{number}"), place);
                assert_eq!(found.as_deref(), Some("here"), "{path} to {dest} from the {from}: not at {place}");
            }
        }
        space.build(&[]).built(&[]);
    });
}

const SETTINGS: &str = "
  environment: {A: lower, B: lower}
  labels: {a: lower, b: lower}
  annotations: {a: lower, b: lower}
  entrypoint: /enter
  cmd: [one, two]
  working_dir: /lower
  runtime_user: '7:8'
  volumes: [/lower]
";

fn env(config: &Value) -> BTreeSet<&str> {
    config["Env"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn settings_come_from_the_nearest_base_that_is_an_image() {
    let space = Space::new();
    let lower = format!("lower:\n  from: {{type: built, tag: base}}\n  run: echo lower > /lower{SETTINGS}");
    let hidden = format!(
        "hidden:\n  from: {{type: built, tag: base}}\n  run: echo hidden > /hidden\n  build_only: true{SETTINGS}"
    );
    space.stackerfile(&format!(
        "{lower}{hidden}
plain: {{from: {{type: built, tag: lower}}, run: echo plain > /plain}}
over:
  from: {{type: built, tag: lower}}
  environment: {{B: upper, C: upper}}
  labels: {{b: upper, c: upper}}
  annotations: {{b: upper, c: upper}}
  working_dir: /upper
  runtime_user: nobody
  volumes: [/upper]
entered: {{from: {{type: built, tag: lower}}, entrypoint: /other}}
entered-with: {{from: {{type: built, tag: lower}}, entrypoint: /other, cmd: three}}
full: {{from: {{type: built, tag: lower}}, full_command: /all of it}}
commanded: {{from: {{type: built, tag: lower}}, cmd: four}}
above-hidden: {{from: {{type: built, tag: hidden}}, run: echo above > /above}}
between: {{from: {{type: built, tag: lower}}, build_only: true, run: echo between > /between, labels: {{between: 'yes'}}}}
above-between: {{from: {{type: built, tag: between}}, run: echo above > /above}}
nothing: {{from: {{type: scratch}}, cmd: x}}
"
    ));
    space.build(&[]);
    let lower = image(&space, "lower");
    assert_eq!(image(&space, "plain"), lower);
    assert_eq!(lower.0["Cmd"], json!(["one", "two"]));
    assert_eq!(env(&lower.0), BTreeSet::from(["A=lower", "B=lower", PATH]));
    let (over, annotations) = image(&space, "over");
    assert_eq!(env(&over), BTreeSet::from(["A=lower", "B=upper", "C=upper", PATH]));
    let merged = json!({"a": "lower", "b": "upper", "c": "upper"});
    assert_eq!((&over["Labels"], &annotations), (&merged, &merged));
    assert_eq!((&over["WorkingDir"], &over["User"]), (&json!("/upper"), &json!("nobody")));
    assert_eq!(over["Volumes"], json!({"/lower": {}, "/upper": {}}));
    let command = |tag: &str| {
        let (config, _) = image(&space, tag);
        (config["Entrypoint"].clone(), config["Cmd"].clone())
    };
    assert_eq!(command("over"), (json!(["/enter"]), json!(["one", "two"])));
    assert_eq!(command("entered"), (json!(["/other"]), Value::Null));
    assert_eq!(command("entered-with"), (json!(["/other"]), json!(["three"])));
    assert_eq!(command("full"), (json!(["/all", "of", "it"]), Value::Null));
    assert_eq!(command("commanded"), (json!(["/enter"]), json!(["four"])));
    // Files of what is not an image are inherited, its settings are not: those of the image beneath it are.
    let index = fs::read_to_string(space.path("oci/index.json")).unwrap();
    assert!(!index.contains("\"hidden\"") && index.contains("\"above-hidden\""), "{index}");
    assert_eq!(space.file("above-hidden", "hidden").unwrap(), "hidden\n");
    assert_eq!(image(&space, "above-hidden"), image(&space, "base"));
    assert_eq!(space.file("above-between", "between").unwrap(), "between\n");
    assert_eq!(image(&space, "above-between"), lower);
    assert_eq!(image(&space, "base").0, json!({"Env": [PATH]}));
    assert_eq!(image(&space, "nothing").0, json!({"Env": [PATH], "Cmd": ["x"]}));
}

#[test]
fn settings_of_an_image_in_a_layout_are_inherited() {
    let space = Space::new();
    space.stackerfile(&format!("lower:\n  from: {{type: built, tag: base}}{SETTINGS}"));
    space.build(&["--oci-dir", "lower"]);
    for (kind, url) in [("oci", "lower:lower"), ("docker", "oci:lower:lower")] {
        space.write("stacker.yaml", format!("app: {{from: {{type: {kind}, url: '{url}'}}, run: echo app > /app}}\n"));
        space.build(&[]);
        let (config, annotations) = image(&space, "app");
        assert_eq!((&config["WorkingDir"], &config["Entrypoint"]), (&json!("/lower"), &json!(["/enter"])));
        assert_eq!((env(&config), &config["Labels"]), (BTreeSet::from(["A=lower", "B=lower", PATH]), &annotations));
        // What stacker did not touch is passed on as it is.
        let names = |layers: Vec<std::path::PathBuf>| -> Vec<_> {
            layers.iter().map(|path| path.file_name().unwrap().to_owned()).collect()
        };
        let app = names(space.layers("app"));
        let lower: Vec<_> =
            fs::read_dir(space.path("lower/blobs/sha256")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(app.len() == 2 && lower.contains(&app[0]), "{app:?}");
    }
}

#[test]
fn files_come_from_all_ancestors_that_are_no_images() {
    let space = Space::new();
    space.stackerfile(
        "
one: {from: {type: built, tag: base}, build_only: true, run: echo one > /one}
two: {from: {type: built, tag: one}, build_only: true, run: echo two > /two}
app: {from: {type: built, tag: two}, run: cat /one /two > /app}
",
    );
    space.build(&[]);
    let files = ["one", "two", "app"].map(|name| space.file("app", name).unwrap());
    assert_eq!(files, ["one\n", "two\n", "one\ntwo\n"]);
    let index = fs::read_to_string(space.path("oci/index.json")).unwrap();
    assert!(!index.contains("\"one\"") && !index.contains("\"two\""), "{index}");
}

/// `stacker build` of a stackerfile with one text in it.
fn build_of(space: &Space, text: &str, arguments: &[&str]) -> Run {
    space.write("stacker.yaml", format!("app:\n  from: {{type: scratch}}\n  labels:\n    value: {text}\n"));
    space.stacker(&[&["build"], arguments].concat())
}

fn value(space: &Space) -> String {
    image(space, "app").0["Labels"]["value"].as_str().unwrap().to_owned()
}

#[test]
fn values_are_substituted_by_rule() {
    let space = Space::new();
    space.write("values.yaml", "FILE: from file\nBOTH: from file\nNUMBER: 1.10\n");
    let given = ["--substitute", "LINE=a=b,c", "--substitute", "BOTH=from line", "--substitute-file", "values.yaml"];
    let given = [&given[..], &["--substitute", "DOLLAR=$LINE", "--substitute", "EMPTY="]].concat();
    let table = [
        // Split at the first `=`; a comma is a comma.
        ("${{LINE}}", "a=b,c"),
        ("${{FILE}}", "from file"),
        // The command line wins.
        ("${{BOTH}}", "from line"),
        ("${{NUMBER}}", "1.10"),
        ("'${{EMPTY}}'", ""),
        // Values are plain text.
        ("${{DOLLAR}}", "$LINE"),
        ("${{OTHER:default}}", "default"),
        ("'${{OTHER:}}'", ""),
        ("'${{OTHER:a:b}}'", "a:b"),
        ("x${{OTHER:y}}z ${{FILE}}", "xyz from file"),
        // A value beats the default.
        ("${{FILE:default}}", "from file"),
        // The shell's forms are the shell's.
        ("$OTHER ${OTHER} $${HOME}", "$OTHER ${OTHER} $${HOME}"),
    ];
    for (text, expected) in table {
        build_of(&space, text, &given).ends_with(0);
        assert_eq!(value(&space), expected, "{text}");
    }
    let built_in = |name: &str, path: std::path::PathBuf| {
        build_of(&space, &format!("${{{{STACKER_{name}_DIR}}}}"), &[]).ends_with(0);
        assert_eq!(value(&space), path.display().to_string());
    };
    built_in("STACKER", space.stacker_dir());
    built_in("ROOTFS", space.roots_dir());
    built_in("OCI", space.path("oci"));
    built_in("WORK", space.path("").components().collect());
    build_of(&space, "x ${{OTHER}}", &[]).ends_with(1).says("OTHER").says("stacker.yaml:4:14");
    build_of(&space, "'$LINE'", &given).ends_with(1).says("${{LINE}}");
    build_of(&space, "'${LINE}'", &given).ends_with(1).says("${{LINE}}");
    // Keys and comments too.
    space.write("stacker.yaml", "# ${{FILE}}\n${{NAME}}: {from: {type: scratch}, labels: {'${{KEY}}': x}}\n");
    let named = ["--substitute", "NAME=named", "--substitute", "KEY=key"];
    space.stacker(&[&["build"], &named[..]].concat()).ends_with(1).says("FILE");
    space.build(&[&named[..], &["--substitute-file", "values.yaml"]].concat());
    assert_eq!(image(&space, "named").0["Labels"], json!({"key": "x"}));
}

#[test]
fn values_are_spelled_as_in_the_file() {
    let space = Space::new();
    let table = [
        ("1.10", "1.10"),
        ("yes", "yes"),
        ("No", "No"),
        ("0100", "0100"),
        ("0x1F", "0x1F"),
        ("1e3", "1e3"),
        ("true", "true"),
        ("2000-01-01", "2000-01-01"),
        ("1_000", "1_000"),
        ("'it''s'", "it's"),
        ("\"a\\tb\"", "a\tb"),
        ("|\n      a\n      b", "a\nb\n"),
        (">-\n      a\n      b", "a b"),
    ];
    for (text, expected) in table {
        build_of(&space, text, &[]).ends_with(0);
        assert_eq!(value(&space), expected, "{text}");
    }
    // A blank value is an absent directive; anchors, aliases and merge keys work.
    space.write(
        "stacker.yaml",
        "
config:
one: &one
  from: {type: scratch}
  imports:
  run:
  binds:
  cmd: &words [a, 1.0]
  environment: &vars {A: 1.0}
two:
  <<: *one
  entrypoint: *words
  environment: {<<: *vars, B: 0}
",
    );
    space.build(&[]);
    let (two, _) = image(&space, "two");
    assert_eq!((&two["Entrypoint"], &two["Cmd"]), (&json!(["a", "1.0"]), &json!(["a", "1.0"])));
    assert!(env(&two).is_superset(&BTreeSet::from(["A=1.0", "B=0"])));
    assert_eq!(image(&space, "one").0["Cmd"], json!(["a", "1.0"]));
}

#[test]
fn settings_of_the_image_do_not_reach_the_script() {
    let space = Space::new();
    space.stackerfile(
        "
app:
  from: {type: built, tag: base}
  environment: {SEEN: 'no'}
  working_dir: /data
  runtime_user: nobody
  volumes: [/data]
  build_env: {TOLD: 'yes'}
  run:
    - test -z \"$SEEN\"
    - test \"$TOLD\" = yes && test \"$(id -u)\" = 0 && test \"$(pwd)\" = /
child:
  from: {type: built, tag: app}
  run: test -z \"$SEEN\" && test -z \"$TOLD\"
",
    );
    space.build(&[]);
    assert_eq!(env(&image(&space, "child").0), BTreeSet::from(["SEEN=no", PATH]));
}

#[test]
fn variables_pass_through_by_whole_names_and_the_last_wins() {
    let space = Space::new();
    space.stackerfile(
        "
app:
  from: {type: built, tag: base}
  build_env_passthrough: ['PASS.*', ONE]
  build_env: {PASS_B: own}
  run: echo \"$PASS_A $PASS_B $ONE $ONES $http_proxy\" > /app
",
    );
    let build = |a: &str, proxy: &str| {
        let mut command = space.command(&["build"]);
        command.envs([("PASS_A", a), ("PASS_B", "host"), ("ONE", "1"), ("ONES", "2"), ("http_proxy", proxy)]);
        space.run_of(&["build"], command.output().unwrap()).ends_with(0)
    };
    build("a", "http://one");
    assert_eq!(space.file("app", "app").unwrap(), "a own 1  http://one\n");
    // A proxy is no input.
    build("a", "http://two").built(&[]);
    let run = build("b", "http://two");
    run.built(&["app"]);
    assert!(run.layer("app").reason.unwrap().contains("PASS_A"), "{run}");
}

#[test]
fn scripts_are_run_as_they_say() {
    let space = Space::new();
    space.stackerfile(
        "
lines: {from: {type: built, tag: base}, run: ['A=1', 'echo $A > /out']}
text: {from: {type: built, tag: base}, run: 'false; echo never'}
own: {from: {type: built, tag: base}, run: \"#!/bin/awk -f\\nBEGIN { print 6 * 7 > \\\"/out\\\" }\\n\"}
named: {from: {type: built, tag: base}, run: 'echo $STACKER_LAYER_NAME > /out'}
also-named: {from: {type: built, tag: base}, run: 'echo $STACKER_LAYER_NAME > /out'}
",
    );
    // As with -e and -x.
    let failed = space.stacker(&["build", "--keep-going"]).ends_with(1);
    failed.says("lines| + A=1").says("text| + false").says_not("text| never");
    assert_eq!(space.file("lines", "out").unwrap(), "1\n");
    assert_eq!(space.file("own", "out").unwrap(), "42\n");
    assert_eq!(space.file("named", "out").unwrap(), "named\n");
    assert_eq!(space.file("also-named", "out").unwrap(), "also-named\n");
}

#[test]
fn what_is_reserved_or_unknown_is_told_with_its_place() {
    let space = Space::new();
    for name in ["caches", "secrets", "ssh", "timeout", "refresh", "resources", "platforms"] {
        space.write("stacker.yaml", format!("app:\n  from: {{type: scratch}}\n  {name}: x\n"));
        space.stacker(&["build"]).ends_with(1).says("supported yet").says("stacker.yaml:3:3");
    }
    space.write("stacker.yaml", "app:\n  from: {type: scratch, tags: x}\n");
    space.stacker(&["build"]).ends_with(1).says("did you mean `tag`").says("stacker.yaml:2:25");
    space.write("stacker.yaml", "app:\n  from: {type: scratch}\n  label: {a: b}\n");
    space.stacker(&["build"]).ends_with(1).says("did you mean `labels`").says("stacker.yaml:3:3");
    // Deeper down it is a warning.
    space.write("f", "x");
    space.write("stacker.yaml", "app:\n  from: {type: scratch}\n  imports: [{path: f, dest: /f, user: 7}]\n");
    space.build(&[]).says("warning: unknown key `user`");
}

#[test]
fn what_the_go_tool_left_is_neither_used_nor_touched() {
    for_each_identity(|space| {
        let left = [".stacker/build.cache", ".stacker/layer-bases/oci/index.json", "roots/app/overlay/f"];
        left.iter().for_each(|name| space.write(name, "theirs"));
        space.stackerfile("app: {from: {type: built, tag: base}, run: echo app > /app}\n");
        // As scripts call it: no directory is named.
        let bare = |arguments: &[&str]| {
            let program = space.directory().join("bin/stacker");
            let mut command = space.other_program(&[&[program.to_str().unwrap()], arguments].concat());
            space.run_of(arguments, command.output().unwrap()).ends_with(0)
        };
        let first = bare(&["build"]);
        assert!(first.stderr.ends_with("filesystem app built successfully\n"), "{first}");
        assert!(space.path("roots/store.json").exists() && space.path(".stacker/stacker.db").exists());
        let second = bare(&["--quiet", "build"]);
        assert_eq!((second.stdout.as_str(), second.stderr.as_str()), ("", ""), "{second}");
        bare(&["gc", "--older-than", "0s"]);
        bare(&["clean"]);
        for name in left {
            assert_eq!(fs::read_to_string(space.path(name)).unwrap(), "theirs", "{name}");
        }
        assert!(!space.path("oci").exists() && !space.path(".stacker/stacker.db").exists());
    });
}
