//! `stacker cache verify` finds what is damaged, names it, and the next build heals it.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use stacker::digest::{BlobDigest, Chain, DiffId};
use stacker::record::Record;

use support::space::{Run, Space, for_each_identity, for_each_identity_on_btrfs};

const LAYERS: &str = "
lib:
  from: {type: built, tag: base}
  imports: [{path: data, dest: /data}]
  run: |
    cat /data/file > /lib; ln /lib /lib2; ln -s lib /link; mkdir /dir; echo 1 > /dir/a; mkfifo /dir/p; rm /data/full/a
app: {from: {type: built, tag: lib}, imports: [data], run: 'cp /stacker/imports/data/file /app; rm /dir/a'}
leaf: {from: {type: built, tag: app}, imports: [{path: 'stacker://lib/lib', dest: /copied}], run: 'echo leaf > /leaf'}
";

/// A space in which all is built, also on a base image, and what it came to.
fn built(space: &Space) -> Run {
    let other = Space::new();
    // Not what the layer `base` is.
    other.write("base.tar", support::base::archive().file("foreign", "layer").end());
    other.stackerfile("");
    other.build(&[]);
    copy(&other.path("oci"), &space.path("base-image"));
    space.write("data/file", "content");
    let pulled = "pulled: {from: {type: oci, url: 'base-image:base'}, run: 'cat /data/one > /pulled'}\n";
    space.stackerfile(&format!("{LAYERS}{pulled}"));
    space.build(&[])
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Cut,
    Flipped,
    Emptied,
    Removed,
    Others,
    Owner,
}

use Damage::{Cut, Emptied, Flipped, Others, Owner, Removed};

/// Flipped first: later the layout has a copy of its own of the blob.
const ALL: [Damage; 6] = [Flipped, Cut, Emptied, Removed, Others, Owner];

