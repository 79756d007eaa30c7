//! A layout and the images that its index names.
//!
//! A tag may stand for one image or for an index of images, which may hold further indexes; the platform decides.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex, OciLayout};

use super::blob::{MAX_DOCUMENT, parse, read_document, sha256};
use super::image::read_manifest;
use super::{BaseImage, DocumentKind, ImageConfiguration, document_kind};
use crate::action::Platform;
use crate::diag::nearest;
use crate::digest::BlobDigest;
use crate::error::{At, Error, Result};
use crate::regular;

/// The annotation of a descriptor in `index.json` that is its tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Deeper nesting than any tool writes; an index can not hold its own digest, so this only bounds the work.
const MAX_DEPTH: usize = 8;

/// An OCI layout on disk; `index.json` was read when it was opened.
#[derive(Clone, Debug)]
pub struct Layout {
    path: PathBuf,
    index: ImageIndex,
}

/// One entry of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// Its tag, if it has one.
    pub tag: Option<String>,
    /// As it stands there.
    pub descriptor: Descriptor,
}

/// A manifest that a tag leads to.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Of the manifest.
    pub descriptor: Descriptor,
    /// As the index says it, if it does.
    pub platform: Option<Platform>,
}

impl Layout {
    /// Opens the layout at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Layout> {
        let path = path.as_ref().to_path_buf();
        let marker: OciLayout = read_json(&path, "oci-layout")?;
        let version = marker.image_layout_version();
        if !version.starts_with("1.") {
            let path = path.display();
            return Err(Error::Build(format!("OCI layout {path}: version {version:?} is not supported, only 1.x is")));
        }
        let index = read_json(&path, "index.json")?;
        Ok(Layout { path, index })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `index.json` lists, in its order.
    pub fn images(&self) -> Vec<ImageRef> {
        let image = |descriptor: &Descriptor| ImageRef { tag: tag_of(descriptor), descriptor: descriptor.clone() };
        self.index.manifests().iter().map(image).collect()
    }

    /// The image of a tag for a platform; without a tag, the layout's only image.
    pub fn find(&self, tag: Option<&str>, platform: &Platform) -> Result<BaseImage> {
        let mut others = Vec::new();
        for found in self.manifests(tag)? {
            if found.platform.as_ref().is_some_and(|said| said != platform) {
                others.extend(found.platform);
                continue;
            }
            let its = self.platform_of(&found)?;
            // Images made from nothing but data often name no platform: those fit everywhere.
            if &its == platform || (its.os.is_empty() && its.arch.is_empty()) {
                let image = BaseImage::read(&self.path, &found.descriptor)?.must_be_of_tars(&self.path)?;
                return Ok(BaseImage { platform: platform.clone(), ..image });
            }
            others.push(its);
        }
        Err(self.wrong_platform(tag, platform, &others))
    }

    /// Every image manifest that a tag leads to, through nested indexes, in their order.
    pub(crate) fn manifests(&self, tag: Option<&str>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for descriptor in self.roots(tag)? {
            self.flatten(descriptor, MAX_DEPTH, &mut found)?;
        }
        Ok(found)
    }

