//! Power cuts: the disk as it was at some moment, and a machine that starts again with it.
//!
//! The store's file system lies in a file on a btrfs, where a clone of the file at any moment is what a power cut then
//! would have left. STACKER_TEST_POWER_CUTS says how many there are (default: 6), STACKER_TEST_SEED at which moments.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::identity::identities;
use support::skipped;
use support::space::Space;
use support::volume::Volume;

/// Chains and siblings, with files large enough to be written late.
const LAYERS: &str = "
one: {from: {type: built, tag: base}, run: 'for i in $(seq 40); do echo ROUND $i > /one-$i; done; head -c 300000 /bin/busybox > /big'}
two: {from: {type: built, tag: one}, imports: [{path: data, dest: /data}], run: 'cat /data/file /one-1 > /two; rm /one-2'}
left: {from: {type: built, tag: two}, run: 'cp /big /left; echo ROUND > /data/left'}
right: {from: {type: built, tag: two}, imports: ['stacker://one/big'], run: 'cp /stacker/imports/big /right'}
out: {from: {type: scratch}, imports: [{path: 'stacker://right/right', dest: /out/}]}
";

fn write(space: &Space, round: usize) {
    space.write("data/file", format!("content {round}"));
    space.stackerfile(&LAYERS.replace("ROUND", &round.to_string()));
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Mounts the clone `$1` where the store is (`$2`), as a machine that has started anew (`$3`: its boot id), and does what
/// follows there.
const START: &str = r#"
set -e
disk=$1 place=$2 boot=$3; shift 3
mount --make-rprivate /
umount "$place"; mount -o loop,user_subvol_rm_allowed "$disk" "$place" 2>/dev/null || mount -o loop "$disk" "$place"
mount --bind "$boot" /proc/sys/kernel/random/boot_id
"$@"
status=$?
umount "$place"
exit $status
"#;

fn cut_the_power(file_system: &str) {
    let seed = number("STACKER_TEST_SEED", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let cuts = number("STACKER_TEST_POWER_CUTS", 6);
    eprintln!("{cuts} power cuts on {file_system}, STACKER_TEST_SEED={seed}");
    let undisturbed = Space::of(*identities().last().unwrap());
    let space = Space::of(*identities().last().unwrap());
    let outer = Volume::create(space.directory().join("outer"));
    let (disk, place) = (outer.path.join("disk"), space.directory().join("store"));
    // Room for what all builds make, also where gc takes nothing.
    fs::File::create(&disk).unwrap().set_len((400 + 8 * cuts) << 20).unwrap();
    fs::create_dir(&place).unwrap();
    let options = if file_system == "btrfs" { "loop,user_subvol_rm_allowed" } else { "loop" };
    run(&format!("mkfs.{file_system}"), &["-q", disk.to_str().unwrap()]);
    run("mount", &["-o", options, disk.to_str().unwrap(), place.to_str().unwrap()]);
    let _ = fs::remove_dir(place.join("lost+found"));
    space.give(&place);
    let boot = space.directory().join("boot_id");
    // Both directories on the one disk.
    fs::create_dir(place.join("roots")).unwrap();
    space.give(&place.join("roots"));
    std::os::unix::fs::symlink(place.join("roots"), space.roots_dir()).unwrap();
    // Whose the disk is was not done by what loses its power.
    run("sync", &["-f", place.to_str().unwrap()]);
    let program = space.directory().join("bin/stacker");
    let mut state = seed | 1;
    for cut in 0..cuts as usize {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        write(&space, cut);
        write(&undisturbed, cut);
        let expected = undisturbed.build(&["--no-cache"]).digests();
        let mut child = space.command(&["build"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Every other time gc takes beside it what the build does not hold.
        let mut gc = (cut % 2 == 1).then(|| {
            let mut gc = space.command(&["gc", "--older-than", "0s"]);
            gc.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        let moment = Duration::from_micros((state >> 33) % 900_000);
        std::thread::sleep(moment);
        let clone = outer.path.join(format!("clone-{cut}"));
        run("cp", &["--reflink=always", disk.to_str().unwrap(), clone.to_str().unwrap()]);
        child.wait().unwrap();
        if let Some(gc) = &mut gc {
            gc.wait().unwrap();
        }
        fs::write(&boot, format!("{cut:08x}-0000-4000-8000-{seed:012x}\n")).unwrap();
        let after = build_on(&space, &clone, &place, &boot, &program);
        let what = format!("cut {cut} after {moment:?} on {file_system}, seed {seed}");
        assert_eq!(after, expected, "{what}");
        fs::remove_file(clone).unwrap();
    }
    eprintln!("{cuts} power cuts on {file_system}, {} of them while gc ran: no harm", cuts / 2);
    run("umount", &[place.to_str().unwrap()]);
}

/// Builds on a disk after its machine has started again: twice, the second time without work. Returns the digests.
fn build_on(
    space: &Space,
    disk: &Path,
    place: &Path,
    boot: &Path,
    program: &Path,
) -> Vec<(String, Vec<stacker::digest::DiffId>)> {
    let metadata = space.path("after.json");
    let twice = "\"$@\" && \"$@\" 2>&1 | grep -q ' 0 built' && exit 0; exit 9";
    let identity = space.identity().wrapper();
    let mut words =
        vec!["sh", "-c", START, "sh", disk.to_str().unwrap(), place.to_str().unwrap(), boot.to_str().unwrap()];
    words.extend(identity.iter().map(String::as_str));
    words.extend(["sh", "-c", twice, "sh", program.to_str().unwrap(), "build"]);
    let (store, roots) = (space.stacker_dir(), space.roots_dir());
    words.extend(["--stacker-dir", store.to_str().unwrap(), "--roots-dir", roots.to_str().unwrap()]);
    words.extend(["--oci-dir", "after", "--metadata-file", metadata.to_str().unwrap()]);
    let output = Command::new("unshare").arg("--mount").args(&words).current_dir(space.path("")).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{out}\n{err}", output.status);
    let metadata: stacker::export::metadata::Metadata = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    metadata.layers.into_iter().map(|layer| (layer.name, layer.diff_ids)).collect()
}

#[test]
fn power_cuts_do_no_harm() {
    if !rustix::process::geteuid().is_root() {
        return skipped("power cuts: only root can mount what they leave");
    }
    cut_the_power("ext4");
    cut_the_power("btrfs");
}
