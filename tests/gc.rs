//! `stacker gc` takes what nobody needs, and nothing else.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::space::{Space, for_each_identity, for_each_user};

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

/// A build that is killed while it copies a large file.
fn kill_while_it_copies(space: &Space) {
    space.build(&["base"]);
    let copied = || {
        let mut names = fs::read_dir(space.roots_dir().join("imports")).unwrap();
        names.any(|name| name.unwrap().path().join("t/sub/deep/large").exists())
    };
    let mut child = space.command(&["build"]).spawn().unwrap();
    wait_for(copied);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(count(space, &["imports"]), 1, "it came to its end");
}

#[test]
fn what_a_killed_build_was_copying_goes() {
    for_each_identity(|space| {
        space.write("data/sub/deep/small", "small");
        space.write("data/sub/deep/large", "");
        let large = fs::File::options().write(true).open(space.path("data/sub/deep/large")).unwrap();
        large.set_len(2 << 30).unwrap();
        space.stackerfile("app: {from: {type: built, tag: base}, imports: [{path: data, dest: /data}]}\n");
        kill_while_it_copies(space);
        wait_for(|| {
            space.stacker(&["gc", "--older-than", "1s"]).ends_with(0);
            count(space, &["imports", "drafts", "trash", "pins"]) == 0
        });
        kill_while_it_copies(space);
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
        space.stacker(&["gc"]).ends_with(0);
        assert_eq!(count(space, &["imports", "trash"]), 0);
        kill_while_it_copies(space);
        space.stacker(&["clean", "--all"]).ends_with(0);
        assert_eq!(count(space, &["imports", "trash", "trees", "deltas"]), 0);
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
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A store with a layer that takes long and one that is large, both unused for long, and one that is used.
fn prepare_sizes(space: &Space) {
    space.stackerfile(
        "
slow: {from: {type: built, tag: base}, run: 'sleep 1.5; head -c 3000000 /dev/urandom > /slow'}
large: {from: {type: built, tag: base}, run: 'head -c 8000000 /dev/urandom > /large'}
used: {from: {type: built, tag: base}, run: 'head -c 1000000 /dev/urandom > /used'}
",
    );
    space.build(&[]);
}

/// Bytes that are left, as gc says.
#[track_caller]
fn left(told: &str) -> u64 {
    let last = told.lines().last().unwrap();
    let words = last.rsplit("; ").next().unwrap();
    let size = words.split(" would be").next().unwrap().split(" are").next().unwrap();
    size.parse::<bytesize::ByteSize>().unwrap_or_else(|_| panic!("no size in {last}")).as_u64()
}

#[test]
fn what_is_worth_least_goes_until_the_size_is_right() {
    for_each_identity(|space| {
        prepare_sizes(space);
        // The layout would keep the bytes of blobs.
        fs::remove_dir_all(space.path("oci")).unwrap();
        let all = left(&space.stacker(&["gc"]).ends_with(0).stdout);
        assert!((20_000_000..40_000_000).contains(&all), "{all}");
        // What can be made again of a blob goes before anything has to run again.
        let max = (all - 6_000_000).to_string();
        let told = space.stacker(&["gc", "--max-size", &max, "--dry-run"]).ends_with(0).stdout;
        assert!(told.contains("of which the blob stays") && !told.contains("run of"), "{told}");
        let expected = left(&told);
        let told = space.stacker(&["gc", "--max-size", &max]).ends_with(0).stdout;
        assert!(left(&told) <= all - 6_000_000, "{told}");
        assert!(left(&told).abs_diff(expected) < all / 20, "--dry-run says the same: {expected}, {told}");
        assert_eq!(evicted(space), Vec::<String>::new());
        space.build(&[]).built(&[]);

        // Then the layer whose bytes are worth least: of a megabyte each, the large one took the least time.
        fs::remove_dir_all(space.path("oci")).unwrap();
        let told = space.stacker(&["gc", "--max-size", "8000000"]).ends_with(0).stdout;
        assert!(told.contains("run of large"), "{told}");
        assert!(!told.contains("run of slow") && left(&told) <= 8_000_000, "{told}");
        assert_eq!(evicted(space), [r#"{"max-size":{"bytes":8000000}}"#]);
        assert_eq!(count(space, &["trash", "pins"]), 0);
        space.build(&[]).built(&["large"]);
    });
}

#[test]
fn a_quota_holds_at_the_end_of_each_build() {
    for_each_identity(|space| {
        space.write("conf.yaml", "cache_max_size: 12MiB\n");
        let build = |round: u32| {
            let script = format!("head -c 4000000 /dev/urandom > /{round}");
            space.stackerfile(&format!("app: {{from: {{type: built, tag: base}}, run: '{script}'}}\n"));
            let run = space.build(&["--config", "conf.yaml"]);
            fs::remove_dir_all(space.path("oci")).unwrap();
            run
        };
        let mut said = 0;
        for round in 0..6 {
            let run = build(round);
            said += usize::from(run.stderr.contains("over its quota of 12.0 MiB"));
            // The bytes of this build's blobs were still the layout's.
            let size = left(&space.stacker(&["gc", "--dry-run"]).ends_with(0).stdout);
            assert!(size <= (12 << 20) + 4_000_000, "{size} after round {round}: {run}");
        }
        assert!((1..6).contains(&said), "room was made {said} times");
        let small = space.build(&["--cache-max-size", "1KiB"]);
        small.says("over its quota of 1.0 KiB");
        assert_eq!(count(space, &["deltas", "blobs"]), 0, "nothing but the database is left: {small}");
    });
}

#[test]
fn the_newest_states_of_each_layer_stay() {
    for_each_user(|space| {
        let build = |round: u32| {
            space.stackerfile(&format!(
                "
same: {{from: {{type: built, tag: base}}, run: 'echo same > /same'}}
app: {{from: {{type: built, tag: same}}, run: 'echo {round} > /app'}}
"
            ));
            space.build(&[])
        };
        for round in 0..4 {
            build(round);
        }
        // No new state.
        build(3);
        let told = space.stacker(&["gc", "--keep-last", "2"]).ends_with(0).stdout;
        assert_eq!(told.matches("run of app").count(), 2, "{told}");
        assert!(!told.contains("of same") && !told.contains("unpack"), "{told}");
        assert_eq!(evicted(space), vec![r#"{"keep-last":{"count":2}}"#; 2]);
        build(2).built(&[]);
        build(1).built(&["app"]);
        let said = space.stacker(&["gc", "--keep-last", "0"]).ends_with(2).stderr;
        assert!(said.contains("--keep-last"), "{said}");
    });
}
