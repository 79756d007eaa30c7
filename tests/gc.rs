//! `stacker gc` takes what nobody needs, and nothing else.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::space::{Space, for_each_identity};

const LAYERS: &str = "
lib: {from: {type: built, tag: base}, imports: [{path: data, dest: /data}], run: 'cat /data/file > /lib'}
app: {from: {type: built, tag: lib}, imports: [data], run: 'cp /stacker/imports/data/file /app'}
tool: {from: {type: built, tag: base}, run: 'echo tool > /tool'}
";

fn prepare(space: &Space) {
    space.write("data/file", "content");
    space.stackerfile(LAYERS);
}

/// Makes everything that is known look as if it was last used so many days ago.
fn age(space: &Space, days: i64) {
    let connection = rusqlite::Connection::open(space.stacker_dir().join("stacker.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    for table in ["result", "base"] {
        let statement = format!("UPDATE {table} SET last_used = last_used - {}", days * 86_400);
        connection.execute(&statement, []).unwrap();
    }
}

/// By which rule each result went that is no more.
fn evicted(space: &Space) -> Vec<String> {
    let connection = rusqlite::Connection::open(space.stacker_dir().join("stacker.db")).unwrap();
    let mut statement = connection.prepare("SELECT cause FROM evicted").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// How many entries there are in directories of the store.
fn count(space: &Space, names: &[&str]) -> usize {
    let directory = |name: &str| match name {
        "blobs" => space.stacker_dir().join("blobs/sha256"),
        "listings" | "tmp" | "records" | "pins" => space.stacker_dir().join(name),
        _ => space.roots_dir().join(name),
    };
    names.iter().map(|name| fs::read_dir(directory(name)).map_or(0, |entries| entries.count())).sum()
}

const DATA: [&str; 5] = ["deltas", "trees", "nurseries", "blobs", "listings"];

#[test]
fn what_was_not_used_for_long_goes_and_the_rest_stays() {
    for_each_identity(|space| {
        prepare(space);
        let before = space.build(&[]);
        age(space, 20);
        // Used again: tool and what it stands on.
        space.build(&["tool"]);
        let all = count(space, &DATA);
        let told = space.stacker(&["gc", "--older-than", "10d", "--dry-run"]).ends_with(0).stdout;
        assert!(told.contains("run of app, last used 20 days ago") && told.contains("would remove"), "{told}");
        assert_eq!(count(space, &DATA), all, "--dry-run removes nothing");

        let listings = count(space, &["listings"]);
        let told = space.stacker(&["cache", "gc", "--older-than", "10d"]).ends_with(0).stdout;
        for gone in ["run of app", "run of lib", "import of lib"] {
            assert!(told.contains(gone), "{gone}: {told}");
        }
        assert!(!told.contains("of tool") && !told.contains("unpack"), "{told}");
        assert!(count(space, &DATA) < all);
        assert_eq!(count(space, &["blobs"]), 2, "of base and tool");
        assert_eq!(count(space, &["records", "trash", "drafts"]), 2);
        // What explains later builds stays.
        assert_eq!(count(space, &["listings"]), listings);
        assert_eq!(evicted(space), vec![r#"{"older-than":{"seconds":864000}}"#; 3], "of lib two, of app one");
        let ls = space.stacker(&["cache", "ls"]).ends_with(0).stdout;
        assert!(ls.contains("tool") && !ls.contains("app"), "{ls}");

        let after = space.build(&[]);
        after.built(&["lib", "app"]);
        assert_eq!(after.digests(), before.digests());
        assert_eq!(count(space, &["trash", "pins"]), 0);
    });
}

#[test]
fn without_an_age_only_leftovers_go() {
    for_each_identity(|space| {
        prepare(space);
        space.build(&[]);
        let all = count(space, &DATA);
        space.stacker(&["gc"]).ends_with(0);
        assert_eq!(count(space, &DATA), all);
        // A killed build leaves a draft, and what it was about to write.
        space.edit("stacker.yaml", "echo tool > /tool", "echo left > /tool; sleep 30");
        let mut child = space.command(&["build"]).spawn().unwrap();
        wait_for(|| count(space, &["drafts"]) > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(count(space, &["pins"]), 1, "nobody could remove it");
        wait_for(|| {
            space.stacker(&["gc"]).ends_with(0);
            count(space, &["drafts", "trash", "tmp", "pins"]) == 0
        });
        assert_eq!(count(space, &DATA), all);
        space.stackerfile(LAYERS);
        space.build(&[]).built(&[]);
    });
}

#[test]
fn a_running_build_keeps_what_it_uses() {
    for_each_identity(|space| {
        prepare(space);
        space.build(&[]);
        age(space, 20);
        space.edit("stacker.yaml", "cp /stacker/imports/data/file /app", "sleep 2; cp /stacker/imports/data/file /app");
        let child = space.command(&["build", "app"]).spawn().unwrap();
        wait_for(|| count(space, &["drafts"]) > 0);
        let told = space.stacker(&["gc", "--older-than", "1s"]).ends_with(0).stdout;
        assert!(told.contains("run of tool") && !told.contains("of lib") && !told.contains("unpack"), "{told}");
        space.run_of(&["build", "app"], child.wait_with_output().unwrap()).ends_with(0);
        assert_eq!(space.file("app", "app").as_deref(), Some("content"));
        space.build(&["app"]).built(&[]);
    });
}

#[test]
fn builds_and_gc_beside_each_other_are_never_wrong() {
    for_each_identity(|space| {
        prepare(space);
        let expected = &space.build(&[]).digests();
        let until = Instant::now() + Duration::from_secs(3);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < until {
                    age(space, 20);
                    space.stacker(&["gc", "--older-than", "10d"]).ends_with(0);
                }
            });
            for number in 0..3 {
                scope.spawn(move || {
                    let layout = format!("oci-{number}");
                    let metadata = format!("metadata-{number}.json");
                    let arguments = ["build", "--oci-dir", &layout, "--metadata-file", &metadata];
                    while Instant::now() < until {
                        space.run_of(&arguments, space.command(&arguments).output().unwrap()).ends_with(0);
                        assert_eq!(&digests(&space.path(&metadata)), expected);
                    }
                });
            }
        });
        let last = space.build(&[]);
        assert_eq!(&last.digests(), expected);
    });
}

fn digests(metadata: &Path) -> Vec<(String, Vec<stacker::digest::DiffId>)> {
    let metadata: stacker::export::metadata::Metadata = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    metadata.layers.into_iter().map(|layer| (layer.name, layer.diff_ids)).collect()
}

#[track_caller]
fn wait_for(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}
