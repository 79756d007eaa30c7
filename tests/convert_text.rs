//! What `stacker convert` writes and tells. Each `NAME.Dockerfile` has its stackerfile and its substitutions beside it
//! in `NAME.yaml`, and what is told in `NAME.txt`; `UPDATE_FIXTURES=1 cargo test --test convert_text` writes them anew.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use stacker::convert::{Request, convert};
use support::space::Space;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/convert");

/// The text that is written, and all that is told.
fn converted(dockerfile: &Path) -> (String, String) {
    let directory = tempfile::tempdir().unwrap();
    let (output, substitutes) = (directory.path().join("stacker.yaml"), directory.path().join("subs.yaml"));
    let request = Request {
        dockerfile: dockerfile.into(),
        context: directory.path().join("shop"),
        output: Some(output.clone()),
        substitutes: substitutes.clone(),
        force: false,
        working_dir: FIXTURES.into(),
        colour: false,
    };
    fs::create_dir(directory.path().join("shop")).unwrap();
    match convert(&request) {
        Ok(warnings) => {
            let texts = [output, substitutes].map(|path| fs::read_to_string(path).unwrap());
            (texts.join("---\n"), warnings.join("\n\n"))
        }
        Err(error) => {
            assert!(!output.exists() && !substitutes.exists());
            (String::new(), error.to_string())
        }
    }
}

fn is_recorded(path: PathBuf, found: String) {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{}:\n{found}\nbut expected:\n{expected}", path.display());
}

#[test]
fn what_is_written_and_told_is_as_recorded() {
    for name in ["told", "unknown", "mistakes"] {
        let dockerfile = Path::new(FIXTURES).join(format!("{name}.Dockerfile"));
        let (text, told) = converted(&dockerfile);
        if name == "told" {
            is_recorded(dockerfile.with_extension("yaml"), text.replace(&host_arch(), "ARCH"));
        } else {
            assert_eq!(text, "", "{name}");
        }
        is_recorded(dockerfile.with_extension("txt"), told + "\n");
    }
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let dockerfile = directory.path().join("Dockerfile");
    // YAML has no such characters in comments.
    for (odd, says) in [("RUN a\0b", "\\u{0}"), ("# \u{1b}\nRUN a", "\\u{1b}"), ("RUN \u{7f}", "\\u{7f}")] {
        fs::write(&dockerfile, format!("FROM debian\n{odd}\n")).unwrap();
        let (text, told) = converted(&dockerfile);
        assert!(
            text.is_empty() && told.contains(&format!("the character {says} cannot stand in a stackerfile")),
            "{told}"
        );
    }
    // 2^40 letters.
    for (begin, kind) in [("FROM debian\n", "ENV"), ("", "ARG")] {
        let doubling = format!("{kind} A=$A$A\n").repeat(40);
        fs::write(&dockerfile, format!("{begin}{kind} A=a\n{doubling}FROM debian\n")).unwrap();
        let (text, told) = converted(&dockerfile);
        assert!(text.is_empty() && told.contains("with its variables it has more than 64 KiB"), "{told}");
    }
}

#[test]
fn comments_hold_no_placeholders() {
    let directory = tempfile::tempdir().unwrap();
    let dockerfile = directory.path().join("Dockerfile");
    fs::write(&dockerfile, "FROM debian\nCOPY --${{link=b a b\n").unwrap();
    let (text, told) = converted(&dockerfile);
    assert!(told.contains("--${{link is not carried over"), "{told}");
    assert!(text.contains(": --${{DOLLAR:$}}{{link is not carried over\n"), "{text}");
}

fn host_arch() -> String {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned()
}

#[test]
fn no_file_is_replaced_unless_that_is_said() {
    let space = Space::new();
    space.write("Dockerfile", "FROM scratch\nCOPY a /a\n");
    space.write("a", "x");
    space.write("stacker.yaml", "mine");
    let refused = space.stacker(&["convert"]).ends_with(2);
    refused.says("stacker.yaml exists: name another file, or say --force to replace it");
    assert_eq!(fs::read_to_string(space.path("stacker.yaml")).unwrap(), "mine");
    assert!(!space.path("stacker-subs.yaml").exists());
    let shown = space.stacker(&["convert", "-o", "-"]).ends_with(0).stdout;
    assert!(shown.contains("path: a\n"), "{shown}");
    assert_eq!(fs::read_to_string(space.path("stacker-subs.yaml")).unwrap(), "# Name of the image\nIMAGE: work\n");
    space.stacker(&["convert", "--force"]).ends_with(0);
    assert_eq!(fs::read_to_string(space.path("stacker.yaml")).unwrap(), shown);
    // What was written builds, under the name that is asked for.
    space.build(&["--substitute", "IMAGE=tiny"]);
    assert_eq!(space.file("tiny", "a").as_deref(), Some("x"));
    space.build(&["--substitute-file", "stacker-subs.yaml"]);
    assert_eq!(space.file("work", "a").as_deref(), Some("x"));
    space.stacker(&["convert", "-i", "absent"]).ends_with(1).says("cannot read");
    space.stacker(&["convert", "--context", "absent", "--force"]).ends_with(2).says("is not a directory");
}

#[test]
fn the_context_may_lie_elsewhere() {
    let space = Space::new();
    space.write("build/Dockerfile", "FROM scratch\nCOPY files /files\nCOPY . /all/\n");
    space.write("app/files/one", "1");
    space.write("app/notes.md", "no");
    space.write("app/.dockerignore", "*.md\n");
    space.write("app/.stackerignore", "kept\n");
    let arguments =
        ["convert", "-i", "build/Dockerfile", "-o", "out/stacker.yaml", "--context", "app", "-s", "out/subs.yaml"];
    fs::create_dir(space.path("out")).unwrap();
    let told = space.stacker(&arguments).ends_with(0);
    told.says("exists and is left as it is; Docker would leave out `/*.md` as well");
    assert_eq!(fs::read_to_string(space.path("app/.stackerignore")).unwrap(), "kept\n");
    space.build(&["-f", "out/stacker.yaml"]);
    assert_eq!(space.file("app", "files/one").as_deref(), Some("1"));
    assert_eq!(space.file("app", "all/files/one").as_deref(), Some("1"));
}
