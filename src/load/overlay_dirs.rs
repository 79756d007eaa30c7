//! `overlay_dirs`: directories of the host that are laid over the root filesystem.

use crate::action::Attributes;

use super::imports::dest;
use super::layer::Draft;
use super::reader::Reader;
use super::yaml::{Entry, Kind, Node};
use super::{Import, Source, Written};

const KEYS: [&str; 2] = ["source", "dest"];

/// Reads the directive.
pub(super) fn read(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let Kind::Sequence(nodes) = &entry.value.kind else {
        return reader.wrong_type("`overlay_dirs`", "a list of maps with `source`", &entry.value);
    };
    draft.overlay_dirs = nodes.iter().filter_map(|node| read_one(reader, node)).collect();
}

fn read_one(reader: &mut Reader, node: &Node) -> Option<Import> {
    let Kind::Mapping(entries) = &node.kind else {
        reader.wrong_type("an entry of `overlay_dirs`", "a map with `source`", node);
        return None;
    };
    for entry in entries.iter().filter(|entry| !KEYS.contains(&&*entry.key)) {
        reader.unknown_key(entry, "an entry of `overlay_dirs`", KEYS);
    }
    let value = |name: &str| {
        let found = entries.iter().find(|entry| &*entry.key == name).map(|entry| &entry.value);
        found.filter(|node| node.kind != Kind::Blank)
    };
    // All of the map is read before anything can end it, so that everything wrong in it is told.
    let dest = value("dest").map_or_else(|| Some("/".to_owned()), |node| dest(reader, node));
    let Some(source) = value("source") else {
        reader.error(&node.span, "an entry of `overlay_dirs` needs a `source`");
        return None;
    };
    let path = reader.text("`source`", source)?;
    if path.is_empty() {
        reader.error(&source.span, "`source` must name a directory");
        return None;
    }
    Some(Import {
        written: Written::OverlayDirs,
        place: reader.place(&source.span),
        // The contents are meant, with a slash or without.
        source: Source::Host { path: reader.beside(&path), trailing_slash: true },
        dest: Some(dest?),
        attributes: Attributes::default(),
        hash: None,
    })
}
