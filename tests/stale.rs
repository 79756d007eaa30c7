//! Never a stale result: whatever happens to files while they are read, or to their times, what comes out is what they
//! hold, under the key of what they hold.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stacker::action::Kind;
use stacker::digest::{ContentDigest, DiffId, TreeDigest};
use stacker::record::Record;
use stacker::resolve::{Resolver, sha256_file};

use support::archive::Archive;
use support::skipped;
use support::space::{Run, Space, for_each_identity};
use support::writer::{How, When, Writer, version, version_at, write};

/// The three ways in: a tar base, an import with a place in the image, one that a script copies.
const LAYERS: &str = "
app: {from: {type: built, tag: base}, imports: [{path: data, dest: /data}]}
ran: {from: {type: built, tag: base}, imports: [data], run: cp /stacker/imports/data/file /out}
";

fn prepare(space: &Space, tar: u32, file: u32) {
    space.write("base.tar", support::base::archive().file("version", version(tar)).end());
    space.write("data/constant", "constant");
    space.write("data/file", version(file));
    space.stackerfile(LAYERS);
}

/// The digest of a tree as [`prepare`] makes it.
fn tree_with(text: &str) -> TreeDigest {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("constant"), "constant").unwrap();
    fs::write(data.path().join("file"), text).unwrap();
    Resolver::new(vec![]).tree(data.path(), None).unwrap().tree.digest
}

fn record_of(space: &Space, diff_id: &DiffId) -> Record {
    let directories = ["fresh", "records"].map(|name| space.stacker_dir().join(name));
    let files = directories.iter().flat_map(|path| fs::read_dir(path).unwrap());
    let mut records = files.map(|file| Record::read(&file.unwrap().path()).unwrap().expect("a record"));
    records.find(|record| record.result.diff_id.as_ref() == Some(diff_id)).expect("a record of the layer")
}

/// Each layer holds the very version that its key names, and one that was written. Returns those of tar, import, script.
#[track_caller]
fn versions(space: &Space, run: &Run, written: u32) -> [String; 3] {
    let checked = |tag: &str, path: &str, named: &dyn Fn(&Kind, &str) -> bool| {
        let text = space.file(tag, path).unwrap_or_else(|| panic!("no {path} in {tag} of {run}"));
        assert!((0..=written).any(|n| version(n) == text), "{path} in {tag} holds {text:?}, never written: {run}");
        let diff_ids = run.layer(tag).diff_ids;
        let at = if path == "version" { 0 } else { diff_ids.len() - 1 };
        let record = record_of(space, &diff_ids[at]);
        assert!(named(&record.action.kind, &text), "{path} in {tag} holds {text:?}, not what {record:?} says: {run}");
        text
    };
    let tar_with = |text: &str| {
        let mut tar = fs::read(space.path("base.tar")).unwrap();
        let at = version_at(&tar) as usize;
        tar[at..at + text.len()].copy_from_slice(text.as_bytes());
        ContentDigest::of(&tar)
    };
    [
        checked("base", "version", &|kind, text| matches!(kind, Kind::Unpack { tar } if *tar == tar_with(text))),
        checked(
            "app",
            "data/file",
            &|kind, text| matches!(kind, Kind::Import { tree, .. } if *tree == tree_with(text)),
        ),
        checked(
            "ran",
            "out",
            &|kind, text| matches!(kind, Kind::Run { mounts, .. } if mounts[0].tree == tree_with(text)),
        ),
    ]
}

/// What a build of the same files is that nobody disturbed, in a store of its own.
fn undisturbed(space: &Space) -> Vec<(String, Vec<DiffId>)> {
    let other = Space::of(space.identity());
    for name in ["base.tar", "data/constant", "data/file", "stacker.yaml"] {
        other.write(name, fs::read(space.path(name)).unwrap());
    }
    other.build(&[]).digests()
}

#[test]
fn a_file_that_changes_while_it_is_read_comes_out_as_what_it_then_was() {
    for_each_identity(|space| {
        prepare(space, 0, 0);
        let (data, tar) = (space.path("data/file"), space.path("base.tar"));
        let tar_how = How::InPlace(version_at(&fs::read(&tar).unwrap()));
        let (mut file_version, mut tar_version) = (0, 0);
        let mut changed = 0;
        for (spared, changes) in [(0, 1), (1, 1), (0, 2), (0, 3)] {
            for how in [How::InPlace(0), How::Renamed] {
                let when = When::Read { spared, changes };
                let files = Writer::start(&data, how, when, file_version);
                let tars = Writer::start(&tar, tar_how, when, tar_version);
                let run = space.build(&[]);
                let before = (file_version, tar_version);
                (file_version, tar_version) = (files.stop(), tars.stop());
                changed += (file_version - before.0).min(tar_version - before.1);
                versions(space, &run, file_version.max(tar_version));
                // Nobody writes any more.
                let run = space.build(&[]);
                let last = [version(tar_version), version(file_version), version(file_version)];
                assert_eq!(versions(space, &run, file_version.max(tar_version)), last, "{how:?}, {when:?}: {run}");
                space.build(&[]).built(&[]);
            }
        }
        assert!(changed > 0, "nothing was written while the program read");
        assert_eq!(space.build(&[]).digests(), undisturbed(space));
    });
}

