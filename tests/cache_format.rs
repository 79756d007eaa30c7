//! cache-format.md says what the code does: each of its worked vectors is given to the code, which must come to the same
//! end.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use stacker::action::{self, Action, Attributes, Ids, Mount, Network, Platform};
use stacker::decide::LAYER_TIME_STEP;
use stacker::digest::{Chain, ChainId, ContentDigest, DiffId, TreeDigest};
use stacker::listing::{self, Entry, Kind, Listing, Time, tree_digest};
use stacker::record::Record;
use stacker::text::{escape, unescape};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cache-format.md");

/// A block marked `vector`: its kind, the line it starts on, and what stands between the lines `=>`.
struct Vector {
    kind: String,
    line: usize,
    parts: Vec<String>,
}

fn vectors() -> Vec<Vector> {
    let text = std::fs::read_to_string(DOCUMENT).expect("cache-format.md");
    let mut vectors: Vec<Vector> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("```vector ") {
            vectors.push(Vector { kind: kind.to_owned(), line: index + 1, parts: vec![String::new()] });
            open = true;
        } else if line == "```" {
            open = false;
        } else if open {
            let parts = &mut vectors.last_mut().expect("one was pushed").parts;
            match line {
                "=>" => parts.push(String::new()),
                line => parts.last_mut().expect("there is one").extend([line, "\n"]),
            }
        }
    }
    vectors
}

