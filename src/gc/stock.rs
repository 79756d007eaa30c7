//! What may go so that the store becomes smaller, and what each is worth.

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use crate::cli::options::Directories;
use crate::database::{CacheRow, Database};
use crate::digest::{ChainId, DiffId, Key};
use crate::error::Result;
use crate::pins::Pin;
use crate::record::names;
use crate::remote::COPY;

/// After so many days without use a result is worth half of what it was.
const HALF_LIFE: f64 = 7.0;

/// What can be made again from what stays, or from the host.
#[derive(Clone, Debug)]
pub(super) struct Remakeable {
    /// For people.
    pub what: String,
    /// Beneath the roots directory.
    pub paths: Vec<String>,
    /// In the stacker directory.
    pub file: Option<String>,
    /// Who uses it pins one of these.
    pub pins: Vec<Pin>,
    /// The layer of ours that a blob must be there of.
    pub diff_id: Option<DiffId>,
    /// When it was last used: seconds since 1970.
    pub last_used: i64,
}

/// A result, and what stands on it.
#[derive(Debug)]
pub(super) struct Stored {
    /// The result.
    pub row: CacheRow,
    /// The stack that it is on top of; `None`: it is no layer.
    chain: Option<ChainId>,
    base: ChainId,
    /// As the survey names them: of its layer.
    blobs: Vec<String>,
    record: Vec<String>,
}

/// All results.
#[derive(Debug, Default)]
pub(super) struct Stock {
    /// In the order of `cache ls`.
    pub results: Vec<Stored>,
    gone: Vec<bool>,
    kept: Vec<bool>,
    on: HashMap<ChainId, Vec<usize>>,
    with_chain: HashMap<ChainId, Vec<usize>>,
    with_layer: HashMap<DiffId, Vec<usize>>,
    bases: HashMap<ChainId, i64>,
}

impl Stock {
    /// As the database knows them.
    pub fn read(database: &Database) -> Result<Stock> {
        let mut stock = Stock::default();
        for (base, used) in database.bases()? {
            stock.bases.extend(base.ids().into_iter().map(|id| (id, used)));
        }
        for row in database.list()? {
            let Some(action) = database.action(&row.key)? else { continue };
            let chain = row.diff_id.map(|diff_id| action.base.push(diff_id));
            let blobs = match &row.diff_id {
                Some(diff_id) => database.blobs(diff_id)?,
                None => vec![],
            };
            let record = database.record_name(&row.key)?;
            let number = stock.results.len();
            stock.on.entry(action.base).or_default().push(number);
            if let (Some(chain), Some(diff_id)) = (chain, row.diff_id) {
                stock.with_chain.entry(chain).or_default().push(number);
                stock.with_layer.entry(diff_id).or_default().push(number);
            }
            let record = record.iter().flat_map(|name| [format!("records/{name}"), format!("fresh/{name}")]);
            let blobs = blobs.iter().map(|blob| format!("blobs/sha256/{}", blob.hex())).collect();
            stock.results.push(Stored { row, chain, base: action.base, blobs, record: record.collect() });
        }
        stock.gone = vec![false; stock.results.len()];
        stock.kept = stock.gone.clone();
        Ok(stock)
    }

    /// A result has gone, or stays whatever happens.
    pub fn settle(&mut self, number: usize, went: bool) {
        (self.gone[number], self.kept[number]) = (went, !went);
    }

    /// Whether that is so.
    pub fn is_settled(&self, number: usize) -> bool {
        self.gone[number] || self.kept[number]
    }

    /// The result that another one stands on, if it is one.
    pub fn beneath(&self, number: usize) -> Option<usize> {
        let made = self.with_chain.get(&self.results[number].base)?;
        made.iter().copied().find(|number| !self.gone[*number])
    }

    /// What goes with a result: what no other one that is left has too.
    pub fn names(&self, number: usize) -> Vec<String> {
        let stored = &self.results[number];
        let alone =
            |all: Option<&Vec<usize>>| all.is_none_or(|all| all.iter().all(|one| *one == number || self.gone[*one]));
        let mut names = stored.record.clone();
        if let Some(chain) =
            stored.chain.filter(|chain| alone(self.with_chain.get(chain)) && !self.bases.contains_key(chain))
        {
            names.extend([format!("deltas/{}", chain.short()), format!("trees/{}", chain.short())]);
        }
        if let Some(diff_id) = stored.row.diff_id
            && alone(self.with_layer.get(&diff_id))
        {
            names.extend(stored.blobs.iter().cloned());
        }
        names
    }

