//! What stackerfiles say, as data: values, imports, bases, prerequisites, the order of a serial build, `--all`.

use std::path::PathBuf;

use stacker::action::{Attributes, Network};
use stacker::graph::{LayerGraph, NodeBase, NodeSource};
use stacker::load::{Base, Import, Layer, Loaded, Options, Source, Written, load, read_substitute_file};

/// A directory of files that are written as a test needs them.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().expect("a temporary directory"));
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().expect("it exists").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    fn options(&self) -> Options {
        Options { working_dir: self.0.path().canonicalize().expect("it exists"), ..Options::default() }
    }

    fn load(&self, files: &[&str]) -> Result<Loaded, String> {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        load(&files, &self.options()).map_err(|error| error.to_string())
    }
}

/// The one layer of a file with these directives, on scratch.
fn layer(directives: &str) -> Layer {
    let indented: String = directives.lines().map(|line| format!("  {line}\n")).collect();
    let tree = Tree::new(&[("stacker.yaml", &format!("l:\n  from: {{type: scratch}}\n{indented}"))]);
    let mut loaded = tree.load(&["stacker.yaml"]).unwrap_or_else(|error| panic!("{directives}\n{error}"));
    loaded.stackerfiles.remove(0).layers.remove(0)
}

fn names(graph: &LayerGraph) -> Vec<&str> {
    graph.iter().map(|(_, node)| node.layer.name.as_str()).collect()
}

#[test]
fn scripts_are_texts_or_lines() {
    let table = [
        ("run: make", Some("make")),
        ("run: [a, b]", Some("a\nb")),
        ("run:\n- a\n-\n- |\n  b\n  c\n", Some("a\n\nb\nc\n")),
        ("run: |\n  #!/bin/bash\n  x", Some("#!/bin/bash\nx\n")),
        ("run: yes", Some("yes")),
        ("run:", None),
        ("run: []", None),
        ("run: ''", None),
    ];
    for (text, expected) in table {
        assert_eq!(layer(text).run.as_deref(), expected, "{text}");
    }
}

#[test]
fn maps_keep_the_spelling_of_their_values() {
    let layer =
        layer("environment: {V: 1.10, Y: yes, O: 0100, E: , Q: ' x '}\nlabels: {1.0: 0x1F}\nbuild_env: {A: b=c}");
    let environment: Vec<(&str, &str)> =
        layer.settings.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(environment, [("E", ""), ("O", "0100"), ("Q", " x "), ("V", "1.10"), ("Y", "yes")]);
    assert_eq!(layer.settings.labels["1.0"], "0x1F");
    assert_eq!(layer.build_env["A"], "b=c");
}

#[test]
fn commands_are_split_as_a_shell_would() {
    type Words = Option<&'static [&'static str]>;
    let table: [(&str, Words, Words); 5] = [
        ("cmd: sh -c 'a  b'", None, Some(&["sh", "-c", "a  b"])),
        ("cmd: [sh, 1.0]", None, Some(&["sh", "1.0"])),
        ("entrypoint: /a \"b c\"", Some(&["/a", "b c"]), None),
        ("full_command: /a b", Some(&["/a", "b"]), Some(&[])),
        ("cmd:", None, None),
    ];
    for (text, entrypoint, cmd) in table {
        let settings = layer(text).settings;
        let own = |words: Words| words.map(|w| w.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        assert_eq!((settings.entrypoint, settings.cmd), (own(entrypoint), own(cmd)), "{text}");
    }
}

#[test]
fn small_directives_are_read() {
    let layer = layer(
        "build_only: Yes\nnetwork: none\narch: arm64\nworking_dir: /w\nruntime_user: 10:20\nvolumes: [/a, /b]\n\
         build_env_passthrough: ['A.*|B', C]",
    );
    assert!(layer.build_only && layer.platform_given);
    assert_eq!(
        (layer.network, layer.platform.arch.as_str(), layer.platform.os.as_str()),
        (Network::None, "arm64", "linux")
    );
    assert_eq!(layer.settings.working_dir.as_deref(), Some("/w"));
    assert_eq!(layer.settings.runtime_user.as_deref(), Some("10:20"));
    assert_eq!(layer.settings.volumes, ["/a", "/b"]);
    let passes = |name: &str| layer.build_env_passthrough.iter().any(|regex| regex.is_match(name));
    assert_eq!(["A", "AX", "B", "BX", "XA", "C"].map(passes), [true, true, true, false, false, true]);
}

