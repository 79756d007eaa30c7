//! One step in the second place, and how what came out differs from what the cache has.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::time::Instant;

use crate::database::ActionResult;
use crate::digest::{Chain, DiffId};
use crate::error::{At, Error, Result};
use crate::execute::{Again, BlobPlace, Lost, Site, StepEnd, perform};
use crate::listing::{Entry, Kind, Listing};
use crate::place;
use crate::progress::Event;
use crate::worker::message::{Answer, Job};

use super::compare::{Pair, looks, pairs};
use super::content::difference;
use super::cure::cure;
use super::report::{FileDifference, LabelDifference, StepVerdict, Verdict};
use super::second::Second;
use crate::build::Look;

/// Entries that are shown of one layer.
const SHOWN: usize = 20;

/// Bytes of a file of which the first difference is looked for.
const LARGEST: u64 = 64 << 20;

/// Does it and compares.
pub fn again(look: &Look, second: &Second, site: &Site, again: &Again) -> Result<StepVerdict> {
    let Again { node, run, result, blobs } = again;
    second.show(&run.parent)?;
    run.sources.values().try_for_each(|(chain, _)| second.show(chain))?;
    let step = run.action.kind.name();
    let layer = node.layer.name.clone();
    site.tell(Event::Started { layer: layer.clone(), step, reason: "once more, to compare".to_owned() });
    let begun = Instant::now();
    let (end, _) = perform(site, node, run, blobs)?;
    let mut verdict = StepVerdict {
        step: step.to_owned(),
        key: run.key.to_string(),
        verdict: Verdict::Reproducible,
        first: result.diff_id.map(|diff_id| diff_id.to_string()),
        second: None,
        seconds: begun.elapsed().as_secs_f64(),
        differing: 0,
        files: Vec::new(),
        labels: Vec::new(),
        failure: None,
    };
    match end {
        StepEnd::Sealed(sealed) | StepEnd::Unkept(sealed, _) => {
            verdict.second = sealed.diff_id.map(|diff_id| diff_id.to_string());
            if sealed.diff_id != result.diff_id {
                verdict.verdict = Verdict::Different;
                files(look, (second, site), &run.parent, (result.diff_id, sealed.diff_id), &mut verdict)?;
            }
            if let Some(diff_id) = sealed.diff_id {
                let delta = place::delta(&run.parent.id().push(diff_id));
                site.remove(vec![delta.to_string_lossy().into_owned()])?;
            }
        }
        StepEnd::Labels(labels) => compare_labels(result, &labels, &mut verdict),
        StepEnd::Failed { message, .. } => {
            verdict.verdict = Verdict::Failed;
            verdict.failure = Some(message);
        }
        StepEnd::SourceChanged(_) => {
            return Err(Error::Build(format!("what layer {layer} is made from changed meanwhile: try again")));
        }
        StepEnd::Evicted(_) => {
            return Err(Error::Build(format!("what layer {layer} stands on went from the cache meanwhile: try again")));
        }
    }
    Ok(verdict)
}

/// The first entries that differ of two layers on one stack, with what differs in them.
fn files(
    look: &Look,
    (place, site): (&Second, &Site),
    parent: &Chain,
    (first, second): (Option<DiffId>, Option<DiffId>),
    verdict: &mut StepVerdict,
) -> Result<()> {
    let (real, before, after) = (&look.site, parent.with(first), parent.with(second));
    // Of what the first came out as only the listing may be left. For a step that is no script nobody has asked for the
    // files beneath, either.
    let readable = has_files(real, &before, &real.own_blobs(&look.database, &before)?)?;
    place.show(parent)?;
    let readable = readable && has_files(site, &after, &HashMap::new())?;
    let open = |site: &Site, diff_id: Option<DiffId>| {
        diff_id.map(|diff_id| Listing::open(&site.stacker.listing(&diff_id))).transpose()
    };
    let (first, second) = (open(real, first)?, open(site, second)?);
    let differing = pairs(first.as_ref(), second.as_ref())?;
    verdict.differing = differing.len() as u64;
    for pair in differing.iter().take(SHOWN) {
        let contents = match readable {
            true => contents(pair, (real, &before), (site, &after))?,
            false => None,
        };
        let borrowed = contents.as_ref().map(|(first, second)| (&first[..], &second[..]));
        verdict.files.push(FileDifference {
            path: format!("/{}", crate::text::escape(pair.path()).trim_start_matches('%')),
            first: pair.first.as_ref().map(looks),
            second: pair.second.as_ref().map(looks),
            content: borrowed.map(|(first, second)| difference(first, second)),
            cure: cure(pair.path(), borrowed).map(str::to_owned),
        });
    }
    Ok(())
}

/// Whether the files of a chain can be looked into.
fn has_files(site: &Site, chain: &Chain, blobs: &HashMap<DiffId, BlobPlace>) -> Result<bool> {
    match site.have_chain(chain, blobs, false) {
        Ok(_) => Ok(true),
        Err(Lost::Evicted(_)) => Ok(false),
        Err(Lost::Error(error)) => Err(error),
    }
}

/// Both contents of a file, where they differ and are not too large.
fn contents(pair: &Pair, first: (&Site, &Chain), second: (&Site, &Chain)) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let (Some(before), Some(after)) = (&pair.first, &pair.second) else { return Ok(None) };
    let differ = match (&before.kind, &after.kind) {
        (Kind::File { size, content }, Kind::File { size: other, content: another }) => {
            content != another && (*size).max(*other) <= LARGEST
        }
        _ => false,
    };
    if !differ {
        return Ok(None);
    }
    Ok(Some((content(first, before)?, content(second, after)?)))
}

/// What is in a file of a layer, read by a worker, who alone may.
fn content((site, chain): (&Site, &Chain), entry: &Entry) -> Result<Vec<u8>> {
    let mut tmp = site.tmp_file()?;
    let output = tmp.as_file().try_clone().at("duplicate", tmp.path())?;
    let job = Job::Grab { chain: chain.clone(), path: entry.path.clone(), name: site.unique() };
    match site.job(job, vec![output.into()])? {
        Answer::Done => {}
        other => return Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
    }
    let path = tmp.path().to_path_buf();
    std::io::Seek::rewind(tmp.as_file_mut()).at("rewind", &path)?;
    let mut archive = tar::Archive::new(tmp.as_file());
    let mut bytes = Vec::new();
    if let Some(member) = archive.entries().at("read", &path)?.next() {
        member.at("read", &path)?.take(LARGEST).read_to_end(&mut bytes).at("read", &path)?;
    }
    Ok(bytes)
}

fn compare_labels(result: &ActionResult, labels: &BTreeMap<String, String>, verdict: &mut StepVerdict) {
    let none = BTreeMap::new();
    let before = result.labels.as_ref().unwrap_or(&none);
    let mut names: Vec<&String> = before.keys().chain(labels.keys()).collect();
    names.sort();
    names.dedup();
    for name in names.into_iter().filter(|name| before.get(*name) != labels.get(*name)) {
        let (first, second) = (before.get(name).cloned(), labels.get(name).cloned());
        verdict.labels.push(LabelDifference { name: name.clone(), first, second });
    }
    verdict.differing = verdict.labels.len() as u64;
    if verdict.differing > 0 {
        verdict.verdict = Verdict::Different;
    }
}
