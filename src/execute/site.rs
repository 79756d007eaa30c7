//! What every thread of a build shares: the directories, the holder, the host's inputs, and data made on demand.
//!
//! Deltas and listings (`layers`), staged imports (`imports`) and blobs (`blobs`) are made when something needs them. Making is
//! idempotent: two threads take turns by name, two processes may race, the first rename wins.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use crate::cli::options::Directories;
use crate::commit_point::CommitPoint;
use crate::database::LayerInfo;
use crate::digest::{BlobDigest, ChainId, DiffId, Key};
use crate::error::{At, Error, Result};
use crate::graph::LayerIndex;
use crate::holder::{Holder, Ready};
use crate::inputs::{Inputs, PROXY_VARIABLES, Scope};
use crate::oci::{BaseImage, BaseLayer};
use crate::pins::Pins;
use crate::place::{RootsDir, StackerDir};
use crate::progress::Event;
use crate::registry::Downloads;
use crate::resolve::{Bound, HostPath, HostTree, Owners};
use crate::worker::message::{Answer, Failure, Job, Sealed};

/// Shared by the deciding thread and the threads that do the steps.
pub struct Site {
    /// The main process's directory.
    pub stacker: StackerDir,
    /// The workers' directory.
    pub roots: RootsDir,
    /// Runs jobs in worker processes.
    pub holder: Holder,
    /// Layers of base images: where their blobs lie.
    pub base_blobs: HashMap<DiffId, BlobPlace>,
    /// Those of them that lie at registries, and are fetched when something needs them.
    pub downloads: Downloads,
    /// The images that layers build on.
    pub images: HashMap<LayerIndex, Arc<BaseImage>>,
    /// Host import trees.
    pub trees: HashMap<HostPath, Arc<HostTree>>,
    /// What lay at the sources of binds when the build began.
    pub bounds: HashMap<PathBuf, Arc<Bound>>,
    /// Whom a script takes for the owners of binds.
    pub owners: Owners,
    /// Bytes that one layer may have without compression.
    pub max_layer_size: u64,
    /// Certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// stacker's own directories.
    pub exclude: Vec<PathBuf>,
    /// Variables that reach runs outside their keys.
    pub unkeyed: BTreeMap<String, String>,
    /// What this build relies on.
    pub pins: Pins,
    /// What a failed script leaves is kept for a look.
    pub keeps_failures: bool,
    /// For renderers.
    pub events: Sender<Event>,
    /// One lock for each thing being made.
    pub making: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// For unique names.
    pub counter: AtomicU64,
}

/// A blob on disk.
#[derive(Clone, Debug)]
pub struct BlobPlace {
    /// Where.
    pub path: PathBuf,
    /// What its bytes must hash to.
    pub digest: BlobDigest,
}

/// Why data could not be had.
#[derive(Debug)]
pub enum Lost {
    /// Nothing is left of the layer on top of this chain: its action must run again.
    Evicted(ChainId),
    /// It cannot be had at all.
    Error(Error),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Lost {
        Lost::Error(error)
    }
}

/// What was learned about layers while making data, for the database.
pub type Learned = Vec<(DiffId, LayerInfo)>;

impl Site {
    /// For one build.
    pub fn new(
        directories: &Directories,
        holder: Holder,
        pins: Pins,
        inputs: Inputs,
        scope: Scope,
        events: Sender<Event>,
    ) -> Site {
        let base_layers = inputs.bases.images.values().flat_map(|image| &image.layers);
        let place = |layer: &BaseLayer| BlobPlace { path: layer.path.clone(), digest: layer.descriptor.digest };
        let is_proxy = |name: &String| PROXY_VARIABLES.contains(&name.as_str());
        Site {
            stacker: directories.stacker.clone(),
            roots: directories.roots.clone(),
            holder,
            pins,
            base_blobs: base_layers.map(|layer| (layer.diff_id, place(layer))).collect(),
            downloads: Downloads::new(&directories.stacker, inputs.bases.remote, scope.http.options().offline),
            images: inputs.bases.images,
            trees: inputs.trees,
            bounds: inputs.bounds,
            owners: scope.owners,
            max_layer_size: scope.max_layer_size,
            ca_file: scope.http.options().ca_file.clone(),
            exclude: scope.exclude,
            unkeyed: scope.host.into_iter().filter(|(name, _)| is_proxy(name)).collect(),
            keeps_failures: true,
            events,
            making: Mutex::default(),
            counter: AtomicU64::new(0),
        }
    }

