//! Inputs that are made to hurt, as whoever runs the program meets them: an error that says why, soon, and nothing left
//! behind. (`hostile_layers.rs` and `unpack.rs` have what archives can do.)

mod support;

use std::fs;
use std::io::{Read, Write, repeat};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use stacker::compress::Encoder;
use stacker::graph::LayerGraph;
use stacker::load::{Options, load};
use stacker::worker::message::Compression;
use support::archive::{Archive, Member};
use support::layout::{Broken, layout};
use support::space::{Space, for_each_identity};

const MIB: u64 = 1 << 20;

/// What takes longer would not end.
fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    assert!(begun.elapsed() < Duration::from_secs(120), "{what} took {:?}", begun.elapsed());
    result
}

/// The errors of a stackerfile, as rendered.
fn mistakes(text: impl AsRef<[u8]>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("stacker.yaml");
    fs::write(&file, text).unwrap();
    let options = Options { working_dir: directory.path().into(), ..Options::default() };
    let error = match load(&[file], &options) {
        Ok(loaded) => LayerGraph::new(&loaded).err(),
        Err(error) => Some(error),
    };
    error.map_or_else(String::new, |error| {
        assert_eq!(error.exit_code(), 1, "{error}");
        error.to_string()
    })
}

fn zeros(size: u64, compression: Compression) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
    let size_text = size.to_string();
    encoder.write_all(&Archive::new().pax(&[("size", size_text.as_bytes())]).file("zeros", "").0).unwrap();
    std::io::copy(&mut repeat(0).take(size + 1024), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn is_empty(directory: PathBuf) -> bool {
    fs::read_dir(&directory).is_ok_and(|mut names| names.next().is_none())
}

#[test]
fn a_bomb_is_stopped_by_the_limit_and_leaves_nothing() {
    for_each_identity(|space| {
        for compression in [Compression::Gzip(6), Compression::Zstd(3)] {
            space.write("bomb.tar", zeros(256 * MIB, compression));
            space.write("stacker.yaml", "bomb:\n  from: {type: tar, url: bomb.tar}\n");
            let run = soon("the bomb", || space.stacker(&["build", "--max-layer-size", "16MiB"])).ends_with(1);
            run.says("more than 16.0 MiB").says("--max-layer-size").says("bomb.tar");
            for kept in ["deltas", "trees", "drafts", "trash"] {
                assert!(is_empty(space.roots_dir().join(kept)), "something is left in {kept}");
            }
        }
        space.build(&["--max-layer-size", "300MiB"]).built(&["bomb"]);
    });
}

#[test]
fn a_bomb_in_a_layout_is_stopped_too() {
    let space = Space::new();
    let root = space.path("image");
    fs::create_dir(&root).unwrap();
    layout(&root, Broken::Nothing);
    // The one layer becomes the bomb, and the image says so.
    let bomb = zeros(64 * MIB, Compression::Gzip(6));
    let plain = zeros(64 * MIB, Compression::None);
    support::layout::replace_layer(&root, &bomb, &plain);
    space.write("stacker.yaml", "app:\n  from: {type: oci, url: 'image:app'}\n  run: 'true'\n");
    let run = soon("the bomb", || space.stacker(&["build", "--max-layer-size", "16MiB"])).ends_with(1);
    run.says("--max-layer-size");
    assert!(is_empty(space.roots_dir().join("drafts")) && is_empty(space.roots_dir().join("deltas")));
}

#[test]
fn an_import_with_a_huge_hole_is_refused_before_it_is_read() {
    let space = Space::new();
    space.write("tree/small", "x");
    fs::File::create(space.path("tree/hole")).unwrap().set_len(1 << 40).unwrap();
    for import in ["[tree]", "[{path: tree, dest: /tree}]"] {
        space.stackerfile(&format!("app:\n  from: {{type: built, tag: base}}\n  imports: {import}\n  run: 'true'\n"));
        let run = soon("the import", || space.stacker(&["build"])).ends_with(1);
        run.says("more than 64.0 GiB").says("--max-layer-size").says("tree");
    }
}

#[test]
fn what_a_script_prints_cannot_act_on_the_terminal() {
    let space = Space::new();
    let evil = r"\033]0;owned\007\033[2J\033[10;10H\033[31mred\033[0m\033P1$r\033\\ \302\2332J over\rwritten \b\n";
    let script =
        |code| format!("app:\n  from: {{type: built, tag: base}}\n  run: |\n    printf '{evil}'\n    exit {code}\n");
    for (code, mode) in [(0, "plain"), (7, "plain"), (0, "tty"), (7, "tty")] {
        space.stackerfile(&script(code));
        // `script` gives the program a terminal.
        let arguments = ["build", "--no-cache", "--progress", mode];
        let mut inner = space.command(&arguments);
        let words: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|word| shell_words::quote(&word.to_string_lossy()).into_owned())
            .collect();
        inner = Command::new("script");
        inner.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]).current_dir(space.path(""));
        let output = inner.output().expect("script (of bsdutils) is installed");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(i32::from(code != 0)), "{shown}");
        for acts in ["\x1b]0;", "\x07", "\x1b[2J", "\x1b[10;10H", "\x1bP", "\u{9b}", "over\rwritten", "\x08"] {
            assert!(!shown.contains(acts), "{acts:?} was shown with --progress {mode}, exit {code}: {shown:?}");
        }
        if mode == "plain" || code != 0 {
            assert!(shown.contains(r"\x1b]0;owned\x07\x1b[2J"), "{shown:?}");
            assert!(shown.contains("\x1b[31mred\x1b[0m"), "colours stay: {shown:?}");
        }
        let logs: Vec<_> = fs::read_dir(space.stacker_dir().join("logs")).unwrap().collect();
        let bytes = logs.into_iter().map(|log| fs::read(log.unwrap().path()).unwrap());
        assert!(
            bytes.into_iter().any(|log| log.windows(8).any(|bytes| bytes == b"\x1b]0;owne")),
            "the log keeps the bytes"
        );
    }
}

