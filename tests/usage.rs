//! `stacker cache du` says what is free when the store is removed, and whose it is.
//!
//! STACKER_TEST_DU_MEGABYTES says how much the store holds (default: 60).

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::identity::identities;
use support::schema::assert_fits;
use support::skipped;
use support::space::{Space, for_each_identity};
use support::volume::{SmallDisk, Volume};

/// Bytes that cannot be compressed, other ones for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A directory of many small files and some larger ones, so many bytes in all.
fn write_files(space: &Space, bytes: usize) {
    let mut left = bytes / 3;
    for number in 0.. {
        let size = if number % 50 == 0 { 400_000 } else { 300 + number * 7919 % 20_000 };
        space.write(&format!("data/{}/{number}", number % 40), noise(number as u64, size));
        left = left.saturating_sub(size);
        if left == 0 {
            return;
        }
    }
}

const LAYERS: &str = "
files: {from: {type: built, tag: base}, imports: [{path: data, dest: /data}]}
changed: {from: {type: built, tag: files}, run: 'rm -r /data/1; cp -r /data/2 /data/copy; head -c 3000000 /dev/urandom > /big'}
again: {from: {type: built, tag: changed}, run: 'echo > /again; mv /data/3 /data/moved'}
beside: {from: {type: built, tag: files}, imports: [data], run: 'cp /stacker/imports/data/4/* /'}
";

#[track_caller]
fn du(space: &Space) -> Value {
    let printed = space.stacker(&["cache", "du", "--json"]).ends_with(0).stdout;
    let usage = serde_json::from_str(&printed).unwrap();
    assert_fits("cache-du", &usage);
    usage
}

/// Bytes of a file system that are taken.
fn taken(path: &Path) -> u64 {
    assert!(Command::new("sync").arg("-f").arg(path).status().unwrap().success());
    let found = rustix::fs::statvfs(path).unwrap();
    (found.f_blocks - found.f_bfree) * found.f_frsize
}

/// Fills a store that is alone on its file system, and looks what `du` says and what `df` does.
fn compare(space: &Space, disk: &Path) {
    for name in ["store", "roots"] {
        fs::create_dir(disk.join(name)).unwrap();
        space.give(&disk.join(name));
    }
    std::os::unix::fs::symlink(disk.join("store"), space.stacker_dir()).unwrap();
    if space.volume().is_none() {
        std::os::unix::fs::symlink(disk.join("roots"), space.roots_dir()).unwrap();
    }
    let megabytes = std::env::var("STACKER_TEST_DU_MEGABYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    write_files(space, megabytes * 1_000_000);
    space.stackerfile(LAYERS);
    space.build(&[]);
    let usage = du(space);
    let said = usage["total"].as_u64().unwrap();
    let kinds: u64 = usage["kinds"].as_array().unwrap().iter().map(|kind| kind["bytes"].as_u64().unwrap()).sum();
    assert_eq!(kinds, said, "the kinds are all of it: {usage:#}");
    let before = taken(disk);
    for tree in fs::read_dir(disk.join("roots/trees")).unwrap() {
        let tree = tree.unwrap().path();
        let _ = Command::new("btrfs").args(["property", "set", "-ts"]).arg(tree).args(["ro", "false"]).output();
    }
    ["store", "roots"].iter().for_each(|name| fs::remove_dir_all(disk.join(name)).unwrap());
    if space.volume().is_some() {
        assert!(Command::new("btrfs").args(["subvolume", "sync"]).arg(disk).output().unwrap().status.success());
    }
    let freed = before - taken(disk);
    let off = (said as f64 - freed as f64) / freed as f64 * 100.0;
    eprintln!("as {}, {}: du says {said}, df frees {freed}: {off:+.2} %", space.identity(), space.kind());
    assert!(off.abs() <= 5.0, "du says {said}, df frees {freed}: {usage:#}");
}

#[test]
fn the_total_is_what_df_frees() {
    if !rustix::process::geteuid().is_root() {
        return skipped("du beside df: only root can mount a file system for the store alone");
    }
    for identity in identities() {
        let space = Space::of(identity);
        let disk = SmallDisk::create(space.directory().join("disk"), 4 << 30, 200_000);
        compare(&space, &disk.path);
        drop(disk);
        let space = Space::with_volume(identity);
        let disk = space.volume().map(|volume: &Volume| volume.path.clone()).unwrap();
        compare(&space, &disk);
    }
}

#[test]
fn a_layer_has_what_goes_with_it() {
    for_each_identity(|space| {
        space.stackerfile(
            "
one: {from: {type: built, tag: base}, run: 'head -c 4000000 /dev/urandom > /one'}
two: {from: {type: built, tag: one}, run: 'head -c 2000000 /dev/urandom > /two'}
",
        );
        space.build(&[]);
        let usage = du(space);
        let layer = |name: &str, field: &str| {
            let layers = usage["layers"].as_array().unwrap();
            layers.iter().find(|layer| layer["layer"] == name).unwrap()[field].as_u64().unwrap()
        };
        // The blobs are the layout's too.
        assert!(
            (4_000_000..4_500_000).contains(&layer("one", "exclusive")) || layer("one", "shared") > 4_000_000,
            "{usage:#}"
        );
        assert!((2_000_000..2_500_000).contains(&layer("two", "exclusive")), "{usage:#}");
        assert!(usage["outside"].as_u64().unwrap() > 6_000_000, "{usage:#}");
        let text = space.stacker(&["cache", "du"]).ends_with(0).stdout;
        for wanted in ["blobs", "deltas", "EXCLUSIVE", "shared with files outside"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    });
}
