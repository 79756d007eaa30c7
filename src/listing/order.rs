//! The order of entries, in listings and in tars: a directory before its children, whiteouts before their siblings.

use std::cmp::Ordering;

use super::{Entry, Kind};

/// The order of two entries: names are compared component by component as bytes, a directory comes before what is in
/// it, and among the children of one directory the whiteouts come first, so that who unpacks in this order removes
/// before it adds.
pub fn order(a: &Entry, b: &Entry) -> Ordering {
    Place::of(a).cmp(&Place::of(b))
}

/// Where an entry stands in the order: all that a search needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub path: &'a [u8],
    pub whiteout: bool,
}

impl<'a> Place<'a> {
    pub fn of(entry: &'a Entry) -> Place<'a> {
        Place { path: &entry.path, whiteout: entry.kind == Kind::Whiteout }
    }
}

impl Ord for Place<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut left, mut right) = (components(self.path).peekable(), components(other.path).peekable());
        loop {
            let (a, b) = match (left.next(), right.next()) {
                (None, None) => return self.whiteout.cmp(&other.whiteout).reverse(),
                (None, Some(_)) => return Ordering::Less,
                (Some(_), None) => return Ordering::Greater,
                (Some(a), Some(b)) => (a, b),
            };
            let present = |last: bool, place: &Self| !(last && place.whiteout);
            let a = (present(left.peek().is_none(), self), a);
            let b = (present(right.peek().is_none(), other), b);
            match a.cmp(&b) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
    }
}

impl PartialOrd for Place<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The names in a path; none for the root.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
}

/// The directory that holds `path`, and its name in it; the root is in itself, with an empty name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// `directory/name`, or `name` in the root.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !directory.is_empty() && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Whether `path` lies below `directory` (not: is it).
pub(super) fn is_below(path: &[u8], directory: &[u8]) -> bool {
    match path.strip_prefix(directory) {
        Some(rest) if directory.is_empty() => !rest.is_empty(),
        Some(rest) => rest.first() == Some(&b'/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_before_children_and_whiteouts_before_siblings() {
        let sorted = [("", false), ("z", true), ("a", false), ("a/b", true), ("a/a", false), ("a/a/x", false)];
        let rest = [("a!", false), ("a.b", false), ("b", false), ("b/c", false)];
        let places: Vec<Place> =
            sorted.iter().chain(&rest).map(|&(path, whiteout)| Place { path: path.as_bytes(), whiteout }).collect();
        for (i, a) in places.iter().enumerate() {
            for (j, b) in places.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }
}
