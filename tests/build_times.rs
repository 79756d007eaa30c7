//! File times: programs that compare them do the right thing in a layer that stands on the work of another one.
//!
//! Were all times the same, make would take an old object for up to date, and Python an old __pycache__.

mod support;

use std::fs::File;
use std::time::{Duration, UNIX_EPOCH};

use support::space::{Space, for_each_identity};

/// An object for each source; what happened can be read from what make echoes.
const MAKEFILE: &str = "all: a.o b.o\n%.o: %.c\n\ttr a-z A-Z < $< > $@\n";

/// The ways to bring a changed source into a child layer.
const MAKE: &str = "
first:
  from: {type: built, tag: base}
  imports: [{path: src, dest: /src}]
  run: make -C /src
with-dest:
  from: {type: built, tag: first}
  imports: [{path: changed/a.c, dest: /src/a.c}]
  run: make -C /src
copied:
  from: {type: built, tag: first}
  imports: [changed]
  run: |
    cp /stacker/imports/changed/a.c /src/a.c
    make -C /src
copied-with-times:
  from: {type: built, tag: first}
  imports: [changed]
  run: |
    cp -p /stacker/imports/changed/a.c /src/a.c
    make -C /src
mounted-first:
  from: {type: built, tag: base}
  imports: [src]
  run: |
    mkdir /src
    make -C /src -f /stacker/imports/src/Makefile VPATH=/stacker/imports/src
mounted:
  from: {type: built, tag: mounted-first}
  imports: [changed]
  run: make -C /src -f /stacker/imports/changed/Makefile VPATH=/stacker/imports/changed
later:
  from: {type: built, tag: first}
  imports: [changed]
  run: cp /stacker/imports/changed/a.c /src/a.c
on-later:
  from: {type: built, tag: later}
  run: make -C /src
";

/// The layers of [`MAKE`] whose object must follow the changed source.
const REBUILT: [&str; 5] = ["with-dest", "copied", "copied-with-times", "mounted", "on-later"];

/// Writes a file that is older than anything that was built: only its layer can make it new.
fn write_old(space: &Space, name: &str, text: &str) {
    space.write(name, text);
    let file = File::options().write(true).open(space.path(name)).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
}

fn on_debian(space: &Space, layers: &str) {
    space.write("base.tar", support::debian::tar());
    space.stackerfile(layers);
}

#[test]
fn make_rebuilds_what_a_later_layer_changed_and_nothing_else() {
    for_each_identity(|space| {
        write_old(space, "src/Makefile", MAKEFILE);
        write_old(space, "src/a.c", "old a");
        write_old(space, "src/b.c", "old b");
        write_old(space, "changed/Makefile", MAKEFILE);
        write_old(space, "changed/a.c", "new a");
        write_old(space, "changed/b.c", "old b");
        // Whoever comes later finds all of it up to date.
        let settled = |tag| format!("check-{tag}: {{from: {{type: built, tag: {tag}}}, run: make -q -C /src}}\n");
        let settled: String = ["first", "with-dest", "copied", "copied-with-times", "on-later"].map(settled).concat();
        on_debian(space, &format!("{MAKE}{settled}"));
        let run = space.build(&[]);
        for tag in REBUILT {
            assert_eq!(space.file(tag, "src/a.o").as_deref(), Some("NEW A"), "in {tag} of {run}");
        }
        for tag in REBUILT.iter().filter(|tag| **tag != "mounted") {
            run.says_not(&format!("{tag}| tr a-z A-Z < b.c"));
        }
        run.says("first| tr a-z A-Z < b.c > b.o").says_not("Clock skew").says_not("in the future");
        assert_eq!(space.file("first", "src/a.o").as_deref(), Some("OLD A"));

        // Once more, with all but the changed layers from the cache.
        write_old(space, "changed/a.c", "fix a");
        let run = space.build(&[]);
        for tag in REBUILT {
            assert_eq!(space.file(tag, "src/a.o").as_deref(), Some("FIX A"), "in {tag} of {run}");
        }
    });
}

/// A parent that ran its program once, so that it has a __pycache__, and children that fix a module of it.
const PYTHON: &str = "
first:
  from: {type: built, tag: base}
  imports: [{path: app, dest: /app}]
  run: |
    python3 /app/main.py > /said
    test -s /app/__pycache__/module.*.pyc
second:
  from: {type: built, tag: first}
  run: |
    python3 -v /app/main.py 2>&1 | grep 'matches /app/module.py'
with-dest:
  from: {type: built, tag: first}
  imports: [{path: fix/module.py, dest: /app/module.py}]
  run: python3 /app/main.py > /said
copied:
  from: {type: built, tag: first}
  imports: [fix]
  run: |
    cp /stacker/imports/fix/module.py /app/module.py
    python3 /app/main.py > /said
copied-with-times:
  from: {type: built, tag: first}
  imports: [fix]
  run: |
    cp -p /stacker/imports/fix/module.py /app/module.py
    python3 /app/main.py > /said
written:
  from: {type: built, tag: first}
  run: echo 'WORD = \"fix\"' > /app/module.py
on-written:
  from: {type: built, tag: written}
  run: python3 /app/main.py > /said
";

#[test]
fn python_runs_a_module_that_a_later_layer_fixed() {
    for_each_identity(|space| {
        let (old, new) = ("WORD = \"bug\"\n", "WORD = \"fix\"\n");
        assert_eq!(old.len(), new.len(), "Python compares the length too");
        write_old(space, "app/main.py", "import module\nprint(module.WORD)\n");
        write_old(space, "app/module.py", old);
        write_old(space, "fix/module.py", new);
        on_debian(space, PYTHON);
        let run = space.build(&[]);
        assert_eq!(space.file("first", "said").as_deref(), Some("bug\n"));
        for tag in ["with-dest", "copied", "copied-with-times", "on-written"] {
            assert_eq!(space.file(tag, "said").as_deref(), Some("fix\n"), "in {tag} of {run}");
        }
    });
}
