//! `stacker cache export` and `stacker cache import`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::archive::{self, Exported, Imported, Request};
use crate::build::What;
use crate::error::{Error, Result};
use crate::holder::{Holder, Insisted};
use crate::http;
use crate::inputs::absolute;
use crate::layer_type::LayerType;
use crate::load;

use super::build::{Codec, Reading};
use super::commands::{file, reading};
use super::options::{Directories, compression};
use super::publish::looking;

/// `stacker cache export`.
#[derive(Args, Debug)]
#[command(long_about = EXPORT)]
pub struct Export {
    /// The archive that is written; `-`: to standard output
    #[arg(value_name = "FILE")]
    pub archive: PathBuf,
    /// Layers to export, with what they need (default: all of the stackerfile and of its prerequisites)
    #[arg(value_name = "LAYER")]
    pub layers: Vec<String>,
    /// Where the layers are looked for.
    #[command(flatten)]
    pub place: Place,
    /// Base images of registries too, for builds with --offline
    #[arg(long)]
    pub base_images: bool,
    /// Of the whole archive; its layers are compressed by themselves (default: by the end of its name: .zst, .gz, none)
    #[arg(long, value_name = "CODEC")]
    pub compression: Option<Codec>,
}

/// `stacker cache import`.
#[derive(Args, Debug)]
#[command(long_about = IMPORT)]
pub struct Import {
    /// The archive; `-`: from standard input
    #[arg(value_name = "FILE")]
    pub archive: PathBuf,
}

/// Where layers are looked for.
#[derive(Args, Debug)]
pub struct Place {
    /// The stackerfile
    #[arg(long = "stacker-file", short = 'f', value_name = "FILE", conflicts_with = "all")]
    pub file: Option<PathBuf>,
    /// Every stackerfile below a directory (default: .)
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".")]
    pub all: Option<PathBuf>,
    /// How stackerfiles are read.
    #[command(flatten)]
    pub reading: Reading,
}

/// `stacker cache export --help`.
const EXPORT: &str = "\
Write the results of layers into one file, for CI systems whose caches are files: after `stacker cache import` on another
machine, in another directory or as another user, builds of the same sources find them.

What is exported is what the layers are as their stackerfiles and files are now, with all that they need, as far as it is
built; nothing is built and no server is asked. A layer that is named must be built. Of base images the archive holds
what is known of their files, so that nobody has to unpack them to decide; with --base-images it holds those of registries
whole. Files from http(s) servers are not in it.

An archive holds neither times of its making nor names of the machine: the same results are the same bytes.";

/// `stacker cache import --help`.
const IMPORT: &str = "\
Take the results of an archive that `stacker cache export` wrote, whoever wrote it with whatever kind of store. Compressed
archives are known by their first bytes.

All digests are compared, and layers read whole, before anything of them counts. Results that are here already stay as
they are. That a script comes out as an archive says cannot be proven without running it: take archives only from whom you
would take images.";

impl Place {
    /// Which stackerfiles, and how they are read.
    pub(super) fn what(&self, directories: &Directories) -> Result<(What, load::Options)> {
        let what = match &self.all {
            Some(directory) => What::All(absolute(directory)?),
            None => What::File(file(self.file.as_ref())?, Vec::new()),
        };
        Ok((what, reading(&self.reading, directories)?))
    }
}

/// Exports; what goes to stderr, since stdout may be the archive.
pub fn export(
    arguments: Export,
    directories: Directories,
    network: http::Options,
    (kind, sandbox): Insisted,
) -> Result<String> {
    let target = Some(arguments.archive.clone()).filter(|path| path != Path::new("-"));
    if target.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(Error::Usage("cache export: an archive is nothing for a terminal: name a file".to_owned()));
    }
    let (what, load) = arguments.place.what(&directories)?;
    let codec = arguments.compression.unwrap_or_else(|| codec_of(target.as_deref()));
    let holder = Holder::start(&directories.stacker, &directories.roots, kind)?.insist(sandbox);
    let build = looking(what, load, vec![LayerType::Tar], directories, network);
    let Export { layers, base_images, .. } = arguments;
    let request = Request { build, layers, target, base_images, compression: compression(codec, None)? };
    let Exported { results, layers, bytes, unbuilt } = archive::export(&request, holder)?;
    let mut text = String::new();
    for layer in unbuilt {
        text += &format!("warning: layer {layer} is not wholly built as it is now: only what is built is exported\n");
    }
    let size = bytesize::ByteSize::b(bytes);
    Ok(text + &format!("exported {}, {} of {size}", counted(results, "result"), counted(layers, "layer")))
}

/// Imports; what goes to stdout.
pub fn import(arguments: &Import, directories: &Directories) -> Result<String> {
    let path = Some(arguments.archive.as_path()).filter(|path| *path != Path::new("-"));
    let Imported { taken, present, other, layers, bytes } = archive::import(directories, path)?;
    let size = bytesize::ByteSize::b(bytes);
    let mut text = format!("took {}, {} of {size}", counted(taken, "result"), counted(layers, "layer"));
    if present > 0 {
        text += &format!("; {} here already", counted(present, "result"));
    }
    if other > 0 {
        text += &format!(", of which {other} came out otherwise here, and stay so");
    }
    Ok(text)
}

fn codec_of(target: Option<&Path>) -> Codec {
    match target.and_then(Path::extension).and_then(|extension| extension.to_str()) {
        Some("zst" | "zstd" | "tzst") => Codec::Zstd,
        Some("gz" | "tgz") => Codec::Gzip,
        _ => Codec::None,
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
