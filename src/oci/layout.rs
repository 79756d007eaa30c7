//! A layout and the images that its index names.
//!
//! A tag may stand for one image or for an index of images, which may hold further indexes; the platform decides.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex, OciLayout};

use super::BaseImage;
use super::blob::{MAX_DOCUMENT, sha256};
use super::choose::{Found, choose, flatten};
use super::source::OnDisk;
use crate::action::Platform;
use crate::diag::nearest;
use crate::digest::BlobDigest;
use crate::error::{At, Error, Result};
use crate::regular;

/// The annotation of a descriptor in `index.json` that is its tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

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
        let what = tag.map_or("its image".to_owned(), |tag| format!("tag {tag:?}"));
        choose(&self.source(), &self.manifests(tag)?, &what, platform)
    }

    /// Every image manifest that a tag leads to, through nested indexes, in their order.
    pub(crate) fn manifests(&self, tag: Option<&str>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for descriptor in self.roots(tag)? {
            flatten(&self.source(), descriptor, &mut found)?;
        }
        Ok(found)
    }

    /// Every image manifest that one entry of `index.json` leads to.
    pub(crate) fn manifests_of(&self, image: &ImageRef) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        flatten(&self.source(), &image.descriptor, &mut found)?;
        Ok(found)
    }

    /// The image of a manifest, for the platform that its config names.
    pub(crate) fn read(&self, found: &Found) -> Result<BaseImage> {
        BaseImage::read(&self.source(), &found.descriptor)
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

    fn source(&self) -> OnDisk<'_> {
        OnDisk(&self.path)
    }

    fn no_such_tag(&self, tag: &str) -> Error {
        let tags: Vec<String> = self.index.manifests().iter().filter_map(tag_of).collect();
        let near = nearest(tag, tags.iter().map(String::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        Error::Build(format!("OCI layout {}: there is no tag {tag:?}{hint}{}", self.path.display(), self.tags_here()))
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
        sha256("", self.descriptor.digest()).ok()
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
