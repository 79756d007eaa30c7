//! Imports: where they go, what they look like there, and when they are read.

mod support;

use std::time::Duration;

use rustix::fs::inotify;
use support::space::{Space, for_each_identity, for_each_store};

#[test]
fn imports_with_a_dest_follow_the_table() {
    let cases = [
        ("f", "/d/", "/d/f"),
        ("f", "/d2/x", "/d2/x"),
        ("f", "/tmp", "/tmp/f"),
        ("dir", "/g", "/g/inner"),
        ("dir/", "/g2", "/g2/inner"),
        ("dir/", "/g3/", "/g3/inner"),
        ("dir", "/g4/", "/g4/dir/inner"),
        ("f", "/merged/x", "/bin/x"),
    ];
    for_each_identity(|space| {
        space.write("f", "file");
        space.write("dir/inner", "inner");
        let mut imports = String::new();
        let mut checks = String::new();
        for (path, dest, place) in cases {
            imports += &format!("    - {{path: {path}, dest: {dest}}}\n");
            checks += &format!("    test \"$(stat -c '%F %u %g %a' {place})\" = 'regular file 0 0 644'\n");
        }
        space.stackerfile(&format!(
            "
linked: {{from: {{type: built, tag: base}}, run: ln -s bin /merged}}
app:
  from: {{type: built, tag: linked}}
  imports:
{imports}  run: |
{checks}    test ! -e /stacker/imports/f
    test -L /merged
"
        ));
        space.build(&[]);
        assert_eq!(space.file("app", "g4/dir/inner").unwrap(), "inner");
        assert_eq!(space.file("app", "bin/x").unwrap(), "file");
        space.build(&[]).built(&[]);
    });
}

