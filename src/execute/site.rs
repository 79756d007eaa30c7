//! What every thread of a build shares: the directories, the holder, the host's inputs, and data made on demand.
//!
//! Deltas, listings, staged imports (`imports`) and blobs (`blobs`) are made when something needs them. Making is
//! idempotent: two threads take turns by name, two processes may race, the first rename wins.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use crate::cli::options::Directories;
use crate::commit_point::CommitPoint;
use crate::database::{Database, LayerInfo};
use crate::digest::{BlobDigest, Chain, ChainId, DiffId, Key};
use crate::error::{At, Error, Result};
use crate::graph::LayerIndex;
use crate::holder::{Holder, Ready};
use crate::inputs::{Inputs, PROXY_VARIABLES, Scope};
use crate::listing::{Listing, Stack};
use crate::oci::{BaseImage, BaseLayer};
use crate::pins::Pins;
use crate::place::{self, RootsDir, StackerDir};
use crate::progress::Event;
use crate::registry::Downloads;
use crate::resolve::{Bound, HostPath, HostTree, Owners};
use crate::store;
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

    /// The blobs of a chain's own layers that the store holds, where a layer's data is not there.
    pub fn own_blobs(&self, database: &Database, chain: &Chain) -> Result<HashMap<DiffId, BlobPlace>> {
        let mut blobs = HashMap::new();
        for (diff_id, id) in chain.0.iter().copied().zip(chain.ids()) {
            if self.roots.delta(&id).exists() && self.stacker.listing(&diff_id).exists() {
                continue;
            }
            for digest in database.tars(&diff_id)? {
                let path = self.stacker.blob(&digest);
                if path.exists() {
                    blobs.insert(diff_id, BlobPlace { path, digest });
                }
            }
        }
        Ok(blobs)
    }

    /// Every layer of the chain is there as data that a run, or a copy, can be mounted on. `blobs` are those of our own layers.
    pub fn have_chain(
        &self,
        chain: &Chain,
        blobs: &HashMap<DiffId, BlobPlace>,
        for_run: bool,
    ) -> Result<Learned, Lost> {
        let store = store::of(self.ready()?.store);
        let mut learned = Vec::new();
        let missing = store::missing(&self.roots, &self.stacker, chain);
        self.have_base_blobs(missing.iter().map(|index| chain.0[*index]), blobs)?;
        for index in missing {
            let beneath = Chain(chain.0[..=index].to_vec());
            learned.extend(self.have_delta(&beneath, blobs)?);
        }
        let exists = |path: &Path| self.roots.0.join(path).exists();
        while let Some(prefix) = store.needs_tree(chain, for_run, &exists) {
            self.in_turn(format!("tree {}", prefix.id()), || self.job(Job::Tree { chain: prefix.clone() }, vec![]))?;
        }
        Ok(learned)
    }

    /// The blobs of layers of base images are here, fetched beside each other where they are not. `blobs`: of our own.
    fn have_base_blobs(&self, layers: impl Iterator<Item = DiffId>, blobs: &HashMap<DiffId, BlobPlace>) -> Result<()> {
        let base = layers.filter(|diff_id| !blobs.contains_key(diff_id));
        let digests: Vec<_> = base.filter_map(|diff_id| Some(self.base_blobs.get(&diff_id)?.digest)).collect();
        self.have_blobs(&digests)
    }

    /// Blobs are here, those of registries that were not are fetched.
    pub fn have_blobs(&self, blobs: &[BlobDigest]) -> Result<()> {
        let events = Mutex::new(self.events.clone());
        self.downloads.have(blobs, &|event| {
            // As in `tell`; a Sender is not to be shared.
            let _ = events.lock().unwrap_or_else(|broken| broken.into_inner()).send(event);
        })
    }

    /// The listing and the delta of the topmost layer are there, re-made from its blob where they are not.
    pub(super) fn have_delta(&self, chain: &Chain, blobs: &HashMap<DiffId, BlobPlace>) -> Result<Learned, Lost> {
        let id = chain.id();
        let Some((&diff_id, beneath)) = chain.0.split_last() else { return Ok(vec![]) };
        self.in_turn(format!("delta {id}"), || {
            if self.roots.delta(&id).exists() && self.stacker.listing(&diff_id).exists() {
                return Ok(vec![]);
            }
            let Some(blob) = blobs.get(&diff_id).or_else(|| self.base_blobs.get(&diff_id)) else {
                return Err(Lost::Evicted(id));
            };
            self.have_blobs(&[blob.digest])?;
            let file = match File::open(&blob.path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Lost::Evicted(id)),
                Err(error) => return Err(Lost::Error(Err::<(), _>(error).at("open", &blob.path).unwrap_err())),
            };
            let (parent, draft) = (Chain(beneath.to_vec()), self.unique());
            let job = Job::UnpackLayer { parent, diff_id, blob: blob.digest, draft, max_size: self.max_layer_size };
            let sealed = self.sealed(|listing| self.job(job, vec![file.into(), listing]))?;
            for warning in &sealed.warnings {
                self.tell(Event::Warning(format!("layer {diff_id}: {warning}")));
            }
            Ok(vec![(diff_id, layer_info(&sealed))])
        })
    }

    /// Where a file of a chain lies, relative to the roots directory. Of its layers, only the one that brings the file is
    /// made where nothing holds it.
    pub fn have_file(&self, chain: &Chain, path: &[u8], blobs: &HashMap<DiffId, BlobPlace>) -> Result<PathBuf, Lost> {
        self.ready()?;
        self.have_listings(chain, blobs)?;
        let Some(layer) = self.listings(chain)?.layer_of(path)? else { return Err(Lost::Evicted(chain.id())) };
        let ids = chain.ids();
        // A tree of more layers than that shows the same file, since none of them has another one.
        let trees = ids[layer..].iter().map(place::tree);
        let directory = match trees.into_iter().find(|tree| self.roots.0.join(tree).exists()) {
            Some(tree) => tree,
            None => {
                self.have_delta(&Chain(chain.0[..=layer].to_vec()), blobs)?;
                place::delta(&ids[layer])
            }
        };
        Ok(directory.join(OsStr::from_bytes(path)))
    }

    /// The listings of a chain, bottom first.
    pub fn listings(&self, chain: &Chain) -> Result<Stack> {
        let listings = chain.0.iter().map(|diff_id| Listing::open(&self.stacker.listing(diff_id)));
        Ok(Stack::new(listings.collect::<Result<_>>()?))
    }

    /// Listings are there, which needs the layers' data only where a listing is missing.
    pub fn have_listings(&self, chain: &Chain, blobs: &HashMap<DiffId, BlobPlace>) -> Result<Learned, Lost> {
        match chain.0.iter().all(|diff_id| self.stacker.listing(diff_id).exists()) {
            true => Ok(vec![]),
            false => {
                let mut learned = Vec::new();
                let ids = chain.0.iter().copied().zip(chain.ids());
                let is_whole = |(diff_id, id): &(DiffId, ChainId)| {
                    self.roots.delta(id).exists() && self.stacker.listing(diff_id).exists()
                };
                self.have_base_blobs(ids.filter(|layer| !is_whole(layer)).map(|(diff_id, _)| diff_id), blobs)?;
                for end in 1..=chain.0.len() {
                    learned.extend(self.have_delta(&Chain(chain.0[..end].to_vec()), blobs)?);
                }
                Ok(learned)
            }
        }
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
pub(super) fn readable_by_workers(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).at("chmod", path)
}
