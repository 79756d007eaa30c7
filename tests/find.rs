//! `--all`: which stackerfiles are found, and that what is read on the way is read once but never believed too long.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ignore::WalkBuilder;
use stacker::load::{Options, find, load, load_found};
use support::random::Random;
use support::server::{Reply, Server};
use support::space::{Space, for_each_identity};

/// A directory of files that are written as a test needs them.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn options(&self) -> Options {
        Options { working_dir: self.0.path().canonicalize().unwrap(), ..Options::default() }
    }

    fn find(&self, options: &Options) -> Vec<String> {
        let root = self.path("");
        let files = find(Path::new("."), options).expect("the tree can be read").files;
        files.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect()
    }
}

/// Names are believed only where any change since they were read would show.
fn wait_until_settled() {
    std::thread::sleep(Duration::from_millis(2100));
}

#[test]
fn all_files_below_a_directory_are_found() {
    let tree = Tree::new(&[
        (".gitignore", "ignored/\n/top\n"),
        (".ignore", "plain\n"),
        ("stacker.yaml", ""),
        ("b/stacker.yaml", ""),
        ("b/my-stacker.yaml", ""),
        ("b/.stackerignore", "out\n"),
        ("b/out/stacker.yaml", ""),
        ("b/ignored/stacker.yaml", ""),
        ("b/top/stacker.yaml", ""),
        ("plain/stacker.yaml", ""),
        (".hidden/stacker.yaml", ""),
        (".git/stacker.yaml", ""),
        (".git/info/exclude", "b\n"),
        ("roots/x/stacker.yaml", ""),
        ("top/stacker.yaml", ""),
        ("dir/stacker.yaml/x", ""),
    ]);
    std::os::unix::fs::symlink("b", tree.path("linked")).expect("a link");
    std::os::unix::fs::symlink("../b/stacker.yaml", tree.path("dir/l")).expect("a link");
    let mut options = Options { exclude: vec![tree.path("roots")], ..tree.options() };
    let expected =
        [".hidden/stacker.yaml", "b/stacker.yaml", "b/top/stacker.yaml", "plain/stacker.yaml", "stacker.yaml"];
    assert_eq!(tree.find(&options), expected);
    options.pattern = Some(regex::Regex::new("/b/[^/]*stacker[.]yaml$").expect("a pattern"));
    assert_eq!(tree.find(&options), ["b/my-stacker.yaml", "b/stacker.yaml"]);
    assert!(find(Path::new("nowhere"), &options).is_err());
    assert!(find(Path::new("stacker.yaml"), &options).is_err());
}

#[test]
fn ignore_files_above_the_directory_do_not_count() {
    let tree = Tree::new(&[(".gitignore", "*\n"), (".stackerignore", "*\n"), ("sub/stacker.yaml", "")]);
    let files = find(Path::new("sub/"), &tree.options()).expect("the tree can be read").files;
    assert_eq!(files, [tree.path("sub/stacker.yaml")]);
}

/// A tree of few names and many ignore files.
fn random_tree(random: &mut Random) -> Tree {
    const NAMES: [&str; 4] = ["a", "b", "c", ".hidden"];
    const PATTERNS: [&str; 16] = [
        "a",
        "/a",
        "b/",
        "a/b",
        "**/c",
        "c/**",
        "!a",
        "!b/",
        "!/c",
        "*",
        "!*",
        "stacker.yaml",
        "a/*",
        "# a",
        "\\!a",
        "[z-a]",
    ];
    let tree = Tree::new(&[]);
    let mut directories = vec![String::new()];
    for number in 0..20 {
        let parent = directories[random.below(directories.len())].clone();
        let directory = format!("{parent}{}/", random.of(&NAMES));
        tree.write(&format!("{directory}{number}"), "");
        directories.push(directory);
    }
    for directory in &directories {
        if !random.one_in(3) {
            tree.write(&format!("{directory}stacker.yaml"), "");
        }
        for name in [".gitignore", ".stackerignore"] {
            let lines = if random.one_in(3) { 1 + random.below(3) } else { 0 };
            let mut text = String::new();
            (0..lines).for_each(|_| writeln!(text, "{}", random.of(&PATTERNS)).unwrap());
            if lines > 0 {
                tree.write(&format!("{directory}{name}"), &text);
            }
        }
    }
    tree
}

#[test]
fn ignore_files_say_what_they_say_to_other_tools() {
    let mut ignored = 0;
    for seed in 0..60 {
        let tree = random_tree(&mut Random::new(seed));
        let mut walk = WalkBuilder::new(tree.path(""));
        walk.standard_filters(false).git_ignore(true).require_git(false);
        let all = walk.clone().git_ignore(false).build().count();
        walk.add_custom_ignore_filename(".stackerignore");
        let files = walk.build().map(|entry| entry.unwrap().into_path());
        let expected: BTreeSet<PathBuf> = files.filter(|path| path.ends_with("stacker.yaml")).collect();
        ignored += all - walk.build().count();
        let found = find(Path::new("."), &tree.options()).map(|found| found.files).unwrap_or_default();
        assert_eq!(found, Vec::from_iter(expected), "seed {seed}: {}", tree.0.path().display());
    }
    assert!(ignored > 200, "{ignored}");
}

