//! How two listings differ, file by file.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::ContentDigest;
use crate::error::Result;
use crate::listing::{Entry, Kind, Listing};

/// So many files a reason names.
const NAMED: usize = 20;

/// The files that differ between two trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Files {
    /// The first twenty of them.
    pub first: Vec<FileChange>,
    /// How many they are.
    pub count: usize,
}

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileChange {
    /// Path in the tree; empty for its root.
    pub path: String,
    /// How.
    pub how: FileHow,
    /// Of one that was moved: where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// How a file differs. What else differs of it is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileHow {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is at another path.
    Moved,
    /// It is something else: a file, directory, link, pipe.
    Type,
    /// Its bytes are others.
    Content,
    /// It is executable, and was not.
    Executable,
    /// It was executable, and is not.
    NotExecutable,
    /// Its mode is another.
    Mode,
    /// The link leads elsewhere.
    LinkTarget,
    /// Its owner or group is another.
    Owner,
    /// Its extended attributes are others.
    Attributes,
    /// Its time is another. Only layers have such.
    Time,
}

impl Files {
    /// Of all that differ.
    pub fn of(mut changes: Vec<FileChange>) -> Files {
        let count = changes.len();
        changes.truncate(NAMED);
        Files { first: changes, count }
    }

    /// What differs between two listings: times count only where they are those of layers.
    pub fn between(old: &Listing, new: &Listing, times: bool) -> Result<Files> {
        let entries = |listing: &Listing| -> Result<BTreeMap<Vec<u8>, Entry>> {
            listing.entries().map(|entry| entry.map(|entry| (entry.path.clone(), entry))).collect()
        };
        Ok(Files::of(compare_files(&entries(old)?, &entries(new)?, times)))
    }
}

/// The files that differ between two trees, by path. Directories that came or went with what is in them are left out.
pub fn compare_files(old: &BTreeMap<Vec<u8>, Entry>, new: &BTreeMap<Vec<u8>, Entry>, times: bool) -> Vec<FileChange> {
    let mut changes = Vec::new();
    for (path, entry) in new {
        match old.get(path) {
            None => changes.push((path, FileHow::Added)),
            Some(before) => changes.extend(how(before, entry, times).map(|how| (path, how))),
        }
    }
    changes.extend(old.keys().filter(|path| !new.contains_key(*path)).map(|path| (path, FileHow::Removed)));
    changes.sort_by_key(|(path, _)| *path);
    let moved = moved(&changes, old, new);
    let mut told = Vec::new();
    for (at, (path, how)) in changes.iter().enumerate() {
        let within = changes.get(at + 1).is_some_and(|(next, same)| same == how && is_in(next, path));
        let directory = new.get(*path).or(old.get(*path)).is_some_and(is_directory);
        let gone = moved.values().any(|from| from == path);
        if within && directory && matches!(how, FileHow::Added | FileHow::Removed) || gone {
            continue;
        }
        let from = moved.get(path).map(|from| text(from));
        told.push(FileChange { path: text(path), how: if from.is_some() { FileHow::Moved } else { *how }, from });
    }
    told
}

/// Files with the same content that were at one path and are at another, where there is but one of each: from where, by
/// where they are.
fn moved<'a>(
    changes: &[(&'a Vec<u8>, FileHow)],
    old: &BTreeMap<Vec<u8>, Entry>,
    new: &BTreeMap<Vec<u8>, Entry>,
) -> HashMap<&'a Vec<u8>, &'a Vec<u8>> {
    // Where it was, and where it is.
    let mut places: HashMap<ContentDigest, [Vec<&Vec<u8>>; 2]> = HashMap::new();
    for (path, how) in changes {
        let (side, entry) = match how {
            FileHow::Removed => (0, old.get(*path)),
            FileHow::Added => (1, new.get(*path)),
            _ => continue,
        };
        if let Some(Entry { kind: Kind::File { size: 1.., content }, .. }) = entry {
            places.entry(*content).or_default()[side].push(path);
        }
    }
    places.into_values().filter_map(|[from, to]| Some((single(&to)?, single(&from)?))).collect()
}

fn single<'a>(paths: &[&'a Vec<u8>]) -> Option<&'a Vec<u8>> {
    if let [path] = paths { Some(path) } else { None }
}

/// How an entry differs from another one at the same path, if it does.
fn how(old: &Entry, new: &Entry, times: bool) -> Option<FileHow> {
    let Entry { path: _, kind, mode, uid, gid, mtime, xattrs } = new;
    match (&old.kind, kind) {
        (before, after) if std::mem::discriminant(before) != std::mem::discriminant(after) => Some(FileHow::Type),
        (Kind::Symlink { target: before }, Kind::Symlink { target: after }) if before != after => {
            Some(FileHow::LinkTarget)
        }
        (before, after) if before != after => Some(FileHow::Content),
        _ if old.mode & 0o111 == 0 && mode & 0o111 != 0 => Some(FileHow::Executable),
        _ if old.mode & 0o111 != 0 && mode & 0o111 == 0 => Some(FileHow::NotExecutable),
        _ if old.mode != *mode => Some(FileHow::Mode),
        _ if (old.uid, old.gid) != (*uid, *gid) => Some(FileHow::Owner),
        _ if old.xattrs != *xattrs => Some(FileHow::Attributes),
        _ if times && old.mtime != *mtime => Some(FileHow::Time),
        _ => None,
    }
}

fn is_in(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/") || directory.is_empty())
}

fn is_directory(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Directory { .. })
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
