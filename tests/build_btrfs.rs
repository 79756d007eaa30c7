//! What is particular to a store on btrfs.

mod support;

use std::fs;

use support::space::{Space, for_each_identity_on_btrfs};

const LAYERS: &str = "
middle: {from: {type: built, tag: base}, run: 'echo 1 > /middle'}
leaf-1: {from: {type: built, tag: middle}, run: 'echo 1 > /leaf'}
leaf-2: {from: {type: built, tag: middle}, run: 'echo 2 > /leaf'}
copy: {from: {type: built, tag: leaf-1}, imports: [{path: 'stacker://leaf-2/leaf', dest: /copied}]}
";

/// What the subvolumes are, without their names.
fn kinds(space: &Space) -> Vec<String> {
    let kind = |path: String| path.trim_start_matches("roots/").split('/').next().unwrap_or_default().to_owned();
    space.volume().unwrap().subvolumes().into_iter().map(kind).collect()
}

#[test]
fn what_runs_build_on_has_a_snapshot_and_a_nursery_and_leaves_have_none() {
    for_each_identity_on_btrfs(|space| {
        space.stackerfile(LAYERS);
        space.build(&[]).built(&["base", "middle", "leaf-1", "leaf-2", "copy"]);
        let before = space.volume().unwrap().subvolumes();
        assert_eq!(kinds(space), ["nurseries", "nurseries", "trees", "trees"], "{before:?}");
        let tree = space.volume().unwrap().path.join(&before[2]);
        assert!(fs::write(tree.join("new"), "").is_err(), "a tree is read-only");
        // A hit makes nothing, an edit of a leaf builds upon what is there.
        space.build(&[]).built(&[]);
        space.edit("stacker.yaml", "echo 2 > /leaf", "echo 3 > /leaf");
        space.build(&[]).built(&["leaf-2", "copy"]);
        assert_eq!(space.volume().unwrap().subvolumes(), before);
        let shown = space.stacker(&["cache", "show", "middle"]).ends_with(0).stdout;
        for name in ["trees/", "nurseries/"] {
            assert!(shown.contains(&format!("{}/{name}", space.roots_dir().display())), "{name}: {shown}");
        }
    });
}

#[test]
fn a_failed_draft_is_kept_until_the_next_build() {
    for_each_identity_on_btrfs(|space| {
        space.stackerfile("bad: {from: {type: built, tag: base}, run: 'echo 1 > /left; false'}\n");
        space.stacker(&["build"]).ends_with(1);
        let drafts = || fs::read_dir(space.roots_dir().join("drafts")).unwrap().map(|entry| entry.unwrap().path());
        let [kept] = &drafts().collect::<Vec<_>>()[..] else { panic!("{:?}", drafts().collect::<Vec<_>>()) };
        assert!(kept.join("u/left").exists());
        space.edit("stacker.yaml", "; false", "");
        space.build(&[]);
        assert_eq!(drafts().count(), 0);
    });
}

