//! Archives that are made to hurt: by their size, by what they say of it, by names that no system takes.
//! (`unpack.rs` has those that try to get out.)

mod support;

use std::fs::{self, symlink_metadata as stat};
use std::io::{Read, Write, repeat};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use stacker::compress::{Encoder, decoder};
use stacker::seal::Marks;
use stacker::unpack::Whiteouts;
use stacker::worker::message::Compression;
use support::archive::{Archive, Member};
use support::mapped::root;
use support::unpacked::{Unpacked, base, layer, refused};

const FLAG: &str = "--max-layer-size";
const MIB: u64 = 1 << 20;

/// A layer with one file of zeros, compressed.
fn bomb(compression: Compression, size: u64) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
    let size_text = size.to_string();
    encoder.write_all(&Archive::new().pax(&[("size", size_text.as_bytes())]).file("zeros", "").0).unwrap();
    std::io::copy(&mut repeat(0).take(size + 1024), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// Damage in the middle of a compressed file is not the machine's fault.
#[test]
fn damaged_compression_is_the_archives_fault() {
    if !root("damaged_compression_is_the_archives_fault") {
        return;
    }
    let noise: Vec<u8> =
        (0..200_000u32).flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect();
    for compression in [Compression::Gzip(6), Compression::Zstd(3)] {
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        encoder.write_all(&Archive::new().file("f", &noise).end()).unwrap();
        let whole = encoder.finish().unwrap();
        for place in (20..whole.len() - 8).step_by(whole.len() / 40) {
            let mut damaged = whole.clone();
            damaged[place..place + 8].fill(0xff);
            let failure = Unpacked::of(decoder(&damaged[..]).unwrap().0, Whiteouts::Literal).err();
            assert!(failure.is_none_or(|failure| failure.users), "{compression:?}, damaged at {place}");
            let cut = Unpacked::of(decoder(&whole[..place]).unwrap().0, Whiteouts::Literal).err();
            assert!(cut.is_some_and(|failure| failure.users), "{compression:?}, cut at {place}");
        }
    }
}

/// Refused for its size, at most `most` bytes allowed, without much work.
fn too_large(tar: impl Read, most: u64) {
    let begun = Instant::now();
    let failure = Unpacked::at_most(most, tar, Whiteouts::Literal).err().expect("it is refused");
    let text = format!("{}: {}", failure.step, failure.message);
    assert!(failure.users && text.contains(FLAG), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
}

#[test]
fn bombs_are_stopped_by_the_limit() {
    if !root("bombs_are_stopped_by_the_limit") {
        return;
    }
    for compression in [Compression::Gzip(6), Compression::Zstd(3)] {
        let tar = bomb(compression, 512 * MIB);
        assert!((tar.len() as u64) < MIB, "it is small");
        too_large(decoder(&tar[..]).unwrap().0, 16 * MIB);
        let tar = bomb(compression, 15 * MIB);
        Unpacked::at_most(16 * MIB, decoder(&tar[..]).unwrap().0, Whiteouts::Literal).unwrap();
    }
    // Many small ones are as large as one.
    let many =
        (0..40).fold(Archive::new(), |archive, number| archive.file(format!("{number}"), vec![0; 1 << 19])).end();
    too_large(&many[..], 16 * MIB);
    // Nothing is stored after the end mark, yet it is read for the digest.
    let end = Archive::new().file("f", "x").end();
    too_large(end.chain(repeat(0)), 16 * MIB);
}

#[test]
fn sizes_that_lie_cost_nothing() {
    if !root("sizes_that_lie_cost_nothing") {
        return;
    }
    for size in ["8000000000000000000", "18446744073709551615", "18446744073709551104"] {
        let tar = Archive::new().pax(&[("size", size.as_bytes())]).file("f", "x").end();
        too_large(&tar[..], 64 << 30);
        // A hole costs no disk, but whoever reads the file reads all of it.
        let records = [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", b"0,1")];
        too_large(&Archive::new().pax(&records).file("f", "x").end()[..], 64 << 30);
    }
    let holes = |archive: Archive, name| {
        archive.pax(&[("GNU.sparse.size", b"10485760"), ("GNU.sparse.map", b"0,1")]).file(name, "x")
    };
    too_large(&holes(holes(Archive::new(), "a"), "b").end()[..], 16 * MIB);
    // A device node is left out, whatever it says of itself.
    let device = Member { kind: b'3', name: b"dev", size: Some(1 << 32), ..Member::default() };
    assert_eq!(base(Archive::new().member(device)).warnings.len(), 1);
}

#[test]
fn what_is_held_in_memory_is_limited() {
    if !root("what_is_held_in_memory_is_limited") {
        return;
    }
    let global = |number: usize| {
        let (name, value) = (format!("SCHILY.xattr.user.{number}"), vec![b'x'; 30_000]);
        let tar = Archive::new().pax(&[(&name, &value)]).0;
        let mut header: [u8; 512] = tar[..512].try_into().unwrap();
        header[156] = b'g';
        support::archive::checksum(&mut header);
        [&header[..], &tar[512..]].concat()
    };
    let globals = |count| (0..count).fold(Archive::new(), |archive, number| archive.blocks(&global(number)));
    refused(globals(3).file("f", ""), "records for all members that are too long");
    let large = vec![b'x'; 65_537];
    refused(Archive::new().pax(&[("SCHILY.xattr.user.x", &large)]).file("f", ""), "larger than Linux allows");
    let long = format!("SCHILY.xattr.user.{}", "x".repeat(251));
    refused(Archive::new().pax(&[(&long, b"1")]).file("f", ""), "larger than Linux allows");
    // Devices are left out with a warning each, but nobody reads a million of them.
    let device = |archive: Archive, number: usize| {
        archive.member(Member { kind: b'4', name: format!("d{number}").as_bytes(), ..Member::default() })
    };
    let found = base((0..250).fold(Archive::new(), device));
    assert_eq!((found.warnings.len(), &*found.warnings[100]), (101, "and 150 more such warnings"));
}

#[test]
fn names_that_no_system_takes_are_refused() {
    if !root("names_that_no_system_takes_are_refused") {
        return;
    }
    let named = |name: &str| Archive::new().pax(&[("path", name.as_bytes())]).file("short", "x");
    let name = "n".repeat(255);
    assert_eq!(base(named(&name)).read(&name), "x");
    refused(named(&"n".repeat(256)), "more than 255 bytes");
    refused(named(&"d/".repeat(2047).trim_end_matches('/').repeat(2)), "more than 4095 bytes");
    refused(named(&"d/".repeat(500_000)), "more than 4095 bytes");
    base(named(&format!("{}f", "d/".repeat(1000))));
    let linked = |target: &[u8]| Archive::new().pax(&[("linkpath", target)]).symlink("l", "x");
    base(linked(&[b'x'; 4095]));
    refused(linked(&[b'x'; 4096]), "what no path can be");
    refused(linked(b"a\0b"), "what no path can be");
    // Links make directories that are deeper than a path is long.
    let deep = "d/".repeat(1900);
    let mut archive = named(&format!("{deep}f"));
    for number in 0..2 {
        let (link, below) =
            (format!("l{number}"), if number == 0 { deep.clone() } else { format!("l{}/{deep}", number - 1) });
        archive = archive.pax(&[("linkpath", below.as_bytes())]).symlink(&link, "x");
        archive = archive.pax(&[("path", format!("{link}/{deep}f").as_bytes())]).file("short", "x");
    }
    if let Err(failure) = Unpacked::of(&archive.end()[..], Whiteouts::Literal) {
        assert!(failure.users, "{failure:?}");
    }
}

#[test]
fn times_are_those_that_every_file_system_has() {
    if !root("times_are_those_that_every_file_system_has") {
        return;
    }
    let timed = |time: &str| base(Archive::new().pax(&[("mtime", time.as_bytes())]).file("f", ""));
    let cases = [
        ("9223372036854775807.999999999", 15_032_385_535),
        ("15032385535", 15_032_385_535),
        ("-9223372036854775807", -2_147_483_648),
        ("-5.5", -6),
    ];
    for (time, expected) in cases {
        assert_eq!(stat(timed(time).path("f")).unwrap().mtime(), expected, "{time}");
    }
}

#[test]
fn whiteouts_stay_inside() {
    if !root("whiteouts_stay_inside") {
        return;
    }
    for target in ["/", "..", "../..", "/../.."] {
        let found = layer(Archive::new().symlink("l", target).file("l/.wh.outside", "").file("l/.wh..wh..opq", ""));
        assert!(found.is_whiteout("outside") && found.is_opaque(""), "through {target}");
    }
    for name in ["../.wh.outside", "a/../../.wh.outside", "../.wh..wh..opq", ".wh.a/../../outside"] {
        assert!(
            Unpacked::of(&Archive::new().file(name, "").end()[..], Whiteouts::Oci(Marks::Overlayfs))
                .is_err_and(|e| e.users),
            "{name}"
        );
    }
    // Whatever kind of member it is, nothing but the mark is made.
    let kinds = Archive::new()
        .symlink(".wh.a", "/etc/passwd")
        .directory(".wh.b")
        .member(Member { kind: b'6', name: b".wh.c", ..Member::default() })
        .hard_link(".wh.d", "/etc/passwd");
    let found = layer(kinds);
    for name in ["a", "b", "c", "d"] {
        assert!(found.is_whiteout(name), "{name}");
    }
    // A whiteout of what is beneath a file, and a file upon a whiteout of its directory.
    assert!(
        Unpacked::of(&Archive::new().file("f", "").file("f/.wh.x", "").end()[..], Whiteouts::Oci(Marks::Overlayfs))
            .is_err_and(|e| e.users)
    );
    assert_eq!(layer(Archive::new().file(".wh.d", "").file("d/e/f", "x")).read("d/e/f"), "x");
}

#[test]
fn links_to_links_lead_nowhere_else() {
    if !root("links_to_links_lead_nowhere_else") {
        return;
    }
    let found = base(Archive::new().symlink("l", "../outside").hard_link("b", "l").file("b", "inside"));
    assert_eq!((found.read("b"), fs::read_link(found.path("l")).unwrap()), ("inside".into(), "../outside".into()));
    let found = base(Archive::new().symlink("d", "/..").hard_link("e", "d").file("e/outside", "inside"));
    assert_eq!(found.read("outside"), "inside");
    // The target goes through a link out, the link is replaced by what it leads to, a link to itself.
    refused(Archive::new().symlink("d", "../..").hard_link("h", "d/etc/passwd"), "no file in this archive");
    refused(Archive::new().hard_link("h", "h"), "no file in this archive");
    let found = base(Archive::new().file("f", "x").symlink("l", "f").hard_link("l", "f"));
    assert_eq!(stat(found.path("l")).unwrap().nlink(), 2);
}

#[test]
fn the_last_of_several_wins() {
    if !root("the_last_of_several_wins") {
        return;
    }
    let fifo = || Member { kind: b'6', name: b"x", ..Member::default() };
    type Makes = fn(Archive) -> Archive;
    let kinds: [(&str, Makes); 4] = [
        ("file", |archive| archive.file("x", "file")),
        ("link", |archive| archive.symlink("x", "target")),
        ("directory", |archive| archive.directory("x/").file("x/y", "y")),
        ("hard link", |archive| archive.hard_link("x", "other")),
    ];
    for (first, make) in &kinds {
        for (then, replace) in &kinds {
            let archive = Archive::new().file("other", "other").member(fifo());
            let found = base(replace(make(archive)));
            let kind = stat(found.path("x")).unwrap().file_type();
            assert!(!kind.is_fifo(), "{first}, then {then}");
            match *then {
                "file" => assert_eq!(found.read("x"), "file", "after {first}"),
                "link" => assert_eq!(fs::read_link(found.path("x")).unwrap(), Path::new("target"), "after {first}"),
                "directory" => assert_eq!(found.read("x/y"), "y", "after {first}"),
                _ => assert_eq!(found.read("x"), "other", "after {first}"),
            }
            assert_eq!(found.read("other"), "other", "{first}, then {then}");
        }
    }
}

#[test]
fn no_mark_of_overlayfs_comes_from_an_archive() {
    if !root("no_mark_of_overlayfs_comes_from_an_archive") {
        return;
    }
    let marks =
        ["opaque", "redirect", "metacopy", "origin", "whiteout", "impure", "nlink", "upper", "uuid", "xwhiteouts"];
    for space in ["user", "trusted"] {
        for mark in marks {
            let name = format!("{space}.overlay.{mark}");
            let record = format!("SCHILY.xattr.{name}");
            let records = [(record.as_str(), b"y".as_slice()), ("SCHILY.xattr.user.kept", b"1")];
            let found = layer(Archive::new().pax(&records).directory("d/").pax(&records).file("f", "x"));
            for path in ["d", "f"] {
                assert_eq!(found.xattr(path, &name), None, "{name} of {path}");
                assert_eq!(found.xattr(path, "user.kept").as_deref(), Some(&b"1"[..]), "{path}");
            }
        }
    }
}
