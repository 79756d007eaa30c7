//! Sizes of layers as a map: the area of each is its share of the bytes.

use maud::{Markup, html};

use crate::inspect::table::bytes;
use crate::story::Story;
use crate::text::visible;

/// More than these are not told apart anyway.
const MOST: usize = 150;
/// Width to height of the map.
const ASPECT: f64 = 2.4;

/// Left, top, width, height, in parts of the whole.
type Place = (f64, f64, f64, f64);

pub(super) fn section(story: &Story) -> Markup {
    let mut sizes: Vec<(usize, u64)> = story
        .layers
        .iter()
        .enumerate()
        .filter_map(|(at, layer)| Some((at, layer.bytes.filter(|size| *size > 0)?)))
        .collect();
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let all: u64 = sizes.iter().map(|(_, size)| size).sum();
    let rest: u64 = sizes.iter().skip(MOST).map(|(_, size)| size).sum();
    let count = sizes.len();
    sizes.truncate(MOST);
    let mut parts: Vec<f64> = sizes.iter().map(|(_, size)| *size as f64).collect();
    if rest > 0 {
        parts.push(rest as f64);
    }
    let places = squarified(&parts);
    html! {
        section #sizes aria-labelledby="sizes-title" {
            h2 #sizes-title { "Sizes" }
            @if all == 0 {
                p.hint { "No layer of this build is known to have files of its own." }
            } @else {
                p.hint { "What each layer adds, without compression: " (bytes(all)) " in all." }
                div.treemap data-roving role="group" aria-label="Layers by size, each a link" {
                    @for ((layer, size), place) in sizes.iter().zip(&places) { (tile(story, *layer, *size, place)) }
                    @if let Some(place) = places.get(sizes.len()) {
                        span.tile style=(style(place)) { (count - sizes.len()) " smaller layers " span { (bytes(rest)) } }
                    }
                }
            }
        }
    }
}

fn tile(story: &Story, place: usize, size: u64, at: &Place) -> Markup {
    let layer = &story.layers[place];
    let title = format!("{}: {}", layer.name, bytes(size));
    html! {
        a class={ "tile " (layer.status.word()) } style=(style(at)) href={ "#layer-" (place) } data-layer=(place)
            title=(visible(&title)) aria-label=(visible(&title)) {
            b { (visible(&layer.name)) } span { (bytes(size)) }
        }
    }
}

fn style(&(left, top, width, height): &Place) -> String {
    format!(
        "left:{:.2}%;top:{:.2}%;width:{:.2}%;height:{:.2}%",
        left * 100.0,
        top * 100.0,
        width * 100.0,
        height * 100.0
    )
}

/// Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000): rows along the shorter side, each as long as its worst
/// rectangle does not get worse. `sizes` must be sorted, the largest first.
fn squarified(sizes: &[f64]) -> Vec<Place> {
    let all: f64 = sizes.iter().sum();
    let (mut left, mut top, mut width, mut height) = (0.0, 0.0, ASPECT, 1.0);
    let areas: Vec<f64> = sizes.iter().map(|size| size / all * ASPECT).collect();
    let mut places = Vec::with_capacity(areas.len());
    let mut open = areas.as_slice();
    while !open.is_empty() {
        let (row, rest) = open.split_at(row(open, f64::min(width, height)));
        let sum: f64 = row.iter().sum();
        let upright = width >= height;
        let thick = sum / if upright { height } else { width };
        let mut along = 0.0;
        for area in row {
            let long = area / thick;
            places.push(match upright {
                true => (left / ASPECT, top + along, thick / ASPECT, long),
                false => ((left + along) / ASPECT, top, long / ASPECT, thick),
            });
            along += long;
        }
        match upright {
            true => (left, width) = (left + thick, width - thick),
            false => (top, height) = (top + thick, height - thick),
        }
        open = rest;
    }
    places
}

/// How many of the areas make the next row.
fn row(areas: &[f64], side: f64) -> usize {
    let (mut sum, mut count, mut worst) = (0.0, 0, f64::INFINITY);
    for area in areas {
        sum += area;
        let (largest, smallest) = (areas[0], *area);
        let found = (side * side * largest / (sum * sum)).max(sum * sum / (side * side * smallest));
        if found > worst {
            break;
        }
        worst = found;
        count += 1;
    }
    count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_shares_and_fill_the_map() {
        let sizes = [600.0, 600.0, 400.0, 300.0, 200.0, 200.0, 100.0, 1.0];
        let places = squarified(&sizes);
        let all: f64 = sizes.iter().sum();
        for ((left, top, width, height), size) in places.iter().zip(sizes) {
            assert!((width * height - size / all).abs() < 1e-9);
            assert!(*left >= 0.0 && *top >= 0.0 && left + width < 1.0 + 1e-9 && top + height < 1.0 + 1e-9);
        }
        for (at, one) in places.iter().enumerate() {
            for other in &places[..at] {
                let apart = |a: f64, wide: f64, b: f64, other: f64| a + wide <= b + 1e-9 || b + other <= a + 1e-9;
                assert!(apart(one.0, one.2, other.0, other.2) || apart(one.1, one.3, other.1, other.3));
            }
        }
        assert!(squarified(&[]).is_empty());
    }
}
