//! What the fuzz targets do with any bytes. `tests/fuzz_seeds.rs` includes this file and replays the seeds.
//!
//! A target fails by a panic: in the code under test, or by an assertion here about what must hold for every input.

use std::fs;
use std::path::Path;

use stacker::action::{Ids, Platform};
use stacker::convert::{Request, convert};
use stacker::digest::DiffId;
use stacker::graph::LayerGraph;
use stacker::listing::{Listing, Stack};
use stacker::load::{Options, load, read_substitute_file};
use stacker::oci::Layout;
use stacker::record::Record;
use stacker::resolve::Resolver;
use stacker::seal::Marks;
use stacker::unpack::{Whiteouts, list_onto, unpack_onto};

/// One target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("stackerfile", stackerfile),
    ("dockerfile", dockerfile),
    ("unpack", unpack),
    ("stored", stored),
    ("layout", layout),
];

/// A directory in memory, where there is one.
fn space() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("stacker-fuzz-").tempdir_in(parent).expect("a directory can be made")
}

/// The text of a stackerfile. Whatever is wrong with it is the user's fault.
pub fn stackerfile(bytes: &[u8]) {
    let space = space();
    let file = space.path().join("stacker.yaml");
    fs::write(&file, bytes).expect("a file can be written");
    let options = Options {
        working_dir: space.path().into(),
        substitutes: vec![("GIVEN".into(), "value".into())],
        ..Options::default()
    };
    let loaded = match load(&[file], &options) {
        Ok(loaded) => loaded,
        Err(error) => return assert_eq!(error.exit_code(), 1, "{error}"),
    };
    match LayerGraph::new(&loaded) {
        Ok(graph) => drop(graph.iter().map(|(index, _)| graph.needs(index).len()).sum::<usize>()),
        Err(error) => assert_eq!(error.exit_code(), 1, "{error}"),
    }
}

/// A Dockerfile, and behind a line `---8<---` its `.dockerignore`. The context holds nothing else. What is wrong with
/// them is the user's fault, nothing is written but what was asked for, and that can be read.
pub fn dockerfile(bytes: &[u8]) {
    const CUT: &[u8] = b"\n---8<---\n";
    let cut = bytes.windows(CUT.len()).position(|window| window == CUT);
    let (dockerfile, ignored) = cut.map_or((bytes, None), |at| (&bytes[..at], Some(&bytes[at + CUT.len()..])));
    let space = space();
    let path = |name: &str| space.path().join(name);
    fs::create_dir(path("context")).expect("a directory can be made");
    fs::write(path("Dockerfile"), dockerfile).expect("a file can be written");
    if let Some(ignored) = ignored {
        fs::write(path("context/.dockerignore"), ignored).expect("a file can be written");
    }
    let request = Request {
        dockerfile: path("Dockerfile"),
        context: path("context"),
        output: Some(path("stacker.yaml")),
        substitutes: path("subs.yaml"),
        force: false,
        working_dir: space.path().into(),
        colour: false,
    };
    let converted = convert(&request);
    only(space.path(), &["Dockerfile", "context", "stacker.yaml", "subs.yaml"]);
    only(&path("context"), &[".dockerignore", ".stackerignore"]);
    match converted {
        Ok(_) => can_be_read(space.path()),
        Err(error) => assert_eq!(error.exit_code(), 1, "{error}"),
    }
}

/// Nothing else is in a directory.
fn only(directory: &Path, names: &[&str]) {
    for entry in fs::read_dir(directory).expect("it is there") {
        let name = entry.expect("it is there").file_name();
        assert!(names.iter().any(|known| name == *known), "{name:?} was made");
    }
}

fn can_be_read(directory: &Path) {
    let (file, substitutes) = (directory.join("stacker.yaml"), directory.join("subs.yaml"));
    let mut options = Options { working_dir: directory.into(), ..Options::default() };
    if substitutes.exists() {
        options.substitute_file = read_substitute_file(&substitutes).unwrap_or_else(|error| panic!("{error}"));
    }
    let graph = load(std::slice::from_ref(&file), &options).and_then(|loaded| LayerGraph::new(&loaded));
    let Err(error) = graph else { return };
    let text = fs::read_to_string(&file).expect("it was written");
    let told = error.to_string();
    let errors = told.split("error: ").skip(1);
    let rest: Vec<&str> = errors.filter(|error| !waits_for_a_value(error, &text)).collect();
    assert!(rest.is_empty(), "{}\n--- what was written:\n{text}", rest.join(""));
}

