//! The listing that is made of a layer's tar alone is the one that unpacking it gives, byte for byte: for any archives,
//! one upon the other, whoever unpacks them and however what they remove is marked.
//!
//! STACKER_TEST_STACKS says how many stacks of layers are tried (default: 40), STACKER_TEST_SEED with which the first.

mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use stacker::action::Ids;
use stacker::digest::DiffId;
use stacker::listing::{Kind, Listing, Stack};
use stacker::seal::{Marks, Owners, Recorded, seal_unpacked};
use stacker::unpack::{Whiteouts, list_onto, unpack_onto};
use stacker::worker::message::{Failure, Sealed};
use support::archive::{Archive, Member};
use support::mapped::root;

const MOST: u64 = 1 << 20;
/// Set inside of a namespace with one id.
const SINGLE: &str = "STACKER_TEST_SINGLE";

/// What a layer came to: all that is told of it, and its listing.
type Outcome = Result<(Sealed, Vec<u8>), Failure>;

/// Where layers are unpacked, and beside it what is tried for those that are not.
struct Place {
    space: tempfile::TempDir,
    ids: Ids,
}

impl Place {
    fn new(ids: Ids) -> Place {
        Place { space: tempfile::tempdir().unwrap(), ids }
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.space.path().join(name);
        if path.exists() {
            fs::remove_dir_all(&path).unwrap();
        }
        fs::create_dir(&path).unwrap();
        path
    }

    fn listing(&self) -> File {
        tempfile::tempfile_in(self.space.path()).unwrap()
    }

    fn unpacked(&self, tar: &[u8], stack: &Stack, marks: Marks) -> Outcome {
        let (directory, mut listing) = (self.directory("u"), self.listing());
        let mut recorded = Recorded::new();
        let owners = (self.ids == Ids::Single).then_some(&mut recorded);
        let warnings = unpack_onto(tar, &directory, Whiteouts::Oci(marks), stack, MOST, owners)?;
        let owners = if self.ids == Ids::Single { Owners::Recorded(&recorded) } else { Owners::OnDisk };
        let mut sealed = seal_unpacked(&directory, Some(diff_id()), marks, owners, &mut listing)?;
        sealed.warnings.splice(0..0, warnings);
        Ok((sealed, text(listing)))
    }

    fn listed(&self, tar: &[u8], stack: &Stack) -> Outcome {
        let (trial, mut listing) = (self.directory("trial"), self.listing());
        let sealed = list_onto(tar, &trial, stack, MOST, self.ids)?.seal(diff_id(), &mut listing)?;
        Ok((sealed, text(listing)))
    }

    /// Both ways come to the same, which is the answer.
    #[track_caller]
    fn same(&self, what: &str, tar: &[u8], beneath: &[Vec<u8>]) -> Outcome {
        let listed = self.listed(tar, &stack(beneath));
        for marks in [Marks::Overlayfs, Marks::Sockets] {
            let unpacked = self.unpacked(tar, &stack(beneath), marks);
            if show(&listed) != show(&unpacked) {
                fs::write("/tmp/stacker-test-list-layers.tar", tar).unwrap();
                panic!("{what}, {marks:?}:\n--- unpacked\n{}\n--- listed\n{}", show(&unpacked), show(&listed));
            }
        }
        listed
    }
}

fn diff_id() -> DiffId {
    DiffId([7; 32])
}

fn stack(listings: &[Vec<u8>]) -> Stack {
    Stack::new(listings.iter().map(|text| Listing::from_bytes(text.clone()).unwrap()).collect())
}

fn text(listing: File) -> Vec<u8> {
    Listing::from_file(listing).unwrap().bytes().to_vec()
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Ok((sealed, text)) => format!("{sealed:?}\n{}", String::from_utf8_lossy(text)),
        Err(failure) => format!("{failure:?}"),
    }
}

