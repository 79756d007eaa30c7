//! Commands and flags that say what others do, or are known from the Go program of the same name.

mod support;

use std::fs;
use std::process::Command;

use support::space::{Space, for_each_identity};

#[test]
fn completions_are_what_shells_read() {
    let space = Space::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = space.stacker(&["completions", shell]).ends_with(0).stdout;
        for word in ["build", "keep-going", "verify"] {
            assert!(text.contains(word), "{shell} does not complete {word}: {text}");
        }
        assert!(!text.contains("\\x"), "{shell}: {text}");
        space.write(&format!("completions.{shell}"), text);
    }
    let script = ". ./completions.bash; COMP_WORDS=(stacker che); COMP_CWORD=1; _stacker stacker che stacker; \
                  echo ${COMPREPLY[@]}";
    let output = Command::new("bash").args(["-c", script]).current_dir(space.path("")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "check\n", "{}", String::from_utf8_lossy(&output.stderr));
    space.stacker(&["completions", "tcsh"]).ends_with(2).says("zsh");
}

#[test]
fn every_command_has_a_manual_page() {
    let space = Space::new();
    space.stacker(&["man", "share/man"]).ends_with(0);
    let page = |name: &str| fs::read_to_string(space.path("share/man").join(name)).unwrap();
    assert!(page("stacker.1").starts_with(".ie") && page("stacker.1").contains("content\\-addressed cache"));
    assert!(page("stacker-build.1").contains("\\-\\-keep\\-going"), "{}", page("stacker-build.1"));
    assert!(page("stacker-cache-verify.1").contains("set aside"));
}

#[test]
fn the_readme_has_every_command() {
    let space = Space::new();
    space.stacker(&["man", "pages"]).ends_with(0);
    let pages = fs::read_dir(space.path("pages")).unwrap();
    let names: Vec<String> = pages.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let commands: Vec<&str> =
        names.iter().filter_map(|name| name.strip_prefix("stacker-")?.strip_suffix(".1")).collect();
    assert!(commands.len() > 15, "{commands:?}");
    let readme = include_str!("../README.md");
    let table = readme.split_once("| command | what it does |").unwrap().1.split_once("\n\n").unwrap().0;
    // `cache` itself only has commands; one of them is told with that which does the same.
    for command in commands.iter().filter(|command| !["cache", "cache-gc"].contains(*command)) {
        let name = command.replacen("cache-", "cache ", 1).replacen("history-", "history ", 1);
        assert!(table.contains(&format!("stacker {name}")), "`stacker {name}` is not in the README's table");
    }
}

#[test]
fn every_stackerfile_below_a_directory_is_built() {
    for_each_identity(|space| {
        let layer =
            |name: &str| format!("{name}:\n  from: {{type: scratch}}\n  imports: [{{path: f, dest: /{name}}}]\n");
        for (dir, name) in [("tree", "top"), ("tree/a", "a"), ("tree/.hidden", "hidden"), ("tree/out", "ignored")] {
            space.write(&format!("{dir}/stacker.yaml"), layer(name));
            space.write(&format!("{dir}/f"), name);
        }
        space.write("tree/.stackerignore", "out\n");
        space.write("tree/a/other.yaml", layer("other"));
        // What `build --all` passes by.
        space.stacker(&["recursive-build", "-d", "tree"]).ends_with(0).says("4 layers: 0 hits, 4 built");
        assert_eq!(space.file("ignored", "ignored").as_deref(), Some("ignored"));
        let other = space.stacker(&["recursive-build", "-d", "tree", "-p", "/a/[a-z]+.yaml$", "--order-only"]);
        assert_eq!(other.ends_with(0).stdout, "other (tree/a/other.yaml)\na (tree/a/stacker.yaml)\n");
        space.stacker(&["recursive-build", "--search-dir", "tree", "--stacker-file-pattern", "none$"]).ends_with(1);
        space.stacker(&["recursive-build", "-p", "("]).ends_with(2).says("--stacker-file-pattern");
        // Below the working directory, and not in stacker's own directories.
        space.write("oci/stacker.yaml", "no stackerfile");
        space.stacker(&["recursive-build"]).ends_with(0).says("4 layers: 4 hits");
    });
}

#[test]
fn the_order_is_told_and_nothing_built() {
    let space = Space::new();
    space.write("lib/stacker.yaml", "lib: {from: {type: scratch}}\n");
    space.stackerfile(
        "app: {from: {type: built, tag: tools}, imports: ['stacker://lib/x'], run: 'exit 1'}\n\
         tools: {from: {type: built, tag: base}, bom: {}}\nconfig: {prerequisites: [lib/stacker.yaml]}\n",
    );
    let told = space.stacker(&["build", "--order-only", "--no-verity"]).ends_with(0);
    told.says("warning: `bom` has no effect here\n").says_not("warning: warning").says_not("error");
    let lines = "lib (lib/stacker.yaml)\nbase (stacker.yaml)\ntools (stacker.yaml): needs base\n\
                 app (stacker.yaml): needs lib, tools\n";
    assert_eq!(told.stdout, lines);
    assert_eq!(space.stacker(&["build", "tools", "--order-only"]).ends_with(0).stdout.lines().count(), 2);
    assert!(!space.stacker_dir().exists() && !space.has_roots() && !space.path("oci").exists());
    space.stacker(&["build", "tool", "--order-only"]).ends_with(2).says("did you mean `tools`?");
    space.stacker(&["build", "tools", "--no-verity"]).ends_with(0).says("2 layers: 1 hit, 1 built");
}

#[test]
fn imports_from_the_network_need_a_hash_on_request() {
    let space = Space::new();
    let hash = "0".repeat(64);
    space.write("lib/stacker.yaml", "lib:\n  from: {type: scratch}\n  imports: http://example.com/of-a-prerequisite\n");
    space.stackerfile(&format!(
        "config: {{prerequisites: [lib/stacker.yaml]}}\napp:\n  from: {{type: built, tag: base}}\n  imports:\n    \
         - https://example.com/text\n    - {{path: https://example.com/map, dest: /x}}\n    - \
         {{path: 'https://example.com/hashed', hash: {hash}}}\n    - local\n"
    ));
    // Also where a layer is asked for that reads none of them.
    let refused = space.stacker(&["build", "--require-hash", "base"]).ends_with(1);
    for name in ["of-a-prerequisite", "text", "map"] {
        refused.says(&format!("://example.com/{name}` has no `hash`, which --require-hash asks for"));
    }
    refused.says_not("hashed` has").says_not("local` has").says_not("hashed`");
    space.stacker(&["build", "--offline"]).ends_with(1).says_not("has no `hash`");
}
