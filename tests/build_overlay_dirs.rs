//! `overlay_dirs`: what of a directory comes into the image, as what, and when it is copied again.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use support::space::{Space, for_each_identity, for_each_store};

fn chmod(space: &Space, name: &str, mode: u32) {
    fs::set_permissions(space.path(name), Permissions::from_mode(mode)).unwrap();
}

/// What the last layer wrote to /out.
#[track_caller]
fn out(space: &Space, tag: &str) -> String {
    space.file(tag, "out").unwrap_or_else(|| panic!("{tag} has no /out"))
}

#[test]
fn contents_lie_over_the_base_with_the_modes_of_the_host() {
    for_each_store(|space| {
        for name in ["over/etc/app.conf", "over/bin/tool", "over/tmp/kept", "over/new/inner/x", "over/new/secret"] {
            space.write(name, name);
        }
        symlink("app.conf", space.path("over/etc/link")).unwrap();
        symlink("/nowhere", space.path("over/new/dangling")).unwrap();
        let modes = [
            ("over/etc/app.conf", 0o640),
            ("over/bin/tool", 0o6751),
            ("over/new/secret", 0o400),
            ("over/new/inner", 0o3770),
            ("over/new", 0o711),
            ("over/tmp", 0o755),
            ("over/etc", 0o700),
            ("over", 0o700),
        ];
        modes.iter().for_each(|(name, mode)| chmod(space, name, *mode));
        space.stackerfile(
            "
app:
  from: {type: built, tag: base}
  overlay_dirs:
    - source: over
  run: |
    exec > /out
    stat -c '%n %u %g %a' /etc/app.conf /bin/tool /new/secret /new/inner /new /tmp /etc / /tmp/kept
    readlink /etc/link
    readlink /new/dangling
    cat /new/secret
    echo changed > /new/secret
    test -x /bin/sh
",
        );
        let run = space.build(&[]);
        let expected = "/etc/app.conf 0 0 640\n/bin/tool 0 0 6751\n/new/secret 0 0 400\n/new/inner 0 0 3770\n\
                        /new 0 0 711\n/tmp 0 0 1777\n/etc 0 0 755\n/ 0 0 755\n/tmp/kept 0 0 644\n\
                        app.conf\n/nowhere\nover/new/secret";
        assert_eq!(out(space, "app"), expected);
        // A layer of its own beneath the script's.
        assert_eq!(run.layer("app").diff_ids.len(), 3);
        space.build(&[]).built(&[]);
    });
}

#[test]
fn directories_come_before_imports_and_later_ones_win() {
    for_each_identity(|space| {
        for name in ["one/f", "two/f", "two/g", "three/f", "three/g", "three/h"] {
            space.write(name, name);
        }
        space.write("f", "import");
        // The order of the directives does not matter, that in them does.
        let app = "
app:
  from: {type: built, tag: linked}
  imports: [{path: f, dest: /srv/h}]
  overlay_dirs:
    - {source: three/, dest: /srv/}
    - {source: ./two, dest: /link}
    - {source: one, dest: /srv}
    - {source: one, dest: /bin/deep/er}
  run: cat /srv/f /srv/g /srv/h /bin/deep/er/f > /out; test -L /link
linked: {from: {type: built, tag: base}, run: ln -s srv /link; mkdir /srv}
";
        space.stackerfile(app);
        assert_eq!(space.build(&[]).layer("app").diff_ids.len(), 8);
        assert_eq!(out(space, "app"), "one/ftwo/gimportone/f");
        space.build(&[]).built(&[]);
        // Only what follows the edit is copied again, and where the script's input is the same it does not run.
        space.write("one/f", "edited");
        let run = space.build(&[]);
        run.built(&["app"]);
        assert_eq!(run.layer("app").reason.unwrap(), "srv/f changed");
        assert_eq!(out(space, "app"), "editedtwo/gimportedited");
        space.edit("stacker.yaml", "/bin/deep/er}", "/elsewhere}");
        space.edit("stacker.yaml", "/bin/deep/er/f", "/elsewhere/f");
        let reason = space.build(&[]).layer("app").reason.unwrap();
        assert!(reason.starts_with("place, mode or owner of the import changed"), "{reason}");
    });
}

#[test]
fn a_directory_in_the_place_of_a_link_is_told() {
    for_each_identity(|space| {
        space.write("over/merged/tool", "tool");
        space.write("over/sub/inner/x", "x");
        let app = "
linked: {from: {type: built, tag: base}, run: ln -s bin /merged; mkdir /sub; ln -s /nowhere /sub/inner}
app: {from: {type: built, tag: linked}, overlay_dirs: [{source: over}], run: test -f /merged/tool -a ! -e /bin/tool}
";
        space.stackerfile(app);
        let run = space.build(&[]);
        run.says("app: /merged, a link to bin in the base, is replaced by a directory");
        run.says("app: /sub/inner, a link to /nowhere in the base, is replaced by a directory");
        // A place that leads through the link is where it leads to.
        space.stackerfile(
            &app.replace("{source: over}", "{source: over/merged, dest: /merged}").replace("! -e /bin", "-e /bin"),
        );
        space.build(&[]).says_not("replaced");
        assert_eq!(space.file("app", "bin/tool").unwrap(), "tool");
    });
}