/// Choices, and the names that members of the archive have so far.
struct Random {
    state: u64,
    members: Vec<Vec<u8>>,
}

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % end
    }

    fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn name(&mut self) -> Vec<u8> {
        match self.below(400) {
            0 => b"..".to_vec(),
            1 => b"n".repeat(256),
            2..8 => b"n".repeat(255),
            8..12 => b".wh.a".to_vec(),
            12..14 => b".wh..wh..opq".to_vec(),
            14..16 => b".wh..wh.plnk".to_vec(),
            16..24 => b"\xff %\n".to_vec(),
            24..30 => b".".to_vec(),
            30..36 => b"".to_vec(),
            _ => self.of(&[&b"a"[..], b"b", b"c", b"d", b"usr", b"bin", b"l", b"l2", b"a!"]).to_vec(),
        }
    }

    /// The name of an earlier member, or one below it.
    fn known(&mut self) -> Option<Vec<u8>> {
        let index = self.below(self.members.len().max(1));
        let known = self.members.get(index)?.clone();
        if self.one_in(5) { Some([&known[..], b"/", &self.name()].concat()) } else { Some(known) }
    }

    fn path(&mut self) -> Vec<u8> {
        let depth = self.of(&[1, 1, 1, 2, 2, 2, 3, 3, 4]);
        let names: Vec<Vec<u8>> = (0..depth).map(|_| self.name()).collect();
        let start = self.of(&["", "", "", "./", "/", ".//"]);
        [start.as_bytes(), &names.join(&b'/')].concat()
    }

    fn target(&mut self) -> Vec<u8> {
        let odd = ["/", "..", ".", "../..", "nowhere", "a//b/", "d/../d", "/usr/./bin/", "../l", "a/."];
        if self.one_in(3) {
            return self.of(&odd).as_bytes().to_vec();
        }
        let start = self.of(&["", "/", "../", ""]);
        let path = self.known().filter(|_| self.one_in(2));
        [start.as_bytes(), &path.unwrap_or_else(|| self.path())].concat()
    }

    fn id(&mut self) -> u64 {
        if self.one_in(600) { 70_000 } else { self.of(&[0, 0, 0, 7, 1000, 65_535]) }
    }

    /// Records for the next member.
    fn records(&mut self, archive: Archive) -> Archive {
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let version_3 = [&[1, 0, 0, 3][..], &capability[4..], &[0, 0, 0, 0]].concat();
        let (small, large) = (acl(7, 5), acl(70_000, 5));
        let plain = [&[2, 0, 0, 0][..], &acl_entry(1, 7, !0), &acl_entry(4, 5, !0), &acl_entry(32, 4, !0)].concat();
        let long = b"x".repeat(300);
        let records: [(&str, &[u8]); 20] = [
            ("SCHILY.xattr.user.note", b"1"),
            ("SCHILY.xattr.user.note", b""),
            ("SCHILY.xattr.user.long", &long),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.whiteout", b"y"),
            ("SCHILY.xattr.trusted.x", b"y"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.security.capability", &version_3),
            ("SCHILY.xattr.system.posix_acl_access", &small),
            ("SCHILY.xattr.system.posix_acl_access", &plain),
            ("SCHILY.xattr.system.posix_acl_access", &large),
            ("SCHILY.xattr.system.posix_acl_default", &small),
            ("SCHILY.xattr.system.posix_acl_default", &plain),
            ("mtime", b"12.000000005"),
            ("mtime", b"-1.5"),
            ("mtime", b"15032385535.5"),
            ("uid", b"1000"),
            ("gid", b"65535"),
            ("SCHILY.xattr.user.a=b", b"="),
        ];
        let one = self.of(&records);
        if self.one_in(3) { archive.pax(&[one, self.of(&records)]) } else { archive.pax(&[one]) }
    }

    fn sparse(&mut self, archive: Archive) -> Archive {
        let name = self.path();
        let map = self.of(&["0,1", "100,1", "4096,1,9000,0", "9999,1", "0,0,5000,1"]);
        let records = [("GNU.sparse.size", &b"10000"[..]), ("GNU.sparse.map", map.as_bytes()), ("path", &name)];
        archive.pax(&records).file("sparse", "x")
    }

    fn member(&mut self, mut archive: Archive) -> Archive {
        if self.one_in(30) {
            return self.sparse(archive);
        }
        if self.one_in(5) {
            archive = self.records(archive);
        }
        let kind = self.of(b"0000000555555222221111667S34Z0000000555555222221111660000000555555222");
        let kind = if matches!(kind, b'Z' | b'S') && !self.one_in(10) { b'0' } else { kind };
        let mut name = if self.one_in(5) { self.known() } else { None }.unwrap_or_else(|| self.path());
        if self.one_in(8) {
            let removed = self.name();
            let end = self.of(&[&b".wh..wh..opq"[..], b".wh.", b".wh.", b".wh."]);
            name = [&name[..], b"/", end].concat();
            if end == b".wh." {
                name.extend(removed);
            }
        } else if self.one_in(60) {
            name = b"./".to_vec();
        }
        let link = match kind {
            b'1' if !self.one_in(8) => self.known().unwrap_or_else(|| self.path()),
            _ => self.target(),
        };
        self.members.push(name.clone());
        let body = vec![b'x'; self.of(&[0, 1, 5, 511, 512, 3000])];
        archive = archive.pax(&[("path", &name), ("linkpath", &link)]);
        archive.member(Member {
            kind,
            name: b"cut",
            link: b"cut",
            mode: self.of(&[0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o7000, 0]),
            uid: self.id(),
            gid: self.id(),
            mtime: self.of(&[0, 5, 1000, 1_700_000_000]),
            body: if matches!(kind, b'0' | b'7') { &body } else { b"" },
            size: None,
        })
    }

    fn archive(&mut self) -> Vec<u8> {
        let members = self.of(&[1, 3, 6, 10, 15]);
        self.members.clear();
        let archive = (0..members).fold(Archive::new(), |archive, _| self.member(archive));
        let mut tar = archive.end();
        if self.one_in(60) {
            tar.truncate(tar.len() * self.below(100) / 100);
        }
        tar
    }
}

