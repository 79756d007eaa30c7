//! A tree of text: each layer once, beneath the one that it builds on.

use crate::inspect::table::{NOTHING_THERE, columns, plain};
use crate::progress::duration;

use super::{Picture, Pictured};
use crate::graph::Need;

/// The tree, and the prerequisites of the stackerfiles.
pub(super) fn tree(picture: &Picture) -> String {
    if picture.layers.is_empty() {
        return "there are no layers\n".to_owned();
    }
    let mut header = vec!["LAYER"];
    if picture.build.is_some() {
        header.extend(["LAST BUILD", "TOOK", "WHY"]);
    }
    header.extend(["FROM", "IMPORTS FROM", "IMAGE", "STACKERFILE"]);
    let row = |(place, branches): (usize, String)| {
        let layer = &picture.layers[place];
        let mut row = vec![format!("{branches}{}", plain(&layer.name))];
        if picture.build.is_some() {
            row.extend(last(layer));
        }
        row.extend(facts(layer));
        row
    };
    let right: &[usize] = if picture.build.is_some() { &[2] } else { &[] };
    let mut text = columns(Some(&header), branches(picture).into_iter().map(row), right);
    if let Some(build) = &picture.build {
        text += &format!("\nThe last build of these layers: {}, begun {}\n", build.id, build.begun);
    }
    text + &prerequisites(picture)
}

fn facts(layer: &Pictured) -> [String; 4] {
    let imports: Vec<String> =
        layer.needs.iter().filter(|need| need.kind == Need::Import).map(|need| plain(&need.layer)).collect();
    let from = match layer.from.kind.as_str() {
        // The tree shows upon what.
        "built" => "built".to_owned(),
        _ => plain(&layer.from.text()),
    };
    let imports = if imports.is_empty() { NOTHING_THERE.to_owned() } else { imports.join(", ") };
    [from, imports, if layer.image { "yes" } else { "no" }.to_owned(), plain(&layer.stackerfile)]
}

fn last(layer: &Pictured) -> [String; 3] {
    let nothing = || NOTHING_THERE.to_owned();
    let Some(last) = &layer.last else { return [nothing(), nothing(), nothing()] };
    let took = if last.seconds > 0.0 { duration(last.seconds) } else { nothing() };
    [last.status.word().to_owned(), took, last.reason.as_deref().map_or_else(nothing, plain)]
}

fn prerequisites(picture: &Picture) -> String {
    let files = picture.stackerfiles.iter().filter(|file| !file.prerequisites.is_empty());
    let rows: Vec<Vec<String>> =
        files.map(|file| vec![plain(&file.path), plain(&file.prerequisites.join(", "))]).collect();
    match rows.is_empty() {
        true => String::new(),
        false => format!("\n{}", columns(Some(&["STACKERFILE", "PREREQUISITES"]), rows, &[])),
    }
}

/// Every layer in the order of the tree, with the lines that lead to it. A walk with its own stack: a chain of layers
/// may be longer than a thread's stack is deep.
fn branches(picture: &Picture) -> Vec<(usize, String)> {
    let places = picture.places();
    let base = |layer: &Pictured| {
        let need = layer.needs.iter().find(|need| need.kind == Need::Base)?;
        places.get(need.layer.as_str()).copied()
    };
    let mut upon: Vec<Vec<usize>> = vec![Vec::new(); picture.layers.len()];
    let mut open = Vec::new();
    for (place, layer) in picture.layers.iter().enumerate() {
        match base(layer) {
            Some(base) => upon[base].push(place),
            None => open.push((place, String::new(), String::new())),
        }
    }
    open.reverse();
    let mut lines = Vec::new();
    while let Some((place, branch, beneath)) = open.pop() {
        for (at, above) in upon[place].iter().enumerate().rev() {
            let is_last = at + 1 == upon[place].len();
            let (corner, line) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            open.push((*above, format!("{beneath}{corner}"), format!("{beneath}{line}")));
        }
        lines.push((place, branch));
    }
    lines
}
