//! `stacker cache export` and `stacker cache import`: what one machine built is found by another, and nothing that is
//! not right is taken.

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use stacker::digest::{BlobDigest, ContentDigest};
use support::identity::identities;
use support::registry::{Dialect, Registry, image};
use support::skipped;
use support::space::{Run, Space, for_each_user};
use support::watched::Watched;

const LAYERS: &str = "
lib:
  from: {type: built, tag: base}
  build_only: true
  imports: [{path: data, dest: /lib, uid: 7}]
  run: 'cat /lib/file > /made; rm /data/doomed; chown 1:2 /data/one; setfattr -n user.x -v y /made || true'
app:
  from: {type: built, tag: lib}
  imports: [data, {path: 'stacker://lib/made', dest: /copied}]
  run: 'cp /stacker/imports/data/file /app'
  generate_labels: 'cat /app > /stacker/oci-labels/app'
idle: {from: {type: built, tag: app}, run: 'true'}
pulled: {from: {type: oci, url: 'image:other'}, imports: [{path: data, dest: /short/dir}], run: 'cat /other > /pulled'}
";

#[test]
fn base_images_go_along_on_request() {
    for_each_user(|from| {
        let registry = Registry::start();
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let base = image(arch, Dialect::Oci, &[support::base::tar()]);
        registry.put("base", "one", &base);
        let url = format!("docker://{}/base:one", registry.address());
        let app = format!("app: {{from: {{type: docker, url: '{url}', insecure: true}}, run: 'echo > /x'}}\n");
        from.write("stacker.yaml", &app);
        let built = from.build(&[]);
        from.stacker(&["cache", "export", "cache.tar"]).ends_with(0);
        from.stacker(&["cache", "export", "whole.tar", "--base-images"]).ends_with(0);
        drop(registry);
        let to = Space::of(from.identity());
        for name in ["stacker.yaml", "cache.tar", "whole.tar"] {
            hand_over(from, &to, name);
        }
        to.stacker(&["cache", "import", "cache.tar"]).ends_with(0);
        assert_ne!(to.stacker(&["build", "--offline"]).code, 0);
        to.stacker(&["cache", "import", "whole.tar"]).ends_with(0);
        let hits = to.build(&["--offline"]);
        hits.built(&[]);
        assert_eq!((hits.digests(), hits.image("app")), (built.digests(), built.image("app")));
        to.write("stacker.yaml", app.replace("echo", "ls -l /bin"));
        to.build(&["--offline"]).built(&["app"]);
        whole(&to);
    });
}

/// Layers that need no sandbox, and make a small archive.
const SMALL: &str = "
one: {from: {type: scratch}, imports: [{path: data, dest: /}]}
two: {from: {type: built, tag: one}, imports: [{path: more, dest: /more}]}
";

/// A space whose layout holds the image `other`.
fn base_image() -> Space {
    let space = Space::new();
    space.stackerfile("other: {from: {type: built, tag: base}, run: 'echo other > /other; ln -s data /short'}\n");
    space.build(&[]);
    space
}

/// The sources of [`LAYERS`].
fn sources(space: &Space, base: &Space) {
    space.write("data/file", "content");
    space.stackerfile(LAYERS);
    let copied = Command::new("cp").arg("-r").arg(base.path("oci")).arg(space.path("image")).status();
    assert!(copied.unwrap().success());
}

/// The same sources as somebody else's, in another directory, with other times and modes of no account.
fn moved(from: &Space, to: &Space) {
    for name in ["stacker.yaml", "base.tar", "data/file"] {
        to.write(name, fs::read(from.path(name)).unwrap());
    }
    let copied = Command::new("cp").arg("-r").arg(from.path("image")).arg(to.path("image")).status();
    assert!(copied.unwrap().success());
}

fn hand_over(from: &Space, to: &Space, name: &str) {
    to.write(name, fs::read(from.path(name)).unwrap());
}

/// The first user's, on the file system of the temporary directory and (`btrfs`) on btrfs.
fn spaces() -> Vec<Space> {
    let mut spaces: Vec<Space> = identities().into_iter().map(Space::of).collect();
    match rustix::process::geteuid().is_root() {
        true => spaces.extend(identities().into_iter().map(Space::on_btrfs)),
        false => skipped("the same on btrfs, which only root can mount"),
    }
    spaces.extend(identities().into_iter().map(Space::with_copies));
    spaces
}

#[track_caller]
fn whole(space: &Space) {
    let run = space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
    assert!(run.stdout.contains(": all right"), "{run}");
}