    /// What a result is worth, in seconds: what making it again would take, and all that stands on it, since that runs
    /// again where it comes out as something else. The longer nobody used it, the less.
    pub fn worth(&self, number: usize, now: i64) -> f64 {
        let row = &self.results[number].row;
        let days = (now - row.last_used).max(0) as f64 / 86_400.0;
        self.seconds(number, 0) * 0.5_f64.powf(days / HALF_LIFE)
    }

    fn seconds(&self, number: usize, depth: usize) -> f64 {
        let own = self.results[number].row.seconds.max(0.01);
        let above = self.results[number].chain.and_then(|chain| self.on.get(&chain));
        let above = above.into_iter().flatten().filter(|above| !self.gone[**above] && depth < 200);
        own + above.map(|above| self.seconds(*above, depth + 1)).sum::<f64>()
    }

    /// Trees and deltas whose layer has a blob or is a base image's, staged imports, copies of files from servers; those
    /// used longest ago first.
    pub fn remakeable(&self, directories: &Directories) -> Result<Vec<Remakeable>> {
        let mut all = self.layers();
        let roots = &directories.roots.0;
        for name in names(&roots.join("imports")).unwrap_or_default() {
            let path = format!("imports/{name}");
            let pins = vec![Pin::Import(name.clone())];
            let last_used = modified(&roots.join(&path));
            let what = format!("staged import {name}");
            all.push(Remakeable { what, paths: vec![path], file: None, pins, diff_id: None, last_used });
        }
        let remote = directories.stacker.remote();
        for name in names(&remote)? {
            let Some(Ok(digest)) = name.strip_prefix(COPY).map(|hex| format!("sha256:{hex}").parse()) else { continue };
            let last_used = modified(&remote.join(format!("{name}{}", crate::remote::MARK)));
            let (what, file) = (format!("file from a server {name}"), Some(format!("remote/{name}")));
            all.push(Remakeable {
                what,
                paths: vec![],
                file,
                pins: vec![Pin::Remote(digest)],
                diff_id: None,
                last_used,
            });
        }
        // One build uses many in the same second: each run of gc, dry or not, takes them in the same order.
        all.sort_by(|a, b| (a.last_used, &a.what, &a.paths).cmp(&(b.last_used, &b.what, &b.paths)));
        Ok(all)
    }

    fn layers(&self) -> Vec<Remakeable> {
        let mut all = Vec::new();
        for (chain, numbers) in &self.with_chain {
            let left: Vec<&Stored> =
                numbers.iter().filter(|number| !self.gone[**number]).map(|number| &self.results[*number]).collect();
            let Some(newest) = left.iter().max_by_key(|stored| stored.row.last_used) else { continue };
            let keys: Vec<Key> = left.iter().map(|stored| stored.row.key).collect();
            let of =
                if newest.row.layers.is_empty() { newest.row.key.first_digits() } else { newest.row.layers.join(", ") };
            let mut pins: Vec<Pin> = keys.into_iter().map(Pin::Result).collect();
            pins.push(Pin::Base(*chain));
            let what = format!("files of {of}, of which the blob stays");
            let (diff_id, last_used) = (newest.row.diff_id, newest.row.last_used);
            all.push(Remakeable { what, paths: paths(chain), file: None, pins, diff_id, last_used });
        }
        for (chain, last_used) in self.bases.iter().filter(|(chain, _)| !self.with_chain.contains_key(chain)) {
            let what = format!("files of a base image ({})", chain.short());
            let (pins, last_used) = (vec![Pin::Base(*chain)], *last_used);
            all.push(Remakeable { what, paths: paths(chain), file: None, pins, diff_id: None, last_used });
        }
        all
    }
}

fn paths(chain: &ChainId) -> Vec<String> {
    vec![format!("deltas/{}", chain.short()), format!("trees/{}", chain.short())]
}

/// When something was last used, as its modification time says; in seconds since 1970.
fn modified(path: &std::path::Path) -> i64 {
    let found = path.symlink_metadata().and_then(|found| found.modified());
    found.ok().and_then(|moment| moment.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs() as i64)
}