#[test]
fn the_code_comes_to_what_every_vector_says() {
    let (mut wrong, mut count) = (Vec::new(), BTreeMap::<String, usize>::new());
    for Vector { kind, line, parts } in vectors() {
        let given = if kind == "layer" { 2 } else { 1 };
        let found = follows(&kind, &parts[..given]);
        let said = parts[given..].join("=>\n");
        if found != said {
            wrong.push(format!("{DOCUMENT}:{line}: vector {kind}\nsays:\n{said}the code says:\n{found}"));
        }
        *count.entry(kind).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let kinds: Vec<&str> = count.keys().map(String::as_str).collect();
    let all = ["action", "chain", "escape", "layer", "listing", "order", "record", "short", "time", "tree"];
    assert_eq!(kinds, all);
}

/// What the code makes of the given parts.
fn follows(kind: &str, given: &[String]) -> String {
    let text = given[0].as_str();
    match kind {
        "action" => {
            let action: Action = serde_json::from_str(text).expect("an action");
            format!("{}=>\n{}\n", action.encoding(), action.key())
        }
        "chain" => format!("{}\n", Chain(text.lines().map(parsed::<DiffId>).collect()).id()),
        "short" => format!("{}\n", parsed::<ChainId>(text.trim()).short()),
        "escape" => escaped(text.trim_end()),
        "time" => time(text),
        "order" => ordered(text),
        "listing" => round_trip(text),
        "tree" => tree(text),
        "layer" => layer(text, &given[1]),
        "record" => record(text),
        other => panic!("{DOCUMENT} has a vector of an unknown kind: {other}"),
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect(text)
}

fn escaped(digits: &str) -> String {
    let digit = |range| u8::from_str_radix(&digits[range], 16).expect("hexadecimal digits");
    let bytes: Vec<u8> = (0..digits.len() / 2).map(|index| digit(2 * index..2 * index + 2)).collect();
    let word = escape(&bytes);
    assert_eq!(unescape(word.as_bytes()), Some(bytes));
    word + "\n"
}

fn moment(word: &str) -> Time {
    let line = format!("stacker listing 1\nx p 644 0 0 {word}\n");
    Listing::from_bytes(line.into_bytes()).and_then(|listing| listing.newest()).expect(word)
}

fn time(text: &str) -> String {
    let moments: Vec<Time> = text.split_whitespace().map(moment).collect();
    let newest = moments.iter().map(|moment| moment.rounded_up()).max().expect("an epoch at least");
    format!("{newest} {}\n", newest + LAYER_TIME_STEP)
}

fn entries(text: &str) -> Vec<Entry> {
    let listing = Listing::from_bytes(text.as_bytes().to_vec()).expect(text);
    let entries: Vec<Entry> = listing.entries().collect::<Result<_, _>>().expect(text);
    assert!(entries.is_sorted_by(|a, b| listing::order(a, b).is_lt()), "not in order:\n{text}");
    entries
}

fn ordered(text: &str) -> String {
    let entry = |line: &str| {
        let (path, letter) = line.split_once(' ').expect("a path and a type");
        let rest = match letter {
            "f" => format!(" 0 {}", ContentDigest::of(b"")),
            "d" => " -".to_owned(),
            _ => String::new(),
        };
        entries(&format!("stacker listing 1\n{path} {letter} 0 0 0 0{rest}\n")).remove(0)
    };
    let mut lines: Vec<(Entry, &str)> = text.lines().map(|line| (entry(line), line)).collect();
    lines.sort_by(|a, b| listing::order(&a.0, &b.0));
    lines.iter().map(|(_, line)| format!("{line}\n")).collect()
}

/// The listing must be what the code itself would write.
fn round_trip(text: &str) -> String {
    let entries = entries(text);
    let mut written = Vec::new();
    listing::write(entries.iter(), &mut written).expect("writing to memory");
    assert_eq!(String::from_utf8_lossy(&written), text);
    let newest = entries.iter().map(|entry| entry.mtime).max().expect("an entry");
    format!("{} entries, newest {}.{:09}\n", entries.len(), newest.seconds, newest.nanos)
}

/// The hashed text is built here from the rules of the document; the code must come to its digest.
fn tree(text: &str) -> String {
    let entries = entries(text);
    let files: BTreeMap<&[u8], &Kind> = entries.iter().map(|entry| (entry.path.as_slice(), &entry.kind)).collect();
    let mut hashed = "stacker tree 1\n".to_owned();
    for Entry { path, kind, mode, uid, gid, .. } in &entries {
        let kind = match kind {
            Kind::HardLink { to } => files[to.as_slice()],
            kind => kind,
        };
        let (letter, rest) = match kind {
            Kind::File { size, content } => ('f', format!(" {size} {content}")),
            Kind::Directory { .. } => ('d', " -".to_owned()),
            Kind::Symlink { target } => ('l', format!(" {}", escape(target))),
            Kind::Fifo => ('p', String::new()),
            other => panic!("{other:?} has no place in a tree"),
        };
        hashed += &format!("{} {letter} {mode:o} {uid} {gid} -{rest}\n", escape(path));
    }
    let digest = tree_digest(&entries);
    assert_eq!(digest, TreeDigest(*blake3::hash(hashed.as_bytes()).as_bytes()), "of\n{hashed}");
    format!("{hashed}=>\n{digest}\n")
}

fn layer(text: &str, contents: &str) -> String {
    let delta = tempfile::tempdir().expect("a directory");
    let mut contents = contents.lines();
    for entry in entries(text) {
        let path = delta.path().join(std::str::from_utf8(&entry.path).unwrap_or("not-utf-8"));
        match &entry.kind {
            Kind::Directory { .. } => std::fs::create_dir_all(&path).expect("a directory"),
            Kind::File { size, content } => {
                let bytes: String = serde_json::from_str(contents.next().expect("a content")).expect("a JSON string");
                assert_eq!((*size, *content), (bytes.len() as u64, ContentDigest::of(bytes.as_bytes())));
                std::fs::write(&path, bytes).expect("a file");
            }
            _ => {}
        }
    }
    let (length, diff_id) = tar(text, delta.path());
    format!("{length} {diff_id}\n")
}

fn tar(text: &str, delta: &Path) -> (u64, DiffId) {
    let listing = Listing::from_bytes(text.as_bytes().to_vec()).expect(text);
    let mut bytes = Vec::new();
    let length = stacker::seal::tar::write(&listing, delta, &mut bytes).expect(text);
    assert_eq!(length, bytes.len() as u64);
    (length, DiffId(Sha256::digest(&bytes).into()))
}

fn record(text: &str) -> String {
    let record: Record = serde_json::from_str(text).expect("a record");
    let mut bytes = serde_json::to_vec(&record).expect("a record is JSON");
    bytes.push(b'\n');
    assert_eq!(String::from_utf8_lossy(&bytes), text, "written in another way");
    let name = ContentDigest::of(&bytes).hex();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(&name);
    std::fs::write(&path, &bytes).expect("a file");
    assert_eq!(Record::read(&path).expect("it can be read"), Some(record));
    name + "\n"
}

fn action(base: ChainId, time: i64, kind: action::Kind) -> Action {
    let platform = Platform { os: "linux".into(), arch: "amd64".into() };
    Action { platform, ids: Ids::Full, base, time, kind }
}

fn run(script: &str, environment: &[(&str, &str)], mounts: Vec<Mount>, network: Network) -> action::Kind {
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    action::Kind::Run { script: script.into(), environment, mounts, binds: vec![], network }
}

const PINNED: &str = "if this fails you invalidate every user's cache: see \"Versions\" in cache-format.md";

/// A stacker that gives one of these actions another key builds every layer of every user anew.
#[test]
fn keys_of_small_actions_are_pinned() {
    let (tree, one) = (TreeDigest([5; 32]), ChainId([1; 32]));
    let import = |dest: &str, attributes| action::Kind::Import { tree, dest: dest.into(), attributes };
    let all = Attributes { mode: Some(0o4755), uid: Some(0), gid: Some(65_534) };
    let mount = |place: &str, attributes| Mount { place: place.into(), tree, attributes };
    let none = Attributes::default();
    let mounts = vec![mount("/stacker/imports/b", none), mount("/stacker/imports/a b", all)];
    let table = [
        (
            "unpack",
            action(ChainId::SCRATCH, 0, action::Kind::Unpack { tar: ContentDigest([4; 32]) }),
            "32f19f277e9832684db68f8a7fe149ba03822b9ae626ff403f83c0bd9a2f64ac",
        ),
        (
            "import",
            action(one, 946_684_802, import("/", none)),
            "23926e7260d68433c421ce0c04f5c7d273c8fd170e0a9cd0e450f36481d9dc1f",
        ),
        (
            "import with overrides",
            action(one, 946_684_802, import("/ü\n%", all)),
            "4f0e8cb05511912049350d6cb842f9017aa5bee34d44533ed62c2325524c2dab",
        ),
        (
            "run",
            action(one, -1, run("#!/bin/sh\n", &[], vec![], Network::Host)),
            "aa4010635ae0a279fadaef1d2d6e5fb1f1fb183b0c5bed7742df722229b8171c",
        ),
        (
            "run with all",
            action(one, 7, run("#!\"\\\u{1}\u{7f}é", &[("B", ""), ("A", "=")], mounts, Network::None)),
            "8a346f3882397f63e179d0fcd9ff153c75eb7527597331cc4449e9a5dceb0f77",
        ),
        (
            "another platform, one id",
            Action {
                platform: Platform { os: "linux".into(), arch: "riscv64".into() },
                ids: Ids::Single,
                ..action(one, 7, import("/x", none))
            },
            "5c3ae877fc01a6975d8429effcea6eceadd3b02ae28edda7d0f9ab142c8e8f93",
        ),
    ];
    let found: Vec<_> = table.iter().map(|(name, action, _)| (*name, action.key().hex())).collect();
    let pinned: Vec<_> = table.iter().map(|(name, _, key)| (*name, key.to_string())).collect();
    assert_eq!(found, pinned, "{PINNED}");
}

/// The same for what imports are and for the digests of layers.
#[test]
fn digests_of_small_trees_and_layers_are_pinned() {
    let empty = ContentDigest::of(b"");
    let long = "d".repeat(90);
    let cases = [
        ("a file", format!("% f 644 0 0 5 0 {empty}\n")),
        ("an empty directory", "% d 755 0 0 5 -\n".to_owned()),
        ("a link, a fifo", "% d 755 0 0 5 -\nf p 600 1 2 5.000000001\nl l 777 0 0 5 a%20b\n".to_owned()),
        ("attributes", "% d 755 0 0 5 - security.capability=0100000200000000 user.a=00ff\n".to_owned()),
        ("long names", format!("% d 755 0 0 5 -\n{long} d 755 0 0 5 -\n{long}/{long} l 777 0 0 5 {long}/{long}\n")),
        ("whiteouts", "% d 755 0 0 5 -\nz w 0 0 0 5\na d 755 0 0 5 opaque\n".to_owned()),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    let mut found = Vec::new();
    for (name, lines) in cases {
        let text = format!("stacker listing 1\n{lines}");
        let tree = if name == "whiteouts" { "no import".to_owned() } else { tree_digest(&entries(&text)).hex() };
        let tar = if name == "a file" { "no layer".to_owned() } else { tar(&text, directory.path()).1.hex() };
        found.push((name, tree, tar));
    }
    let pinned = [
        ("a file", "4b4efa46990fd7f7a2a9b6ba81d896b4be0bee5ded1f12ecafd938b68c6771af", "no layer"),
        (
            "an empty directory",
            "26f62ca2166eb07fbd726da092ee7db8d64453a70673ea864228836e6d2f237c",
            "49929585a2ba023f048837a1262d000a5130584ec592dde469c95e9c0ef4e533",
        ),
        (
            "a link, a fifo",
            "6f5a99bc3f70d94a3aedd22f72c6f21f6af4c2a4247d9c7f2ef0452da650c4de",
            "d64b9a2822edf6c220cf6101847e9027135237c61ba1efdad0920b98fad3f909",
        ),
        (
            "attributes",
            "1bc9a2e727ab6c2e7c1ec77828e4aa1079352d9a4037bcd310b99754b9f57811",
            "c3d66972dfdf42790238d6f4e722a47e080b229715a0dd323ccdfbbc84b4f7e5",
        ),
        (
            "long names",
            "2244ddbad8e747d6ebe8fe369da4a6f061e70902e07c46461d713eb0b6050856",
            "04360586cccf5d465824bd1ef55e5149bc568ba922940bf8a72a994239bf9045",
        ),
        ("whiteouts", "no import", "b2514282efdc60ac787da4b518b344ad6cad25fb499800f2926a092b6ea7799b"),
    ];
    let pinned = pinned.map(|(name, tree, tar)| (name, tree.to_owned(), tar.to_owned()));
    assert_eq!(found, pinned, "{PINNED}");
}