#[test]
fn names_cannot_act_on_the_terminal_either() {
    let space = Space::new();
    space.write("stacker.yaml", "app:\n  from: {type: scratch}\n  imports: [\"no\\e]0;owned\\asuch\\nfile\"]\n");
    let run = space.stacker(&["build"]).ends_with(1);
    run.says("]0;owned").says_not("\x1b]").says_not("\x07");
    space.write("stacker.yaml", "\"a\\e[2Jb\":\n  from: {type: scratch}\n");
    space.stacker(&["build"]).ends_with(1).says("cannot be a layer name").says_not("\x1b[2J");
    space.write("e\x1b[2J.yaml", "x: [");
    space.stacker(&["build", "-f", "e\x1b[2J.yaml"]).ends_with(1).says_not("\x1b[2J");
}

#[test]
fn names_that_cannot_be_are_the_stackerfiles_fault() {
    let space = Space::new();
    space.write("file", "x");
    let layer = |what: &str| format!("app:\n  from: {{type: scratch}}\n  {what}\n");
    let name = "n".repeat(300);
    let cases = [
        "imports: [\"a\\0b\"]".to_owned(),
        "imports: [{path: file, dest: \"/a\\0b\"}]".to_owned(),
        "imports: [{path: file, dest: /a/../../b}]".to_owned(),
        format!("imports: [{{path: file, dest: /{name}}}]"),
        format!("imports: [{{path: file, dest: /{}}}]", "d/".repeat(3000)),
        "imports: [{path: file, dest: /.wh.file}]".to_owned(),
        format!("imports: [{name}]"),
        "imports: ['stacker://app/../../x']".to_owned(),
        "build_env: {A: \"x\\0y\"}\n  run: 'true'".to_owned(),
    ];
    for case in cases {
        space.write("stacker.yaml", layer(&case));
        let run = space.stacker(&["build"]);
        assert_eq!(run.code, 1, "{}: {run}", &case[..case.len().min(80)]);
    }
    for name in ["../up", "a/../b", "a\\nb", "/a", "a//b", ".", "..", "a\\0b", " "] {
        let text = mistakes(format!("\"{name}\":\n  from: {{type: scratch}}\n"));
        assert!(text.contains("cannot be a layer name"), "{name}: {text}");
    }
}

