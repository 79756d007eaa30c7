//! `stacker plan`: what is told of layers that would be built, how long it takes, and what changed since a commit.

mod support;

use std::fs;

use serde_json::Value;
use stacker::plan::{Cause, Plan, PlannedLayer, Status};
use support::schema::assert_fits;
use support::server::{Reply, Server};
use support::space::{Run, Space, for_each_user};

/// A library, two programs with it, and an image that is only configuration.
const LAYERS: &str = r#"
lib:
  from: {type: built, tag: base}
  imports: [src]
  build_only: true
  run: |
    cat /stacker/imports/src/used > /lib
app:
  from: {type: built, tag: base}
  imports: ['stacker://lib/lib']
  run: cat /stacker/imports/lib > /app
other:
  from: {type: built, tag: base}
  imports: [{path: other, dest: /other}]
  run: echo other > /made
conf:
  from: {type: built, tag: app}
  labels: {of: conf}
"#;

fn write(space: &Space) {
    space.write("src/used", "used\n");
    space.write("src/unused", "unused\n");
    space.write("other/file", "file\n");
    space.stackerfile(LAYERS);
}

#[track_caller]
fn plan(space: &Space, arguments: &[&str]) -> Plan {
    let run = space.stacker(&[&["plan", "--json"], arguments].concat()).ends_with(0);
    parsed(&run)
}

#[track_caller]
fn parsed(run: &Run) -> Plan {
    let value: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    assert_fits("plan", &value);
    serde_json::from_value(value).unwrap()
}

#[track_caller]
fn layer<'p>(plan: &'p Plan, name: &str) -> &'p PlannedLayer {
    plan.layers.iter().find(|layer| layer.name == name).unwrap_or_else(|| panic!("no {name} in {plan:#?}"))
}

/// `name status`, for all that are no hits.
fn told(plan: &Plan) -> Vec<String> {
    let others = plan.layers.iter().filter(|layer| layer.status != Status::Hit);
    others.map(|layer| format!("{} {:?}", layer.name, layer.status)).collect()
}

fn matrix(plan: &Plan) -> Vec<&str> {
    plan.matrix.include.iter().map(|entry| entry.layer.as_str()).collect()
}

#[test]
fn what_follows_from_a_change_is_told_before_it_is_built() {
    for_each_user(|space| {
        write(space);
        let first = plan(space, &[]);
        assert_eq!(told(&first), ["base Build", "lib Build", "app Build", "other Build"]);
        assert_eq!(layer(&first, "lib").reason.as_deref(), Some("never built"));
        assert_eq!((first.least.steps, first.least.steps_without_time), (5, 5));
        assert!(!space.has_roots() && !space.path("oci").exists(), "something was built");
        space.build(&[]);
        assert_eq!(told(&plan(space, &[])), Vec::<String>::new());

        space.write("src/used", "used differently\n");
        let second = plan(space, &["--jobs", "2"]);
        assert_eq!(told(&second), ["lib Build", "app If"]);
        assert_eq!(layer(&second, "lib").reason.as_deref(), Some("src/used changed"));
        assert_eq!(layer(&second, "app").on, ["lib"]);
        assert_eq!(second.most.critical_path, ["lib", "app"]);
        assert!(second.least.elapsed > 0.0 && second.most.elapsed > second.least.elapsed, "{second:#?}");
        assert!((second.most.critical_seconds - second.most.work).abs() < 1e-9, "{second:#?}");
        assert_eq!(matrix(&second), ["app"], "lib is built with it");
        // The script of `app` was never run with another text: it runs whatever becomes of `lib`.
        space.edit("stacker.yaml", "lib > /app", "lib > /app2");
        let third = plan(space, &[]);
        assert_eq!(told(&third), ["lib Build", "app Build"]);
        let app = layer(&third, "app");
        assert_eq!(
            (app.reason.as_deref(), app.steps[0].after[..].to_vec()),
            (Some("script changed: line 1"), vec!["lib".into()])
        );
        assert_eq!((app.steps[0].key, layer(&third, "lib").steps[0].key.is_some()), (None, true));
        // And of one that was, it depends.
        space.edit("stacker.yaml", "lib > /app2", "lib > /app");
        space.build(&[]).built(&["lib", "app"]);
        space.write("src/used", "used\n");
        assert_eq!(told(&plan(space, &[])), Vec::<String>::new(), "there and back");
    });
}

