//! What is remembered between builds beside results: facts about layers, blobs, answers, stat lists, and which actions a
//! layer had last time.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, params};

use super::results::{USE_GRAIN, insert_layer, layer_of};
use super::{Database, next_unsynced, now};
use crate::commit_point::CommitPoint;
use crate::digest::{BlobDigest, Chain, ChainId, DiffId, Key};
use crate::error::Result;
use crate::place::RootsDir;
use crate::record::LayerInfo;
use crate::store::StoreKind;

impl Database {
    /// Facts about a layer, ours or of a base image.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<LayerInfo>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT newest_seconds, newest_nanos, entries, bytes, tar_bytes FROM layer WHERE diff_id = ?1",
            )?;
            Ok(statement.query_row([diff_id.0], |row| layer_of(row, 0)).optional()?.flatten())
        })
    }

    /// Remembers a layer whose listing was just written.
    pub fn put_layer(&self, diff_id: &DiffId, info: &LayerInfo) -> Result<()> {
        self.in_transaction(|transaction| {
            let unsynced = next_unsynced(transaction)?;
            insert_layer(transaction, diff_id, info, &self.boot, Some(unsynced))
        })?;
        CommitPoint::LayerNoted.reached();
        Ok(())
    }

    /// The answer to a question about what a stack of layers holds. It follows from the chain id alone.
    pub fn answer(&self, chain: &ChainId, question: &str) -> Result<Option<String>> {
        self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT answer FROM answer WHERE chain = ?1 AND question = ?2")?;
            statement.query_row(params![chain.0, question], |row| row.get(0)).optional()
        })
    }

    /// Remembers an answer.
    pub fn put_answer(&self, chain: &ChainId, question: &str, answer: &str) -> Result<()> {
        self.in_transaction(|transaction| {
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO answer (chain, question, answer) VALUES (?1, ?2, ?3)")?;
            statement.execute(params![chain.0, question, answer]).map(drop)
        })?;
        CommitPoint::AnswerNoted.reached();
        Ok(())
    }

    /// Why the result of a key that was done was not kept the last time.
    pub fn note(&self, key: &Key) -> Result<Option<String>> {
        self.answer(&ChainId::SCRATCH, &note_of(key))
    }

    /// Remembers it, or forgets it.
    pub fn put_note(&self, key: &Key, why: Option<&str>) -> Result<()> {
        match why {
            Some(why) => self.put_answer(&ChainId::SCRATCH, &note_of(key), why),
            // Mostly there is none, and reading waits for nobody.
            None if self.note(key)?.is_none() => Ok(()),
            None => self.in_transaction(|transaction| {
                let mut statement =
                    transaction.prepare_cached("DELETE FROM answer WHERE chain = ?1 AND question = ?2")?;
                statement.execute(params![ChainId::SCRATCH.0, note_of(key)]).map(drop)
            }),
        }
    }

    /// The blob that a layer becomes with a codec ([`Packing::codec`]), and its size.
    ///
    /// [`Packing::codec`]: crate::layer_type::Packing::codec
    pub fn blob(&self, diff_id: &DiffId, codec: &str) -> Result<Option<(BlobDigest, u64)>> {
        self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT blob, size FROM blob WHERE diff_id = ?1 AND codec = ?2")?;
            let read = |row: &rusqlite::Row| Ok((BlobDigest(row.get(0)?), row.get::<_, i64>(1)? as u64));
            statement.query_row(params![diff_id.0, codec], read).optional()
        })
    }

    /// Every blob from which a layer can be unpacked: those that are no file systems.
    pub fn tars(&self, diff_id: &DiffId) -> Result<Vec<BlobDigest>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT blob FROM blob WHERE diff_id = ?1 AND codec NOT LIKE 'squashfs%' AND codec NOT LIKE 'erofs%'",
            )?;
            statement.query_map([diff_id.0], |row| Ok(BlobDigest(row.get(0)?)))?.collect()
        })
    }

    /// Every blob that was made of a layer, whatever its codec.
    pub fn blobs(&self, diff_id: &DiffId) -> Result<Vec<BlobDigest>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT blob FROM blob WHERE diff_id = ?1")?;
            statement.query_map([diff_id.0], |row| Ok(BlobDigest(row.get(0)?)))?.collect()
        })
    }

    /// Remembers a blob that lies in its place.
    pub fn put_blob(&self, diff_id: &DiffId, codec: &str, blob: &BlobDigest, size: u64) -> Result<()> {
        self.in_transaction(|transaction| {
            let unsynced = next_unsynced(transaction)?;
            let mut statement = transaction.prepare_cached(
                "INSERT OR REPLACE INTO blob (diff_id, codec, blob, size, boot, unsynced)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            statement.execute(params![diff_id.0, codec, blob.0, size as i64, self.boot, unsynced]).map(drop)
        })?;
        CommitPoint::BlobNoted.reached();
        Ok(())
    }

    /// Id and kind of the store that was last seen in a roots directory.
    pub fn store(&self, roots: &RootsDir) -> Result<Option<(String, StoreKind)>> {
        let found = self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT id, kind FROM store WHERE roots = ?1")?;
            let read = |row: &rusqlite::Row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
            statement.query_row([roots.0.as_os_str().as_bytes()], read).optional()
        })?;
        // Of a kind that only a newer stacker knows nothing follows here.
        Ok(found.and_then(|(id, kind)| Some((id, StoreKind::from_word(&kind)?))))
    }

    /// Remembers what lies in a roots directory; nothing is written where that is known.
    pub fn put_store(&self, roots: &RootsDir, id: &str, kind: StoreKind) -> Result<()> {
        if self.store(roots)?.as_ref().is_some_and(|(known, of)| known == id && *of == kind) {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            let mut statement =
                transaction.prepare_cached("INSERT OR REPLACE INTO store (roots, id, kind) VALUES (?1, ?2, ?3)")?;
            statement.execute(params![roots.0.as_os_str().as_bytes(), id, kind.to_string()]).map(drop)
        })?;
        CommitPoint::StoreNoted.reached();
        Ok(())
    }

    /// Remembers the layers of images that were built upon, and when.
    pub fn put_bases(&self, bases: &[Chain]) -> Result<()> {
        let now = now();
        let stale = self.query(|connection| {
            let mut statement = connection.prepare_cached("SELECT last_used FROM base WHERE chain = ?1")?;
            let mut stale = Vec::new();
            for base in bases {
                let used: Option<i64> = statement.query_row([base.id().0], |row| row.get(0)).optional()?;
                if used.is_none_or(|used| (now - used).abs() >= USE_GRAIN) {
                    stale.push(base);
                }
            }
            Ok(stale)
        })?;
        if stale.is_empty() {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO base (chain, layers, last_used) VALUES (?1, ?2, ?3)")?;
            stale.iter().try_for_each(|base| {
                let layers: Vec<u8> = base.0.iter().flat_map(|diff_id| diff_id.0).collect();
                statement.execute(params![base.id().0, layers, now]).map(drop)
            })
        })?;
        CommitPoint::BasesNoted.reached();
        Ok(())
    }

    /// The stat list of an import tree.
    pub fn stat_list(&self, path: &Path, device: u64) -> Result<Option<Vec<u8>>> {
        self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT list FROM stat_list WHERE path = ?1 AND device = ?2")?;
            let path = path.as_os_str().as_bytes();
            statement.query_row(params![path, device as i64], |row| row.get(0)).optional()
        })
    }

    /// Keeps the stat lists of many import trees, in one transaction.
    pub fn put_stat_lists(&self, lists: &[(PathBuf, u64, Vec<u8>)]) -> Result<()> {
        if lists.is_empty() {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO stat_list (path, device, list) VALUES (?1, ?2, ?3)")?;
            lists.iter().try_for_each(|(path, device, list)| {
                statement.execute(params![path.as_os_str().as_bytes(), *device as i64, list]).map(drop)
            })
        })?;
        CommitPoint::StatListsNoted.reached();
        Ok(())
    }

    /// Keeps one stat list.
    pub fn put_stat_list(&self, path: &Path, device: u64, list: Vec<u8>) -> Result<()> {
        self.put_stat_lists(&[(path.to_path_buf(), device, list)])
    }

    /// Drops the stat list of a tree that turned out to be something else.
    pub fn drop_stat_list(&self, path: &Path, device: u64) -> Result<()> {
        self.in_transaction(|transaction| {
            let path = path.as_os_str().as_bytes();
            let values = params![path, device as i64];
            transaction.execute("DELETE FROM stat_list WHERE path = ?1 AND device = ?2", values).map(drop)
        })
    }

    /// The keys of a layer's actions in the previous build of its stackerfile (`scope`), in order; empty: never built.
    pub fn last_actions(&self, scope: &str, layer: &str) -> Result<Vec<Key>> {
        self.query(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT keys FROM last_actions WHERE scope = ?1 AND layer = ?2")?;
            let keys: Option<Vec<u8>> = statement.query_row([scope, layer], |row| row.get(0)).optional()?;
            Ok(split_keys(&keys.unwrap_or_default()))
        })
    }

    /// The same for a layer of this name in whatever stackerfile was built last.
    pub fn last_actions_anywhere(&self, layer: &str) -> Result<Vec<Key>> {
        self.query(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT keys FROM last_actions WHERE layer = ?1 ORDER BY written DESC, rowid DESC LIMIT 1",
            )?;
            let keys: Option<Vec<u8>> = statement.query_row([layer], |row| row.get(0)).optional()?;
            Ok(split_keys(&keys.unwrap_or_default()))
        })
    }

    /// Remembers the actions of many layers: (scope, layer, keys). Those that did not change are not written.
    pub fn put_all_last_actions(&self, actions: &[(&str, &str, &[Key])]) -> Result<()> {
        let mut changed = Vec::new();
        for entry in actions {
            if self.last_actions(entry.0, entry.1)? != entry.2 {
                changed.push(entry);
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT OR REPLACE INTO last_actions (scope, layer, keys, written) VALUES (?1, ?2, ?3, ?4)",
            )?;
            changed.iter().try_for_each(|(scope, layer, keys)| {
                let keys: Vec<u8> = keys.iter().flat_map(|key| key.0).collect();
                statement.execute(params![scope, layer, keys, now()]).map(drop)
            })
        })?;
        CommitPoint::LastActionsNoted.reached();
        Ok(())
    }

    /// Remembers the actions of one layer.
    pub fn put_last_actions(&self, scope: &str, layer: &str, keys: &[Key]) -> Result<()> {
        self.put_all_last_actions(&[(scope, layer, keys)])
    }

    pub(super) fn all_last_actions(&self) -> Result<Vec<(String, Vec<Key>)>> {
        self.query(|connection| {
            let mut statement = connection.prepare("SELECT layer, keys FROM last_actions")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, split_keys(&row.get::<_, Vec<u8>>(1)?))))?;
            rows.collect()
        })
    }
}

fn split_keys(bytes: &[u8]) -> Vec<Key> {
    bytes.as_chunks::<32>().0.iter().map(|key| Key(*key)).collect()
}

fn note_of(key: &Key) -> String {
    format!("not kept {key}")
}
