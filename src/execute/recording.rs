//! What a build writes down of itself, for `history` and `why`.
//!
//! A build that runs something is there from its first step on, so that one that was killed is seen as one that did not
//! end. One that does nothing is written down when it is over, in one row.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use crate::database::{BuildId, BuildRow, BuiltLayer, BuiltStep, Database, Needed};
use crate::decide::{Status, StepKind};
use crate::diag::without_credentials;
use crate::digest::Key;
use crate::error::Result;
use crate::export::metadata::Totals;
use crate::graph::{LayerIndex, Need, Node, NodeBase, NodeSource};
use crate::progress::LayerStatus;
use crate::provenance;
use crate::reason::{Differs, Reason};

use super::Execution;

/// How long the end of a build waits for what git says. It was asked when the build began, and takes milliseconds.
const PATIENCE: Duration = Duration::from_millis(200);

/// A build that is being written down.
#[derive(Debug)]
pub struct Recording {
    build: BuildRow,
    begun: Instant,
    commit: Receiver<Option<String>>,
    /// `None`: nothing was written yet.
    id: Option<BuildId>,
    /// How many steps have begun.
    steps: usize,
    /// Those that have not ended, by number.
    running: BTreeMap<usize, BuiltStep>,
}

impl Recording {
    /// The build begins now; git is asked meanwhile.
    pub fn start(directory: &Path, jobs: usize) -> Recording {
        let (sender, commit) = channel();
        let asked = directory.to_path_buf();
        // Nobody hears it when the build has ended before.
        std::thread::spawn(move || drop(sender.send(provenance::commit(&asked))));
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let build = BuildRow {
            begun: since.as_millis() as i64,
            command: command(),
            directory: directory.to_path_buf(),
            jobs,
            ..BuildRow::default()
        };
        Recording { build, begun: Instant::now(), commit, id: None, steps: 0, running: BTreeMap::new() }
    }

    /// A step begins, of which `step` says what is known. Returns its number.
    pub(super) fn begin(&mut self, database: &Database, step: BuiltStep) -> Result<usize> {
        let id = match self.id {
            Some(id) => id,
            None => self.put(database)?,
        };
        let taken = |slot: &usize| self.running.values().any(|step| step.slot == *slot);
        let slot = (0..).find(|slot| !taken(slot)).unwrap_or_default();
        let step = BuiltStep { begun: self.begun.elapsed().as_secs_f64(), slot, ..step };
        let number = self.steps;
        database.put_step(id, number, &step)?;
        self.steps += 1;
        self.running.insert(number, step);
        Ok(number)
    }

    /// A step is over.
    pub(super) fn end(
        &mut self,
        database: &Database,
        number: usize,
        outcome: &str,
        differs: Option<String>,
    ) -> Result<()> {
        let (Some(id), Some(step)) = (self.id, self.running.remove(&number)) else { return Ok(()) };
        let seconds = Some(self.begun.elapsed().as_secs_f64() - step.begun);
        database.put_step(id, number, &BuiltStep { seconds, outcome: Some(outcome.to_owned()), differs, ..step })
    }

    /// The build is over. `digest` is that of its layers and keys, where they are all there; the layers themselves are
    /// asked for only if no earlier build has the same.
    pub(super) fn finish(
        mut self,
        database: &Database,
        (outcome, totals, digest): (i32, Totals, Option<[u8; 32]>),
        layers: impl FnOnce() -> Vec<BuiltLayer>,
    ) -> Result<BuildId> {
        self.ask_for_commit(PATIENCE);
        self.build.seconds = Some(self.begun.elapsed().as_secs_f64());
        (self.build.outcome, self.build.totals, self.build.digest) = (Some(outcome), totals, digest);
        if let (None, Some(digest)) = (self.id, &digest)
            && totals.hits == totals.layers
            && let Some(same) = database.build_like(digest)?
        {
            self.build.same_as = Some(same);
            return self.put(database);
        }
        let id = match self.id {
            Some(id) => id,
            None => self.put(database)?,
        };
        for (number, step) in std::mem::take(&mut self.running) {
            database.put_step(id, number, &BuiltStep { outcome: Some("interrupted".to_owned()), ..step })?;
        }
        database.end_build(id, &self.build, &layers())?;
        Ok(id)
    }

    fn put(&mut self, database: &Database) -> Result<BuildId> {
        self.ask_for_commit(Duration::ZERO);
        let id = database.put_build(&self.build)?;
        self.id = Some(id);
        Ok(id)
    }

    fn ask_for_commit(&mut self, patience: Duration) {
        if self.build.commit.is_none()
            && let Ok(commit) = self.commit.recv_timeout(patience)
        {
            self.build.commit = commit;
        }
    }
}

