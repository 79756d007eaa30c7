//! Following symbolic links inside an image, by its listings alone.

use super::order::{components, join};
use super::{Entry, Kind, Stack, View};
use crate::text::escape;
use crate::{Error, Result};

/// As the kernel's limit.
const LINKS: usize = 40;

/// Where a path leads inside an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Without links and dots, no leading slash.
    pub path: Vec<u8>,
    /// What stands there; `None` when nothing does yet.
    pub entry: Option<Entry>,
}

impl Stack {
    /// Follows `path` as a process in the image would: absolute links start at the image's root, and `..` never leaves
    /// it. What does not exist is kept as written: what exists is resolved, the rest appended.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Resolved> {
        let mut names: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut views: Vec<View> = vec![self.root()];
        let mut entry = self.root().itself()?.map(|lower| lower.entry);
        // Directories that do not exist yet, and a last name that is no directory.
        let mut rest: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = names.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    if rest.pop().is_none() && views.len() > 1 {
                        views.pop();
                    }
                    entry = if rest.is_empty() { top(&views).itself()?.map(|lower| lower.entry) } else { None };
                    continue;
                }
                _ => {}
            }
            if let Some(Entry { kind, path: file, .. }) = &entry
                && !matches!(kind, Kind::Directory { .. })
            {
                return Err(Error::Build(format!("{}: {} is not a directory", escape(path), escape(file))));
            }
            let child = if rest.is_empty() { top(&views).child(&name)? } else { None };
            match child.map(|lower| lower.entry) {
                Some(Entry { kind: Kind::Symlink { target }, .. }) if follow_last || !names.is_empty() => {
                    links += 1;
                    if links > LINKS {
                        return Err(Error::Build(format!("{}: too many levels of symbolic links", escape(path))));
                    }
                    if target.first() == Some(&b'/') {
                        views.truncate(1);
                    }
                    names.extend(components(&target).rev().map(<[u8]>::to_vec));
                    entry = top(&views).itself()?.map(|lower| lower.entry);
                }
                Some(found) => {
                    if let Kind::Directory { .. } = found.kind {
                        views.push(top(&views).directory(&name)?);
                    } else {
                        rest.push(name);
                    }
                    entry = Some(found);
                }
                None => {
                    rest.push(name);
                    entry = None;
                }
            }
        }
        let path = rest.iter().fold(top(&views).path().to_vec(), |path, name| join(&path, name));
        Ok(Resolved { path, entry })
    }
}

fn top<'v, 'a>(views: &'v [View<'a>]) -> &'v View<'a> {
    views.last().expect("the root is never popped")
}
