//! The language of Graphviz. An edge goes from a layer to what it needs.

use std::fmt::Write;

use super::Picture;
use crate::export::metadata::Status;
use crate::graph::Need;

/// A digraph with a cluster for each stackerfile.
pub(super) fn dot(picture: &Picture) -> String {
    let mut text = String::from(
        "digraph stacker {\n  rankdir=RL\n  compound=true\n  \
         node [shape=box style=\"rounded,filled\" fillcolor=white fontname=\"sans-serif\" fontsize=11]\n  \
         edge [color=\"#5b6573\" arrowsize=0.7]\n",
    );
    let files = picture.by_file();
    for (at, (path, layers)) in files.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  subgraph cluster_{at} {{\n    label={} color=\"#b8c0cc\" fontname=\"sans-serif\" fontsize=10",
            quoted(path)
        );
        for &place in layers {
            let _ = writeln!(text, "    {}", node(picture, place));
        }
        text.push_str("  }\n");
    }
    for layer in &picture.layers {
        for need in &layer.needs {
            let style = match need.kind {
                Need::Base => "",
                Need::Tar => " [style=dotted label=tar fontsize=9]",
                Need::Import => " [style=dashed]",
            };
            let _ = writeln!(text, "  {} -> {}{style}", quoted(&layer.name), quoted(&need.layer));
        }
    }
    for (from, to) in picture.unused_prerequisites() {
        // An edge between clusters is one between two of their members, clipped.
        let member = |file: usize| quoted(&picture.layers[files[file].1[0]].name);
        let _ = writeln!(
            text,
            "  {} -> {} [ltail=cluster_{from} lhead=cluster_{to} style=dotted color=\"#b8c0cc\" constraint=false]",
            member(from),
            member(to)
        );
    }
    text + "}\n"
}

fn node(picture: &Picture, place: usize) -> String {
    let layer = &picture.layers[place];
    let mut attributes = Vec::new();
    if let Some(fate) = layer.fate() {
        attributes.push(format!("label={}", quoted(&format!("{}\n{fate}", layer.name))));
    }
    if let Some(colour) = layer.last.as_ref().and_then(|last| fill(last.status)) {
        attributes.push(format!("fillcolor=\"{colour}\""));
    }
    if !layer.image {
        attributes.push("color=\"#8792a2\"".to_owned());
    }
    match attributes.is_empty() {
        true => quoted(&layer.name),
        false => format!("{} [{}]", quoted(&layer.name), attributes.join(" ")),
    }
}

fn fill(status: Status) -> Option<&'static str> {
    match status {
        Status::Hit => Some("#e3f3e6"),
        Status::Built => Some("#dbe9fb"),
        Status::Failed => Some("#fbdcd9"),
        Status::Skipped => None,
    }
}

/// A quoted string: in it only the quote is special, and the backslash, which begins escapes of labels.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push('\u{fffd}'),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
