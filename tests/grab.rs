//! Files and directories copied out of layers.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use support::space::{Space, for_each_store};

const LAYERS: &str = "
app:
  from: {type: built, tag: base}
  run: |
    mkdir -p /out/d/closed /out/empty /out/ro
    echo first > /out/d/f; printf two > /out/ro/g
    chown 1000:1000 /out/d/f; chmod 600 /out/d/f; echo x > /out/d/closed/x
    chmod 4755 /out/ro/g; chmod 555 /out/ro; chmod 700 /out/d/closed; chown 7:7 /out/d/closed
    ln -s /out/d/f /out/link; ln -s nowhere /out/d/dangling; ln /out/ro/g /out/d/hard
    mkdir /with-pipe; mkfifo /with-pipe/p
";

/// What the caller finds at a path of the working directory.
fn text(space: &Space, name: &str) -> String {
    let output = space.other_program(&["cat", name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_caller_owns_what_comes_out() {
    for_each_store(|space| {
        space.stackerfile(LAYERS);
        space.build(&[]);
        let own = fs::metadata(space.path("")).unwrap().uid();
        let kept = fs::read_dir(space.roots_dir().join("imports")).map_or(0, Iterator::count);
        space.stacker(&["grab", "app:/out/d/f"]).ends_with(0);
        assert_eq!(text(space, "f"), "first\n");
        let file = fs::metadata(space.path("f")).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o7777, file.nlink()), (own, 0o600, 1));
        // A link is followed; the copy has the name that was asked for. An older copy is replaced.
        space.write("link", "older");
        space.stacker(&["grab", "app:out/link"]).ends_with(0);
        assert_eq!(text(space, "link"), "first\n");
        space.stacker(&["grab", "app:/out/d/"]).ends_with(0);
        assert_eq!(
            (text(space, "d/f"), text(space, "d/hard"), text(space, "d/closed/x")),
            ("first\n".into(), "two".into(), "x\n".into())
        );
        assert_eq!(fs::read_link(space.path("d/dangling")).unwrap().to_str(), Some("nowhere"));
        for name in ["d", "d/f", "d/closed", "d/dangling"] {
            assert_eq!(fs::symlink_metadata(space.path(name)).unwrap().uid(), own, "{name}");
        }
        space.stacker(&["grab", "app:/out/ro"]).ends_with(0);
        let modes = ["ro", "ro/g"].map(|name| fs::metadata(space.path(name)).unwrap().mode() & 0o7777);
        assert_eq!(modes, [0o555, 0o755]);
        space.stacker(&["grab", "app:/out/empty"]).ends_with(0);
        assert_eq!(fs::read_dir(space.path("empty")).unwrap().count(), 0);
        // What lies beneath the topmost layer too, and nothing is left on the way.
        space.stacker(&["grab", "app:/etc/passwd"]).ends_with(0);
        space.stacker(&["grab", "base:/data"]).ends_with(0);
        assert!(space.path("data").is_dir());
        assert_eq!(fs::read_dir(space.roots_dir().join("imports")).map_or(0, Iterator::count), kept);
        let names = fs::read_dir(space.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".stacker-grab")));
    });
}

#[test]
fn what_cannot_be_grabbed_is_said() {
    for_each_store(|space| {
        space.stackerfile(LAYERS);
        space.stacker(&["grab", "app:/out"]).ends_with(1).says("is not built; build it with: stacker build");
        space.build(&[]);
        space.stacker(&["grab", "ap:/out"]).ends_with(2).says("did you mean `app`?");
        space.stacker(&["grab", "app"]).ends_with(2).says("wanted LAYER:PATH");
        space.stacker(&["grab", "app:/"]).ends_with(2).says("has no last name");
        space.stacker(&["grab", "app:/out/nothing"]).ends_with(1).says("no such file or directory in layer app");
        space.stacker(&["grab", "app:/out/d/dangling"]).ends_with(1).says("no such file or directory in layer app");
        space.stacker(&["grab", "app:/out/d/f/below"]).ends_with(1).says("is not a directory");
        space.stacker(&["grab", "app:/with-pipe"]).ends_with(1).says("copy /with-pipe/p: is a named pipe");
        assert!(!space.path("with-pipe").exists());
        space.write("out/mine", "kept");
        for what in ["app:/out", "app:/out/../out"] {
            space.stacker(&["grab", what]).ends_with(1).says("exists, and only a regular file is replaced");
        }
        assert_eq!(fs::read_to_string(space.path("out/mine")).unwrap(), "kept");
        std::os::unix::fs::symlink("out/mine", space.path("f")).unwrap();
        space.stacker(&["grab", "app:/out/d/f"]).ends_with(1).says("exists");
        assert_eq!(fs::read_to_string(space.path("out/mine")).unwrap(), "kept");
        // A directory never takes the place of a file.
        space.write("d", "kept");
        space.stacker(&["grab", "app:/out/d"]).ends_with(1).says("exists");
        assert_eq!(fs::read_to_string(space.path("d")).unwrap(), "kept");
    });
}
