//! Layers on demand: a listing from the blob alone, a delta only where files are needed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::NamedTempFile;

use crate::database::Database;
use crate::digest::{BlobDigest, Chain, DiffId};
use crate::error::{At, Error, Result};
use crate::listing::{Listing, Stack};
use crate::place;
use crate::progress::Event;
use crate::store;
use crate::worker::message::{Answer, Job, LayerJob, Sealed};

use super::site::{BlobPlace, Learned, Lost, Site, layer_info};

impl Site {
    /// The blobs of a chain's own layers that the store holds, where a layer's data is not there.
    pub fn own_blobs(&self, database: &Database, chain: &Chain) -> Result<HashMap<DiffId, BlobPlace>> {
        let mut blobs = HashMap::new();
        for (diff_id, id) in chain.0.iter().copied().zip(chain.ids()) {
            if self.roots.delta(&id).exists() && self.has_listing(&diff_id) {
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
        let learned = self.have_layers(chain, blobs, &store::missing(&self.roots, chain))?;
        let exists = |path: &Path| self.roots.0.join(path).exists();
        while let Some(prefix) = store.needs_tree(chain, for_run, &exists) {
            self.in_turn(format!("tree {}", prefix.id()), || self.job(Job::Tree { chain: prefix.clone() }, vec![]))?;
        }
        Ok(learned)
    }

    /// The listings of a chain are there; nothing is unpacked for it.
    pub fn have_listings(&self, chain: &Chain, blobs: &HashMap<DiffId, BlobPlace>) -> Result<Learned, Lost> {
        self.have_layers(chain, blobs, &[])
    }

    /// The same, but layers that are not listed yet are unpacked at once, rather than read a second time later.
    pub fn have_listings_with_files(&self, chain: &Chain, blobs: &HashMap<DiffId, BlobPlace>) -> Result<Learned, Lost> {
        let unlisted =
            store::missing(&self.roots, chain).into_iter().filter(|index| !self.has_listing(&chain.0[*index]));
        self.have_layers(chain, blobs, &unlisted.collect::<Vec<_>>())
    }

    /// All listings of a chain are there, and the deltas of some of its layers.
    fn have_layers(
        &self,
        chain: &Chain,
        blobs: &HashMap<DiffId, BlobPlace>,
        deltas: &[usize],
    ) -> Result<Learned, Lost> {
        let lacking = |index: &usize| deltas.contains(index) || !self.has_listing(&chain.0[*index]);
        let lacking: Vec<usize> = (0..chain.0.len()).filter(lacking).collect();
        self.have_base_blobs(lacking.iter().map(|index| chain.0[*index]), blobs)?;
        let mut learned = Vec::new();
        for index in lacking {
            let layer = Chain(chain.0[..=index].to_vec());
            learned.extend(match deltas.contains(&index) {
                true => self.have_delta(&layer, blobs)?,
                false => self.have_listing(&layer, blobs)?,
            });
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
        let Some((diff_id, beneath)) = chain.0.split_last() else { return Ok(vec![]) };
        self.in_turn(format!("delta {id}"), || {
            if self.roots.delta(&id).exists() {
                return self.have_listing(chain, blobs);
            }
            let mut learned = self.have_listings(&Chain(beneath.to_vec()), blobs)?;
            let (listing, sealed) = self.of_blob(chain, blobs, Job::UnpackLayer)?;
            if self.has_listing(diff_id) {
                self.compare(chain, blobs, listing, &sealed)?;
            } else {
                self.keep_first_listing(listing, &sealed)?;
            }
            learned.push((*diff_id, layer_info(&sealed)));
            Ok(learned)
        })
    }

    /// The listing of the topmost layer is there, made of its blob where it is not; those beneath are.
    fn have_listing(&self, chain: &Chain, blobs: &HashMap<DiffId, BlobPlace>) -> Result<Learned, Lost> {
        let Some(&diff_id) = chain.0.last() else { return Ok(vec![]) };
        self.in_turn(format!("listing {diff_id}"), || {
            if self.has_listing(&diff_id) {
                return Ok(vec![]);
            }
            let (listing, sealed) = self.of_blob(chain, blobs, Job::ListLayer)?;
            self.keep_first_listing(listing, &sealed)?;
            Ok(vec![(diff_id, layer_info(&sealed))])
        })
    }

    fn has_listing(&self, diff_id: &DiffId) -> bool {
        self.stacker.listing(diff_id).exists()
    }

    /// A job on the blob of the topmost layer, whose listing it writes.
    fn of_blob(
        &self,
        chain: &Chain,
        blobs: &HashMap<DiffId, BlobPlace>,
        job: fn(LayerJob) -> Job,
    ) -> Result<(NamedTempFile, Sealed), Lost> {
        let evicted = || Lost::Evicted(chain.id());
        let (&diff_id, beneath) = chain.0.split_last().ok_or_else(evicted)?;
        let BlobPlace { path, digest } =
            blobs.get(&diff_id).or_else(|| self.base_blobs.get(&diff_id)).ok_or_else(evicted)?;
        self.have_blobs(&[*digest])?;
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(evicted()),
            other => other.at("open", path)?,
        };
        let tmp = self.tmp_file()?;
        let listing = tmp.as_file().try_clone().at("duplicate", tmp.path())?;
        let (parent, draft, max_size) = (Chain(beneath.to_vec()), self.unique(), self.max_layer_size);
        let job = job(LayerJob { parent, diff_id, blob: *digest, draft, max_size });
        match self.job(job, vec![file.into(), listing.into()])? {
            Answer::Sealed(sealed) => Ok((tmp, sealed)),
            other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}")).into()),
        }
    }

    /// What is odd about a layer is told with its listing, once.
    fn keep_first_listing(&self, listing: NamedTempFile, sealed: &Sealed) -> Result<()> {
        for warning in &sealed.warnings {
            let layer = sealed.diff_id.map(|diff_id| diff_id.to_string()).unwrap_or_default();
            self.tell(Event::Warning(format!("layer {layer}: {warning}")));
        }
        self.keep_listing(listing, sealed)
    }

    /// The topmost layer was unpacked, and `unpacked` is its listing. The one that is there says the same, or it was
    /// damaged, or made of the same layer on others beneath it or for another roots directory: then it is replaced. But
    /// keys were decided by it, so it must never depend on whether a layer was unpacked or only listed.
    fn compare(
        &self,
        chain: &Chain,
        blobs: &HashMap<DiffId, BlobPlace>,
        unpacked: NamedTempFile,
        sealed: &Sealed,
    ) -> Result<(), Lost> {
        let read = |path: &Path| fs::read(path).at("read", path);
        let text = read(unpacked.path())?;
        let Some(diff_id) = sealed.diff_id else { return Ok(()) };
        if fs::read(self.stacker.listing(&diff_id)).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let (listed, _) = self.of_blob(chain, blobs, Job::ListLayer)?;
        if let Some((listed, unpacked)) = first_difference(&read(listed.path())?, &text) {
            self.remove(vec![place::delta(&chain.id()).to_string_lossy().into_owned()])?;
            return Err(Error::Machine(format!(
                "the layer {diff_id} unpacked is not what its archive says: `{unpacked}`, and not `{listed}`. This is \
                 a bug of stacker, or of the file system of {}: another one (--roots-dir DIR) may help",
                self.roots.0.display()
            ))
            .into());
        }
        Ok(self.keep_listing(unpacked, sealed)?)
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
}

/// The first lines in which two texts differ.
fn first_difference(one: &[u8], other: &[u8]) -> Option<(String, String)> {
    let (mut one, mut other) = (one.split(|&byte| byte == b'\n'), other.split(|&byte| byte == b'\n'));
    let text = |line: Option<&[u8]>| String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    loop {
        match (one.next(), other.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            (one, other) => return Some((text(one), text(other))),
        }
    }
}