/// Does it to a file, as silently as can be: times stay as they were.
fn damage(path: &Path, kind: Damage, others: &[u8]) {
    let found = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bytes = fs::read(path).unwrap();
    match kind {
        Cut => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        Emptied => fs::write(path, "").unwrap(),
        Others => {
            assert_ne!(bytes, others);
            fs::write(path, others).unwrap();
        }
        Removed => return fs::remove_file(path).unwrap(),
        Owner => chown(path, Some(12345), Some(12345)).unwrap(),
        Flipped => {
            let mut bytes = bytes;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
    let times = fs::FileTimes::new().set_modified(found.modified().unwrap());
    fs::File::options().read(true).open(path).unwrap().set_times(times).unwrap();
}

/// The chain of a layer.
fn chain(run: &Run, layer: &str) -> Chain {
    Chain(run.layer(layer).diff_ids)
}

fn top(run: &Run, layer: &str) -> DiffId {
    *chain(run, layer).0.last().unwrap()
}

fn listing(space: &Space, diff_id: &DiffId) -> PathBuf {
    space.stacker_dir().join(format!("listings/sha256-{}", diff_id.hex()))
}

/// The files of records of the layer with this diff id.
fn records(space: &Space) -> Vec<(PathBuf, Record)> {
    let directories = ["records", "fresh"].map(|name| space.stacker_dir().join(name));
    let paths = directories.iter().flat_map(|directory| fs::read_dir(directory).unwrap()).map(|e| e.unwrap().path());
    paths.filter_map(|path| Some((path.clone(), Record::read(&path).unwrap()?))).collect()
}

fn record(space: &Space, diff_id: &DiffId) -> PathBuf {
    let mut found = records(space).into_iter();
    found.find(|(_, record)| record.result.diff_id == Some(*diff_id)).expect("a record").0
}

fn blob(space: &Space, diff_id: &DiffId) -> PathBuf {
    let connection = rusqlite::Connection::open(space.stacker_dir().join("stacker.db")).unwrap();
    let query = "SELECT blob FROM blob WHERE diff_id = ?1";
    let digest: [u8; 32] = connection.query_row(query, [diff_id.0], |row| row.get(0)).unwrap();
    space.stacker_dir().join("blobs/sha256").join(BlobDigest(digest).hex())
}

/// Verify finds something damaged at this path.
#[track_caller]
fn finds(space: &Space, arguments: &[&str], path: &str) -> Run {
    let run = space.stacker(&[&["cache", "verify"], arguments].concat()).ends_with(1);
    let line = run.stdout.lines().find(|line| line.starts_with("damaged: ") && line.contains(path));
    assert!(line.is_some(), "{path} is not named by {run}");
    run
}

/// Verify finds nothing.
#[track_caller]
fn all_right(space: &Space) {
    let run = space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
    assert!(run.stdout.contains(": all right"), "{run}");
}

/// What is built now, and what runs see now, is what an undisturbed store gave.
#[track_caller]
fn healed(space: &Space, before: &Run, what: &str) {
    let after = space.build(&[]);
    assert_eq!(after.digests(), before.digests(), "{what}");
    for layer in fs::read_dir(space.path("oci/blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()) {
        let digest = BlobDigest::of(&fs::read(&layer).unwrap()).hex();
        assert!(layer.ends_with(&digest), "{what}: {} of the layout has the digest {digest}", layer.display());
    }
    // Whatever was set aside must be made again for a run on it.
    let stackerfile = fs::read_to_string(space.path("stacker.yaml")).unwrap();
    let script = "cat /lib /data/one /app 2>&1 | cat > /seen; stat -c '%n %a %u %g %s %Y' /lib /app /etc/passwd >> /seen || true";
    let mut looks = String::new();
    for layer in ["leaf", "app", "pulled"] {
        looks += &format!("look-{layer}: {{from: {{type: built, tag: {layer}}}, run: \"{script}; true {what}\"}}\n");
    }
    space.write("stacker.yaml", format!("{stackerfile}{looks}"));
    space.build(&["look-leaf", "look-app", "look-pulled"]);
    let seen = ["leaf", "app", "pulled"].map(|layer| space.file(&format!("look-{layer}"), "seen").unwrap());
    space.write("stacker.yaml", stackerfile);
    let first = space.path("seen");
    match fs::read_to_string(&first) {
        Ok(expected) => assert_eq!(seen.concat(), expected, "{what}"),
        Err(_) => fs::write(first, seen.concat()).unwrap(),
    }
    all_right(space);
}

fn kinds() -> impl Iterator<Item = Damage> {
    // Only root can give a file to somebody else.
    ALL.into_iter().filter(|kind| *kind != Owner || rustix::process::geteuid().is_root())
}

#[test]
fn an_undisturbed_store_is_all_right() {
    for_each_identity(|space| {
        let before = built(space);
        space.stacker(&["cache", "verify"]).ends_with(0);
        all_right(space);
        healed(space, &before, "nothing");
        let json = space.stacker(&["cache", "verify", "--json"]).ends_with(0).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        support::schema::assert_fits("cache-verify", &json);
        assert_eq!(json["damaged"], serde_json::json!([]));
        assert!(json["checked"]["deltas"].as_u64().unwrap() >= 6, "{json}");
    });
}

#[test]
fn damaged_records_are_written_anew() {
    for_each_identity(|space| {
        let before = built(space);
        healed(space, &before, "nothing");
        for kind in kinds() {
            let path = record(space, &top(&before, "app"));
            let others = fs::read(record(space, &top(&before, "lib"))).unwrap();
            let (count, known) = (records(space).len(), Record::read(&path).unwrap().unwrap());
            damage(&path, kind, &others);
            finds(space, &[], path.to_str().unwrap());
            assert_eq!(records(space).len(), count, "{kind:?}");
            let anew = Record::read(&record(space, &top(&before, "app"))).unwrap().unwrap();
            assert_eq!((anew.action, anew.result.diff_id), (known.action, known.result.diff_id), "{kind:?}");
            healed(space, &before, &format!("record {kind:?}"));
        }
        // Not even the rows are there.
        let path = record(space, &top(&before, "app"));
        damage(&path, Cut, b"");
        fs::remove_file(space.stacker_dir().join("stacker.db")).unwrap();
        finds(space, &[], path.to_str().unwrap());
        space.build(&[]).built(&["app"]);
        healed(space, &before, "record and database");
    });
}

#[test]
fn damaged_listings_are_written_anew_or_made_again() {
    for_each_identity(|space| {
        let before = built(space);
        healed(space, &before, "nothing");
        for (layer, diff_id) in [("app", top(&before, "app")), ("pulled", chain(&before, "pulled").0[0])] {
            let path = listing(space, &diff_id);
            let others = fs::read(listing(space, &top(&before, "lib"))).unwrap();
            for kind in kinds() {
                let right = fs::read(&path).unwrap();
                damage(&path, kind, &others);
                // Nothing but contents tells that one digit of a content's digest is wrong.
                let arguments: &[&str] = if kind == Flipped { &["--deep"] } else { &[] };
                if kind == Removed {
                    // Results outlive their data.
                    let run = space.stacker(&["cache", "verify"]).ends_with(0);
                    assert!(layer != "app" || run.stdout.contains(path.to_str().unwrap()), "{run}");
                } else {
                    finds(space, arguments, path.to_str().unwrap());
                }
                if layer == "app" {
                    assert!(path.exists(), "{kind:?}");
                    assert_eq!(fs::read(&path).unwrap(), right, "{kind:?}: its delta tells what it was");
                }
                healed(space, &before, &format!("listing {layer} {kind:?}"));
                assert_eq!(fs::read(&path).unwrap(), right, "{kind:?}");
            }
        }
    });
}

#[test]
fn damaged_blobs_are_made_again() {
    for_each_identity(|space| {
        let before = built(space);
        healed(space, &before, "nothing");
        let path = blob(space, &top(&before, "app"));
        let others = fs::read(blob(space, &top(&before, "lib"))).unwrap();
        let right = fs::read(&path).unwrap();
        for kind in kinds() {
            damage(&path, kind, &others);
            match kind {
                Removed => {
                    let run = space.stacker(&["cache", "verify"]).ends_with(0);
                    assert!(run.stdout.contains(path.to_str().unwrap()), "{run}");
                }
                Flipped => {
                    space.stacker(&["cache", "verify"]).ends_with(0);
                    finds(space, &["--deep"], path.to_str().unwrap());
                }
                _ => drop(finds(space, &[], path.to_str().unwrap())),
            }
            assert!(!path.exists(), "{kind:?}");
            healed(space, &before, &format!("blob {kind:?}"));
            assert_eq!(fs::read(&path).unwrap(), right, "{kind:?}");
        }
        // What was set aside stays for a look, until gc.
        let damaged = || fs::read_dir(space.stacker_dir().join("damaged")).unwrap().count();
        assert!(damaged() > 0);
        space.stacker(&["gc"]).ends_with(0);
        assert!(damaged() > 0);
        std::thread::sleep(Duration::from_millis(2100));
        space.stacker(&["gc", "--older-than", "1s"]).ends_with(0);
        assert_eq!(damaged(), 0);
    });
}

#[test]
fn damaged_deltas_are_made_again() {
    for_each_identity(|space| {
        let before = built(space);
        healed(space, &before, "nothing");
        let base = Chain(chain(&before, "pulled").0[..1].to_vec());
        // On btrfs the delta of a base is its tree.
        for (stack, file) in [(chain(&before, "app"), "app"), (base, "etc/passwd")] {
            let delta = space.roots_dir().join("deltas").join(stack.id().short());
            for kind in kinds() {
                writable(&delta, || damage(&delta.join(file), kind, b"another content"));
                match kind {
                    Flipped => {
                        space.stacker(&["cache", "verify"]).ends_with(0);
                        finds(space, &["--deep"], delta.to_str().unwrap());
                    }
                    _ => {
                        let run = finds(space, &[], delta.to_str().unwrap());
                        assert!(run.stdout.contains(&format!("/{file}")), "{run}");
                    }
                }
                assert!(!delta.exists(), "{kind:?}");
                healed(space, &before, &format!("delta {file} {kind:?}"));
                assert!(delta.exists(), "{kind:?}");
            }
            // What is no content.
            let damages: [(&str, &dyn Fn()); 4] = [
                ("added", &|| fs::write(delta.join("added"), "").unwrap()),
                ("mode", &|| chmod(&delta.join(file), 0o600)),
                ("link", &|| {
                    fs::remove_file(delta.join(file)).unwrap();
                    std::os::unix::fs::symlink("elsewhere", delta.join(file)).unwrap();
                }),
                ("root", &|| chmod(&delta, 0o700)),
            ];
            for (name, damage) in damages {
                writable(&delta, damage);
                finds(space, &[], delta.to_str().unwrap());
                healed(space, &before, &format!("delta {file} {name}"));
            }
        }
    });
}

#[test]
fn damaged_trees_are_made_again() {
    for_each_identity_on_btrfs(|space| {
        let before = built(space);
        healed(space, &before, "nothing");
        let tree = space.roots_dir().join("trees").join(chain(&before, "lib").id().short());
        for (file, kind) in kinds().flat_map(|kind| [("lib", kind), ("etc/passwd", kind)]) {
            writable(&tree, || damage(&tree.join(file), kind, b"another content"));
            if kind == Flipped {
                space.stacker(&["cache", "verify"]).ends_with(0);
            }
            let arguments: &[&str] = if kind == Flipped { &["--deep"] } else { &[] };
            finds(space, arguments, tree.to_str().unwrap());
            assert!(!tree.exists(), "{kind:?}");
            let script = format!("cat /lib > /app; true {file} {kind:?}");
            space.edit("stacker.yaml", "cp /stacker/imports/data/file /app", &script);
            assert_eq!(space.build(&["app"]).built(&["app"]).digests().len(), 3);
            assert_eq!(space.file("app", "app").as_deref(), Some("content"));
            assert!(tree.exists(), "{kind:?}");
            space.edit("stacker.yaml", &script, "cp /stacker/imports/data/file /app");
            healed(space, &before, &format!("tree {file} {kind:?}"));
        }
    });
}

#[test]
fn damaged_trees_of_high_stacks_are_made_again() {
    let space = &Space::new();
    space.write("data/file", "content");
    let mut layers =
        String::from("layer-0: {from: {type: built, tag: base}, imports: [{path: data, dest: /data-0}]}\n");
    for number in 1..62 {
        let from = number - 1;
        let import = format!("imports: [{{path: data, dest: /data-{number}}}]");
        layers +=
            &format!("layer-{number}: {{from: {{type: built, tag: layer-{from}}}, build_only: true, {import}}}\n");
    }
    layers += "last: {from: {type: built, tag: layer-61}, run: 'cat /data-*/file > /last'}\n";
    space.stackerfile(&layers);
    let before = space.build(&[]);
    all_right(space);
    let trees: Vec<PathBuf> =
        fs::read_dir(space.roots_dir().join("trees")).unwrap().map(|entry| entry.unwrap().path()).collect();
    if support::volume::is_btrfs(&space.roots_dir()) {
        return support::skipped("the temporary directory is on btrfs");
    }
    let [tree] = &trees[..] else { panic!("{trees:?}") };
    // Its files are those of the deltas; its directories are its own.
    chmod(&tree.join("data-3"), 0o700);
    finds(space, &[], tree.to_str().unwrap());
    assert!(!tree.exists());
    space.edit("stacker.yaml", "> /last", "> /last2");
    space.build(&["last"]);
    assert!(tree.exists());
    damage(&tree.join("data-3/file"), Flipped, b"");
    let run = finds(space, &["--deep"], tree.to_str().unwrap());
    assert!(run.stdout.contains("delta of layer-3"), "{run}");
    space.edit("stacker.yaml", "> /last2", "> /last");
    assert_eq!(space.build(&[]).digests(), before.digests());
    all_right(space);
}

#[test]
fn a_damaged_database_is_made_anew() {
    for_each_identity(|space| {
        let before = built(space);
        healed(space, &before, "nothing");
        let path = space.stacker_dir().join("stacker.db");
        for kind in [Cut, Emptied, Others] {
            // Without it only what is in the file counts.
            let connection = rusqlite::Connection::open(&path).unwrap();
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            drop(connection);
            damage(&path, kind, b"another file");
            finds(space, &[], path.to_str().unwrap());
            healed(space, &before, &format!("database {kind:?}"));
        }
        // A row that SQLite cannot know to be wrong.
        for (statement, deep) in [
            ("UPDATE layer SET newest_seconds = newest_seconds + 1", false),
            ("UPDATE layer SET entries = entries + 1", false),
            ("UPDATE action SET action = '{}'", false),
            ("UPDATE result SET diff_id = zeroblob(32) WHERE diff_id IS NOT NULL", false),
            ("UPDATE result SET record = ''", false),
            ("UPDATE blob SET size = size + 1", true),
        ] {
            let connection = rusqlite::Connection::open(&path).unwrap();
            connection.execute(statement, []).unwrap();
            drop(connection);
            let arguments: &[&str] = if deep { &["--deep"] } else { &[] };
            space.stacker(&[&["cache", "verify"], arguments].concat()).ends_with(1);
            healed(space, &before, statement.split(' ').nth(3).unwrap());
        }
    });
}

#[test]
fn a_damaged_store_file_is_written_anew() {
    for_each_identity(|space| {
        let before = built(space);
        healed(space, &before, "nothing");
        let path = space.roots_dir().join("store.json");
        let kind = |path: &Path| -> serde_json::Value {
            let json: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            json["backend"].clone()
        };
        let backend = kind(&path);
        for damage_kind in [Cut, Emptied, Others] {
            damage(&path, damage_kind, b"another file");
            space.stacker(&["build", "--no-cache"]).ends_with(3).says("stacker cache verify");
            finds(space, &[], path.to_str().unwrap());
            assert_eq!(kind(&path), backend, "{damage_kind:?}");
            healed(space, &before, &format!("store {damage_kind:?}"));
        }
    });
}

#[test]
fn a_store_that_is_not_mounted_is_not_damaged() {
    for_each_identity_on_btrfs(|space| {
        let before = built(space);
        space.volume().unwrap().unmount();
        space.stacker(&["cache", "verify", "--deep"]).ends_with(3).says("is its file system not mounted?");
        space.volume().unwrap().mount();
        healed(space, &before, "mounted");
    });
}

#[test]
fn where_all_files_belong_to_one_only_listings_know_owners() {
    for_each_identity(|space| {
        space.write("data/file", "content");
        space.stackerfile(LAYERS);
        let single = ["--sandbox", "single-id"];
        let before = space.build(&single);
        let verify = |code| space.stacker(&[&["cache", "verify", "--deep"], &single[..]].concat()).ends_with(code);
        verify(0);
        space.stacker(&[&["gc"], &single[..]].concat()).ends_with(0);
        // From the base, where an archive said who owns what.
        let delta = space.roots_dir().join("deltas").join(chain(&before, "base").id().short());
        let listing = listing(space, &chain(&before, "base").0[0]);
        let right = fs::read(&listing).unwrap();
        damage(&listing, Flipped, b"");
        verify(1);
        assert_eq!(fs::read(&listing).unwrap(), right);
        writable(&delta, || chmod(&delta.join("bin/setuid"), 0o755));
        let run = verify(1);
        assert!(run.stdout.contains("/bin/setuid: mode 755, should be 4755"), "{run}");
        if rustix::process::geteuid().is_root() {
            let delta = space.roots_dir().join("deltas").join(chain(&before, "app").id().short());
            damage(&delta.join("app"), Owner, b"");
            assert!(verify(1).stdout.contains("/app: owner "));
        }
        space.edit("stacker.yaml", "rm /dir/a", "rm /dir/a; true");
        space.build(&single).built(&["app"]);
        assert!(delta.exists());
        verify(0);
    });
}

#[test]
fn damaged_listings_of_imports_go_and_staged_imports_are_staged_again() {
    for_each_identity(|space| {
        let before = built(space);
        let names = |directory: PathBuf| -> Vec<String> {
            let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).collect()
        };
        let listings = space.stacker_dir().join("listings");
        let name = names(listings.clone()).into_iter().find(|name| name.starts_with("tree-")).unwrap();
        for kind in [Cut, Flipped, Emptied, Others] {
            damage(&listings.join(&name), kind, b"stacker listing 1\n");
            finds(space, &[], listings.join(&name).to_str().unwrap());
            all_right(space);
            fs::copy(space.stacker_dir().join("damaged").join(format!("listing-{name}")), "/dev/null").unwrap();
            space.build(&["--no-cache"]);
        }
        let imports = space.roots_dir().join("imports");
        let [staged] = &names(imports.clone())[..] else { panic!("{:?}", names(imports)) };
        damage(&imports.join(staged).join("t/file"), Flipped, b"");
        let run = space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
        assert!(run.stdout.contains(staged), "{run}");
        assert_eq!(names(imports), [""; 0]);
        space.edit("stacker.yaml", "rm /dir/a", "rm /dir/a; true");
        space.build(&["app"]).built(&["app"]);
        assert_eq!(space.file("app", "app").as_deref(), Some("content"));
        space.edit("stacker.yaml", "rm /dir/a; true", "rm /dir/a");
        healed(space, &before, "staged import");
    });
}

#[test]
fn what_nothing_is_left_of_is_built_again() {
    for_each_identity(|space| {
        let before = built(space);
        healed(space, &before, "nothing");
        let delta = space.roots_dir().join("deltas").join(chain(&before, "app").id().short());
        let blob = blob(space, &top(&before, "app"));
        writable(&delta, || damage(&delta.join("app"), Cut, b""));
        damage(&blob, Cut, b"");
        let run = finds(space, &[], delta.to_str().unwrap());
        assert!(run.stdout.contains("its step runs again when it is needed"), "{run}");
        healed(space, &before, "app");
        space.build(&[]).built(&[]);
    });
}

#[test]
fn what_a_running_build_uses_is_left_to_it() {
    for_each_identity(|space| {
        let before = built(space);
        space.edit("stacker.yaml", "echo leaf > /leaf", "sleep 3; cat /app > /leaf");
        let child = space.command(&["build", "leaf"]).spawn().unwrap();
        let begun = Instant::now();
        let drafts = space.roots_dir().join("drafts");
        while fs::read_dir(&drafts).unwrap().count() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain");
            std::thread::sleep(Duration::from_millis(20));
        }
        let delta = space.roots_dir().join("deltas").join(chain(&before, "app").id().short());
        fs::write(delta.join("added"), "").unwrap();
        let run = finds(space, &["--deep"], delta.to_str().unwrap());
        assert!(run.stdout.contains("a running build uses it"), "{run}");
        assert!(delta.join("app").exists());
        space.run_of(&["build", "leaf"], child.wait_with_output().unwrap()).ends_with(0);
        assert_eq!(space.file("leaf", "leaf").as_deref(), Some("content"));
        finds(space, &[], delta.to_str().unwrap());
        assert!(!delta.exists());
        space.edit("stacker.yaml", "sleep 3; cat /app > /leaf", "echo leaf > /leaf");
        healed(space, &before, "used");
    });
}

/// Lets a tree that is a read-only subvolume be written to meanwhile.
fn writable(directory: &Path, change: impl FnOnce()) {
    let directory = fs::canonicalize(directory).unwrap();
    let subvolume = fs::metadata(&directory).unwrap().ino() == 256 && support::volume::is_btrfs(&directory);
    let set = |read_only: &str| {
        let mut command = Command::new("btrfs");
        command.args(["property", "set", "-ts"]).arg(&directory).args(["ro", read_only]);
        assert!(!subvolume || command.status().unwrap().success());
    };
    set("false");
    // Times of directories are compared too.
    let parents: Vec<(PathBuf, fs::FileTimes)> = [directory.clone(), directory.join("etc")]
        .into_iter()
        .filter_map(|path| {
            let modified = path.metadata().ok()?.modified().ok()?;
            Some((path, fs::FileTimes::new().set_modified(modified)))
        })
        .collect();
    change();
    for (path, times) in parents {
        fs::File::open(path).unwrap().set_times(times).unwrap();
    }
    set("true");
}

fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
