//! What sealing makes of an upper directory, whose marks are set by hand as overlayfs sets them.

mod support;

use std::fs::{self, symlink_metadata as stat};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use stacker::action::Ids;
use stacker::digest::DiffId;
use stacker::listing::{Kind, Listing, Stack, Time};
use stacker::seal::{Form, Marks, Owners, Times, dress_root, seal, seal_unpacked, tar};
use stacker::unpack::{Whiteouts, unpack};
use stacker::worker::message::{Failure, Sealed};
use support::mapped::root;

const NEWEST: i64 = 1_000_000_000;
const LAYER: i64 = NEWEST + 2;

/// Layers in directories, each sealed over those beneath.
struct Image {
    space: tempfile::TempDir,
    listings: Vec<Vec<u8>>,
}

/// An upper directory to put changes into.
struct Upper<'a> {
    image: &'a Image,
    path: PathBuf,
    made: Time,
}

struct Layer {
    sealed: Sealed,
    listing: Listing,
    text: Vec<u8>,
    path: PathBuf,
}

impl Image {
    fn scratch() -> Image {
        Image { space: tempfile::tempdir().unwrap(), listings: Vec::new() }
    }

    /// One layer whose files are all older than the next one: `d/a`, `d/b`, `d/c` (7 bytes), `x/y/z`, more in `deep`,
    /// `l` -> `d/a`, and `h1`, `h2`, two names of one file.
    fn base() -> Image {
        let mut image = Image::scratch();
        let upper = image.upper();
        for name in ["d/a", "d/b", "d/c", "x/y/z", "h1", "deep/er/gone/file", "deep/er/still"] {
            upper.write(name, "content");
        }
        fs::hard_link(upper.at("h1"), upper.at("h2")).unwrap();
        symlink("d/a", upper.at("l")).unwrap();
        fs::create_dir(upper.at("empty")).unwrap();
        let layer = upper.seal_with(Times::All(NEWEST)).unwrap();
        image.listings.push(layer.text);
        image
    }

    fn stack(&self) -> Stack {
        Stack::new(self.listings.iter().map(|text| Listing::from_bytes(text.clone()).unwrap()).collect())
    }

    fn upper(&self) -> Upper<'_> {
        let path = tempfile::Builder::new().tempdir_in(self.space.path()).unwrap().keep();
        dress_root(&path, self.stack().lookup(b"").unwrap().as_ref(), Ids::Full).unwrap();
        let now = jiff::Timestamp::now();
        let made = Time { seconds: now.as_second() - 1, nanos: 0 };
        Upper { image: self, path, made }
    }
}

