//! A root filesystem made of busybox: the same bytes on every machine with the same busybox.

use std::fs;
use std::process::Command;

use super::archive::{Archive, Member};

/// [`archive`] as a whole tar.
pub fn tar() -> Vec<u8> {
    archive().end()
}

/// An archive with /bin/busybox and its applets, /etc/passwd, a sticky /tmp, a setuid file, a hard-linked pair, a file
/// with an attribute and some files to be changed.
pub fn archive() -> Archive {
    let busybox = "/bin/busybox";
    let program = fs::read(busybox).unwrap_or_else(|error| panic!("{busybox} (of busybox-static): {error}"));
    let applets = Command::new(busybox).arg("--list").output().unwrap().stdout;
    let applets = String::from_utf8(applets).unwrap();
    let directory = |name, mode| Member { kind: b'5', name, mode, ..Member::default() };
    let mut archive = Archive::new()
        .member(directory(b"./", 0o755))
        .member(directory(b"bin/", 0o755))
        .member(directory(b"etc/", 0o755))
        .member(directory(b"tmp/", 0o1777))
        .member(directory(b"root/", 0o700))
        .member(directory(b"data/", 0o755))
        .member(directory(b"data/full/", 0o755))
        .member(directory(b"data/become-file/", 0o755))
        .member(Member { name: b"bin/busybox", mode: 0o755, body: &program, ..Member::default() });
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        archive = archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    archive
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
        .member(Member { name: b"bin/setuid", mode: 0o4755, uid: 7, gid: 8, body: b"#!/bin/sh\n", ..Member::default() })
        .file("data/one", "linked")
        .hard_link("data/two", "data/one")
        .pax(&[("SCHILY.xattr.user.note", b"kept")])
        .file("data/noted", "noted")
        .file("data/doomed", "doomed")
        .file("data/become-directory", "file")
        .file("data/full/a", "a")
        .file("data/full/b", "b")
        .file("data/become-file/inner", "inner")
        .symlink("data/link", "one")
}
