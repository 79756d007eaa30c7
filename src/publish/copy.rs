//! Publishing to a layout on disk, whose other tags stay.

use std::path::Path;

use super::tree::Tree;
use super::{Item, Request};
use crate::error::Result;
use crate::export::Export;
use crate::oci::Layout;

/// Copies (by reflink or hard link, where that can be) and tags; returns what goes to stdout.
pub(super) fn copy(request: &Request, path: &Path, items: &[Item], layout: &Layout) -> Result<String> {
    let target = Export::open(path)?;
    let mut tags = Vec::new();
    let mut lines = Vec::new();
    for item in items {
        let tree = Tree::read(layout, &item.found.descriptor)?;
        let documents = tree.documents.iter().map(|document| (document.digest, document.bytes.len() as u64));
        let blobs: Vec<_> = tree.blobs.iter().map(|(digest, size)| (*digest, *size)).chain(documents).collect();
        for tag in &request.tags {
            let there = request.target.tag(&item.name, item.kind, tag);
            target.put_copy(layout.path(), &item.found.descriptor, &blobs, &there)?;
            lines.push((there.clone(), request.target.place(&item.name, item.kind, tag)));
            tags.push(there);
        }
    }
    let written = target.commit(&tags)?;
    let mut text = String::new();
    for (tag, place) in lines {
        let Some(written) = written.iter().find(|written| written.tag == tag) else { continue };
        let what = if written.changed { "copied" } else { "nothing to copy" };
        text += &format!("{place}: {}: {what}\n", written.digest);
    }
    Ok(text)
}
