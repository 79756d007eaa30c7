//! `binds`: what of the host a script sees and may write to, and what of it is an input.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use support::identity::Identity;
use support::inner::containers;
use support::space::{Space, for_each_identity, for_each_identity_with_copies, for_each_store};

fn chmod(space: &Space, name: &str, mode: u32) {
    fs::set_permissions(space.path(name), Permissions::from_mode(mode)).unwrap();
}

/// What the last layer wrote to /out.
#[track_caller]
fn out(space: &Space, tag: &str) -> String {
    space.file(tag, "out").unwrap_or_else(|| panic!("{tag} has no /out"))
}

/// What the layers of `app` hold beside what leads to /out.
fn names(space: &Space) -> Vec<String> {
    let blob = space.layers("app").pop().unwrap();
    let (plain, _) = stacker::compress::decoder(fs::File::open(blob).unwrap()).unwrap();
    let mut archive = tar::Archive::new(plain);
    let names = archive.entries().unwrap().map(|member| member.unwrap().path().unwrap().display().to_string());
    names.filter(|name| !["./", "", "out"].contains(&name.as_str())).collect()
}

#[test]
fn content_is_an_input_and_nothing_of_it_is_in_the_layer() {
    for_each_store(|space| {
        space.write("data/a", "one ");
        space.write("data/sub/b", "two ");
        space.write("data/sub/c", "three ");
        space.write("single", "single ");
        // Both count: what the script sees is in the key.
        chmod(space, "data/sub/b", 0o640);
        chmod(space, "data", 0o700);
        symlink("data/sub", space.path("link")).unwrap();
        let app = "
app:
  from: {type: built, tag: base}
  binds:
    - data -> /not/in/base
    - {source: single, dest: /etc/single}
    - source: link
      dest: /srv
      key: content
  run: |
    cd /not/in/base
    cat a sub/b sub/c /etc/single /srv/b > /out
    stat -c '%u %g %a' a sub/b . /etc/single >> /out
";
        space.stackerfile(app);
        let run = space.build(&[]);
        assert_eq!(out(space, "app"), "one two three single two 0 0 644\n0 0 640\n0 0 700\n0 0 644\n");
        assert_eq!(names(space), Vec::<String>::new());
        run.says_not("bind");
        space.build(&[]).built(&[]);
        // A time is no content.
        let file = fs::File::options().write(true).open(space.path("data/a")).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(1000)).unwrap();
        space.build(&[]).built(&[]);
        space.write("data/sub/b", "changed ");
        space.write("data/sub/d", "new");
        chmod(space, "data", 0o700);
        let reason = space.build(&[]).layer("app").reason.unwrap();
        assert_eq!(reason, "bind /not/in/base: sub/b changed (+1 file), 1 more");
        chmod(space, "data/a", 0o600);
        assert_eq!(space.build(&[]).layer("app").reason.unwrap(), "bind /not/in/base: a has another mode");
        fs::remove_file(space.path("data/sub/d")).unwrap();
        let reason = space.build(&[]).layer("app").reason.unwrap();
        assert_eq!(reason, "bind /not/in/base: sub/d removed, 1 more");
        // Another path with the same content is the same input.
        fs::rename(space.path("data"), space.path("moved")).unwrap();
        fs::remove_file(space.path("link")).unwrap();
        symlink("moved/sub", space.path("link")).unwrap();
        space.stackerfile(&app.replace("data ->", "moved ->"));
        space.build(&[]).built(&[]);
        space.stackerfile(
            &app.replace("data ->", "moved ->").replace("/srv\n", "/srv/x\n").replace("/srv/b", "/srv/x/b"),
        );
        assert!(space.build(&[]).layer("app").reason.unwrap().contains("script changed: line "));
    });
}

