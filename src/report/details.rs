//! What is known of each layer: why, its steps, its script, its log.

use std::collections::HashSet;

use maud::{Markup, html};

use super::{More, Report, ansi, badge, dependents, kind, link, shown};
use crate::export::metadata::Status;
use crate::inspect::table::bytes;
use crate::progress::duration;
use crate::story::{Critical, Layer, Step};
use crate::text::visible;

/// So many neighbours are named.
const NAMED: usize = 40;

pub(super) fn section(report: &Report, critical: &Critical) -> Markup {
    let story = report.story;
    let dependents = dependents(story);
    let mut steps: Vec<Vec<usize>> = vec![Vec::new(); story.layers.len()];
    for (number, step) in story.steps.iter().enumerate() {
        if let Some(layer) = step.layer {
            steps[layer].push(number);
        }
    }
    let longest: HashSet<usize> = critical.steps.iter().copied().collect();
    html! {
        aside #each aria-labelledby="each-title" {
            h2 #each-title { "Each layer" }
            @for (place, layer) in story.layers.iter().enumerate() {
                article id={ "layer-" (place) } class=(layer.status.word()) aria-labelledby={ "name-" (place) } {
                    h3 id={ "name-" (place) } tabindex="-1" { (visible(&layer.name)) " " (badge(layer.status)) }
                    (why(layer))
                    (facts(report, place, &dependents[place]))
                    (steps_of(report, &steps[place], &longest))
                    @if let Some(more) = report.more.get(place) { (texts(layer, more)) }
                }
            }
        }
    }
}

fn why(layer: &Layer) -> Markup {
    html! {
        @match (&layer.reason, layer.why.as_slice()) {
            (Some(_), [_, _, ..]) => ul.why { @for line in &layer.why { li { (visible(line)) } } },
            (Some(reason), _) => p.why { (visible(reason)) },
            (None, _) if layer.status == Status::Hit => p.why.soft { "All of its steps were in the cache." },
            (None, _) => {},
        }
    }
}

fn facts(report: &Report, place: usize, dependents: &[usize]) -> Markup {
    let story = report.story;
    let layer = &story.layers[place];
    html! {
        dl {
            dt { "Stackerfile" } dd { (visible(&shown(report, layer))) }
            @if !layer.needs.is_empty() {
                dt { "Needs" }
                dd { @for (at, (needed, how)) in layer.needs.iter().enumerate() {
                    @if at > 0 { ", " } (link(story, *needed)) " " span.soft { (kind(*how)) }
                } }
            }
            @if !dependents.is_empty() {
                dt { "Needed by" }
                dd {
                    @for (at, other) in dependents.iter().take(NAMED).enumerate() { @if at > 0 { ", " } (link(story, *other)) }
                    @if dependents.len() > NAMED { " and " (dependents.len() - NAMED) " more" }
                }
            }
            @if let Some(size) = layer.bytes { dt { "Adds" } dd { (bytes(size)) } }
            @if let Some(key) = layer.keys.last() { dt { "Key" } dd { code { (key) } } }
        }
    }
}

fn steps_of(report: &Report, numbers: &[usize], longest: &HashSet<usize>) -> Markup {
    let steps: Vec<(&Step, bool)> =
        numbers.iter().map(|number| (&report.story.steps[*number], longest.contains(number))).collect();
    html! {
        @if !steps.is_empty() {
            table.steps {
                caption.sr { "Steps" }
                thead { tr { th scope="col" { "Step" } th scope="col" { "Why" } th.number scope="col" { "At" } th.number scope="col" { "Took" } } }
                tbody {
                    @for (step, is_critical) in steps {
                        tr {
                            th scope="row" { (step.kind) @if is_critical { " " span.mark { "critical" } } }
                            td {
                                @if let Some(reason) = &step.reason { (visible(reason)) }
                                @if let Some(outcome) = step.outcome.as_deref().filter(|outcome| *outcome != "built") {
                                    " " span.badge.(outcome_class(outcome)) { (visible(outcome)) }
                                }
                            }
                            td.number { (duration(step.begun)) }
                            td.number { @if let Some(seconds) = step.seconds { (duration(seconds)) } }
                        }
                    }
                }
            }
        }
    }
}

fn outcome_class(outcome: &str) -> &'static str {
    if outcome == "failed" { "failed" } else { "skipped" }
}

fn texts(layer: &Layer, more: &More) -> Markup {
    html! {
        @if let Some(script) = &more.script {
            details { summary { "Script" } pre tabindex="0" { (visible(script)) } }
        }
        @for log in &more.logs {
            details.log open[layer.status == Status::Failed] {
                summary { "Log" span.soft { " " (bytes(log.size)) } }
                @if log.left_out > 0 {
                    p.hint { "The first " (bytes(log.left_out)) " are not in this page; " code { "stacker log" } " has them." }
                }
                @if log.later { p.hint { "Of a later run of the same step." } }
                @else if layer.status == Status::Hit { p.hint { "Of the run that is in the cache." } }
                pre tabindex="0" aria-label="Log" { code { (ansi::coloured(&log.text)) } }
            }
        }
    }
}