#[test]
fn an_ignore_file_that_cannot_be_read_makes_nobody_wait() {
    let tree =
        Tree::new(&[("stacker.yaml", ""), ("a/stacker.yaml", ""), ("b/.gitignore/x", ""), ("b/stacker.yaml", "")]);
    rustix::fs::mknodat(rustix::fs::CWD, tree.path("a/.stackerignore"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    std::os::unix::fs::symlink("nowhere", tree.path(".gitignore")).unwrap();
    assert_eq!(tree.find(&tree.options()), ["a/stacker.yaml", "b/stacker.yaml", "stacker.yaml"]);
}

#[test]
fn two_paths_of_one_file_are_one_also_where_the_way_is_known() {
    let needs = |paths: &str| format!("config: {{prerequisites: [{paths}]}}\n");
    let base = "base: {from: {type: scratch}}\n";
    let tree = Tree::new(&[
        ("lib/base.yaml", base),
        ("lib/stacker.yaml", &needs("base.yaml")),
        ("a/stacker.yaml", &needs("../lib/base.yaml, ../linked/base.yaml, ../linked/../lib/stacker.yaml")),
        (
            "deep/er/stacker.yaml",
            &needs("../../lib/./base.yaml, ../../a/../lib/base.yaml, ../out/base.yaml, ../out/../lib/base.yaml"),
        ),
        ("deep/lib/base.yaml", "third: {from: {type: scratch}}\n"),
        ("ignored/base.yaml", "other: {from: {type: scratch}}\n"),
        (".gitignore", "/ignored\n"),
    ]);
    std::os::unix::fs::symlink("lib", tree.path("linked")).unwrap();
    // What is behind a link has another directory above it.
    std::os::unix::fs::symlink("../ignored", tree.path("deep/out")).unwrap();
    wait_until_settled();
    let found = find(Path::new("."), &tree.options()).unwrap();
    let plain = load(&found.files, &tree.options()).unwrap();
    let known = load_found(found, &tree.options()).unwrap();
    let paths = |loaded: &stacker::load::Loaded| -> Vec<(PathBuf, Vec<PathBuf>)> {
        let files = loaded.stackerfiles.iter();
        files.map(|file| (file.path.clone(), file.prerequisites.iter().map(|it| it.0.clone()).collect())).collect()
    };
    assert_eq!(paths(&known), paths(&plain));
    assert_eq!(paths(&known).len(), 5, "{:?}", paths(&known));
}

/// What is imported was listed when stackerfiles were looked for; what comes and goes while the build then waits for a
/// server counts, also where there is a result of what was there before.
#[test]
fn what_changes_while_a_build_asks_a_server_is_taken_in() {
    for_each_identity(|space: &Space| {
        for (name, text) in [("data/gone", "gone"), ("data/deep/kept", "kept"), ("data/still/file", "same")] {
            space.write(name, text);
        }
        let (data, asked) = (space.path("data"), AtomicUsize::new(0));
        let server = Server::start(move |_| {
            match asked.fetch_add(1, Ordering::SeqCst) {
                1 => fs::write(data.join("deep/late"), "late").unwrap(),
                2 => fs::remove_file(data.join("gone")).unwrap(),
                3 => {
                    fs::create_dir(data.join("new")).unwrap();
                    fs::write(data.join("new/file"), "new").unwrap();
                }
                _ => {}
            }
            Reply::new(200, "served")
        });
        let imports = format!("[{{path: data, dest: /data}}, {{path: '{}', dest: /}}]", server.url("/served"));
        space.stackerfile(&format!("app: {{from: {{type: built, tag: base}}, imports: {imports}}}\n"));
        let expected = [
            [("data/gone", Some("gone")), ("data/deep/late", None), ("data/new/file", None)],
            [("data/gone", Some("gone")), ("data/deep/late", Some("late")), ("data/new/file", None)],
            [("data/gone", None), ("data/deep/late", Some("late")), ("data/new/file", None)],
            [("data/gone", None), ("data/deep/late", Some("late")), ("data/new/file", Some("new"))],
        ];
        for files in expected {
            wait_until_settled();
            let run = space.build(&["--all", "."]);
            for (path, expected) in files {
                assert_eq!(space.file("app", path).as_deref(), expected, "{path}: {run}");
            }
            assert_eq!(space.file("app", "data/still/file").as_deref(), Some("same"));
        }
        space.build(&["--all", "."]).built(&[]);
    });
}

#[test]
fn a_directory_that_cannot_be_read_is_an_error_unless_it_is_ignored() {
    for_each_identity(|space: &Space| {
        space.stackerfile("app: {from: {type: built, tag: base}}\n");
        space.write("closed/stacker.yaml", "other: {from: {type: scratch}}\n");
        fs::set_permissions(space.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        let run = space.stacker(&["build", "--order-only", "--all", "."]);
        if space.identity().owner().is_some() || !rustix::process::geteuid().is_root() {
            let closed = space.path("closed").display().to_string();
            run.ends_with(1).says(&format!("cannot look for stackerfiles: {closed}: Permission denied"));
            space.write(".stackerignore", "closed\n");
            space.stacker(&["build", "--order-only", "--all", "."]).ends_with(0);
        }
        fs::set_permissions(space.path("closed"), fs::Permissions::from_mode(0o755)).unwrap();
    });
}
