//! `imports`, and its old spelling `import`: files for the build and the image.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::action::Attributes;
use crate::diag::Diagnostic;
use crate::http;
use crate::worker::sandbox::OWN_NAMES;

use super::layer::Draft;
use super::reader::Reader;
use super::yaml::{Entry, Kind, Node};
use super::{Import, Source, Written};

const KEYS: [&str; 6] = ["path", "hash", "dest", "mode", "uid", "gid"];

/// Owners inside an image are 0..65,536.
const IDS: u32 = 65_536;

static SCHEME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[A-Za-z][A-Za-z0-9+.-]*://").expect("the pattern is constant"));

/// Reads the directive. A text is a list of one.
pub(super) fn read(reader: &mut Reader, draft: &mut Draft, entry: &Entry, written: Written) {
    check_spelling(reader, draft, entry, written);
    let read = |node| read_one(reader, node).map(|import| Import { written, ..import });
    let imports: Vec<Import> = match &entry.value.kind {
        Kind::Sequence(nodes) => nodes.iter().filter_map(read).collect(),
        Kind::Scalar(_) => [&entry.value].into_iter().filter_map(read).collect(),
        _ => {
            let what = format!("`{}`", entry.key);
            return reader.wrong_type(&what, "a text, or a list of texts and maps", &entry.value);
        }
    };
    check_names(reader, &imports);
    draft.imports.extend(imports);
}

/// The old spelling works, but not beside the new one.
fn check_spelling(reader: &mut Reader, draft: &mut Draft, entry: &Entry, written: Written) {
    if written == Written::Import {
        let diagnostic = Diagnostic::warning("`import` is deprecated").at(reader.place(&entry.key_span), "");
        reader.push(diagnostic.help("write `imports`; its files are in /stacker/imports, no longer in /stacker too"));
    }
    if let Some(other) = &draft.imports_span {
        let diagnostic = Diagnostic::error("a layer cannot have both `imports` and `import`");
        reader.push(diagnostic.at(reader.place(&entry.key_span), "").at(reader.place(other), "the other"));
    }
    draft.imports_span = Some(entry.key_span.clone());
}

fn read_one(reader: &mut Reader, node: &Node) -> Option<Import> {
    match &node.kind {
        Kind::Scalar(path) => import(reader, path, false, &node.span),
        Kind::Mapping(entries) => read_map(reader, node, entries),
        Kind::Blank => {
            reader.error(&node.span, "an import needs a path");
            None
        }
        Kind::Sequence(_) => {
            reader.wrong_type("an import", "a text or a map", node);
            None
        }
    }
}

fn read_map(reader: &mut Reader, node: &Node, entries: &[Entry]) -> Option<Import> {
    for entry in entries.iter().filter(|entry| !KEYS.contains(&&*entry.key)) {
        reader.unknown_key(entry, "an import", KEYS);
    }
    let value = |name: &str| {
        let found = entries.iter().find(|entry| &*entry.key == name).map(|entry| &entry.value);
        found.filter(|node| node.kind != Kind::Blank)
    };
    let path = value("path").map(|node| (reader.text("`path`", node), &node.span));
    // All of the map is read before the path can end it, so that everything wrong in it is told.
    let dest = value("dest").map(|node| dest(reader, node));
    let hash = value("hash").and_then(|node| hash(reader, node));
    let hashed = value("hash").is_some();
    let named = path.as_ref().and_then(|(path, _)| path.clone()).unwrap_or_default();
    let attributes = Attributes {
        mode: value("mode").and_then(|node| reader.mode("`mode`", node)),
        uid: value("uid").and_then(|node| id(reader, "uid", &named, node)),
        gid: value("gid").and_then(|node| id(reader, "gid", &named, node)),
    };
    match (path, dest) {
        (Some((Some(path), span)), None) => Some(Import { hash, attributes, ..import(reader, &path, hashed, span)? }),
        (Some((Some(path), span)), Some(Some(dest))) => {
            let dest = Some(dest);
            Some(Import { dest, hash, attributes, ..import(reader, &path, hashed, span)? })
        }
        // Without its `dest` it would be taken for a mounted one.
        (Some(_), _) => None,
        (None, _) => {
            reader.error(&node.span, "an import needs a `path`");
            None
        }
    }
}

/// An import of this path with nothing else said, but that its map may have a `hash`.
fn import(reader: &mut Reader, path: &str, hashed: bool, span: &Range<usize>) -> Option<Import> {
    if reader.require_hash && !hashed && is_remote(path) {
        reader.error(span, format!("import `{path}` has no `hash`, which --require-hash asks for"));
        return None;
    }
    let source = match source(reader, path) {
        Ok(source) => source,
        Err(title) => {
            reader.error(span, title);
            return None;
        }
    };
    Some(Import {
        written: Written::Imports,
        place: reader.place(span),
        source,
        dest: None,
        attributes: Attributes::default(),
        hash: None,
    })
}

