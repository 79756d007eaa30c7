//! `binds`: paths of the host that a script sees, and may write to.

use std::collections::HashMap;
use std::ops::Range;

use crate::diag::Diagnostic;

use super::Bind;
use super::imports;
use super::layer::Draft;
use super::reader::Reader;
use super::yaml::{Entry, Kind, Node};

const KEYS: [&str; 3] = ["source", "dest", "key"];

/// More do not fit the packet that hands them over.
const MOST: usize = 200;

/// What is stacker's in every sandbox, with all that is beneath.
const OWN: [&str; 3] = ["/proc", "/sys", "/stacker"];

/// Reads the directive.
pub(super) fn read(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let Kind::Sequence(nodes) = &entry.value.kind else {
        return reader.wrong_type("`binds`", "a list of texts and maps", &entry.value);
    };
    let binds: Vec<Bind> = nodes.iter().filter_map(|node| read_one(reader, node)).collect();
    if binds.len() > MOST {
        reader.error(&entry.key_span, format!("a layer can have {MOST} binds, not {}", binds.len()));
    }
    let mut first: HashMap<&str, &Bind> = HashMap::new();
    for bind in &binds {
        if let Some(other) = first.insert(&bind.dest, bind) {
            let diagnostic = Diagnostic::error(format!("two binds would both be at {}", bind.dest));
            reader.push(diagnostic.at(bind.place.clone(), "").at(other.place.clone(), "the other"));
        }
    }
    draft.binds = binds;
}

fn read_one(reader: &mut Reader, node: &Node) -> Option<Bind> {
    match &node.kind {
        Kind::Scalar(text) => match text.split_once("->") {
            Some((source, dest)) => {
                let dest = imports::absolute(reader, dest.trim(), &node.span);
                bind(reader, source.trim(), Some((dest, &node.span)), true, &node.span)
            }
            None => bind(reader, text.trim(), None, true, &node.span),
        },
        Kind::Mapping(entries) => read_map(reader, node, entries),
        _ => {
            reader.wrong_type("an entry of `binds`", "a text or a map", node);
            None
        }
    }
}

fn read_map(reader: &mut Reader, node: &Node, entries: &[Entry]) -> Option<Bind> {
    for entry in entries.iter().filter(|entry| !KEYS.contains(&&*entry.key)) {
        reader.unknown_key(entry, "an entry of `binds`", KEYS);
    }
    let value = |name: &str| {
        let found = entries.iter().find(|entry| &*entry.key == name).map(|entry| &entry.value);
        found.filter(|node| node.kind != Kind::Blank)
    };
    // All of the map is read before anything can end it, so that everything wrong in it is told.
    let dest = value("dest").map(|node| (imports::dest(reader, node), &node.span));
    let known = [("content", true), ("none", false)];
    let keyed = value("key").map_or(Some(true), |node| reader.word("`key`", node, &known));
    let Some(source) = value("source") else {
        reader.error(&node.span, "an entry of `binds` needs a `source`");
        return None;
    };
    let text = reader.text("`source`", source)?;
    bind(reader, &text, dest, keyed?, &source.span)
}

/// `dest`: what is written, if anything is, and where; itself `None` where it is wrong.
fn bind(
    reader: &mut Reader,
    written: &str,
    dest: Option<(Option<String>, &Range<usize>)>,
    keyed: bool,
    span: &Range<usize>,
) -> Option<Bind> {
    if written.is_empty() || written.contains('\0') {
        reader.error(span, "a bind needs the path of a file or directory of the host");
        return None;
    }
    let source = reader.beside(written);
    let (dest, dest_span) = match dest {
        Some((dest, span)) => (normal(&dest?), span),
        None => (normal(&source.to_string_lossy()), span),
    };
    if let Some(why) = refused(&dest) {
        reader.error(dest_span, format!("a bind cannot be at {dest}: {why}"));
        return None;
    }
    Some(Bind { place: reader.place(span), written: written.to_owned(), source, dest, keyed })
}

/// Without double and trailing slashes, and `.`; a source may hold `..` too.
fn normal(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Why nothing can be mounted at a path.
pub(crate) fn refused(dest: &str) -> Option<String> {
    let is_in = |own: &&str| dest.strip_prefix(*own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match dest {
        "/" => Some("that is the root filesystem itself".to_owned()),
        "/dev" => Some("/dev is stacker's own; bind single devices, as /dev/fuse".to_owned()),
        _ => OWN.iter().find(|own| is_in(own)).map(|own| format!("{own} is stacker's own")),
    }
}
