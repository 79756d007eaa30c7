//! Host imports: what their digest depends on, when files are read again, and what staging leaves behind.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::inotify;
use stacker::action::Attributes;
use stacker::digest::TreeDigest;
use stacker::listing::{Entry, Kind, Listing, tree_digest};
use stacker::place::StackerDir;
use stacker::resolve::{HostPath, Modes, Resolved, Resolver, keep_tree_listing, sha256_file, stage};
use tempfile::TempDir;

const TIME: i64 = 946_684_800;

/// a, bin/run (executable), bin/link -> run, empty/
fn sample() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "content of a").unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    fs::write(dir.path().join("bin/run"), "#!/bin/sh\n").unwrap();
    chmod(&dir.path().join("bin/run"), 0o755);
    symlink("run", dir.path().join("bin/link")).unwrap();
    symlink("/nowhere", dir.path().join("bin/dangling")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    dir
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn look(path: &Path) -> Resolved {
    Resolver::new(vec![]).tree(path, None).unwrap()
}

fn again(path: &Path, list: &[u8]) -> Resolved {
    Resolver::new(vec![]).tree(path, Some(list)).unwrap()
}

fn digest(path: &Path) -> TreeDigest {
    look(path).tree.digest
}

fn names(path: &Path, resolver: &Resolver) -> Vec<String> {
    let entries = resolver.tree(path, None).unwrap().tree.entries().unwrap();
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

/// Which files (not directories) of `dirs` somebody opens while `act` runs.
fn opened(dirs: &[&Path], act: impl FnOnce()) -> Vec<String> {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    for dir in dirs {
        inotify::add_watch(&watch, *dir, inotify::WatchFlags::OPEN).unwrap();
    }
    act();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1 << 16];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut files = vec![];
    while let Ok(event) = events.next() {
        if !event.events().contains(inotify::ReadFlags::ISDIR) {
            files.push(event.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    files.sort();
    files.dedup();
    files
}

/// Until the stamps of all that was just written are old enough to be trusted.
fn settle() {
    std::thread::sleep(Duration::from_millis(2100));
}

/// As `cp -p` does it: other bytes, same length, same modification time.
fn replace_quietly(path: &Path, content: &str) {
    let before = fs::metadata(path).unwrap();
    assert_eq!(before.len(), content.len() as u64);
    fs::write(path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
}

#[test]
fn the_digest_is_that_of_the_normalised_entries() {
    let dir = sample();
    let found = look(dir.path());
    let entries = found.tree.entries().unwrap();
    let summary: Vec<(String, u32)> =
        entries.iter().map(|entry| (String::from_utf8_lossy(&entry.path).into_owned(), entry.mode)).collect();
    let expected = [
        ("", 0o755),
        ("a", 0o644),
        ("bin", 0o755),
        ("bin/dangling", 0o777),
        ("bin/link", 0o777),
        ("bin/run", 0o755),
        ("empty", 0o755),
    ];
    assert_eq!(summary, expected.map(|(path, mode)| (path.to_owned(), mode)));
    assert_eq!(tree_digest(&entries), found.tree.digest);
    assert_eq!(&entries[0], found.tree.root());
    let Kind::File { size, content } = entries[1].kind else { panic!("{:?}", entries[1]) };
    assert_eq!((size, content.0), (12, *blake3::hash(b"content of a").as_bytes()));
    assert!(entries.iter().all(|entry| (entry.uid, entry.gid) == (0, 0) && entry.xattrs.is_empty()));
}

#[test]
fn place_owner_time_and_umask_do_not_matter() {
    let (here, there) = (sample(), sample());
    let there = there.path();
    File::open(there.join("a")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    chmod(&there.join("a"), 0o600);
    chmod(&there.join("bin/run"), 0o4711);
    chmod(&there.join("empty"), 0o1777);
    if nix::unistd::geteuid().is_root() {
        chown(there.join("a"), Some(1234), Some(5678)).unwrap();
        lchown(there.join("bin/link"), Some(1234), None).unwrap();
    }
    assert_eq!(digest(here.path()), digest(there));
}

#[test]
fn every_change_that_an_image_would_show_matters() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 7] = [
        ("edit", |dir| fs::write(dir.join("a"), "CONTENT of a").unwrap()),
        ("rename", |dir| fs::rename(dir.join("a"), dir.join("b")).unwrap()),
        ("execute bit", |dir| chmod(&dir.join("a"), 0o755)),
        ("link target", |dir| {
            fs::remove_file(dir.join("bin/link")).unwrap();
            symlink("ruN", dir.join("bin/link")).unwrap();
        }),
        ("empty directory", |dir| fs::remove_dir(dir.join("empty")).unwrap()),
        ("new file", |dir| fs::write(dir.join("empty/x"), "").unwrap()),
        ("type", |dir| {
            fs::remove_dir(dir.join("empty")).unwrap();
            fs::write(dir.join("empty"), "").unwrap();
        }),
    ];
    let original = sample();
    for (what, change) in changes {
        let dir = sample();
        let before = look(dir.path());
        assert_eq!(before.tree.digest, digest(original.path()));
        change(dir.path());
        let after = digest(dir.path());
        assert_ne!(after, before.tree.digest, "{what}");
        // The same with what was known before.
        assert_eq!(again(dir.path(), &before.stat_list.unwrap()).tree.digest, after, "{what}");
    }
}

#[test]
fn only_files_that_the_list_cannot_vouch_for_are_read() {
    let dir = sample();
    let bin = dir.path().join("bin");
    let dirs = [dir.path(), bin.as_path()];
    let fresh = look(dir.path());
    let digest = fresh.tree.digest;
    settle();

    // Right after a checkout nothing can be trusted; the second build makes the list that the third one trusts.
    let mut second = None;
    let read = opened(&dirs, || second = Some(again(dir.path(), &fresh.stat_list.unwrap())));
    assert_eq!(read, ["a", "run"]);
    let second = second.unwrap();
    assert_eq!(second.tree.digest, digest);
    let list = second.stat_list.expect("a list that can be trusted");
    let read = opened(&dirs, || {
        let third = again(dir.path(), &list);
        assert_eq!((third.tree.digest, third.stat_list), (digest, None));
        assert_eq!(third.tree.entries().unwrap(), second.tree.entries().unwrap());
        assert_eq!(third.tree.root(), second.tree.root());
    });
    assert_eq!(read, [""; 0]);

    // One file replaced: that one is read, though size and time are as before.
    replace_quietly(&dir.path().join("a"), "CONTENT OF A");
    let read = opened(&dirs, || {
        let changed = again(dir.path(), &list);
        assert_ne!(changed.tree.digest, digest);
        assert!(changed.stat_list.is_some());
    });
    assert_eq!(read, ["a"]);

    // Names are always looked at: a new file, one gone, one renamed.
    fs::write(bin.join("new"), "").unwrap();
    fs::rename(bin.join("run"), bin.join("walk")).unwrap();
    let read = opened(&dirs, || {
        let changed = again(dir.path(), &list);
        assert_eq!(changed.tree.digest, look(dir.path()).tree.digest);
    });
    assert!(read.contains(&"new".to_owned()) && read.contains(&"walk".to_owned()), "{read:?}");
}

#[test]
fn an_edit_right_after_hashing_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    for round in 0..300 {
        fs::write(&file, "one").unwrap();
        let first = look(dir.path());
        replace_quietly(&file, "two");
        let second = again(dir.path(), &first.stat_list.unwrap());
        assert_ne!(first.tree.digest, second.tree.digest, "round {round}");
    }
}

#[test]
fn a_file_of_the_future_is_never_trusted_nor_rewrites_the_list_each_time() {
    let dir = sample();
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    File::open(dir.path().join("a")).unwrap().set_modified(ahead).unwrap();
    settle();
    let list = look(dir.path()).stat_list.unwrap();
    let read = opened(&[dir.path()], || assert_eq!(again(dir.path(), &list).stat_list, None));
    assert_eq!(read, ["a"]);
}

#[test]
fn a_damaged_or_foreign_list_says_nothing() {
    let dir = sample();
    let found = look(dir.path());
    let list = found.stat_list.unwrap();
    let mut lists = vec![vec![], b"stacker stat list 1\n".to_vec(), list[..list.len() / 2].to_vec()];
    for position in (0..list.len()).step_by(7) {
        let mut damaged = list.clone();
        damaged[position] ^= 1;
        lists.push(damaged);
    }
    let other = tempfile::tempdir().unwrap();
    lists.push(look(other.path()).stat_list.unwrap());
    for damaged in lists {
        let resolved = again(dir.path(), &damaged);
        assert_eq!(resolved.tree.digest, found.tree.digest);
        assert!(resolved.stat_list.is_some());
    }
}

#[test]
fn stackerignore_filters_as_gitignore_does() {
    let dir = sample();
    let root = dir.path();
    for (path, text) in [("x.o", ""), ("keep.o", ""), ("empty/y.o", ""), ("bin/.stackerignore", "run\n")] {
        fs::write(root.join(path), text).unwrap();
    }
    fs::create_dir_all(root.join("deep/target/debug")).unwrap();
    fs::write(root.join("deep/target/debug/big"), "").unwrap();
    fs::write(root.join("target"), "a file").unwrap();
    fs::write(root.join(".stackerignore"), "# made\n*.o\n!keep.o\ntarget/\n/a\n").unwrap();
    let expected =
        ["", "bin", "bin/.stackerignore", "bin/dangling", "bin/link", "bin/run", "deep", "empty", "keep.o", "target"];
    assert_eq!(names(root, &Resolver::new(vec![])), expected);

    fs::write(root.join(".stackerignore"), "a\n[z-a]\n").unwrap();
    let error = Resolver::new(vec![]).tree(root, None).unwrap_err();
    assert!(error.to_string().contains(".stackerignore: line 2"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn stackers_own_directories_are_not_imported() {
    let dir = sample();
    fs::create_dir(dir.path().join(".stacker")).unwrap();
    fs::write(dir.path().join(".stacker/stacker.db"), "").unwrap();
    let without = sample();
    let resolver = Resolver::new(vec![dir.path().join(".stacker"), PathBuf::from("/nowhere/roots")]);
    assert_eq!(resolver.tree(dir.path(), None).unwrap().tree.digest, digest(without.path()));
    // Nor when the tree is reached by another path.
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(dir.path(), elsewhere.path().join("alias")).unwrap();
    let alias = elsewhere.path().join("alias");
    assert_eq!(resolver.tree(&alias, None).unwrap().tree.digest, digest(without.path()));
    let error = resolver.tree(&dir.path().join(".stacker"), None).unwrap_err();
    assert!(error.to_string().contains("stacker's own"), "{error}");
}

#[test]
fn names_need_not_be_utf8() {
    let dir = tempfile::tempdir().unwrap();
    let odd = OsStr::from_bytes(b"odd \xff\n");
    fs::create_dir(dir.path().join(odd)).unwrap();
    fs::write(dir.path().join(odd).join(odd), "x").unwrap();
    symlink(odd, dir.path().join("link")).unwrap();
    let found = look(dir.path());
    let entries = found.tree.entries().unwrap();
    assert_eq!(entries[1].kind, Kind::Symlink { target: odd.as_bytes().to_vec() });
    assert_eq!(entries[3].path, b"odd \xff\n/odd \xff\n");
    let out = tempfile::tempdir().unwrap();
    assert_eq!(staged(dir.path(), out.path(), Attributes::default()), found.tree.digest);
    assert_eq!(fs::read(out.path().join("t").join(odd).join(odd)).unwrap(), b"x");
}

#[test]
fn a_file_is_one_entry_and_a_link_at_the_path_is_followed() {
    let dir = sample();
    let file = look(&dir.path().join("bin/run"));
    assert_eq!(file.tree.entries().unwrap().len(), 1);
    assert_eq!((file.tree.root().path.as_slice(), file.tree.root().mode), (&b""[..], 0o755));
    assert_eq!(digest(&dir.path().join("bin/link")), file.tree.digest);
    assert_eq!(again(&dir.path().join("bin/link"), &file.stat_list.unwrap()).tree.digest, file.tree.digest);
    let out = tempfile::tempdir().unwrap();
    assert_eq!(staged(&dir.path().join("bin/link"), out.path(), Attributes::default()), file.tree.digest);
    assert_eq!(fs::read(out.path().join("t")).unwrap(), b"#!/bin/sh\n");
    assert!(fs::symlink_metadata(out.path().join("t")).unwrap().is_file());
}

#[test]
fn what_cannot_be_imported_is_named() {
    let dir = sample();
    let missing = dir.path().join("missing");
    let error = Resolver::new(vec![]).tree(&missing, None).unwrap_err();
    assert_eq!(error.to_string(), format!("{} does not exist", missing.display()));
    assert_eq!(error.exit_code(), 1);
    let error = Resolver::new(vec![]).tree(&dir.path().join("bin/dangling"), None).unwrap_err();
    assert!(error.to_string().ends_with("bin/dangling is a link to /nowhere, which does not exist"), "{error}");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("bin/s")).unwrap();
    let error = Resolver::new(vec![]).tree(dir.path(), None).unwrap_err();
    assert!(error.to_string().ends_with("bin/s: it is a socket"), "{error}");
}

fn staged(source: &Path, out: &Path, attributes: Attributes) -> TreeDigest {
    stage(source, &look(source).tree, &attributes, TIME, out, (70_000, 70_001)).unwrap()
}

/// Path, mode, owner, time of all that is at and below a path.
fn tree(path: &Path) -> Vec<(PathBuf, u32, (u32, u32), i64)> {
    let found = fs::symlink_metadata(path).unwrap();
    let mut all = vec![(path.to_path_buf(), found.mode() & 0o7777, (found.uid(), found.gid()), found.mtime())];
    if found.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|name| name.unwrap().path()).collect();
        names.sort();
        all.extend(names.iter().flat_map(|name| tree(name)));
    }
    all
}

#[test]
fn staging_normalises_whatever_the_umask() {
    let dir = sample();
    chmod(&dir.path().join("a"), 0o600);
    chmod(&dir.path().join("bin"), 0o700);
    fs::write(dir.path().join("big"), vec![7; 3_000_000]).unwrap();
    let out = tempfile::tempdir().unwrap();
    // Harmless for the other tests: none looks at bits that this takes.
    let umask = rustix::process::umask(0o077.into());
    let found = staged(dir.path(), out.path(), Attributes::default());
    rustix::process::umask(umask);
    assert_eq!(found, digest(dir.path()));
    assert_eq!(digest(&out.path().join("t")), found);
    let owner = owner();
    let t = out.path().join("t");
    let expected = [
        ("", 0o755),
        ("a", 0o644),
        ("big", 0o644),
        ("bin", 0o755),
        ("bin/dangling", 0o777),
        ("bin/link", 0o777),
        ("bin/run", 0o755),
        ("empty", 0o755),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(path, mode)| (if path.is_empty() { t.clone() } else { t.join(path) }, *mode, owner, TIME))
        .collect();
    assert_eq!(tree(&t), expected);
    assert_eq!(fs::read_link(t.join("bin/dangling")).unwrap(), Path::new("/nowhere"));
}

#[test]
fn staging_applies_modes_but_returns_the_digest_of_the_source() {
    let dir = sample();
    let out = tempfile::tempdir().unwrap();
    let attributes = Attributes { mode: Some(0o4640), uid: Some(5), gid: Some(6) };
    assert_eq!(staged(dir.path(), out.path(), attributes), digest(dir.path()));
    let t = out.path().join("t");
    let mode = |path: &str| fs::symlink_metadata(t.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("bin/run"), mode("bin"), mode("bin/link")), (0o4640, 0o4640, 0o4750, 0o777));
    let found = fs::metadata(t.join("a")).unwrap();
    assert_eq!((found.uid(), found.gid()), owner());
}

/// Who owns what was staged: the given root's ids where the caller may give files away, else the caller.
fn owner() -> (u32, u32) {
    match nix::unistd::geteuid().as_raw() {
        0 => (70_000, 70_001),
        uid => (uid, nix::unistd::getegid().as_raw()),
    }
}

#[test]
fn staging_tells_that_the_source_changed() {
    type Change = fn(&Path);
    let changes: [Change; 4] = [
        |dir| replace_quietly(&dir.join("a"), "CONTENT OF A"),
        |dir| fs::write(dir.join("new"), "").unwrap(),
        |dir| fs::remove_file(dir.join("a")).unwrap(),
        |dir| {
            fs::remove_file(dir.join("a")).unwrap();
            symlink("bin/run", dir.join("a")).unwrap();
        },
    ];
    for change in changes {
        let dir = sample();
        let before = look(dir.path()).tree;
        change(dir.path());
        let out = tempfile::tempdir().unwrap();
        let found = stage(dir.path(), &before, &Attributes::default(), TIME, out.path(), (0, 0)).unwrap();
        assert_ne!(found, before.digest);
        assert_eq!(found, digest(dir.path()));
        assert_eq!(digest(&out.path().join("t")), found);
    }
}

#[test]
fn modes_of_the_host_are_another_tree() {
    let dir = sample();
    let modes = [("a", 0o4640), ("bin/run", 0o755), ("bin", 0o2750), ("empty", 0o1777), ("", 0o700)];
    modes.iter().for_each(|(name, mode)| chmod(&dir.path().join(name), *mode));
    let host = |path: &Path, list: Option<&[u8]>| {
        let at = HostPath { path: path.into(), modes: Modes::Host };
        Resolver::new(vec![]).look(&at, list).unwrap()
    };
    let (normal, kept) = (look(dir.path()), host(dir.path(), None));
    assert_ne!(normal.tree.digest, kept.tree.digest);
    let entries = kept.tree.entries().unwrap();
    for (name, mode) in modes {
        let entry = entries.iter().find(|entry| entry.path == name.as_bytes()).unwrap();
        assert_eq!((entry.mode, entry.uid, entry.gid), (mode, 0, 0), "{name}");
    }
    // The list of either says nothing wrong to the other.
    assert_eq!(again(dir.path(), &kept.stat_list.unwrap()).tree.digest, normal.tree.digest);
    let list = normal.stat_list.unwrap();
    assert_eq!(host(dir.path(), Some(&list)).tree.digest, kept.tree.digest);
    // What is staged is as what was looked at, and what it is by then.
    let out = tempfile::tempdir().unwrap();
    let found = stage(dir.path(), &kept.tree, &Attributes::default(), TIME, out.path(), (0, 0)).unwrap();
    assert_eq!(found, kept.tree.digest);
    assert_eq!(host(&out.path().join("t"), None).tree.digest, kept.tree.digest);
    for name in ["a", "empty"] {
        chmod(&dir.path().join(name), 0o711);
        let out = tempfile::tempdir().unwrap();
        let found = stage(dir.path(), &kept.tree, &Attributes::default(), TIME, out.path(), (0, 0)).unwrap();
        assert_eq!(found, host(dir.path(), None).tree.digest);
        assert_ne!(found, kept.tree.digest);
    }
}

#[test]
fn staging_leaves_out_what_resolving_left_out() {
    let dir = sample();
    fs::create_dir(dir.path().join("roots")).unwrap();
    fs::write(dir.path().join(".stackerignore"), "a\n").unwrap();
    let found = Resolver::new(vec![dir.path().join("roots")]).tree(dir.path(), None).unwrap().tree;
    // Where the roots directory really is when it lies in an import.
    let out = dir.path().join("roots");
    assert_eq!(stage(dir.path(), &found, &Attributes::default(), TIME, &out, (0, 0)).unwrap(), found.digest);
    for left_out in ["a", "roots", ".stackerignore"] {
        assert!(!out.join("t").join(left_out).exists(), "{left_out}");
    }
}

#[test]
fn listings_of_trees_are_kept_once_and_readable_by_workers() {
    let dir = sample();
    let tree = look(dir.path()).tree;
    let kept = tempfile::tempdir().unwrap();
    let stacker = StackerDir(kept.path().to_path_buf());
    for name in ["listings", "tmp"] {
        fs::create_dir(kept.path().join(name)).unwrap();
    }
    tree.keep_listing(&stacker).unwrap();
    let path = stacker.tree_listing(&tree.digest);
    let read: Vec<Entry> = Listing::open(&path).unwrap().entries().map(Result::unwrap).collect();
    assert_eq!(read, tree.entries().unwrap());
    let written = fs::metadata(&path).unwrap();
    assert_eq!(written.mode() & 0o7777, 0o644);
    keep_tree_listing(&stacker, &tree.digest, &[]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), written.ino());
    assert_eq!(fs::read_dir(kept.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn sha256_of_a_file() {
    let dir = sample();
    fs::write(dir.path().join("abc"), "abc").unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(stacker::digest::hex(&sha256_file(&dir.path().join("abc")).unwrap()), expected);
    let missing = dir.path().join("missing");
    assert!(sha256_file(&missing).unwrap_err().to_string().contains(&*missing.to_string_lossy()));
}

/// A file system in a file, mounted for one test.
struct Mounted(TempDir);

impl Mounted {
    /// `None` for an ordinary user, who may not mount: said, not hidden. CI runs as root.
    fn new(mkfs: &[&str], size: u64) -> Option<Mounted> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(size).unwrap();
        fs::create_dir(dir.path().join("at")).unwrap();
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        if made && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir.path().join("at"))) {
            return Some(Mounted(dir));
        }
        assert!(!nix::unistd::geteuid().is_root(), "{mkfs:?} and mount do not work here");
        eprintln!("SKIPPED: only root may mount what {mkfs:?} makes");
        None
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("at")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn an_edit_within_one_tick_of_a_coarse_clock_is_noticed() {
    // Inodes of 128 bytes have no room for nanoseconds.
    let Some(mounted) = Mounted::new(&["mkfs.ext4", "-q", "-I", "128"], 8 << 20) else { return };
    let file = mounted.path().join("f");
    fs::write(&file, "zero").unwrap();
    let mut same_stamps = 0;
    for _ in 0..20 {
        fs::write(&file, "one").unwrap();
        let stamps = |path| fs::metadata(path).map(|found| (found.mtime_nsec(), found.ctime(), found.ino())).unwrap();
        let (first, before) = (look(&file), stamps(&file));
        replace_quietly(&file, "two");
        same_stamps += i32::from(stamps(&file) == before);
        assert_ne!(again(&file, &first.stat_list.unwrap()).tree.digest, first.tree.digest);
    }
    assert!(same_stamps > 0, "the clock of this file system is not coarse");
}

#[test]
fn staging_clones_where_the_file_system_can() {
    let Some(mounted) = Mounted::new(&["mkfs.btrfs", "-q"], 256 << 20) else { return };
    let (source, out) = (mounted.path().join("source"), mounted.path().join("out"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&out).unwrap();
    let content: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(source.join("big"), &content).unwrap();
    fs::write(source.join("small"), "small").unwrap();
    assert_eq!(staged(&source, &out, Attributes::default()), digest(&source));
    assert!(fs::read(out.join("t/big")).unwrap() == content);
    let du = Command::new("btrfs").args(["filesystem", "du", "--raw", "-s"]).arg(out.join("t")).output().unwrap();
    let text = String::from_utf8(du.stdout).unwrap();
    let columns: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert!(columns[2].parse::<u64>().unwrap() >= 8_000_000, "nothing is shared: {text}");
    // Writing to the source later does not reach the copy.
    fs::write(source.join("big"), "other").unwrap();
    assert!(fs::read(out.join("t/big")).unwrap() == content);
}
