//! Bases that are tars in other layers: `from: {type: tar, url: 'stacker://layer/path'}`.

mod support;

use std::fs;
use std::io::Write;

use support::archive::Archive;
use support::space::{Space, for_each_identity, for_each_store};

/// A compressed root filesystem.
fn small(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&Archive::new().directory("etc/").file("etc/text", text).end()).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn a_tar_that_a_layer_made_is_a_base() {
    for_each_store(|space| {
        space.stackerfile(
            "
maker:
  from: {type: built, tag: base}
  build_only: true
  run: |
    mkdir -p /root.d/out
    cp -a /bin /etc /root.d
    echo made > /root.d/made
    tar -C /root.d -c bin etc made | bzip2 > /out.tar.bz2
    ln -s /tars/../../../out.tar.bz2 /latest
    rm -r /root.d
  environment: {NOT: inherited}
app:
  from: {type: tar, url: 'stacker://maker/latest'}
  run: cat /made > /seen; test ! -e /data
",
        );
        space.build(&[]);
        assert_eq!(space.file("app", "seen").unwrap(), "made\n");
        space.build(&[]).built(&[]);
        space.edit("stacker.yaml", "cat /made", "cat /made /made");
        space.build(&[]).built(&["app"]).says_not("unpack");
        let shown = space.stacker(&["inspect", "app"]).ends_with(0).stdout;
        assert!(!shown.contains("inherited"), "{shown}");
    });
}

#[test]
fn it_counts_as_what_it_holds() {
    for_each_identity(|space| {
        space.write("small.tar.gz", small("one"));
        space.stackerfile(
            "
maker: {from: {type: scratch}, imports: [{path: small.tar.gz, dest: /tars/}]}
app: {from: {type: tar, url: 'stacker://maker/tars/small.tar.gz'}}
local: {from: {type: tar, url: small.tar.gz}}
",
        );
        let run = space.build(&[]);
        assert_eq!(run.layer("app").key, run.layer("local").key, "as if it lay on the host");
        assert_eq!(space.file("app", "etc/text").unwrap(), "one");
        // Another place in another layer, the same content.
        space.edit("stacker.yaml", "dest: /tars/", "dest: /tars/, mode: 0600");
        space.build(&[]).built(&["maker"]);
        space.write("small.tar.gz", small("two"));
        let run = space.build(&["app"]);
        run.built(&["maker", "app"]);
        assert_eq!(run.layer("app").reason.unwrap(), "tar base changed: maker: small.tar.gz changed");
        assert_eq!(space.file("app", "etc/text").unwrap(), "two");
    });
}

#[test]
fn what_is_no_tar_in_the_layer_is_told_with_its_place() {
    let space = Space::new();
    let layers = |url: &str| format!("app:\n  from: {{type: tar, url: '{url}'}}\n");
    for (url, told) in [
        ("stacker://base/no/such.tar", "the tar base stacker://base/no/such.tar: no such file in layer base"),
        ("stacker://base/data", "the tar base stacker://base/data: is not a file in layer base"),
        ("stacker://base/", "the tar base stacker://base/: is not a file in layer base"),
    ] {
        space.stackerfile(&layers(url));
        space.stacker(&["build"]).ends_with(1).says(told).says("(stacker.yaml:4:26)");
    }
    space.stackerfile(&layers("stacker://base/data/noted"));
    space.stacker(&["build"]).ends_with(1).says("the tar base /data/noted: ");
    space.stackerfile(&layers("stacker://base"));
    space.stacker(&["build"]).ends_with(1).says("`stacker://base` is not `stacker://layer/path`").says("yaml:4:26");
    space.stackerfile(&layers("stacker://bsae/x.tar"));
    space.stacker(&["build"]).ends_with(1).says("tar base from unknown layer `bsae`").says("did you mean `base`?");
    let circle = "
one: {from: {type: tar, url: 'stacker://two/x'}}
two: {from: {type: built, tag: one}}
";
    space.stackerfile(circle);
    space.stacker(&["build"]).ends_with(1).says("circle: one -> two -> one").says("`one` needs `two`");
}

#[test]
fn what_was_lost_is_made_again_and_nothing_beside_it() {
    for_each_identity(|space| {
        space.write("small.tar.gz", small("one"));
        let layers = |only| {
            format!(
                "
maker:
  from: {{type: built, tag: base}}
  build_only: {only}
  imports: [{{path: small.tar.gz, dest: /tars/}}]
  run: echo later > /later
app: {{from: {{type: tar, url: 'stacker://maker/tars/small.tar.gz'}}}}
"
            )
        };
        space.stackerfile(&layers(false));
        let before = space.build(&[]);
        space.forget_roots();
        let after = space.build(&["--rebuild", "app"]);
        after.built(&["app"]);
        assert_eq!(before.image("app"), after.image("app"));
        // The tar's layer from its blob, and the new one: neither what lies beneath nor what lies above.
        if space.kind() == "overlay" {
            assert_eq!(fs::read_dir(space.roots_dir().join("deltas")).unwrap().count(), 2);
        }
        // Without blobs all of it runs again.
        space.stackerfile(&layers(true));
        space.forget_roots();
        fs::remove_dir_all(space.stacker_dir().join("blobs/sha256")).unwrap();
        fs::create_dir(space.stacker_dir().join("blobs/sha256")).unwrap();
        space.give(&space.stacker_dir().join("blobs/sha256"));
        let again = space.build(&["--rebuild", "app"]);
        assert_eq!(before.image("app"), again.image("app"));
    });
}
