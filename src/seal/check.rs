//! What lies in the store, listed once more, and where that differs from a listing. Nothing is changed.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use super::walk::{self, Owners, Walked};
use super::{Form, Marks, Times, finish, settle};
use crate::digest::DiffId;
use crate::listing::{Entry, Kind, order};
use crate::text::escape;
use crate::worker::message::{Failure, Sealed};

/// A directory as it is now.
pub(crate) struct Relisted(Walked);

/// Lists a delta as sealing did.
pub(crate) fn delta(directory: &Path, marks: Marks, contents: bool) -> Result<Relisted, Failure> {
    let mut walked = walk::walk(directory, None, Form::Changes(marks), Owners::OnDisk, contents)?;
    let kept = vec![true; walked.nodes.len()];
    settle(&mut walked.nodes, &kept, Times::Keep);
    Ok(Relisted(walked))
}

/// Lists a whole root filesystem, where every name of a file is a file, as in the view of a stack.
pub(crate) fn tree(directory: &Path, marks: Marks, contents: bool) -> Result<Relisted, Failure> {
    Ok(Relisted(walk::walk(directory, None, Form::Changes(marks), Owners::OnDisk, contents)?))
}

impl Relisted {
    /// Takes the owners from a listing, where all files belong to `one` on disk.
    pub fn take_owners(&mut self, listed: &[Entry], one: (u32, u32)) {
        let owners: HashMap<&[u8], (u32, u32)> =
            listed.iter().map(|entry| (&*entry.path, (entry.uid, entry.gid))).collect();
        for entry in self.0.nodes.iter_mut().map(|node| &mut node.entry) {
            if let Some(owner) = owners.get(&*entry.path).filter(|_| (entry.uid, entry.gid) == one) {
                (entry.uid, entry.gid) = *owner;
            }
        }
    }

    /// The first thing in which it is not what was listed; contents are compared if they were read.
    pub fn difference(&self, listed: &[Entry], contents: bool) -> Option<String> {
        if let Some(socket) = self.0.sockets.first() {
            return Some(format!("{} is a socket", name(socket)));
        }
        if let Some(node) = self.0.nodes.iter().find(|node| !node.overlay.is_empty()) {
            return Some(format!("{} has marks of overlayfs", name(&node.entry.path)));
        }
        let mut found = self.0.nodes.iter().map(|node| &node.entry);
        let mut listed = listed.iter();
        loop {
            match (listed.next(), found.next()) {
                (None, None) => return None,
                (Some(listed), None) => return Some(format!("{} is gone", name(&listed.path))),
                (None, Some(found)) => return Some(format!("{} should not be there", name(&found.path))),
                (Some(listed), Some(found)) => match order(listed, found) {
                    Ordering::Less => return Some(format!("{} is gone", name(&listed.path))),
                    Ordering::Greater => return Some(format!("{} should not be there", name(&found.path))),
                    Ordering::Equal => {
                        if let Some(fact) = differs(listed, found, contents) {
                            return Some(format!("{}: {fact}", name(&found.path)));
                        }
                    }
                },
            }
        }
    }

    /// The listing of it, and what sealing would say. Contents must have been read.
    pub fn finish(&self, directory: &Path, known: Option<DiffId>, listing_out: &mut File) -> Result<Sealed, Failure> {
        let kept = vec![true; self.0.nodes.len()];
        finish(directory, &self.0.nodes, &kept, known, Vec::new(), listing_out)
    }
}

fn differs(listed: &Entry, found: &Entry, contents: bool) -> Option<String> {
    let fact = |name: &str, found: String, listed: String| Some(format!("{name} {found}, should be {listed}"));
    match (&listed.kind, &found.kind) {
        (Kind::File { size: listed, .. }, Kind::File { size: found, .. }) if listed != found => {
            return fact("size", found.to_string(), listed.to_string());
        }
        (Kind::File { .. }, Kind::File { .. }) if contents && listed.kind != found.kind => {
            return Some("another content".to_owned());
        }
        (Kind::File { .. }, Kind::File { .. }) => {}
        (Kind::Symlink { target: listed }, Kind::Symlink { target: found }) if listed != found => {
            return fact("leads to", escape(found), escape(listed));
        }
        (listed, found) if listed != found => return fact("is", word(found), word(listed)),
        _ => {}
    }
    if listed.mode != found.mode {
        return fact("mode", format!("{:o}", found.mode), format!("{:o}", listed.mode));
    }
    if (listed.uid, listed.gid) != (found.uid, found.gid) {
        return fact("owner", format!("{}:{}", found.uid, found.gid), format!("{}:{}", listed.uid, listed.gid));
    }
    if listed.mtime != found.mtime {
        let text = |entry: &Entry| format!("{}.{:09}", entry.mtime.seconds, entry.mtime.nanos);
        return fact("time", text(found), text(listed));
    }
    (listed.xattrs != found.xattrs).then(|| "other extended attributes".to_owned())
}

fn name(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { format!("/{}", escape(path)) }
}

fn word(kind: &Kind) -> String {
    match kind {
        Kind::File { .. } => "a file".to_owned(),
        Kind::Directory { opaque: true } => "an opaque directory".to_owned(),
        Kind::Directory { opaque: false } => "a directory".to_owned(),
        Kind::Symlink { .. } => "a link".to_owned(),
        Kind::HardLink { to } => format!("a name of {}", name(to)),
        Kind::Fifo => "a fifo".to_owned(),
        Kind::Whiteout => "a whiteout".to_owned(),
    }
}
