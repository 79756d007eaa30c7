//! Looking into layers and into what failed runs leave.

mod support;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::identity::Identity;
use support::inner::containers;
use support::space::{Run, Space, for_each_identity, for_each_store};
use support::terminal::Terminal;

const LAYERS: &str = "
lib:
  from: {type: built, tag: base}
  imports: [note]
  run: |
    echo lib > /lib
    rm -r /data
app:
  from: {type: built, tag: lib}
  imports: [note]
  build_env: {GIVEN: 'a b'}
  run: |
    echo half > /half
    rm /lib
    mkdir /lib
    chmod 700 /
    echo left > /stacker/left
    exit 3
";

fn prepare(space: &Space) {
    space.write("note", "imported\n");
    space.stackerfile(LAYERS);
}

/// `stacker shell ARGUMENTS -- sh -c SCRIPT`.
fn sh(space: &Space, arguments: &[&str], script: &str) -> Run {
    space.stacker(&[&["shell"], arguments, &["--", "sh", "-c", script]].concat())
}

/// Names in `drafts` and below it, as root of the sandbox sees them.
fn drafts(space: &Space) -> Vec<String> {
    let mut command = space.other_program(&["find", "drafts", "trash", "-mindepth", "1"]);
    let output = command.current_dir(space.roots_dir()).output().unwrap();
    // What subordinate ids own may be closed to the user.
    let mut names: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn the_views_of_a_layer() {
    for_each_identity(|space| {
        prepare(space);
        space
            .stacker(&["build"])
            .ends_with(1)
            .says("look into it: stacker shell app --failed (or build with --shell-fail)");
        let kept = drafts(space);
        // As it came out, before its script, and after a failure.
        assert_eq!(sh(space, &["lib"], "cat /lib; ls -d /data /stacker/imports/*").ends_with(1).stdout, "lib\n");
        let before = sh(space, &["lib", "--before"], "ls /data/one; cat /stacker/imports/note /lib").ends_with(1);
        assert_eq!(before.stdout, "/data/one\nimported\n", "{before}");
        let look = "echo $GIVEN; cat /half /stacker/imports/note /stacker/left; ls -A /lib; ls -d /data; stat -c %a /";
        let failed = sh(space, &["app", "--failed"], look).ends_with(0);
        assert_eq!(failed.stdout, "a b\nhalf\nimported\nleft\n700\n", "{failed}");
        failed.says("/data: No such file");
        // The script itself is at hand.
        sh(space, &["app", "--failed"], "/stacker/run").ends_with(1).says("rm: '/lib' is a directory");
        // Nothing of it is kept.
        let wreck = "rm -r /etc /half /bin/wc /stacker/left; echo x > /new; echo y > /stacker/new";
        sh(space, &["app", "--failed"], wreck).ends_with(0);
        sh(space, &["lib"], "rm -r /bin /lib").ends_with(0);
        sh(space, &["app", "--failed"], "cat /half /bin/wc /stacker/left > /dev/null && ! ls /new /stacker/new")
            .ends_with(0);
        sh(space, &["lib"], "cat /lib").ends_with(0);
        assert_eq!(drafts(space), kept);
    });
}

#[test]
fn the_store_is_as_it_was() {
    let space = Space::new();
    prepare(&space);
    space.edit("stacker.yaml", "exit 3", "chmod 755 /");
    let built = space.build(&[]);
    sh(&space, &["app"], "rm -r /etc; echo x >> /half; touch /stacker/x").ends_with(0);
    sh(&space, &["app", "--before"], "rm -r /etc; /stacker/run").ends_with(0);
    assert_eq!(drafts(&space), Vec::<String>::new());
    let again = space.build(&[]);
    again.built(&[]);
    assert_eq!(again.digests(), built.digests());
    assert_eq!(space.build(&["--no-cache"]).digests(), built.digests());
}

#[test]
fn exit_codes_and_pipes() {
    for_each_identity(|space| {
        prepare(space);
        space.build(&["lib"]);
        sh(space, &["lib"], "exit 7").ends_with(7);
        sh(space, &["lib"], "kill -9 $$").ends_with(137);
        space.stacker(&["shell", "lib", "--", "no-such"]).ends_with(127).says("no-such: command not found");
        space.stacker(&["shell", "lib", "--", "/etc"]).ends_with(126);
        let arguments = ["shell", "lib", "--", "sh", "-c", "cat; echo err >&2"];
        let mut child = space.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"through a pipe").unwrap();
        let run = space.run_of(&arguments, child.wait_with_output().unwrap()).ends_with(0);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("through a pipe", "err\n"));
        // Without a command it is a shell, which reads its input.
        let mut child = space.command(&["shell", "lib"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"cat /lib; exit 4").unwrap();
        assert_eq!(space.run_of(&["shell", "lib"], child.wait_with_output().unwrap()).ends_with(4).stdout, "lib\n");
    });
}

