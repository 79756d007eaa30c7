//! Base images at registries: what names led to, and which blobs images consist of.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, params};

use super::results::USE_GRAIN;
use super::{Database, now};
use crate::commit_point::CommitPoint;
use crate::digest::{BlobDigest, ChainId};
use crate::error::Result;
use crate::registry::{ImageName, Remembered};

impl Database {
    /// What a name led to when it was last asked for.
    pub fn reference(&self, name: &ImageName) -> Result<Option<Remembered>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT digest, resolved FROM reference WHERE name = ?1")?;
            let read = |row: &rusqlite::Row| Ok(Remembered { digest: BlobDigest(row.get(0)?), when: row.get(1)? });
            statement.query_row([name.to_string()], read).optional()
        })
    }

    /// All names, with what each led to; sorted.
    pub fn references(&self) -> Result<Vec<(String, BlobDigest)>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT name, digest FROM reference ORDER BY name")?;
            statement.query_map([], |row| Ok((row.get(0)?, BlobDigest(row.get(1)?))))?.collect()
        })
    }

    /// Remembers what names lead to. Nothing is written where that is known, and known for less than an hour.
    pub fn put_references(&self, references: &[(&ImageName, BlobDigest)]) -> Result<()> {
        let now = now();
        let mut new = Vec::new();
        for (name, digest) in references {
            let fresh = |known: Remembered| known.digest == *digest && (now - known.when).abs() < USE_GRAIN;
            if !self.reference(name)?.is_some_and(fresh) {
                new.push((name, digest));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO reference (name, digest, resolved) VALUES (?1, ?2, ?3)")?;
            new.iter()
                .try_for_each(|(name, digest)| statement.execute(params![name.to_string(), digest.0, now]).map(drop))
        })?;
        CommitPoint::BasesNoted.reached();
        Ok(())
    }

    /// Remembers which blobs images consist of, by the chain of all their layers. Those that are known are not written.
    pub fn put_base_blobs(&self, blobs: &BTreeMap<ChainId, BTreeMap<BlobDigest, u64>>) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        let known = self.base_blobs()?;
        let is_new =
            |chain: &ChainId, blob: &BlobDigest| !known.get(blob).is_some_and(|(_, chains)| chains.contains(chain));
        let all = blobs.iter().flat_map(|(chain, blobs)| blobs.iter().map(move |(blob, size)| (chain, blob, size)));
        let new: Vec<_> = all.filter(|(chain, blob, _)| is_new(chain, blob)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO base_blob (chain, blob, size) VALUES (?1, ?2, ?3)")?;
            new.iter().try_for_each(|(chain, blob, size)| {
                statement.execute(params![chain.0, blob.0, **size as i64]).map(drop)
            })
        })?;
        CommitPoint::BasesNoted.reached();
        Ok(())
    }

    /// Every blob of an image at a registry: its size, and the images (chains) that need it.
    pub fn base_blobs(&self) -> Result<HashMap<BlobDigest, (u64, Vec<ChainId>)>> {
        let rows: Vec<(ChainId, BlobDigest, u64)> = self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT chain, blob, size FROM base_blob")?;
            let rows = statement.query_map([], |row| {
                Ok((ChainId(row.get(0)?), BlobDigest(row.get(1)?), row.get::<_, i64>(2)? as u64))
            })?;
            rows.collect()
        })?;
        let mut blobs: HashMap<BlobDigest, (u64, Vec<ChainId>)> = HashMap::new();
        for (chain, blob, size) in rows {
            blobs.entry(blob).or_insert((size, Vec::new())).1.push(chain);
        }
        Ok(blobs)
    }
}