#[test]
fn an_image_may_consist_of_a_directory() {
    for_each_identity(|space| {
        space.write("root/etc/app.conf", "conf");
        chmod(space, "root", 0o700);
        chmod(space, "root/etc", 0o750);
        space.stackerfile("app: {from: {type: scratch}, overlay_dirs: [{source: root, dest: }]}\n");
        space.build(&[]);
        assert_eq!(space.file("app", "etc/app.conf").unwrap(), "conf");
        space.build(&[]).built(&[]);
    });
}

#[test]
fn every_kind_of_sandbox_keeps_the_same_modes() {
    for_each_identity(|space| {
        for name in ["dir/tool", "dir/closed/f", "dir/secret"] {
            space.write(name, name);
        }
        for (name, mode) in [("dir/tool", 0o6755), ("dir/secret", 0o400), ("dir/closed", 0o3555), ("dir", 0o555)] {
            chmod(space, name, mode);
        }
        space.stackerfile("app: {from: {type: built, tag: base}, overlay_dirs: [{source: dir, dest: /opt/dir}]}\n");
        let of = |kind: &str| {
            let run = space.build(&["--sandbox", kind]);
            space.build(&["--sandbox", kind]).built(&[]);
            space.stacker(&["--sandbox", kind, "clean", "--all"]).ends_with(0);
            run.layer("app").diff_ids
        };
        let full = of("full");
        assert_eq!(of("single-id"), full);
        assert_eq!(of("none"), full);
    });
}

#[test]
fn an_edit_of_a_mode_alone_counts_here_and_not_for_imports() {
    for_each_identity(|space| {
        space.write("dir/f", "file");
        space.write("dir/sub/g", "g");
        space.stackerfile(
            "
over: {from: {type: built, tag: base}, overlay_dirs: [{source: dir, dest: /d}]}
looked: {from: {type: built, tag: over}, run: stat -c %a /d/f /d/sub /d > /out}
imported: {from: {type: built, tag: base}, imports: [{path: dir, dest: /d}]}
mounted: {from: {type: built, tag: base}, imports: [dir], run: cat /stacker/imports/dir/f > /out}
",
        );
        space.build(&[]);
        assert_eq!(out(space, "looked"), "644\n755\n755\n");
        space.build(&[]).built(&[]);
        for (name, mode, reason, shown) in [
            ("dir/f", 0o600, "d/f has another mode", "600\n755\n755\n"),
            ("dir/sub", 0o2711, "d/sub has another mode", "600\n2711\n755\n"),
            ("dir", 0o1755, "d has another mode", "600\n2711\n1755\n"),
            ("dir/f", 0o644, "d/f has another mode", "644\n2711\n1755\n"),
        ] {
            chmod(space, name, mode);
            let run = space.build(&[]);
            run.built(&["over", "looked"]);
            assert_eq!(run.layer("over").reason.unwrap(), reason, "{run}");
            assert_eq!(out(space, "looked"), shown);
            space.build(&[]).built(&[]);
        }
        space.write("dir/f", "FILE");
        space.build(&[]).built(&["over", "looked", "imported", "mounted"]);
    });
}

#[test]
fn what_is_ignored_and_what_is_stackers_own_stays_out() {
    for_each_identity(|space| {
        space.write("src/f", "file");
        space.write(".stackerignore", "metadata.json\n*.o\n");
        space.write("src/f.o", "object");
        space.stackerfile("app: {from: {type: built, tag: base}, overlay_dirs: [{source: ., dest: /all}]}\n");
        space.build(&[]);
        assert_eq!(space.file("app", "all/src/f").unwrap(), "file");
        for name in ["all/src/f.o", "all/.stackerignore", "all/metadata.json", "all/oci/index.json"] {
            assert!(space.file("app", name).is_none(), "{name}");
        }
        space.build(&[]).built(&[]);
        space.write("src/f.o", "another object");
        space.build(&[]).built(&[]);
    });
}

#[test]
fn what_cannot_be_laid_over_is_shown_with_its_place() {
    let space = Space::new();
    space.write("file", "file");
    nix::unistd::mkfifo(&space.path("dir-with-fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(space.path("dir")).unwrap();
    fs::rename(space.path("dir-with-fifo"), space.path("dir/fifo")).unwrap();
    for (source, why) in [
        ("nowhere", "nowhere does not exist"),
        ("file", "file is not a directory, as `overlay_dirs` needs"),
        ("dir", "dir/fifo: it is a fifo"),
    ] {
        space.stackerfile(&format!(
            "app:\n  from: {{type: built, tag: base}}\n  overlay_dirs:\n    - source: {source}\n      dest: /x\n"
        ));
        let run = space.stacker(&["build"]).ends_with(1);
        run.says(why).says("stacker.yaml:6:15").says(&format!("source: {source}")).says(&"^".repeat(source.len()));
    }
}
