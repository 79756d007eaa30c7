//! A layer is exactly what its run left: whoever looks at it later, through whatever tool, sees the same.

mod support;

use std::process::Command;

use support::space::{Space, for_each_store};

/// Changes of every kind to what the base has.
const ODD: &str = r"
odd:
  from: {type: built, tag: base}
  run: |
    rm /data/doomed
    rm -r /data/full
    mkdir /data/full
    echo c > /data/full/c
    rm /data/become-directory
    mkdir /data/become-directory
    echo inner > /data/become-directory/inner
    rm -r /data/become-file
    echo file > /data/become-file
    ln /bin/busybox /bin/y
    ln /data/one /data/three
    mkdir /new
    echo pair > /new/a
    ln /new/a /new/b
    ln /new/a /data/full/far
    chown 12:34 /data/noted
    chmod 6711 /new/b
    chmod 1750 /data
    chown 65535:65535 /new
    mkfifo /new/pipe
    ln -s ../data/one /new/link
    ln -s /absent /new/dangling
    printf x > '/new/a b'
    printf x > /new/$(printf '\377\376')
    printf x > $'/new/line\nfeed'
    dd if=/dev/zero of=/new/sparse bs=1 count=1 seek=5000000
    mv /data/link /new/moved
    touch -d @5 /new/old
    mkdir /new/umask
    chmod 700 /new/umask
above:
  from: {type: built, tag: odd}
  run: |
    rm /new/a
    echo again > /data/doomed
    rm -r /data/become-directory
";

/// Prints everything that can be seen, but what belongs to the sandbox.
const LISTING: &str = r#"set +x
    look() {
      find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /stacker -o -path /etc/hosts \
        -o -path /etc/resolv.conf -o -path /listing \) -prune -o "$@"
    }
    all=$(
      look -type d -exec stat -c '%n|%F|%a|%u|%g|%Y' {} \; | grep -v '^/etc|' | grep -v '^/|' | sort
      look ! -type d -exec stat -c '%N|%F|%a|%u|%g|%s|%Y' {} \; | sort
      look -type f ! -name busybox ! -name y -exec md5sum {} \; | sort
    )
    echo "$all" > /listing"#;

fn listing(from: &str) -> String {
    format!("list:\n  from: {from}\n  run: |\n    {LISTING}\n")
}

#[test]
fn a_child_and_whoever_unpacks_the_image_see_the_same() {
    for_each_store(|space| {
        space.stackerfile(&format!("{ODD}{}", listing("{type: built, tag: above}")));
        space.build(&[]);
        let child = space.file("list", "listing").unwrap();
        for seen in ["/new/sparse", "|5000001|", "/data/become-file|", "/bin/y", "fifo", "|65535|65535|"] {
            assert!(child.contains(seen), "no {seen} in {child}");
        }
        for gone in ["/data/full/a", "/data/become-directory", "/data/link"] {
            assert!(!child.contains(gone), "{gone} in {child}");
        }
        let other = Space::of(space.identity());
        let layout = space.path("oci").display().to_string();
        other.write("stacker.yaml", listing(&format!("{{type: oci, url: '{layout}:above'}}")));
        other.build(&[]);
        assert_same("as a base", &other.file("list", "listing").unwrap(), &child);
        unpacked_by_umoci(space, &child);
    });
}

/// Only root can give files to others without a namespace.
fn unpacked_by_umoci(space: &Space, expected: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle");
    let image = format!("{}:above", space.path("oci").display());
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    let root = bundle.join("rootfs");
    run(Command::new("chroot")
        .arg(&root)
        .args(["/bin/sh", "-c", LISTING])
        .env_clear()
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"));
    let found = std::fs::read(root.join("listing")).unwrap();
    assert_same("unpacked by umoci", &String::from_utf8_lossy(&found), expected);
}

#[track_caller]
fn assert_same(what: &str, found: &str, expected: &str) {
    let missing: Vec<_> = expected.lines().filter(|line| !found.lines().any(|other| other == *line)).collect();
    let more: Vec<_> = found.lines().filter(|line| !expected.lines().any(|other| other == *line)).collect();
    assert!(missing.is_empty() && more.is_empty(), "{what}: missing {missing:#?}, more {more:#?}");
}

#[test]
fn a_layer_that_a_base_image_has_too_gets_its_blob() {
    for_each_store(|space| {
        space.stackerfile("");
        space.build(&[]);
        std::fs::rename(space.path("oci"), space.path("image")).unwrap();
        std::fs::remove_dir_all(space.stacker_dir()).unwrap();
        space.forget_roots();
        space.stackerfile("pulled: {from: {type: oci, url: 'image:base'}, run: 'echo 1 > /pulled'}\n");
        space.build(&[]).built(&["base", "pulled"]);
        assert_eq!(space.layers("pulled")[0], space.layers("base")[0]);
    });
}

#[test]
fn what_a_run_does_to_the_root_directory_is_seen_by_the_next() {
    for_each_store(|space| {
        space.stackerfile(
            "rooted: {from: {type: built, tag: base}, run: 'chown 5:6 /; chmod 751 /'}
look: {from: {type: built, tag: rooted}, run: 'stat -c \"%a %u:%g %Y\" / > /tmp/seen'}\n",
        );
        space.build(&[]);
        assert_eq!(space.file("look", "tmp/seen").as_deref(), Some("751 5:6 1000\n"));
    });
}

#[test]
fn attributes_are_copied_up_with_their_file() {
    for_each_store(|space| {
        space.stackerfile("touched: {from: {type: built, tag: base}, run: chmod 600 /data/noted}\n");
        let run = space.build(&[]);
        let diff_id = run.layer("touched").diff_ids[1];
        let listing = std::fs::read_dir(space.stacker_dir().join("listings")).unwrap();
        let listing =
            listing.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().contains(&diff_id.hex()));
        let listing = stacker::listing::Listing::open(&listing.expect("the layer's listing is kept")).unwrap();
        let entry = listing.find(b"data/noted").unwrap().entry.unwrap();
        assert_eq!(entry.xattrs[&b"user.note"[..]], b"kept");
        assert_eq!(entry.mode, 0o600);
    });
}

#[test]
fn a_name_that_means_a_removed_file_fails_the_build() {
    let space = Space::new();
    space.stackerfile("bad: {from: {type: built, tag: base}, run: touch /tmp/.wh.x}\n");
    space.stacker(&["build"]).ends_with(1).says("/tmp/.wh.x").says(".wh.");
}
