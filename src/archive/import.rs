//! `stacker cache import`: results from an archive, each proven as far as it can be before anything says that it is there.
//!
//! What no reading can prove is that an action comes out as its record says; for that an archive is as good as who made
//! it. All else follows from digests: a record's key from its action, a layer's diff id from its tar, its listing from
//! the same tar, and what is known of it from that listing.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use tempfile::NamedTempFile;

use crate::cli::options::Directories;
use crate::commit_point::CommitPoint;
use crate::compress::decoder;
use crate::database::{Database, Taken};
use crate::digest::{BlobDigest, Chain, ChainId, ContentDigest, DiffId, Key};
use crate::error::{At, Error, Result};
use crate::execute::readable_by_workers;
use crate::listing::{Listing, tree_digest};
use crate::pins::{Pin, Pins};
use crate::place::StackerDir;
use crate::record::{LayerInfo, Record};
use crate::seal::proof::prove;
use crate::verify::whole_listing;
use crate::worker::hashed::Hashed;

use super::manifest::{
    BaseLayerPart, FORMAT, LARGEST_LISTING, LARGEST_MANIFEST, LARGEST_RECORD, LayerPart, Manifest, Part, blob_member,
    listing_member,
};
use super::members::Reader;
use super::sound::sound;

/// What an import came to.
#[derive(Debug, Default)]
pub struct Imported {
    /// Results that are in the cache now.
    pub taken: usize,
    /// Results that were there.
    pub present: usize,
    /// Of these, how many came out otherwise here.
    pub other: usize,
    /// Layers whose data was taken.
    pub layers: usize,
    /// Bytes of that.
    pub bytes: u64,
}

/// One run of it.
pub(super) struct Import<'a, R> {
    pub(super) reader: Reader<R>,
    pub(super) stacker: &'a StackerDir,
    pub(super) database: Database,
    /// Results that are wanted, by layer.
    wanted: BTreeMap<Option<DiffId>, Vec<Record>>,
    done: Imported,
}

/// Imports from a file, or (`None`) from standard input.
pub fn import(directories: &Directories, path: Option<&Path>) -> Result<Imported> {
    let (source, shown): (Box<dyn Read>, _) = match path {
        Some(path) => (Box::new(File::open(path).at("open", path)?), path.display().to_string()),
        None => (Box::new(std::io::stdin().lock()), "standard input".to_owned()),
    };
    let (plain, _) = decoder(source).at("read", path.unwrap_or(Path::new("-")))?;
    let mut reader = Reader::new(std::io::BufReader::with_capacity(1 << 17, plain), shown);
    // Before a store is made for it.
    let manifest = manifest(&mut reader)?;
    let (database, warnings) = Database::open(&directories.stacker)?;
    let settled = crate::build::settle(directories, &database)?;
    warnings.iter().chain(&settled).for_each(|warning| eprintln!("warning: {warning}"));
    let stacker = &directories.stacker;
    // From now on nothing that is put here is taken for a leftover.
    let pins = Pins::start(stacker)?;
    pins.pin(manifest.results.iter().map(|result| Pin::Result(result.key)), || Ok(()))?;
    let mut import = Import { reader, stacker, database, wanted: BTreeMap::new(), done: Imported::default() };
    import.all(&manifest)?;
    import.database.commit_durable(&directories.roots, SystemTime::now())?;
    Ok(import.done)
}

/// The manifest, which must be what the member's name says.
fn manifest<R: Read>(reader: &mut Reader<R>) -> Result<Manifest> {
    /// What is read first, whoever wrote it.
    #[derive(Deserialize)]
    struct Found {
        format: u32,
    }
    let (name, size) = reader.first()?;
    let digest = name.strip_prefix("manifest-").and_then(|name| name.strip_suffix(".json"));
    let Some(digest) = digest.and_then(|digest| digest.parse::<ContentDigest>().ok()) else {
        return Err(reader.damaged("it does not begin with a manifest"));
    };
    if size > LARGEST_MANIFEST {
        return Err(reader.damaged("its manifest is too large"));
    }
    let mut bytes = Vec::new();
    reader.copy(size, &mut bytes)?;
    if ContentDigest::of(&bytes) != digest {
        return Err(reader.damaged("its manifest is not what it was"));
    }
    let format = serde_json::from_slice::<Found>(&bytes).map(|found| found.format);
    match format {
        Ok(FORMAT) => {}
        Ok(format) => {
            let shown = &reader.shown;
            let why = format!("{shown} has format {format}, this stacker knows {FORMAT}: use a newer stacker");
            return Err(Error::Build(why));
        }
        Err(error) => return Err(reader.damaged(&format!("its manifest can not be understood: {error}"))),
    }
    let broken = |error| reader.damaged(&format!("its manifest can not be understood: {error}"));
    serde_json::from_slice(&bytes).map_err(broken)
}

