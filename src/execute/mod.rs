//! Carries out what the Decider says: the deciding thread, which owns the database and never blocks, and threads that
//! answer questions, do steps and compress layers.

mod again;
mod binds;
mod blame;
mod blobs;
mod certificates;
mod changed;
mod committer;
mod foresee;
mod imports;
mod layers;
mod look;
mod lookup;
mod pack;
mod questions;
mod recording;
mod report;
mod running;
mod script;
mod site;
mod step;
mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use crate::claim::{Claim, Claims};
use crate::database::{Database, Unsynced};
use crate::decide::{Answer, Decider, Question, Run, Status};
use crate::diag::Texts;
use crate::digest::{BlobDigest, Chain, DiffId, Key};
use crate::error::{Error, Result};
use crate::graph::{LayerGraph, LayerIndex};
use crate::layer_type::Packing;
use crate::progress::{Event, LayerStatus};
use crate::reason::{Origin, Reason};

pub use again::Again;
pub use binds::hand_over;
use committer::Committer;
pub use foresee::{Fate, Foreseen, Foresight};
pub use look::{DecidedLayer, Looked, View};
pub use questions::changed_files;
pub use recording::Recording;
pub use script::{FAILED as FAILED_DRAFT, failed_draft};
pub(crate) use site::readable_by_workers;
pub use site::{BlobPlace, Learned, Lost, Site, layer_info};
pub use step::{StepEnd, perform};
pub use why::layer_files;

/// What comes back to the deciding thread.
enum Message {
    Answered(Question, Result<(Answer, Learned), Lost>),
    Claimed(Box<Run>, Result<Claim>),
    Stepped { run: Box<Run>, claim: Claim, end: Result<(StepEnd, Learned)>, seconds: f64, number: usize },
    Packed { chain: Chain, packing: Packing, end: Result<(BlobDigest, u64), Lost>, number: usize },
    Fetched(Result<()>),
    Committed(Unsynced, Result<()>),
    Signal(i32),
}

/// What a build is told.
pub struct Options {
    /// Steps and compressions at a time.
    pub jobs: usize,
    /// How layers of images become blobs, each way for another image.
    pub packings: Vec<Packing>,
    /// Layers that get a tag.
    pub emitted: BTreeSet<LayerIndex>,
    /// The layout that they go to.
    pub layout: PathBuf,
    /// The stackerfiles, for places in messages.
    pub texts: Texts,
    /// How it is written down; `None`: it is not, since nothing is built.
    pub recording: Option<Recording>,
}

/// What is known of a layer when the build is over.
#[derive(Clone, Debug)]
pub struct LayerReport {
    /// How it ended.
    pub status: LayerStatus,
    /// Seconds of work in this build.
    pub seconds: f64,
    /// What its hits took when they were built.
    pub saved: f64,
    /// Why its first step ran, in a few words.
    pub reason: Option<String>,
    /// The same as a value.
    pub why: Option<Reason>,
    /// The last action's key.
    pub key: Option<Key>,
    /// All its layers, bottom first.
    pub chain: Chain,
    /// Layer time of the topmost of its own layers.
    pub time: Option<i64>,
    /// Its own actions' layers.
    pub own: Vec<DiffId>,
    /// What its `generate_labels` left.
    pub labels: BTreeMap<String, String>,
    /// Its script ran and failed.
    pub run_failed: bool,
    /// That was because the disk was full.
    pub full: bool,
}

