//! A drawing as SVG: boxes in columns, by themselves or in a page.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use super::layout::{Boxes, Layout, layout};
use super::{Last, Picture, Pictured};
use crate::export::metadata::Status;
use crate::graph::Need;
use crate::progress::{duration, plural};
use crate::text::visible;

/// How the drawing looks, in light and in dark surroundings.
pub const STYLE: &str = include_str!("graph.css");

/// Of all boxes.
const HEIGHT: f64 = 40.0;
/// Around a drawing by itself.
const MARGIN: f64 = 20.0;
/// For the legend of a drawing by itself.
const LEGEND: f64 = 28.0;
/// Longer texts are cut, and whole in the title of their box.
const LONGEST: usize = 36;

/// A file: with its style, a background, a legend, and words for who cannot see it.
pub fn alone(picture: &Picture) -> String {
    let layout = placed(picture);
    let width = short((layout.width + 2.0 * MARGIN).max(320.0));
    let height = short(layout.height + 2.0 * MARGIN + LEGEND);
    let count = picture.layers.len();
    let drawing = html! {
        svg xmlns="http://www.w3.org/2000/svg" class="graph" role="img" aria-labelledby="title words"
            width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
            title id="title" { (count) " " (plural(count, "layer", "layers")) " and what they need" }
            desc id="words" { (visible(&words(picture))) }
            style { (PreEscaped(STYLE)) }
            rect class="paper" width=(width) height=(height) {}
            g transform={ "translate(" (MARGIN) " " (MARGIN) ")" } { (body(picture, &layout, false)) }
            (legend(height - MARGIN))
        }
    };
    drawing.into_string() + "\n"
}

/// An element of a page that has the style. Boxes are links to `#layer-PLACE`.
pub fn within(picture: &Picture, label: &str) -> Markup {
    let layout = placed(picture);
    let (width, height) = (short(layout.width + 8.0), short(layout.height + 8.0));
    html! {
        svg class="graph" role="group" aria-label=(visible(label)) width=(width) height=(height)
            viewBox={ "-4 -4 " (width) " " (height) } { (body(picture, &layout, true)) }
    }
}

fn placed(picture: &Picture) -> Layout {
    let places = picture.places();
    let edges = edges(picture).filter_map(|(at, need)| Some((*places.get(need)?, at))).collect();
    let widths = picture.layers.iter().map(|layer| width(&lines(layer))).collect();
    layout(&Boxes { widths, height: HEIGHT, edges })
}

/// Each pair once, of however many kinds: who needs it, and the name of what is needed.
fn edges(picture: &Picture) -> impl Iterator<Item = (usize, &str)> {
    picture.layers.iter().enumerate().flat_map(|(at, layer)| {
        let mut names: Vec<&str> = layer.needs.iter().map(|need| need.layer.as_str()).collect();
        names.dedup();
        names.into_iter().map(move |name| (at, name))
    })
}

fn body(picture: &Picture, layout: &Layout, links: bool) -> Markup {
    let places = picture.places();
    let is_base = |at: usize, name: &str| {
        let mut needs = picture.layers[at].needs.iter();
        needs.any(|need| need.layer == name && need.kind == Need::Base)
    };
    html! {
        @for ((at, name), line) in edges(picture).zip(&layout.lines) {
            path class=(if is_base(at, name) { "edge" } else { "edge import" })
                data-from=(places.get(name).copied().unwrap_or_default()) data-to=(at) d=(path(line)) {}
        }
        @for (place, (layer, corner)) in picture.layers.iter().zip(&layout.boxes).enumerate() {
            @let place_of_box = format!("translate({} {})", short(corner.0), short(corner.1));
            @let class = class(layer);
            @if links {
                a class=(class) href={ "#layer-" (place) } data-layer=(place) transform=(place_of_box) { (node(layer)) }
            } @else {
                g class=(class) transform=(place_of_box) { (node(layer)) }
            }
        }
    }
}

fn class(layer: &Pictured) -> String {
    let status = layer.last.as_ref().map_or("unknown", |last| last.status.word());
    format!("node {status}{}", if layer.image { " image" } else { "" })
}

fn node(layer: &Pictured) -> Markup {
    let lines = lines(layer);
    let title = [Some(layer.name.clone()), layer.fate(), Some(layer.stackerfile.clone())];
    let title = title.into_iter().flatten().collect::<Vec<_>>().join("\n");
    html! {
        title { (visible(&title)) }
        rect width=(short(width(&lines))) height=(HEIGHT) rx="5" {}
        path class="edging" d={ "M3.5 5v" (HEIGHT - 10.0) } {}
        text class="name" x="12" y="17" { (visible(&lines[0])) }
        text class="more" x="12" y="31" { (visible(&lines[1])) }
    }
}

/// The drawing in words.
fn words(picture: &Picture) -> String {
    let sentence = |layer: &Pictured| {
        let needs: Vec<String> = layer
            .needs
            .iter()
            .map(|need| match need.kind {
                Need::Base => need.layer.clone(),
                Need::Tar => format!("{} (a tar in it)", need.layer),
                Need::Import => format!("{} (imports)", need.layer),
            })
            .collect();
        let needs = if needs.is_empty() { "no other layer".to_owned() } else { needs.join(", ") };
        let fate = layer.fate().map_or_else(String::new, |fate| format!(" ({fate})"));
        format!("{}{fate} needs {needs}.", layer.name)
    };
    picture.layers.iter().map(sentence).collect::<Vec<_>>().join(" ")
}

/// What stands in a box: its name, and what is known of it.
fn lines(layer: &Pictured) -> [String; 2] {
    let more = match (&layer.last, layer.from.kind.as_str()) {
        (Some(Last { status: Status::Built, reason: Some(reason), seconds }), _) => {
            format!("{}: {reason}", duration(*seconds))
        }
        (Some(_), _) => layer.fate().unwrap_or_default(),
        (None, "built") => layer.stackerfile.clone(),
        (None, _) => layer.from.text(),
    };
    [cut(&layer.name), cut(&more)]
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// About what the texts take in a font without serifs; who draws it has the last word.
fn width(lines: &[String; 2]) -> f64 {
    let [name, more] = lines.each_ref().map(|line| line.chars().count() as f64);
    (name * 8.0).max(more * 6.3).max(60.0) + 24.0
}

/// A curve that is level where it enters and leaves columns.
fn path(points: &[(f64, f64)]) -> String {
    let mut text = String::new();
    for (at, &(x, y)) in points.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = match at {
            0 => write!(text, "M{} {}", short(x), short(y)),
            // Through a column.
            at if at % 2 == 0 => write!(text, "H{}", short(x)),
            at => {
                let (before, height) = points[at - 1];
                let middle = short((before + x) / 2.0);
                write!(text, "C{middle} {} {middle} {} {} {}", short(height), short(y), short(x), short(y))
            }
        };
    }
    text
}

fn legend(y: f64) -> Markup {
    let line = |x: f64, class: &str, text: &str| {
        html! {
            path class=(class) d={ "M" (x) " " (y) "h32" } {}
            text class="more" x=(x + 40.0) y=(y + 4.0) { (text) }
        }
    };
    html! {
        (line(MARGIN, "edge", "builds on"))
        (line(MARGIN + 120.0, "edge import", "takes files of"))
    }
}

/// A length in tenths.
fn short(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}
