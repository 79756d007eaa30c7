//! Answers to the Decider's questions about what lies in layers, from their listings alone.

use crate::decide::{Answer, SourceKind};
use crate::digest::TreeDigest;
use crate::error::{Error, Result};
use crate::listing::{Kind, Stack};
use crate::text::{escape, unescape};

/// What lies at a path: its tree digest, and the path with links followed.
pub fn tree(stack: &Stack, path: &str) -> Result<(Answer, Vec<crate::listing::Entry>)> {
    let resolved = stack.resolve(path.trim_matches('/').as_bytes(), true)?;
    let Some(entry) = resolved.entry else { return Ok((Answer::Nothing, vec![])) };
    let kind = match entry.kind {
        Kind::Directory { .. } => SourceKind::Directory,
        _ => SourceKind::File,
    };
    let entries = stack.subtree(&resolved.path)?;
    let tree = crate::listing::tree_digest(&entries);
    Ok((Answer::Tree { tree, kind, resolved: resolved.path }, entries))
}

/// What the file at a path holds, links followed.
pub fn content(stack: &Stack, path: &str) -> Result<Answer> {
    let resolved = stack.resolve(path.trim_matches('/').as_bytes(), true)?;
    Ok(match resolved.entry.map(|entry| entry.kind) {
        Some(Kind::File { content, .. }) => Answer::Content { content, resolved: resolved.path },
        Some(_) => Answer::NoFile,
        None => Answer::Nothing,
    })
}

/// Where a `dest` import ends up once the links of the base are followed (the table in the documentation of `imports`).
pub fn place(stack: &Stack, dest: &str, basename: &str, kind: SourceKind, contents: bool) -> Result<Answer> {
    let inside = format!("{}/{basename}", dest.trim_end_matches('/'));
    let path = match (kind, dest.ends_with('/')) {
        (SourceKind::File, true) => resolve(stack, &inside, false)?.0,
        (SourceKind::File, false) => match resolve(stack, dest, true)? {
            (_, true) if basename.is_empty() => {
                let why = "is a directory, and the import has no name of its own that it could have there";
                return Err(Error::Build(format!("{dest} {why}")));
            }
            (directory, true) => [directory.as_slice(), b"/", basename.as_bytes()].concat(),
            (_, false) => resolve(stack, dest, false)?.0,
        },
        (SourceKind::Directory, slash) => {
            let target = if slash && !contents { &inside } else { dest };
            match resolve(stack, target, true)? {
                (directory, true) => directory,
                // A link to something else is replaced, not followed.
                (_, false) => resolve(stack, target, false)?.0,
            }
        }
    };
    let path: Vec<u8> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'/');
    Ok(match String::from_utf8(path) {
        Ok(path) => Answer::Place(format!("/{path}")),
        Err(_) => Answer::Nothing,
    })
}

/// The resolved path, and whether a directory is there.
fn resolve(stack: &Stack, path: &str, follow_last: bool) -> Result<(Vec<u8>, bool)> {
    let resolved = stack.resolve(path.trim_matches('/').as_bytes(), follow_last)?;
    let directory = matches!(resolved.entry.map(|entry| entry.kind), Some(Kind::Directory { .. }));
    Ok((resolved.path, directory))
}

/// How an answer is remembered in the database.
pub fn to_text(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Tree { tree, kind, resolved } => {
            let kind = if *kind == SourceKind::File { "file" } else { "directory" };
            Some(format!("{tree} {kind} {}", escape(resolved)))
        }
        Answer::Content { content, resolved } => Some(format!("{content} {}", escape(resolved))),
        Answer::Place(place) => Some(escape(place.as_bytes())),
        _ => None,
    }
}

/// The inverse of [`to_text`] for a tree.
pub fn tree_from_text(text: &str) -> Option<Answer> {
    let mut words = text.split(' ');
    let tree: TreeDigest = words.next()?.parse().ok()?;
    let kind = match words.next()? {
        "file" => SourceKind::File,
        "directory" => SourceKind::Directory,
        _ => return None,
    };
    Some(Answer::Tree { tree, kind, resolved: unescape(words.next()?.as_bytes())? })
}

/// The inverse of [`to_text`] for a content.
pub fn content_from_text(text: &str) -> Option<Answer> {
    let (content, resolved) = text.split_once(' ')?;
    Some(Answer::Content { content: content.parse().ok()?, resolved: unescape(resolved.as_bytes())? })
}

/// The inverse of [`to_text`] for a place.
pub fn place_from_text(text: &str) -> Option<Answer> {
    String::from_utf8(unescape(text.as_bytes())?).ok().map(Answer::Place)
}