#[test]
fn what_is_not_there_is_said() {
    let space = Space::new();
    prepare(&space);
    space
        .stacker(&["shell", "app"])
        .ends_with(1)
        .says("layer base")
        .says("is not built; build it with: stacker build base");
    space.stacker(&["shell", "app", "--failed"]).ends_with(1).says("no failed run of layer app is kept");
    space.build(&["lib"]);
    space.stacker(&["shell", "app"]).ends_with(1).says("build it with: stacker build app");
    sh(&space, &["app", "--before"], "cat /lib").ends_with(0);
    space.stacker(&["shell", "base", "--before"]).ends_with(2).says("layer base has no `run`");
    space.stacker(&["shell", "ap"]).ends_with(2).says("did you mean `app`?");
    // An edit makes it another layer.
    space.edit("stacker.yaml", "echo lib", "echo other");
    space.stacker(&["shell", "lib"]).ends_with(1).says("build it with: stacker build lib");
    fs::rename(space.path("stacker.yaml"), space.path("other.yaml")).unwrap();
    let other = space.path("other.yaml");
    let line = format!("build it with: stacker build -f {} lib", other.display());
    space.stacker(&["shell", "-f", "other.yaml", "lib"]).ends_with(1).says(&line);
    space
        .stacker(&["build", "-f", "other.yaml", "app"])
        .ends_with(1)
        .says(&format!("stacker shell app --failed -f {}", other.display()));
}

#[test]
fn a_command_runs_after_a_failure() {
    for_each_identity(|space| {
        prepare(space);
        let command = "cat /half /stacker/imports/note; echo $GIVEN; echo more > /more; exit 9";
        let run = space.stacker(&["build", "--on-run-failure", command]).ends_with(1);
        assert_eq!(run.stdout, "half\nimported\na b\n", "{run}");
        run.says("1 failed");
        // It worked on the draft itself.
        sh(space, &["app", "--failed"], "cat /more").ends_with(0);
        // Nothing failed, nothing runs.
        space.edit("stacker.yaml", "exit 3", "chmod 755 /");
        assert_eq!(space.build(&["--on-run-failure", command]).stdout, "");
    });
}

#[test]
fn a_shell_after_a_failure() {
    for_each_store(|space| {
        prepare(space);
        let line = "stty rows 31 cols 71; $STACKER build --shell-fail; echo code=$?; stty -a | grep -o -- '.icanon'";
        let mut terminal = Terminal::start(space, line);
        terminal.shows("a shell in what app left");
        terminal.enters("cat /half /stacker/imports/note; echo $((41 + 1)) $GIVEN", "half\r\nimported\r\n42 a b");
        terminal.enters("tty; stty size; echo TERM=$TERM", "/dev/pts/0\r\n31 71\r\nTERM=vt100");
        terminal.enters("echo $((1 + 1))ready; sleep 100", "2ready");
        std::thread::sleep(Duration::from_millis(300));
        terminal.types("\u{3}");
        terminal.enters("echo code$?", "code130");
        // Job control.
        terminal.enters("echo $((2 + 1))ready; sleep 100", "3ready");
        std::thread::sleep(Duration::from_millis(300));
        terminal.types("\u{1a}");
        terminal.enters("jobs", "Stopped");
        terminal.enters("fg", "fg\r\nsleep 100");
        std::thread::sleep(Duration::from_millis(300));
        terminal.types("\u{3}");
        terminal.types("echo kept > /kept; exit 5\n");
        let (_, text) = terminal.ends();
        assert!(text.contains("code=1\r\n icanon"), "the exit code, and what became of the terminal: {text}");
        sh(space, &["app", "--failed"], "cat /kept").ends_with(0);
    });
}