    /// Maps the user namespace and opens the store, once.
    pub fn ready(&self) -> Result<Ready> {
        let ready = self.holder.prepare()?;
        for notice in self.holder.take_notices() {
            self.tell(Event::Warning(notice));
        }
        Ok(ready)
    }

    /// Runs one job and waits for it; a failure of the job is an error.
    pub fn job(&self, job: Job, descriptors: Vec<OwnedFd>) -> Result<Answer> {
        self.ready()?;
        match self.holder.submit(job, descriptors)?.wait()? {
            Answer::Failed(failure) if failure.users => {
                Err(Error::Build(format!("{}: {}", failure.step, failure.message)))
            }
            Answer::Failed(failure) => Err(self.fault(&failure)),
            answer => Ok(answer),
        }
    }

    /// The machine failed a job.
    pub fn fault(&self, failure: &Failure) -> Error {
        failure.error([&*self.stacker.0, &*self.roots.0])
    }

    /// Twelve characters that nobody else uses.
    pub fn unique(&self) -> String {
        let now = std::time::SystemTime::now();
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        Key::of(format!("{} {now:?} {count}", std::process::id()).as_bytes()).short()
    }

    /// Only one thread makes a thing of this name at a time.
    pub fn in_turn<T>(&self, name: String, make: impl FnOnce() -> T) -> T {
        let lock = self.making.lock().unwrap_or_else(|broken| broken.into_inner()).entry(name).or_default().clone();
        let _turn = lock.lock().unwrap_or_else(|broken| broken.into_inner());
        make()
    }

    /// Runs a job that seals, with a file for its listing, and gives the listing its name.
    pub fn sealed(&self, run: impl FnOnce(OwnedFd) -> Result<Answer>) -> Result<Sealed> {
        let changed = || Error::Machine("a worker says of what cannot change that it did".to_owned());
        self.sealed_unless_changed(run)?.ok_or_else(changed)
    }

    /// The same for what comes from the host. `None`: it is no longer what the key assumed.
    pub fn sealed_unless_changed(&self, run: impl FnOnce(OwnedFd) -> Result<Answer>) -> Result<Option<Sealed>> {
        let tmp = self.tmp_file()?;
        let answer = run(tmp.as_file().try_clone().at("duplicate", tmp.path())?.into())?;
        match answer {
            Answer::Sealed(sealed) => {
                self.keep_listing(tmp, &sealed)?;
                Ok(Some(sealed))
            }
            Answer::Changed => Ok(None),
            other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
        }
    }

    /// Gives a written listing its name.
    pub fn keep_listing(&self, tmp: tempfile::NamedTempFile, sealed: &Sealed) -> Result<()> {
        let Some(diff_id) = &sealed.diff_id else { return Ok(()) };
        let path = self.stacker.listing(diff_id);
        readable_by_workers(tmp.path())?;
        tmp.persist(&path).map_err(|error| error.error).at("rename", &path)?;
        CommitPoint::ListingNamed.reached();
        Ok(())
    }

    /// A temporary file of the main process.
    pub fn tmp_file(&self) -> Result<tempfile::NamedTempFile> {
        tempfile::NamedTempFile::new_in(self.stacker.tmp()).at("create a file in", self.stacker.tmp())
    }

    /// Removes directories beneath the roots directory, whoever owns what is in them.
    pub fn remove(&self, mut paths: Vec<String>) -> Result<()> {
        paths.retain(|path| self.roots.0.join(path).symlink_metadata().is_ok());
        match paths.is_empty() {
            // Mostly there is nothing, and a look is cheaper than a process.
            true => Ok(()),
            false => self.job(Job::Remove { paths }, vec![]).map(|_| ()),
        }
    }

    /// Tells the renderer; it outlives the build, and if it has gone there is nobody to tell.
    pub fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// What the database keeps of a sealed layer.
pub fn layer_info(sealed: &Sealed) -> LayerInfo {
    LayerInfo { newest: sealed.newest, entries: sealed.entries, bytes: sealed.bytes, tar_bytes: sealed.tar_bytes }
}

/// The umask outside must not decide what workers, and readers of the layout, can read.
pub(crate) fn readable_by_workers(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).at("chmod", path)
}
