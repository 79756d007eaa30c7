//! Annotations that say where an image comes from.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;

use stacker::action::Platform;
use stacker::oci::Layout;
use support::identity::Identity;
use support::skipped;
use support::space::{Run, Space, for_each_identity};

const YAML: &str = "io.stackeroci.stacker.stacker_yaml";
const VERSION: &str = "io.stackeroci.stacker.stacker_version";
const GIT: &str = "io.stackeroci.stacker.git_version";

const APP: &str = "app:
  from: {type: built, tag: base}
  run: echo app > /app # ${{WHO}}
  labels: {where: '${{STACKER_WORK_DIR}}', at: '${{STACKER_OCI_DIR:none}}'}
  annotations: {note: ours}
";

/// Of an image in the layout.
#[track_caller]
fn annotations(space: &Space, tag: &str) -> BTreeMap<String, String> {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let platform = Platform { os: "linux".into(), arch: arch.into() };
    Layout::open(space.path("oci")).unwrap().find(Some(tag), &platform).unwrap().annotations
}

#[track_caller]
fn names(space: &Space, tag: &str) -> Vec<String> {
    annotations(space, tag).into_keys().collect()
}

#[track_caller]
fn git(space: &Space, directory: &str, words: &[&str]) -> String {
    let who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"];
    let at = space.path(directory);
    let command = [&["git", "-C", at.to_str().unwrap()], &who[..], words].concat();
    let output = space.other_program(&command).output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with one commit of all stackerfiles in it.
fn repository(space: &Space, directory: &str) {
    git(space, directory, &["init", "-q"]);
    git(space, directory, &["add", "*stacker.yaml"]);
    git(space, directory, &["commit", "-q", "-m", "first"]);
}

/// `stacker build` with variables.
fn build_with(space: &Space, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command = space.command(&[&["build", "--substitute", "WHO=you"], arguments].concat());
    command.envs(variables.iter().copied());
    space.run_of(arguments, command.output().unwrap())
}

#[test]
fn on_request_manifests_tell_the_stackerfile_and_the_commit() {
    for_each_identity(|space| {
        space.stackerfile(APP);
        repository(space, ".");
        let build = |arguments: &[&str]| build_with(space, &[], arguments).ends_with(0);
        let plain = build(&[]);
        assert_eq!(names(space, "app"), ["note"]);
        assert!(names(space, "base").is_empty());

        let told = build(&["--provenance"]);
        told.built(&[]).says_not("warning");
        let app = annotations(space, "app");
        let text = format!("base:\n  from: {{type: tar, url: base.tar}}\n{APP}").replace("${{WHO}}", "you");
        assert_eq!(app[YAML], text.replace("${{STACKER_OCI_DIR:none}}", "${{STACKER_OCI_DIR}}"));
        assert!(!app[YAML].contains(space.directory().to_str().unwrap()));
        assert_eq!(app[VERSION], env!("CARGO_PKG_VERSION"));
        assert_eq!(app[GIT], git(space, ".", &["rev-parse", "--short", "HEAD"]));
        assert_eq!(app["note"], "ours");
        assert_eq!(names(space, "base"), [GIT, VERSION, YAML]);
        assert_ne!(told.image("app"), plain.image("app"));

        // What git says changes with the repository, and runs nothing.
        git(space, ".", &["tag", "v1.2"]);
        build(&["--provenance"]).built(&[]);
        assert_eq!(annotations(space, "app")[GIT], "v1.2");
        space.edit("stacker.yaml", "note: ours", "note: ours, io.stackeroci.stacker.git_version: mine");
        build(&["--provenance"]).built(&[]);
        assert_eq!((&*annotations(space, "app")[GIT], &*annotations(space, "base")[GIT]), ("mine", "v1.2-dirty"));

        // Without it the images are what they were.
        git(space, ".", &["checkout", "-q", "."]);
        let again = build(&[]);
        assert_eq!(["base", "app"].map(|tag| again.image(tag)), ["base", "app"].map(|tag| plain.image(tag)));
    });
}

#[test]
fn the_namespace_and_the_configuration_file() {
    let space = Space::new();
    space.stackerfile(APP);
    space.write("conf.yaml", "provenance: true\n");
    let build = |arguments: &[&str]| build_with(&space, &[], arguments).ends_with(0);
    build(&["--annotations-namespace", "com.example"]);
    assert_eq!(names(&space, "app"), ["note"]);
    build(&["--config", "conf.yaml", "--annotations-namespace", "com.example"]);
    let example = ["com.example.stacker.stacker_version", "com.example.stacker.stacker_yaml"];
    assert_eq!(names(&space, "base"), example);
    build(&["--config", "conf.yaml", "--provenance=false"]);
    assert_eq!(names(&space, "app"), ["note"]);
    for wrong in ["", "com.example.", "a b"] {
        let refused = build_with(&space, &[], &["--annotations-namespace", wrong]).ends_with(2);
        refused.says("wanted something like com.example");
    }
    space.write("conf.yaml", "provenance: perhaps\n");
    build_with(&space, &[], &["--config", "conf.yaml"]).ends_with(2).says("conf.yaml").says("line 1");
    space.stacker(&["recursive-build", "--provenance", "--substitute", "WHO=you"]).ends_with(0);
    assert_eq!(names(&space, "base"), [VERSION, YAML]);
}

#[test]
fn secrets_in_urls_are_not_told() {
    let space = Space::new();
    space.stackerfile("app: {from: {type: built, tag: base}, labels: {at: 'https://me:secret@example.com/x'}}\n");
    space.build(&["--provenance"]);
    let text = &annotations(&space, "app")[YAML];
    assert!(text.contains("https://*********@example.com/x") && !text.contains("secret"), "{text}");
}

/// What a base says of itself is untrue for what stands on it.
#[test]
fn images_do_not_inherit_where_their_base_comes_from() {
    for_each_identity(|space| {
        space.stackerfile(APP);
        repository(space, ".");
        let bases = |arguments: &[&str]| build_with(space, &[], &[&["--provenance"], arguments].concat()).ends_with(0);
        bases(&[]);
        bases(&["--oci-dir", "other", "--annotations-namespace", "com.example"]);
        for layout in ["oci", "other"] {
            let url = space.path(format!("{layout}:app"));
            let layers = "  labels: {a: b}\nfiles:\n  from: {type: built, tag: top}\n  build_only: true\n";
            let last = "last:\n  from: {type: built, tag: files}\n";
            space.write("top.yaml", format!("top:\n  from: {{type: oci, url: '{}'}}\n{layers}{last}", url.display()));
            space.build(&["-f", "top.yaml"]);
            for tag in ["top", "last"] {
                assert_eq!(annotations(space, tag), BTreeMap::from([("note".into(), "ours".into())]), "{tag}");
            }
        }
        // Theirs, not their base's; the file is not committed, the repository is clean all the same.
        space.build(&["-f", "top.yaml", "--provenance"]);
        let top = annotations(space, "top");
        assert_eq!(top.keys().collect::<Vec<_>>(), [GIT, VERSION, YAML, "note"]);
        assert_eq!(top[YAML], fs::read_to_string(space.path("top.yaml")).unwrap());
    });
}

/// Where a program lies.
fn found(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.exists())
}