#[test]
fn who_imports_an_archive_builds_nothing() {
    let spaces = spaces();
    let base = base_image();
    for (index, from) in spaces.iter().enumerate() {
        sources(from, &base);
        let built = from.build(&[]);
        let run = from.stacker(&["cache", "export", "cache.tar"]).ends_with(0);
        run.says("exported 9 results, 7 layers of");
        // Another user with another umask, another kind of store.
        let identity = spaces[(index + 1) % spaces.len()].identity();
        let to = match from.kind() == "overlay" && rustix::process::geteuid().is_root() {
            true => Space::on_btrfs(identity),
            false => Space::of(identity),
        };
        moved(from, &to);
        hand_over(from, &to, "cache.tar");
        let umask = ["sh", "-c", "umask 077; exec \"$@\"", "sh"];
        let run = to.stacker_under(&umask, &["cache", "import", "cache.tar"]).ends_with(0);
        assert!(run.stdout.contains("took 9 results, 7 layers of"), "{run}");
        let hits = to.stacker_under(&umask, &["build"]).ends_with(0);
        hits.built(&[]);
        assert_eq!(hits.digests(), built.digests());
        for image in ["app", "idle", "pulled"] {
            assert_eq!(hits.image(image), built.image(image), "{image}");
        }
        whole(&to);
        // Scripts run on what came from the archive.
        let text = fs::read_to_string(to.path("stacker.yaml")).unwrap();
        to.write(
            "stacker.yaml",
            text + "on: {from: {type: built, tag: app}, run: 'cat /app /copied > /on; ls -n /data/one'}\n",
        );
        to.build(&["on"]).built(&["on"]).says("1        2");
        assert_eq!(to.file("on", "on").unwrap(), "contentcontent");
        // Who has it all takes nothing, and exports the same bytes.
        let run = to.stacker(&["cache", "import", "cache.tar"]).ends_with(0);
        assert!(run.stdout.contains("took 0 results, 0 layers of 0 B; 9 results here already"), "{run}");
        to.stacker(&["cache", "export", "again.tar", "idle", "pulled"]).ends_with(0);
        from.stacker(&["cache", "export", "again.tar", "idle", "pulled"]).ends_with(0);
        assert!(fs::read(to.path("again.tar")).unwrap() == fs::read(from.path("again.tar")).unwrap(), "other bytes");
    }
}

#[test]
fn archives_hold_what_is_asked_for() {
    let base = base_image();
    for_each_user(|space| {
        sources(space, &base);
        space.stacker(&["cache", "export", "cache.tar"]).ends_with(2).says("there is no cache at");
        space.build(&["lib"]);
        let run = space.stacker(&["cache", "export", "cache.tar", "app"]).ends_with(1);
        run.says("not built as it is now, so it cannot be exported: app");
        assert!(!space.path("cache.tar").exists());
        // Of all layers, what there is.
        let run = space.stacker(&["cache", "export", "cache.tar.zst"]).ends_with(0);
        run.says("warning: layer app is not wholly built").says("exported 3 results, 3 layers");
        let plain = space.stacker(&["cache", "export", "cache.tar", "lib"]).ends_with(0);
        plain.says("exported 3 results").says_not("warning");
        // A layer without a blob gets one for the archive alone.
        assert_eq!(blobs(space), 1);
        space.stacker(&["cache", "export", "other.tar", "lib", "--compression", "zstd"]).ends_with(0);
        let unpacked = zstd::decode_all(&fs::read(space.path("other.tar")).unwrap()[..]).unwrap();
        assert!(unpacked == fs::read(space.path("cache.tar")).unwrap(), "not the same but for the compression");
        let listed = space.other_program(&["tar", "-tf", "cache.tar"]).output().unwrap();
        let names = String::from_utf8(listed.stdout).unwrap();
        assert!(names.starts_with("manifest-") && names.lines().count() == 1 + 3 + 1 + 3 * 2, "{names}");
        // After an edit nothing of it is as it is now.
        space.write("data/file", "edited");
        space.stacker(&["cache", "export", "cache.tar", "lib"]).ends_with(1);
        let other = Space::of(space.identity());
        hand_over(space, &other, "cache.tar.zst");
        let run = other.stacker(&["cache", "import", "cache.tar.zst"]).ends_with(0);
        assert!(run.stdout.contains("took 3 results"), "{run}");
        let ls = other.stacker(&["cache", "ls"]).ends_with(0);
        assert!(ls.stdout.contains("lib"), "{ls}");
        other.stacker(&["cache", "import", "missing"]).ends_with(3).says("cannot open");
    });
}

fn blobs(space: &Space) -> usize {
    fs::read_dir(space.stacker_dir().join("blobs/sha256")).unwrap().count()
}

