//! The layouts we write, as other tools and later commits see them.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use oci_spec::image::MediaType;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stacker::compress::Encoder;
use stacker::digest::{BlobDigest, DiffId};
use stacker::export::{Export, ExportLayer, ImageState};
use stacker::load::{Healthcheck, ImageSettings, Probe};
use stacker::oci::Layout;
use stacker::worker::message::Compression;
use support::archive::{Archive, Member};
use support::layout::{Broken, layout, platform};

struct Space {
    directory: tempfile::TempDir,
    oci: PathBuf,
}

impl Space {
    fn new() -> Space {
        let directory = tempfile::tempdir().unwrap();
        Space { oci: directory.path().join("oci"), directory }
    }

    /// A layer with one file of the user 1000.
    fn layer(&self, name: &str, text: &str, compression: Compression) -> ExportLayer {
        let member =
            Member { name: name.as_bytes(), body: text.as_bytes(), uid: 1000, mode: 0o755, ..Member::default() };
        let tar = Archive::new().directory("./").member(member).end();
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        encoder.write_all(&tar).unwrap();
        let bytes = encoder.finish().unwrap();
        let blob = BlobDigest::of(&bytes);
        let source = self.directory.path().join(blob.hex());
        fs::write(&source, &bytes).unwrap();
        let media_type = match compression {
            Compression::Gzip(_) => MediaType::ImageLayerGzip,
            Compression::Zstd(_) => MediaType::ImageLayerZstd,
            Compression::None => MediaType::ImageLayer,
        };
        let diff_id = DiffId(Sha256::digest(&tar).into());
        ExportLayer { diff_id, blob, size: bytes.len() as u64, media_type, source, created_by: None }
    }

    fn image(&self, name: &str, texts: &[&str]) -> ImageState {
        texts.iter().fold(ImageState::scratch(&platform()), |image, text| {
            let layer = self.layer(&format!("file-{text}"), text, Compression::Gzip(6));
            image.derive(name, &settings(), &[layer], 1_000_000)
        })
    }

    fn commit(&self, images: &[(&str, &ImageState)]) -> Vec<stacker::export::Written> {
        let export = Export::open(&self.oci).unwrap();
        for (tag, image) in images {
            export.put_image(image, tag).unwrap();
        }
        let tags: Vec<String> = images.iter().map(|(tag, _)| (*tag).to_owned()).collect();
        export.commit(&tags).unwrap()
    }

    fn blobs(&self) -> BTreeSet<String> {
        let blobs = fs::read_dir(self.oci.join("blobs/sha256")).unwrap();
        blobs.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.oci.join("index.json")).unwrap()).unwrap()
    }

    fn tags(&self) -> Vec<String> {
        let images = Layout::open(&self.oci).unwrap().images();
        images.into_iter().filter_map(|image| image.tag).collect()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).current_dir(self.directory.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn settings() -> ImageSettings {
    ImageSettings {
        environment: [("A".into(), "b c".into())].into(),
        labels: [("label".into(), "line\nline".into())].into(),
        annotations: [("note".into(), "text".into())].into(),
        cmd: Some(vec!["/file-one".into(), "argument".into()]),
        working_dir: Some("/srv".into()),
        runtime_user: Some("1000:1000".into()),
        volumes: vec!["/data".into()],
        ..ImageSettings::default()
    }
}

#[test]
fn skopeo_and_umoci_read_what_we_write() {
    let space = Space::new();
    let image = space.image("app", &["one", "two"]);
    space.commit(&[("app", &image)]);
    let inspected: Value = serde_json::from_str(&space.run("skopeo", &["inspect", "oci:oci:app"])).unwrap();
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);
    assert_eq!(inspected["Labels"], json!({"label": "line\nline"}));
    assert_eq!(inspected["Created"], "1970-01-12T13:46:40Z");
    let config: Value = serde_json::from_str(&space.run("skopeo", &["inspect", "--config", "oci:oci:app"])).unwrap();
    assert_eq!(config["config"]["Cmd"], json!(["/file-one", "argument"]));
    assert_eq!(config["config"]["User"], "1000:1000");
    assert!(config["config"]["Env"].as_array().unwrap().contains(&json!("A=b c")));
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
    let manifest: Value = serde_json::from_str(&space.run("skopeo", &["inspect", "--raw", "oci:oci:app"])).unwrap();
    assert_eq!(manifest["annotations"], json!({"note": "text"}));
    // A copy checks every digest on its way.
    space.run("skopeo", &["copy", "oci:oci:app", "dir:copied"]);
    space.run("umoci", &["unpack", "--rootless", "--image", "oci:app", "bundle"]);
    for text in ["one", "two"] {
        let file = space.directory.path().join(format!("bundle/rootfs/file-{text}"));
        assert_eq!(fs::read_to_string(file).unwrap(), text);
    }
}