/// Whether it is on a server.
pub(super) fn is_remote(path: &str) -> bool {
    let is_http = |scheme: &str| ["http://", "https://"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    SCHEME.find(path).is_some_and(|scheme| is_http(scheme.as_str()))
}

fn source(reader: &Reader, path: &str) -> Result<Source, String> {
    if path.is_empty() {
        return Err("an import needs a path".to_owned());
    }
    if path.starts_with(LAYER) {
        let named = in_layer(path).map(|(layer, path)| Source::Layer { layer, path });
        return named.ok_or_else(|| format!("`{path}` is not `stacker://layer/path`"));
    }
    if is_remote(path) {
        return http::url(path).map(|url| Source::Url { url });
    }
    match SCHEME.find(path).map(|scheme| scheme.as_str()) {
        Some(scheme) => Err(format!("an import cannot come from `{scheme}`")),
        None => Ok(Source::Host { path: reader.beside(path), trailing_slash: path.ends_with('/') }),
    }
}

/// How the URLs of what lies in layers begin.
pub(super) const LAYER: &str = "stacker://";

/// Layer and absolute path of `stacker://layer/path`.
pub(super) fn in_layer(url: &str) -> Option<(String, String)> {
    let (layer, path) = url.strip_prefix(LAYER)?.split_once('/')?;
    (!layer.is_empty()).then(|| (layer.to_owned(), format!("/{path}")))
}

/// An absolute path in the image.
pub(super) fn dest(reader: &mut Reader, node: &Node) -> Option<String> {
    let text = reader.text("`dest`", node)?;
    absolute(reader, &text, &node.span)
}

/// The same, written elsewhere.
pub(super) fn absolute(reader: &mut Reader, text: &str, span: &Range<usize>) -> Option<String> {
    if !text.starts_with('/') {
        reader.error(span, format!("`dest` must be absolute, not `{text}`"));
        return None;
    }
    if text.split('/').any(|part| part == "..") {
        reader.error(span, format!("`dest` must not hold `..`: `{text}`"));
        return None;
    }
    if text.contains('\0') {
        reader.error(span, "`dest` must not hold a zero byte");
        return None;
    }
    Some(text.to_owned())
}

/// 64 hexadecimal digits, either case.
fn hash(reader: &mut Reader, node: &Node) -> Option<[u8; 32]> {
    let text = reader.text("`hash`", node)?;
    match text.to_ascii_lowercase().parse::<Sha256>() {
        Ok(Sha256(bytes)) => Some(bytes),
        Err(()) => {
            reader.error(&node.span, format!("`hash` must be the 64 hexadecimal digits of a sha256, not `{text}`"));
            None
        }
    }
}

struct Sha256([u8; 32]);

impl std::str::FromStr for Sha256 {
    type Err = ();
    fn from_str(text: &str) -> Result<Sha256, ()> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(());
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| ())?;
        }
        Ok(Sha256(bytes))
    }
}

fn id(reader: &mut Reader, what: &str, path: &str, node: &Node) -> Option<u32> {
    let text = reader.text(&format!("`{what}`"), node)?;
    let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(id) if digits && id < IDS => Some(id),
        _ if digits => {
            reader.error(&node.span, format!("`{what}` {text} of import `{path}` is too large: the largest is 65535"));
            None
        }
        _ => {
            reader.error(&node.span, format!("`{what}` must be a number, not `{text}`"));
            None
        }
    }
}

/// What an import is called where its place does not say so.
fn basename(import: &Import) -> Option<String> {
    match &import.source {
        Source::Host { path, .. } => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        Source::Layer { path, .. } => {
            let name = path.rsplit('/').find(|part| !part.is_empty() && *part != ".")?;
            (name != "..").then(|| name.to_owned())
        }
        Source::Url { url } => http::name(url),
    }
}

/// Imports without `dest` lie side by side under their own names.
fn check_names(reader: &mut Reader, imports: &[Import]) {
    let mut first: HashMap<String, &Import> = HashMap::new();
    let into_directory = |import: &&Import| import.dest.as_ref().is_some_and(|dest| dest.ends_with('/'));
    for import in imports.iter().filter(into_directory) {
        if let (Source::Url { .. }, None) = (&import.source, basename(import)) {
            let diagnostic = Diagnostic::error("this import has no name of its own");
            reader.push(diagnostic.at(import.place.clone(), "").help("let its `dest` end with the name it is to have"));
        }
    }
    for import in imports.iter().filter(|import| import.dest.is_none()) {
        let Some(name) = basename(import) else {
            let diagnostic = Diagnostic::error("this import has no name of its own");
            reader.push(diagnostic.at(import.place.clone(), "").help("give it a `dest`"));
            continue;
        };
        if import.seen_in().contains(&"/stacker") && OWN_NAMES.contains(&name.as_str()) {
            let diagnostic = Diagnostic::error(format!("an import cannot be /stacker/{name}, which is stacker's own"));
            reader.push(diagnostic.at(import.place.clone(), "").help("write `imports` instead of `import`"));
        }
        if let Some(other) = first.get(&name) {
            let diagnostic = Diagnostic::error(format!("two imports would both be /stacker/imports/{name}"));
            reader.push(diagnostic.at(import.place.clone(), "").at(other.place.clone(), "the other"));
        } else {
            first.insert(name, import);
        }
    }
}
