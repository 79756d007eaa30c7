//! The listings of a chain, seen as the one tree that an overlay mount of its layers shows.
//!
//! A [`View`] is a directory of that tree: it knows which layers have a say in it, so that looking up a child asks
//! those alone. It relies on what sealing guarantees: every directory that leads to an entry is listed too.

use std::collections::BTreeMap;

use super::order::{components, join};
use super::{Entry, Kind, Listing};
use crate::Result;

/// The listings of a chain, bottom first.
#[derive(Debug, Default)]
pub struct Stack {
    listings: Vec<Listing>,
}

/// A directory of the merged tree.
#[derive(Clone, Debug)]
pub struct View<'a> {
    stack: &'a Stack,
    path: Vec<u8>,
    /// The layers whose directory shows here, topmost first.
    layers: Vec<usize>,
}

/// What stands at a path of the merged tree, and which layer brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lower {
    /// With its own path; a hard link is what it is a link to, and no directory is opaque.
    pub entry: Entry,
    /// Index of the listing.
    pub layer: usize,
    /// The first name of the hard-link group in that layer; the path itself when it is no link.
    pub first: Vec<u8>,
}

impl Stack {
    /// A chain's listings, bottom first; none for scratch.
    pub fn new(listings: Vec<Listing>) -> Stack {
        Stack { listings }
    }

    /// What stands at `path`.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Entry>> {
        Ok(self.lower(path)?.map(|lower| lower.entry))
    }

    /// The children of a directory; none when there is no such directory.
    pub fn children(&self, path: &[u8]) -> Result<Vec<Entry>> {
        self.view(path)?.children()
    }

    /// `path` and all below it, with paths relative to it; empty when there is no such path.
    pub fn subtree(&self, path: &[u8]) -> Result<Vec<Entry>> {
        let path: Vec<u8> = components(path).collect::<Vec<_>>().join(&b'/');
        let mut entries = Vec::new();
        let Some(mut root) = self.lookup(&path)? else { return Ok(entries) };
        let mut pending = vec![];
        if let Kind::Directory { .. } = root.kind {
            pending.push(self.view(&path)?.children_views()?.into_iter());
        }
        root.path.clear();
        entries.push(root);
        let relative = |full: &[u8]| full[if path.is_empty() { 0 } else { path.len() + 1 }..].to_vec();
        while let Some(children) = pending.last_mut() {
            let Some((mut child, view)) = children.next() else {
                pending.pop();
                continue;
            };
            child.path = relative(&child.path);
            entries.push(child);
            if let Some(view) = view {
                pending.push(view.children_views()?.into_iter());
            }
        }
        Ok(entries)
    }

    /// The index of the listing that provides what stands at `path`.
    pub fn layer_of(&self, path: &[u8]) -> Result<Option<usize>> {
        Ok(self.lower(path)?.map(|lower| lower.layer))
    }

    /// The root directory; it exists in every stack.
    pub fn root(&self) -> View<'_> {
        View { stack: self, path: Vec::new(), layers: (0..self.listings.len()).rev().collect() }
    }

    fn view(&self, path: &[u8]) -> Result<View<'_>> {
        components(path).try_fold(self.root(), |view, name| view.directory(name))
    }

    fn lower(&self, path: &[u8]) -> Result<Option<Lower>> {
        let names: Vec<&[u8]> = components(path).collect();
        let Some((last, directories)) = names.split_last() else { return self.root().itself() };
        directories.iter().try_fold(self.root(), |view, name| view.directory(name))?.child(last)
    }
}

impl<'a> View<'a> {
    /// A directory that hides everything beneath it.
    pub fn nothing(&self, name: &[u8]) -> View<'a> {
        View { stack: self.stack, path: join(&self.path, name), layers: Vec::new() }
    }

    /// Where it is, no leading slash.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The directory's own entry.
    pub fn itself(&self) -> Result<Option<Lower>> {
        for &layer in &self.layers {
            if let Some(entry) = self.stack.listings[layer].entry(&self.path)? {
                return Ok(Some(Lower { entry: visible(entry), layer, first: self.path.clone() }));
            }
        }
        Ok(None)
    }

    /// What stands at `name` in this directory.
    pub fn child(&self, name: &[u8]) -> Result<Option<Lower>> {
        let path = join(&self.path, name);
        for &layer in &self.layers {
            let listing = &self.stack.listings[layer];
            if let Some(entry) = listing.entry(&path)? {
                return resolved(listing, entry, layer).map(Some);
            }
            if listing.whites_out(&path)? {
                break;
            }
        }
        Ok(None)
    }

    /// The directory `name` in this one; one without layers when that is no directory.
    pub fn directory(&self, name: &[u8]) -> Result<View<'a>> {
        let mut view = self.nothing(name);
        for &layer in &self.layers {
            let listing = &self.stack.listings[layer];
            let entry = listing.entry(&view.path)?;
            match entry.map(|entry| entry.kind) {
                Some(Kind::Directory { opaque }) => {
                    view.layers.push(layer);
                    if opaque {
                        break;
                    }
                }
                Some(_) => break,
                None => {}
            }
            if listing.whites_out(&view.path)? {
                break;
            }
        }
        Ok(view)
    }

    /// Whether a directory stands here (the root of an empty stack does, in a way that no layer says).
    pub fn exists(&self) -> bool {
        !self.layers.is_empty()
    }

    /// The children in order, of all layers.
    pub fn children(&self) -> Result<Vec<Entry>> {
        let mut merged: BTreeMap<Vec<u8>, Option<Entry>> = BTreeMap::new();
        for &layer in &self.layers {
            let listing = &self.stack.listings[layer];
            let mut hidden = Vec::new();
            for entry in listing.children(&self.path)? {
                if entry.kind == Kind::Whiteout {
                    hidden.push(entry.path);
                } else if !merged.contains_key(&entry.path) {
                    let lower = resolved(listing, entry, layer)?;
                    merged.insert(lower.entry.path.clone(), Some(lower.entry));
                }
            }
            // A whiteout hides what is beneath its layer, not what the layer itself brings.
            for path in hidden {
                merged.entry(path).or_insert(None);
            }
        }
        Ok(merged.into_values().flatten().collect())
    }

    fn children_views(&self) -> Result<Vec<(Entry, Option<View<'a>>)>> {
        let with_view = |entry: Entry| {
            let directory = matches!(entry.kind, Kind::Directory { .. });
            let name = super::order::split(&entry.path).1;
            let view = if directory { Some(self.directory(name)?) } else { None };
            Ok((entry, view))
        };
        self.children()?.into_iter().map(with_view).collect()
    }
}

fn visible(mut entry: Entry) -> Entry {
    if let Kind::Directory { opaque } = &mut entry.kind {
        *opaque = false;
    }
    entry
}

fn resolved(listing: &Listing, mut entry: Entry, layer: usize) -> Result<Lower> {
    let mut first = entry.path.clone();
    if let Kind::HardLink { to } = &entry.kind {
        first = to.clone();
        let file = listing.entry(&first)?.filter(|file| matches!(file.kind, Kind::File { .. } | Kind::Fifo));
        let Some(file) = file else {
            let (link, file) = (crate::text::escape(&entry.path), crate::text::escape(&first));
            return Err(crate::Error::Machine(format!(
                "a listing is damaged: {link} links to {file}, which is no file"
            )));
        };
        entry = Entry { path: entry.path, ..file };
    }
    Ok(Lower { entry: visible(entry), layer, first })
}
