//! Import trees: what they are (a digest without times) and how overrides change them.

use std::collections::HashMap;

use super::line::{self, Times};
use super::{Entry, Kind};
use crate::action::Attributes;
use crate::digest::TreeDigest;

const FIRST_LINE: &str = "stacker tree 1\n";

/// What an import tree *is*: names, types, modes, owners, attributes, contents and link texts, never times.
///
/// The entries are sorted by [`super::order`], with paths relative to the tree's root (whose own path is empty). A hard
/// link counts as a file of its own: an import brings contents, not the links between them.
pub fn tree_digest(entries: &[Entry]) -> TreeDigest {
    let mut files: HashMap<&[u8], &Kind> = HashMap::new();
    let mut hasher = blake3::Hasher::new();
    let mut text = FIRST_LINE.to_owned();
    for entry in entries {
        let kind = match &entry.kind {
            Kind::HardLink { to } => files.get(to.as_slice()).copied().unwrap_or(&entry.kind),
            Kind::Directory { .. } => &Kind::Directory { opaque: false },
            kind => kind,
        };
        files.insert(&entry.path, kind);
        line::encode(&Entry { kind: kind.clone(), ..entry.clone() }, Times::Omitted, &mut text);
        hasher.update(text.as_bytes());
        text.clear();
    }
    hasher.update(text.as_bytes());
    TreeDigest(*hasher.finalize().as_bytes())
}

/// Applies overrides: files get the mode as it is, directories with the execute bits that go with its read bits,
/// symbolic links keep theirs; the owner is everybody's.
pub fn apply(attributes: &Attributes, entry: &mut Entry) {
    let Attributes { mode, uid, gid } = *attributes;
    match (&entry.kind, mode) {
        (Kind::Whiteout, _) => return,
        (Kind::Symlink { .. }, _) | (_, None) => {}
        (Kind::Directory { .. }, Some(mode)) => entry.mode = mode | (mode & 0o444) >> 2,
        (Kind::File { .. } | Kind::HardLink { .. } | Kind::Fifo, Some(mode)) => entry.mode = mode,
    }
    entry.uid = uid.unwrap_or(entry.uid);
    entry.gid = gid.unwrap_or(entry.gid);
}