/// The deciding thread's state.
pub struct Execution<'a> {
    graph: &'a LayerGraph,
    wanted: BTreeSet<LayerIndex>,
    site: Arc<Site>,
    database: &'a Database,
    decider: Decider,
    /// Base images that are unpacked as soon as they are looked into, since their files will be needed.
    unpacked: HashSet<Chain>,
    options: Options,
    claims: Claims,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    /// Threads that do not count as jobs: questions, waits for other processes.
    waiting: usize,
    /// Steps and compressions under way.
    busy: usize,
    /// Claimed after a wait.
    resumed: VecDeque<(Box<Run>, Claim)>,
    /// With the layer that wants it.
    packs: VecDeque<(LayerIndex, Chain, Packing)>,
    packing: HashSet<(DiffId, Packing)>,
    /// Blobs of base images that are fetched, or are here.
    fetching: HashSet<BlobDigest>,
    /// Layers that were seen to have their blob.
    packed: HashSet<(DiffId, Packing)>,
    seconds: BTreeMap<LayerIndex, f64>,
    /// What labels came out as.
    labels: HashMap<Key, BTreeMap<String, String>>,
    /// What results took when they were built.
    took: HashMap<Key, f64>,
    /// Why each layer's first step ran, with what is told of it.
    reasons: BTreeMap<LayerIndex, (String, Reason)>,
    /// What the change of each layer that ran began with.
    origins: BTreeMap<LayerIndex, Origin>,
    /// What keys that run again came out as before.
    before: HashMap<Key, Option<DiffId>>,
    /// Layers whose end was not told yet.
    untold: BTreeSet<LayerIndex>,
    retries: HashMap<LayerIndex, usize>,
    /// Layers whose script failed, and whether that was because the disk was full.
    failed_runs: BTreeMap<LayerIndex, bool>,
    /// Why layers failed for which nothing ran.
    failures: BTreeMap<LayerIndex, String>,
    failure: Option<Error>,
    committer: Committer,
}