/// Whether it is about a value that a substitution gives, whose default is none of its kind (mostly it is empty).
fn waits_for_a_value(error: &str, text: &str) -> bool {
    let kinds = [
        "is not a port",
        "is not a signal",
        "is no name of an image",
        "must be a number",
        "cannot name a variable",
        "a bind cannot be at /",
        "is no URL",
    ];
    let kind = kinds.iter().any(|kind| error.contains(kind));
    let line = error.split_once("--> stacker.yaml:").and_then(|(_, place)| place.split(':').next()?.parse().ok());
    kind && line.and_then(|line: usize| text.lines().nth(line - 1)).is_some_and(|line| line.contains("${{"))
}

/// A tar (first byte `t`, in which checksums are made right), or one compressed in any way (`z`); in capitals with
/// whiteouts. Must run as root, mapped or not. Nothing outside of the directory is touched, what is wrong is the
/// archive's fault, what was unpacked can be sealed, and the listing is the same without unpacking.
pub fn unpack(bytes: &[u8]) {
    let Some((&kind, tar)) = bytes.split_first() else { return };
    let mut tar = tar.to_vec();
    if kind.eq_ignore_ascii_case(&b't') {
        tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar").for_each(checksum);
    }
    if kind.is_ascii_lowercase() {
        unpack_as(&tar, Whiteouts::Literal, Marks::Overlayfs);
        return;
    }
    let [one, other] = [Marks::Overlayfs, Marks::Sockets].map(|marks| unpack_as(&tar, Whiteouts::Oci(marks), marks));
    assert_eq!(one, other, "how what is removed is marked makes a difference");
    assert_eq!(one, list(&tar), "what is only listed comes out differently");
}

/// The listing of a layer that is not unpacked.
fn list(tar: &[u8]) -> Option<Vec<u8>> {
    let space = space();
    let (plain, _) = stacker::compress::decoder(tar).ok()?;
    let listed = list_onto(plain, space.path(), &Stack::default(), 1 << 20, Ids::Full);
    let mut file = tempfile::tempfile_in(space.path()).expect("a file can be made");
    match listed.and_then(|listed| listed.seal(DiffId([0; 32]), &mut file)) {
        Ok(_) => Some(Listing::from_file(file).expect("a listing that was just written can be read").bytes().to_vec()),
        Err(failure) => {
            assert!(failure.users, "blames the machine: {failure:?}");
            None
        }
    }
}

/// The listing of what was unpacked and sealed.
fn unpack_as(tar: &[u8], whiteouts: Whiteouts, marks: Marks) -> Option<Vec<u8>> {
    let space = space();
    fs::write(space.path().join("outside"), "untouched").expect("a file can be written");
    let root = space.path().join("root");
    fs::create_dir(&root).expect("a directory can be made");
    let done = stacker::compress::decoder(tar).map(|(plain, _)| unpack_limited(plain, &root, whiteouts));
    assert_eq!(fs::read(space.path().join("outside")).expect("it is there"), b"untouched");
    assert_eq!(fs::read_dir(space.path()).expect("it is there").count(), 2, "something was made outside");
    match done {
        Ok(Ok(_)) => seal(&root, marks, space.path()),
        Ok(Err(failure)) => {
            assert!(failure.users, "blames the machine: {failure:?}");
            None
        }
        Err(_) => None,
    }
}

fn unpack_limited(
    plain: impl std::io::Read,
    root: &Path,
    whiteouts: Whiteouts,
) -> Result<Vec<String>, stacker::worker::message::Failure> {
    unpack_onto(plain, root, whiteouts, &Stack::default(), 1 << 20, None)
}

fn seal(root: &Path, marks: Marks, space: &Path) -> Option<Vec<u8>> {
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(space.join("listing"));
    let mut file = file.expect("a file can be made");
    match stacker::seal::seal_unpacked(root, None, marks, stacker::seal::Owners::OnDisk, &mut file) {
        Ok(sealed) => {
            let listing = Listing::from_file(file).expect("a listing that was just written can be read");
            let entries = listing.entries().collect::<Result<Vec<_>, _>>().expect("a listing that was just written");
            assert_eq!(entries.len() as u64, sealed.entries);
            let written = stacker::seal::tar::write(&listing, root, std::io::sink()).expect("its tar can be written");
            assert_eq!(written, sealed.tar_bytes);
            Some(listing.bytes().to_vec())
        }
        Err(failure) => {
            assert!(failure.users, "blames the machine: {failure:?}");
            None
        }
    }
}