#[test]
fn standard_input_and_output_are_files_too() {
    for_each_user(|space| {
        small(space);
        let output = space.command(&["cache", "export", "-"]).output().unwrap();
        assert!(output.status.success());
        space.stacker(&["cache", "export", "cache.tar"]).ends_with(0);
        assert!(output.stdout == fs::read(space.path("cache.tar")).unwrap());
        let other = Space::of(space.identity());
        let (written, run) = piped(&other, &output.stdout);
        written.unwrap();
        assert!(run.ends_with(0).stdout.contains("took 2 results, 2 layers"));
    });
}

/// Sources of [`SMALL`], built.
fn small(space: &Space) -> Run {
    space.write("data/file", "content");
    space.write("data/dir/file", "another");
    space.write("more", "more");
    space.write("stacker.yaml", SMALL);
    space.build(&[])
}

fn piped(space: &Space, bytes: &[u8]) -> (std::io::Result<()>, Run) {
    let arguments = ["cache", "import", "-"];
    let mut child = space.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    let written = child.stdin.take().unwrap().write_all(bytes);
    (written, space.run_of(&arguments, child.wait_with_output().unwrap()))
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_takes_nothing_wrong() {
    let from = Space::new();
    let built = small(&from);
    from.stacker(&["cache", "export", "cache.tar"]).ends_with(0);
    let archive = fs::read(from.path("cache.tar")).unwrap();
    let to = Space::new();
    for name in ["stacker.yaml", "data/file", "data/dir/file", "more"] {
        hand_over(&from, &to, name);
    }
    let step = archive.len() / 200 + 1;
    for at in (0..archive.len()).step_by(step).chain([archive.len() - 1]) {
        let mut bytes = archive.clone();
        bytes[at] ^= 1 << (at % 8);
        to.write("cache.tar", bytes);
        let run = to.stacker(&["cache", "import", "cache.tar"]);
        assert_eq!(run.code, 1, "byte {at}: {run}");
        run.says("is no cache archive, or a damaged one");
    }
    for length in (0..archive.len()).step_by(step * 4) {
        to.write("cache.tar", &archive[..length]);
        to.stacker(&["cache", "import", "cache.tar"]).ends_with(1).says("it was cut off");
    }
    // What came before the damage was right.
    let run = to.build(&[]);
    assert_eq!(run.digests(), built.digests());
    whole(&to);
    to.write("cache.tar", &archive);
    to.stacker(&["cache", "import", "cache.tar"]).ends_with(0);
}

#[test]
fn a_killed_import_leaves_whole_results_or_none() {
    for_each_user(|from| {
        let built = small(from);
        from.stacker(&["cache", "export", "cache.tar"]).ends_with(0);
        let archive = fs::read(from.path("cache.tar")).unwrap();
        let to = Space::of(from.identity());
        for name in ["stacker.yaml", "data/file", "data/dir/file", "more"] {
            hand_over(from, &to, name);
        }
        for part in 1..8 {
            let mut child = to.command(&["cache", "import", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(&archive[..archive.len() * part / 8]).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let (written, run) = piped(&to, &archive);
        written.unwrap();
        run.ends_with(0);
        let hits = to.build(&[]);
        hits.built(&[]);
        assert_eq!(hits.digests(), built.digests());
        whole(&to);
        // Nothing is left that gc would not take.
        to.stacker(&["gc"]).ends_with(0);
        assert_eq!(fs::read_dir(to.stacker_dir().join("tmp")).unwrap().count(), 0);
    });
}

/// Kills an import where it comes to a commit point for the `time`th time, counted over all of them; `None`: it does not
/// come to so many.
fn killed_at(space: &Space, time: usize) -> Option<String> {
    let mut command = space.command(&["cache", "import", "cache.tar"]);
    command.stdout(Stdio::null());
    let mut watched = Watched::start(space, command);
    let standing = std::iter::from_fn(|| watched.next()).nth(time);
    let point = standing.as_ref().map(|standing| standing.point().to_owned());
    if standing.is_some() {
        watched.child.kill().unwrap();
    }
    drop(standing);
    watched.child.wait().unwrap();
    point
}

#[test]
fn an_import_may_be_killed_at_every_commit_point() {
    let from = Space::new();
    let built = small(&from);
    from.stacker(&["cache", "export", "cache.tar"]).ends_with(0);
    let to = Space::new();
    for name in ["stacker.yaml", "data/file", "data/dir/file", "more", "cache.tar"] {
        hand_over(&from, &to, name);
    }
    let mut points = Vec::new();
    while let Some(point) = killed_at(&to, points.len()) {
        let what = format!("killed at {point}");
        // What is there is right and whole: nothing of it has to be built for want of data.
        if to.stacker_dir().join("stacker.db").exists() {
            let run = to.stacker(&["cache", "verify", "--deep"]).ends_with(0);
            assert!(!run.stdout.contains("its step runs again"), "{what}: {run}");
        }
        assert_eq!(to.build(&[]).digests(), built.digests(), "{what}");
        fs::remove_dir_all(to.stacker_dir()).unwrap();
        if to.has_roots() {
            to.forget_roots();
        }
        fs::remove_dir_all(to.path("oci")).unwrap();
        points.push(point);
    }
    for point in ["blob-named", "listing-named", "record-written", "result-inserted", "synced", "rows-kept"] {
        assert!(points.iter().any(|reached| reached == point), "{point} is none of {points:?}");
    }
    to.build(&[]).built(&[]);
}

/// An archive taken apart, to be forged.
struct Forgery {
    manifest: Value,
    members: Vec<(String, Vec<u8>)>,
}

impl Forgery {
    fn of(path: &Path) -> Forgery {
        let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
        let mut members = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            members.push((name, bytes));
        }
        let manifest = serde_json::from_slice(&members.remove(0).1).unwrap();
        Forgery { manifest, members }
    }

    /// Replaces a member, with all that says what it is.
    fn replace(&mut self, prefix: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let (name, bytes) = self.members.iter_mut().rfind(|(name, _)| name.starts_with(prefix)).unwrap();
        let before = (ContentDigest::of(bytes).to_string(), BlobDigest::of(bytes).to_string(), bytes.len());
        *bytes = change(bytes.clone());
        let after = (ContentDigest::of(bytes).to_string(), BlobDigest::of(bytes).to_string(), bytes.len());
        if prefix != "listings/" {
            let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
            *name = name.replace(&before.0, &after.0).replace(&hex(&before.1), &hex(&after.1));
        }
        let mut text = self.manifest.to_string();
        for (old, new) in [(&before.0, &after.0), (&before.1, &after.1)] {
            let size = |digest: &String, size: usize| format!("\"{digest}\",\"size\":{size}");
            text = text.replace(&size(old, before.2), &size(new, after.2));
        }
        self.manifest = serde_json::from_str(&text).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        let manifest = format!("{}\n", self.manifest).into_bytes();
        let name = format!("manifest-{}.json", ContentDigest::of(&manifest));
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in [(name, manifest)].iter().chain(&self.members) {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_path(name).unwrap();
            header.set_cksum();
            tar.append(&header, &bytes[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }
}

type Forge = fn(&mut Forgery);

#[test]
fn forged_archives_are_refused_though_all_their_digests_fit() {
    let from = Space::new();
    small(&from);
    from.stacker(&["cache", "export", "cache.tar"]).ends_with(0);
    let path: PathBuf = from.path("cache.tar");
    // The tool that forges is right as such.
    assert!(Forgery::of(&path).bytes() == fs::read(&path).unwrap());
    let cases: [(&str, Forge); 12] = [
        ("has format 2, this stacker knows 1: use a newer stacker", |it| it.manifest["format"] = 2.into()),
        ("its manifest can not be understood", |it| it.manifest["layers"] = "none".into()),
        ("it has something twice", |it| {
            let first = it.manifest["results"][0].clone();
            it.manifest["results"].as_array_mut().unwrap().push(first);
        }),
        ("it lacks the layer of a result", |it| {
            it.manifest["layers"].as_array_mut().unwrap().pop();
        }),
        ("is no codec of a layer tar", |it| it.manifest["layers"][0]["blob"]["codec"] = "squashfs+x/1/y".into()),
        ("is too large", |it| it.manifest["results"][0]["record"]["size"] = (1u64 << 40).into()),
        ("should come next", |it| it.members.swap(0, 1)),
        ("there is something after its end", |it| it.members.push(("x".to_owned(), vec![0; 512]))),
        ("is no record, or a damaged one", |it| it.replace("records/", |bytes| replaced(bytes, "/more", "/moor"))),
        ("is of another layer", |it| {
            it.replace("records/", |bytes| replaced(bytes, "\"seconds\":94", "\"seconds\":84"))
        }),
        ("its tar is not what its listing says", |it| {
            it.replace("listings/sha", |bytes| replaced(bytes, " 644 ", " 604 "))
        }),
        ("its tar is not what its listing says", |it| {
            let other = it.members.iter().find(|(name, _)| name.starts_with("blobs/")).unwrap().1.clone();
            it.replace("blobs/", |_| other);
        }),
    ];
    for (says, forge) in cases {
        let mut forgery = Forgery::of(&path);
        forge(&mut forgery);
        let to = Space::new();
        to.write("cache.tar", forgery.bytes());
        let run = to.stacker(&["cache", "import", "cache.tar"]).ends_with(1);
        run.says(says);
        // Nothing that was not proven before.
        if to.stacker_dir().join("stacker.db").exists() {
            whole(&to);
        }
    }
}

fn replaced(bytes: Vec<u8>, old: &str, new: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(old), "{text}");
    text.replace(old, new).into_bytes()
}