/// A `PATH` on which there is what becoming another user takes, and no git.
fn without_git(space: &Space) -> String {
    space.write("no-git/note", "");
    for (name, path) in ["setpriv", "newuidmap", "newgidmap"].iter().filter_map(|name| Some((name, found(name)?))) {
        symlink(path, space.path("no-git").join(name)).unwrap();
    }
    space.path("no-git").display().to_string()
}

/// A `git` that writes down where it was asked to describe something, for `PATH`. Every build asks for the commit of the
/// working directory, which stays in the history of builds.
fn noting(space: &Space) -> String {
    let paths = std::env::var("PATH").unwrap();
    let real = found("git").expect("git is installed");
    let log = space.path("git.log");
    space.write(
        "programs/git",
        format!(
            "#!/bin/sh\ncase \"$*\" in *describe*) echo \"$PWD\" >> {};; esac\nexec {} \"$@\"\n",
            log.display(),
            real.display()
        ),
    );
    fs::set_permissions(space.path("programs/git"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{paths}", space.path("programs").display())
}

#[test]
fn each_repository_is_asked_once_and_only_on_request() {
    for_each_identity(|space| {
        space.stackerfile(&format!("{APP}config: {{prerequisites: [lib/stacker.yaml, deep/stacker.yaml]}}\n"));
        space.write("lib/stacker.yaml", "lib:\n  from: {type: scratch}\n  labels: {a: b}\n");
        space.write("deep/stacker.yaml", "deep:\n  from: {type: scratch}\n");
        repository(space, "lib");
        git(space, "lib", &["tag", "of-lib"]);
        git(space, ".", &["init", "-q"]);
        git(space, ".", &["add", "stacker.yaml", "deep"]);
        git(space, ".", &["commit", "-q", "-m", "first"]);
        git(space, ".", &["tag", "of-all"]);
        let path = noting(space);
        let lib = space.path("lib/.git").display().to_string();
        let variables = [("PATH", &*path), ("GIT_DIR", &lib), ("GIT_INDEX_FILE", "/none")];
        build_with(space, &variables, &[]).ends_with(0);
        assert!(!space.path("git.log").exists());
        build_with(space, &variables, &["--provenance"]).ends_with(0).says_not("warning");
        let of = |tag| annotations(space, tag)[GIT].clone();
        assert_eq!(["base", "app", "deep", "lib"].map(of), ["of-all", "of-all", "of-all", "of-lib"]);
        let log = fs::read_to_string(space.path("git.log")).unwrap();
        let mut asked: Vec<&str> = log.lines().collect();
        asked.sort();
        let (all, lib) = (space.path("").canonicalize().unwrap(), space.path("lib").canonicalize().unwrap());
        assert_eq!(asked, [all.to_str().unwrap(), lib.to_str().unwrap()]);
    });
}

#[test]
fn without_a_version_there_is_no_annotation() {
    for_each_identity(|space| {
        space.stackerfile(APP);
        let build = |variables: &[(&str, &str)]| build_with(space, variables, &["--provenance"]).ends_with(0);
        let none = |run: &Run, why: &str| {
            run.says("there is a .git in").says("but images get no git_version").says(why);
            assert_eq!(names(space, "base"), [VERSION, YAML]);
        };
        // In no repository, with git and without.
        let programs = without_git(space);
        build(&[]).says_not("git");
        build(&[("PATH", &programs)]).says_not("git");
        assert_eq!(names(space, "base"), [VERSION, YAML]);
        // In one without a commit, and with one.
        git(space, ".", &["init", "-q"]);
        none(&build(&[]), "git describe: fatal: ");
        repository(space, ".");
        none(&build(&[("PATH", &programs)]), "git is not installed");
        build(&[]).says_not("git");
        assert_eq!(names(space, "base"), [GIT, VERSION, YAML]);
        // A `.git` that is none does not lead to the repository around it.
        space.write("inner/stacker.yaml", "inner:\n  from: {type: scratch}\n");
        space.write("inner/.git/note", "");
        let inner = build_with(space, &[], &["-f", "inner/stacker.yaml", "--provenance"]).ends_with(0);
        inner.says("/inner, but images get no git_version: git describe: fatal: not a git repository");
        assert_eq!(names(space, "inner"), [VERSION, YAML]);
    });
}

#[test]
fn git_decides_whose_repositories_are_safe() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can give files away");
    }
    for_each_identity(|space| {
        space.stackerfile(APP);
        repository(space, ".");
        let other = if space.identity() == Identity::Own { 4711 } else { 0 };
        let build = |variables: &[(&str, &str)]| {
            build_with(space, variables, &["--provenance", "--oci-dir", "out/oci", "--metadata-file", "out/metadata"])
        };
        space.write("out/note", "");
        ["", ".git"].iter().for_each(|path| chown(space.path(path), Some(other), None).unwrap());
        build(&[]).ends_with(0).says("dubious ownership").says("git config --global --add safe.directory");
        let safe = [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
        build(&safe).ends_with(0).says_not("warning");
    });
}
