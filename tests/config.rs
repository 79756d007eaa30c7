//! The configuration file, and where lines are told.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::identity::{Identity, identities};
use support::skipped;
use support::space::{Run, Space, for_each_identity};

const LAYER: &str = "app: {from: {type: built, tag: base}, run: 'echo told; echo app > /app'}\n";

/// The program with no directories but those that are said, and with a user's configuration directory.
fn bare(space: &Space, arguments: &[&str]) -> Run {
    let program = space.directory().join("bin/stacker");
    let mut command = space.other_program(&[&[program.to_str().unwrap()], arguments].concat());
    command.env("XDG_CONFIG_HOME", space.path("conf")).env("XDG_CACHE_HOME", space.path("cache"));
    space.run_of(arguments, command.output().unwrap())
}

#[test]
fn the_configuration_file_says_where_things_lie() {
    for_each_identity(|space| {
        space.stackerfile(LAYER);
        let roots = space.roots_dir();
        let text = format!("stacker_dir: a/store # ours\nrootfs_dir: {}\noci_dir: a/oci\n", roots.display());
        space.write("conf/stacker/conf.yaml", text);
        let told = bare(space, &["--debug", "build"]).ends_with(0);
        let here = |name: &str| space.path(name).display().to_string();
        told.says(&format!("stacker directory {}, roots directory {}", here("a/store"), roots.display()));
        assert!(space.path("a/store").is_dir());
        assert!(
            space.path("a/oci/index.json").exists() && !space.path("oci").exists() && !space.path("cache").exists()
        );
        // Flags win, one by one or all of them.
        let own = |arguments: &[&str]| bare(space, &[&["--debug", "build", "--order-only"], arguments].concat());
        let (a, b) = (here("a/store"), here("b"));
        own(&["--oci-dir", "b"])
            .says(&format!("stacker directory {a}, roots directory {}, layout {b}", roots.display()));
        own(&["--stacker-dir", "b"]).says(&format!("stacker directory {b}, roots directory {}", roots.display()));
        own(&["--work-dir", "b"]).says(&format!("stacker directory {b}/.stacker, roots directory {b}/roots, "));
        space.write("other.yaml", "work_dir: c\n");
        let c = here("c");
        let other = own(&["--config", "other.yaml"]);
        other.says(&format!("stacker directory {c}/.stacker, roots directory {c}/roots, layout {}", here("oci")));
        space.write("empty.yaml", "# nothing\n");
        own(&["--config", "empty.yaml"]).says(&format!("stacker directory {}/stacker", here("cache")));
        // The store that it names is the user's, which `clean` keeps.
        bare(space, &["clean"]).ends_with(0);
        assert!(space.path("a/store").exists() && !space.path("a/oci").exists());
    });
}

#[test]
fn mistakes_in_the_configuration_file_have_a_place() {
    let space = Space::new();
    space.stackerfile(LAYER);
    space.write("wrong.yaml", "stacker_dir: x\nroots_dir: y\n");
    let wrong = bare(&space, &["--config", "wrong.yaml", "build"]).ends_with(2);
    wrong.says("wrong.yaml").says("roots_dir").says("rootfs_dir").says("line 2");
    space.write("wrong.yaml", "stacker_dir: [x]\n");
    bare(&space, &["--config", "wrong.yaml", "build"]).ends_with(2).says("line 1");
    bare(&space, &["build", "--config", "none.yaml"]).ends_with(2).says("--config: there is no none.yaml");
    space.write("conf/stacker/conf.yaml", "- x\n");
    bare(&space, &["build"]).ends_with(2).says("conf/stacker/conf.yaml is no configuration file");
    // What needs no directories works.
    bare(&space, &["completions", "bash"]).ends_with(0);
}

#[test]
fn lines_go_to_a_file_with_the_time() {
    for_each_identity(|space| {
        space.stackerfile(&LAYER.replace("echo app", "cat /nothing; echo app"));
        space.write("log", "before\n");
        let directories = space.command_line();
        let run = |arguments: &[&str]| {
            let words: Vec<&str> = directories.split(' ').chain(arguments.iter().copied()).collect();
            space.run_of(arguments, space.other_program(&words).output().unwrap())
        };
        let failed = run(&["--log-file", "log", "--log-timestamp", "--progress", "build"]).ends_with(1);
        let log = fs::read_to_string(space.path("log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines[0], "before");
        for line in &lines[1..3] {
            let time = line.split(' ').next().unwrap();
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        }
        assert!(log.contains("Z app| told\n") && log.contains("Z error: app: "), "{log}");
        assert_eq!(failed.stderr, "");
        // Why nothing was built at all is said on stderr too.
        run(&["--log-file", "log", "build", "no-such"]).ends_with(2).says("error: there is no layer `no-such`");
        assert!(fs::read_to_string(space.path("log")).unwrap().ends_with("error: there is no layer `no-such`\n"));
        run(&["--log-file", "none/log", "build"]).ends_with(3).says("cannot open none/log");
        // Without a file the lines are on stderr.
        space.edit("stacker.yaml", "cat /nothing; ", "");
        run(&["--log-timestamp", "--no-progress", "build"]).ends_with(0).says("Z app| told\n");
        run(&["--quiet", "--log-file", "quiet", "build", "--no-cache"]).ends_with(0);
        assert_eq!(fs::read_to_string(space.path("quiet")).unwrap(), "");
        run(&["--progress", "--no-progress", "build"]).ends_with(2);
        run(&["--progress", "build", "--progress", "plain"]).ends_with(0).says("2 layers: 2 hits");
    });
}

/// `sudo -u` and setpriv may leave HOME as it is.
#[test]
fn the_home_of_another_has_no_configuration_for_us() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can be two users");
    }
    for identity in identities() {
        let space = Space::of(identity);
        space.stackerfile(LAYER);
        let conf = space.path("conf");
        fs::create_dir_all(conf.join("stacker")).unwrap();
        fs::write(conf.join("stacker/conf.yaml"), "oci_dir: elsewhere\n").unwrap();
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o700)).unwrap();
        let run = bare(&space, &["--debug", "build", "--order-only"]).ends_with(0);
        let layout = if identity == Identity::Own { "elsewhere" } else { "oci" };
        run.says(&format!("layout {}", space.path(layout).display()));
        // A file of one's own that cannot be read is a mistake.
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(conf.join("stacker/conf.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
        if identity != Identity::Own {
            bare(&space, &["build", "--order-only"]).ends_with(3).says("cannot read").says("conf.yaml");
        }
    }
}
