//! What becomes of archives that are odd, broken or hostile.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, symlink_metadata as stat};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use stacker::listing::Stack;
use stacker::seal::Marks;
use stacker::unpack::Whiteouts;
use support::archive::{Archive, Member, checksum, header};
use support::mapped::root;
use support::unpacked::{Unpacked, base, layer, refused, refused_bytes};

#[test]
fn names_never_lead_out() {
    if !root("names_never_lead_out") {
        return;
    }
    let found = base(Archive::new().file("/absolute", "a").file("./dotted//name", "b").file("//twice", "c"));
    assert_eq!([found.read("absolute"), found.read("dotted/name"), found.read("twice")], ["a", "b", "c"]);
    for name in ["../outside", "a/../../outside", "/../outside", "a/.."] {
        refused(Archive::new().file(name, "bad"), "..");
    }
    refused(Archive::new().pax(&[("path", b"../outside")]).file("good", "bad"), "..");
    refused(Archive::new().pax(&[("path", b"a\0b")]).file("good", "bad"), "zero byte");
    refused(Archive::new().file(".", "bad"), "the root is a directory");
}

#[test]
fn links_are_followed_inside_the_root_only() {
    if !root("links_are_followed_inside_the_root_only") {
        return;
    }
    for target in ["/", "..", "../..", "/.."] {
        let found = base(Archive::new().symlink("l", target).file("l/outside", "inside"));
        assert_eq!(found.read("outside"), "inside", "through {target}");
    }
    let found = base(Archive::new().directory("usr/bin/").symlink("bin", "/usr/bin").file("bin/sh", "shell"));
    assert_eq!(found.read("usr/bin/sh"), "shell");
    // The last component is not followed: the link goes.
    let found = base(Archive::new().file("f", "old").symlink("l", "f").file("l", "new"));
    assert_eq!([found.read("f"), found.read("l")], ["old", "new"]);
    let found = base(Archive::new().symlink("l", "../outside").file("l", "inside"));
    assert!(stat(found.path("l")).unwrap().is_file());
    refused(Archive::new().symlink("l", "nowhere").file("l/x", "bad"), "is no directory");
    refused(Archive::new().symlink("l", "l").file("l/x", "bad"), "l");
    refused(Archive::new().symlink("l", "/proc/self/root").file("l/outside", "bad"), "is no directory");
    refused(Archive::new().file("f", "file").file("f/x", "bad"), "is no directory");
    refused(Archive::new().symlink("l", ""), "a symbolic link to nothing");
}