#[test]
fn ports_stop_signal_and_health_check_are_inherited() {
    let space = Space::new();
    let probe = Probe {
        test: ["CMD-SHELL", "true"].map(str::to_owned).to_vec(),
        interval: Some(Duration::from_secs(90)),
        start_period: Some(Duration::from_millis(1500)),
        retries: Some(5),
        ..Probe::default()
    };
    let first = ImageSettings {
        exposed_ports: vec!["80/tcp".into()],
        stop_signal: Some("SIGQUIT".into()),
        healthcheck: Some(Healthcheck::Probe(probe)),
        ..settings()
    };
    let more = ImageSettings { exposed_ports: vec!["53/udp".into()], ..ImageSettings::default() };
    let none = ImageSettings {
        stop_signal: Some("9".into()),
        healthcheck: Some(Healthcheck::None),
        ..ImageSettings::default()
    };
    let layer = space.layer("file", "text", Compression::Gzip(6));
    let first = ImageState::scratch(&platform()).derive("first", &first, &[layer], 0);
    let more = first.derive("more", &more, &[], None);
    let none = more.derive("none", &none, &[], None);
    space.commit(&[("first", &first), ("more", &more), ("none", &none)]);
    let expected = json!({
        "Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000_u64, "StartPeriod": 1_500_000_000, "Retries": 5,
    });
    // As OCI image, and as the Docker image that skopeo makes of it.
    for tag in ["first", "more"] {
        space.run("skopeo", &["copy", "--format", "v2s2", &format!("oci:oci:{tag}"), &format!("dir:docker-{tag}")]);
        for image in [format!("oci:oci:{tag}"), format!("dir:docker-{tag}")] {
            let raw = space.run("skopeo", &["inspect", "--raw", "--config", &image]);
            let config = &serde_json::from_str::<Value>(&raw).unwrap()["config"];
            assert_eq!(config["Healthcheck"], expected, "{image}");
            assert_eq!(config["StopSignal"], "SIGQUIT", "{image}");
            let ports: Vec<&String> = config["ExposedPorts"].as_object().unwrap().keys().collect();
            assert_eq!(ports, if tag == "more" { vec!["53/udp", "80/tcp"] } else { vec!["80/tcp"] }, "{image}");
        }
    }
    let raw = space.run("skopeo", &["inspect", "--raw", "--config", "oci:oci:none"]);
    let config = &serde_json::from_str::<Value>(&raw).unwrap()["config"];
    assert_eq!((&config["Healthcheck"], &config["StopSignal"]), (&json!({"Test": ["NONE"]}), &json!("9")));
}

#[test]
fn every_compression_is_read_by_skopeo() {
    let space = Space::new();
    for (tag, compression) in [("gz", Compression::Gzip(9)), ("zst", Compression::Zstd(3)), ("tar", Compression::None)]
    {
        let layer = space.layer("f", "text", compression);
        let image = ImageState::scratch(&platform()).derive(tag, &settings(), &[layer], 0);
        space.commit(&[(tag, &image)]);
        space.run("skopeo", &["copy", &format!("oci:oci:{tag}"), &format!("dir:copied-{tag}")]);
    }
    assert_eq!(space.tags(), ["gz", "zst", "tar"]);
}

#[test]
fn the_same_images_are_the_same_layout_and_are_not_written_again() {
    let (first, second) = (Space::new(), Space::new());
    let images = [&first, &second].map(|space| {
        let image = space.image("app", &["one"]);
        let written = space.commit(&[("app", &image)]);
        assert!(written[0].changed && written.len() == 1);
        image
    });
    assert_eq!(first.blobs(), second.blobs());
    assert_eq!(first.index(), second.index());
    let times = |space: &Space| -> Vec<_> {
        let mut paths = vec![space.oci.join("index.json"), space.oci.join(".stacker-blobs")];
        paths.extend(space.blobs().iter().map(|name| space.oci.join("blobs/sha256").join(name)));
        paths.iter().map(|path| fs::metadata(path).unwrap().modified().unwrap()).collect()
    };
    let before = times(&first);
    let written = first.commit(&[("app", &images[0])]);
    assert!(!written[0].changed);
    assert_eq!(times(&first), before);
}

#[test]
fn a_replaced_image_leaves_no_blob_behind() {
    let space = Space::new();
    space.commit(&[("app", &space.image("app", &["one", "old"])), ("other", &space.image("other", &["one"]))]);
    space.commit(&[("app", &space.image("app", &["one", "new"]))]);
    assert_eq!(space.tags(), ["app", "other"]);
    let clean = Space::new();
    clean.commit(&[("app", &clean.image("app", &["one", "new"])), ("other", &clean.image("other", &["one"]))]);
    assert_eq!(space.blobs(), clean.blobs());
    let left: Vec<_> = fs::read_dir(&space.oci).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".stacker-tmp")), "{left:?}");
}

