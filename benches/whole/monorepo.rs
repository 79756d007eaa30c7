//! A made-up monorepo: one base, and services that each import a directory and run a trivial script on it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::Parameters;

/// 2000-01-01: the base's files are not younger than any layer.
const TIME: u64 = 946_684_800;
/// What the scripts use, all of it busybox.
const COMMANDS: [&str; 3] = ["sh", "echo", "cat"];

/// Where everything lies. Only `source` is what a repository would hold.
pub struct Monorepo {
    /// The tree that is built and walked.
    pub source: PathBuf,
    /// One stackerfile beside it that imports all of it and runs nothing.
    pub everything: PathBuf,
    /// The base unpacked, for a bare chroot.
    pub root: PathBuf,
    depth: usize,
}

impl Monorepo {
    /// Makes it below `dir`.
    pub fn create(dir: &Path, parameters: &Parameters) -> io::Result<Monorepo> {
        let (source, root) = (dir.join("source"), dir.join("root"));
        let everything = dir.join("everything.yaml");
        fs::create_dir_all(source.join("base"))?;
        base(&source.join("base/base.tar"), &root, 0)?;
        fs::write(
            source.join("base/stacker.yaml"),
            "base:\n  from:\n    type: tar\n    url: base.tar\n  build_only: true\n",
        )?;
        let all = "everything:\n  from:\n    type: scratch\n  imports:\n    - path: source\n      dest: /source\n";
        fs::write(&everything, all)?;
        let monorepo = Monorepo { source, everything, root, depth: parameters.depth };
        for service in 0..parameters.services {
            let imported = monorepo.imported(service);
            fs::create_dir_all(&imported)?;
            for file in 0..parameters.files {
                let seed = (service * parameters.files + file) as u64;
                fs::write(imported.join(format!("file-{file}.c")), text(parameters.size, seed))?;
            }
            monorepo.write_stackerfile(service, 0)?;
        }
        Ok(monorepo)
    }

    /// The directory that a service imports.
    pub fn imported(&self, service: usize) -> PathBuf {
        self.service(service).join("files")
    }

    /// Writes a service's stackerfile; another `round` is another script in the last layer of its chain, and only there.
    pub fn write_stackerfile(&self, service: usize, round: usize) -> io::Result<()> {
        let mut text = "config:\n  prerequisites: [../../base/stacker.yaml]\n".to_owned();
        for level in 0..self.depth {
            let round = if level + 1 == self.depth { round } else { 0 };
            let script = script(round);
            text += &match level {
                0 => format!(
                    "service-{service}-0:\n  from:\n    type: built\n    tag: base\n  imports:\n    - path: files\n      \
                     dest: /srv/service-{service}\n  run: {script}\n"
                ),
                _ => format!(
                    "service-{service}-{level}:\n  from:\n    type: built\n    tag: service-{service}-{}\n  \
                     run: {script} >>/levels\n",
                    level - 1
                ),
            };
        }
        fs::write(self.service(service).join("stacker.yaml"), text)
    }

    fn service(&self, service: usize) -> PathBuf {
        self.source.join(format!("services/service-{service}"))
    }
}

/// The script of every layer, in a sandbox and in a bare chroot.
pub fn script(round: usize) -> String {
    format!("echo {round} >/round")
}

/// A root with a static busybox, as a tar and as a directory. In the tar are so many `more` files, links and directories.
pub fn base(tar: &Path, root: &Path, more: usize) -> io::Result<()> {
    let busybox = Path::new("/bin/busybox");
    fs::create_dir_all(root.join("bin"))?;
    fs::copy(busybox, root.join("bin/busybox")).map_err(|error| {
        io::Error::new(error.kind(), format!("copy {}: {error} (is busybox-static installed?)", busybox.display()))
    })?;
    let mut builder = tar::Builder::new(File::create(tar)?);
    let mut header = tar::Header::new_ustar();
    header.set_mtime(TIME);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    builder.append_data(&mut header, "bin/", io::empty())?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(busybox.metadata()?.len());
    builder.append_data(&mut header, "bin/busybox", File::open(busybox)?)?;
    for command in COMMANDS {
        symlink("busybox", root.join("bin").join(command))?;
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, format!("bin/{command}"), "busybox")?;
    }
    fill(&mut builder, more)?;
    builder.into_inner()?.sync_all()
}

/// Packages of directories, with files of the sizes that packages have (most of them below 4 KiB), and one link in ten.
fn fill(builder: &mut tar::Builder<File>, more: usize) -> io::Result<()> {
    /// Files in a directory, with the directory itself.
    const EACH: usize = 12;
    const SIZES: [usize; 10] = [120, 300, 500, 800, 1200, 1800, 2500, 4000, 9000, 24_000];
    let mut header = tar::Header::new_ustar();
    header.set_mtime(TIME);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    for number in 0..more {
        let (directory, at) = (number / EACH, number % EACH);
        let place = format!("usr/share/package-{}/part-{directory}", directory / 20);
        if at == 0 {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            builder.append_data(&mut header, format!("{place}/"), io::empty())?;
        } else if at == 7 {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, format!("{place}/link"), "file-1")?;
        } else {
            let text = text(SIZES[number * 7 % SIZES.len()], number as u64);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, format!("{place}/file-{at}"), text.as_slice())?;
        }
    }
    Ok(())
}

/// Text that compresses about as well as source code does.
fn text(length: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "static ",
        "return ",
        "int ",
        "struct ",
        "name ",
        "= ",
        "(size)",
        ";\n",
        "{\n",
        "}\n",
        "while ",
        "/* why */ ",
        "const ",
        "->next ",
        "value ",
        "+ ",
    ];
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(WORDS[(state % 16) as usize].as_bytes());
        if state & 0x700 == 0 {
            text.extend_from_slice(format!("{:x} ", state >> 40).as_bytes());
        }
    }
    text.truncate(length);
    text
}
