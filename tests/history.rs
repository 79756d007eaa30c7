//! What is written down of builds: of those that ended well, failed, were interrupted, killed, or did nothing.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use stacker::database::{BuildId, BuildRow, BuiltLayer, BuiltStep, Database};
use stacker::place::StackerDir;
use support::space::{Space, for_each_user};

const LAYERS: &str = "
tools: {from: {type: built, tag: base}, run: echo VERSION > /tools}
app: {from: {type: built, tag: tools}, imports: ['stacker://lib/lib', data], run: SCRIPT}
lib: {from: {type: scratch}, imports: [{path: data, dest: /lib}]}
";

fn prepare(space: &Space, version: &str, script: &str) {
    space.write("data", "data");
    space.stackerfile(&LAYERS.replace("VERSION", version).replace("SCRIPT", script));
}

fn database(space: &Space) -> Database {
    Database::open(&StackerDir(space.stacker_dir())).unwrap().0
}

/// The newest build, with its layers and steps.
fn last(space: &Space) -> (BuildId, BuildRow, Vec<BuiltLayer>, Vec<BuiltStep>) {
    let database = database(space);
    let (id, build) = database.builds(1).unwrap().remove(0);
    (id, build, database.build_layers(id).unwrap(), database.build_steps(id).unwrap())
}

fn ends(layers: &[BuiltLayer]) -> Vec<(&str, &str)> {
    layers.iter().map(|layer| (layer.layer.as_str(), layer.status.as_str())).collect()
}

#[test]
fn a_build_is_written_down_with_all_that_ran() {
    for_each_user(|space| {
        prepare(space, "1", "true");
        let run = space.build(&["--jobs", "2"]);
        let (id, build, layers, steps) = last(space);
        assert_eq!((id, build.outcome, build.jobs, build.same_as), (1, Some(0), 2, None));
        assert_eq!(build.command[..2], ["stacker", "build"]);
        assert_eq!(build.directory, space.path("").canonicalize().unwrap());
        assert_eq!(build.totals, run.metadata().totals);
        assert_eq!(ends(&layers), [("base", "built"), ("tools", "built"), ("lib", "built"), ("app", "built")]);
        assert!(layers.iter().all(|layer| layer.chain.is_some() && layer.keys.len() == layer.diff_ids.len()));
        // `app` changes nothing.
        assert_eq!((layers[3].diff_ids.as_slice(), layers[3].chain), ([None].as_slice(), layers[1].chain));
        let needs: Vec<_> = layers[3].needs.iter().map(|need| (need.layer, need.step, need.places.concat())).collect();
        assert_eq!(needs, [(1, Some(0), String::new()), (2, Some(0), "/stacker/imports/lib".to_owned())]);
        let mut ran: Vec<_> = steps.iter().map(|step| (step.layer.as_str(), step.step.as_str())).collect();
        ran.sort();
        let compressed = [("base", "compress"), ("lib", "compress"), ("tools", "compress")];
        let stepped = [("app", "run"), ("base", "unpack"), ("lib", "import"), ("tools", "run")];
        let mut expected = [compressed.as_slice(), &stepped].concat();
        expected.sort();
        assert_eq!(ran, expected);
        for step in &steps {
            assert_eq!((step.outcome.as_deref(), step.reason.is_some()), (Some("built"), step.step != "compress"));
            assert!(step.slot < 2 && step.begun + step.seconds.unwrap() <= build.seconds.unwrap(), "{step:?}");
        }
        let overlap = |a: &BuiltStep, b: &BuiltStep| a.begun < b.begun + b.seconds.unwrap() && b.begun < a.begun;
        let pairs = steps.iter().flat_map(|a| steps.iter().map(move |b| (a, b)));
        pairs.filter(|(a, b)| overlap(a, b)).for_each(|(a, b)| assert_ne!(a.slot, b.slot, "{a:?} {b:?}"));
    });
}

