//! The head of the page: what was asked for, and what it came to.

use maud::{Markup, html};

use super::{Report, counts};
use crate::export::metadata::Status;
use crate::inspect::table::{bytes, moment};
use crate::progress::duration;
use crate::story::{Critical, Story};
use crate::text::visible;

pub(super) fn summary(report: &Report, critical: &Critical) -> Markup {
    let story = report.story;
    let build = &story.build;
    html! {
        header {
            div.title {
                h1 { "Build " (story.id) }
                (outcome(story))
                p.command { code { (visible(&shell_words::join(&build.command))) } }
            }
            dl.facts {
                div { dt { "Begun" } dd { time datetime=(moment(build.begun / 1000)) { (spoken(build.begun)) } } }
                div { dt { "In" } dd { (visible(&build.directory.display().to_string())) } }
                @if let Some(commit) = &build.commit {
                    div { dt { "Commit" } dd { code title=(visible(commit)) { (visible(&commit.chars().take(12).collect::<String>())) } } }
                }
            }
            ul.tiles {
                li { span.figure { (duration(story.seconds())) } span.what { "from begin to end" } }
                li { span.figure { (duration(critical.seconds)) } span.what { "critical path" } }
                li { span.figure { (duration(work(story))) } span.what { "work, " (share(story)) " of " (jobs(story)) } }
                li { span.figure { (bytes(added(story))) } span.what { "added by the layers" } }
            }
            (proportions(story))
        }
    }
}

fn outcome(story: &Story) -> Markup {
    let (class, word) = match story.build.outcome {
        Some(0) => ("done", "done"),
        Some(_) => ("failed", "failed"),
        None => ("skipped", "did not end"),
    };
    html! { span class={ "badge large " (class) } { (word) } }
}

/// `2026-11-29 20:15:03 UTC`.
fn spoken(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn jobs(story: &Story) -> String {
    match story.build.jobs {
        1 => "1 job".to_owned(),
        jobs => format!("{jobs} jobs"),
    }
}

fn work(story: &Story) -> f64 {
    story.steps.iter().filter_map(|step| step.seconds).sum()
}

/// How much of what the jobs could have done they did.
fn share(story: &Story) -> String {
    let whole = story.seconds() * story.build.jobs.max(1) as f64;
    format!("{:.0} %", if whole > 0.0 { (work(story) / whole * 100.0).min(100.0) } else { 0.0 })
}

fn added(story: &Story) -> u64 {
    story.layers.iter().filter_map(|layer| layer.bytes).sum()
}

/// A bar of how many layers there are of each status, and the same in words.
fn proportions(story: &Story) -> Markup {
    let statuses = [Status::Failed, Status::Built, Status::Hit, Status::Skipped];
    html! {
        div.proportions {
            div.bar aria-hidden="true" {
                @for status in statuses {
                    @let count = story.count(status);
                    @if count > 0 { span class=(status.word()) style={ "flex-grow:" (count) } {} }
                }
            }
            p { (counts(story)) }
        }
    }
}
