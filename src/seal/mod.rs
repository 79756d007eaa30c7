//! Sealing: what a run left in its upper directory becomes a delta, a listing and a diff id that say the same.
//!
//! One pass reads the upper and decides what of it is a change (`walk`, `change`); the delta is then made equal to
//! the list, and the layer tar is a pure function of the two (`tar`). Sealing a sealed delta again changes nothing.
//! Nothing here knows of namespaces, mounts or caches.

mod change;
pub(crate) mod check;
mod content;
pub(crate) mod delta;
pub(crate) mod failure;
mod marks;
pub mod proof;
pub mod tar;
mod walk;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::action::Ids;
use crate::digest::DiffId;
use crate::listing::{self, Entry, Kind, Listing, Stack, Time, scratch_root, split};
use crate::worker::message::{Failure, Sealed};
use failure::{library, machine};
use walk::Node;

pub use content::hash as hash_file;
pub use marks::{Form, Marks};
pub(crate) use walk::check_name;
pub use walk::{Owners, Recorded};

/// What becomes of modification times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// They stay: image layers and tar bases.
    Keep,
    /// Every entry gets this one: imports.
    All(i64),
    /// What a run wrote gets the layer's time.
    Clamp {
        /// N: no time beneath is later.
        newest: i64,
        /// T: what every later time becomes.
        time: i64,
        /// When the upper directory was made; what is not older was written by the run, also where T is ahead of the clock.
        upper_made: Time,
    },
}

impl Times {
    /// The time that an entry with this time gets.
    pub fn apply(self, mtime: Time) -> Time {
        match self {
            Times::Keep => mtime,
            Times::All(time) => Time::from_seconds(time),
            Times::Clamp { newest, time, upper_made } => {
                if mtime > Time::from_seconds(newest) || mtime >= upper_made {
                    Time::from_seconds(time)
                } else {
                    mtime
                }
            }
        }
    }
}

/// Gives a fresh upper directory what the root beneath has, else an upper made under umask 077 closes `/`.
pub fn dress_root(upper: &Path, root: Option<&Entry>, ids: Ids) -> Result<(), Failure> {
    let scratch = scratch_root();
    delta::dress(upper, root.unwrap_or(&scratch), ids).map_err(|error| machine("prepare", b"", error))
}

/// Seals what a run or an import left in `upper`, over the layers `lower`: makes the delta equal to the listing that is
/// written to `listing_out`. After an error the upper is of no use any more.
pub fn seal(
    upper: &Path,
    lower: &Stack,
    form: Form,
    times: Times,
    ids: Ids,
    listing_out: &mut File,
) -> Result<Sealed, Failure> {
    let owners = match ids {
        Ids::Full => Owners::OnDisk,
        Ids::Single => Owners::Beneath,
    };
    let mut walked = walk::walk(upper, Some(lower), form, owners, true)?;
    let kept = change::kept(&walked.nodes);
    settle(&mut walked.nodes, &kept, times);
    let warnings = make_equal(upper, &walked, &kept, form.marks())?;
    finish(upper, &walked.nodes, &kept, None, warnings, listing_out)
}

/// Lists an unpacked image layer or tar base as it is: nothing is compared, times stay. The diff id of an image layer
/// is known (`tar_bytes` is then 0: its tar is not ours); a tar base's is that of our tar of it.
pub fn seal_unpacked(
    directory: &Path,
    diff_id: Option<DiffId>,
    marks: Marks,
    owners: Owners,
    listing_out: &mut File,
) -> Result<Sealed, Failure> {
    let mut walked = walk::walk(directory, None, Form::Changes(marks), owners, true)?;
    let kept = vec![true; walked.nodes.len()];
    settle(&mut walked.nodes, &kept, Times::Keep);
    let warnings = make_equal(directory, &walked, &kept, marks)?;
    finish(directory, &walked.nodes, &kept, diff_id, warnings, listing_out)
}

/// Writes the listing of an image layer that lies nowhere; the entries are in its order.
pub(crate) fn seal_listed(
    entries: &[Entry],
    diff_id: DiffId,
    warnings: Vec<String>,
    listing_out: &mut File,
) -> Result<Sealed, Failure> {
    written(&entries.iter().collect::<Vec<_>>(), Some(diff_id), warnings, listing_out).map(|(sealed, _)| sealed)
}

