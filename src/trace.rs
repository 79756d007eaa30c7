//! A build in the trace-event format, which Perfetto and chrome://tracing show as a timeline.
//!
//! The format is Google's "Trace Event Format": an object with `traceEvents`, here complete events (`"ph": "X"`) with
//! times in microseconds after the build began, and metadata events (`"ph": "M"`) that name and sort the lanes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::export::metadata::write_whole;
use crate::progress::Beside;
use crate::story::{Step, Story};

/// A trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "stacker build trace")]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// Names of lanes, then what happened.
    pub trace_events: Vec<Event>,
    /// How times are shown: `ms`.
    pub display_time_unit: String,
    /// Which build it was: `build`, `command`, `directory`, `commit`.
    pub other_data: BTreeMap<String, String>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// What is shown: the layer and its step; of a metadata event what it tells (`thread_name`).
    pub name: String,
    /// `run`, `import`, `unpack`, `labels`, `compress`, `download`, `wait`; nothing for metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cat: Option<String>,
    /// `X`: something that took a while; `M`: metadata.
    pub ph: String,
    /// When it began, microseconds after the build did.
    pub ts: u64,
    /// How long it took, microseconds; of `X` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dur: Option<u64>,
    /// Always 1.
    pub pid: u32,
    /// The lane: the jobs from 1, then downloads and waits.
    pub tid: usize,
    /// `layer`, `step`, `key`, `reason`, `outcome`; `name` or `sort_index` of metadata.
    pub args: BTreeMap<String, Value>,
}

/// The value of an argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// Words.
    Text(String),
    /// A number.
    Number(usize),
}

impl Trace {
    /// Of a build, with what went on beside its steps. `begun`: when it began.
    pub fn of(story: &Story, begun: Instant, beside: &[Beside]) -> Trace {
        let jobs = story.steps.iter().map(|step| step.slot + 1).max().unwrap_or_default().max(story.build.jobs);
        let mut lanes = Vec::new();
        let since = |moment: Instant| moment.saturating_duration_since(begun).as_secs_f64();
        let mut times: Vec<_> = beside.iter().map(|it| (since(it.begun), since(it.ended), it)).collect();
        times.sort_by(|one, other| one.0.total_cmp(&other.0));
        let beside: Vec<Event> = times
            .into_iter()
            .map(|(begun, ended, it)| {
                let lane = jobs + 1 + free(&mut lanes, (begun, ended));
                complete(it.what.clone(), it.kind, lane, (begun, ended), BTreeMap::new())
            })
            .collect();
        let named = (1..=jobs).map(|job| (job, format!("job {job}")));
        let more = (1..=lanes.len()).map(|lane| (jobs + lane, format!("downloads and waits {lane}")));
        let mut events = vec![metadata("process_name", 0, "name", Value::Text(format!("stacker build {}", story.id)))];
        for (lane, name) in named.chain(more) {
            events.push(metadata("thread_name", lane, "name", Value::Text(name)));
            events.push(metadata("thread_sort_index", lane, "sort_index", Value::Number(lane)));
        }
        events.extend(story.steps.iter().map(|step| of_step(step, story)));
        events.extend(beside);
        Trace { trace_events: events, display_time_unit: "ms".to_owned(), other_data: other(story) }
    }

    /// Writes it to a file, see [`write_whole`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec(self).expect("a trace is always JSON");
        text.push(b'\n');
        write_whole(path, &text)
    }
}

/// The first lane in which nothing goes on when this begins.
fn free(lanes: &mut Vec<f64>, (begun, end): (f64, f64)) -> usize {
    let lane = lanes.iter().position(|end| *end <= begun).unwrap_or(lanes.len());
    match lanes.get_mut(lane) {
        Some(last) => *last = end,
        None => lanes.push(end),
    }
    lane
}

fn other(story: &Story) -> BTreeMap<String, String> {
    let build = &story.build;
    let mut other = BTreeMap::from([
        ("build".to_owned(), story.id.to_string()),
        ("command".to_owned(), shell_words::join(&build.command)),
        ("directory".to_owned(), build.directory.display().to_string()),
    ]);
    other.extend(build.commit.clone().map(|commit| ("commit".to_owned(), commit)));
    other
}

fn metadata(name: &str, tid: usize, argument: &str, value: Value) -> Event {
    let args = BTreeMap::from([(argument.to_owned(), value)]);
    Event { name: name.to_owned(), cat: None, ph: "M".to_owned(), ts: 0, dur: None, pid: 1, tid, args }
}

/// What did not end lasts until the build did.
fn of_step(step: &Step, story: &Story) -> Event {
    let facts = [
        ("layer", Some(step.name.clone())),
        ("step", Some(step.kind.clone())),
        ("key", step.key.map(|key| key.to_string())),
        ("reason", step.reason.clone()),
        ("outcome", step.outcome.clone()),
    ];
    let facts = facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), Value::Text(fact?))));
    let name = format!("{} {}", step.name, step.kind);
    let end = if step.seconds.is_some() { step.end() } else { story.seconds() };
    complete(name, &step.kind, step.slot + 1, (step.begun, end), facts.collect())
}

fn complete(name: String, kind: &str, tid: usize, (begun, end): (f64, f64), args: BTreeMap<String, Value>) -> Event {
    let micros = |seconds: f64| (seconds * 1e6).round() as u64;
    // Both ends are rounded alike: what follows without a gap does so here.
    let (ts, dur) = (micros(begun), micros(end).saturating_sub(micros(begun)));
    Event { name, cat: Some(kind.to_owned()), ph: "X".to_owned(), ts, dur: Some(dur), pid: 1, tid, args }
}