impl Execution<'_> {
    /// Writes down that a step begins. Returns its number.
    pub(super) fn note_begin(
        &mut self,
        layer: LayerIndex,
        step: &str,
        key: Option<Key>,
        reason: Option<&Reason>,
    ) -> Result<usize> {
        let Some(recording) = &mut self.options.recording else { return Ok(0) };
        let step = BuiltStep {
            scope: scope(&self.graph[layer]),
            layer: self.graph[layer].layer.name.clone(),
            step: step.to_owned(),
            key,
            reason: reason.map(|reason| serde_json::to_string(reason).expect("a reason is always JSON")),
            ..BuiltStep::default()
        };
        recording.begin(self.database, step)
    }

    /// Writes down how it ended.
    pub(super) fn note_end(&mut self, number: usize, outcome: &str, differs: Option<Differs>) -> Result<()> {
        let Some(recording) = &mut self.options.recording else { return Ok(()) };
        let differs = differs.map(|differs| serde_json::to_string(&differs).expect("it is always JSON"));
        recording.end(self.database, number, outcome, differs)
    }

    /// Writes down how the build ended, whatever came of it. Returns its number; `None`: it is not written down.
    pub fn record(&mut self, outcome: i32) -> Result<Option<BuildId>> {
        let Some(recording) = self.options.recording.take() else { return Ok(None) };
        self.decider.close();
        let totals = self.totals();
        let ended = outcome == 0 && totals.hits + totals.built == totals.layers;
        let digest = ended.then(|| self.digest());
        recording.finish(self.database, (outcome, totals, digest), || self.built_layers()).map(Some)
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals { layers: self.wanted.len(), ..Totals::default() };
        for layer in &self.wanted {
            match self.layer_status(*layer) {
                LayerStatus::Hit => totals.hits += 1,
                LayerStatus::Built => totals.built += 1,
                LayerStatus::Failed => totals.failed += 1,
                LayerStatus::Skipped => totals.skipped += 1,
            }
        }
        totals
    }

    /// Of all layers, their keys and what they came out as.
    fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for layer in &self.wanted {
            let node = &self.graph[*layer];
            hasher.update(format!("{:?} {:?}\n", scope(node), node.layer.name).as_bytes());
            for decided in self.decider.decided(*layer) {
                hasher.update(&decided.key.0);
                hasher.update(&decided.outcome.diff_id.map_or([0; 32], |diff_id| diff_id.0));
            }
        }
        *hasher.finalize().as_bytes()
    }

    fn built_layers(&self) -> Vec<BuiltLayer> {
        let places: HashMap<LayerIndex, usize> = self.wanted.iter().copied().zip(0..).collect();
        let built = |&layer: &LayerIndex| {
            let (node, decided) = (&self.graph[layer], self.decider.decided(layer));
            let ended = self.decider.status(layer) == Status::Done;
            BuiltLayer {
                scope: scope(node),
                layer: node.layer.name.clone(),
                needs: needs(node, self.decider.kinds(layer), &places),
                keys: decided.iter().map(|decided| decided.key).collect(),
                diff_ids: decided.iter().map(|decided| decided.outcome.diff_id).collect(),
                chain: ended.then(|| self.decider.chain(layer).0.id()),
                image: self.image(layer),
                status: status(self.layer_status(layer)).to_owned(),
                seconds: self.seconds.get(&layer).copied().unwrap_or_default(),
            }
        };
        self.wanted.iter().map(built).collect()
    }
}

impl Execution<'_> {
    /// The image that a layer builds on.
    pub(super) fn image(&self, layer: LayerIndex) -> Option<String> {
        let digest = self.site.images.get(&layer)?.digest;
        match &self.graph[layer].base {
            NodeBase::Registry { name, .. } if name.digest().is_some() => Some(name.to_string()),
            NodeBase::Registry { name, .. } => Some(format!("{name}@{digest}")),
            NodeBase::Oci { layout, tag: None } => Some(format!("oci:{}@{digest}", layout.display())),
            NodeBase::Oci { layout, tag: Some(tag) } => Some(format!("oci:{}:{tag}@{digest}", layout.display())),
            _ => None,
        }
    }
}

/// The path of a layer's stackerfile.
pub(super) fn scope(node: &Node) -> String {
    node.layer.place.path.to_string_lossy().into_owned()
}

fn status(status: LayerStatus) -> &'static str {
    match status {
        LayerStatus::Hit => "hit",
        LayerStatus::Built => "built",
        LayerStatus::Failed => "failed",
        LayerStatus::Skipped => "skipped",
    }
}

/// What a layer takes from others, whose places are given.
fn needs(node: &Node, kinds: &[StepKind], places: &HashMap<LayerIndex, usize>) -> Vec<Needed> {
    let need = |layer: &LayerIndex, need, step, seen| {
        places.get(layer).map(|layer| Needed { layer: *layer, need, step, places: seen })
    };
    let base = match &node.base {
        NodeBase::Built(layer) => need(layer, Need::Base, Some(0), vec![]),
        NodeBase::LayerTar { layer, .. } => need(layer, Need::Tar, Some(0), vec![]),
        _ => None,
    };
    let imports = node.imports.iter().enumerate().filter_map(|(index, import)| {
        let NodeSource::Layer { layer, .. } = &import.source else { return None };
        let seen = import.places();
        let kind = if seen.is_empty() { StepKind::Import(index) } else { StepKind::Run };
        need(layer, Need::Import, kinds.iter().position(|it| *it == kind), seen)
    });
    base.into_iter().chain(imports).collect()
}

/// The command line. Names and passwords in URLs are not kept.
fn command() -> Vec<String> {
    let mut words: Vec<String> =
        std::env::args_os().map(|word| without_credentials(&word.to_string_lossy()).into_owned()).collect();
    if let Some(program) = words.first_mut() {
        *program = program.rsplit('/').next().unwrap_or_default().to_owned();
    }
    words
}