impl<R: Read> Import<'_, R> {
    fn all(&mut self, manifest: &Manifest) -> Result<()> {
        self.check(manifest)?;
        self.records(manifest)?;
        // Reasons of later builds name files, where these are known.
        self.names(manifest)?;
        for part in &manifest.trees {
            let tmp = self.listing(&part.member(), &part.listing)?;
            match whole_listing(tmp.path()) {
                Some((entries, _)) if tree_digest(&entries) == part.tree => {
                    put(tmp, &self.stacker.tree_listing(&part.tree), CommitPoint::TreeListingNamed)?;
                }
                _ => return Err(self.wrong(&part.member(), "is not the listing of that tree")),
            }
        }
        self.database.put_bases(&manifest.bases)?;
        manifest.base_layers.iter().try_for_each(|part| self.base_layer(part))?;
        self.images(manifest)?;
        // Those without data.
        self.take(None, None)?;
        manifest.layers.iter().try_for_each(|part| self.layer(part))?;
        self.reader.end()
    }

    /// What the manifest says by itself, before anything of it is believed.
    fn check(&self, manifest: &Manifest) -> Result<()> {
        let layers: HashSet<DiffId> = manifest.layers.iter().map(|part| part.diff_id).collect();
        let keys: HashSet<Key> = manifest.results.iter().map(|part| part.key).collect();
        let of_bases: HashSet<&DiffId> = manifest.bases.iter().flat_map(|chain| &chain.0).collect();
        let of_results: HashSet<DiffId> = manifest.results.iter().filter_map(|part| part.diff_id).collect();
        let twice = layers.len() < manifest.layers.len() || keys.len() < manifest.results.len();
        let bare = manifest.results.iter().any(|part| part.diff_id.is_some_and(|id| !layers.contains(&id)));
        let base_ids: HashSet<ChainId> = manifest.bases.iter().map(Chain::id).collect();
        let strange = manifest.images.iter().any(|image| !base_ids.contains(&image.chain))
            || manifest.base_layers.iter().any(|part| !of_bases.contains(&part.diff_id))
            || manifest.layers.iter().any(|part| !of_results.contains(&part.diff_id));
        let codec = manifest.layers.iter().find(|part| !part.blob.is_tar());
        let trees = manifest.trees.iter().map(|part| &part.listing);
        let base_layers = manifest.base_layers.iter().map(|part| &part.listing);
        let layers = manifest.layers.iter().map(|part| &part.listing);
        let large = trees.chain(base_layers).chain(layers).any(|part| part.size > LARGEST_LISTING);
        let records = manifest.results.iter().any(|part| part.record.size > LARGEST_RECORD);
        let names = manifest.names.iter().any(|part| part.keys.iter().any(|key| !keys.contains(key)));
        let why = match codec {
            Some(part) => format!("{:?} is no codec of a layer tar", part.blob.codec),
            None if twice => "it has something twice".to_owned(),
            None if bare => "it lacks the layer of a result".to_owned(),
            None if strange => "it has a layer of no result and of no base image".to_owned(),
            None if large || records => "a record or a listing is too large".to_owned(),
            None if names => "it names a result that it does not have".to_owned(),
            None => return Ok(()),
        };
        Err(self.reader.damaged(&why))
    }

    /// Reads all records, and keeps those that are not here.
    fn records(&mut self, manifest: &Manifest) -> Result<()> {
        for part in &manifest.results {
            let mut bytes = Vec::new();
            self.reader.begin(&part.member(), part.record.size)?;
            self.reader.copy(part.record.size, &mut bytes)?;
            let record = match Record::from_bytes(&bytes) {
                Some(record) if ContentDigest::of(&bytes) == part.record.blake3 => record,
                _ => return Err(self.wrong(&part.member(), "is no record, or a damaged one")),
            };
            let result = &record.result;
            let labels = record.action.kind.name() == "labels";
            let odd = result.labels.is_some() != labels
                || labels && result.diff_id.is_some()
                || result.layer.is_some() != result.diff_id.is_some()
                || !(result.seconds.is_finite() && result.seconds >= 0.0);
            if record.key != part.key || result.diff_id != part.diff_id || odd {
                return Err(self.wrong(&part.member(), "is not the record that the manifest says"));
            }
            match self.database.result(&part.key)? {
                None => self.wanted.entry(part.diff_id).or_default().push(record),
                Some(here) => {
                    self.done.present += 1;
                    self.done.other += usize::from(here.diff_id != part.diff_id || here.labels != result.labels);
                }
            }
        }
        Ok(())
    }

    /// For the reasons of the next build, and for who looks into the cache.
    fn names(&self, manifest: &Manifest) -> Result<()> {
        let mut rows = Vec::new();
        for part in &manifest.names {
            if self.database.last_actions_anywhere(&part.layer)?.is_empty() {
                // Of no stackerfile of this machine.
                rows.push(("", part.layer.as_str(), part.keys.as_slice()));
            }
        }
        self.database.put_all_last_actions(&rows)
    }

    /// A listing in a file of its own, its digest compared.
    fn listing(&mut self, member: &str, part: &Part) -> Result<NamedTempFile> {
        self.reader.begin(member, part.size)?;
        let mut out = Hashing { out: tmp(self.stacker)?, hasher: blake3::Hasher::new() };
        self.reader.copy(part.size, &mut out)?;
        match out.hasher.finalize().as_bytes() == &part.blake3.0 {
            true => Ok(out.out),
            false => Err(self.wrong(member, "is not what it was")),
        }
    }

    /// The listing of a base image's layer is believed as the records are: its tar is not here.
    fn base_layer(&mut self, part: &BaseLayerPart) -> Result<()> {
        let member = listing_member(&part.diff_id);
        let listing = self.listing(&member, &part.listing)?;
        let info = sound(listing.path()).map_err(|why| self.wrong(&member, &why))?;
        let path = self.stacker.listing(&part.diff_id);
        if path.exists() && self.database.layer(&part.diff_id)?.is_some() {
            return Ok(());
        }
        put(listing, &path, CommitPoint::ListingNamed)?;
        self.database.put_layer(&part.diff_id, &info)
    }

    fn layer(&mut self, part: &LayerPart) -> Result<()> {
        let member = listing_member(&part.diff_id);
        let listing = self.listing(&member, &part.listing)?;
        let blob = self.blob(&part.blob.digest, part.blob.size)?;
        if !self.wanted.contains_key(&Some(part.diff_id)) && self.is_here(&part.diff_id)? {
            return Ok(());
        }
        let info = sound(listing.path()).map_err(|why| self.wrong(&member, &why))?;
        let info = self.proven(part, info, listing.path(), blob.path())?;
        self.done.layers += 1;
        self.done.bytes += part.blob.size + part.listing.size;
        put(blob, &self.stacker.blob(&part.blob.digest), CommitPoint::BlobNamed)?;
        put(listing, &self.stacker.listing(&part.diff_id), CommitPoint::ListingNamed)?;
        self.take(Some(part), Some(info))
    }

    /// The data of a layer, at least as it could be made again.
    fn is_here(&self, diff_id: &DiffId) -> Result<bool> {
        let tars = self.database.tars(diff_id)?;
        let blob = tars.iter().any(|blob| self.stacker.blob(blob).exists());
        Ok(blob && self.stacker.listing(diff_id).exists() && self.database.layer(diff_id)?.is_some())
    }

    pub(super) fn blob(&mut self, digest: &BlobDigest, size: u64) -> Result<NamedTempFile> {
        let member = blob_member(digest);
        self.reader.begin(&member, size)?;
        let mut out = Hashed::new(tmp(self.stacker)?);
        self.reader.copy(size, &mut out)?;
        let (file, found) = out.into_parts();
        match BlobDigest(found) == *digest {
            true => Ok(file),
            false => Err(self.wrong(&member, "is not what it was")),
        }
    }

    /// The tar is that of the listing, and has the diff id; the rest follows.
    fn proven(&self, part: &LayerPart, info: LayerInfo, listing: &Path, blob: &Path) -> Result<LayerInfo> {
        let member = blob_member(&part.blob.digest);
        let text = Listing::open(listing)?;
        let file = File::open(blob).at("open", blob)?;
        let (plain, _) = decoder(file).at("read", blob)?;
        let mut plain = Hashed::new(plain);
        let tar_bytes = prove(&text, &mut plain).map_err(|error| match error.raw_os_error() {
            None => self.wrong(&member, &error.to_string()),
            Some(_) => Error::Io { doing: "read", path: blob.to_path_buf(), source: error },
        })?;
        if DiffId(plain.finish().0) != part.diff_id {
            return Err(self.wrong(&member, "is another layer"));
        }
        Ok(LayerInfo { tar_bytes, ..info })
    }

    /// Results whose data is there become results of this cache.
    fn take(&mut self, part: Option<&LayerPart>, info: Option<LayerInfo>) -> Result<()> {
        let records = self.wanted.remove(&part.map(|part| part.diff_id)).unwrap_or_default();
        let mut results = Vec::new();
        for mut record in records {
            if info.map(|info| info.newest) != record.result.layer.map(|layer| layer.newest) {
                return Err(self.wrong(&format!("the record of {}", record.key), "is of another layer"));
            }
            record.result.layer = info;
            results.push(record);
        }
        let data = part.zip(info).map(|(part, info)| Taken {
            diff_id: part.diff_id,
            info,
            blob: part.blob.digest,
            codec: &part.blob.codec,
            size: part.blob.size,
        });
        self.done.taken += self.database.take(&results, data.as_ref())?;
        Ok(())
    }

    fn wrong(&self, member: &str, why: &str) -> Error {
        self.reader.damaged(&format!("{member}: {why}"))
    }
}

/// A file on its way to its name.
fn tmp(stacker: &StackerDir) -> Result<NamedTempFile> {
    NamedTempFile::new_in(stacker.tmp()).at("create a file in", stacker.tmp())
}

pub(super) fn put(tmp: NamedTempFile, path: &PathBuf, point: CommitPoint) -> Result<()> {
    readable_by_workers(tmp.path())?;
    tmp.persist(path).map_err(|error| error.error).at("rename", path)?;
    point.reached();
    Ok(())
}

/// Hashes what it writes, as listings are named in manifests.
struct Hashing {
    out: NamedTempFile,
    hasher: blake3::Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
