//! `stacker graph`: the layers and what they need, in each format.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::browser::Browser;
use support::schema::assert_fits;
use support::space::{Space, for_each_user};

/// Layers of two files that need each other in each way; one file has a name that needs quoting everywhere.
fn prepare(space: &Space) {
    space.write("odd \"[&]<b>/stacker.yaml", "lib: {from: {type: scratch}, imports: [{path: f, dest: /lib.tar}]}\n");
    space.write("odd \"[&]<b>/f", support::base::tar());
    space.write("unused/stacker.yaml", "other: {from: {type: scratch}}\n");
    space.stackerfile(
        "tools: {from: {type: built, tag: base}, build_only: true, run: 'echo 1 > /tool'}\n\
         app: {from: {type: built, tag: tools}, imports: ['stacker://tools/tool', 'stacker://lib/lib.tar']}\n\
         again: {from: {type: tar, url: 'stacker://lib/lib.tar'}}\n\
         config: {prerequisites: ['odd \"[&]<b>/stacker.yaml', unused/stacker.yaml]}\n",
    );
}

#[test]
fn the_graph_is_shown_in_each_format_and_nothing_built() {
    let space = Space::new();
    prepare(&space);
    let show = |arguments: &[&str]| space.stacker(&[&["graph"], arguments].concat()).ends_with(0).stdout;
    let tree = "\
LAYER      FROM                       IMPORTS FROM  IMAGE  STACKERFILE
lib        scratch                    -             yes    odd \"[&]<b>/stacker.yaml
other      scratch                    -             yes    unused/stacker.yaml
base       tar base.tar               -             yes    stacker.yaml
└─ tools   built                      -             no     stacker.yaml
   └─ app  built                      lib, tools    yes    stacker.yaml
again      tar stacker://lib/lib.tar  -             yes    stacker.yaml

STACKERFILE   PREREQUISITES
stacker.yaml  odd \"[&]<b>/stacker.yaml, unused/stacker.yaml
";
    assert_eq!(show(&[]), tree);
    let json: Value = serde_json::from_str(&show(&["--format", "json"])).unwrap();
    assert_fits("graph", &json);
    assert_eq!(json["layers"][4]["name"], "app");
    let needs = serde_json::json!([
        {"layer": "lib", "kind": "import"}, {"layer": "tools", "kind": "base"}, {"layer": "tools", "kind": "import"}
    ]);
    assert_eq!(json["layers"][4]["needs"], needs);
    assert_eq!(json["layers"][5]["needs"], serde_json::json!([{"layer": "lib", "kind": "tar"}]));
    assert_eq!(json["stackerfiles"][2]["prerequisites"][1], "unused/stacker.yaml");
    let dot = show(&["--format", "dot"]);
    for line in ["label=\"odd \\\"[&]<b>/stacker.yaml\"", "\"app\" -> \"tools\"\n", "\"app\" -> \"lib\" [style=dashed]"]
    {
        assert!(dot.contains(line), "{line} is not in {dot}");
    }
    assert!(dot.contains("lhead=cluster_1"), "a prerequisite without a used layer is not in {dot}");
    let mermaid = show(&["--format", "mermaid"]);
    for line in ["f0[\"odd #34;#91;#38;#93;#60;b#62;/stacker.yaml\"]", "n4 --> n3", "n4 -.-> n0", "n5 -- tar --> n0"] {
        assert!(mermaid.contains(line), "{line} is not in {mermaid}");
    }
    assert!(!space.stacker_dir().exists() && !space.has_roots());
    // Some layers, with what they need.
    assert_eq!(show(&["tools"]).lines().filter(|line| line.ends_with(" stacker.yaml")).count(), 2);
    assert!(show(&["--all", "unused"]).contains("other"));
    space.stacker(&["graph", "tool"]).ends_with(2).says("did you mean `tools`?");
    space.stacker(&["graph", "--all", "a", "b"]).ends_with(2).says("graph --all takes one directory");
}

#[test]
fn graphviz_reads_it() {
    let space = Space::new();
    prepare(&space);
    let dot = space.stacker(&["graph", "--format", "dot"]).ends_with(0).stdout;
    let program = Command::new("dot").arg("-Tplain").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut program) = program else {
        return support::skipped("no `dot` (Debian package `graphviz`) to read a graph");
    };
    program.stdin.take().unwrap().write_all(dot.as_bytes()).unwrap();
    let output = program.wait_with_output().unwrap();
    let plain = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{dot}");
    assert_eq!(plain.lines().filter(|line| line.starts_with("node ")).count(), 6, "{plain}");
}

#[test]
fn a_browser_shows_the_drawing() {
    let space = Space::new();
    prepare(&space);
    space.build(&[]);
    space.write("graph.svg", space.stacker(&["graph", "--format", "svg", "--why"]).ends_with(0).stdout);
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&space.path("graph.svg"));
    // What is no XML is an HTML page about that.
    assert_eq!(browser.value("document.documentElement.nodeName"), "svg");
    assert_eq!(browser.value("document.querySelectorAll('.node').length"), 6);
    assert_eq!(browser.value("document.querySelectorAll('.edge:not(.import)[data-to]').length"), 2);
    assert_eq!(browser.value("document.querySelectorAll('.edge.import[data-to]').length"), 2);
    assert_eq!(browser.value("document.querySelector('#title').textContent"), "6 layers and what they need");
    assert!(browser.value("document.querySelector('#words').textContent").to_string().contains("tools (built"));
    // Texts stay within their boxes.
    let wide = "[...document.querySelectorAll('.node')].filter(node => [...node.querySelectorAll('text')].some(text => \
                text.getBBox().x + text.getBBox().width > node.querySelector('rect').getBBox().width)).length";
    assert_eq!(browser.value(wide), 0);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn why_tells_of_the_last_build() {
    for_each_user(|space| {
        prepare(space);
        let why = || space.stacker(&["graph", "--why"]).ends_with(0).stdout;
        assert!(!why().contains("LAST BUILD"), "there was no build");
        space.build(&[]);
        space.edit("stacker.yaml", "echo 1", "echo 2");
        space.build(&["tools"]);
        let told = why();
        let line = |name: &str| told.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(line("└─ tools").contains("built") && line("└─ tools").contains("script changed"), "{told}");
        assert!(line("base ").contains("hit"), "{told}");
        // The same files by other names.
        let other = space.stacker(&["graph", "--why", "-f", "unused/../stacker.yaml"]).ends_with(0).stdout;
        assert_eq!(other, told);
        // It was not in that build.
        assert!(line("again").starts_with("again      -"), "{told}");
        assert!(told.contains("The last build of these layers: 2, begun 2"), "{told}");
        let json: Value =
            serde_json::from_str(&space.stacker(&["graph", "--why", "--format", "json"]).ends_with(0).stdout).unwrap();
        assert_fits("graph", &json);
        assert_eq!(json["layers"][3]["last"]["reason"], "script changed: line 1");
        assert_eq!(json["build"]["id"], 2);
    });
}
