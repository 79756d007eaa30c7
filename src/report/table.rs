//! The table of layers: what the page is without any picture.

use std::collections::HashSet;

use maud::{Markup, html};

use super::{Report, badge, link, shown};
use crate::inspect::table::bytes;
use crate::progress::duration;
use crate::story::Critical;
use crate::text::visible;

pub(super) fn section(report: &Report, critical: &Critical) -> Markup {
    let story = report.story;
    let longest: HashSet<usize> = critical.steps.iter().filter_map(|step| story.steps[*step].layer).collect();
    html! {
        section #layers aria-labelledby="layers-title" {
            h2 #layers-title { "Layers" }
            (filters(report))
            div.scroll.plain tabindex="-1" {
                table data-roving {
                    caption.sr { "Layers in the order of a serial build" }
                    thead { tr {
                        th scope="col" { "Layer" } th scope="col" { "Status" } th scope="col" { "Why" }
                        th.number scope="col" { "Took" } th.number.wide scope="col" { "Adds" }
                        th.wide scope="col" { "Needs" } th.wide scope="col" { "Stackerfile" }
                    } }
                    tbody {
                        @for place in 0..story.layers.len() { (row(report, place, longest.contains(&place))) }
                    }
                }
            }
        }
    }
}

/// They work by the script alone, which shows them.
fn filters(report: &Report) -> Markup {
    use crate::export::metadata::Status;
    let statuses = [Status::Failed, Status::Built, Status::Hit, Status::Skipped];
    html! {
        form.filters role="search" hidden {
            label { span.sr { "Filter layers by name, stackerfile or reason" }
                input type="search" placeholder="Filter by name, file, reason" autocomplete="off"; }
            fieldset {
                legend.sr { "Status" }
                @for status in statuses.into_iter().filter(|status| report.story.count(*status) > 0) {
                    label.chip { input type="checkbox" name="status" value=(status.word()) checked; span { (status.word()) } }
                }
            }
            output aria-live="polite" {}
        }
    }
}

fn row(report: &Report, place: usize, is_critical: bool) -> Markup {
    let story = report.story;
    let layer = &story.layers[place];
    html! {
        tr data-row=(place) data-status=(layer.status.word()) {
            th scope="row" { (link(story, place)) @if is_critical { " " span.mark title="on the critical path" { "critical" } } }
            td { (badge(layer.status)) }
            td.why { @if let Some(reason) = &layer.reason { (visible(reason)) } }
            td.number data-value=(layer.seconds) { @if layer.seconds > 0.0 { (duration(layer.seconds)) } }
            td.number.wide data-value=(layer.bytes.unwrap_or_default()) { @if let Some(size) = layer.bytes { (bytes(size)) } }
            td.wide { @for (at, (needed, _)) in layer.needs.iter().enumerate() {
                @if at > 0 { ", " } (visible(&story.layers[*needed].name))
            } }
            td.wide.file { (visible(&shown(report, layer))) }
        }
    }
}