#[test]
fn large_stackerfiles_take_no_time() {
    let chain = |count: usize| -> String {
        let base = |layer: usize| match layer {
            0 => "{type: scratch}".to_owned(),
            layer => format!("{{type: built, tag: l{}}}", layer - 1),
        };
        (0..count).map(|layer| format!("l{layer}:\n  from: {}\n", base(layer))).collect()
    };
    assert_eq!(soon("100,000 layers, each on the one before", || mistakes(chain(100_000))), "");
    let circle = format!(
        "{}l0b:\n  from: {{type: built, tag: l9999}}\n",
        chain(10_000).replacen("scratch", "built, tag: l0b", 1)
    );
    assert!(soon("a circle of 10,000", || mistakes(circle)).contains("in a circle"));
    let unknown: String = (0..100_000).map(|l| format!("l{l}:\n  from: {{type: built, tag: l{l}x}}\n")).collect();
    let text = soon("100,000 unknown bases", || mistakes(unknown));
    assert!(text.contains("unknown base layer `l0x`") && text.contains("99900 more are not shown"), "{}", text.len());
    let twice: String = (0..100_000).map(|_| "l:\n  from: {type: scratch}\n").collect();
    assert!(soon("a key 100,000 times", || mistakes(twice)).contains("stands twice"));
    let nonsense: String = (0..100_000).map(|l| format!("l{l}:\n  form: x\n")).collect();
    assert!(soon("100,000 layers without base", || mistakes(nonsense)).contains("did you mean `from`?"));
}

#[test]
fn long_lines_are_shown_in_part() {
    let long = "x".repeat(MIB as usize);
    let cases = [
        format!("a:\n  from: {{type: scratch}}\n  {long}: y\n"),
        format!("a:\n  from: {{type: built, tag: {long}}}\n{long}y:\n  from: {{type: scratch}}\n"),
        format!("a:\n  from: {{type: scratch}}\n  run: [{long}\n"),
        format!("a: {{from: {{type: {long}}}}}"),
        format!("a: {{from: {{type: scratch}}, {long}"),
        format!("{long}: {{from: {{type: scratch}}, bad: {long}}}"),
        format!("{}a", "[".repeat(MIB as usize)),
        format!("${{{{{long}}}}}"),
        "\u{1b}[2J".repeat(200_000),
        "- ".repeat(500_000),
        "? ".repeat(500_000),
        "&a ".repeat(300_000),
        "a: |\n".to_owned() + &" ".repeat(MIB as usize),
        "%".repeat(MIB as usize),
        "'".repeat(MIB as usize + 1),
    ];
    for case in cases {
        let text = soon(&case[..20], || mistakes(&case));
        assert!(!text.is_empty(), "{:?} is no mistake", &case[..20]);
        assert!(text.len() < 20_000, "{:?}: {} bytes: {}…", &case[..20], text.len(), &text[..200]);
    }
    let text = mistakes(b"a: \xff\xfe");
    assert!(text.contains("line 1 is not UTF-8"), "{text}");
    // A script of one line is a script.
    assert_eq!(mistakes(format!("a:\n  from: {{type: scratch}}\n  run: echo {long}\n")), "");
}

#[test]
fn a_stackerfile_that_never_ends_is_not_read() {
    let options = Options { working_dir: "/".into(), ..Options::default() };
    let error = soon("/dev/zero", || load(&["/dev/zero".into()], &options)).unwrap_err();
    assert!(error.to_string().contains("more than 64 MiB"), "{error}");
}

#[test]
fn what_is_no_file_in_a_layout_is_told() {
    let platform = support::layout::platform();
    let open = |root: &Path| {
        stacker::oci::Layout::open(root).and_then(|layout| layout.find(Some("app"), &platform)).map(|_| ())
    };
    let replaced = |which: &str, replace: &dyn Fn(&Path)| {
        let space = tempfile::tempdir().unwrap();
        layout(space.path(), Broken::Nothing);
        let manifest = stacker::oci::Layout::open(space.path()).unwrap().images()[0].digest().unwrap().hex();
        let image = stacker::oci::Layout::open(space.path()).unwrap().find(Some("app"), &platform).unwrap();
        let path = match which {
            "manifest" => space.path().join("blobs/sha256").join(manifest),
            "layer" => image.layers[0].path.clone(),
            name => space.path().join(name),
        };
        fs::remove_file(&path).unwrap();
        replace(&path);
        let error = soon(which, || open(space.path())).expect_err(which);
        assert_eq!(error.exit_code(), 1, "{which}: {error}");
        assert!(error.to_string().contains(&*space.path().to_string_lossy()), "{which}: {error}");
    };
    let fifo = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let endless = |path: &Path| symlink("/dev/zero", path).unwrap();
    let itself = |path: &Path| symlink(path, path).unwrap();
    let directory = |path: &Path| fs::create_dir(path).unwrap();
    let other = |path: &Path| symlink("/etc/passwd", path).unwrap();
    let large = |path: &Path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
    for which in ["oci-layout", "index.json", "manifest", "layer"] {
        let ways: [&dyn Fn(&Path); 6] = [&fifo, &endless, &itself, &directory, &other, &large];
        ways.into_iter().for_each(|way| replaced(which, way));
    }
}

