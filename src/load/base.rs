//! `from`: what a layer starts from.

use std::ops::Range;

use crate::diag::Diagnostic;
use crate::registry::{ImageName, SCHEME};

use super::Base;
use super::imports::{LAYER, in_layer, is_remote};
use super::layer::Draft;
use super::reader::Reader;
use super::yaml::{Entry, Kind, Node};

const KEYS: [&str; 4] = ["type", "url", "tag", "insecure"];

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Docker,
    Oci,
    Tar,
    Built,
    Scratch,
}

const TYPES: [(&str, Type); 5] = [
    ("docker", Type::Docker),
    ("oci", Type::Oci),
    ("tar", Type::Tar),
    ("built", Type::Built),
    ("scratch", Type::Scratch),
];

/// A text with its place.
struct Text {
    text: String,
    span: Range<usize>,
}

pub(super) fn read(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let Kind::Mapping(entries) = &entry.value.kind else {
        return reader.wrong_type("`from`", "a map with `type`", &entry.value);
    };
    for key in entries.iter().filter(|key| !KEYS.contains(&&*key.key)) {
        let diagnostic = Diagnostic::error(format!("unknown key `{}` in `from`", key.key));
        let diagnostic = diagnostic.at(reader.place(&key.key_span), "");
        reader.push(diagnostic.did_you_mean(&key.key, KEYS));
    }
    let value = |name: &str| {
        let found = entries.iter().find(|key| &*key.key == name).map(|key| &key.value);
        found.filter(|node| node.kind != Kind::Blank)
    };
    let insecure = value("insecure").and_then(|node| reader.flag("`insecure`", node)).unwrap_or_default();
    let url = value("url").and_then(|node| text(reader, "`url`", node));
    let tag = value("tag").and_then(|node| text(reader, "`tag`", node));
    let Some(kind) = value("type") else {
        return reader.error(&entry.key_span, "`from` has no `type`");
    };
    let Some(kind) = reader.word("`type`", kind, &TYPES) else { return };
    draft.base = match kind {
        Type::Scratch => Some(Base::Scratch),
        Type::Built => needed(reader, entry, tag, "built", "tag").map(|tag| built(reader, tag)),
        Type::Docker => needed(reader, entry, url, "docker", "url").and_then(|url| docker(reader, url, insecure)),
        Type::Oci => needed(reader, entry, url, "oci", "url").and_then(|url| oci(reader, url)),
        Type::Tar => needed(reader, entry, url, "tar", "url").and_then(|url| tar(reader, url)),
    };
}

fn text(reader: &mut Reader, what: &str, node: &Node) -> Option<Text> {
    reader.text(what, node).map(|text| Text { text, span: node.span.clone() })
}

/// A key that this type cannot be without. One of a wrong type was reported already.
fn needed(reader: &mut Reader, entry: &Entry, text: Option<Text>, kind: &str, key: &str) -> Option<Text> {
    let written = matches!(&entry.value.kind, Kind::Mapping(entries)
        if entries.iter().any(|entry| &*entry.key == key && entry.value.kind != Kind::Blank));
    match text {
        Some(text) if !text.text.is_empty() => Some(text),
        None if written => None,
        _ => {
            reader.error(&entry.key_span, format!("`from` with `type: {kind}` needs `{key}`"));
            None
        }
    }
}

fn built(reader: &Reader, tag: Text) -> Base {
    Base::Built { place: reader.place(&tag.span), tag: tag.text }
}

fn docker(reader: &mut Reader, url: Text, insecure: bool) -> Option<Base> {
    if let Some(layout) = url.text.strip_prefix("oci:") {
        return oci(reader, Text { text: layout.to_owned(), span: url.span });
    }
    if !url.text.starts_with(SCHEME) {
        reader.error(&url.span, format!("`url` must start with `{SCHEME}` or `oci:`, not `{}`", url.text));
        return None;
    }
    match ImageName::parse(&url.text) {
        Ok(name) => Some(Base::Registry { name, insecure, place: reader.place(&url.span) }),
        Err(why) => {
            reader.error(&url.span, why);
            None
        }
    }
}

/// `path:tag`; the tag is what follows the first colon.
fn oci(reader: &mut Reader, url: Text) -> Option<Base> {
    let (path, tag) = match url.text.split_once(':') {
        Some((path, tag)) => (path, Some(tag.to_owned())),
        None => (url.text.as_str(), None),
    };
    if path.is_empty() || tag.as_deref() == Some("") {
        reader.error(&url.span, format!("`{}` is not `path:tag` of an OCI layout", url.text));
        return None;
    }
    Some(Base::Oci { layout: reader.beside_or_working_dir(path), tag, place: reader.place(&url.span) })
}

fn tar(reader: &mut Reader, url: Text) -> Option<Base> {
    if url.text.starts_with(LAYER) {
        let Some((layer, path)) = in_layer(&url.text) else {
            reader.error(&url.span, format!("`{}` is not `stacker://layer/path`", url.text));
            return None;
        };
        return Some(Base::LayerTar { layer, path, place: reader.place(&url.span) });
    }
    if is_remote(&url.text) {
        return match crate::http::url(&url.text) {
            Ok(found) => Some(Base::UrlTar { url: found, place: reader.place(&url.span) }),
            Err(title) => {
                reader.error(&url.span, title);
                None
            }
        };
    }
    Some(Base::Tar { path: reader.beside_or_working_dir(&url.text), place: reader.place(&url.span) })
}
