//! What is particular to the copy store: layers come out as they do on others, and mount points leave no trace.

mod support;

use std::fs;

use support::archive::{Archive, Member};
use support::identity::identities;
use support::skipped;
use support::space::{Space, for_each_identity_with_copies};
use support::volume::SmallDisk;

/// Changes of all kinds to a base that has /etc; each is one layer.
const CHANGES: [&str; 17] = [
    "true",
    "rm -r /data/full; mkdir /data/full",
    "rm -r /data/full; mkdir /data/full; echo a > /data/full/a",
    "cp -a /data/full /saved; rm -r /data/full; cp -a /saved /data/full; rm -r /saved",
    "rm -r /data/full; echo file > /data/full",
    "rm /data/become-directory; mkdir /data/become-directory; echo x > /data/become-directory/x",
    "echo more >> /data/one",
    "rm /data/two; ln /data/one /data/three",
    "ln /data/noted /linked; chown 5:6 /data/noted",
    "chmod 700 /data; mv /data/become-file /moved",
    "mv /data/full /data/renamed; touch -r /data/one /data",
    "rm /data/doomed; mkfifo /data/doomed; mkfifo /pipe",
    "cat /etc/passwd > /dev/null; touch -a /etc/passwd; mkdir /etc/x; rmdir /etc/x",
    "rm -rf /root /tmp /data/*; mkdir -m 1777 /tmp",
    "echo 1 > /stacker/dropped; echo x > /etc/hosts.allow",
    "mkdir /mnt; mkdir -p /a/b/c; rm -r /a/b; chmod 4711 /bin/setuid",
    "rm -f /etc/resolv.conf /etc/hosts /proc /sys 2> /dev/null || true; ls / > /seen; ls /etc >> /seen",
];

/// The same where the base has a program and nothing else, so that mount points need directories of their own.
const BARE: [&str; 8] = [
    "/busybox true",
    "/busybox mkdir -p /etc; echo x > /etc/x",
    "/busybox chmod 700 /etc",
    "/busybox mkdir /etc/x; /busybox rmdir /etc/x",
    "/busybox ls -al /etc /proc/1 /sys > /dev/null; /busybox chown 5:6 /etc",
    "/busybox mkdir -p /stacker/x /proc/x 2> /dev/null; /busybox rm -rf /etc 2> /dev/null; echo x > /x",
    "/busybox touch -d @5 /etc; /busybox touch -d @6 /",
    "/busybox mkdir -p /sys 2> /dev/null; /busybox rm -rf /etc/hosts 2> /dev/null; echo x > /etc/passwd",
];

fn stackerfile(space: &Space) {
    space.stackerfile("");
    let program = fs::read("/bin/busybox").unwrap();
    let bare = Archive::new().member(Member { name: b"busybox", mode: 0o755, body: &program, ..Member::default() });
    space.write("bare.tar", bare.end());
    let mut layers =
        String::from("base: {from: {type: tar, url: base.tar}}\nbare: {from: {type: tar, url: bare.tar}}\n");
    let on = |base: &str, shell: &str, scripts: &[&str], layers: &mut String| {
        for (number, script) in scripts.iter().enumerate() {
            let from = format!("from: {{type: built, tag: {base}}}");
            layers.push_str(&format!("{base}-{number}:\n  {from}\n  run: |\n    {shell}\n    {script}\n"));
        }
    };
    on("base", "#!/bin/sh -e", &CHANGES, &mut layers);
    on("bare", "#!/busybox sh", &BARE, &mut layers);
    // What was changed is built upon.
    on("base-8", "#!/bin/sh -e", &["test \"$(cat /linked)\" = noted; rm /linked"], &mut layers);
    on("base-1", "#!/bin/sh -e", &["test ! -e /data/full/a; echo b > /data/full/b"], &mut layers);
    space.write("stacker.yaml", layers);
}

#[test]
fn layers_are_those_of_other_stores() {
    let other = Space::new();
    stackerfile(&other);
    let expected = other.build(&[]).digests();
    for_each_identity_with_copies(|space| {
        stackerfile(space);
        let run = space.build(&[]);
        for (found, expected) in run.digests().into_iter().zip(&expected) {
            assert_eq!(&found, expected, "{run}");
        }
        space.build(&[]).built(&[]);
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
    });
}

/// A copy that a disk has no room for goes at once.
#[test]
fn a_disk_too_small_for_a_copy() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can mount a small file system: that a copy finds no room is not tested");
    }
    for identity in identities() {
        let space = Space::with_copies(identity);
        let disk = SmallDisk::create(space.roots_dir(), 16 << 20, 4096);
        space.give(&disk.path);
        space.stackerfile("one: {from: {type: built, tag: base}, run: 'true'}\n");
        space.build(&["base"]);
        let filler = disk.path.join("filler");
        // All but half of what a copy needs.
        let program = fs::metadata("/bin/busybox").unwrap().len();
        let free = rustix::fs::statvfs(&disk.path).unwrap();
        let size = free.f_bavail * free.f_frsize - program / 2;
        rustix::fs::fallocate(fs::File::create(&filler).unwrap(), rustix::fs::FallocateFlags::empty(), 0, size)
            .unwrap();
        let run = space.stacker(&["build"]).ends_with(3);
        run.says("the disk is full").says(&format!("file system of {}", disk.path.display())).says("stacker gc");
        assert_eq!(fs::read_dir(disk.path.join("drafts")).unwrap().count(), 0, "{run}");
        fs::remove_file(&filler).unwrap();
        space.build(&[]).built(&["one"]);
    }
}
