//! Files from http(s) servers: imports and tar bases by URL. They are kept in the stacker directory under their digest,
//! and from then on are files of the host like any other.
//!
//! A server is asked once a build and URL, beside the others, whether the file is still what is kept; not where all that
//! is wanted is named by a `hash` and is here. Nothing is believed to be unchanged but by a strong validator or a digest
//! that the server tells.

mod ask;
mod kept;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;

use crate::database::Database;
use crate::diag::{Diagnostic, Diagnostics};
use crate::digest::{BlobDigest, hex};
use crate::error::{Error, Result};
use crate::graph::{LayerGraph, LayerIndex, NodeBase, NodeSource};
use crate::http::{self, Failure};
use crate::inputs::{Scope, base_place, remember_sha256};
use crate::load::{Loaded, Place};
use crate::pins::Pins;
use crate::progress::{Beside, Event, Mode};
use crate::tell::Teller;
use ask::{Answered, Ask};
use kept::Kept;
pub(crate) use kept::Note;

pub(crate) use kept::{COPY, MARK, PART, RESUME};

/// Servers that are asked at a time.
const AT_ONCE: usize = 8;

/// What fetching needs.
pub struct Fetching<'a> {
    /// For places in messages.
    pub loaded: &'a Loaded,
    /// The layers whose files are wanted.
    pub wanted: &'a BTreeSet<LayerIndex>,
    /// The client, the directory, the limit.
    pub scope: &'a Scope,
    /// Knows digests of what was read before.
    pub database: &'a Database,
    /// Of this build: what is fetched stays.
    pub pins: &'a Pins,
    /// How downloads are shown.
    pub progress: Option<Mode>,
    /// The downloads and waits there were.
    pub beside: RefCell<Vec<Beside>>,
}

/// A place that wants a file, with the digest that it must have there.
struct Use {
    place: Place,
    hash: Option<[u8; 32]>,
    /// `import` or `tar base`.
    what: &'static str,
}

/// One URL.
struct Source {
    url: String,
    uses: Vec<Use>,
    /// What it was when it was fetched, if that is here, whole.
    kept: Option<Note>,
}

/// What became of asking for a URL; `None`: nobody was asked.
type Asked = Option<Result<Answered, Failure>>;

/// Which file is what a URL and a `hash` mean.
type Files = HashMap<(String, Option<[u8; 32]>), PathBuf>;

/// Lets every URL of the wanted layers be a file that is here. Returns warnings: what could not be asked for and is kept.
pub fn fetch(graph: &mut LayerGraph, fetching: &Fetching) -> Result<Vec<String>> {
    let uses = uses(graph, fetching.wanted);
    if uses.is_empty() {
        return Ok(Vec::new());
    }
    let database = fetching.database;
    let kept = Kept::new(&fetching.scope.stacker, fetching.pins, database);
    let mut files = Files::new();
    let mut sources = Vec::new();
    for (url, mut uses) in uses {
        for one in &mut uses {
            if let Some(hash) = one.hash
                && kept.take(database, &BlobDigest(hash))?
            {
                files.insert((url.clone(), one.hash), kept.copy(&BlobDigest(hash)));
            }
        }
        uses.retain(|one| !files.contains_key(&(url.clone(), one.hash)));
        if !uses.is_empty() {
            sources.push(Source { kept: kept.note(database, &url)?, url, uses });
        }
    }
    let asked = match fetching.scope.http.options().offline {
        true => sources.iter().map(|_| None).collect(),
        false => ask_all(fetching, &kept, &sources),
    };
    let mut diagnostics = Diagnostics::new(fetching.loaded.texts.clone());
    for (source, asked) in sources.iter().zip(asked) {
        if let Some(Ok(Answered { digest, content: Some(content) })) = &asked {
            remember_sha256(database, content, &digest.hex())?;
        }
        source.settle(asked, &kept, &mut files, &mut diagnostics)?;
    }
    let warnings = diagnostics.warnings();
    if let Some(error) = diagnostics.into_error() {
        return Err(error);
    }
    graph.put_files(|url, hash| files.get(&(url.to_owned(), hash.copied())).cloned());
    Ok(warnings)
}

/// The layers with a URL of which nothing is kept, with what is missing.
pub fn unknown(graph: &LayerGraph, fetching: &Fetching) -> Result<BTreeMap<LayerIndex, String>> {
    let database = fetching.database;
    let kept = Kept::new(&fetching.scope.stacker, fetching.pins, database);
    let mut unknown = BTreeMap::new();
    for &layer in fetching.wanted {
        for (url, uses) in uses(graph, &[layer].into()) {
            for one in uses {
                let by_hash = one.hash.map_or(Ok(false), |hash| kept.take(database, &BlobDigest(hash)))?;
                if !by_hash && kept.note(database, &url)?.is_none() {
                    unknown.insert(layer, format!("{} {} is not kept here", one.what, http::shown(&url)));
                }
            }
        }
    }
    Ok(unknown)
}