#[test]
fn a_build_that_does_nothing_names_the_one_before_it() {
    let space = Space::new();
    let same_as = |version: &str| {
        prepare(&space, version, "true");
        space.build(&[]);
        let (_, build, layers, steps) = last(&space);
        assert_eq!(layers.is_empty() && steps.is_empty(), build.same_as.is_some());
        build.same_as
    };
    assert_eq!(["1", "1", "2", "2", "1", "2"].map(same_as), [None, Some(1), None, Some(3), Some(1), Some(3)]);
    let (_, build, ..) = last(&space);
    assert_eq!((build.outcome, build.totals.hits, build.totals.layers), (Some(0), 4, 4));
    // Hits all, but not the same layers.
    space.build(&["lib"]);
    let (id, build, layers, _) = last(&space);
    assert_eq!((id, build.same_as, ends(&layers)), (7, None, vec![("lib", "hit")]));
    // A compression is work, and the layers are the same.
    space.build(&["lib", "--compression", "zstd"]);
    let (_, build, _, steps) = last(&space);
    assert_eq!((build.same_as, steps.len(), steps[0].layer.as_str()), (None, 1, "lib"));
    space.build(&["lib"]);
    assert_eq!(last(&space).1.same_as, Some(8));
}

#[test]
fn a_build_that_fails_is_written_down() {
    for_each_user(|space| {
        prepare(space, "1", "exit 7");
        space.stacker(&["build"]).ends_with(1);
        let (_, build, layers, steps) = last(space);
        assert_eq!((build.outcome, build.totals.failed, build.digest), (Some(1), 1, None));
        let app = layers.last().unwrap();
        assert_eq!((app.status.as_str(), app.chain, app.keys.len()), ("failed", None, 0));
        let failed = steps.iter().find(|step| step.layer == "app").unwrap();
        assert_eq!((failed.outcome.as_deref(), failed.seconds.is_some()), (Some("failed"), true));
        // It is not what a build is the same as that does nothing.
        space.build(&["tools"]);
        assert_eq!(last(space).1.same_as, None);
    });
}

/// Starts a build of something that sleeps, and gives it a signal when it does.
fn stopped(space: &Space, signal: Signal) -> (BuildRow, Vec<BuiltLayer>, BuiltStep) {
    prepare(space, "1", "echo begun; sleep 1000");
    let mut child = space.command(&["build"]).spawn().unwrap();
    let begun = Instant::now();
    let running = loop {
        let open = StackerDir(space.stacker_dir()).database().exists().then(|| database(space));
        let steps = open.map_or(vec![], |database| database.build_steps(1).unwrap());
        if let Some(step) = steps.into_iter().find(|step| step.layer == "app") {
            break step;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not start");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!((running.seconds, running.outcome), (None, None));
    assert_eq!(last(space).1.outcome, None);
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap();
    let (_, build, layers, steps) = last(space);
    (build, layers, steps.into_iter().find(|step| step.layer == "app").unwrap())
}

#[test]
fn a_build_that_is_interrupted_ends_and_one_that_is_killed_does_not() {
    let space = Space::new();
    let (build, layers, app) = stopped(&space, Signal::INT);
    assert_eq!((build.outcome, build.seconds.is_some()), (Some(130), true));
    assert_eq!(ends(&layers)[3], ("app", "skipped"));
    assert_eq!((app.outcome.as_deref(), app.seconds), (Some("interrupted"), None));
    let space = Space::new();
    let (build, layers, app) = stopped(&space, Signal::KILL);
    assert_eq!((build.outcome, build.seconds, layers.len()), (None, None, 0));
    assert_eq!((app.outcome, app.seconds), (None, None));
}

#[test]
fn the_commit_and_the_command_are_written_down() {
    let space = Space::new();
    prepare(&space, "1", "true");
    space.build(&["lib"]);
    assert_eq!(last(&space).1.commit, None);
    let script =
        "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git rev-parse HEAD";
    let output = Command::new("sh").args(["-ec", script]).current_dir(space.path("")).output().unwrap();
    let commit = String::from_utf8(output.stdout).unwrap();
    // As in a hook of another repository.
    let run = space.command(&["build", "lib", "--substitute", "URL=https://me:secret@example.com/"]);
    let mut run = run;
    assert!(run.env("GIT_DIR", "/nowhere").status().unwrap().success());
    let (_, build, ..) = last(&space);
    assert_eq!(build.commit.as_deref(), Some(commit.trim()));
    assert_eq!(build.same_as, Some(1));
    let words = build.command.join(" ");
    assert!(words.contains("lib") && words.contains("@example.com") && !words.contains("secret"), "{words}");
}
