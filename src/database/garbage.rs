//! What gc asks, and what it takes away.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use super::{Cause, Database};
use crate::commit_point::CommitPoint;
use crate::digest::{BlobDigest, Chain, ChainId, DiffId, Key};
use crate::error::Result;

/// What nobody else needs of a result's data once its row is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphaned {
    /// The stack that it is on top of: its delta and tree.
    pub chain: Option<ChainId>,
    /// Its layer, which no other result has.
    pub diff_id: Option<DiffId>,
    /// Its blobs.
    pub blobs: Vec<BlobDigest>,
}

impl Database {
    /// What would be left over without the result of `key`, if that was last used before `before`; `None` when it was
    /// used since, or is not there.
    pub fn orphaned_by(&self, key: &Key, before: i64) -> Result<Option<Orphaned>> {
        let row = self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT diff_id, last_used FROM result WHERE key = ?1")?;
            statement
                .query_row([key.0], |row| Ok((row.get::<_, Option<[u8; 32]>>(0)?, row.get::<_, i64>(1)?)))
                .optional()
        })?;
        let Some((diff_id, last_used)) = row else { return Ok(None) };
        if last_used >= before {
            return Ok(None);
        }
        let (Some(diff_id), Some(action)) = (diff_id.map(DiffId), self.action(key)?) else {
            return Ok(Some(Orphaned::default()));
        };
        let others = self.others(key, &diff_id)?;
        let (mut chains, layers) = self.base_layers()?;
        for other in &others {
            chains.extend(self.action(other)?.map(|action| action.base.push(diff_id)));
        }
        let chain = action.base.push(diff_id);
        let wanted = !others.is_empty() || layers.contains(&diff_id);
        Ok(Some(Orphaned {
            chain: (!chains.contains(&chain)).then_some(chain),
            diff_id: (!wanted).then_some(diff_id),
            blobs: if wanted { vec![] } else { self.blobs(&diff_id)? },
        }))
    }

    /// Drops the result of a key with the rows of its blobs, and writes down when and why. Its action stays, and so do
    /// the facts of its layer, as long as its listing does.
    pub fn evict(&self, key: &Key, orphaned: &Orphaned, cause: &Cause) -> Result<()> {
        if let Some(diff_id) = &orphaned.diff_id {
            self.in_transaction(|transaction| {
                transaction.execute("DELETE FROM blob WHERE diff_id = ?1", [diff_id.0]).map(drop)
            })?;
            CommitPoint::BlobsForgotten.reached();
        }
        self.forget(key, cause)
    }

    /// Layers that no result has any more, and whose listings are kept all the same: those of evicted results, and of
    /// results of builds that are remembered.
    pub fn remembered_layers(&self) -> Result<HashSet<DiffId>> {
        let mut layers = self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT diff_id FROM evicted WHERE diff_id IS NOT NULL")?;
            statement.query_map([], |row| Ok(DiffId(row.get(0)?)))?.collect::<rusqlite::Result<HashSet<_>>>()
        })?;
        let built: Vec<Vec<u8>> = self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT DISTINCT diff_ids FROM build_layer")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })?;
        layers.extend(built.iter().flat_map(|ids| ids.as_chunks::<32>().0).map(|id| DiffId(*id)));
        Ok(layers)
    }

    /// Drops the facts of a layer whose listing has gone, unless a result has it.
    pub fn forget_layer(&self, diff_id: &DiffId) -> Result<()> {
        self.in_transaction(|transaction| {
            let unless_used =
                "DELETE FROM layer WHERE diff_id = ?1 AND NOT EXISTS (SELECT 1 FROM result WHERE diff_id = ?1)";
            transaction.execute(unless_used, [diff_id.0]).map(drop)
        })
    }

    /// The images that were built upon, and when last.
    pub fn bases(&self) -> Result<Vec<(Chain, i64)>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT layers, last_used FROM base")?;
            let rows = statement.query_map([], |row| {
                let layers: Vec<u8> = row.get(0)?;
                Ok((Chain(layers.as_chunks::<32>().0.iter().map(|id| DiffId(*id)).collect()), row.get(1)?))
            })?;
            rows.collect()
        })
    }

    /// Forgets images that were last built upon before `before`, but for some.
    pub fn forget_bases(&self, before: i64, keep: impl Fn(&ChainId) -> bool) -> Result<()> {
        let old = self.bases()?.into_iter().filter(|(base, used)| *used < before && !keep(&base.id()));
        for (base, _) in old {
            self.in_transaction(|transaction| {
                let chain = base.id().0;
                transaction.execute("DELETE FROM base_blob WHERE chain = ?1", params![chain])?;
                transaction.execute("DELETE FROM base WHERE chain = ?1", params![chain])?;
                let unknown = "DELETE FROM reference WHERE digest NOT IN (SELECT blob FROM base_blob)";
                transaction.execute(unknown, []).map(drop)
            })?;
            self.forget_blobs(&base)?;
        }
        Ok(())
    }

    /// Forgets the blobs (file systems) of a base image's layers that nothing else has.
    fn forget_blobs(&self, base: &Chain) -> Result<()> {
        let (_, others) = self.base_layers()?;
        self.in_transaction(|transaction| {
            let mut statement = transaction.prepare_cached(
                "DELETE FROM blob WHERE diff_id = ?1 AND NOT EXISTS (SELECT 1 FROM result WHERE diff_id = ?1)",
            )?;
            let mut gone = base.0.iter().filter(|diff_id| !others.contains(diff_id));
            gone.try_for_each(|diff_id| statement.execute([diff_id.0]).map(drop))
        })
    }

    /// Every stack and every layer that a result or a base image stands for.
    pub fn referenced(&self) -> Result<(HashSet<ChainId>, HashSet<DiffId>)> {
        let (mut chains, mut layers) = self.base_layers()?;
        let results: Vec<(Key, DiffId)> = self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT key, diff_id FROM result WHERE diff_id IS NOT NULL")?;
            statement.query_map([], |row| Ok((Key(row.get(0)?), DiffId(row.get(1)?))))?.collect()
        })?;
        for (key, diff_id) in results {
            layers.insert(diff_id);
            chains.extend(self.action(&key)?.map(|action| action.base.push(diff_id)));
        }
        Ok((chains, layers))
    }

    /// Every blob that a layer is known to have become, or that an image at a registry consists of.
    pub fn known_blobs(&self) -> Result<HashSet<BlobDigest>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT blob FROM blob UNION SELECT blob FROM base_blob")?;
            statement.query_map([], |row| Ok(BlobDigest(row.get(0)?)))?.collect()
        })
    }

    fn base_layers(&self) -> Result<(HashSet<ChainId>, HashSet<DiffId>)> {
        let bases = self.bases()?;
        let chains = bases.iter().flat_map(|(base, _)| base.ids()).collect();
        Ok((chains, bases.into_iter().flat_map(|(base, _)| base.0).collect()))
    }

    /// Other results with the same layer.
    fn others(&self, key: &Key, diff_id: &DiffId) -> Result<Vec<Key>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT key FROM result WHERE diff_id = ?1 AND key <> ?2")?;
            statement.query_map(params![diff_id.0, key.0], |row| Ok(Key(row.get(0)?)))?.collect()
        })
    }
}