#[test]
fn a_shell_inside_a_container() {
    for inner in containers() {
        let space = Space::of(Identity::Inner(inner));
        prepare(&space);
        space.stacker(&["build"]).ends_with(1);
        let mut terminal = Terminal::start(&space, "$STACKER shell --all . app --failed; echo code=$?");
        terminal.enters("cat /half; tty; echo $((20 + 22))", "half\r\n/dev/pts/0\r\n42");
        terminal.types("exit 8\n");
        assert!(terminal.ends().1.contains("code=8"), "in {inner}");
    }
}

#[test]
fn the_shell_comes_after_all_else() {
    let space = Space::new();
    space.stackerfile(
        "
bad: {from: {type: built, tag: base}, run: exit 3}
slow: {from: {type: built, tag: base}, run: sleep 2; echo slow > /slow}
never: {from: {type: built, tag: slow}, run: echo never > /never}
",
    );
    let line = "$STACKER build --jobs 3 --progress tty --shell-fail --metadata-file metadata.json; echo code=$?";
    let mut terminal = Terminal::start(&space, line);
    terminal.shows("a shell in what bad left");
    let (begin, _) = terminal.text().split_once("a shell in what").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(begin.contains("built slow") && begin.contains("1 skipped"), "{begin}");
    std::thread::sleep(Duration::from_millis(500));
    terminal.enters("echo $((41 + 1))", "42\r\n");
    terminal.types("exit\n");
    let (_, text) = terminal.ends();
    let shell = text.split_once("a shell in what").unwrap().1;
    assert!(!shell.contains("slow") && !shell.contains("never"), "something else is shown: {shell}");
    assert!(shell.contains("code=1"), "{shell}");
}

#[test]
fn the_size_of_the_terminal_follows() {
    let space = Space::new();
    prepare(&space);
    space.build(&["lib"]);
    let line = "stty rows 30 cols 70; exec 3<&0; (until [ -e go ]; do sleep 0.05; done; stty rows 40 cols 90 <&3) & \
                $STACKER shell lib; echo code=$?";
    let mut terminal = Terminal::start(&space, line);
    terminal.enters("stty size", "30 70");
    space.write("go", "");
    terminal.enters("until stty size | grep '40 90'; do sleep 0.1; done", "\r\n40 90");
    // More than any buffer on the way holds, typed at once while nobody reads.
    let many = format!("sleep 1; wc -c\n{}", "0123456789\n".repeat(3000));
    terminal.types(&many);
    terminal.enters("\u{4}", "33000");
    terminal.types("exit 6\n");
    assert!(terminal.ends().1.contains("code=6"));
}

#[test]
fn a_signal_ends_the_shell_and_leaves_nothing() {
    for_each_identity(|space| {
        prepare(space);
        space.stacker(&["build"]).ends_with(1);
        let kept = drafts(space);
        for (signal, code) in [("TERM", "143"), ("KILL", "137")] {
            let line = "$STACKER shell app --failed & echo $! > pid; fg; echo code=$?; stty -a | grep -o -- '.icanon'";
            let mut terminal = Terminal::start(space, &format!("set -m; {line}"));
            terminal.enters("cat /half; echo $((20 + 22))", "42");
            assert_ne!(drafts(space), kept);
            let pid = fs::read_to_string(space.path("pid")).unwrap();
            let killed = space.other_program(&["kill", &format!("-{signal}"), pid.trim()]).status().unwrap();
            assert!(killed.success());
            terminal.shows(&format!("code={code}"));
            let (_, text) = terminal.ends();
            // Nobody can clean up after SIGKILL but the shell that started it.
            assert!(signal == "KILL" || text.contains("\r\n icanon"), "{text}");
            let start = Instant::now();
            while drafts(space) != kept {
                assert!(start.elapsed() < Duration::from_secs(10), "left by {signal}: {:?}", drafts(space));
                std::thread::sleep(Duration::from_millis(20));
            }
            sh(space, &["app", "--failed"], "cat /half").ends_with(0);
        }
    });
}