#[test]
fn a_file_that_never_rests_fails_its_layer_and_is_named() {
    for_each_identity(|space| {
        prepare(space, 0, 0);
        let mut last = 0;
        for how in [How::InPlace(0), How::Renamed] {
            let writer = Writer::start(&space.path("data/file"), how, When::Always, last);
            let why = format!("{} keeps changing while it is read", space.path("data/file").display());
            // A writer that the machine lets wait long enough does not disturb.
            let named = (0..50).any(|_| {
                let run = space.stacker(&["build", "--keep-going"]);
                assert!(run.code == 0 || run.code == 1 && run.stderr.contains(&why), "{run}");
                run.code == 1
            });
            last = writer.stop();
            assert!(named, "no build was disturbed");
            let run = space.build(&[]);
            assert_eq!(versions(space, &run, last)[1..], [version(last), version(last)], "{run}");
            space.build(&[]).built(&[]);
        }
        assert_eq!(space.build(&[]).digests(), undisturbed(space));
    });
}

#[test]
fn a_hash_vouches_for_what_is_built_and_for_nothing_else() {
    for_each_identity(|space| {
        let path = space.path("data/file");
        let expecting = |n| {
            write(&path, How::InPlace(0), n);
            let hash = stacker::digest::hex(&sha256_file(&path).unwrap());
            space.write(
                "stacker.yaml",
                format!("app: {{from: {{type: scratch}}, imports: [{{path: data/file, dest: /f, hash: {hash}}}]}}\n"),
            );
        };
        space.write("data/file", version(0));
        let mut last = 0;
        // Changed before the hash is taken, and after.
        for spared in [0, 1] {
            // A writer may come too late, when all has been read.
            let caught = (0..50).any(|_| {
                last += 1;
                expecting(last);
                let writer = Writer::start(&path, How::InPlace(0), When::Read { spared, changes: 1 }, last);
                let run = space.stacker(&["build"]);
                let asked = version(last);
                last = writer.stop();
                if run.code == 0 {
                    assert_eq!(space.file("app", "f"), Some(asked), "{run}");
                    return false;
                }
                assert!(run.code == 1 && run.stderr.contains(" changed "), "{run}");
                run.says(&path.display().to_string());
                true
            });
            assert!(caught, "the file never changed in time");
            // It was remembered of neither content what the other one's hash is.
            space.stacker(&["build"]).ends_with(1).says("has another sha256");
            expecting(last);
            space.build(&[]).built(&["app"]);
            assert_eq!(space.file("app", "f"), Some(version(last)));
        }
    });
}

#[test]
fn edits_that_keep_size_and_time_are_seen() {
    for_each_identity(|space| {
        prepare(space, 0, 0);
        space.write("other/file", version(0));
        let more = "other: {from: {type: scratch}, imports: [{path: other, dest: /}]}\n";
        space.stackerfile(&format!("{LAYERS}{more}"));
        space.build(&[]);
        let source = space.path("source");
        for n in 1..=20 {
            // As an editor or an archive does that restores times.
            fs::write(&source, version(n)).unwrap();
            let like = fs::metadata(space.path("data/file")).unwrap().modified().unwrap();
            fs::File::options().write(true).open(&source).unwrap().set_modified(like).unwrap();
            let copied = Command::new("cp").arg("-p").arg(&source).arg(space.path("data/file")).status().unwrap();
            assert!(copied.success());
            write(&space.path("other/file"), How::Renamed, n);
            let run = space.build(&[]);
            run.built(&["app", "ran", "other"]);
            assert_eq!(versions(space, &run, n)[1..], [version(n), version(n)], "{run}");
            assert_eq!(space.file("other", "other/file"), Some(version(n)), "{run}");
        }
        space.build(&[]).built(&[]);
    });
}

#[test]
fn a_checkout_from_the_future_is_built_right() {
    for_each_identity(|space| {
        prepare(space, 0, 0);
        let future = |path: &Path| {
            assert!(Command::new("touch").args(["-d", "2040-01-01"]).arg(path).status().unwrap().success());
        };
        for name in ["base.tar", "data/constant", "data/file", "data", "stacker.yaml"] {
            future(&space.path(name));
        }
        // What times a checkout has is no part of a layer, and no reason to wait or to warn.
        let run = space.build(&[]);
        run.says_not("future");
        assert_eq!(run.digests(), undisturbed(space));
        space.build(&[]).built(&[]).says_not("future");
        for (n, how) in [(1, How::InPlace(0)), (2, How::Renamed), (3, How::InPlace(0))] {
            write(&space.path("data/file"), how, n);
            let run = space.build(&[]);
            run.built(&["app", "ran"]);
            assert_eq!(versions(space, &run, n)[1..], [version(n), version(n)], "{run}");
            space.build(&[]).built(&[]);
        }
    });
}

