//! `stacker cache export`: the results of layers as their stackerfiles are now, with the data that they stand for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::action::{Action, Kind, Shows};
use crate::build::{self, Look};
use crate::compress::Encoder;
use crate::database::ActionResult;
use crate::digest::{BlobDigest, Chain, ContentDigest, DiffId, Key, TreeDigest};
use crate::error::{At, Error, Result};
use crate::execute::{DecidedLayer, Lost};
use crate::graph::{LayerGraph, LayerIndex};
use crate::holder::Holder;
use crate::layer_type::Packing;
use crate::listing::{self, Listing, Time};
use crate::progress::Mode;
use crate::record::{LayerInfo, Record};
use crate::resolve::sha256_file;
use crate::shell::heeding_signals;
use crate::worker::message::Compression;

use super::images::blob_file;
use super::manifest::{
    BaseLayerPart, BlobPart, LayerPart, Manifest, NamePart, Part, ResultPart, TreePart, blob_member, listing_member,
};
use super::members::Writer;

/// What `stacker cache export` was asked for.
pub struct Request {
    /// Which stackerfiles, and how they are read.
    pub build: build::Request,
    /// These layers with what they need; all when none is named.
    pub layers: Vec<String>,
    /// Where to; `None`: standard output.
    pub target: Option<PathBuf>,
    /// Base images of registries too.
    pub base_images: bool,
    /// Of the whole archive.
    pub compression: Compression,
}

/// What an export came to.
#[derive(Debug, Default)]
pub struct Exported {
    /// Results in the archive.
    pub results: usize,
    /// Layers whose data is in it.
    pub layers: usize,
    /// Bytes of that, compressed.
    pub bytes: u64,
    /// Layers that are not built as they are now, or not wholly.
    pub unbuilt: Vec<String>,
}

/// What layers become that are only there as directories.
const COMPRESSION: Compression = Compression::Zstd(3);

/// What is gathered for an archive.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) manifest: Manifest,
    records: BTreeMap<Key, Vec<u8>>,
    /// Layers that are in it.
    seen: HashSet<DiffId>,
    /// Blobs that were made for the archive alone.
    made: HashMap<BlobDigest, NamedTempFile>,
    trees: BTreeSet<TreeDigest>,
}

/// Exports; says what.
pub fn export(request: &Request, holder: Holder) -> Result<Exported> {
    let (_, loaded) = build::read(&request.build.what, &request.build.load)?;
    let graph = LayerGraph::new(&loaded)?;
    let layers: Vec<LayerIndex> = match request.layers.as_slice() {
        [] => graph.iter().map(|(layer, _)| layer).collect(),
        names => names.iter().map(|name| graph.named(name)).collect::<Result<_>>()?,
    };
    let wanted = build::wanted(&graph, &layers);
    let look = Look::new(&request.build, &graph, &loaded, &wanted, holder, Some(Mode::None))?;
    let site = look.site.clone();
    let done = heeding_signals(&site, || {
        let (gathered, unbuilt) = gather(&look, request.base_images)?;
        refuse(request, &gathered, &unbuilt)?;
        let Manifest { results, layers, .. } = &gathered.manifest;
        let bytes = layers.iter().map(|part| part.blob.size).sum();
        let done = Exported { results: results.len(), layers: layers.len(), bytes, unbuilt };
        write(&look, request, &gathered)?;
        Ok(done)
    });
    look.end();
    done
}

/// Who names a layer wants that layer.
fn refuse(request: &Request, gathered: &Gathered, unbuilt: &[String]) -> Result<()> {
    let missing: Vec<&str> = unbuilt.iter().filter(|name| request.layers.contains(name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Error::Build(format!(
            "not built as it is now, so it cannot be exported: {missing}; build it first"
        )));
    }
    match gathered.records.is_empty() {
        true => Err(Error::Build("nothing of these layers is built as they are now: build them first".to_owned())),
        false => Ok(()),
    }
}

fn gather(look: &Look, base_images: bool) -> Result<(Gathered, Vec<String>)> {
    let layers = look.execution().look_at_steps()?;
    let mut gathered = Gathered::default();
    let mut unbuilt = Vec::new();
    for (layer, steps) in &layers {
        if !gathered.layer(look, *layer, steps)? {
            unbuilt.push(look.graph[*layer].layer.name.clone());
        }
    }
    gathered.inputs(look, layers.keys())?;
    if base_images {
        gathered.images(look)?;
    }
    gathered.manifest.results.sort_by_key(|part| part.key);
    Ok((gathered, unbuilt))
}