fn checksum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A file of the store: the first byte says which (`l` a listing, two of them with a line `---` between; `r` a record;
/// `s` a stat list without its checksum). Damage is told or taken for nothing.
pub fn stored(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        b'l' => listings(bytes),
        b'r' => record(bytes),
        b's' => stat_list(bytes),
        _ => {}
    }
}

fn listings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let listings = text.split("---\n").take(3).filter_map(|part| {
        let part = format!("stacker listing 1\n{part}");
        Listing::from_bytes(part.into_bytes()).ok()
    });
    let listings: Vec<Listing> = listings.collect();
    let mut paths: Vec<Vec<u8>> = vec![b"".to_vec(), b"a".to_vec(), b"a/b".to_vec(), b"../a/./l/x".to_vec()];
    for listing in &listings {
        paths.extend(listing.entries().filter_map(|entry| Some(entry.ok()?.path)).take(20));
        let _ = listing.newest();
        for path in &paths {
            let _ = listing.find(path);
        }
    }
    let stack = Stack::new(listings);
    for path in paths {
        let _ = (stack.lookup(&path), stack.children(&path), stack.layer_of(&path));
        let _ = (stack.resolve(&path, true), stack.resolve(&path, false));
        let _ = stack.subtree(&path);
    }
}

fn record(bytes: &[u8]) {
    let space = space();
    let path = space.path().join(blake3::hash(bytes).to_hex().as_str());
    fs::write(&path, bytes).expect("a file can be written");
    if let Ok(Some(record)) = Record::read(&path) {
        assert_eq!(record.key, record.action.key());
        serde_json::to_vec(&record).expect("a record is JSON");
    }
}

fn stat_list(bytes: &[u8]) {
    let body = [b"stacker stat list 2\n", bytes].concat();
    let list = [&body[..], blake3::hash(&body).as_bytes()].concat();
    let space = space();
    let resolver = Resolver::new(vec![]);
    let resolved = resolver.tree(space.path(), Some(&list)).expect("an empty directory can be looked at");
    let _ = resolved.tree.entries().expect("the list of a tree is whole");
    let _ = resolved.tree.root();
}

/// A layout: parts with a line `---` between, the first is `index.json`, the others are blobs. `@N` in a part stands for
/// the digest of a later part (2 is the first blob), `#N` for its size.
pub fn layout(bytes: &[u8]) {
    let space = space();
    let root = space.path();
    let blobs = root.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory can be made");
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("a file can be written");
    let text = String::from_utf8_lossy(bytes);
    let parts: Vec<&str> = text.split("---\n").take(9).collect();
    let mut names: Vec<(usize, String, usize)> = Vec::new();
    for (index, part) in parts.iter().enumerate().rev() {
        let mut part = part.to_string();
        for (number, digest, size) in &names {
            part = part.replace(&format!("@{number}"), &format!("sha256:{digest}"));
            part = part.replace(&format!("#{number}"), &size.to_string());
        }
        if index == 0 {
            fs::write(root.join("index.json"), part).expect("a file can be written");
        } else {
            let digest = stacker::digest::BlobDigest::of(part.as_bytes()).hex();
            fs::write(blobs.join(&digest), &part).expect("a file can be written");
            names.push((index + 1, digest, part.len()));
        }
    }
    look(root);
}

fn look(root: &Path) {
    let users = |error: stacker::Error| assert!([1, 2].contains(&error.exit_code()), "blames the machine: {error}");
    let layout = match Layout::open(root) {
        Ok(layout) => layout,
        Err(error) => return users(error),
    };
    let platform = Platform { os: "linux".into(), arch: "amd64".into() };
    for tag in [None, Some("app"), Some("ap")] {
        match layout.find(tag, &platform) {
            Ok(image) => drop((image.chain().id(), image.config.env().len(), image.config.to_bytes())),
            Err(error) => users(error),
        }
        for json in [false, true] {
            match stacker::inspect::inspect(root, tag, json) {
                Ok(text) => {
                    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "control characters: {text:?}")
                }
                Err(error) => users(error),
            }
        }
    }
}