#[test]
fn imports_without_a_dest_are_seen_by_the_run_alone() {
    for_each_identity(|space| {
        space.write("f", "file");
        space.write("dir/deep/inner", "inner");
        space.write("dir/tool", "#!/bin/sh\necho ran\n");
        std::os::unix::fs::symlink("nowhere", space.path("dir/dangling")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(space.path("dir/tool"), mode).unwrap();
        space.stackerfile(
            "
app:
  from: {type: built, tag: base}
  imports: [f, {path: dir, mode: '0640', uid: 5}]
  run: |
    test \"$(stat -c '%u %g %a' /stacker/imports/f)\" = '0 0 644'
    test \"$(stat -c '%u %g %a' /stacker/imports/dir/deep/inner)\" = '5 0 640'
    test \"$(readlink /stacker/imports/dir/dangling)\" = nowhere
    ! touch /stacker/imports/new
    ! touch /stacker/imports/dir/new
    cat /stacker/imports/f > /out
plain:
  from: {type: built, tag: base}
  imports: [dir]
  run: |
    test \"$(stat -c %a /stacker/imports/dir/tool)\" = 755
    /stacker/imports/dir/tool
",
        );
        space.build(&[]).says("plain| ran");
        assert_eq!(space.file("app", "out").unwrap(), "file");
        assert!(space.file("app", "stacker/imports/f").is_none() && space.file("app", "stacker/").is_none());
        space.write("f", "edited");
        let run = space.build(&[]);
        run.built(&["app"]);
        let reason = run.layer("app").reason.unwrap();
        assert!(reason.starts_with("f changed"), "{reason} in {run}");
        assert_eq!(space.file("app", "out").unwrap(), "edited");
    });
}

#[test]
fn the_old_import_shows_its_files_in_two_places() {
    for_each_store(|space| {
        space.write("f", "file");
        space.write("dir/inner", "inner");
        let layers = |directive: &str| {
            format!(
                "
tools: {{from: {{type: built, tag: base}}, run: echo tool > /tool}}
app:
  from: {{type: built, tag: base}}
  {directive}:
    - {{path: f, mode: 0600}}
    - dir
    - 'stacker://tools/tool'
    - {{path: f, dest: /in/}}
  run: |
    for at in /stacker/imports /stacker; do
      if test -e $at/f; then
        test \"$(stat -c %a $at/f)\" = 600
        ! touch $at/f
        cat $at/f $at/dir/inner $at/tool >> /out
      fi
    done
    test ! -e /stacker/in
    echo kept > /stacker/new
"
            )
        };
        space.stackerfile(&layers("import"));
        space.build(&[]).says("warning: `import` is deprecated").says("stacker.yaml:7:3");
        assert_eq!(space.file("app", "out").unwrap(), "fileinnertool\nfileinnertool\n");
        assert_eq!(space.file("app", "in/f").unwrap(), "file");
        assert!(space.file("app", "stacker/f").is_none() && space.file("app", "stacker/").is_none());
        space.build(&[]).built(&[]);
        space.write("dir/inner", "edited");
        let run = space.build(&[]);
        run.built(&["app"]);
        assert_eq!(run.layer("app").reason.unwrap(), "dir/inner changed");
        space.stackerfile(&layers("imports"));
        let run = space.build(&[]);
        run.built(&["app"]).says_not("deprecated");
        assert_eq!(run.layer("app").reason.unwrap(), "import /stacker/dir removed, 2 more");
        assert_eq!(space.file("app", "out").unwrap(), "fileeditedtool\n");
    });
}

#[test]
fn files_of_another_layer_come_into_scratch() {
    for_each_identity(|space| {
        space.stackerfile(
            "
builder:
  from: {type: built, tag: base}
  run: |
    mkdir -p /out/deep
    echo '#!/bin/sh' > /out/tool
    chown 7:8 /out/tool
    chmod 4755 /out/tool
    ln -s tool /out/link
    echo x > /out/deep/x
image:
  from: {type: scratch}
  imports:
    - {path: 'stacker://builder/out/tool', dest: /bin/}
    - {path: 'stacker://builder/out', dest: /all}
    - {path: 'stacker://base/bin/busybox', dest: /bin/sh}
  cmd: /bin/sh
check:
  from: {type: built, tag: image}
  run: |
    exec 2>&1
    /bin/sh -c true
    echo checked > /checked
looked:
  from: {type: built, tag: base}
  imports: ['stacker://image/bin', 'stacker://builder/out/link']
  run: |
    test \"$(stat -c '%u %g %a' /stacker/imports/bin/tool)\" = '7 8 4755'
    test -f /stacker/imports/link
",
        );
        space.build(&[]);
        assert_eq!(space.file("image", "all/deep/x").unwrap(), "x\n");
        assert_eq!(space.file("check", "checked").unwrap(), "checked\n");
        space.build(&[]).built(&[]);
        // What is imported is its content, not the layer.
        space.edit("stacker.yaml", "echo x >", "echo unrelated > /unrelated; echo x >");
        let run = space.build(&[]);
        let built: Vec<_> = run.metadata().layers.into_iter().filter(|layer| layer.reason.is_some()).collect();
        assert!(built.iter().all(|layer| layer.name == "builder" || layer.name == "image"), "{run}");
    });
}

#[test]
fn a_hash_that_does_not_match_fails() {
    let space = Space::new();
    space.write("f", "file");
    let import =
        |hash: &str| format!("app:\n  from: {{type: built, tag: base}}\n  imports: [{{path: f, hash: {hash}}}]\n");
    // sha256 of `file`.
    let right = "3B9C358F36F0A31B6AD3E14F309C7CF198AC9246E8316F9CE543D5B19AC02B80";
    space.stackerfile(&import(right));
    space.build(&[]);
    space.stackerfile(&import(&right.replace("3B", "3C")));
    space.stacker(&["build"]).ends_with(1).says("3c9c358f").says("3b9c358f");
}

#[test]
fn nothing_to_do_opens_no_imported_file() {
    let space = Space::new();
    let names: Vec<String> = (0..20).map(|number| format!("dir/{number}")).collect();
    names.iter().for_each(|name| space.write(name, name));
    space.write("f", "file");
    space.stackerfile(
        "
app:
  from: {type: built, tag: base}
  overlay_dirs: [{source: dir, dest: /over}]
  imports: [f, {path: dir, dest: /dir}]
  run: cat /stacker/imports/f
",
    );
    // Files that are too young are never trusted unread.
    std::thread::sleep(Duration::from_millis(2100));
    space.build(&[]);
    let watcher = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    for name in names.iter().map(String::as_str).chain(["f", "base.tar"]) {
        let events = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
        inotify::add_watch(&watcher, space.path(name), events).unwrap();
    }
    // No sandbox either: each would make a draft.
    inotify::add_watch(&watcher, space.roots_dir().join("drafts"), inotify::WatchFlags::CREATE).unwrap();
    let run = space.build(&[]);
    run.built(&[]);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watcher, &mut buffer);
    assert!(events.next().is_err(), "an imported file was opened, or a draft made, by {run}");
    // An edit is seen, also one of equal length.
    space.write("f", "FILE");
    space.build(&[]).built(&["app"]).says("app| FILE");
}

#[test]
fn a_script_edit_does_not_import_again() {
    let space = Space::new();
    space.write("big/f", vec![b'x'; 1 << 20]);
    space.stackerfile(
        "
app:
  from: {type: built, tag: base}
  imports: [{path: big, dest: /big}]
  run: wc -c /big/f
",
    );
    let before = space.build(&[]);
    space.edit("stacker.yaml", "wc -c", "wc -lc");
    let after = space.build(&[]);
    assert_eq!(before.layer("app").diff_ids[..2], after.layer("app").diff_ids[..2]);
    after.built(&["app"]).says_not("import");
}
