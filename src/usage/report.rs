//! What a survey found, by kind and by layer.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Kind, Survey};
use crate::cli::options::Directories;
use crate::database::Database;
use crate::digest::ChainId;
use crate::error::Result;
use crate::holder::Holder;
use crate::inspect::usage::{KindName, KindUsage, LayerUsage, Usage};
use crate::place::{delta, layer_listing, tree};

/// Measures the store, and whose it is.
pub fn usage(directories: &Directories, holder: &Holder, database: &Database) -> Result<Usage> {
    let history = crate::gc::history_names(&directories.stacker, database)?;
    let survey = Survey::take(directories, holder, &history)?;
    let ledger = survey.ledger();
    Ok(Usage {
        total: ledger.total(),
        outside: ledger.outside(),
        kinds: kinds(&survey),
        layers: layers(&survey, database)?,
    })
}

fn kinds(survey: &Survey) -> Vec<KindUsage> {
    let mut kinds: BTreeMap<Kind, (usize, u64)> = BTreeMap::new();
    for (thing, bytes) in survey.things().iter().zip(survey.ledger().attributed_data()) {
        let (count, total) = kinds.entry(thing.kind).or_default();
        *count += usize::from(!thing.is_directory);
        *total += bytes;
    }
    let kind = |(kind, (count, bytes))| KindUsage { kind: KindName::Of(kind), count, bytes };
    let mut kinds: Vec<KindUsage> = kinds.into_iter().map(kind).collect();
    let bytes = survey.ledger().metadata();
    if bytes > 0 {
        kinds.push(KindUsage { kind: KindName::Metadata("metadata".to_owned()), count: 0, bytes });
    }
    kinds
}

/// A layer and its things.
#[derive(Default)]
struct Of {
    results: usize,
    names: HashSet<String>,
}

fn layers(survey: &Survey, database: &Database) -> Result<Vec<LayerUsage>> {
    let mut layers: HashMap<Option<String>, Of> = HashMap::new();
    for row in database.list()? {
        let name = (!row.layers.is_empty()).then(|| row.layers.join(", "));
        let of = layers.entry(name).or_default();
        of.results += 1;
        of.names.insert(format!("logs/{}.log", row.key.hex()));
        let record = database.record_name(&row.key)?;
        of.names.extend(record.iter().flat_map(|name| [format!("records/{name}"), format!("fresh/{name}")]));
        let (Some(diff_id), Some(action)) = (row.diff_id, database.action(&row.key)?) else { continue };
        of.names.extend(directories(&action.base.push(diff_id)));
        of.names.insert(format!("listings/{}", layer_listing(&diff_id)));
        of.names.extend(database.blobs(&diff_id)?.iter().map(|blob| format!("blobs/sha256/{}", blob.hex())));
    }
    let bases = layers.entry(None).or_default();
    for (base, _) in database.bases()? {
        bases.names.extend(base.ids().iter().flat_map(directories));
        bases.names.extend(base.0.iter().map(|diff_id| format!("listings/{}", layer_listing(diff_id))));
    }
    bases.names.extend(database.base_blobs()?.keys().map(|blob| format!("blobs/sha256/{}", blob.hex())));
    let usage = |(layer, Of { results, names })| {
        let things = survey.numbers(&names);
        let exclusive = survey.ledger().exclusive(&things);
        let shared = survey.ledger().held(&things).saturating_sub(exclusive);
        LayerUsage { layer, results, exclusive, shared }
    };
    let mut layers: Vec<LayerUsage> = layers.into_iter().map(usage).collect();
    layers.retain(|layer| layer.results > 0 || layer.exclusive + layer.shared > 0);
    layers.sort_by(|a, b| (b.exclusive, &a.layer).cmp(&(a.exclusive, &b.layer)));
    Ok(layers)
}

fn directories(chain: &ChainId) -> [String; 3] {
    let nursery = crate::place::nursery(chain);
    [delta(chain), tree(chain), nursery].map(|path| path.to_string_lossy().into_owned())
}