/// Ties the kept names of each hard-link group together and gives the kept entries their times.
fn settle(nodes: &mut [Node], kept: &[bool], times: Times) {
    let mut first = std::collections::HashMap::new();
    for (node, _) in nodes.iter_mut().zip(kept).filter(|(_, kept)| **kept) {
        node.entry.mtime = times.apply(node.entry.mtime);
        if walk::linked(node) {
            let path = first.entry(walk::inode(node)).or_insert_with(|| node.entry.path.clone());
            if *path != node.entry.path {
                node.entry.kind = Kind::HardLink { to: path.clone() };
            }
        }
    }
}

/// Makes the directory equal to the list: what is not listed goes, overlayfs's marks go, whiteouts are there, times are
/// set.
fn make_equal(upper: &Path, walked: &walk::Walked, kept: &[bool], marks: Marks) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    for path in &walked.sockets {
        std::fs::remove_file(delta::within(upper, path)).map_err(|error| machine("remove", path, error))?;
        warnings.push(format!("/{} is a socket: left out", crate::text::escape(path)));
    }
    // Children stand after their directory, so backwards they go first.
    for (node, _) in walked.nodes.iter().zip(kept).skip(1).rev().filter(|(_, kept)| !**kept) {
        let full = delta::within(upper, &node.entry.path);
        let removed = match node.entry.kind {
            Kind::Directory { .. } => std::fs::remove_dir(full),
            _ => std::fs::remove_file(full),
        };
        removed.map_err(|error| machine("remove", &node.entry.path, error))?;
    }
    let listed = || walked.nodes.iter().zip(kept).filter(|(_, kept)| **kept).map(|(node, _)| node);
    // All that is made comes before the times of the directories that it is made in.
    for node in listed().filter(|node| node.stat.is_none()) {
        let (above, name) = split(&node.entry.path);
        let made = File::open(delta::within(upper, above)).and_then(|directory| marks.whiteout(directory, name));
        made.map_err(|error| machine("mark as removed", &node.entry.path, error))?;
    }
    let root = walked.nodes.first().filter(|_| kept.first() == Some(&false));
    for node in root.into_iter().chain(listed()) {
        equalise(upper, node).map_err(|error| machine("finish", &node.entry.path, error))?;
    }
    Ok(warnings)
}

fn equalise(upper: &Path, node: &Node) -> std::io::Result<()> {
    let full = delta::within(upper, &node.entry.path);
    for name in &node.overlay {
        delta::remove_xattr(&full, name)?;
    }
    let directory = matches!(node.entry.kind, Kind::Directory { .. });
    if node.marked && node.entry.kind != (Kind::Directory { opaque: true }) {
        delta::remove_xattr(&full, delta::OPAQUE.as_bytes())?;
    }
    // A directory's time changed if something was removed from it just now.
    if directory || node.stat.is_none_or(|stat| node.entry.mtime != delta::mtime(&stat)) {
        delta::set_mtime(&full, node.entry.mtime)?;
    }
    Ok(())
}

fn finish(
    upper: &Path,
    nodes: &[Node],
    kept: &[bool],
    known: Option<DiffId>,
    warnings: Vec<String>,
    listing_out: &mut File,
) -> Result<Sealed, Failure> {
    let entries: Vec<&Entry> = nodes.iter().zip(kept).filter(|(_, kept)| **kept).map(|(node, _)| &node.entry).collect();
    let (mut sealed, text) = written(&entries, known, warnings, listing_out)?;
    if known.is_none() && !entries.is_empty() {
        let listing = Listing::from_bytes(text).map_err(|error| library("read the listing", error))?;
        let mut hasher = Sha256::new();
        sealed.tar_bytes =
            tar::write(&listing, upper, Hashed(&mut hasher)).map_err(|error| library("write the layer tar", error))?;
        sealed.diff_id = Some(DiffId(hasher.finalize().into()));
    }
    Ok(sealed)
}

/// Writes a listing; the answer is its text, and what is known of the layer without a tar.
fn written(
    entries: &[&Entry],
    known: Option<DiffId>,
    warnings: Vec<String>,
    listing_out: &mut File,
) -> Result<(Sealed, Vec<u8>), Failure> {
    let mut text = Vec::new();
    listing::write(entries.iter().copied(), &mut text)
        .and_then(|()| listing_out.write_all(&text))
        .map_err(|error| Failure { step: "write the listing".into(), ..machine("", b"", error) })?;
    let size = |entry: &&Entry| match entry.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    };
    let sealed = Sealed {
        diff_id: known,
        newest: entries.iter().map(|entry| entry.mtime).max().unwrap_or_default(),
        entries: entries.len() as u64,
        bytes: entries.iter().map(size).sum(),
        tar_bytes: 0,
        warnings,
    };
    Ok((sealed, text))
}

/// A hasher as a writer.
struct Hashed<'a>(&'a mut Sha256);

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