#[test]
fn a_run_that_changes_a_bind_is_reported_and_runs_again() {
    for_each_store(|space| {
        space.write("data/a", "a");
        space.write("data/b", "b");
        let app = "
app: {from: {type: built, tag: base}, binds: [data -> /data], run: cat /data/b > /out; echo more >> /data/b}
top: {from: {type: built, tag: app}, run: cp /out /out2}
";
        space.stackerfile(app);
        let b = space.path("data/b");
        let run = space.build(&[]);
        run.says(&format!("app: the bind /data changed while the script ran: {} was changed", b.display()));
        run.says("the layer is not cached").built(&["base", "app", "top"]);
        assert_eq!((out(space, "app").as_str(), fs::read_to_string(&b).unwrap().as_str()), ("b", "bmore\n"));
        // With the caller's rights.
        let owner = |name: &str| fs::metadata(space.path(name)).unwrap().uid();
        assert_eq!(owner("data/b"), owner("data/a"));
        // What is no result is garbage, and no damage.
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
        space.stacker(&["gc"]).ends_with(0);
        space.stacker(&["cache", "verify"]).ends_with(0);
        let run = space.build(&[]);
        run.built(&["app", "top"]);
        assert_eq!(run.layer("app").reason.unwrap(), "bind /data: b changed");
        // The very key of the last time has no result, and it is said why. What is above is found by content.
        space.write("data/b", "bmore\n");
        let run = space.build(&[]);
        run.built(&["app"]);
        let reason = run.layer("app").reason.unwrap();
        assert!(reason.starts_with("not kept the last time: the bind /data changed while the script ran"), "{reason}");
        // Once it changes nothing, it is cached.
        space.stackerfile(&app.replace("echo more", "true || echo more"));
        space.build(&[]).says_not("not cached");
        space.build(&[]).built(&[]);
    });
}

#[test]
fn each_kind_of_write_is_seen() {
    for_each_identity(|space| {
        for (script, how) in [
            ("echo x > /data/new", "data/new was added"),
            ("rm /data/a", "data/a was removed"),
            ("chmod 700 /data/a", "data/a was changed"),
            ("rm /data/dir/link; ln -s other /data/dir/link", "data/dir/link was changed"),
            // It may have been read in between.
            ("cp /data/a /x; echo other > /data/a; cat /x > /data/a", "data/a was written to"),
            ("touch /data/x; rm /data/x", "data was written to"),
        ] {
            let _ = fs::remove_dir_all(space.path("data"));
            space.write("data/a", "a");
            space.write("data/dir/x", "");
            symlink("x", space.path("data/dir/link")).unwrap();
            if let Some((uid, gid)) = space.identity().owner() {
                std::os::unix::fs::lchown(space.path("data/dir/link"), Some(uid), Some(gid)).unwrap();
            }
            let layer = "app: {from: {type: built, tag: base}, binds: [data -> /data]";
            space.stackerfile(&format!("{layer}, run: '{script}'}}\n"));
            space.build(&[]).says(how).says("not cached");
        }
    });
}

#[test]
fn without_key_it_is_writable_and_no_input() {
    for_each_store(|space| {
        space.write("store/hits", "");
        space.stackerfile(
            "
app:
  from: {type: built, tag: base}
  binds: [{source: store, dest: /var/store, key: none}]
  run: echo hit >> /var/store/hits; mkdir -p /var/store/dir; cat /var/store/hits > /out
",
        );
        let run = space.build(&[]);
        run.says_not("not cached");
        assert_eq!(run.layer("app").reason.unwrap(), "never built (not an input: /var/store)");
        assert_eq!(fs::read_to_string(space.path("store/hits")).unwrap(), "hit\n");
        assert_eq!(names(space), Vec::<String>::new());
        space.build(&[]).built(&[]);
        space.write("store/hits", "something else");
        space.build(&[]).built(&[]);
        let shown = space.stacker(&["cache", "show", "app"]).ends_with(0).stdout;
        assert!(shown.contains("bind none /var/store"), "{shown}");
        // What is there now is an input, and was none.
        space.edit("stacker.yaml", ", key: none", "");
        assert_eq!(space.build(&[]).layer("app").reason.unwrap(), "bind /var/store changed");
    });
}