impl<'a> Execution<'a> {
    /// Nothing starts before [`Execution::run`].
    pub fn new(
        graph: &'a LayerGraph,
        wanted: BTreeSet<LayerIndex>,
        decider: Decider,
        site: Arc<Site>,
        database: &'a Database,
        options: Options,
    ) -> Execution<'a> {
        let (sender, receiver) = std::sync::mpsc::channel();
        Execution {
            graph,
            claims: Claims::new(&site.stacker),
            site,
            database,
            decider,
            unpacked: HashSet::new(),
            options,
            sender,
            receiver,
            waiting: 0,
            busy: 0,
            resumed: VecDeque::new(),
            packs: VecDeque::new(),
            packing: HashSet::new(),
            fetching: HashSet::new(),
            packed: HashSet::new(),
            seconds: BTreeMap::new(),
            labels: HashMap::new(),
            took: HashMap::with_capacity(2 * wanted.len()),
            reasons: BTreeMap::new(),
            origins: BTreeMap::new(),
            before: HashMap::new(),
            untold: wanted.clone(),
            wanted,
            retries: HashMap::new(),
            failed_runs: BTreeMap::new(),
            failures: BTreeMap::new(),
            failure: None,
            committer: Committer::default(),
        }
    }

    /// For the thread that listens for signals.
    pub fn on_signal(&self) -> impl Fn(i32) + Send + 'static {
        let sender = self.sender.clone();
        // The receiver goes only when the build is over.
        move |signal| drop(sender.send(Message::Signal(signal)))
    }

    /// Runs until everything is decided, or failed. Machine failures are errors; failed layers are in the reports.
    pub fn run(&mut self) -> Result<BTreeMap<LayerIndex, LayerReport>> {
        self.unpacked = self.decider.bases_for_files();
        // Most layers of most builds are hits, which are found by queries alone.
        self.database.begin_reading()?;
        loop {
            self.dispatch()?;
            self.database.end_reading()?;
            if self.busy == 0 && self.waiting == 0 && !self.is_committing() {
                break;
            }
            match self.next_message() {
                Some(message) => self.take(message)?,
                None => self.commit()?,
            }
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.decider.close();
        self.tell_finished()?;
        self.reports()
    }

    /// Starts whatever can start.
    fn dispatch(&mut self) -> Result<()> {
        loop {
            let mut moved = false;
            let questions: Vec<Question> = std::iter::from_fn(|| self.decider.next_question()).collect();
            if !questions.is_empty() {
                self.ask_all(questions)?;
                moved = true;
            }
            self.tell_finished()?;
            while self.failure.is_none() && self.busy < self.options.jobs.max(1) {
                if let Some((run, claim)) = self.resumed.pop_front() {
                    self.start(run, claim)?;
                } else if let Some(run) = self.decider.next_run() {
                    self.claim(Box::new(run))?;
                } else if let Some((layer, chain, packing)) = self.packs.pop_front() {
                    self.start_pack(layer, chain, packing)?;
                } else {
                    break;
                }
                moved = true;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Answered(question, answer) => {
                self.waiting -= 1;
                self.answered(question, answer)
            }
            Message::Claimed(run, claim) => {
                self.waiting -= 1;
                self.claimed(run, claim?)
            }
            Message::Stepped { run, claim, end, seconds, number } => {
                self.busy -= 1;
                let (name, differs) = match &end {
                    Ok((end, _)) => (end.name(), self.differs(&run, end)),
                    Err(_) => ("error", None),
                };
                self.note_end(number, name, differs)?;
                let taken = self.stepped(*run, end, seconds);
                // Others who wait for this layer find its result in the database now.
                drop(claim);
                taken
            }
            Message::Packed { chain, packing, end, number } => {
                self.busy -= 1;
                self.note_end(number, pack::name(&end), None)?;
                self.packed(chain, packing, end)
            }
            Message::Fetched(end) => {
                self.waiting -= 1;
                if let Err(error) = end {
                    self.failure.get_or_insert(error);
                }
                Ok(())
            }
            Message::Committed(unsynced, end) => self.committed(&unsynced, end),
            Message::Signal(signal) => {
                self.site.holder.end();
                Err(Error::Interrupted(signal))
            }
        }
    }

    /// Data has gone: whoever made it makes it again, when that is a step of this build.
    fn evicted(&mut self, chain: crate::digest::ChainId, postpone: impl FnOnce(&mut Decider)) -> Result<()> {
        if !self.decider.evicted(chain) {
            return Err(Error::Machine(format!(
                "layer {chain} of a base image is neither in the store nor in the layout it came from"
            )));
        }
        postpone(&mut self.decider);
        // The layers that are decided anew end a second time, and want their blobs then.
        self.untold.extend(self.wanted.iter().filter(|layer| self.decider.status(**layer) == Status::Open));
        Ok(())
    }

    fn learn(&mut self, learned: &Learned) -> Result<()> {
        for (diff_id, info) in learned {
            self.database.put_layer(diff_id, info)?;
        }
        Ok(())
    }

    fn blobs(&self, chain: &Chain) -> Result<HashMap<DiffId, BlobPlace>> {
        self.site.own_blobs(self.database, chain)
    }

    /// Layers that came to their end since the last look: told, and their blobs made.
    fn tell_finished(&mut self) -> Result<()> {
        let ended = |layer: &LayerIndex| self.decider.status(*layer) != Status::Open;
        for layer in self.untold.iter().copied().filter(ended).collect::<Vec<_>>() {
            self.untold.remove(&layer);
            let seconds = self.seconds.get(&layer).copied().unwrap_or_default();
            let status = self.layer_status(layer);
            self.site.tell(Event::Finished { layer: self.name(layer), status, seconds });
            if status != LayerStatus::Failed && status != LayerStatus::Skipped && self.options.emitted.contains(&layer)
            {
                self.want_blobs(layer)?;
            }
        }
        Ok(())
    }

    fn layer_status(&self, layer: LayerIndex) -> LayerStatus {
        match self.decider.status(layer) {
            Status::Failed => LayerStatus::Failed,
            Status::Open | Status::Skipped => LayerStatus::Skipped,
            Status::Done if self.decider.decided(layer).iter().any(|decided| decided.built) => LayerStatus::Built,
            Status::Done => LayerStatus::Hit,
        }
    }

    fn name(&self, layer: LayerIndex) -> String {
        self.graph[layer].layer.name.clone()
    }
}
