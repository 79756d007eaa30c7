//! `stacker report`: one build as one page, which needs nothing but itself.
//!
//! Everything that is in the page is there without scripts, the table of layers first of all; the script only makes it
//! easier to go through. What builds printed is text in it, never markup: it goes through maud, which escapes, and what
//! a script could be is refused by the page's own policy, which knows our script by a number that follows from the page.

mod ansi;
mod details;
mod log;
mod summary;
mod table;
mod timeline;
mod treemap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::export::metadata::Status;
use crate::graph::Need;
use crate::picture::{self, Last, Needed, Origin, Picture, Pictured};
use crate::progress::plural;
use crate::story::{Critical, Layer, Story, critical};
use crate::text::visible;

pub use log::{Log, more};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What the page is made of.
pub struct Report<'a> {
    /// The build.
    pub story: &'a Story,
    /// What is known of each layer beyond that, by places.
    pub more: &'a [More],
}

/// What is known of a layer beyond its rows.
#[derive(Clone, Debug, Default)]
pub struct More {
    /// Its script.
    pub script: Option<String>,
    /// What its last runs printed, the script's first.
    pub logs: Vec<Log>,
}

/// The page.
pub fn page(report: &Report) -> String {
    let story = report.story;
    let critical = critical(story);
    let body = body(report, &critical);
    // Who writes a log does not know it, since it follows from the log.
    let nonce = &blake3::hash(body.0.as_bytes()).to_hex()[..32];
    let policy = format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; img-src data:");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "stacker " (env!("CARGO_PKG_VERSION")) };
                title { "Build " (story.id) ": " (counts(story)) }
                link rel="icon" href="data:,";
                style { (PreEscaped(picture::STYLE)) (PreEscaped(STYLE)) }
                // Before anything is drawn, so that nothing is drawn twice.
                script nonce=(nonce) { (PreEscaped("document.documentElement.classList.add('js')")) }
            }
            body { (body) script nonce=(nonce) { (PreEscaped(SCRIPT)) } }
        }
    };
    page.into_string() + "\n"
}

fn body(report: &Report, critical: &Critical) -> Markup {
    let story = report.story;
    html! {
        a.skip href="#layers" { "Skip to the table of layers" }
        (summary::summary(report, critical))
        nav aria-label="Parts of this page" {
            a href="#timeline" { "Timeline" } a href="#graph" { "Graph" }
            a href="#sizes" { "Sizes" } a href="#layers" { "Layers" } a.wordy href="#each" { "Each layer" }
        }
        main {
            (timeline::section(story, critical))
            (graph(report))
            (treemap::section(story))
            (table::section(report, critical))
        }
        (details::section(report, critical))
    }
}

/// `17 layers: 5 built, 12 hits`.
fn counts(story: &Story) -> String {
    let count = story.layers.len();
    let mut words = Vec::new();
    for (status, one, more) in [
        (Status::Failed, "failed", "failed"),
        (Status::Built, "built", "built"),
        (Status::Hit, "hit", "hits"),
        (Status::Skipped, "skipped", "skipped"),
    ] {
        let found = story.count(status);
        if found > 0 {
            words.push(format!("{found} {}", plural(found, one, more)));
        }
    }
    let words = if words.is_empty() { "nothing to build".to_owned() } else { words.join(", ") };
    format!("{count} {}: {words}", plural(count, "layer", "layers"))
}

fn graph(report: &Report) -> Markup {
    html! {
        section #graph aria-labelledby="graph-title" {
            h2 #graph-title { "Graph" }
            p.hint {
                "What a layer needs is to the left of it. " span.key.solid { "builds on" } " "
                span.key.dashed { "takes files of" }
            }
            div.scroll role="region" tabindex="0" aria-label="Graph of layers" data-roving {
                (picture::within(&drawn(report), "Layers, each a link to what is known of it"))
            }
        }
    }
}

/// The build as a picture.
fn drawn(report: &Report) -> Picture {
    let story = report.story;
    let layers = story.layers.iter().map(|layer| Pictured {
        name: layer.name.clone(),
        stackerfile: shown(report, layer),
        from: Origin { kind: "built".to_owned(), what: None },
        image: true,
        needs: layer
            .needs
            .iter()
            .map(|(place, kind)| Needed { layer: story.layers[*place].name.clone(), kind: *kind })
            .collect(),
        last: Some(Last { status: layer.status, reason: layer.reason.clone(), seconds: layer.seconds }),
    });
    Picture { layers: layers.collect(), stackerfiles: Vec::new(), build: None }
}

/// The path of a layer's stackerfile as a person would write it.
fn shown(report: &Report, layer: &Layer) -> String {
    let path = layer.scope.strip_prefix(&report.story.build.directory);
    path.unwrap_or(&layer.scope).display().to_string()
}

/// A word and its colour.
fn badge(status: Status) -> Markup {
    html! { span class={ "badge " (status.word()) } { (status.word()) } }
}

/// A link to what is known of a layer.
fn link(story: &Story, place: usize) -> Markup {
    html! { a href={ "#layer-" (place) } data-layer=(place) { (visible(&story.layers[place].name)) } }
}

/// Layers that a layer is needed by, by places.
fn dependents(story: &Story) -> Vec<Vec<usize>> {
    let mut dependents = vec![Vec::new(); story.layers.len()];
    for (at, layer) in story.layers.iter().enumerate() {
        let mut needs: Vec<usize> = layer.needs.iter().map(|(place, _)| *place).collect();
        needs.sort_unstable();
        needs.dedup();
        for needed in needs {
            dependents[needed].push(at);
        }
    }
    dependents
}

/// How a layer is needed.
fn kind(need: Need) -> &'static str {
    match need {
        Need::Base => "base",
        Need::Tar => "tar base",
        Need::Import => "imports",
    }
}