#[test]
fn the_table_fits_a_terminal_and_names_the_reason() {
    for_each_user(|space| {
        write(space);
        space.build(&[]);
        space.write("src/used", "used differently\n");
        let run = space.stacker(&["plan", "--jobs", "1"]).ends_with(0);
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert!(lines[0].starts_with("LAYER  STATUS  SECONDS  WHY"), "{run}");
        assert!(lines[1].starts_with("lib    BUILD ") && lines[1].ends_with("  src/used changed"), "{run}");
        assert!(lines[2].starts_with("app    IF ") && lines[2].ends_with("  if lib comes out different"), "{run}");
        assert_eq!(lines[4], "1 to build, 1 perhaps, 3 hits", "{run}");
        assert!(lines[5].starts_with("about ") && lines[5].contains(" with 1 job ("), "{run}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{run}");
        assert!(run.stderr.is_empty(), "{run}");
        let hits = space.stacker(&["plan", "--hits", "other"]).ends_with(0);
        assert!(hits.stdout.contains("other  HIT\n") && hits.stdout.contains("base   HIT\n"), "{hits}");
        assert!(!hits.stdout.contains("lib"), "{hits}");
    });
}

#[test]
fn compressing_takes_time_too() {
    for_each_user(|space| {
        let script = "head -c 20000000 /dev/urandom > /noise";
        space.stackerfile(&format!(
            "image: {{from: {{type: built, tag: base}}, run: '{script}'}}\n\
             inner: {{from: {{type: built, tag: base}}, run: '{script}; true', build_only: true}}\n"
        ));
        space.build(&[]);
        let forced = plan(space, &["--rebuild", "image", "--rebuild", "inner", "--jobs", "1"]);
        let (image, inner) = (layer(&forced, "image"), layer(&forced, "inner"));
        let compression = image.compression.expect("it was compressed");
        assert!(compression > 0.02 && inner.compression.is_none(), "{forced:#?}");
        let work = compression + image.seconds.unwrap() + inner.seconds.unwrap();
        assert!((forced.least.work - work).abs() < 1e-6 && forced.least.steps == 2, "{forced:#?}");
        assert!((forced.least.elapsed - work).abs() < 1e-6, "{forced:#?}");
        assert_eq!(layer(&plan(space, &[]), "image").compression, None);
    });
}