impl Gathered {
    /// The results of a layer up to the first that is not there; whether that is all.
    fn layer(&mut self, look: &Look, layer: LayerIndex, steps: &DecidedLayer) -> Result<bool> {
        let own = steps.decided.iter().filter(|step| step.outcome.diff_id.is_some()).count();
        let mut end = steps.chain.0.len() - own;
        let mut keys = Vec::new();
        for key in steps.decided.iter().map(|step| step.key) {
            let known = look.database.action(&key)?.zip(look.database.result(&key)?);
            let Some((action, result)) = known else { break };
            if result.diff_id.is_some() {
                end += 1;
                if !self.data(look, &Chain(steps.chain.0[..end].to_vec()))? {
                    break;
                }
            }
            self.result(&key, &action, &result)?;
            keys.push(key);
        }
        let whole = steps.done && keys.len() == steps.decided.len();
        if !keys.is_empty() {
            self.manifest.names.push(NamePart { layer: look.graph[layer].layer.name.clone(), keys });
        }
        Ok(whole)
    }

    fn result(&mut self, key: &Key, action: &Action, result: &ActionResult) -> Result<()> {
        if self.records.contains_key(key) {
            return Ok(());
        }
        // Of no boot, and without what not every store knows, so that the same results are the same bytes.
        let layer = result.layer.map(|layer| LayerInfo { tar_bytes: 0, ..layer });
        let bytes = Record::new(action, &ActionResult { layer, ..result.clone() }, "").to_bytes()?;
        let record = part(&bytes);
        self.manifest.results.push(ResultPart { key: *key, record, diff_id: result.diff_id });
        self.records.insert(*key, bytes);
        match &action.kind {
            Kind::Import { tree, .. } => self.trees.extend([*tree]),
            Kind::Run { mounts, binds, .. } => {
                self.trees.extend(mounts.iter().map(|mount| mount.tree));
                self.trees.extend(binds.iter().filter_map(|bind| match &bind.shows {
                    Shows::Tree { tree, .. } => Some(*tree),
                    Shows::Node { .. } | Shows::Anything => None,
                }));
            }
            Kind::Unpack { .. } | Kind::Labels { .. } => {}
        }
        Ok(())
    }

    /// Listing and tar of the topmost layer of a chain; false where nothing is left of it.
    fn data(&mut self, look: &Look, chain: &Chain) -> Result<bool> {
        let Some(&diff_id) = chain.0.last() else { return Ok(true) };
        if self.seen.contains(&diff_id) {
            return Ok(true);
        }
        let blobs = look.site.own_blobs(&look.database, chain)?;
        let listing = look.site.stacker.listing(&diff_id);
        if !listing.exists() && there(look.site.have_listings(chain, &blobs))?.is_none() {
            return Ok(false);
        }
        let blob = match self.stored(look, &diff_id)? {
            Some(blob) => blob,
            None => match there(look.site.packed(chain, COMPRESSION, &blobs))? {
                None => return Ok(false),
                Some((tmp, digest, size)) => {
                    self.made.insert(digest, tmp);
                    BlobPart { digest, size, codec: Packing::Tar(COMPRESSION).codec() }
                }
            },
        };
        let listing = part(&std::fs::read(&listing).at("read", &listing)?);
        self.manifest.layers.push(LayerPart { diff_id, listing, blob });
        self.seen.insert(diff_id);
        Ok(true)
    }

    /// A blob of the store that is what its name says.
    fn stored(&self, look: &Look, diff_id: &DiffId) -> Result<Option<BlobPart>> {
        for (codec, digest, size) in look.database.tar_blobs(diff_id)? {
            let path = look.site.stacker.blob(&digest);
            if sha256_file(&path).is_ok_and(|found| BlobDigest(found) == digest) {
                return Ok(Some(BlobPart { digest, size, codec }));
            }
        }
        Ok(None)
    }

