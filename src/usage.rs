//! What the store holds: each thing, of which kind it is, and how many bytes it holds, alone and with others.

pub mod ledger;
pub mod meter;
pub mod report;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::options::Directories;
use crate::error::{At, Error, Result};
use crate::holder::Holder;
use crate::worker::message::{Answer, Job};
use ledger::Ledger;
use meter::{Measured, Part, Place, measure};

/// Kinds of things in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Layers as compressed tars or file systems; documents of images at registries.
    Blobs,
    /// Changes of layers, as runs are mounted on them.
    Deltas,
    /// Whole root filesystems, with the snapshots that runs on them write to.
    Trees,
    /// Imports as scripts see them.
    StagedImports,
    /// Lists of what layers hold.
    Listings,
    /// What is known of each result.
    Records,
    /// The database.
    Database,
    /// Output of runs.
    Logs,
    /// Listings and logs of results that are gone, and listings of imports, which explain builds.
    History,
    /// Files from servers.
    RemoteFiles,
    /// Parts of blobs that are being fetched.
    Downloads,
    /// What runs write, and what failed ones left.
    Drafts,
    /// What was found damaged.
    Damaged,
    /// What is being removed.
    Trash,
    /// All else: locks, notes of running builds, directories.
    Other,
}

/// One thing of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// Its name, relative to the directory that it is in.
    pub name: String,
    /// It is a directory that holds things, without them.
    pub is_directory: bool,
}

/// A writable snapshot of a tree: it holds what the tree holds.
#[derive(Debug)]
struct Nursery {
    itself: u32,
    tree: Option<u32>,
    inside: Vec<u32>,
}

/// All that a store holds.
#[derive(Debug, Default)]
pub struct Survey {
    things: Vec<Thing>,
    numbers: HashMap<String, u32>,
    nurseries: Vec<Nursery>,
    ledger: Ledger,
}

impl Survey {
    /// Measures all of it; `history` are the names (`listings/NAME`, `logs/NAME`) of files that belong to no result.
    /// Takes as long as a look at each file does, and changes nothing.
    pub fn take(directories: &Directories, holder: &Holder, history: &HashSet<String>) -> Result<Survey> {
        let mut survey = Survey::default();
        let files = survey.files(directories, history)?;
        let roots = survey.roots(&directories.roots.0)?;
        let mut measured = vec![measure(&directories.stacker.0, &files)];
        if directories.roots.store_json().exists() {
            measured.push(measure_roots(directories, holder, roots)?);
        }
        let metadata = measured.iter().map(|measured| measured.metadata).sum();
        let groups = measured.into_iter().flat_map(|measured| measured.groups).collect();
        survey.ledger = Ledger::new(survey.things.len(), groups, metadata);
        Ok(survey)
    }

    /// What would be free if the whole store went.
    pub fn total(&self) -> u64 {
        self.ledger.total()
    }

    /// The books.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// All things.
    pub fn things(&self) -> &[Thing] {
        &self.things
    }

    /// The numbers of those of some names that are there.
    pub fn numbers<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Vec<u32> {
        names.into_iter().filter_map(|name| self.numbers.get(name).copied()).collect()
    }

    /// These go, and with the last that kept a nursery, that one; gives back what is free then.
    pub fn remove(&mut self, names: &[String]) -> u64 {
        let mut freed = self.ledger.remove(&self.numbers(names));
        for nursery in &self.nurseries {
            let gone = |thing: &u32| self.ledger.has_gone(*thing);
            if nursery.tree.iter().all(gone) && nursery.inside.iter().all(gone) {
                freed += self.ledger.remove(&[nursery.itself]);
            }
        }
        freed
    }

    /// Bytes by name, each counted for the first thing that is left and holds it.
    pub fn attributed(&self) -> HashMap<String, u64> {
        let bytes = self.ledger.attributed();
        let left = self.things.iter().enumerate().filter(|(number, _)| !self.ledger.has_gone(*number as u32));
        left.map(|(number, thing)| (thing.name.clone(), bytes[number])).collect()
    }

    fn thing(&mut self, kind: Kind, name: String) -> u32 {
        let number = self.things.len() as u32;
        self.numbers.insert(name.clone(), number);
        self.things.push(Thing { kind, name, is_directory: false });
        number
    }

    /// What lies in the stacker directory.
    fn files(&mut self, directories: &Directories, history: &HashSet<String>) -> Result<Vec<Place>> {
        let (stacker, roots) = (&directories.stacker.0, &directories.roots.0);
        let mut places = Vec::new();
        let mut add = |survey: &mut Survey, kind, name: String, part| {
            let owners = vec![survey.thing(kind, name.clone())];
            survey.things[owners[0] as usize].is_directory = part == Part::Itself;
            places.push(Place { path: name, owners, part });
        };
        add(self, Kind::Other, ".".to_owned(), Part::Itself);
        for name in names(stacker)? {
            let Some(kind) = kind_of(&name) else {
                if stacker.join(&name) != *roots {
                    add(self, Kind::Other, name, Part::All);
                }
                continue;
            };
            if !stacker.join(&name).is_dir() {
                add(self, kind, name, Part::All);
                continue;
            }
            add(self, kind, name.clone(), Part::Itself);
            let inner = if name == "blobs" { "blobs/sha256".to_owned() } else { name };
            if inner.starts_with("blobs/") {
                add(self, kind, inner.clone(), Part::Itself);
            }
            for file in names(&stacker.join(&inner))? {
                let file = format!("{inner}/{file}");
                let kind = if history.contains(&file) { Kind::History } else { kind };
                add(self, kind, file, Part::All);
            }
        }
        Ok(places)
    }

