//! `stacker verify`: layers are built once more, and what comes out otherwise is shown.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::schema::assert_fits;
use support::skipped;
use support::space::{Space, for_each_store, for_each_user};

/// Layers that come out the same, one upon the other, with all kinds of steps.
const GOOD: &str = "
lib: {from: {type: built, tag: base}, imports: [{path: data, dest: /lib}], run: 'cat /lib/file > /made; chown 1:2 /made'}
app:
  from: {type: built, tag: lib}
  imports: [data, {path: 'stacker://lib/made', dest: /copied, mode: 0600}]
  run: 'cp /stacker/imports/data/file /app; rm /data/doomed; mkdir /var; echo $SOURCE_DATE_EPOCH > /var/time'
  generate_labels: 'cat /app > /stacker/oci-labels/app'
top: {from: {type: built, tag: app}, run: 'cat /app > /top'}
";

/// A script that knows whether it was run before: its bind is no input, so each run may find another one.
fn twice(first: &str, second: &str) -> String {
    let script = format!("if [ -e /seen/ran ]; then {second}; else echo > /seen/ran; {first}; fi");
    format!("{{from: {{type: built, tag: base}}, binds: [{{source: seen, dest: /seen, key: none}}], run: '{script}'}}")
}

fn layers(space: &Space, layers: &str) {
    space.write("data/file", "content");
    space.write("seen/.keep", "");
    space.stackerfile(layers);
}

/// What lies in the store, but for the contents of the database.
fn everything(space: &Space) -> Vec<String> {
    let mut names = Vec::new();
    for directory in ["records", "fresh", "listings", "blobs/sha256", "logs", "claims", "pins", "damaged", "tmp"] {
        let path = space.stacker_dir().join(directory);
        names.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
    }
    for directory in ["drafts", "trash", "deltas"] {
        // An ordinary user's is its own.
        names.extend(fs::read_dir(space.roots_dir().join(directory)).unwrap().map(|entry| entry.unwrap().path()));
    }
    let mut names: Vec<String> = names.iter().map(|path| path.display().to_string()).collect();
    names.push(space.stacker(&["cache", "ls", "--json"]).ends_with(0).stdout);
    names.sort();
    names
}

#[test]
fn what_comes_out_the_same_is_reproducible_and_nothing_stays() {
    for_each_store(|space| {
        layers(space, GOOD);
        let built = space.build(&[]);
        let before = everything(space);
        let run = space.stacker(&["verify"]).ends_with(0);
        assert!(run.stdout.ends_with("4 of 4 layers reproducible\n"), "{run}");
        for step in ["base: unpack", "lib: import", "lib: run", "app: import", "app: run", "app: labels", "top: run"] {
            run.says(&format!("{step} (once more, to compare)"));
        }
        assert_eq!(everything(space), before);
        // One in the middle: what is beneath and above is left alone.
        let run = space.stacker(&["verify", "app"]).ends_with(0);
        run.says("app: run").says_not("lib: ").says_not("top: ");
        assert_eq!(run.stdout, "app: reproducible\n1 of 1 layers reproducible\n");
        assert_eq!(everything(space), before);
        let again = space.build(&[]);
        again.built(&[]);
        assert_eq!(again.digests(), built.digests());
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
    });
}

#[test]
fn what_differs_is_shown_file_by_file() {
    let first = "echo one > /text; printf \"\\\\001\\\\002\" > /bytes; echo a > /mode; echo b > /gone; ln -s x /link; echo 1 > /time; touch -d @1000000 /time; mkdir /dir; echo x > /dir/same";
    let second = "echo two > /text; printf \"\\\\001\\\\003\" > /bytes; echo a > /mode; chmod 600 /mode; chown 3:4 /mode; echo b > /new; ln -s y /link; echo 1 > /time; touch -d @2000000 /time; mkdir /dir; echo x > /dir/same";
    for_each_store(|space| {
        layers(
            space,
            &format!(
                "odd: {}\ngood: {{from: {{type: built, tag: odd}}, run: 'cat /text > /good'}}\n",
                twice(first, second)
            ),
        );
        space.build(&[]);
        let before = everything(space);
        let run = space.stacker(&["verify", "odd", "good"]).ends_with(1);
        let expected = [
            "odd: NOT reproducible",
            "  run: 7 entries differ:",
            "    /bytes: content\n",
            "      byte 1:\n        - 0102\n        + 0103\n",
            "    /gone: only the first time\n",
            "    /link: target\n",
            "link to x",
            "    /mode: mode, owner\n      first file, mode 644, owner 0:0, time 946684802, 2 bytes\n",
            "      then  file, mode 600, owner 3:4, time 946684802, 2 bytes\n",
            "    /new: only the second time\n",
            "    /text: content\n",
            "      line 1:\n        - one\n        + two\n",
            "    /time: time\n",
            // Built on what the other came out as the first time.
            "good: reproducible",
            "1 of 2 layers reproducible",
        ];
        for text in expected {
            assert!(run.stdout.contains(text), "not said: {text:?} by {run}");
        }
        assert!(!run.stdout.contains("same"), "{run}");
        assert_eq!(everything(space), before);
        let json = space.stacker(&["verify", "odd", "--json", "--quiet"]).ends_with(1);
        let report: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_fits("reproduce", &report);
        let step = &report["layers"][0]["steps"][0];
        assert_eq!((step["differing"].as_u64(), &step["verdict"]), (Some(7), &Value::from("different")));
        assert_eq!(step["files"][3]["second"]["mode"], "600");
    });
}