#[test]
fn forced_and_lost_things_are_built() {
    for_each_user(|space| {
        write(space);
        space.build(&[]);
        let forced = plan(space, &["--rebuild", "lib"]);
        assert_eq!(told(&forced), ["lib Build", "app If"]);
        assert_eq!(layer(&forced, "lib").reason.as_deref(), Some("forced"));
        assert_eq!(told(&plan(space, &["--no-cache"])).len(), 4);
        let unknown = space.stacker(&["plan", "--rebuild", "lob"]).ends_with(2);
        unknown.says("did you mean `lib`?");

        // With its changes and its blob, nothing is left of `base`; and `lib` is wanted by nobody.
        space.forget_roots();
        for entry in fs::read_dir(space.stacker_dir().join("blobs/sha256")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let lost = plan(space, &[]);
        let base = layer(&lost, "base");
        assert_eq!((base.status, base.reason.as_deref()), (Status::Build, Some("its data is missing")));
        let built = space.build(&[]);
        assert!(
            lost.layers.iter().all(|it| it.status != Status::Hit || built.layer(&it.name).reason.is_none()),
            "{lost:#?}"
        );
    });
}

#[test]
fn what_fails_is_told() {
    for_each_user(|space| {
        write(space);
        space.build(&[]);
        space.edit("stacker.yaml", "stacker://lib/lib", "stacker://lib/lob");
        let run = space.stacker(&["plan", "--json"]).ends_with(1);
        let failing = parsed(&run);
        assert_eq!(told(&failing), ["app Fail", "conf Fail"]);
        assert!(layer(&failing, "app").reason.as_ref().is_some_and(|why| why.contains("no such file")), "{failing:#?}");
        assert_eq!(layer(&failing, "conf").reason.as_deref(), Some("it needs app"));
        space.write("stacker.yaml", "broken: {from: {type: built, tag: nothing}}");
        space.stacker(&["plan"]).ends_with(1).says("unknown base layer `nothing`");
    });
}

#[test]
fn servers_are_not_asked() {
    for_each_user(|space| {
        let server = Server::start(|_| Reply::new(200, "served\n"));
        let url = format!("http://{}/file", server.address());
        space.stackerfile(&format!(
            "got:\n  from: {{type: built, tag: base}}\n  imports: ['{url}']\n  run: cat /stacker/imports/file > /got\n\
             upon:\n  from: {{type: built, tag: got}}\n  run: echo upon > /upon\n\
             image:\n  from: {{type: docker, url: 'docker://{}/none:1'}}\n  run: 'true'\n",
            server.address()
        ));
        let first = plan(space, &[]);
        assert_eq!(told(&first), ["base Build", "got Unknown", "upon Unknown", "image Unknown"]);
        let why = |name: &str| layer(&first, name).reason.clone().unwrap_or_default();
        assert!(why("got").contains("is not kept here") && why("image").contains("was never asked for"), "{first:#?}");
        assert_eq!(why("upon"), "it needs got");
        assert_eq!(matrix(&first), ["base", "got", "upon", "image"]);
        assert_eq!(server.requests().len(), 0, "a server was asked");
        space.build(&["-f", "stacker.yaml", "upon"]);
        let asked = server.requests().len();
        assert_eq!(told(&plan(space, &["upon"])), Vec::<String>::new());
        assert_eq!(server.requests().len(), asked, "a server was asked");
    });
}

fn git(space: &Space, words: &[&str]) -> String {
    let who = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
    let output = space.other_program(&[&["git"], &who[..], words].concat()).output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository of two stackerfiles, committed.
fn repository(space: &Space) {
    write(space);
    space.write(".gitignore", "*.o\noci\nmetadata.json\n");
    space.write("src/.stackerignore", "*.o\nunused\n");
    space.write("sub/stacker.yaml", "gone:\n  from: {type: scratch}\n  imports: [{path: f, dest: /f}]\n");
    space.write("sub/f", "f");
    git(space, &["init", "-q"]);
    git(space, &["add", "."]);
    git(space, &["commit", "-q", "-m", "first"]);
}

/// `name cause what` of each layer that is affected.
fn affected(plan: &Plan) -> Vec<String> {
    let of = |layer: &PlannedLayer| {
        let affected = layer.affected.clone()?;
        let what = affected.what.map_or_else(String::new, |what| format!(" {what}"));
        Some(format!("{} {:?}{what}", layer.name, affected.cause))
    };
    plan.layers.iter().filter_map(of).collect()
}

#[test]
fn since_a_commit() {
    for_each_user(|space| {
        repository(space);
        let since = |expected: &[&str]| {
            let plan = plan(space, &["--all", "--since", "HEAD"]);
            assert_eq!(affected(&plan), expected);
            plan
        };
        let nothing = since(&[]);
        assert_eq!((nothing.layers.len(), matrix(&nothing).len()), (0, 0));
        let commit = git(space, &["rev-parse", "HEAD"]);
        assert_eq!(nothing.since.as_ref().map(|since| &since.commit), Some(&commit));
        // What no layer takes in, what it leaves out, and what only looks different.
        space.write("elsewhere", "");
        space.write("src/unused", "unused, and different\n");
        space.write("src/x.o", "");
        space.edit("stacker.yaml", "labels: {of: conf}", "labels:\n    of: 'conf' # the same");
        since(&[]);
        // A file, and all that follows.
        space.write("src/used", "different\n");
        let plan = since(&["lib File src/used", "app Needs lib", "conf Needs app"]);
        assert_eq!(plan.layers.iter().map(|layer| &*layer.name).collect::<Vec<_>>(), ["base", "lib", "app", "conf"]);
        assert_eq!(matrix(&plan), ["app", "conf"]);
        assert_eq!(plan.matrix.include[0].stackerfile, "stacker.yaml");
        git(space, &["checkout", "-q", "src"]);
        // Ignored by git, and taken in.
        space.write("other/made.o", "");
        since(&["other File other/made.o"]);
        fs::remove_file(space.path("other/made.o")).unwrap();
        // Gone.
        fs::remove_file(space.path("other/file")).unwrap();
        since(&["other File other/file"]);
        git(space, &["checkout", "-q", "other"]);
        // Only the image's configuration.
        space.edit("stacker.yaml", "of: 'conf'", "of: 'configuration'");
        let plan = since(&["conf Definition"]);
        assert_eq!(matrix(&plan), ["conf"]);
    });
}

#[test]
fn substitutes_are_those_of_the_commit() {
    for_each_user(|space| {
        space.write("values.yaml", "ONE: 1\nTWO: 2\n");
        space.stackerfile(
            "one: {from: {type: built, tag: base}, run: 'echo ${{ONE}}'}\n\
             two: {from: {type: built, tag: base}, run: 'echo ${{TWO}}'}\n",
        );
        git(space, &["init", "-q"]);
        git(space, &["add", "stacker.yaml", "base.tar"]);
        git(space, &["commit", "-q", "-m", "first"]);
        let since = || {
            let arguments = ["plan", "--json", "--since", "HEAD", "--substitute-file", "values.yaml"];
            let run = space.stacker(&arguments).ends_with(0);
            (affected(&parsed(&run)), run)
        };
        let (layers, run) = since();
        assert_eq!(layers, Vec::<String>::new());
        run.says("its values are taken for those of now");
        git(space, &["add", "values.yaml"]);
        git(space, &["commit", "-q", "-m", "values"]);
        space.write("values.yaml", "ONE: 1 # the same\nTWO: 3\n");
        let (layers, run) = since();
        assert_eq!(layers, ["two Definition"]);
        run.says_not("taken for");
        git(space, &["commit", "-q", "-a", "-m", "more"]);
        assert_eq!(since().0, Vec::<String>::new());
        // What it was cannot be read.
        space.write("values.yaml", "ONE: [");
        git(space, &["commit", "-q", "-a", "-m", "broken"]);
        space.write("values.yaml", "ONE: 1\nTWO: 3\n");
        let (layers, run) = since();
        assert_eq!(layers.len(), 3, "{run}");
        run.says("so every layer counts as changed");
    });
}

#[test]
fn stackerfiles_that_come_and_go_since_a_commit() {
    for_each_user(|space| {
        repository(space);
        // By a way that goes when its stackerfile does.
        let also =
            "config: {prerequisites: [../stacker.yaml]}\nalso:\n  from: {type: built, tag: lib}\n  run: 'true'\n";
        space.write(
            "sub/stacker.yaml",
            format!("{also}{}", fs::read_to_string(space.path("sub/stacker.yaml")).unwrap()),
        );
        git(space, &["commit", "-q", "-a", "-m", "also"]);
        fs::remove_dir_all(space.path("sub")).unwrap();
        space.write("new/stacker.yaml", "new:\n  from: {type: built, tag: base}\n  run: 'true'\n");
        space.edit("new/stacker.yaml", "new:", "config: {prerequisites: [../stacker.yaml]}\nnew:");
        let plan = plan(space, &["--all", "--since", "HEAD"]);
        assert_eq!(affected(&plan), ["new New"]);
        let deleted = &plan.since.as_ref().unwrap().deleted;
        let names: Vec<&str> = deleted.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!((names, &*deleted[0].stackerfile), (vec!["also", "gone"], "sub/stacker.yaml"));
        let table = space.stacker(&["plan", "--all", "--since", "HEAD"]).ends_with(0);
        assert!(
            table.stdout.contains("1 layer is affected by changes since HEAD; no longer there: also, gone"),
            "{table}"
        );

        // A commit whose stackerfiles are broken says nothing of them.
        git(space, &["commit", "-q", "-a", "-m", "second"]);
        let text = fs::read_to_string(space.path("stacker.yaml")).unwrap();
        space.write("stacker.yaml", "base: {");
        git(space, &["commit", "-q", "-a", "-m", "broken"]);
        space.write("stacker.yaml", text);
        let run = space.stacker(&["plan", "--all", "--json", "--since", "HEAD"]).ends_with(0);
        run.says("the stackerfiles of HEAD cannot be read, so every layer counts as changed");
        let plan = parsed(&run);
        assert!(
            plan.layers.iter().all(|it| it.affected.as_ref().is_some_and(|it| it.cause == Cause::Unreadable)),
            "{run}"
        );
    });
}

#[test]
fn since_what_git_does_not_know() {
    for_each_user(|space| {
        write(space);
        space.stacker(&["plan", "--since", "HEAD"]).ends_with(2).says("is in no git repository");
        git(space, &["init", "-q"]);
        space.stacker(&["plan", "--since", "nowhere"]).ends_with(2).says("git knows no such commit");
        space.stacker(&["plan", "--since", "--output=x"]).ends_with(2);
    });
}