#[test]
fn what_others_put_there_stays() {
    let space = Space::new();
    fs::create_dir(&space.oci).unwrap();
    layout(&space.oci, Broken::Nothing);
    let theirs = space.index()["manifests"][0].clone();
    let mut index = space.index();
    index["annotations"] = json!({"kept": "yes"});
    // Neither a tag nor a sha256.
    let odd = json!({"mediaType": "application/x", "digest": format!("sha512:{}", "0".repeat(128)), "size": 3});
    index["manifests"].as_array_mut().unwrap().push(odd.clone());
    fs::write(space.oci.join("index.json"), index.to_string()).unwrap();
    let loose = support::layout::blob(&space.oci, b"nobody refers to it").0;
    let before = space.blobs();
    space.commit(&[("mine", &space.image("mine", &["one"]))]);
    space.commit(&[("mine", &space.image("mine", &["two"]))]);
    let index = space.index();
    assert_eq!(index["annotations"], json!({"kept": "yes"}));
    assert_eq!(index["manifests"].as_array().unwrap()[..2], [theirs, odd]);
    assert!(before.is_subset(&space.blobs()), "{loose}");
    space.run("skopeo", &["copy", "oci:oci:app", "dir:theirs"]);
    // A blob of ours that their image came to share is theirs as well.
    let mine = space.image("mine", &["two"]);
    let mut index = space.index();
    let mut copy = index["manifests"][2].clone();
    copy["annotations"] = json!({"org.opencontainers.image.ref.name": "shared"});
    index["manifests"].as_array_mut().unwrap().push(copy);
    fs::write(space.oci.join("index.json"), index.to_string()).unwrap();
    space.commit(&[("mine", &space.image("mine", &["three"]))]);
    assert!(space.blobs().contains(&mine.layers[0].blob.hex()));
    space.run("skopeo", &["copy", "oci:oci:shared", "dir:shared"]);
}

#[test]
fn tags_stand_in_the_order_of_the_build() {
    let space = Space::new();
    let image = |name: &str| space.image(name, &[name]);
    space.commit(&[("b", &image("b"))]);
    space.commit(&[("a", &image("a")), ("b", &image("b")), ("c", &image("c"))]);
    assert_eq!(space.tags(), ["a", "b", "c"]);
    let written = space.commit(&[("c", &image("c")), ("a", &image("a"))]);
    assert!(written.iter().all(|written| !written.changed));
}

#[test]
fn a_lost_blob_is_put_back() {
    let space = Space::new();
    let image = space.image("app", &["one"]);
    space.commit(&[("app", &image)]);
    for damage in [None, Some("short")] {
        let path = space.oci.join("blobs/sha256").join(image.layers[0].blob.hex());
        fs::remove_file(&path).unwrap();
        damage.iter().for_each(|text| fs::write(&path, text).unwrap());
        space.commit(&[("app", &image)]);
        space.run("skopeo", &["copy", "oci:oci:app", "dir:copied"]);
    }
}

#[test]
fn commits_at_once_lose_nothing() {
    let space = Space::new();
    let images: Vec<(String, ImageState)> = (0..8)
        .map(|number| (format!("t{number}"), space.image(&format!("t{number}"), &[&number.to_string()])))
        .collect();
    std::thread::scope(|scope| {
        for (tag, image) in &images {
            scope.spawn(|| space.commit(&[(tag, image)]));
        }
    });
    let mut tags = space.tags();
    tags.sort();
    assert_eq!(tags, images.iter().map(|(tag, _)| tag.clone()).collect::<Vec<_>>());
    for (tag, _) in &images {
        space.run("skopeo", &["copy", &format!("oci:oci:{tag}"), &format!("dir:{tag}")]);
    }
}

#[test]
fn another_directory_is_not_made_a_layout() {
    let space = Space::new();
    fs::create_dir(&space.oci).unwrap();
    fs::write(space.oci.join("thesis.txt"), "years").unwrap();
    let error = Export::open(&space.oci).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    assert!(!Path::new(&space.oci).join("blobs").exists());
}

#[test]
fn an_index_that_a_power_cut_emptied_is_written_anew() {
    let space = Space::new();
    let (one, two) = (space.image("one", &["1"]), space.image("two", &["2"]));
    space.commit(&[("one", &one), ("two", &two)]);
    fs::write(space.oci.join("index.json"), "").unwrap();
    space.commit(&[("one", &one), ("two", &two)]);
    assert_eq!(space.tags(), ["one", "two"]);
}