#[test]
fn imports_have_many_forms() {
    let hash = "AB".repeat(32);
    let text = format!(
        "imports:\n- a/b\n- ./dir/\n- /abs/x\n- stacker://base/usr/lib/\n\
         - {{path: ../up, dest: /bin/, mode: 0755, uid: 1, gid: '65535', hash: {hash}}}\n- {{path: z, mode: '4755', dest: }}"
    );
    let tree =
        Tree::new(&[("s/stacker.yaml", &format!("l:\n  from: {{type: scratch}}\n  {}", text.replace('\n', "\n  ")))]);
    let loaded = tree.load(&["s/stacker.yaml"]).expect("it is right");
    let imports = &loaded.stackerfiles[0].layers[0].imports;
    let shown: Vec<String> = imports
        .iter()
        .map(|import| match &import.source {
            Source::Host { path, trailing_slash } => {
                let path = path.strip_prefix(tree.path("s")).unwrap_or(path);
                format!("{}{}", path.display(), if *trailing_slash { "/" } else { "" })
            }
            Source::Layer { layer, path } => format!("{layer}:{path}"),
            Source::Url { url } => url.clone(),
        })
        .collect();
    assert_eq!(shown, ["a/b", "dir/", "/abs/x", "base:/usr/lib/", "../up", "z"]);
    assert_eq!(imports[4].dest.as_deref(), Some("/bin/"));
    assert_eq!(imports[4].attributes, Attributes { mode: Some(0o755), uid: Some(1), gid: Some(65535) });
    assert_eq!(imports[4].hash, Some([0xab; 32]));
    assert_eq!(imports[5].attributes, Attributes { mode: Some(0o4755), uid: None, gid: None });
    assert_eq!(imports[5].dest, None);
}

#[test]
fn overlay_dirs_come_before_imports() {
    let text = "imports: [a]\noverlay_dirs:\n- {source: o/}\n- {source: /p, dest: /q/}\n- {source: ., dest: }";
    let imports = layer(text).imports;
    let shown: Vec<(bool, Option<&str>)> =
        imports.iter().map(|import| (import.written == Written::OverlayDirs, import.dest.as_deref())).collect();
    assert_eq!(shown, [(true, Some("/")), (true, Some("/q/")), (true, Some("/")), (false, None)]);
    let contents = |import: &Import| matches!(&import.source, Source::Host { trailing_slash: true, .. });
    assert!(imports[..3].iter().all(contents) && imports[..3].iter().all(|import| import.seen_in().is_empty()));
}

#[test]
fn the_old_import_has_the_forms_of_imports() {
    for (text, count) in [("import: a/b", 1), ("import: [a, {path: stacker://l/b, hash: }]", 2), ("import:", 0)] {
        let imports = layer(text).imports;
        assert_eq!(imports.len(), count, "{text}");
        assert!(imports.iter().all(|import| import.seen_in() == ["/stacker/imports", "/stacker"]), "{text}");
    }
    assert_eq!(layer("import: [{path: a, dest: /b}]").imports[0].seen_in(), [""; 0]);
}