#[test]
fn sockets_work_and_are_known_by_path_and_type() {
    for_each_identity(|space| {
        fs::create_dir(space.path("run")).unwrap();
        let socket = UnixDatagram::bind(space.path("run/log")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        chmod(space, "run/log", 0o777);
        space.give(&space.path("run"));
        space.stackerfile(
            "
app:
  from: {type: built, tag: base}
  binds: [run/log -> /dev/log, run -> /srv/run]
  run: logger hello; test -S /srv/run/log; echo done > /out
",
        );
        space.build(&[]).says_not("not cached");
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        assert!(String::from_utf8_lossy(&message[..length]).ends_with("hello"));
        // Whoever listens now.
        drop(socket);
        fs::remove_file(space.path("run/log")).unwrap();
        let _socket = UnixDatagram::bind(space.path("run/log")).unwrap();
        space.build(&[]).built(&[]);
        fs::remove_file(space.path("run/log")).unwrap();
        space.stacker(&["build"]).ends_with(1).says("run/log does not exist");
        space.edit("stacker.yaml", "run/log -> /dev/log, ", "");
        space.edit("stacker.yaml", "logger hello; test -S", "test ! -e");
        let reason = space.build(&[]).layer("app").reason.unwrap();
        assert!(reason.contains("socket or device /srv/run/log removed"), "{reason}");
    });
}

#[test]
fn stackers_own_directories_are_neither_hashed_nor_seen() {
    for_each_identity(|space| {
        space.write("file", "file");
        space.write(".stackerignore", "file");
        space.stackerfile(
            "
app:
  from: {type: built, tag: base}
  binds: [. -> /all]
  run: ls -A /all /all/.stacker /all/oci > /out || true
",
        );
        let build = ["build", "--work-dir", ".", "--metadata-file", "../metadata"];
        let run = |code| {
            let mut command = space.other_program(&[&["../bin/stacker"], &build[..]].concat());
            let output = command.output().unwrap();
            space.run_of(&build, output).ends_with(code)
        };
        fs::create_dir_all(space.path("oci")).unwrap();
        space.give(&space.path("oci"));
        space.give(space.directory());
        run(0).says_not("not cached");
        run(0).says_not("built ");
        let out = out(space, "app");
        assert!(out.contains(".stackerignore\n") && out.contains("file\n"), "{out}");
        for own in ["/all/.stacker:\n", "/all/oci:\n"] {
            let after = out.split(own).nth(1).unwrap_or_else(|| panic!("{out}"));
            assert!(after.trim().is_empty() || after.starts_with('\n'), "{own} is not empty: {out}");
        }
        space.edit("stacker.yaml", ". -> /all", ".stacker -> /all");
        run(1).says("is in stacker's own directory");
    });
}

#[test]
fn what_cannot_be_bound_is_told_with_its_place() {
    for_each_identity(|space| {
        space.write("file", "file");
        space.write("dir/x", "x");
        let app = "app: {from: {type: built, tag: base}, binds: [BINDS], run: 'true'}\n";
        for (binds, message) in [
            ("missing -> /x", "stacker.yaml:3:47"),
            ("missing -> /x", "the bind's source"),
            ("file -> /proc/x", "a bind cannot be at /proc/x: /proc is stacker's own"),
            ("file -> /stacker", "a bind cannot be at /stacker: /stacker is stacker's own"),
            ("file -> /", "that is the root filesystem itself"),
            ("{source: file, dest: /}", "stacker.yaml:3:68"),
            ("file -> x", "`dest` must be absolute, not `x`"),
            ("file -> /x, dir -> /x/", "two binds would both be at /x"),
            ("{source: file, dest: /x, key: some}", "`key` must be one of `content`, `none`, not `some`"),
            ("{dest: /x}", "needs a `source`"),
            ("dir -> /etc/passwd", "cannot mount /etc/passwd: the base has a file at /etc/passwd"),
            ("file -> /etc", "cannot mount /etc: the base has a directory at /etc"),
            ("dir -> /y, file -> /y/z", "cannot mount the bind /y/z: another bind lies there"),
        ] {
            space.stackerfile(&app.replace("BINDS", binds));
            space.stacker(&["build"]).ends_with(1).says(message);
        }
        assert!(!space.path("dir/z").exists());
        // What a link of the base leads to counts.
        space.stackerfile(
            "
linked: {from: {type: built, tag: base}, run: ln -s /proc/sys /p}
app: {from: {type: built, tag: linked}, binds: [file -> /p/x], run: 'true'}
",
        );
        space.stacker(&["build"]).ends_with(1).says("/proc is stacker's own");
    });
}

#[test]
fn shells_see_binds_and_guard_inputs() {
    for_each_identity(|space| {
        space.write("data/a", "input");
        space.write("store/b", "store");
        space.stackerfile(
            "
app:
  from: {type: built, tag: base}
  binds: [data -> /input, {source: store, dest: /store, key: none}]
  run: cat /input/a /store/b > /out; test ! -e /input/fail
",
        );
        space.build(&[]);
        let shell = |arguments: &[&str], script: &str| {
            space.stacker(&[&["shell", "app"], arguments, &["--", "sh", "-c", script]].concat())
        };
        let before = shell(&["--before"], "cat /input/a /store/b; echo x > /store/c; echo x > /input/c").ends_with(1);
        assert_eq!(before.stdout, "inputstore");
        before.says("Read-only file system");
        assert!(space.path("store/c").exists() && !space.path("data/c").exists());
        // What was built has none.
        shell(&[], "test ! -e /input").ends_with(0);
        space.write("data/fail", "");
        space.stacker(&["build"]).ends_with(1);
        assert_eq!(shell(&["--failed"], "cat /out /input/a").ends_with(0).stdout, "inputstoreinput");
    });
}

#[test]
fn every_kind_of_sandbox_has_binds() {
    for tier in ["single-id", "shared-proc"] {
        for_each_identity_with_copies(|space| bound_in(space, tier));
        for_each_identity(|space| bound_in(space, tier));
    }
}

#[test]
fn inside_a_container_too() {
    for inner in containers() {
        bound_in(&Space::of(Identity::Inner(inner)), "inner");
    }
}

fn bound_in(space: &Space, tier: &str) {
    space.write("private/data/a", "input ");
    space.write("private/store/b", "");
    chmod(space, "private", 0o700);
    space.stackerfile(
        "
app:
  from: {type: built, tag: base}
  binds: [private/data -> /input, {source: private/store, dest: /store, key: none}]
  run: cat /input/a > /out; stat -c '%u %g' /input/a >> /out; echo written > /store/b
",
    );
    let build = || {
        let run = space.build(&["--sandbox", tier]);
        chmod(space, "private", 0o700);
        run
    };
    build().says_not("not cached");
    assert_eq!(out(space, "app"), "input 0 0\n");
    assert_eq!(fs::read_to_string(space.path("private/store/b")).unwrap(), "written\n");
    build().built(&[]);
}

#[test]
fn what_another_layer_wrote_meanwhile_is_what_is_keyed() {
    for_each_identity(|space| {
        space.write("made/file", "old");
        space.stackerfile(
            "
first: {from: {type: built, tag: base}, binds: [{source: made, dest: /made, key: none}], run: echo new > /made/file}
app: {from: {type: built, tag: first}, binds: [made -> /made], run: cp /made/file /out}
",
        );
        space.build(&[]).says_not("not cached");
        assert_eq!(out(space, "app"), "new\n");
        space.build(&[]).built(&[]);
        space.write("made/file", "old");
        space.build(&[]).built(&["app"]);
        assert_eq!(out(space, "app"), "old");
    });
}

#[test]
fn where_owners_cannot_be_shown_root_is_told() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("binds of file systems without maps of owners: only root needs them");
    }
    let space = Space::new();
    space.stackerfile(
        "
app:
  from: {type: built, tag: base}
  binds: [{source: /proc/sys/kernel, dest: /kernel, key: none}]
  run: cat /kernel/ostype > /out; stat -c %u /kernel/ostype >> /out
",
    );
    space.build(&[]).says("app: all files in the bind /kernel show as nobody's");
    assert_eq!(out(&space, "app"), "Linux\n65534\n");
}

#[test]
fn what_is_mounted_beneath_comes_along() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("mounts beneath a bind: only root can mount");
    }
    for_each_identity(|space| {
        space.write("data/over/hidden", "");
        let _mounted = Mounted::tmpfs(space.path("data/over"));
        space.write("data/over/shown", "one");
        space.stackerfile(
            "app: {from: {type: built, tag: base}, binds: [data -> /bound], run: cd /bound/over; cat shown * > /out}\n",
        );
        space.build(&[]);
        assert_eq!(out(space, "app"), "oneone");
        space.write("data/over/shown", "two");
        assert_eq!(space.build(&[]).layer("app").reason.unwrap(), "bind /bound: over/shown changed");
        assert_eq!(out(space, "app"), "twotwo");
    });
}

/// Unmounted when it goes.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(at: std::path::PathBuf) -> Mounted {
        let status = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&at).status();
        assert!(status.unwrap().success(), "mount tmpfs at {}", at.display());
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