impl Upper<'_> {
    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Copies up directories that the image has, as overlayfs does, and makes the others.
    fn directory(&self, name: &str) {
        if name.is_empty() || self.at(name).exists() {
            return;
        }
        self.directory(name.rsplit_once('/').map_or("", |(parent, _)| parent));
        fs::create_dir(self.at(name)).unwrap();
        if let Some(entry) = self.image.stack().lookup(name.as_bytes()).unwrap() {
            fs::set_permissions(self.at(name), fs::Permissions::from_mode(entry.mode)).unwrap();
            self.touch(name, entry.mtime);
        }
    }

    fn parent(&self, name: &str) {
        self.directory(name.rsplit_once('/').map_or("", |(parent, _)| parent));
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        self.parent(name);
        fs::write(self.at(name), text).unwrap();
    }

    fn touch(&self, name: &str, time: Time) {
        let time = rustix::fs::Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, self.at(name), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    /// As copied up and not altered.
    fn copied_up(&self, name: &str) {
        self.write(name, "content");
        self.touch(name, Time::from_seconds(NEWEST));
        for directory in Path::new(name).ancestors().skip(1) {
            self.touch(&format!("./{}", directory.display()), Time::from_seconds(NEWEST));
        }
    }

    fn whiteout(&self, name: &str) {
        self.parent(name);
        mknodat(CWD, self.at(name), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    fn xattr(&self, name: &str, attribute: &str, value: &[u8]) {
        lsetxattr(self.at(name), attribute, value, XattrFlags::empty()).unwrap();
    }

    fn opaque(&self, name: &str) {
        self.directory(name);
        self.xattr(name, "user.overlay.opaque", b"y");
    }

    fn seal_with(&self, times: Times) -> Result<Layer, Failure> {
        seal_directory(&self.path, |listing| {
            seal(&self.path, &self.image.stack(), Form::Changes(Marks::Overlayfs), times, Ids::Full, listing)
        })
    }

    fn try_seal(&self) -> Result<Layer, Failure> {
        self.seal_with(Times::Clamp { newest: NEWEST, time: LAYER, upper_made: self.made })
    }

    /// Seals, and checks what holds of every layer.
    fn seal(&self) -> Layer {
        let layer = self.try_seal().unwrap_or_else(|failure| panic!("{failure:?}"));
        let again = self.try_seal().unwrap();
        assert_eq!(again.text, layer.text, "sealing again changed something");
        assert_eq!(again.sealed.diff_id, layer.sealed.diff_id);
        layer.comes_back();
        layer
    }
}

fn seal_directory(path: &Path, act: impl FnOnce(&mut fs::File) -> Result<Sealed, Failure>) -> Result<Layer, Failure> {
    let mut file = tempfile::tempfile().unwrap();
    let sealed = act(&mut file)?;
    let listing = Listing::from_file(file).unwrap();
    Ok(Layer { sealed, text: listing.bytes().to_vec(), listing, path: path.to_path_buf() })
}

impl Layer {
    fn tar(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = tar::write(&self.listing, &self.path, &mut bytes).unwrap();
        assert_eq!(length, bytes.len() as u64);
        bytes
    }

    /// The layer tar unpacked elsewhere and listed is the same layer.
    fn comes_back(&self) {
        if self.sealed.diff_id.is_none() {
            return;
        }
        use sha2::Digest;
        let tar = self.tar();
        assert_eq!(self.sealed.diff_id, Some(DiffId(sha2::Sha256::digest(&tar).into())));
        let other = tempfile::tempdir().unwrap();
        assert_eq!(unpack(&tar[..], other.path(), Whiteouts::Oci(Marks::Overlayfs)).unwrap(), [""; 0]);
        let back = seal_directory(other.path(), |listing| {
            seal_unpacked(other.path(), None, Marks::Overlayfs, Owners::OnDisk, listing)
        })
        .unwrap();
        assert_eq!(String::from_utf8_lossy(&back.text), String::from_utf8_lossy(&self.text));
        assert_eq!(back.sealed.diff_id, self.sealed.diff_id);
    }

    /// `TYPE path` of each entry: d, D (opaque), f, l, h (hard link), p, w (whiteout).
    fn names(&self) -> Vec<String> {
        let line = |entry: stacker::listing::Entry| {
            let kind = match &entry.kind {
                Kind::Directory { opaque: false } => "d".to_owned(),
                Kind::Directory { opaque: true } => "D".to_owned(),
                Kind::File { .. } => "f".to_owned(),
                Kind::Symlink { .. } => "l".to_owned(),
                Kind::HardLink { to } => format!("h={}", to.escape_ascii()),
                Kind::Fifo => "p".to_owned(),
                Kind::Whiteout => "w".to_owned(),
            };
            format!("{kind} {}", entry.path.escape_ascii())
        };
        self.listing.entries().map(|entry| line(entry.unwrap())).collect()
    }

    fn entry(&self, path: &str) -> stacker::listing::Entry {
        self.listing.find(path.as_bytes()).unwrap().entry.unwrap_or_else(|| panic!("no {path} in {:?}", self.names()))
    }
}

fn refused(upper: &Upper, why: &str) {
    let failure = upper.try_seal().err().unwrap_or_else(|| panic!("sealed, though: {why}"));
    let text = format!("{}: {}", failure.step, failure.message);
    assert!(failure.users && text.contains(why), "{text:?} does not say {why:?}, or blames the machine");
}

#[test]
fn no_change_is_no_layer() {
    if !root("no_change_is_no_layer") {
        return;
    }
    let (scratch, base) = (Image::scratch(), Image::base());
    for image in [&scratch, &base] {
        let layer = image.upper().seal();
        assert_eq!((layer.sealed.diff_id, layer.sealed.entries), (None, 0), "{:?}", layer.names());
    }
    let upper = base.upper();
    upper.copied_up("d/a");
    upper.copied_up("h2");
    upper.directory("empty");
    upper.whiteout("never-was");
    upper.touch(".", Time::from_seconds(NEWEST));
    let layer = upper.seal();
    assert_eq!((layer.sealed.diff_id, layer.names()), (None, vec![]));
    // What is no change leaves the delta too.
    assert_eq!(fs::read_dir(&upper.path).unwrap().count(), 0);
}

#[test]
fn deletes_and_opaque_directories() {
    if !root("deletes_and_opaque_directories") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    upper.whiteout("d/a");
    upper.opaque("x");
    upper.write("x/new", "new");
    upper.opaque("fresh");
    let layer = upper.seal();
    // Said in one way, however it was done: what is gone is named.
    assert_eq!(layer.names(), ["d ", "d d", "w d/a", "d fresh", "d x", "w x/y", "f x/new"]);
    let names: Vec<_> = members(&layer.tar());
    assert_eq!(names, ["./", "d/", "d/.wh.a", "fresh/", "x/", "x/.wh.y", "x/new"]);
    let merged = Stack::new(vec![Listing::from_bytes(image.listings[0].clone()).unwrap(), layer.listing]);
    assert!(merged.lookup(b"d/a").unwrap().is_none() && merged.lookup(b"x/y").unwrap().is_none());
    assert!(merged.lookup(b"d/b").unwrap().is_some() && merged.lookup(b"x/new").unwrap().is_some());
}

#[test]
fn files_and_directories_swap() {
    if !root("files_and_directories_swap") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    upper.write("d", "now a file");
    // overlayfs marks a directory that replaces a file; what hides nothing needs no mark.
    upper.write("h1/inner", "now a directory");
    upper.xattr("h1", "user.overlay.opaque", b"y");
    symlink("elsewhere", upper.at("x")).unwrap();
    let layer = upper.seal();
    assert_eq!(layer.names(), ["d ", "f d", "d h1", "f h1/inner", "l x"]);
}

#[test]
fn a_copied_up_file_that_was_not_altered_is_skipped() {
    if !root("a_copied_up_file_that_was_not_altered_is_skipped") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    for name in ["d/a", "x/y/z", "h1"] {
        upper.copied_up(name);
    }
    upper.copied_up("d/b");
    fs::set_permissions(upper.at("d/b"), fs::Permissions::from_mode(0o600)).unwrap();
    let layer = upper.seal();
    assert_eq!(layer.names(), ["d ", "d d", "f d/b"]);
    assert_eq!(layer.entry("d/b").mode, 0o600);
    assert!(!upper.at("d/a").exists() && !upper.at("x").exists(), "it is still in the delta");
}

#[test]
fn hard_links_of_the_change_stay_together() {
    if !root("hard_links_of_the_change_stay_together") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    upper.write("z", "three names");
    fs::hard_link(upper.at("z"), upper.at("m")).unwrap();
    upper.directory("d");
    fs::hard_link(upper.at("z"), upper.at("d/n")).unwrap();
    // `ln d/a second`: the copy that was made of the base's file gets both names, so both are listed.
    upper.copied_up("d/a");
    fs::hard_link(upper.at("d/a"), upper.at("second")).unwrap();
    let layer = upper.seal();
    assert_eq!(layer.names(), ["d ", "d d", "f d/a", "f d/n", "h=d/n m", "h=d/a second", "h=d/n z"]);
}

#[test]
fn sockets_fifos_and_devices() {
    if !root("sockets_fifos_and_devices") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    upper.directory("run");
    let _socket = std::os::unix::net::UnixListener::bind(upper.at("run/server")).unwrap();
    mknodat(CWD, upper.at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
    let layer = upper.try_seal().unwrap();
    assert_eq!(layer.sealed.warnings, ["/run/server is a socket: left out"]);
    assert_eq!(layer.names(), ["d ", "p pipe", "d run"]);
    assert!(!upper.at("run/server").exists());
    layer.comes_back();
    let upper = image.upper();
    // Only root of the machine can make one.
    if mknodat(CWD, upper.at("null"), FileType::CharacterDevice, Mode::empty(), rustix::fs::makedev(1, 3)).is_ok() {
        refused(&upper, "/null: is a device node");
    }
}

#[test]
fn names_of_any_bytes() {
    if !root("names_of_any_bytes") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    let long = "n".repeat(255);
    let names: [&[u8]; 8] = [b"a b", b"a\nb", b"\xff\xfe", "\u{e9}".as_bytes(), b"a=b", b"\\", b"-", long.as_bytes()];
    for name in names {
        let name = std::ffi::OsStr::from_bytes(name);
        fs::write(upper.at(name), name.as_bytes()).unwrap();
        fs::create_dir_all(upper.at("deep").join(name).join(name)).unwrap();
        symlink(name, upper.at("deep").join(name).join("link")).unwrap();
        fs::hard_link(upper.at(name), upper.at("deep").join(name).join("hard")).unwrap();
    }
    let layer = upper.seal();
    assert_eq!(layer.sealed.entries, 2 + 5 * names.len() as u64);
}

#[test]
fn names_that_mean_a_removed_file_are_refused() {
    if !root("names_that_mean_a_removed_file_are_refused") {
        return;
    }
    let image = Image::base();
    for name in [".wh.x", "d/.wh..wh..opq", "deep/.wh.directory/f"] {
        let upper = image.upper();
        upper.write(name, "");
        refused(&upper, ".wh.");
    }
}

#[test]
fn sparse_files_are_listed_whole() {
    if !root("sparse_files_are_listed_whole") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    let file = fs::File::create(upper.at("sparse")).unwrap();
    file.write_all_at(b"data", 5_000_000).unwrap();
    file.set_len(8_000_001).unwrap();
    let layer = upper.seal();
    assert!(matches!(layer.entry("sparse").kind, Kind::File { size: 8_000_001, .. }));
    assert_eq!(layer.sealed.bytes, 8_000_001);
}

/// Keeps the first bytes of what is written and refuses the others.
struct Head(Vec<u8>);

impl std::io::Write for Head {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() > 1 << 20 {
            return Err(std::io::Error::other("this was enough"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_size_that_no_header_holds_is_in_a_record() {
    let directory = tempfile::tempdir().unwrap();
    let first_too_large = 8 << 30;
    for (size, expected) in [(first_too_large - 1, vec![]), (first_too_large, vec!["size=8589934592"])] {
        fs::File::create(directory.path().join("f")).unwrap().set_len(size).unwrap();
        let content = stacker::digest::ContentDigest([0; 32]);
        let (kind, mtime) = (Kind::File { size, content }, Time::from_seconds(LAYER));
        let path = b"f".to_vec();
        let entry = stacker::listing::Entry { path, kind, mode: 0o644, uid: 0, gid: 0, mtime, xattrs: [].into() };
        let mut listing = Vec::new();
        stacker::listing::write([&entry].into_iter(), &mut listing).unwrap();
        let mut head = Head(Vec::new());
        let error = tar::write(&Listing::from_bytes(listing).unwrap(), directory.path(), &mut head).unwrap_err();
        assert!(format!("{error:?}").contains("this was enough"), "{error}");
        let mut archive = ::tar::Archive::new(&head.0[..]);
        let mut member = archive.entries().unwrap().next().unwrap().unwrap();
        let records = member.pax_extensions().unwrap().into_iter().flatten().map(Result::unwrap);
        let records = records.map(|record| format!("{}={}", record.key().unwrap(), record.value().unwrap()));
        assert_eq!(records.collect::<Vec<_>>(), expected);
        assert_eq!(member.size(), size);
    }
}

#[test]
fn times_later_than_the_base_become_the_layers_time() {
    if !root("times_later_than_the_base_become_the_layers_time") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    let later = Time { seconds: NEWEST, nanos: 1 };
    let cases =
        [("now", None, LAYER), ("later", Some(later), LAYER), ("far", Some(Time::from_seconds(1 << 33)), LAYER)];
    let old = [("equal", Some(Time::from_seconds(NEWEST)), NEWEST), ("old", Some(Time::from_seconds(5)), 5)];
    for (name, time, _) in cases.iter().chain(&old) {
        upper.write(name, "x");
        time.iter().for_each(|time| upper.touch(name, *time));
    }
    let before_1970 = Time { seconds: -2, nanos: 500_000_000 };
    upper.write("ancient", "x");
    upper.touch("ancient", before_1970);
    symlink("x", upper.at("link")).unwrap();
    upper.whiteout("l");
    let layer = upper.seal();
    for (name, _, time) in cases.iter().chain(&old).chain(&[("link", None, LAYER), ("", None, LAYER)]) {
        assert_eq!(layer.entry(name).mtime, Time::from_seconds(*time), "{name}");
        assert_eq!(stat(upper.at(name)).unwrap().mtime(), *time, "{name} in the delta");
    }
    assert_eq!(layer.entry("ancient").mtime, before_1970);
    assert_eq!(layer.sealed.newest, Time::from_seconds(LAYER));
    // Where the layer's time is ahead of the clock, what the run wrote still is later than the base.
    let ahead = Time::from_seconds(1 << 33);
    let upper = image.upper();
    upper.write("f", "x");
    let times = Times::Clamp { newest: ahead.seconds, time: ahead.seconds + 2, upper_made: upper.made };
    assert_eq!(upper.seal_with(times).unwrap().entry("f").mtime.seconds, ahead.seconds + 2);
}

#[test]
fn attributes_stay_and_overlayfs_marks_go() {
    if !root("attributes_stay_and_overlayfs_marks_go") {
        return;
    }
    let image = Image::base();
    let upper = image.upper();
    upper.write("bin/ping", "elf");
    fs::set_permissions(upper.at("bin/ping"), fs::Permissions::from_mode(0o4755)).unwrap();
    upper.xattr("bin/ping", "user.note", b"line\nline\0=");
    upper.xattr("bin/ping", "user.overlay.origin", b"x");
    upper.xattr("bin", "user.overlay.impure", b"y");
    upper.xattr("bin", "user.overlay.opaque", b"x");
    upper.xattr("bin", "user.note", b"");
    let acl = [2, 0, 0, 0].into_iter().chain(acl_entries()).collect::<Vec<u8>>();
    upper.xattr("bin", "system.posix_acl_default", &acl);
    let layer = upper.seal();
    let ping = layer.entry("bin/ping");
    assert_eq!((ping.mode, ping.xattrs.len()), (0o4755, 1));
    assert_eq!(ping.xattrs[&b"user.note"[..]], b"line\nline\0=");
    let names: Vec<_> = layer.entry("bin").xattrs.into_keys().map(|name| String::from_utf8(name).unwrap()).collect();
    assert_eq!(names, ["system.posix_acl_default", "user.note"]);
    let mut left = vec![0; 1024];
    let length = rustix::fs::llistxattr(upper.at("bin"), &mut left).unwrap();
    assert!(!String::from_utf8_lossy(&left[..length]).contains("overlay"));
    let upper = image.upper();
    upper.write("f", "x");
    upper.xattr("f", "user.a=b", b"x");
    refused(&upper, "`=`");
}

/// u::rwx, u:7:r-x, g::r-x, m::r-x, o::r-x
fn acl_entries() -> Vec<u8> {
    let entry =
        |tag: u16, rights: u16, id: u32| [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat();
    [entry(1, 7, !0), entry(2, 5, 7), entry(4, 5, !0), entry(16, 5, !0), entry(32, 5, !0)].concat()
}

#[test]
fn an_upper_made_under_umask_077_does_not_close_the_root() {
    if !root("an_upper_made_under_umask_077_does_not_close_the_root") {
        return;
    }
    // Temporary directories are 0700.
    let image = Image::base();
    let upper = image.upper();
    upper.write("f", "x");
    assert_eq!(upper.seal().entry("").mode, 0o755);
}

#[test]
fn equal_changes_are_equal_layers_wherever_and_whenever() {
    if !root("equal_changes_are_equal_layers_wherever_and_whenever") {
        return;
    }
    let images = [Image::base(), Image::base()];
    let mut digests = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let upper = image.upper();
        let mut names: Vec<String> = (0..50).map(|name| format!("many/{}/{name}", name % 7)).collect();
        if index == 1 {
            names.reverse();
        }
        names.iter().for_each(|name| upper.write(name, name));
        digests.push(upper.seal().sealed.diff_id.unwrap());
    }
    assert_eq!(digests[0], digests[1]);
    assert_eq!(images[0].listings, images[1].listings);
}

/// Member names as the tar crate reads them.
fn members(bytes: &[u8]) -> Vec<String> {
    let mut archive = ::tar::Archive::new(bytes);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap()).collect()
}

/// What the base holds, changed in ways that leave marks of all kinds.
const SCRIPT: &str = "set -e; rm d/a; rm -r x; mkdir x; echo n > x/n; rm -r empty; echo f > empty; touch d/b d/c
    ln h1 h3; mv d/b moved; chmod 700 d; : >> h2; mkdir -p new/deep; cat l 2>/dev/null || ln -sf h1 l; mkfifo p
    mkdir -p again; rm -r again; cp -a deep kept; rm -r deep; mv kept deep; rm -r deep/er/gone";

/// The same through a real mount: what the kernel leaves in an upper is a change that, applied again, shows the same.
#[test]
fn what_overlayfs_leaves_is_understood() {
    if !root("what_overlayfs_leaves_is_understood") {
        return;
    }
    let mut image = Image::base();
    let lower = tempfile::tempdir_in(image.space.path()).unwrap();
    {
        let base = Listing::from_bytes(image.listings[0].clone()).unwrap();
        let first = fs::read_dir(image.space.path()).unwrap().map(|entry| entry.unwrap().path());
        let first = first.into_iter().find(|path| path.join("h1").exists()).unwrap();
        let mut bytes = Vec::new();
        tar::write(&base, &first, &mut bytes).unwrap();
        unpack(&bytes[..], lower.path(), Whiteouts::Oci(Marks::Overlayfs)).unwrap();
    }
    let upper = image.upper();
    let work = tempfile::tempdir_in(image.space.path()).unwrap();
    let mount = format!(
        "mkdir m && mount -t overlay none -o userxattr,lowerdir={},upperdir={},workdir={} m && (cd m; {SCRIPT}) && umount m",
        lower.path().display(),
        upper.path.display(),
        work.path().display()
    );
    let space = tempfile::tempdir_in(image.space.path()).unwrap();
    let run = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        let output = command.args(["-m", "sh", "-c", script]).current_dir(space.path()).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&mount);
    // Where a file of the base was, and where nothing was.
    let leave_sockets = |root: &Path| {
        fs::remove_file(root.join("d/c")).unwrap();
        for name in ["d/c", "x/socket"] {
            std::os::unix::net::UnixListener::bind(root.join(name)).unwrap();
        }
    };
    leave_sockets(&upper.path);
    let layer = upper.seal();
    let names = layer.names();
    for name in ["w d/a", "d x", "w x/y", "f x/n", "f empty", "w d/b", "f moved", "p p", "d new/deep", "d d"] {
        assert!(names.iter().any(|have| have == name), "no {name:?} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.ends_with(" h2")), "opened and not altered: {names:?}");
    assert!(!names.iter().any(|name| name.ends_with("still")), "came back as it was: {names:?}");
    assert!(names.contains(&"h=h1 h3".to_owned()), "{names:?}");
    // The same script in a copy comes to the same layer, however what is gone will be marked.
    for marks in [Marks::Overlayfs, Marks::Sockets] {
        let copy = tempfile::tempdir_in(image.space.path()).unwrap();
        stacker::store::copy(lower.path(), copy.path()).unwrap();
        run(&format!("(cd {}; {SCRIPT})", copy.path().display()));
        leave_sockets(copy.path());
        let times = Times::Clamp { newest: NEWEST, time: LAYER, upper_made: upper.made };
        let sealed = seal_directory(copy.path(), |listing| {
            seal(copy.path(), &image.stack(), Form::Whole(marks), times, Ids::Full, listing)
        });
        let sealed = sealed.unwrap();
        assert_eq!(sealed.names(), names);
        assert_eq!(sealed.text, layer.text);
        assert_eq!(sealed.tar(), layer.tar());
        // What is left of the copy is the change alone, which can be listed as it lies.
        let again =
            seal_directory(copy.path(), |listing| seal_unpacked(copy.path(), None, marks, Owners::OnDisk, listing));
        assert_eq!(again.unwrap().text, layer.text);
    }
    // The delta, mounted again, shows what its listing says.
    let again = format!(
        "mkdir n && mount -t overlay none -o userxattr,lowerdir={}:{} n && cd n && find . -printf '%P\\0'",
        upper.path.display(),
        lower.path().display()
    );
    let mut shown: Vec<Vec<u8>> = run(&again).split_terminator('\0').map(|name| name.as_bytes().to_vec()).collect();
    image.listings.push(layer.text.clone());
    let mut listed: Vec<_> = image.stack().subtree(b"").unwrap().into_iter().map(|entry| entry.path).collect();
    shown.sort();
    listed.sort();
    assert_eq!(shown, listed);
}
