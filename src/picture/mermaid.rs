//! A Mermaid flowchart. An edge goes from a layer to what it needs.

use std::fmt::Write;

use super::Picture;
use crate::graph::Need;

/// A flowchart with a subgraph for each stackerfile.
pub(super) fn mermaid(picture: &Picture) -> String {
    let mut text = String::from("flowchart RL\n");
    let places = picture.places();
    // Writing to a String cannot fail.
    for (at, (path, layers)) in picture.by_file().into_iter().enumerate() {
        let _ = writeln!(text, "  subgraph f{at}[{}]", quoted(path));
        for place in layers {
            let layer = &picture.layers[place];
            let label = match layer.fate() {
                Some(fate) => format!("{}<br>{}", escaped(&layer.name), escaped(&fate)),
                None => escaped(&layer.name),
            };
            let class = layer.last.as_ref().map_or(String::new(), |last| format!(":::{}", last.status.word()));
            let _ = writeln!(text, "    n{place}[\"{label}\"]{class}");
        }
        text.push_str("  end\n");
    }
    for (place, layer) in picture.layers.iter().enumerate() {
        for need in &layer.needs {
            let Some(needed) = places.get(need.layer.as_str()) else { continue };
            let arrow = match need.kind {
                Need::Base => "-->",
                Need::Tar => "-- tar -->",
                Need::Import => "-.->",
            };
            let _ = writeln!(text, "  n{place} {arrow} n{needed}");
        }
    }
    for (from, to) in picture.unused_prerequisites() {
        let _ = writeln!(text, "  f{from} -. prerequisite .-> f{to}");
    }
    if picture.build.is_some() {
        text.push_str(
            "  classDef hit fill:#e3f3e6,stroke:#3d8b57,color:#1d2733\n  \
             classDef built fill:#dbe9fb,stroke:#2f6fc4,color:#1d2733\n  \
             classDef failed fill:#fbdcd9,stroke:#c0392b,color:#1d2733\n  \
             classDef skipped fill:#ffffff,stroke:#8792a2,color:#1d2733,stroke-dasharray:4 3\n",
        );
    }
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Within quotes Mermaid reads Markdown, HTML and `#NAME;`; whatever is neither a letter nor harmless becomes its number.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            c if c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '/' | ',' | ':' | '(' | ')' | '+') => {
                escaped.push(c);
            }
            c => {
                let _ = write!(escaped, "#{};", u32::from(c));
            }
        }
        escaped
    })
}
