//! What a long build has finished is durable long before the build ends: a power cut takes its last seconds only.

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, WatchFlags};
use stacker::action::Kind;
use stacker::export::metadata::{Metadata, Status};
use stacker::record::Record;

use support::identity::identities;
use support::skipped;
use support::space::{Space, for_each_identity};
use support::volume::Volume;

/// A layer, and one on it whose script runs until this process hangs up.
fn prepare(space: &Space) -> TcpListener {
    let telephone = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = telephone.local_addr().unwrap().port();
    space.stackerfile(&format!(
        "first: {{from: {{type: built, tag: base}}, run: 'echo first > /first'}}
waits: {{from: {{type: built, tag: first}}, run: 'nc 127.0.0.1 {port}'}}\n"
    ));
    telephone
}

/// Events of the store's files, from now on.
struct Watch(std::os::fd::OwnedFd);

impl Watch {
    fn new(store: &Path, name: &str, events: WatchFlags) -> Watch {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, store.join(name), events).unwrap();
        Watch(watch)
    }

    fn wait(&self) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1 << 12];
        inotify::Reader::new(&self.0, &mut buffer).next().unwrap();
    }
}

/// Starts a build and waits until `first` has been made durable, while the other script runs.
fn build_until_durable(space: &Space, telephone: &TcpListener) -> (Child, std::net::TcpStream) {
    let records = Watch::new(&space.stacker_dir(), "records", WatchFlags::MOVED_TO);
    let child = space.command(&["build"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (call, _) = telephone.accept().unwrap();
    records.wait();
    // The rows come last.
    let begun = Instant::now();
    while unsynced(space) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the rows are not marked");
        std::thread::sleep(Duration::from_millis(10));
    }
    (child, call)
}

/// Results that are not known to be on disk.
fn unsynced(space: &Space) -> i64 {
    let database = rusqlite::Connection::open(space.stacker_dir().join("stacker.db")).unwrap();
    let count = "SELECT count(*) FROM result WHERE unsynced IS NOT NULL";
    database.query_row(count, [], |row| row.get(0)).unwrap()
}

fn is_kept(space: &Space, script: &str) -> bool {
    let files = fs::read_dir(space.stacker_dir().join("records")).unwrap();
    let records = files.map(|file| Record::read(&file.unwrap().path()).unwrap().expect("a record"));
    records
        .into_iter()
        .any(|record| matches!(record.action.kind, Kind::Run { script: found, .. } if found.contains(script)))
}

#[test]
fn what_is_finished_is_durable_while_the_build_goes_on() {
    for_each_identity(|space| {
        let telephone = prepare(space);
        // The directories are there.
        space.build(&["-f", "stacker.yaml", "base"]);
        let (mut child, call) = build_until_durable(space, &telephone);
        assert!(child.try_wait().unwrap().is_none(), "the build has ended");
        assert!(is_kept(space, "echo first") && !is_kept(space, "nc 127"));
        drop(call);
        assert!(child.wait().unwrap().success());
        assert!(is_kept(space, "nc 127"));
        space.build(&[]).built(&[]);
    });
}

/// Mounts the clone `$1` where the store is (`$2`), as a machine that has started anew (`$3`: its boot id), and does what
/// follows there.
const START: &str = r#"
set -e
disk=$1 place=$2 boot=$3; shift 3
mount --make-rprivate /
umount "$place"; mount -o loop "$disk" "$place"
mount --bind "$boot" /proc/sys/kernel/random/boot_id
"$@" || status=$?
umount "$place"
exit ${status:-0}
"#;

#[test]
fn a_power_cut_in_a_long_build_takes_nothing_that_was_finished() {
    if !rustix::process::geteuid().is_root() {
        return skipped("power cuts: only root can mount what they leave");
    }
    for file_system in ["ext4", "btrfs"] {
        let space = Space::of(*identities().last().unwrap());
        let outer = Volume::create(space.directory().join("outer"));
        let (disk, place) = (outer.path.join("disk"), space.stacker_dir());
        fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
        fs::create_dir(&place).unwrap();
        run(&format!("mkfs.{file_system}"), &["-q", disk.to_str().unwrap()]);
        run("mount", &["-o", "loop", disk.to_str().unwrap(), place.to_str().unwrap()]);
        fs::create_dir(place.join("roots")).unwrap();
        space.give(&place);
        space.give(&place.join("roots"));
        std::os::unix::fs::symlink(place.join("roots"), space.roots_dir()).unwrap();

        let telephone = prepare(&space);
        space.build(&["-f", "stacker.yaml", "base"]);
        let (mut child, call) = build_until_durable(&space, &telephone);
        let clone = outer.path.join("clone");
        run("cp", &["--reflink=always", disk.to_str().unwrap(), clone.to_str().unwrap()]);
        drop(call);
        child.wait().unwrap();

        let statuses = build_after(&space, &clone, telephone);
        let expected = [("base", Status::Hit), ("first", Status::Hit), ("waits", Status::Built)];
        assert_eq!(statuses, expected.map(|(name, status)| (name.to_owned(), status)), "on {file_system}");
        run("umount", &[place.to_str().unwrap()]);
    }
}

/// Builds on a disk after its machine has started again; whoever calls is hung up on. Returns what became of each layer.
fn build_after(space: &Space, disk: &Path, telephone: TcpListener) -> Vec<(String, Status)> {
    let (boot, metadata) = (space.directory().join("boot_id"), space.path("after.json"));
    fs::write(&boot, "00000001-0000-4000-8000-000000000001\n").unwrap();
    let place = space.stacker_dir();
    let identity = space.identity().wrapper();
    let mut words = vec!["--mount", "sh", "-c", START, "sh", disk.to_str().unwrap(), place.to_str().unwrap()];
    words.push(boot.to_str().unwrap());
    words.extend(identity.iter().map(String::as_str));
    let line = space.command_line();
    words.extend(line.split(' '));
    words.extend(["build", "--oci-dir", "after", "--metadata-file", metadata.to_str().unwrap()]);
    let over = Arc::new(AtomicBool::new(false));
    let (ended, address) = (over.clone(), telephone.local_addr().unwrap());
    let answers = std::thread::spawn(move || while telephone.accept().is_ok() && !ended.load(Ordering::SeqCst) {});
    let output = Command::new("unshare").args(&words).current_dir(space.path("")).output().unwrap();
    over.store(true, Ordering::SeqCst);
    drop(std::net::TcpStream::connect(address));
    answers.join().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{out}\n{err}", output.status);
    let metadata: Metadata = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    metadata.layers.into_iter().map(|layer| (layer.name, layer.status)).collect()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
