//! What the layers of images are: tars, or file systems that are mounted as they lie there (`--layer-type`).
//!
//! A file system is made by a program of the system, from a tar of ours in which what is removed stands as overlayfs
//! marks it. So it depends on the layer and on the program alone: not on the store, and not on who builds.

mod root;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use oci_spec::image::MediaType;
use serde::{Deserialize, Serialize};

use crate::compress;
use crate::digest::{BlobDigest, DiffId};
use crate::error::{At, Error, Result};
use crate::holder::find_program;
use crate::need::Need;
use crate::seal::tar::RootLooks;
use crate::worker::message::Compression;

/// Raised when other arguments, or another tar, make other file systems of the same layer.
const VERSION: u32 = 1;

/// How the media types of file systems begin, as the Go tool writes them.
const MEDIA_TYPE: &str = "application/vnd.stacker.image.layer.";

/// The UUID of all: what tells them apart is their digest.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// What the layers of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LayerType {
    /// Read by every tool.
    Tar,
    /// A squashfs file system; needs mksquashfs.
    Squashfs,
    /// An EROFS file system; needs mkfs.erofs.
    Erofs,
}

/// How the layers of an image become blobs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Compressed tars; those of base images stay as they are.
    Tar(Compression),
    /// File systems, all of them.
    FileSystem(Arc<Maker>),
}

/// A program that makes file systems.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Maker {
    kind: LayerType,
    program: PathBuf,
    /// As the program says it.
    version: String,
    compression: &'static str,
    /// It can be told how many threads to take.
    counts_workers: bool,
    /// It takes the root's time from the clock and its owner from its caller, whatever it is told.
    guesses_root: bool,
}

impl LayerType {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            LayerType::Tar => "tar",
            LayerType::Squashfs => "squashfs",
            LayerType::Erofs => "erofs",
        }
    }

    /// The type of a layer that is a file system, by its media type.
    pub fn of_file_system(media_type: &MediaType) -> Option<LayerType> {
        let rest = media_type.as_ref().strip_prefix(MEDIA_TYPE)?;
        [LayerType::Squashfs, LayerType::Erofs].into_iter().find(|kind| rest.starts_with(kind.name()))
    }

    /// The attributes that it can hold, by the beginnings of their names.
    pub fn holds_attribute(self, name: &[u8]) -> bool {
        let always = ["user.", "trusted.", "security."].iter().any(|prefix| name.starts_with(prefix.as_bytes()));
        always || self != LayerType::Squashfs && name.starts_with(b"system.posix_acl_")
    }

    /// The tag of the image of a layer.
    pub fn tag(self, name: &str) -> String {
        match self {
            LayerType::Tar => name.to_owned(),
            other => format!("{name}-{}", other.name()),
        }
    }
}

impl Packing {
    /// For each type once, with the programs that they need; `tmp` is for trying them.
    pub fn of(kinds: &[LayerType], compression: Compression, tmp: &Path) -> Result<Vec<Packing>> {
        let mut kinds = kinds.to_vec();
        kinds.sort();
        kinds.dedup();
        let packing = |kind| match kind {
            LayerType::Tar => Ok(Packing::Tar(compression)),
            LayerType::Squashfs => Ok(Packing::FileSystem(Arc::new(mksquashfs(tmp)?))),
            LayerType::Erofs => Ok(Packing::FileSystem(Arc::new(mkfs_erofs()?))),
        };
        kinds.into_iter().map(packing).collect()
    }

    /// What it makes.
    pub fn kind(&self) -> LayerType {
        match self {
            Packing::Tar(_) => LayerType::Tar,
            Packing::FileSystem(maker) => maker.kind,
        }
    }

    /// How it is named in the database: whatever the bytes of a blob depend on beside the layer.
    pub fn codec(&self) -> String {
        let version = compress::ENCODER_VERSION;
        match self {
            Packing::Tar(Compression::Gzip(level)) => format!("gzip-{level}/{version}"),
            Packing::Tar(Compression::Zstd(level)) => format!("zstd-{level}/{version}"),
            Packing::Tar(Compression::None) => format!("none/{version}"),
            Packing::FileSystem(maker) => {
                format!("{}+{}/{VERSION}/{}", maker.kind.name(), maker.compression, maker.version)
            }
        }
    }

    /// Of its blobs.
    pub fn media_type(&self) -> MediaType {
        match self {
            Packing::Tar(Compression::Gzip(_)) => MediaType::ImageLayerGzip,
            Packing::Tar(Compression::Zstd(_)) => MediaType::ImageLayerZstd,
            Packing::Tar(Compression::None) => MediaType::ImageLayer,
            Packing::FileSystem(maker) => {
                MediaType::Other(format!("{MEDIA_TYPE}{}+{}", maker.kind.name(), maker.compression))
            }
        }
    }

    /// What the config of an image says of a layer: a file system is its own uncompressed form.
    pub fn diff_id(&self, layer: &DiffId, blob: &BlobDigest) -> DiffId {
        match self {
            Packing::Tar(_) => *layer,
            Packing::FileSystem(_) => DiffId(blob.0),
        }
    }
}

impl Maker {
    /// What it makes.
    pub fn kind(&self) -> LayerType {
        self.kind
    }

    /// The program, as somebody who has the root's ids where it would take those of its caller.
    fn command(&self, root: &RootLooks) -> Result<Command> {
        let caller = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if !self.guesses_root || caller == (root.uid, root.gid) {
            return Ok(Command::new(&self.program));
        }
        let mut command = Command::new(found(Need::Squashfs, "unshare")?);
        command.arg("--user").arg(format!("--map-user={}", root.uid)).arg(format!("--map-group={}", root.gid));
        command.arg("--").arg(&self.program);
        Ok(command)
    }

