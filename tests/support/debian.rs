//! The root filesystem of [`base`](super::base) with programs of this Debian machine in it: the same files that
//! installing their packages would bring, in no time and without a network.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::archive::{Archive, Member};

/// A tar with make and python3 (the packages `make` and `python3-minimal`) besides busybox.
pub fn tar() -> Vec<u8> {
    let python = fs::canonicalize("/usr/bin/python3").expect("python3 (of python3-minimal) is installed");
    let python = python.file_name().unwrap().to_str().unwrap().to_owned();
    let packages =
        ["make", "python3-minimal", &format!("{python}-minimal"), &format!("lib{python}-minimal")].map(str::to_owned);
    let mut files = BTreeSet::new();
    for package in &packages {
        let list = output("dpkg-query", &["--listfiles", package]);
        let wanted = list.lines().filter(|path| *path != "/." && !path.starts_with("/usr/share"));
        files.extend(wanted.map(str::to_owned));
    }
    for program in ["/usr/bin/make", "/usr/bin/python3"] {
        let words = output("ldd", &[program]);
        files.extend(words.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
    }
    // Sorted, a directory comes before what is in it.
    files.iter().fold(super::base::archive(), |archive, path| add(archive, path)).end()
}

/// Adds a file of this machine, with its mode and time.
fn add(archive: Archive, path: &str) -> Archive {
    // What leads to a library is a link in many places; its target is what is wanted.
    let is_library = path.contains(".so");
    let metadata = if is_library { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let metadata = metadata.unwrap_or_else(|error| panic!("{path}: {error}"));
    let name = path.trim_start_matches('/');
    assert!(name.len() <= 100, "{path} is too long for a plain header");
    let (link, body) = match metadata.file_type() {
        kind if kind.is_symlink() => (fs::read_link(path).unwrap(), Vec::new()),
        kind if kind.is_file() => (Path::new("").to_owned(), fs::read(path).unwrap()),
        _ => (Path::new("").to_owned(), Vec::new()),
    };
    archive.member(Member {
        kind: if metadata.is_dir() { b'5' } else { [b'0', b'2'][usize::from(metadata.is_symlink())] },
        name: name.as_bytes(),
        link: link.as_os_str().as_bytes(),
        mode: metadata.mode() & 0o7777,
        mtime: u64::try_from(metadata.mtime()).unwrap_or(0),
        body: &body,
        ..Member::default()
    })
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The tar with Debian's essential packages that the example monorepo starts from. It is kept, since making it takes a
/// minute and a network.
pub fn essential() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian.tar");
        if !path.exists() {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monorepo/base.sh");
            let output = Command::new(script).arg(&path).output().unwrap();
            assert!(output.status.success(), "base.sh: {}", String::from_utf8_lossy(&output.stderr));
        }
        path
    })
}

/// A layout whose image `debian` has a compiler, python, node and nginx beside them. It is kept, too.
pub fn tools() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-tools");
        if !path.exists() {
            let space = super::space::Space::new();
            let (tar, copy) = (essential(), space.path("debian.tar"));
            let copied = Command::new("cp").arg("--reflink=auto").args([tar, &copy]).status().unwrap();
            assert!(copied.success(), "cp {}", tar.display());
            space.write("stacker.yaml", TOOLS);
            space.build(&[]);
            let (new, oci) = (path.with_extension("new"), space.path("oci"));
            let copied = Command::new("cp").arg("-rT").args([&oci, &new]).status().unwrap();
            assert!(copied.success(), "cp {}", oci.display());
            fs::rename(&new, &path).unwrap();
        }
        path
    })
}

const TOOLS: &str = "
debian:
  from: {type: tar, url: debian.tar}
  run: |
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends gcc libc6-dev python3-minimal python3-pip nodejs nginx-light
    apt-get clean
    rm -rf /var/lib/apt/lists/* /usr/share/doc
";