fn acl_entry(tag: u16, rights: u16, id: u32) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
}

/// u::rwx, u:ID:RIGHTS, g::r-x, m::r-x, o::r-x, with ids that mean nothing where there are none.
fn acl(id: u32, rights: u16) -> Vec<u8> {
    let entries =
        [acl_entry(1, 7, 9), acl_entry(2, rights, id), acl_entry(4, 5, !0), acl_entry(16, 5, !0), acl_entry(32, 5, !0)];
    [&[2, 0, 0, 0][..], &entries.concat()].concat()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Stacks of random archives.
fn stacks(ids: Ids) {
    let (first, count) = (number("STACKER_TEST_SEED", 1), number("STACKER_TEST_STACKS", 40));
    let (place, mut layers, mut failures) = (Place::new(ids), 0, 0);
    let mut kinds = [0; 6];
    for seed in first..first + count {
        let mut random = Random { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), members: Vec::new() };
        let mut beneath: Vec<Vec<u8>> = Vec::new();
        for layer in 0..3 {
            // Most archives of any size have something wrong with them.
            for attempt in 0..6 {
                let outcome =
                    place.same(&format!("seed {seed}, layer {layer}, attempt {attempt}"), &random.archive(), &beneath);
                match outcome {
                    Ok((_, text)) => {
                        layers += 1;
                        count_kinds(&text, &mut kinds);
                        beneath.push(text);
                        break;
                    }
                    Err(failure) => {
                        assert!(failure.users || failure.errno == Some(13), "blames the machine: {failure:?}");
                        failures += 1;
                    }
                }
            }
        }
    }
    eprintln!("{layers} layers, {failures} failures, {kinds:?} of each kind");
    assert!(layers as u64 > count && failures as u64 > count / 2, "{layers} layers, {failures} failures");
    assert!(kinds.iter().all(|kind| *kind > count / 20), "{kinds:?}");
}

fn count_kinds(text: &[u8], kinds: &mut [u64; 6]) {
    for entry in Listing::from_bytes(text.to_vec()).unwrap().entries() {
        let kind = match entry.unwrap().kind {
            Kind::File { .. } => 0,
            Kind::Directory { opaque: true } => 1,
            Kind::Symlink { .. } => 2,
            Kind::HardLink { .. } => 3,
            Kind::Fifo => 4,
            Kind::Whiteout => 5,
            Kind::Directory { .. } => continue,
        };
        kinds[kind] += 1;
    }
}

#[test]
fn any_stack_of_layers_is_listed_as_it_is_unpacked() {
    if root("any_stack_of_layers_is_listed_as_it_is_unpacked") {
        stacks(Ids::Full);
    }
}

/// A layer's listing, both ways.
#[track_caller]
fn listing(place: &Place, archive: Archive) -> String {
    let (_, text) = place.same("the layer", &archive.end(), &[]).unwrap_or_else(|failure| panic!("{failure:?}"));
    String::from_utf8(text).unwrap()
}

#[test]
fn as_many_links_are_followed_as_the_kernel_follows() {
    if !root("as_many_links_are_followed_as_the_kernel_follows") {
        return;
    }
    let place = Place::new(Ids::Full);
    let chain = |links: usize| {
        let link = |archive: Archive, number: usize| {
            let target = if number == 0 { "usr".to_owned() } else { format!("l{}", number - 1) };
            archive.symlink(&format!("l{number}"), &target)
        };
        let archive = (0..links).fold(Archive::new().directory("usr/"), link);
        archive.file(format!("l{}/file", links - 1), "x").end()
    };
    let (_, text) = place.same("40 links", &chain(40), &[]).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("\nusr/file f "));
    let failure = place.same("41 links", &chain(41), &[]).unwrap_err();
    assert!(failure.users && failure.message.contains("Too many levels"), "{failure:?}");
}