/// An ext4 in a file, whose inodes can be written to by hand while it is not mounted.
struct Ext4 {
    image: PathBuf,
    at: PathBuf,
}

impl Ext4 {
    fn create(space: &Space, at: PathBuf) -> Ext4 {
        let image = space.directory().join("ext4.img");
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        run("mkfs.ext4", &["-q", "-I", "256", image.to_str().unwrap()]);
        let disk = Ext4 { image, at };
        disk.mount();
        disk
    }

    fn mount(&self) {
        run("mount", &["-o", "loop", self.image.to_str().unwrap(), self.at.to_str().unwrap()]);
    }

    /// Gives a file a change time, as a clock that was that far ahead would have.
    fn set_change_time(&self, file: &str, seconds: u64) {
        run("umount", &[self.at.to_str().unwrap()]);
        self.wait_until_free();
        for (field, value) in [("ctime", format!("@{seconds}")), ("ctime_extra", "0".to_owned())] {
            let request = format!("set_inode_field {file} {field} {value}");
            run("debugfs", &["-w", "-R", &request, self.image.to_str().unwrap()]);
        }
        self.mount();
    }

    /// A process of another test may have begun in a copy of our mounts, and holds them until it makes its own.
    fn wait_until_free(&self) {
        for _ in 0..600 {
            let loops = Command::new("losetup").arg("-j").arg(&self.image).output().unwrap();
            if loops.stdout.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{} is mounted elsewhere", self.image.display());
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn after_the_clock_was_set_back_edits_are_seen() {
    /// 2036: a clock may have been that far ahead.
    const AHEAD: u64 = 2_082_758_400;
    if !rustix::process::geteuid().is_root() {
        return skipped("change times in the future: only root can mount the file system that has them");
    }
    for_each_identity(|space| {
        use std::os::unix::fs::MetadataExt;
        prepare(space, 0, 0);
        fs::remove_dir_all(space.path("data")).unwrap();
        let disk = Ext4::create(space, space.path("data"));
        let file = space.path("data/file");
        fs::remove_dir(space.path("data/lost+found")).unwrap();
        space.write("data/constant", "constant");
        space.write("data/file", version(0));
        let ahead = || {
            disk.set_change_time("/file", AHEAD);
            assert_eq!(fs::metadata(&file).unwrap().ctime(), AHEAD as i64);
        };
        ahead();
        assert_eq!(space.build(&[]).digests(), undisturbed(space));
        space.build(&[]).built(&[]);
        // By the clock as it is now.
        write(&file, How::InPlace(0), 1);
        let seen = |n| {
            let run = space.build(&[]);
            run.built(&["app", "ran"]);
            assert_eq!(versions(space, &run, n)[1..], [version(n), version(n)], "{run}");
            space.build(&[]).built(&[]);
        };
        seen(1);
        // The clock comes to the same moment a second time: nothing that lstat tells has changed.
        ahead();
        space.build(&[]).built(&[]);
        let before = fs::metadata(&file).unwrap();
        write(&file, How::InPlace(0), 2);
        ahead();
        let after = fs::metadata(&file).unwrap();
        let stamps =
            |found: &fs::Metadata| (found.len(), found.ino(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
        assert_eq!(stamps(&before), stamps(&after));
        seen(2);
    });
}

#[test]
fn a_script_starts_when_the_clock_has_passed_its_base() {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let base = |mtime| {
        let member = support::archive::Member { name: b"new", mtime, body: b"new", ..Default::default() };
        let Archive(bytes) = support::base::archive().member(member);
        Archive(bytes).end()
    };
    // Whoever compares times in a script finds none from the future.
    let late = "late: {from: {type: built, tag: base}, run: 'test $(date +%s) -ge $SOURCE_DATE_EPOCH; echo > /late; test ! /new -nt /late'}\n";
    for_each_identity(|space| {
        space.write("base.tar", base(clock() + 3));
        space.stackerfile(late);
        space.build(&[]).built(&["base", "late"]).says_not("future");
        space.build(&[]).built(&[]);
        // Too far ahead to wait for.
        let ahead = Duration::from_secs(3 * 3600).as_secs();
        space.write("base.tar", base(clock() + ahead));
        space.stackerfile("late: {from: {type: built, tag: base}, run: echo > /late}\n");
        space.build(&[]).built(&["base", "late"]).says("late: its base has files from").says("s in the future");
        space.build(&[]).built(&[]).says_not("future");
    });
}