#[test]
fn hard_links_stay_inside() {
    if !root("hard_links_stay_inside") {
        return;
    }
    let found =
        base(Archive::new().file("a", "same").hard_link("d/b", "./a").hard_link("/c", "/a").hard_link("a", "a"));
    let inode = |name: &str| stat(found.path(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("d/b"));
    assert_eq!(inode("a"), inode("c"));
    refused(Archive::new().hard_link("b", "../outside"), "..");
    refused(Archive::new().hard_link("b", "/etc/passwd"), "no file in this archive");
    refused(Archive::new().directory("d").hard_link("b", "d"), "no file in this archive");
    refused(Archive::new().hard_link("b", "/"), "no file in this archive");
    refused(Archive::new().symlink("l", "/..").hard_link("b", "l/outside"), "no file in this archive");
    // The directory that has to go for the link holds what it links to.
    refused(Archive::new().file("d/f", "x").hard_link("d", "d/f"), "d");
    // To a link: to the link itself, not to what it leads to.
    let found = base(Archive::new().symlink("l", "/etc/passwd").hard_link("b", "l"));
    assert_eq!(fs::read_link(found.path("b")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn device_nodes_are_left_out_with_a_warning() {
    if !root("device_nodes_are_left_out_with_a_warning") {
        return;
    }
    let device = |kind, name| Member { kind, name, uid: 70_000, ..Member::default() };
    let found = base(Archive::new().member(device(b'3', b"dev/null")).member(device(b'4', b"dev/sda")).file("f", "x"));
    assert_eq!(found.warnings, ["/dev/null is a device node: left out", "/dev/sda is a device node: left out"]);
    assert!(!found.path("dev").exists());
    assert_eq!(found.read("f"), "x");
}

#[test]
fn owners_must_be_ids_that_a_mapped_range_has() {
    if !root("owners_must_be_ids_that_a_mapped_range_has") {
        return;
    }
    let owned = |uid, gid| Archive::new().member(Member { name: b"f", uid, gid, ..Member::default() });
    let found = base(owned(65_535, 65_534));
    let stat = stat(found.path("f")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (65_535, 65_534));
    refused(owned(65_536, 0), "id 65536");
    refused(owned(0, 65_536), "id 65536");
    refused(Archive::new().pax(&[("uid", b"4294967296")]).file("f", ""), "id 4294967296");
    refused(Archive::new().pax(&[("uid", b"-1")]).file("f", ""), "not a number");
}

#[test]
fn damaged_archives_are_refused() {
    if !root("damaged_archives_are_refused") {
        return;
    }
    let whole = Archive::new().file("a", vec![b'x'; 5000]).file("b", "y").end();
    for length in [100, 512, 600, 5000, 6000, 6144] {
        refused_bytes(&whole[..length], "ends in the middle");
    }
    refused_bytes(&whole[..5632], "cut off");
    refused_bytes(&whole[..6656], "cut off");
    refused_bytes(b"", "cut off");
    refused_bytes(&vec![b'x'; 10_240], "checksum");
    let mut wrong = whole.clone();
    wrong[0] ^= 1;
    refused_bytes(&wrong, "checksum");
    refused(
        Archive::new().member(Member { name: b"f", size: Some(1 << 32), ..Member::default() }),
        "ends in the middle",
    );
    refused(Archive::new().member(Member { kind: b'L', size: Some(1 << 32), ..Member::default() }), "too long");
    refused(Archive::new().pax(&[("path", b"a")]), "without its member");
    refused(Archive::new().member(Member { kind: b'x', body: b"junk", ..Member::default() }), "malformed PAX");
    refused(Archive::new().member(Member { kind: b'Z', name: b"f", ..Member::default() }), "type `Z`");
}

#[test]
fn later_members_replace_earlier_ones() {
    if !root("later_members_replace_earlier_ones") {
        return;
    }
    let twice = Archive::new().file("f", "old and long").file("f", "new");
    assert_eq!(base(twice).read("f"), "new");
    // A file that was hard linked is replaced, not written through.
    let linked = base(Archive::new().file("a", "old").hard_link("b", "a").file("a", "new"));
    assert_eq!([linked.read("a"), linked.read("b")], ["new", "old"]);
    let swapped = base(Archive::new().file("d/inner", "x").file("d", "file").file("e", "file").directory("e"));
    assert!(stat(swapped.path("d")).unwrap().is_file());
    assert!(stat(swapped.path("e")).unwrap().is_dir());
    // A directory that comes again keeps what is in it and takes the new mode.
    let again = Member { kind: b'5', name: b"d/", mode: 0o700, ..Member::default() };
    let again = base(Archive::new().directory("d").file("d/f", "x").member(again));
    assert_eq!(again.read("d/f"), "x");
    assert_eq!(stat(again.path("d")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_removed_directory_gives_its_time_to_nothing_else() {
    if !root("a_removed_directory_gives_its_time_to_nothing_else") {
        return;
    }
    let directory = |name: &'static str, mtime| Member {
        kind: b'5',
        name: name.as_bytes(),
        mode: 0o755,
        mtime,
        ..Member::default()
    };
    let archive = Archive::new().member(directory("d/x", 5)).member(directory("other/x", 7)).symlink("d", "other");
    assert_eq!(stat(base(archive).path("other/x")).unwrap().mtime(), 7);
    // Nor does the order of names matter where one directory has two.
    let archive = Archive::new().symlink("l", "usr").member(directory("usr/x", 5)).member(directory("l/x", 7));
    assert_eq!(stat(base(archive).path("usr/x")).unwrap().mtime(), 7);
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    if !root("whiteouts_become_what_overlayfs_reads") {
        return;
    }
    let found = layer(Archive::new().file("d/.wh.gone", "").file("o/.wh..wh..opq", "").file("o/new", "x"));
    assert!(found.is_whiteout("d/gone") && found.is_opaque("o") && !found.is_opaque("d"));
    assert_eq!(found.read("o/new"), "x");
    // What the layer itself brings stays, in either order; a directory then hides what was beneath.
    let file_first = layer(Archive::new().file("f", "x").file(".wh.f", "").file("d/f", "y").file(".wh.d", ""));
    let file_last = layer(Archive::new().file(".wh.f", "").file("f", "x").file(".wh.d", "").file("d/f", "y"));
    for found in [file_first, file_last] {
        assert_eq!([found.read("f"), found.read("d/f")], ["x", "y"]);
        assert!(found.is_opaque("d"));
    }
    // aufs's notes mean nothing.
    let aufs = layer(Archive::new().file(".wh..wh.plnk/1.2", "").file(".wh..wh.aufs", ""));
    assert!(!aufs.path(".wh.aufs").exists() && !aufs.is_whiteout(".wh.aufs"));
    refused(Archive::new().file("d/.wh.gone", ""), ".wh.");
    for name in [".wh.", ".wh..", ".wh..."] {
        assert!(
            Unpacked::of(&Archive::new().file(name, "").end()[..], Whiteouts::Oci(Marks::Overlayfs))
                .is_err_and(|e| e.users),
            "{name}"
        );
    }
    let hidden = Archive::new().file(".wh.gone", "").hard_link("back", "gone").end();
    assert!(Unpacked::of(&hidden[..], Whiteouts::Oci(Marks::Overlayfs)).is_err_and(|failure| failure.users));
}

#[test]
fn names_and_attributes_of_any_bytes() {
    if !root("names_and_attributes_of_any_bytes") {
        return;
    }
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let target = "t".repeat(1000);
    let name = [long.as_bytes(), b"\0"].concat();
    let gnu_name = Member { kind: b'L', name: b"././@LongLink", body: &name, ..Member::default() };
    let gnu_link = Member { kind: b'K', name: b"././@LongLink", body: target.as_bytes(), ..Member::default() };
    let archive = Archive::new()
        .pax(&[("path", b"a\nb=c\n"), ("SCHILY.xattr.user.x", b"1\n2\0\n3"), ("mtime", b"12.000000005")])
        .file("cut", "pax")
        .pax(&[("linkpath", b"x\ny"), ("gid", b"12")])
        .symlink("l", "cut")
        .member(gnu_name)
        .file("cut", "gnu")
        .member(gnu_link)
        .symlink("m", "cut")
        .file(b"\xff\xfe", "bytes");
    let found = base(archive);
    assert_eq!(found.read("a\nb=c\n"), "pax");
    assert_eq!(found.xattr("a\nb=c\n", "user.x").unwrap(), b"1\n2\0\n3");
    let file = stat(found.path("a\nb=c\n")).unwrap();
    assert_eq!((file.mtime(), file.mtime_nsec()), (12, 5));
    assert_eq!(fs::read_link(found.path("l")).unwrap(), Path::new("x\ny"));
    assert_eq!(stat(found.path("l")).unwrap().gid(), 12);
    assert_eq!(found.read(&long), "gnu");
    assert_eq!(fs::read_link(found.path("m")).unwrap(), Path::new(&target));
    assert_eq!(fs::read(found.path(std::ffi::OsStr::from_bytes(b"\xff\xfe"))).unwrap(), b"bytes");
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}

#[test]
fn sparse_files_get_their_holes_back() {
    if !root("sparse_files_get_their_holes_back") {
        return;
    }
    let size = 1 << 20;
    let mut whole = vec![0; size];
    whole[4096..4100].copy_from_slice(b"data");
    whole[size - 4..].copy_from_slice(b"end!");
    let stored = b"dataend!";
    let pairs = [(4096, 4), (size - 4, 4)];
    let mut old = header(&Member { kind: b'S', name: b"gnu", body: stored, ..Member::default() });
    for (slot, (offset, length)) in pairs.iter().enumerate() {
        let field = format!("{offset:011o}\0{length:011o}\0");
        old[386 + 24 * slot..386 + 24 * (slot + 1)].copy_from_slice(field.as_bytes());
    }
    old[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
    checksum(&mut old);
    let text = size.to_string();
    let map = format!("4096,4,{},4", size - 4);
    let mut leading = format!("2\n4096\n4\n{}\n4\n", size - 4).into_bytes();
    leading.resize(512, 0);
    let (size_of, name) = (("GNU.sparse.realsize", text.as_bytes()), ("GNU.sparse.name", b"pax1".as_slice()));
    let archive = Archive::new()
        .blocks(&old)
        .blocks(stored)
        .pax(&[("GNU.sparse.size", text.as_bytes()), ("GNU.sparse.map", map.as_bytes())])
        .file("pax0", stored)
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), name, size_of])
        .file("GNUSparseFile.0/pax1", [&leading[..], stored].concat())
        .file("after", "x");
    let found = base(archive);
    for name in ["gnu", "pax0", "pax1"] {
        assert!(fs::read(found.path(name)).unwrap() == whole, "{name} has other bytes");
        assert!(stat(found.path(name)).unwrap().blocks() < 100, "{name} has no holes");
    }
    assert_eq!(found.read("after"), "x");
    for map in ["4096,4,0,4", "0,100", "0,8,99", "4294967295999,8", "x"] {
        let records = [("GNU.sparse.size", text.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        refused(Archive::new().pax(&records).file("f", stored), "");
    }
}

#[test]
fn a_size_in_a_record_is_the_size() {
    if !root("a_size_in_a_record_is_the_size") {
        return;
    }
    let large = |size| Member { name: b"large", body: b"content", size: Some(size), ..Member::default() };
    for in_header in [0, 3] {
        let archive = Archive::new().pax(&[("size", b"7")]).member(large(in_header)).file("next", "next");
        let found = base(archive);
        assert_eq!((found.read("large"), found.read("next")), ("content".to_owned(), "next".to_owned()));
    }
    refused(Archive::new().pax(&[("size", b"8589934592")]).member(large(0)).file("next", "next"), "");
}

#[test]
fn gnu_tar_and_we_agree() {
    if !root("gnu_tar_and_we_agree") {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let long = source.path().join("x".repeat(150)).join("y".repeat(150));
    fs::create_dir_all(long.parent().unwrap()).unwrap();
    fs::write(&long, "long").unwrap();
    let sparse = fs::File::create(source.path().join("sparse")).unwrap();
    // More ranges than fit into one header.
    for range in 0..40u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", range * 65_536).unwrap();
    }
    sparse.set_len(10 << 20).unwrap();
    let expected = fs::read(source.path().join("sparse")).unwrap();
    for format in [&["--format=gnu"][..], &["--format=posix"], &["--format=posix", "--sparse-version=0.0"]] {
        let mut tar = std::process::Command::new("tar");
        tar.args(["-c", "--sparse", "-C"]).arg(source.path()).args(format).arg(".");
        let found = Unpacked::of(&tar.output().unwrap().stdout[..], Whiteouts::Literal).unwrap();
        assert!(fs::read(found.path("sparse")).unwrap() == expected, "{format:?}");
        let name = long.strip_prefix(source.path()).unwrap();
        assert_eq!(found.read(name.to_str().unwrap()), "long", "{format:?}");
    }
}

#[test]
fn modes_owners_times_and_capabilities() {
    if !root("modes_owners_times_and_capabilities") {
        return;
    }
    // cap_net_raw+ep as version 2, and as version 3 for the root of another namespace.
    let version_2 = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice();
    let version_3 = [&[1, 0, 0, 3], &version_2[4..], &[0xa0, 0x86, 1, 0]].concat();
    let setuid = |name| Member { name, mode: 0o6755, uid: 7, gid: 8, body: b"elf", ..Member::default() };
    let directory = |name, mode, mtime| Member { kind: b'5', name, mode, mtime, gid: 5, ..Member::default() };
    let archive = Archive::new()
        .member(directory(b"./", 0o711, 99))
        .member(directory(b"tmp/", 0o1777, 50))
        .member(directory(b"tmp/deep/", 0o2750, 60))
        .member(setuid(b"su"))
        .pax(&[("SCHILY.xattr.security.capability", version_2)])
        .file("ping", "elf")
        .pax(&[("SCHILY.xattr.security.capability", &version_3)])
        .file("tmp/deep/ping", "elf")
        .pax(&[("SCHILY.xattr.user.overlay.opaque", b"y"), ("SCHILY.xattr.security.selinux", b"x")])
        .file("implied/f", "f")
        .member(Member { kind: b'6', name: b"pipe", mode: 0o622, ..Member::default() });
    // An unusual umask must not show. It belongs to the process: the other tests must pass under it too.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let found = base(archive);
    rustix::process::umask(before);
    let cases = [
        (".", 0o711, 0, 5, 99),
        ("tmp", 0o1777, 0, 5, 50),
        ("tmp/deep", 0o2750, 0, 5, 60),
        ("su", 0o6755, 7, 8, 1000),
        ("implied", 0o755, 0, 0, stacker::listing::DEFAULT_TIME),
        ("implied/f", 0o644, 0, 0, 1000),
        ("pipe", 0o622, 0, 0, 1000),
    ];
    for (name, mode, uid, gid, mtime) in cases {
        let stat = stat(found.path(name)).unwrap();
        let found = (stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.mtime());
        assert_eq!(found, (mode, uid, gid, mtime), "{name}");
    }
    // In a namespace of its own a file system shows version 3 again; either has the same bits.
    for name in ["ping", "tmp/deep/ping"] {
        let value = found.xattr(name, "security.capability").unwrap();
        assert_eq!(value[4..20], version_2[4..20], "{name}");
    }
    assert_eq!(found.xattr("implied/f", "user.overlay.opaque"), None);
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}

#[test]
fn an_attribute_that_means_nothing_is_the_archives_fault() {
    if !root("an_attribute_that_means_nothing_is_the_archives_fault") {
        return;
    }
    let cut_short = [2, 0, 0, 0, 1];
    for (kind, name) in [(b'0', &b"f"[..]), (b'5', b"d/"), (b'5', b"./")] {
        let archive = Archive::new().pax(&[("SCHILY.xattr.system.posix_acl_access", &cut_short)]);
        let member = Member { kind, name, mode: 0o755, ..Member::default() };
        refused(archive.member(member), "the attribute system.posix_acl_access has a value that cannot be");
    }
    let archive = Archive::new().pax(&[("SCHILY.xattr.security.capability", b"short")]).file("f", "f");
    refused(archive, "the attribute security.capability has a value that cannot be");
}

#[test]
fn a_directory_that_a_layer_does_not_mention_looks_as_beneath() {
    if !root("a_directory_that_a_layer_does_not_mention_looks_as_beneath") {
        return;
    }
    let beneath = Member { kind: b'5', name: b"tmp/", mode: 0o1777, gid: 5, mtime: 50, ..Member::default() };
    let bottom = base(Archive::new().member(beneath));
    let mut listing = tempfile::tempfile().unwrap();
    stacker::seal::seal_unpacked(&bottom.path(""), None, Marks::Overlayfs, stacker::seal::Owners::OnDisk, &mut listing)
        .unwrap();
    let stack = Stack::new(vec![stacker::listing::Listing::from_file(listing).unwrap()]);
    let top = tempfile::tempdir().unwrap();
    let tar = Archive::new().file("tmp/f", "x").end();
    stacker::unpack::unpack_onto(&tar[..], top.path(), Whiteouts::Oci(Marks::Overlayfs), &stack, 1 << 20, None)
        .unwrap();
    let stat = stat(top.path().join("tmp")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.gid(), stat.mtime()), (0o1777, 5, 50));
    let names: BTreeMap<_, _> = fs::read_dir(top.path()).unwrap().map(|e| (e.unwrap().file_name(), ())).collect();
    assert_eq!(names.len(), 1);
}

/// The kernel cannot vouch for a path with `..` while something is renamed, whatever it is.
#[test]
fn renames_elsewhere_are_no_failure() {
    if !root("renames_elsewhere_are_no_failure") {
        return;
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| elsewhere.path().join(name));
    std::fs::write(&one, "").unwrap();
    let mut archive = Archive::new().file("d/x", "").file("e/x", "").symlink("l", "d/../e/../d/../e");
    for number in 0..3000 {
        archive = archive.file(format!("d/{number}"), "").file(format!("l/{number}"), "");
    }
    let archive = archive.end();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::rename(&one, &other).and_then(|()| std::fs::rename(&other, &one)).unwrap();
            }
        });
        let unpacked = Unpacked::of(&archive[..], Whiteouts::Literal);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(unpacked.unwrap_or_else(|failure| panic!("{failure:?}")).path("e/2999").exists());
    });
}