#[test]
fn no_path_is_longer_than_any_path() {
    if !root("no_path_is_longer_than_any_path") {
        return;
    }
    let place = Place::new(Ids::Full);
    let directories = |count: usize| format!("{}/", "d".repeat(199)).repeat(count);
    let deep = |count: usize| {
        let archive = Archive::new().pax(&[("path", format!("{}f", directories(count)).as_bytes())]).file("cut", "x");
        archive.pax(&[("linkpath", directories(count).as_bytes())]).symlink("l", "cut")
    };
    let below = |name: &str, kind: u8, archive: Archive| {
        let member = Member { kind, name: b"cut", link: b"l", ..Member::default() };
        archive.pax(&[("path", format!("l/{name}").as_bytes())]).member(member)
    };
    let text = listing(&place, below(&format!("{}g", directories(9)), b'0', deep(9)));
    assert!(text.contains(&format!("{}g f ", directories(18))), "{text}");
    // Each name is short, and leads to what is long.
    for (name, kind) in
        [("n", b'0'), ("n", b'1'), ("n", b'2'), ("n", b'5'), ("n", b'6'), (".wh.n", b'0'), ("n/x", b'0')]
    {
        let name = name.replace('n', &"n".repeat(251));
        let archive = below(&name, kind, below(&format!("{}g", directories(1)), b'0', deep(19)));
        let archive = below(&format!("{}{name}", directories(1)), kind, archive).end();
        let failure = place.same("too deep", &archive, &[]).unwrap_err();
        assert!(failure.users && failure.message.contains("more than 4095 bytes"), "{name}: {failure:?}");
    }
}

#[test]
fn holes_are_content() {
    if !root("holes_are_content") {
        return;
    }
    let sparse = |map: &'static str, body: &'static [u8]| {
        let records = [("GNU.sparse.size", &b"300000"[..]), ("GNU.sparse.map", map.as_bytes())];
        listing(&Place::new(Ids::Full), Archive::new().pax(&records).file("f", body))
    };
    let mut whole = vec![0; 300_000];
    whole[200_000] = b'x';
    let whole = listing(&Place::new(Ids::Full), Archive::new().file("f", whole));
    assert_eq!(sparse("200000,1", b"x"), whole);
    assert_ne!(sparse("200000,1", b"y"), whole);
    assert_ne!(sparse("200001,1", b"x"), whole);
    let zeros = listing(&Place::new(Ids::Full), Archive::new().file("f", vec![0; 300_000]));
    assert_eq!(sparse("0,0", b""), zeros);
}

#[test]
fn looks_of_directories_come_from_beneath_and_no_name_is_lost() {
    if !root("looks_of_directories_come_from_beneath_and_no_name_is_lost") {
        return;
    }
    let place = Place::new(Ids::Full);
    let looks = |kind, name, mode| Member { kind, name, mode, uid: 7, gid: 8, mtime: 50, ..Member::default() };
    let bottom = Archive::new()
        .pax(&[("SCHILY.xattr.user.note", b"1"), ("SCHILY.xattr.system.posix_acl_default", &acl(7, 5))])
        .member(looks(b'5', b"./", 0o711))
        .member(looks(b'5', b"tmp/", 0o1777))
        .symlink("l", "tmp");
    let (_, bottom) = place.same("the bottom", &bottom.end(), &[]).unwrap();
    let top = Archive::new()
        .directory("real/d/")
        .symlink("l", "real")
        .member(looks(b'5', b"l/d/e/", 0o2755))
        .directory("other/")
        .symlink("l", "other")
        .file("tmp/f", "x");
    let (_, top) = place.same("the top", &top.end(), &[bottom]).unwrap();
    let top = String::from_utf8(top).unwrap();
    // A default ACL of the root is not what is made in it has; and a directory whose link has gone has its time.
    for line in ["% d 711 7 8 50 -", "tmp d 1777 7 8 50 -", "real/d/e d 2755 7 8 50 -", "tmp/f f 644 0 0 1000 1 "] {
        assert!(top.contains(&format!("\n{line}")), "{line} is not in\n{top}");
    }
    assert_eq!(top.matches("posix_acl").count(), 1, "{top}");
}

#[test]
fn nothing_of_the_layer_is_written() {
    if !root("nothing_of_the_layer_is_written") {
        return;
    }
    let trial = tempfile::tempdir().unwrap();
    let archive = Archive::new().pax(&[("SCHILY.xattr.user.note", b"1")]).file("d/noted", "secret").file("f", "x");
    let tar = archive.symlink("out", "..").file("out/../g", "x").end();
    assert!(list_onto(&tar[..], trial.path(), &Stack::default(), MOST, Ids::Full).is_err_and(|failure| failure.users));
    let found: Vec<_> = fs::read_dir(trial.path()).unwrap().map(|entry| entry.unwrap()).collect();
    let empty = found.iter().all(|entry| entry.metadata().is_ok_and(|found| found.is_file() && found.len() == 0));
    assert!(found.len() <= 1 && empty, "{:?}", found.iter().map(|entry| entry.metadata()).collect::<Vec<_>>());
}

/// Runs a test once more where there is one id, which is root.
fn alone(name: &str) -> bool {
    if std::env::var_os(SINGLE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(SINGLE, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "with one id:\n{out}\n{err}");
    eprint!("{err}");
    false
}

#[test]
fn with_one_id_too() {
    if alone("with_one_id_too") {
        stacks(Ids::Single);
    }
}
