//! Files are read in parallel, each once, with the prerequisites that they name.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::diag::{Diagnostic, Texts, nearest, without_credentials};
use crate::error::Result;
use crate::git;
use crate::names::KnownNames;
use crate::order::order;

use super::reader::Reader;
use super::substitute::{Mistake, Values};
use super::yaml::{self, Entry, Kind, Node};
use super::{Found, Options, Place, Stackerfile, layer};

/// Every stackerfile of a build.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// In the order of a serial build: files by path, prerequisites first.
    pub stackerfiles: Vec<Stackerfile>,
    /// Rendered, by file and place.
    pub warnings: Vec<String>,
    /// For diagnostics of later stages.
    pub texts: Texts,
    /// What directories hold that were met when the files were looked for.
    pub names: Arc<KnownNames>,
}

/// A file that was read, as far as it could be.
struct File {
    stackerfile: Stackerfile,
    /// Where its prerequisites lead, looked up beside the reading since the kernel goes along the whole path.
    prerequisites: Vec<Result<PathBuf, String>>,
    diagnostics: Vec<Diagnostic>,
}

/// Reads these files and their prerequisites. Everything that is wrong in any of them is in the one error.
pub fn load(files: &[PathBuf], options: &Options) -> Result<Loaded> {
    load_found(Found { files: files.to_vec(), ..Found::default() }, options)
}

/// The same of files that were looked for.
pub fn load_found(found: Found, options: &Options) -> Result<Loaded> {
    let mut diagnostics = options.diagnostics();
    let mut paths: Vec<PathBuf> = found.files.iter().map(|path| options.absolute(path)).collect();
    paths.sort();
    let mut known = Known::default();
    let real: Vec<_> = paths.par_iter().map(|path| real(path, &found.names, options)).collect();
    for (path, real) in paths.into_iter().zip(real) {
        if let Err(reason) = known.add(&path, real) {
            let shown = diagnostics.texts().shown(&path);
            diagnostics.push(Diagnostic::error(format!("cannot read {shown}: {reason}")));
        }
    }
    let mut files = read_all(&mut known, &found.names, options);
    for file in &mut files {
        diagnostics.texts_mut().insert(file.stackerfile.path.as_path().into(), file.stackerfile.text.clone());
        diagnostics.extend(file.diagnostics.drain(..));
    }
    let stackerfiles: Vec<Stackerfile> = files.into_iter().map(|file| file.stackerfile).collect();
    let (sorted, cycles) = sort(&stackerfiles, diagnostics.texts());
    diagnostics.extend(cycles);
    let warnings = diagnostics.warnings();
    let texts = diagnostics.texts().clone();
    match diagnostics.into_error() {
        Some(error) => Err(error),
        None => {
            let mut slots: Vec<Option<Stackerfile>> = stackerfiles.into_iter().map(Some).collect();
            let stackerfiles = sorted.into_iter().filter_map(|index| slots[index].take()).collect();
            Ok(Loaded { stackerfiles, warnings, texts, names: Arc::new(found.names) })
        }
    }
}

/// The files found so far; two paths of one file are one.
#[derive(Default)]
struct Known {
    paths: Vec<PathBuf>,
    by_real_path: HashMap<PathBuf, usize>,
}

impl Known {
    /// The path by which the file is known that `path` leads to.
    fn add(&mut self, path: &Path, real: Result<PathBuf, String>) -> Result<PathBuf, String> {
        let index = *self.by_real_path.entry(real?).or_insert_with(|| {
            self.paths.push(path.to_path_buf());
            self.paths.len() - 1
        });
        Ok(self.paths[index].clone())
    }
}

/// Wave by wave: the prerequisites of one are the next.
fn read_all(known: &mut Known, names: &KnownNames, options: &Options) -> Vec<File> {
    let values = Values::new(&options.substitutes, &options.substitute_file, &options.builtins);
    let mut files: Vec<File> = Vec::new();
    while files.len() < known.paths.len() {
        let wave = &known.paths[files.len()..];
        let mut read: Vec<File> = wave.par_iter().map(|path| read(path, &values, names, options)).collect();
        for file in &mut read {
            resolve_prerequisites(file, known);
        }
        files.extend(read);
    }
    files
}

/// Gives each prerequisite the path by which its file is known.
fn resolve_prerequisites(file: &mut File, known: &mut Known) {
    let written = std::mem::take(&mut file.stackerfile.prerequisites);
    for ((path, place), real) in written.into_iter().zip(file.prerequisites.drain(..)) {
        match known.add(&path, real) {
            Ok(path) => file.stackerfile.prerequisites.push((path, place)),
            Err(reason) => {
                let diagnostic = Diagnostic::error(format!("cannot read prerequisite {}: {reason}", path.display()));
                file.diagnostics.push(diagnostic.at(place, ""));
            }
        }
    }
}

/// The order of a serial build, and an error for each cycle.
fn sort(files: &[Stackerfile], texts: &Texts) -> (Vec<usize>, Vec<Diagnostic>) {
    let index: HashMap<&Path, usize> = files.iter().enumerate().map(|(i, file)| (file.path.as_path(), i)).collect();
    let needs = |file: usize| -> Vec<usize> {
        files[file].prerequisites.iter().filter_map(|(path, _)| index.get(path.as_path()).copied()).collect()
    };
    let order = order(files.len(), needs);
    let cycle = |cycle: &Vec<usize>| {
        let names: Vec<String> = cycle.iter().chain(cycle.first()).map(|i| texts.shown(&files[*i].path)).collect();
        let mut diagnostic = Diagnostic::error(format!("prerequisites go in a circle: {}", names.join(" -> ")));
        for (at, file) in cycle.iter().enumerate() {
            let next = &files[cycle[(at + 1) % cycle.len()]].path;
            if let Some((_, place)) = files[*file].prerequisites.iter().find(|(path, _)| path == next) {
                diagnostic = diagnostic.at(place.clone(), "");
            }
        }
        diagnostic
    };
    let cycles = order.cycles.iter().map(cycle).collect();
    (order.sorted, cycles)
}

