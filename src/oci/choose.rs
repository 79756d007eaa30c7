//! Which image of an index is meant: a tag may stand for one image or for an index of images, which may hold further
//! indexes; the platform decides.

use oci_spec::image::{Descriptor, ImageIndex};

use super::image::{read_config, read_manifest};
use super::source::{Source, parse};
use super::{BaseImage, DocumentKind, document_kind};
use crate::action::Platform;
use crate::error::{Error, Result};

/// Deeper nesting than any tool writes; an index can not hold its own digest, so this only bounds the work.
const MAX_DEPTH: usize = 8;

/// A manifest that a tag leads to.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Of the manifest.
    pub descriptor: Descriptor,
    /// As the index says it, if it does.
    pub platform: Option<Platform>,
}

/// The image for a platform that a descriptor leads to; `what` names it in messages (`tag "app"`).
pub fn image_of(source: &dyn Source, descriptor: &Descriptor, what: &str, platform: &Platform) -> Result<BaseImage> {
    let mut found = Vec::new();
    flatten(source, descriptor, &mut found)?;
    choose(source, &found, what, platform)
}

/// The first of the manifests that is for a platform.
pub(super) fn choose(source: &dyn Source, all: &[Found], what: &str, platform: &Platform) -> Result<BaseImage> {
    let mut others = Vec::new();
    for found in all {
        if let Some(said) = found.platform.as_ref().filter(|said| *said != platform) {
            others.push(said.clone());
            continue;
        }
        let its = platform_of(source, found)?;
        // Images made from nothing but data often name no platform: those fit everywhere.
        if &its == platform || (its.os.is_empty() && its.arch.is_empty()) {
            let image = BaseImage::read(source, &found.descriptor)?.must_be_of_tars(source)?;
            return Ok(BaseImage { platform: platform.clone(), ..image });
        }
        others.push(its);
    }
    Err(wrong_platform(source, what, platform, &others))
}

/// Every image manifest that a descriptor leads to, through nested indexes, in their order.
pub(super) fn flatten(source: &dyn Source, descriptor: &Descriptor, found: &mut Vec<Found>) -> Result<()> {
    flatten_to(source, descriptor, MAX_DEPTH, found)
}

fn flatten_to(source: &dyn Source, descriptor: &Descriptor, depth: usize, found: &mut Vec<Found>) -> Result<()> {
    let platform = descriptor
        .platform()
        .as_ref()
        .map(|platform| Platform { os: platform.os().to_string(), arch: platform.architecture().to_string() });
    match document_kind(descriptor.media_type()) {
        // buildx lists attestations beside images, for the platform unknown/unknown: no image to build on.
        DocumentKind::Manifest if platform.as_ref().is_some_and(|platform| platform.os == "unknown") => Ok(()),
        DocumentKind::Manifest => {
            found.push(Found { descriptor: descriptor.clone(), platform });
            Ok(())
        }
        DocumentKind::Index if depth == 0 => {
            Err(Error::Build(format!("{}: indexes are nested more than {MAX_DEPTH} deep", source.shown())))
        }
        DocumentKind::Index => {
            let bytes = source.document(descriptor, "index")?;
            let index: ImageIndex = parse(source, descriptor, "index", &bytes)?;
            index.manifests().iter().try_for_each(|inner| flatten_to(source, inner, depth - 1, found))
        }
        DocumentKind::Other => Err(Error::Build(format!(
            "{}: {} is no image, its media type is {}",
            source.shown(),
            descriptor.digest(),
            descriptor.media_type(),
        ))),
    }
}

fn platform_of(source: &dyn Source, found: &Found) -> Result<Platform> {
    if let Some(platform) = &found.platform {
        return Ok(platform.clone());
    }
    let manifest = read_manifest(source, &found.descriptor)?;
    Ok(read_config(source, manifest.config())?.platform())
}

fn wrong_platform(source: &dyn Source, what: &str, platform: &Platform, others: &[Platform]) -> Error {
    let have = match others {
        [] => "holds no image at all".to_owned(),
        others => {
            let names: Vec<_> = others.iter().map(|other| format!("{}/{}", other.os, other.arch)).collect();
            format!("is for {}", names.join(", "))
        }
    };
    let (shown, Platform { os, arch }) = (source.shown(), platform);
    Error::Build(format!("{shown}: {what} {have}, wanted {os}/{arch} (`os` and `arch` of a layer choose another)"))
}