/// Every URL, with all places that want it.
fn uses(graph: &LayerGraph, wanted: &BTreeSet<LayerIndex>) -> BTreeMap<String, Vec<Use>> {
    let mut uses: BTreeMap<String, Vec<Use>> = BTreeMap::new();
    for &index in wanted {
        let node = &graph[index];
        if let NodeBase::UrlTar(url) = &node.base {
            let base = Use { place: base_place(node), hash: None, what: "tar base" };
            uses.entry(url.clone()).or_default().push(base);
        }
        for import in &node.imports {
            if let NodeSource::Url(url) = &import.source {
                let (place, hash) = (import.import.place.clone(), import.import.hash);
                uses.entry(url.clone()).or_default().push(Use { place, hash, what: "import" });
            }
        }
    }
    uses
}

/// Asks several servers at a time, and shows what comes.
fn ask_all(fetching: &Fetching, kept: &Kept, sources: &[Source]) -> Vec<Asked> {
    if sources.is_empty() {
        return Vec::new();
    }
    let (teller, scope) = (Teller::start(fetching.progress, &[], 0), fetching.scope);
    let next = Mutex::new(sources.iter().enumerate());
    let answers = Mutex::new(BTreeMap::new());
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE.min(sources.len()) {
            let (next, answers, events) = (&next, &answers, teller.sender());
            threads.spawn(move || {
                let take = || next.lock().unwrap_or_else(|broken| broken.into_inner()).next();
                while let Some((index, source)) = take() {
                    let ask = Ask { url: &source.url, http: &scope.http, kept, events: &events };
                    let answer = ask.ask(source.kept.as_ref(), scope.max_layer_size);
                    answers.lock().unwrap_or_else(|broken| broken.into_inner()).insert(index, answer);
                }
            });
        }
    });
    fetching.beside.borrow_mut().extend(teller.end(Event::Stop));
    let mut answers = answers.into_inner().unwrap_or_else(|broken| broken.into_inner());
    (0..sources.len()).map(|index| answers.remove(&index)).collect()
}

impl Source {
    /// Says which file each place gets, or why it gets none.
    fn settle(&self, asked: Asked, kept: &Kept, files: &mut Files, diagnostics: &mut Diagnostics) -> Result<()> {
        let shown = http::shown(&self.url);
        let found = match (asked, &self.kept) {
            (Some(Ok(answered)), _) => answered.digest,
            (None, Some(note)) => note.sha256,
            (None, None) => {
                let title = |one: &Use| format!("{} {shown} is not kept here, and --offline asks no server", one.what);
                return self.fail(title, diagnostics);
            }
            (Some(Err(failure)), Some(note)) if failure.unreachable || failure.status.is_some_and(http::may_pass) => {
                let title = format!("{failure}; the copy of {} is used", note.day());
                diagnostics.push(Diagnostic::warning(title).at(self.uses[0].place.clone(), ""));
                note.sha256
            }
            (Some(Err(failure)), note) => {
                let left = match note {
                    Some(note) => format!("a copy of {} is kept, which --offline uses", note.day()),
                    None => "no copy of it is kept".to_owned(),
                };
                return match Error::from(failure) {
                    Error::Build(message) => self.fail(|_| format!("{message}; {left}"), diagnostics),
                    error => Err(error),
                };
            }
        };
        for one in &self.uses {
            match one.hash {
                Some(wanted) if wanted != found.0 => {
                    let (what, wanted, found) = (one.what, hex(&wanted), found.hex());
                    let title = format!("{what} {shown} has another sha256: wanted {wanted}, found {found}");
                    diagnostics.push(Diagnostic::error(title).at(one.place.clone(), ""));
                    // The next build must see what the server has then, whatever its validators say.
                    kept.forget(&self.url)?;
                }
                hash => drop(files.insert((self.url.clone(), hash), kept.copy(&found))),
            }
        }
        Ok(())
    }

    fn fail(&self, title: impl Fn(&Use) -> String, diagnostics: &mut Diagnostics) -> Result<()> {
        diagnostics.extend(self.uses.iter().map(|one| Diagnostic::error(title(one)).at(one.place.clone(), "")));
        Ok(())
    }
}