#[test]
fn a_second_signal_ends_at_once_and_leaves_the_terminal_as_it_was() {
    let space = Space::new();
    prepare(&space);
    space.build(&["lib"]);
    let line = "set -m; $STACKER shell lib -- sh -c 'trap \"\" TERM HUP; echo up; while :; do sleep 1; done' & \
                echo $! > pid; fg; echo code=$?; stty -a | grep -o -- '.icanon'";
    let terminal = Terminal::start(&space, line);
    terminal.shows("up\r\n");
    let pid = fs::read_to_string(space.path("pid")).unwrap();
    let start = Instant::now();
    for _ in 0..2 {
        assert!(space.other_program(&["kill", pid.trim()]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(200));
    }
    terminal.shows("code=143\r\n icanon");
    assert!(start.elapsed() < Duration::from_secs(2), "it waited for a command that ignores signals");
    let start = Instant::now();
    while !drafts(&space).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "left: {:?}", drafts(&space));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn building_again_takes_nothing_from_an_open_shell() {
    let space = Space::new();
    prepare(&space);
    space.stacker(&["build"]).ends_with(1);
    let mut terminal = Terminal::start(&space, "$STACKER shell app --failed");
    terminal.enters("cat /half; echo $((20 + 22))", "42");
    sh(&space, &["app", "--failed"], "true").ends_with(1).says("open the failed draft: another shell has it open");
    space.edit("stacker.yaml", "echo half", "echo new");
    space.stacker(&["build"]).ends_with(1);
    terminal.enters("cat /half /stacker/left; echo $((20 + 23))", "half\r\nleft\r\n43");
    terminal.types("exit\n");
    terminal.ends();
    assert_eq!(sh(&space, &["app", "--failed"], "cat /half").ends_with(0).stdout, "new\n");
    assert!(drafts(&space).iter().all(|name| name.starts_with("drafts/f")), "{:?}", drafts(&space));
}

#[test]
fn exec_and_chroot_take_the_arguments_of_the_go_tool() {
    for_each_identity(|space| {
        prepare(space);
        space.stacker(&["exec", "lib", "--", "true"]).ends_with(1).says("is not built; build it with: stacker build");
        space.build(&["lib"]);
        for name in ["exec", "chroot"] {
            let run = |arguments: &[&str]| {
                let directories = space.command_line();
                let mut command = space.other_program(&directories.split(' ').collect::<Vec<_>>());
                command.arg(name).args(arguments);
                let output = command.output().unwrap();
                space.run_of(&[&[name], arguments].concat(), output)
            };
            // What follows the command is the command's.
            assert_eq!(run(&["-f", "stacker.yaml", "lib", "ls", "-d", "/lib"]).ends_with(0).stdout, "/lib\n");
            assert_eq!(run(&["lib", "--", "cat", "/lib"]).ends_with(0).stdout, "lib\n");
            // One word is a line.
            assert_eq!(run(&["lib", "sh -c 'cat /lib; exit 5'"]).ends_with(5).stdout, "lib\n");
            run(&["lib", "no-such"]).ends_with(127);
            run(&["no-such", "ls"]).ends_with(2).says("there is no layer `no-such`");
            run(&["lib", "'"]).ends_with(2);
            // A shell, which finds its input at its end; in the first layer of the file.
            run(&[]).ends_with(0);
            run(&["lib", "rm /lib"]).ends_with(0);
        }
        // The first layer is `base`, which has what `lib` removes.
        let mut child = space.command(&["exec"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"cat /data/one; exit 4").unwrap();
        assert_eq!(space.run_of(&["exec"], child.wait_with_output().unwrap()).ends_with(4).stdout, "linked");
    });
}
