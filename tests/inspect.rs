//! `stacker inspect`, `cache ls` and `cache show` print what people look for and what programs can read.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use stacker::Error;
use stacker::action::{Action, Attributes, Ids, Kind, Network, Platform};
use stacker::digest::{BlobDigest, ChainId, DiffId};
use stacker::inspect::cache::{CacheEntry, CachePath, CacheRow, Cause, Status, render_entries, render_list};
use stacker::inspect::inspect;
use support::schema::assert_fits;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Puts a blob into the layout; gives back its descriptor.
fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = BlobDigest::of(bytes);
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).expect("a blob");
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

/// A manifest with one layer.
fn image(layout: &Path, layer: &[u8], labels: Value) -> Value {
    let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2000-01-01T00:00:02Z", "author": "stacker",
        "rootfs": {"type": "layers", "diff_ids": [DiffId([7; 32])]},
        "config": {"Env": ["PATH=/bin", "MODE=fast"], "Entrypoint": ["/bin/server"], "Cmd": ["--port", "80 81"],
            "WorkingDir": "/srv", "User": "app", "Labels": labels, "Volumes": {"/data": {}}},
        "history": [{"created_by": "an empty step", "empty_layer": true}, {"created_by": "stacker build of web"}],
    });
    let config = blob(layout, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
        "layers": [blob(layout, layer_type, layer)], "annotations": {"team": "web"}});
    blob(layout, MANIFEST, manifest.to_string().as_bytes())
}

fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    descriptor
}

fn layout(images: impl FnOnce(&Path) -> Vec<Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("blobs/sha256")).expect("a directory");
    std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    let index = json!({"schemaVersion": 2, "manifests": images(dir.path())});
    std::fs::write(dir.path().join("index.json"), index.to_string()).expect("a file");
    dir
}

fn two_images() -> tempfile::TempDir {
    layout(|path| {
        vec![
            tagged(image(path, b"layer of web", json!({"odd": "a\u{1b}[2Jb\nc"})), "web"),
            tagged(image(path, &[b'x'; 3000], json!({})), "worker"),
        ]
    })
}

#[test]
fn without_a_tag_every_image_has_one_line() {
    let dir = two_images();
    let text = inspect(dir.path(), None, false).expect("a layout");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("TAG"), "{text}");
    for (line, tag, size) in [(lines[1], "web", "12 B"), (lines[2], "worker", "2.9 KiB")] {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[2], words[3]), (tag, "linux/amd64", "1"), "{text}");
        assert!(words[1].starts_with("sha256:") && line.contains(size), "{text}");
        assert!(line.ends_with("2000-01-01T00:00:02Z"), "{text}");
    }
}