    /// Every image manifest that one entry of `index.json` leads to.
    pub(crate) fn manifests_of(&self, image: &ImageRef) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        self.flatten(&image.descriptor, MAX_DEPTH, &mut found)?;
        Ok(found)
    }

    /// The image of a manifest, for the platform that its config names.
    pub(crate) fn read(&self, found: &Found) -> Result<BaseImage> {
        BaseImage::read(&self.path, &found.descriptor)
    }

    fn roots(&self, tag: Option<&str>) -> Result<Vec<&Descriptor>> {
        let all = self.index.manifests();
        let Some(tag) = tag else {
            return match all.as_slice() {
                [only] => Ok(vec![only]),
                [] => Err(Error::Build(format!("OCI layout {}: it holds no image", self.path.display()))),
                _ => Err(Error::Build(format!(
                    "OCI layout {}: it holds {} images, so one must be named as `{}:TAG`{}",
                    self.path.display(),
                    all.len(),
                    self.path.display(),
                    self.tags_here(),
                ))),
            };
        };
        let tagged: Vec<_> = all.iter().filter(|descriptor| tag_of(descriptor).as_deref() == Some(tag)).collect();
        if tagged.is_empty() {
            return Err(self.no_such_tag(tag));
        }
        Ok(tagged)
    }

    fn flatten(&self, descriptor: &Descriptor, depth: usize, found: &mut Vec<Found>) -> Result<()> {
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
                let path = self.path.display();
                Err(Error::Build(format!("OCI layout {path}: indexes are nested more than {MAX_DEPTH} deep")))
            }
            DocumentKind::Index => {
                let bytes = read_document(&self.path, descriptor, "index")?;
                let index: ImageIndex = parse(&self.path, descriptor.digest(), "index", &bytes)?;
                index.manifests().iter().try_for_each(|inner| self.flatten(inner, depth - 1, found))
            }
            DocumentKind::Other => Err(Error::Build(format!(
                "OCI layout {}: {} is no image, its media type is {}",
                self.path.display(),
                descriptor.digest(),
                descriptor.media_type(),
            ))),
        }
    }

    fn platform_of(&self, found: &Found) -> Result<Platform> {
        if let Some(platform) = &found.platform {
            return Ok(platform.clone());
        }
        Ok(self.config_of(&found.descriptor)?.platform())
    }

    fn config_of(&self, descriptor: &Descriptor) -> Result<ImageConfiguration> {
        let manifest = read_manifest(&self.path, descriptor)?;
        let bytes = read_document(&self.path, manifest.config(), "config")?;
        ImageConfiguration::from_slice(&bytes).map_err(|error| {
            let (path, digest) = (self.path.display(), manifest.config().digest());
            Error::Build(format!("OCI layout {path}: config {digest} is no image config: {error}"))
        })
    }

    fn no_such_tag(&self, tag: &str) -> Error {
        let tags: Vec<String> = self.index.manifests().iter().filter_map(tag_of).collect();
        let near = nearest(tag, tags.iter().map(String::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        Error::Build(format!("OCI layout {}: there is no tag {tag:?}{hint}{}", self.path.display(), self.tags_here()))
    }

    fn wrong_platform(&self, tag: Option<&str>, platform: &Platform, others: &[Platform]) -> Error {
        let what = tag.map_or("its image".to_owned(), |tag| format!("tag {tag:?}"));
        let have = match others {
            [] => "holds no image at all".to_owned(),
            others => {
                let names: Vec<_> = others.iter().map(|other| format!("{}/{}", other.os, other.arch)).collect();
                format!("is for {}", names.join(", "))
            }
        };
        let (path, Platform { os, arch }) = (self.path.display(), platform);
        Error::Build(format!(
            "OCI layout {path}: {what} {have}, wanted {os}/{arch} (`os` and `arch` of a layer choose another)"
        ))
    }

    /// "; tags here: a, b": at most twenty.
    fn tags_here(&self) -> String {
        let tags: Vec<String> = self.index.manifests().iter().filter_map(tag_of).collect();
        match tags.len() {
            0 => "; it has no tags".to_owned(),
            n if n <= 20 => format!("; tags here: {}", tags.join(", ")),
            n => format!("; tags here: {}, and {} more", tags[..20].join(", "), n - 20),
        }
    }
}

/// The tag that a descriptor of `index.json` carries.
pub(crate) fn tag_of(descriptor: &Descriptor) -> Option<String> {
    descriptor.annotations().as_ref()?.get(REF_NAME).cloned()
}

impl ImageRef {
    /// Digest of what the entry leads to, `None` for other algorithms than sha256.
    pub fn digest(&self) -> Option<BlobDigest> {
        sha256(Path::new(""), self.descriptor.digest()).ok()
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, name: &str) -> Result<T> {
    let file = path.join(name);
    let wrong = |why: String| Error::Build(format!("OCI layout {}: {name} {why}", path.display()));
    let opened = match regular::open(&file) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Err(wrong("is not a file".to_owned())),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            let why = if !path.exists() {
                "there is nothing at that path".to_owned()
            } else if !path.is_dir() {
                "it is not a directory".to_owned()
            } else {
                format!("it has no file {name:?}")
            };
            return Err(Error::Build(format!("{} is no OCI layout: {why}", path.display())));
        }
        Err(error) => return Err(error).at("read", &file),
    };
    let mut bytes = Vec::new();
    opened.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).at("read", &file)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(wrong(format!("has more than {MAX_DOCUMENT} bytes, which are refused")));
    }
    serde_json::from_slice(&bytes).map_err(|error| wrong(format!("can not be understood: {error}")))
}