    /// What lies in the roots directory. Links of the btrfs store stand for what they lead to.
    fn roots(&mut self, roots: &Path) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        let rest = self.thing(Kind::Other, "roots".to_owned());
        self.things[rest as usize].is_directory = true;
        let alone = |name: &str| Place { path: name.to_owned(), owners: vec![rest], part: Part::Itself };
        for name in [".", "store.json", "boot.json", "deltas", "trees", "nurseries", "drafts", "imports", "trash"] {
            places.push(alone(name));
        }
        let mut inside: BTreeMap<PathBuf, u32> = BTreeMap::new();
        let kinds = [Kind::Deltas, Kind::Drafts, Kind::StagedImports, Kind::Trash];
        for (directory, kind) in ["deltas", "drafts", "imports", "trash"].into_iter().zip(kinds) {
            for name in names(&roots.join(directory))? {
                let path = format!("{directory}/{name}");
                let number = self.thing(kind, path.clone());
                match fs::read_link(roots.join(&path)) {
                    Ok(link) => drop(inside.insert(link.strip_prefix("..").unwrap_or(&link).to_path_buf(), number)),
                    Err(_) => places.push(Place { path, owners: vec![number], part: Part::All }),
                }
            }
        }
        let mut trees = HashMap::new();
        for name in names(&roots.join("trees"))? {
            trees.insert(name.clone(), self.thing(Kind::Trees, format!("trees/{name}")));
        }
        let nurseries = self.in_nurseries(roots, &trees, &inside, &mut places)?;
        for (name, number) in trees {
            let owners = [Some(number), nurseries.get(&name).copied()].into_iter().flatten().collect();
            places.push(Place { path: format!("trees/{name}"), owners, part: Part::All });
        }
        Ok(places)
    }

    /// Nurseries by name. One whose tree is there holds the same as that.
    fn in_nurseries(
        &mut self,
        roots: &Path,
        trees: &HashMap<String, u32>,
        links: &BTreeMap<PathBuf, u32>,
        places: &mut Vec<Place>,
    ) -> Result<HashMap<String, u32>> {
        let mut nurseries = HashMap::new();
        for name in names(&roots.join("nurseries"))? {
            let path = format!("nurseries/{name}");
            let itself = self.thing(Kind::Trees, path.clone());
            let tree = trees.get(&name).copied();
            let part = if tree.is_some() { Part::Itself } else { Part::AllBut(".stacker".to_owned()) };
            places.push(Place { path: path.clone(), owners: vec![itself], part });
            let ours = format!("{path}/.stacker");
            let mut inside = Vec::new();
            for entry in names(&roots.join(&ours))? {
                let entry = format!("{ours}/{entry}");
                let linked = links.get(Path::new(&entry)).copied();
                let number = linked.unwrap_or_else(|| self.thing(Kind::Drafts, entry.clone()));
                places.push(Place { path: entry, owners: vec![number], part: Part::All });
                inside.push(number);
            }
            places.push(Place { path: ours, owners: vec![itself], part: Part::Itself });
            self.nurseries.push(Nursery { itself, tree, inside });
            nurseries.insert(name, itself);
        }
        Ok(nurseries)
    }
}

/// Measures places beneath the roots directory, which a worker can look at.
pub fn measure_roots(directories: &Directories, holder: &Holder, places: Vec<Place>) -> Result<Measured> {
    holder.prepare()?;
    match holder.submit(Job::Measure { places }, vec![])?.wait()? {
        Answer::Measured(measured) => Ok(measured),
        Answer::Failed(failure) => Err(failure.error(directories.written())),
        other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
    }
}

/// What would be free if all that lies in the stacker directory went.
pub fn measure_files(directories: &Directories) -> Result<u64> {
    let files = Survey::default().files(directories, &HashSet::new())?;
    let measured = measure(&directories.stacker.0, &files);
    let groups = measured.groups.iter().filter(|group| !group.outside);
    Ok(measured.metadata + groups.map(|group| group.bytes).sum::<u64>())
}

/// By a name in the stacker directory.
fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "blobs" => Kind::Blobs,
        "listings" => Kind::Listings,
        "records" | "fresh" => Kind::Records,
        "logs" => Kind::Logs,
        "downloads" => Kind::Downloads,
        "remote" => Kind::RemoteFiles,
        "damaged" => Kind::Damaged,
        name if name.starts_with("stacker.db.damaged") => Kind::Damaged,
        name if name.starts_with("stacker.db") => Kind::Database,
        _ => return None,
    })
}

/// The names in a directory; none where there is none.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        other => other.at("read", directory)?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry.at("read", directory)?.file_name());
    let names: Vec<_> = entries.map(name).collect::<Result<_>>()?;
    Ok(names.iter().filter_map(|name| OsStr::to_str(name)).map(str::to_owned).collect())
}
