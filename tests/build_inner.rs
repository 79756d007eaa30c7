//! Inside a container that has 65,536 ids and no range beyond them, the same builds come to the same layers.

mod support;

use support::identity::Identity;
use support::inner::containers;
use support::space::{Run, Space};

/// Owners up to the last id, setuid files that work, everything else that a namespace could get in the way of.
const LAYERS: &str = r#"
owners:
  from: {type: built, tag: base}
  run: |
    echo root::0:0::/:/bin/sh > /etc/passwd
    echo u::1000:1000::/:/bin/sh >> /etc/passwd
    chown 12:34 /data/noted
    chown 65535:65535 /data/one
    chmod 4755 /bin/busybox
    test "$(su u -c 'id -u; su root -c "id -u"' | xargs)" = "1000 0"
    printf x > /data/six
    chown 1:65534 /data/six
    chmod 6711 /data/six
    mkdir -m 2775 /data/shared
    chgrp 50 /data/shared
    test "$(stat -c %u:%g:%a /bin/setuid)" = 7:8:4755
above:
  from: {type: built, tag: owners}
  imports:
    - {path: dir, dest: /opt/dir, uid: 1000, gid: 65535, mode: "0750"}
    - dir
  run: |
    stat -c '%n %u:%g:%a' /data/* /opt/dir /opt/dir/* /bin/busybox > /seen
    cat /stacker/imports/dir/file >> /data/six
    rm /data/one
    rm -r /data/full
    mknod /pipe p
alone:
  from: {type: built, tag: above}
  network: none
  run: |
    cat /proc/self/uid_map > /dev/null
    su u -c 'touch /tmp/by-u'
out: {from: {type: scratch}, imports: [{path: 'stacker://above/seen', dest: /}]}
"#;

fn prepare(space: &Space) {
    space.write("dir/file", "file");
    space.write("dir/deep/tool", "#!/bin/sh\n");
    space.stackerfile(LAYERS);
}

fn images(run: &Run) -> Vec<String> {
    run.metadata().images.iter().map(|image| format!("{} {}", image.tag, image.digest)).collect()
}

#[test]
fn a_container_builds_the_same_layers() {
    let outside = Space::new();
    prepare(&outside);
    let expected = outside.build(&[]);
    assert_eq!(outside.tiers(), ["full"]);
    for container in containers() {
        eprintln!("as {container}:");
        let space = Space::of(Identity::Inner(container));
        prepare(&space);
        let first = space.build(&[]);
        first.built(&["base", "owners", "above", "alone", "out"]);
        assert_eq!(space.tiers(), ["inner"]);
        assert_eq!((first.digests(), images(&first)), (expected.digests(), images(&expected)), "{first}");
        let seen = space.file("out", "seen").unwrap();
        for line in ["/data/noted 12:34:644", "/data/one 65535:65535:644", "/opt/dir/file 1000:65535:750"] {
            assert!(seen.lines().any(|found| found == line), "no {line} in {seen}");
        }
        let second = space.build(&[]);
        second.built(&[]);
        assert_eq!((second.digests(), images(&second)), (expected.digests(), images(&expected)), "{second}");
        // A store that lies there is built upon.
        space.edit("stacker.yaml", "mknod /pipe p", "mkfifo /other");
        space.build(&[]).built(&["above", "alone"]);
    }
}
