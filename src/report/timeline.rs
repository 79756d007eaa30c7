//! The timeline: a lane for each job, a bar for each step, those of the critical path marked.

use maud::{Markup, html};

use crate::progress::duration;
use crate::story::{Critical, Step, Story};
use crate::text::visible;

pub(super) fn section(story: &Story, critical: &Critical) -> Markup {
    html! {
        section #timeline aria-labelledby="timeline-title" {
            h2 #timeline-title { "Timeline" }
            @if story.steps.is_empty() {
                p.hint { "Nothing ran: every layer was in the cache." }
            } @else {
                (legend(story))
                (lanes(story, critical))
                (path(story, critical))
            }
        }
    }
}

fn legend(story: &Story) -> Markup {
    let kinds = ["unpack", "import", "run", "labels", "compress"];
    let there = kinds.into_iter().filter(|kind| story.steps.iter().any(|step| step.kind == *kind));
    html! {
        p.hint {
            @for kind in there { span class={ "key swatch " (kind) } { (kind) } " " }
            span.key.swatch.critical { "critical path" }
        }
    }
}

fn lanes(story: &Story, critical: &Critical) -> Markup {
    let whole = story.seconds().max(0.001);
    let count = story.steps.iter().map(|step| step.slot + 1).max().unwrap_or_default().max(story.build.jobs);
    html! {
        div.timeline data-roving role="group" aria-label="Steps by job, each a link to its layer" {
            (ticks(whole))
            @for slot in 0..count {
                div.lane {
                    span.job { "job " (slot + 1) }
                    div.track {
                        @for (number, step) in story.steps.iter().enumerate().filter(|(_, step)| step.slot == slot) {
                            (bar(step, critical.steps.contains(&number), whole, story))
                        }
                    }
                }
            }
        }
    }
}

fn bar(step: &Step, is_critical: bool, whole: f64, story: &Story) -> Markup {
    let seconds = step.seconds.unwrap_or_else(|| (story.seconds() - step.begun).max(0.0));
    let (left, width) = (percent(step.begun / whole), percent(seconds / whole));
    let took = step.seconds.map_or_else(|| "did not end".to_owned(), duration);
    let mut title = format!("{} {}: {took}, from {}", step.name, step.kind, duration(step.begun));
    for more in [&step.reason, &step.outcome].into_iter().flatten().filter(|more| *more != "built") {
        title += &format!(", {more}");
    }
    if is_critical {
        title += ", on the critical path";
    }
    let failed = step.outcome.as_deref() == Some("failed");
    let class = format!(
        "step {}{}{}",
        step.kind,
        if is_critical { " critical" } else { "" },
        if failed { " failed" } else { "" }
    );
    html! {
        a class=(class) style={ "left:" (left) "%;width:" (width) "%" } title=(visible(&title))
            aria-label=(visible(&title)) href=[step.layer.map(|place| format!("#layer-{place}"))] data-layer=[step.layer]
            { span { (visible(&step.name)) } }
    }
}

/// Hundredths of a percent are finer than a screen.
fn percent(part: f64) -> f64 {
    (part * 10000.0).round() / 100.0
}

/// Times at the upper edge: some five, at round numbers.
fn ticks(whole: f64) -> Markup {
    let rough = whole / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|part| part * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let count = (whole / step).floor() as usize;
    html! {
        div.axis aria-hidden="true" {
            @for tick in 0..=count {
                @let at = tick as f64 * step;
                span style={ "left:" (percent(at / whole)) "%" } { (tick_text(at, step)) }
            }
        }
    }
}

fn tick_text(at: f64, step: f64) -> String {
    match step {
        step if step < 0.1 => format!("{at:.2} s"),
        step if step < 1.0 => format!("{at:.1} s"),
        _ if at < 100.0 => format!("{at:.0} s"),
        _ => format!("{}:{:02}", at as u64 / 60, at as u64 % 60),
    }
}

/// The critical path in words.
fn path(story: &Story, critical: &Critical) -> Markup {
    html! {
        div.path {
            h3 { "Critical path: " (duration(critical.seconds)) " of " (duration(story.seconds())) }
            p.hint { "The longest chain of steps that wait for each other. More jobs cannot make the build shorter than it." }
            ol {
                @for step in critical.steps.iter().map(|number| &story.steps[*number]) {
                    li {
                        a href=[step.layer.map(|place| format!("#layer-{place}"))] data-layer=[step.layer] {
                            (visible(&step.name))
                        }
                        " " span.soft { (step.kind) " " (step.seconds.map_or_else(String::new, duration)) }
                    }
                }
            }
        }
    }
}