#[test]
fn clocks_random_numbers_and_archives_are_known() {
    let script = "
  run: |
    date > /date; echo $RANDOM$RANDOM > /random; mkdir -p /var/log; date > /var/log/dpkg.log
    t=$(date +%s); octal() { printf \"\\\\$(printf %o $1)\"; }
    { printf '\\037\\213\\010\\000'; octal $((t & 255)); octal $((t >> 8 & 255)); printf 'xx\\000\\003rest'; } > /a.gz
    head -c 16 /dev/urandom > /etc/machine-id
  generate_labels: date > /stacker/oci-labels/built
";
    for_each_user(|space| {
        layers(space, &format!("odd:\n  from: {{type: built, tag: base}}{script}"));
        space.build(&[]);
        // Until date says something else.
        std::thread::sleep(Duration::from_millis(1100));
        let run = space.stacker(&["verify", "odd"]).ends_with(1);
        let cures = [
            ("/a.gz: content\n", "cure: gzip writes the time"),
            ("/date: content\n", "cure: it holds the time of the build"),
            ("/etc/machine-id: content\n", "cure: a random id"),
            ("/var/log/dpkg.log: content\n", "cure: logs of package managers"),
        ];
        for (file, cure) in cures {
            let rest = run.stdout.split(file).nth(1).unwrap_or_else(|| panic!("no {file} in {run}"));
            let own = rest.split("\n    /").next().unwrap();
            assert!(own.contains(cure), "{file} without {cure}: {run}");
        }
        assert!(run.stdout.contains("    /random: content"), "{run}");
        assert!(run.stdout.contains("  labels: 1 label differs:\n    built: first \""), "{run}");
    });
}

#[test]
fn compiled_python_is_known() {
    if !Path::new("/usr/bin/python3").exists() {
        return skipped("python's compiled files: there is no python3");
    }
    let script = "mkdir /src; echo x=1 > /src/m.py; cd /src; /usr/bin/python3 -c \"import m\"";
    for_each_user(|space| {
        space.write(
            "base.tar",
            support::archive::Archive::new()
                .symlink("lib", "usr/lib")
                .symlink("lib64", "usr/lib64")
                .symlink("bin", "usr/bin")
                .end(),
        );
        layers(
            space,
            &format!(
                "py: {{from: {{type: built, tag: base}}, binds: [{{source: /usr, dest: /usr, key: none}}], run: '{script}'}}\n"
            ),
        );
        space.build(&[]);
        std::thread::sleep(Duration::from_millis(1100));
        let run = space.stacker(&["verify", "py"]).ends_with(1);
        assert!(run.stdout.contains("/src/__pycache__/m.") && run.stdout.contains("PYTHONDONTWRITEBYTECODE"), "{run}");
    });
}

#[test]
fn what_fails_or_is_not_built_is_said() {
    for_each_user(|space| {
        layers(space, &format!("odd: {}\n{GOOD}", twice("true", "echo why; exit 3")));
        space.stacker(&["verify", "odd"]).ends_with(2).says("there is no cache at");
        space.build(&["odd", "lib"]);
        let run = space.stacker(&["verify", "odd", "lib"]).ends_with(1);
        assert!(run.stdout.contains("odd: FAILED the second time\n  run: the script failed with exit code 3"), "{run}");
        assert!(run.stdout.contains("lib: reproducible\n1 of 2"), "{run}");
        // There is nothing to look into.
        assert!(!run.stdout.contains("--failed"), "{run}");
        let run = space.stacker(&["verify", "top"]).ends_with(1);
        run.says("not built as it is now, so there is nothing to compare: top");
        space.stacker(&["verify", "nobody"]).ends_with(2);
        let nothing = everything(space);
        assert!(!nothing.iter().any(|name| name.contains("again-")), "{nothing:?}");
    });
}

/// Verifies a layer whose script does not end the second time, until that is running.
fn hanging(space: &Space) -> Child {
    layers(space, &format!("odd: {}\n", twice("true", "echo begun; sleep 1000")));
    space.build(&["odd"]);
    let mut child = space.command(&["verify", "odd"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("odd| begun")));
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn an_interrupted_comparison_leaves_nothing() {
    for_each_store(|space| {
        let mut child = hanging(space);
        kill_process(Pid::from_raw(stacker_of(&child)).unwrap(), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let left = everything(space);
        assert!(!left.iter().any(|name| name.contains("again-") || name.contains("/trash/")), "{left:?}");
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
    });
}

#[test]
fn what_a_killed_comparison_leaves_is_garbage() {
    for_each_store(|space| {
        let mut child = hanging(space);
        kill_process(Pid::from_raw(stacker_of(&child)).unwrap(), Signal::KILL).unwrap();
        let status = child.wait().unwrap();
        assert!(status.signal() == Some(9) || status.code() == Some(137), "{status}");
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
        space.stacker(&["gc"]).ends_with(0);
        let left = everything(space);
        assert!(!left.iter().any(|name| name.contains("again-") || name.contains("/trash/")), "{left:?}");
        space.build(&["odd"]).built(&[]);
    });
}

/// setpriv, before it, becomes the program.
fn stacker_of(child: &Child) -> i32 {
    child.id() as i32
}