    /// What is known of base images, and of files of the host.
    fn inputs<'l>(&mut self, look: &Look, layers: impl Iterator<Item = &'l LayerIndex>) -> Result<()> {
        let stacker = &look.site.stacker;
        let mut bases: Vec<Chain> = layers.filter_map(|layer| Some(look.bases.get(layer)?.chain())).collect();
        bases.sort_by_key(|chain| chain.id());
        bases.dedup();
        let of_bases: BTreeSet<DiffId> = bases.iter().flat_map(|chain| chain.0.iter().copied()).collect();
        for diff_id in of_bases.into_iter().filter(|diff_id| !self.seen.contains(diff_id)) {
            if let Some(bytes) = read_if_there(&stacker.listing(&diff_id))? {
                self.manifest.base_layers.push(BaseLayerPart { diff_id, listing: part(&bytes) });
            }
        }
        self.manifest.bases = bases;
        for tree in std::mem::take(&mut self.trees) {
            if let Some(bytes) = timeless(&stacker.tree_listing(&tree))? {
                self.manifest.trees.push(TreePart { tree, listing: part(&bytes) });
            }
        }
        Ok(())
    }
}

/// What became of data on demand; `None`: it is gone.
fn there<T>(found: Result<T, Lost>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Lost::Evicted(_)) => Ok(None),
        Err(Lost::Error(error)) => Err(error),
    }
}

fn part(bytes: &[u8]) -> Part {
    Part { blake3: ContentDigest::of(bytes), size: bytes.len() as u64 }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.at("read", path).map(Some),
    }
}

/// The listing of an import tree, without the times of this host's files.
fn timeless(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.exists() {
        return Ok(None);
    }
    let mut entries = Listing::open(path)?.entries().collect::<Result<Vec<_>>>()?;
    entries.iter_mut().for_each(|entry| entry.mtime = Time::default());
    let mut text = Vec::new();
    listing::write(entries.iter(), &mut text).at("copy", path)?;
    Ok(Some(text))
}

fn write(look: &Look, request: &Request, gathered: &Gathered) -> Result<()> {
    let Some(path) = &request.target else {
        return write_to(look, request, gathered, std::io::stdout().lock(), Path::new("standard output"));
    };
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        let out = File::options().write(true).truncate(true).open(path).at("open", path)?;
        return write_to(look, request, gathered, out, path);
    }
    // Whoever finds it finds all of it.
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let usual = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let tmp = tempfile::Builder::new().prefix(".stacker-export-").permissions(usual).tempfile_in(directory);
    let tmp = tmp.at("create a file in", directory)?;
    write_to(look, request, gathered, tmp.as_file(), path)?;
    tmp.persist(path).map(drop).map_err(|error| error.error).at("rename to", path)
}

fn write_to(look: &Look, request: &Request, gathered: &Gathered, out: impl Write, path: &Path) -> Result<()> {
    let out = BufWriter::with_capacity(1 << 17, out);
    let mut members = Writer::new(Encoder::new(request.compression, out).at("write", path)?);
    let (name, manifest) = gathered.manifest.encode();
    let stacker = &look.site.stacker;
    let mut put = |name: &str, bytes: &[u8]| members.put(name, bytes.len() as u64, bytes).at("write", path);
    put(&name, &manifest)?;
    for part in &gathered.manifest.results {
        put(&part.member(), &gathered.records[&part.key])?;
    }
    for tree in &gathered.manifest.trees {
        put(&tree.member(), &timeless(&stacker.tree_listing(&tree.tree))?.unwrap_or_default())?;
    }
    for layer in &gathered.manifest.base_layers {
        put(&listing_member(&layer.diff_id), &unchanged(&stacker.listing(&layer.diff_id), &layer.listing)?)?;
    }
    for (digest, size) in gathered.manifest.image_blobs() {
        let path = blob_file(look, &digest).ok_or_else(|| Error::Build(format!("the blob {digest} went meanwhile")))?;
        members.put(&blob_member(&digest), size, File::open(&path).at("open", &path)?).at("write", path)?;
    }
    for LayerPart { diff_id, listing, blob } in &gathered.manifest.layers {
        let text = unchanged(&stacker.listing(diff_id), listing)?;
        members.put(&listing_member(diff_id), listing.size, &text[..]).at("write", path)?;
        let file = match gathered.made.get(&blob.digest) {
            Some(tmp) => tmp.reopen().at("open", tmp.path())?,
            None => File::open(stacker.blob(&blob.digest)).at("open", stacker.blob(&blob.digest))?,
        };
        members.put(&blob_member(&blob.digest), blob.size, file).at("write", path)?;
    }
    let encoder = members.finish().at("write", path)?;
    encoder.finish().and_then(|mut out| out.flush()).at("write", path)
}

/// A listing as the manifest has it: another build may have written it anew.
fn unchanged(path: &Path, expected: &Part) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).at("read", path)?;
    match part(&bytes) == *expected {
        true => Ok(bytes),
        false => Err(Error::Build(format!("{} changed while it was exported: try again", path.display()))),
    }
}