/// Reads one file. Where the text cannot be had, an empty file stands for it.
fn read(path: &Path, values: &Values, names: &KnownNames, options: &Options) -> File {
    let shared: Arc<Path> = path.into();
    let mut reader = Reader::new(shared, &options.working_dir);
    reader.require_hash = options.require_hash;
    let mut stackerfile = Stackerfile {
        path: path.to_path_buf(),
        text: "".into(),
        portable: "".into(),
        prerequisites: Vec::new(),
        layers: Vec::new(),
    };
    let text = match &options.past {
        // The way to it may have gone.
        Some(past) => past.text(path).unwrap_or_else(|| read_text(&git::real(path))),
        None => read_text(path),
    };
    match text {
        Err(reason) => reader.push(Diagnostic::error(format!("cannot read {}: {reason}", path.display()))),
        Ok(text) => match values.substitute(&text) {
            Err(mistakes) => {
                stackerfile.text = text.into();
                mistakes.into_iter().for_each(|mistake| cannot_substitute(&mut reader, mistake, values));
            }
            Ok(substituted) => {
                let (node, mistakes) = yaml::parse(&substituted);
                stackerfile.text = substituted.into();
                if options.portable {
                    stackerfile.portable = without_credentials(&portable(&text, options)).into();
                }
                reader.yaml_mistakes(mistakes);
                if let Some(node) = node {
                    read_document(&mut reader, &node, &mut stackerfile);
                }
            }
        },
    }
    let prerequisites = stackerfile.prerequisites.iter().map(|(path, _)| real(path, names, options)).collect();
    File { stackerfile, prerequisites, diagnostics: reader.diagnostics }
}

/// A text that can be substituted, with built-in directories left as placeholders.
fn portable(text: &str, options: &Options) -> String {
    let placeholder = |(name, _): &(String, String)| (name.clone(), format!("${{{{{name}}}}}"));
    let builtins: Vec<_> = options.builtins.iter().map(placeholder).collect();
    let values = Values::new(&options.substitutes, &options.substitute_file, &builtins);
    values.substitute(text).expect("the same names have values")
}

/// A hundred thousand layers fit; `/dev/zero` does not.
const LONGEST_TEXT: u64 = 64 << 20;

/// The text of a file, or why there is none.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| reason(&error))?;
    file.take(LONGEST_TEXT + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() as u64 > LONGEST_TEXT {
        return Err(format!("it has more than {} MiB", LONGEST_TEXT >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
        format!("line {line} is not UTF-8")
    })
}

/// The path without links; of what was there once, as it is written.
fn real(path: &Path, names: &KnownNames, options: &Options) -> Result<PathBuf, String> {
    match options.past.is_some() {
        true => Ok(git::real(path)),
        false => names.real(path).map_or_else(|| path.canonicalize().map_err(|error| reason(&error)), Ok),
    }
}

/// What the kernel said, without the number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn cannot_substitute(reader: &mut Reader, mistake: Mistake, values: &Values) {
    match mistake {
        Mistake::NoValue { name, span } => {
            let diagnostic = Diagnostic::error(format!("no value for `{name}`")).at(reader.place(&span), "");
            reader.push(match nearest(&name, values.names()) {
                Some(known) => diagnostic.help(format!("did you mean `{known}`?")),
                None => diagnostic
                    .help(format!("give one with `--substitute {name}=VALUE`, or write `${{{{{name}:default}}}}`")),
            });
        }
        Mistake::ShellForm { name, span } => {
            let diagnostic =
                Diagnostic::error(format!("`{name}` was given with --substitute, but this is left to the shell"));
            let place: Place = reader.place(&span);
            reader.push(diagnostic.at(place, "").help(format!("write `${{{{{name}}}}}`")));
        }
    }
}

fn read_document(reader: &mut Reader, node: &Node, stackerfile: &mut Stackerfile) {
    let entries = match &node.kind {
        Kind::Mapping(entries) => entries,
        Kind::Blank => return,
        _ => return reader.wrong_type("a stackerfile", "a map of layers", node),
    };
    for entry in entries.iter() {
        if &*entry.key == "config" {
            read_config(reader, entry, stackerfile);
        } else {
            stackerfile.layers.extend(layer::read(reader, entry));
        }
    }
}

fn read_config(reader: &mut Reader, entry: &Entry, stackerfile: &mut Stackerfile) {
    let entries = match &entry.value.kind {
        Kind::Mapping(entries) => entries,
        Kind::Blank => return,
        _ => return reader.wrong_type("`config`", "a map with `prerequisites`", &entry.value),
    };
    for entry in entries.iter() {
        match (&*entry.key, &entry.value.kind) {
            ("prerequisites", Kind::Blank) => {}
            ("prerequisites", Kind::Sequence(nodes)) => {
                for node in nodes.iter() {
                    let Some(path) = reader.text("an entry of `prerequisites`", node) else { continue };
                    stackerfile.prerequisites.push((reader.beside(&path), reader.place(&node.span)));
                }
            }
            ("prerequisites", _) => reader.wrong_type("`prerequisites`", "a list of texts", &entry.value),
            _ => reader.unknown_key(entry, "`config`", ["prerequisites"]),
        }
    }
}
