//! `stacker inspect` and `stacker cache`: what there is, as text for people or JSON for programs.
//!
//! Reads an OCI layout through [`crate::oci`]; the rows of the cache are handed in. Whatever comes out of an image is
//! shown without its control characters, since it may have been written by anybody. Nothing here writes a file, opens
//! the database or knows stackerfiles. JSON fields are added, never renamed or dropped.

pub mod cache;
pub mod diff;
pub mod filter;
mod image;
mod show;
pub(crate) mod table;
pub mod usage;

use std::path::Path;

use crate::diag::nearest;
use crate::error::{Error, Result};
use crate::oci::{DocumentKind, ImageRef, Layout, document_kind};

pub use image::Image;

/// The images of the layout at `layout`. People get one line for each image without a tag, everything about the images
/// of a tag with one; JSON is an array of whole images in both cases.
pub fn inspect(layout: &Path, tag: Option<&str>, json: bool) -> Result<String> {
    if !layout.exists() {
        let path = layout.display();
        return Err(Error::Usage(format!("there is no OCI layout at {path}: build something, or say --oci-dir DIR")));
    }
    let layout = Layout::open(layout)?;
    let mut images = Vec::new();
    for entry in chosen(&layout, tag)? {
        // Artifacts (signatures, attestations) are no images.
        if document_kind(entry.descriptor.media_type()) == DocumentKind::Other {
            continue;
        }
        for found in layout.manifests_of(&entry)? {
            images.push(Image::new(entry.tag.clone(), layout.read(&found)?, found.descriptor.media_type()));
        }
    }
    Ok(match (json, tag) {
        (true, _) => crate::text::json(&images),
        (false, None) => show::brief(layout.path(), &images),
        (false, Some(tag)) => show::whole(tag, &images),
    })
}

/// The entries of `index.json` that are asked for.
fn chosen(layout: &Layout, tag: Option<&str>) -> Result<Vec<ImageRef>> {
    let images = layout.images();
    let Some(tag) = tag else { return Ok(images) };
    let (named, others): (Vec<_>, Vec<_>) = images.into_iter().partition(|image| image.tag.as_deref() == Some(tag));
    if !named.is_empty() {
        return Ok(named);
    }
    let hint = match nearest(tag, others.iter().filter_map(|image| image.tag.as_deref())) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "stacker inspect without a tag lists all".to_owned(),
    };
    Err(Error::Usage(format!("there is no tag {tag:?} in the OCI layout {}; {hint}", layout.path().display())))
}
