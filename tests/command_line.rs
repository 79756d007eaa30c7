//! Commands and flags that say what others do, or are known from the Go program of the same name.

mod support;

use std::fs;
use std::process::Command;

use support::space::Space;

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