#[test]
fn a_tag_shows_all_that_config_and_manifest_say() {
    let dir = two_images();
    let text = inspect(dir.path(), Some("web"), false).expect("an image");
    for (name, value) in [
        ("tag", "web"),
        ("platform", "linux/amd64"),
        ("entrypoint", r#"["/bin/server"]"#),
        ("cmd", r#"["--port", "80 81"]"#),
        ("working dir", "/srv"),
        ("user", "app"),
        ("env", "PATH=/bin"),
        ("volumes", "/data"),
        ("annotations", "team=web"),
    ] {
        let found = text.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim() == value));
        assert!(found, "{name} {value} in\n{text}");
    }
    assert!(text.lines().any(|line| line.trim() == "MODE=fast"), "{text}");
    assert!(text.contains(&DiffId([7; 32]).to_string()) && text.contains("stacker build of web"), "{text}");
    // A label must not clear the terminal of who looks at the image.
    assert!(text.contains(r"odd=a\u{1b}[2Jb\nc") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn json_is_an_array_of_whole_images_with_and_without_a_tag() {
    let dir = two_images();
    let read = |tag| serde_json::from_str::<Value>(&inspect(dir.path(), tag, true).expect("a layout")).expect("JSON");
    let (all, web) = (read(None), read(Some("web")));
    assert_fits("inspect", &all);
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    assert_eq!(web, json!([all[0]]));
    let web = &web[0];
    assert_eq!(web["tag"], "web");
    assert_eq!(web["config"]["cmd"], json!(["--port", "80 81"]));
    assert_eq!(web["config"]["labels"]["odd"], "a\u{1b}[2Jb\nc");
    assert_eq!(web["layers"][0]["digest"], json!(BlobDigest::of(b"layer of web")));
    assert_eq!(web["layers"][0]["diff_id"], json!(DiffId([7; 32])));
    assert_eq!((&web["size"], &web["history"][0]["empty_layer"]), (&json!(12), &json!(true)));
}

#[test]
fn what_is_not_there_is_said() {
    let dir = two_images();
    let message = |path: &Path, tag| match inspect(path, tag, false) {
        Err(error @ Error::Usage(_)) => error.to_string(),
        other => panic!("a usage error was expected, not {other:?}"),
    };
    assert!(message(dir.path(), Some("wrker")).ends_with(r#"did you mean "worker"?"#));
    assert!(message(dir.path(), Some("zebra")).contains(r#"no tag "zebra""#));
    let missing = dir.path().join("oci");
    assert!(message(&missing, None).contains(&missing.display().to_string()));
    // Something else at that place is no layout.
    let error = inspect(&dir.path().join("blobs"), None, false).expect_err("no layout");
    assert!(error.to_string().contains("is no OCI layout"), "{error}");
}

#[test]
fn an_index_shows_each_of_its_images_and_artifacts_are_passed_over() {
    let dir = layout(|path| {
        let mut list = vec![image(path, b"one", json!({})), image(path, b"another", json!({}))];
        for (entry, arch) in list.iter_mut().zip(["amd64", "arm64"]) {
            entry["platform"] = json!({"os": "linux", "architecture": arch});
        }
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": list});
        let index = blob(path, media_type, index.to_string().as_bytes());
        vec![tagged(index, "multi"), blob(path, "application/x-signature", b"signed")]
    });
    let text = inspect(dir.path(), None, false).expect("a layout");
    assert_eq!(text.lines().filter(|line| line.starts_with("multi")).count(), 2, "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
}

fn entry() -> CacheEntry {
    let action = Action {
        platform: Platform { os: "linux".into(), arch: "amd64".into() },
        ids: Ids::Full,
        base: ChainId::SCRATCH,
        time: 946_684_802,
        kind: Kind::Run {
            script: "#!/bin/sh\nif true; then\n\techo \u{7}hi\nfi\n".into(),
            environment: [("CC".to_owned(), "gcc".to_owned())].into(),
            mounts: vec![stacker::action::Mount {
                place: "/stacker/imports/src".into(),
                tree: "ab".repeat(32).parse().expect("a digest"),
                attributes: Attributes { mode: Some(0o644), ..Attributes::default() },
            }],
            binds: vec![],
            network: Network::None,
        },
    };
    let row = CacheRow {
        key: action.key(),
        kind: "run".into(),
        layers: vec!["app".into(), "app2".into()],
        diff_id: Some(DiffId([9; 32])),
        bytes: 5 << 20,
        seconds: 125.0,
        created: 946_684_900,
        last_used: 946_685_000,
        status: Status::Present,
        evicted: None,
    };
    let path = CachePath { name: "log".into(), path: "/cache/logs/x.log".into(), bytes: Some(2048) };
    CacheEntry { action, row, labels: None, paths: vec![path] }
}

#[test]
fn cache_show_makes_the_action_readable() {
    let entry = entry();
    let text = render_entries(std::slice::from_ref(&entry), false);
    for wanted in [
        &*entry.row.key.to_string(),
        "app, app2",
        &*DiffId([9; 32]).to_string(),
        "5.0 MiB",
        "2 min 05 s",
        "2000-01-01T00:01:40Z",
        "/cache/logs/x.log (2.0 KiB)",
        "  kind run\n",
        "  base scratch\n",
        "  script\n    | #!/bin/sh\n    | if true; then\n    |     echo \\u{7}hi\n    | fi\n",
        "  variable \"CC\" \"gcc\"\n",
        "/stacker/imports/src mode=644\n",
        "  network none\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} in\n{text}");
    }
}

#[test]
fn cache_json_holds_the_encoding_that_was_hashed() {
    let entry = entry();
    let json: Value = serde_json::from_str(&render_entries(std::slice::from_ref(&entry), true)).expect("JSON");
    assert_fits("cache-show", &json);
    let encoding = json[0]["encoding"].as_str().expect("a text");
    assert_eq!(stacker::digest::Key::of(encoding.as_bytes()), entry.row.key);
    assert_eq!(json[0]["key"], json!(entry.row.key));
    assert_eq!(json[0]["paths"], json!([{"name": "log", "path": "/cache/logs/x.log", "bytes": 2048}]));
    assert_eq!(serde_json::from_value::<Action>(json[0]["action"].clone()).expect("an action"), entry.action);
}

#[test]
fn cache_ls_has_one_line_for_each_result() {
    let full = entry().row;
    let empty = CacheRow { diff_id: None, layers: vec![], bytes: 0, ..full.clone() };
    let rows = [full.clone(), empty];
    let text = render_list(&rows, false);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    // What is shown of a key is what `cache show` takes.
    assert!(lines[1].split_whitespace().next().is_some_and(|word| full.key.hex().starts_with(word)), "{text}");
    assert!(lines[1].contains("app, app2") && lines[1].contains("5.0 MiB"), "{text}");
    assert!(lines[2].contains("no change"), "{text}");
    let json: Value = serde_json::from_str(&render_list(&rows, true)).expect("JSON");
    assert_fits("cache-ls", &json);
    assert_eq!((&json[0]["layers"], &json[1]["diff_id"]), (&json!(["app", "app2"]), &Value::Null));
    assert_eq!(json[0]["created"], "2000-01-01T00:01:40Z");
}

#[test]
fn cache_ls_shows_what_went_and_why() {
    let full = entry().row;
    let evicted = Some((946_686_000, Cause::KeepLast { count: 3 }));
    let gone = CacheRow { status: Status::Evicted, evicted, ..full.clone() };
    let rows = [full, gone];
    let text = render_list(&rows, false);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("STATUS") && lines[1].ends_with("present"), "{text}");
    assert!(lines[2].ends_with("evicted 2000-01-01T00:20:00Z (--keep-last 3)"), "{text}");
    let json: Value = serde_json::from_str(&render_list(&rows, true)).expect("JSON");
    assert_fits("cache-ls", &json);
    assert_eq!(json[1]["evicted"], json!({"when": "2000-01-01T00:20:00Z", "cause": {"keep-last": {"count": 3}}}));
    assert_eq!((&json[1]["status"], &json[0]["evicted"]), (&json!("evicted"), &Value::Null));
}