#[test]
fn import_trees_end() {
    let space = Space::new();
    space.write("tree/d/file", "x");
    symlink("..", space.path("tree/d/up")).unwrap();
    symlink("self", space.path("tree/self")).unwrap();
    symlink("b", space.path("tree/a")).unwrap();
    symlink("a", space.path("tree/b")).unwrap();
    symlink("/proc/self/root", space.path("tree/root")).unwrap();
    symlink("tree", space.path("linked")).unwrap();
    let layer = "app:\n  from: {type: built, tag: base}\n  imports: [tree, {path: linked, dest: /t}]\n  run: |
    cd /stacker/imports/tree && test \"$(for l in self a d/up root; do readlink $l; done | tr '\\n' ,)\" = self,b,..,/proc/self/root, && test -e /t/d/file\n";
    space.stackerfile(layer);
    soon("the import", || space.build(&[]));
    // A path that is a link to itself, a directory that holds a fifo, an ignore file that is one.
    let refused = |import: &str, why: &str| {
        space.stackerfile(&format!("app:\n  from: {{type: scratch}}\n  imports: [{{path: {import}, dest: /x}}]\n"));
        soon(import, || space.stacker(&["build"])).ends_with(1).says(why);
    };
    refused("tree/self", "tree/self");
    nix::unistd::mkfifo(&space.path("tree/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused("tree", "it is a fifo");
    fs::rename(space.path("tree/fifo"), space.path("tree/.stackerignore")).unwrap();
    space.stackerfile("app:\n  from: {type: scratch}\n  imports: [{path: tree, dest: /x}]\n");
    soon("a fifo as ignore file", || space.build(&[]));
}

#[test]
fn deep_trees_can_be_imported_and_removed() {
    for_each_identity(|space| {
        let deep = format!("tree/{}", "d/".repeat(1500));
        space.write(&format!("{deep}file"), "x");
        let down = |depth| format!("i=0; while [ $i -lt {depth} ]; do mkdir d && cd d || exit 9; i=$((i+1)); done");
        let layer =
            format!("  imports: [tree]\n  run: 'test -d /stacker/imports/tree/d/d; {}; echo x > file'\n", down(1500));
        space.stackerfile(&format!("app:\n  from: {{type: built, tag: base}}\n{layer}"));
        space.build(&[]).built(&["base", "app"]);
        space.stackerfile(&format!(
            "app:\n  from: {{type: built, tag: base}}\n  imports: [{{path: tree, dest: /t}}]\n{}",
            "  run: 'echo x > /t/d/d/new'\n"
        ));
        space.build(&[]).built(&["app"]);
        // Deeper than any path: no layer can hold it, and it does not stay either.
        space.stackerfile(&format!("app:\n  from: {{type: built, tag: base}}\n  run: '{}'\n", down(3000)));
        space.stacker(&["build"]).ends_with(1).says("too long");
        space.stacker(&["clean", "--all"]).ends_with(0);
        assert!(!space.roots_dir().join("drafts").exists(), "all is removed");
    });
}

#[test]
fn times_at_the_end_of_the_calendar_can_be_built_upon() {
    let space = Space::new();
    let end = |time| Archive::new().pax(&[("mtime", time)]).file("late", "x");
    let busybox = fs::read("/bin/busybox").unwrap();
    let shell = Member { name: b"bin/sh", mode: 0o755, body: &busybox, ..Member::default() };
    space.write("late.tar", end(b"9223372036854775807").member(shell).end());
    space.write("stacker.yaml", "app:\n  from: {type: tar, url: late.tar}\n  run: 'echo x > /new'\n");
    space.build(&[]);
    for epoch in ["9223372036854775807", "-1", "9223372036854775808", "x"] {
        let variable = format!("SOURCE_DATE_EPOCH={epoch}");
        space.stacker_under(&["env", &variable], &["build"]).ends_with(2).says("SOURCE_DATE_EPOCH");
    }
}
