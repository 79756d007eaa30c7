//! What archives ask, and what they bring.

use rusqlite::{Transaction, params};

use super::results::{insert, insert_layer, record_name};
use super::{Database, next_unsynced, now};
use crate::commit_point::CommitPoint;
use crate::digest::{BlobDigest, DiffId};
use crate::error::Result;
use crate::record::{LayerInfo, Record};

/// The data of a layer, which lies in its place.
#[derive(Debug)]
pub struct Taken<'a> {
    /// The layer.
    pub diff_id: DiffId,
    /// What is known of it.
    pub info: LayerInfo,
    /// Its tar.
    pub blob: BlobDigest,
    /// What the tar is compressed with.
    pub codec: &'a str,
    /// Bytes of the blob.
    pub size: u64,
}

impl Database {
    /// The tars that were made of a layer: codec, digest and size, sorted by codec.
    pub fn tar_blobs(&self, diff_id: &DiffId) -> Result<Vec<(String, BlobDigest, u64)>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT codec, blob, size FROM blob
                 WHERE diff_id = ?1 AND codec NOT LIKE 'squashfs%' AND codec NOT LIKE 'erofs%' ORDER BY codec",
            )?;
            let rows = statement.query_map([diff_id.0], |row| {
                Ok((row.get(0)?, BlobDigest(row.get(1)?), row.get::<_, i64>(2)? as u64))
            })?;
            rows.collect()
        })
    }

    /// Writes results down that have the same layer, with their data, unless a result of the key is there by now. The
    /// records become those of this boot. Returns how many results that made.
    pub fn take(&self, records: &[Record], data: Option<&Taken>) -> Result<usize> {
        let mut named = Vec::new();
        for record in records {
            let record = Record::new(&record.action, &record.result, &self.boot);
            let name = record.write_fresh(&self.dir)?;
            CommitPoint::RecordWritten.reached();
            named.push((record, name));
        }
        let kept = self.in_transaction(|transaction| {
            if let Some(data) = data {
                put_data(transaction, data, &self.boot)?;
            }
            let mut kept = Vec::new();
            for (record, name) in &named {
                let before = record_name(transaction, &record.key)?;
                if before.is_none() {
                    insert(transaction, record, name, false, now())?;
                }
                kept.push(before.is_none_or(|before| before == *name));
            }
            Ok(kept)
        })?;
        CommitPoint::ResultInserted.reached();
        for ((_, name), kept) in named.iter().zip(&kept) {
            if !kept {
                crate::record::remove(&self.dir.fresh().join(name))?;
            }
        }
        Ok(kept.iter().filter(|kept| **kept).count())
    }
}

fn put_data(transaction: &Transaction, data: &Taken, boot: &str) -> rusqlite::Result<()> {
    let unsynced = next_unsynced(transaction)?;
    insert_layer(transaction, &data.diff_id, &data.info, boot, Some(unsynced))?;
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO blob (diff_id, codec, blob, size, boot, unsynced) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let values = params![data.diff_id.0, data.codec, data.blob.0, data.size as i64, boot, unsynced];
    statement.execute(values).map(drop)
}