    /// Makes `out` of a tar, whose root looks like `root`.
    pub fn make(&self, tar: File, root: &RootLooks, out: &Path) -> Result<()> {
        let mut command = self.command(root)?;
        // SOURCE_DATE_EPOCH, and options in variables, must not reach it.
        command.env_clear().stdin(Stdio::from(tar));
        match self.kind {
            LayerType::Erofs => {
                // No clock, no random name, one thread.
                command.args(["--tar=f", "--mkfs-time", "-T0", "--quiet"]);
                command.arg(format!("-z{}", self.compression)).arg(format!("-U{}", NIL));
                if self.counts_workers {
                    command.arg("--workers=1");
                }
                command.arg(out);
            }
            _ => {
                squashfs_arguments(&mut command, self.compression, out);
                // It takes the root for granted where a tar says what it is.
                let RootLooks { mode, uid, gid, seconds } = root;
                command.arg("-root-mode").arg(format!("{mode:o}")).arg("-root-time").arg(seconds.to_string());
                command.arg("-root-uid").arg(uid.to_string()).arg("-root-gid").arg(gid.to_string());
                if self.guesses_root {
                    // Where it is not compressed, it can be set right.
                    command.arg("-noI");
                }
            }
        }
        let output = command.output().at("execute", &self.program)?;
        succeeded(&output).map_err(|why| Error::Machine(format!("{} failed: {why}", self.program.display())))?;
        if self.guesses_root {
            let mut file = File::options().read(true).write(true).open(out).at("open", out)?;
            root::set_time(&mut file, root.seconds as u32).at("write", out)?;
        }
        Ok(())
    }
}

fn squashfs_arguments(command: &mut Command, compression: &str, out: &Path) {
    command.arg("-").arg(out).args(["-tar", "-noappend", "-reproducible", "-mkfs-time", "0", "-exit-on-error"]);
    // One thread, and as much memory on every machine.
    command.args(["-processors", "1", "-mem", "256M", "-no-progress", "-no-recovery", "-quiet"]);
    command.args(["-b", "131072", "-comp", compression]);
}

/// The last words of a program that failed.
fn succeeded(output: &Output) -> std::result::Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    Err(last.map_or_else(|| output.status.to_string(), str::to_owned))
}

/// The first thing that a program says about itself, as words without blanks.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join("_")
}

/// A program in PATH.
fn found(need: Need, program: &str) -> Result<PathBuf> {
    find_program(program).ok_or_else(|| Error::Lacking(need, format!("there is no {program} in PATH")))
}

/// What a program says; where it fails, it has said it all the same.
fn said(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().at("execute", program)?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Whether it reads tars, and knows zstd, is tried: how it lists what it knows differs from version to version.
fn mksquashfs(tmp: &Path) -> Result<Maker> {
    let program = found(Need::Squashfs, "mksquashfs")?;
    let version = first_line(&said(&program, "-version")?);
    let mut why = String::new();
    for compression in ["zstd", "gzip"] {
        let out = tempfile::NamedTempFile::new_in(tmp).at("create a file in", tmp)?;
        let mut tar = tar::Builder::new(tempfile::tempfile_in(tmp).at("create a file in", tmp)?);
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, "try", std::io::empty()).at("write", tmp)?;
        let mut tar = tar.into_inner().at("write", tmp)?;
        std::io::Seek::rewind(&mut tar).at("rewind", tmp)?;
        let mut command = Command::new(&program);
        squashfs_arguments(command.env_clear().stdin(Stdio::from(tar)), compression, out.path());
        command.args(["-noI", "-root-time", "5"]);
        match succeeded(&command.output().at("execute", &program)?) {
            Ok(()) => {
                let kind = LayerType::Squashfs;
                let guesses_root = root::time(&mut out.reopen().at("open", tmp)?).at("read", tmp)? != 5;
                return Ok(Maker { kind, program, version, compression, counts_workers: false, guesses_root });
            }
            Err(error) => why = error,
        }
    }
    let (program, least) = (program.display(), "squashfs-tools 4.5 or newer reads tars");
    Err(Error::Lacking(Need::Squashfs, format!("{program} ({version}) does not make one of a tar ({least}): {why}")))
}

fn mkfs_erofs() -> Result<Maker> {
    let program = found(Need::Erofs, "mkfs.erofs")?;
    let (help, version) = (said(&program, "--help")?, said(&program, "--version")?);
    if !["--tar=", "--mkfs-time"].iter().all(|option| help.contains(option)) {
        let (program, least) = (program.display(), "erofs-utils 1.8 or newer does");
        return Err(Error::Lacking(Need::Erofs, format!("{program} makes none of tars ({least}, as of Debian 13)")));
    }
    let knows = |compression: &str| {
        let words = help.lines().chain(version.lines()).flat_map(|line| line.split([' ', ',', '\t']));
        words.into_iter().any(|word| word == compression)
    };
    let Some(compression) = ["zstd", "lz4hc", "lz4"].into_iter().find(|compression| knows(compression)) else {
        return Err(Error::Lacking(Need::Erofs, format!("{} can compress by neither zstd nor lz4", program.display())));
    };
    let version = first_line(&version);
    let counts_workers = help.contains("--workers=");
    Ok(Maker { kind: LayerType::Erofs, program, version, compression, counts_workers, guesses_root: false })
}