/// Paths beneath a script's root whose device and inode another path has too, though they are no hard links: by a
/// script that prints `DEVICE:INODE` of each file.
fn collisions(listed: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    lines.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

/// Thousands of files on a base of thousands of files.
const MANY: &str = r#"
many:
  from: {type: built, tag: base}
  run: |
    mkdir /a && cd /a && for i in $(seq 2000); do echo $i > $i; done
more:
  from: {type: built, tag: many}
  run: |
    mkdir /b && cd /b && for i in $(seq 2000); do echo $i > $i; done
    echo changed > /a/7
    find / -xdev -type f -links 1 -exec stat -c %d:%i {} + > /tmp/listed
    cp /tmp/listed /listed
"#;

#[test]
fn no_two_files_have_one_inode_number() {
    for_each_identity_on_btrfs(|space| {
        space.stackerfile(MANY);
        space.build(&[]);
        let listed = space.file("more", "listed").expect("the script wrote it");
        assert!(listed.lines().count() > 4000, "{}", listed.lines().count());
        assert_eq!(collisions(&listed), [""; 0]);
    });
}

#[test]
fn uppers_in_an_unrelated_subvolume_would_collide() {
    if !rustix::process::geteuid().is_root() {
        return support::skipped("mounts overlays by hand, for which it must be root");
    }
    let space = Space::on_btrfs(support::identity::Identity::Own);
    let volume = &space.volume().unwrap().path;
    let script = r#"
        set -e; cd "$1"; btrfs -q subvolume create lower; btrfs -q subvolume create "$2"; mkdir -p m "$3"
        for i in $(seq 500); do echo $i > lower/$i; done
        [ "$2" = other ] || { btrfs -q subvolume delete "$2"; btrfs -q subvolume snapshot lower "$2"; mkdir -p "$3"; }
        mkdir "$3/u" "$3/w"; mount -t overlay overlay -o "lowerdir=lower,upperdir=$3/u,workdir=$3/w" m
        for i in $(seq 500); do echo $i > m/new-$i; done
        find m -xdev -type f -links 1 -exec stat -c %d:%i {} +
        umount m; btrfs -q subvolume delete lower "$2"
    "#;
    let count = |upper: &str| {
        let directory = format!("{upper}/x");
        let output = std::process::Command::new("sh")
            .args(["-c", script, "sh", volume.to_str().unwrap(), upper, &directory])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        collisions(&String::from_utf8_lossy(&output.stdout)).len()
    };
    assert!(count("other") > 100, "the check above would not notice");
    assert_eq!(count("nursery"), 0);
}

#[test]
fn a_volume_that_is_not_mounted_is_no_empty_store() {
    for_each_identity_on_btrfs(|space| {
        space.stackerfile(LAYERS);
        space.build(&[]);
        let volume = space.volume().unwrap();
        volume.unmount();
        let mount_point = space.roots_dir();
        fs::create_dir(&mount_point).unwrap();
        if let Some((uid, gid)) = space.identity().owner() {
            std::os::unix::fs::chown(&mount_point, Some(uid), Some(gid)).unwrap();
        }
        space.edit("stacker.yaml", "echo 2 > /leaf", "echo 3 > /leaf");
        space.stacker(&["build"]).ends_with(3).says("is its file system not mounted?");
        assert_eq!(fs::read_dir(&mount_point).unwrap().count(), 0, "nothing was written there");
        fs::remove_dir(&mount_point).unwrap();
        volume.mount();
        space.build(&[]).built(&["leaf-2", "copy"]);
        // Who has lost it says so.
        space.stacker(&["build", "--storage-type", "overlay"]).ends_with(0);
        space.stacker(&["build", "--no-cache", "--storage-type", "overlay"]).ends_with(3).says("is of the kind btrfs");
    });
}

#[test]
fn an_overlay_store_lies_on_btrfs_too_when_asked_for() {
    for_each_identity_on_btrfs(|space| {
        space.stackerfile(LAYERS);
        space.stacker(&["build", "--storage-type", "overlay"]).ends_with(0);
        assert_eq!(kinds(space), [""; 0]);
        space.stacker(&["build", "--no-cache"]).ends_with(0);
        assert_eq!(kinds(space), [""; 0], "the store stays what it is");
    });
}

#[test]
fn btrfs_is_refused_where_there_is_none() {
    let space = Space::new();
    if support::volume::is_btrfs(&space.roots_dir()) {
        return support::skipped("the temporary directory is on btrfs");
    }
    space.stackerfile(LAYERS);
    space.stacker(&["build", "--storage-type", "btrfs"]).ends_with(3).says("is not on btrfs");
}

#[test]
fn clean_leaves_no_subvolume() {
    for_each_identity_on_btrfs(|space| {
        space.stackerfile(LAYERS);
        space.build(&[]);
        space.stacker(&["clean", "--all"]).ends_with(0);
        assert_eq!(kinds(space), [""; 0]);
        // A user who may not write to the directory above cannot remove it.
        assert!(!space.has_roots(), "the roots directory is gone, or empty");
    });
}

#[test]
fn lost_data_is_made_again_from_blobs() {
    support::space::for_each_identity(|space| {
        space.stackerfile(LAYERS);
        let before = space.build(&[]);
        // Everything of the store of layers goes, as when its disk is replaced.
        space.forget_roots();
        space.edit("stacker.yaml", "dest: /copied", "dest: /copied-elsewhere");
        let after = space.build(&[]);
        after.built(&["copy"]);
        space.edit("stacker.yaml", "echo 1 > /leaf", "echo 5 > /leaf");
        space.build(&[]).built(&["leaf-1", "copy"]);
        assert_eq!(before.digests()[..4], after.digests()[..4]);
    });
}