#[test]
fn relative_bases_lie_beside_the_file_or_in_the_working_directory() {
    let text = "a: {from: {type: oci, url: 'both:1.0'}}\nb: {from: {type: tar, url: here.tar}}\n\
                c: {from: {type: docker, url: 'oci:nowhere'}}\nd: {from: {type: docker, url: 'oci:/abs:x:y'}}\n";
    let tree = Tree::new(&[("s/stacker.yaml", text), ("s/both/x", ""), ("both/x", ""), ("here.tar", "")]);
    let loaded = tree.load(&["s/stacker.yaml"]).expect("it is right");
    let shown: Vec<(PathBuf, Option<&str>)> = loaded.stackerfiles[0]
        .layers
        .iter()
        .map(|layer| match &layer.base {
            Base::Oci { layout, tag, .. } => (layout.clone(), tag.as_deref()),
            Base::Tar { path, .. } => (path.clone(), None),
            _ => panic!("another base"),
        })
        .collect();
    let expected = [
        (tree.path("s/both"), Some("1.0")),
        (tree.path("here.tar"), None),
        (tree.path("s/nowhere"), None),
        ("/abs".into(), Some("x:y")),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn prerequisites_come_first_and_once() {
    let file = |prerequisites: &str, layer: &str| {
        format!("config: {{prerequisites: [{prerequisites}]}}\n{layer}: {{from: {{type: scratch}}}}\n")
    };
    let tree = Tree::new(&[
        ("a/stacker.yaml", &file("../z/stacker.yaml, ../link.yaml", "a")),
        ("b/stacker.yaml", &file("", "b")),
        ("m/stacker.yaml", &file("", "m")),
        ("z/stacker.yaml", &file("../m/stacker.yaml", "z")),
    ]);
    std::os::unix::fs::symlink("m/stacker.yaml", tree.path("link.yaml")).expect("a link");
    let loaded = tree.load(&["b/stacker.yaml", "./a/stacker.yaml", "a/stacker.yaml"]).expect("it is right");
    let layers: Vec<&str> = loaded.stackerfiles.iter().flat_map(|file| &file.layers).map(|l| l.name.as_str()).collect();
    assert_eq!(layers, ["m", "z", "a", "b"]);
}

#[test]
fn missing_files_and_circles_of_prerequisites_are_errors() {
    let tree = Tree::new(&[
        ("a.yaml", "config:\n  prerequisites: [b.yaml, gone.yaml]\n"),
        ("b.yaml", "config:\n  prerequisites:\n  - ./a.yaml\n"),
        ("bad.yaml", "x: [\n"),
    ]);
    let error = tree.load(&["nowhere.yaml", "a.yaml", "bad.yaml"]).expect_err("five mistakes");
    let error = error.replace(&tree.path("").display().to_string(), "/T/");
    let expected = "\
error: cannot read nowhere.yaml: no such file or directory

error: prerequisites go in a circle: a.yaml -> b.yaml -> a.yaml
 --> a.yaml:2:19
  |
2 |   prerequisites: [b.yaml, gone.yaml]
  |                   ^^^^^^
  |
 ::: b.yaml:3:5
  |
3 |   - ./a.yaml
  |     --------

error: cannot read prerequisite /T/gone.yaml: no such file or directory
 --> a.yaml:2:27
  |
2 |   prerequisites: [b.yaml, gone.yaml]
  |                           ^^^^^^^^^

error: not valid YAML:";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn layers_stand_in_the_order_of_a_serial_build() {
    let first = "top: {from: {type: built, tag: mid}, imports: ['stacker://tool/bin/x', plain]}\n\
                 free: {from: {type: scratch}}\nmid: {from: {type: built, tag: base}}\ntool: {from: {type: tar, url: t}}\n";
    let tree = Tree::new(&[
        ("a/stacker.yaml", &format!("config: {{prerequisites: [../b/stacker.yaml]}}\n{first}")),
        ("b/stacker.yaml", "base: {from: {type: scratch}}\nother: {from: {type: scratch}}\n"),
    ]);
    let loaded = tree.load(&["a/stacker.yaml"]).expect("it is right");
    let graph = LayerGraph::new(&loaded).expect("it is right");
    assert_eq!(names(&graph), ["base", "other", "mid", "tool", "top", "free"]);
    assert_eq!(graph.warnings(), [""; 0]);
    let [base, mid, tool, top] = ["base", "mid", "tool", "top"].map(|name| graph.find(name).expect("a layer"));
    assert_eq!(graph.needs(top), [mid, tool]);
    assert_eq!(graph.dependents(base), [mid]);
    assert_eq!(graph.closure(&[tool, mid]), [base, mid, tool]);
    assert!(matches!(graph[mid].base, NodeBase::Built(layer) if layer == base));
    assert!(
        matches!(&graph[top].imports[0].source, NodeSource::Layer { layer, path } if *layer == tool && path == "/bin/x")
    );
    let error = graph.named("frree").expect_err("no such layer");
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("there is no layer `frree`; did you mean `free`?", 2));
}

#[test]
fn names_are_unique_and_other_files_are_prerequisites() {
    let tree = Tree::new(&[
        ("a.yaml", "one: {from: {type: built, tag: two}}\n"),
        ("b.yaml", "two: {from: {type: scratch}}\n"),
        ("c.yaml", "two: {from: {type: scratch}}\n"),
    ]);
    let loaded = tree.load(&["a.yaml", "b.yaml", "c.yaml"]).expect("each is right");
    let error = LayerGraph::new(&loaded).expect_err("two layers of one name").to_string();
    let expected = "\
error: layer `two` is defined twice
 --> c.yaml:1:1
  |
1 | two: {from: {type: scratch}}
  | ^^^ again here
  |
 ::: b.yaml:1:1
  |
1 | two: {from: {type: scratch}}
  | --- first here";
    assert_eq!(error, expected);
    let graph = LayerGraph::new(&tree.load(&["a.yaml", "b.yaml"]).expect("each is right")).expect("it works");
    assert_eq!(names(&graph), ["two", "one"]);
    assert!(graph.warnings()[0].contains("layer `two` is in b.yaml, which is no prerequisite of this file"));
}

#[test]
fn substitution_comes_before_yaml() {
    let tree = Tree::new(&[
        ("stacker.yaml", "${{NAME}}-${{V}}: {from: {type: scratch}, run: 'echo ${{TEXT}} ${{D:a:b}} $HOME'}\n"),
        ("values.yaml", "V: 1.10\nTEXT: from file\nEMPTY:\n"),
    ]);
    let mut options = tree.options();
    options.substitute_file = read_substitute_file(&tree.path("values.yaml")).expect("a map");
    assert_eq!(options.substitute_file["EMPTY"], "");
    options.substitutes = vec![("TEXT".into(), "$x".into())];
    options.builtins = vec![("NAME".into(), "app".into())];
    let loaded = load(&["stacker.yaml".into()], &options).expect("it is right");
    let layer = &loaded.stackerfiles[0].layers[0];
    assert_eq!((layer.name.as_str(), layer.run.as_deref()), ("app-1.10", Some("echo $x a:b $HOME")));
    tree.write("values.yaml", "V: [x]\n");
    let error = read_substitute_file(&tree.path("values.yaml")).expect_err("a list is no text").to_string();
    assert!(error.contains("values.yaml:1:4") && error.contains("`V` in a substitute file must be a text"), "{error}");
}
