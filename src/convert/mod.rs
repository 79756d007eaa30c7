//! `stacker convert`: a Dockerfile becomes a stackerfile that builds the same files.
//!
//! parse-dockerfile finds the instructions, `converter` takes one after the other, `stage` gathers the layers, and
//! `render` writes them. Whatever a stackerfile cannot say becomes a remark: on stderr with its line, and as a
//! comment above the layer that it belongs to.

mod context;
mod converter;
mod copy;
mod copy_from;
mod here_docs;
mod instructions;
mod layer;
mod names;
mod render;
mod script;
mod stage;
mod substitution;
mod words;

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::diag::{Diagnostic, Diagnostics, Texts};
use crate::error::{At, Error, Result};
use crate::load::{Place, read_text};

use context::Context;
use converter::Converter;

/// What is to be converted, and where to. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Request {
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// The directory that `COPY` starts from.
    pub context: PathBuf,
    /// The stackerfile; `None`: stdout.
    pub output: Option<PathBuf>,
    /// Where substitutions are listed.
    pub substitutes: PathBuf,
    /// Files that are there are replaced.
    pub force: bool,
    /// Messages show paths relative to it.
    pub working_dir: PathBuf,
    /// Messages have ANSI colours.
    pub colour: bool,
}

/// Converts; returns what is to be told, each a warning with its place. Fails before anything is written when the
/// Dockerfile is wrong or a file would be overwritten.
pub fn convert(request: &Request) -> Result<Vec<String>> {
    let text = read_text(&request.dockerfile)
        .map_err(|reason| Error::Build(format!("cannot read {}: {reason}", request.dockerfile.display())))?;
    let text: Arc<str> = text.trim_start_matches('\u{feff}').into();
    let path: Arc<Path> = request.dockerfile.as_path().into();
    let mut texts = Texts::new(&request.working_dir, request.colour);
    texts.insert(path.clone(), text.clone());
    let shown = texts.shown(&path);
    let mut diagnostics = Diagnostics::new(texts);
    let error = |title: String, span: std::ops::Range<usize>| {
        Diagnostic::error(title).at(Place { path: path.clone(), span }, "")
    };
    if let Some((at, odd)) = text.char_indices().find(|(_, character)| is_odd(*character)) {
        let title = format!("the character {} cannot stand in a stackerfile", odd.escape_unicode());
        diagnostics.push(error(title, at..at + odd.len_utf8()));
        return Err(diagnostics.into_error().unwrap_or_else(|| Error::Build(shown)));
    }
    let (parsed, here_docs) = here_docs::hidden(&text, escape(&text));
    let dockerfile = match parse_dockerfile::parse(&parsed) {
        Ok(dockerfile) => dockerfile,
        Err(wrong) => {
            let at = offset(&text, wrong.line(), wrong.column());
            diagnostics.push(error(said(&wrong), at..at + 1));
            return Err(diagnostics.into_error().unwrap_or_else(|| Error::Build(wrong.to_string())));
        }
    };
    let name = image_name(&request.context);
    let mut converter = Converter::new(&text, shown.clone(), name, context(request));
    converter.here_docs = here_docs;
    converter.read(&dockerfile);
    diagnostics.extend(converter.errors.iter().map(|remark| error(remark.title.clone(), remark.span.clone())));
    for remark in &converter.remarks {
        let place = Place { path: path.clone(), span: remark.span.clone() };
        let diagnostic = Diagnostic::warning(&*remark.title).at(place, "");
        diagnostics.push(remark.help.iter().fold(diagnostic, |diagnostic, help| diagnostic.help(help)));
    }
    let mut warnings = diagnostics.warnings();
    if let Some(error) = diagnostics.into_error() {
        return Err(error);
    }
    let made = format!("Made from {shown} by stacker convert.");
    let header: String = [&made].into_iter().chain(&converter.early).map(|line| render::comment(line)).collect();
    write_all(request, &converter, &render::stackerfile(&header, &converter.layers), &mut warnings)?;
    Ok(warnings)
}

/// What YAML cannot hold everywhere, comments too. What a program needs of them, its language has an escape for.
fn is_odd(character: char) -> bool {
    (character.is_control() && !['\n', '\r', '\t'].contains(&character)) || "\u{fffe}\u{ffff}".contains(character)
}

/// Of the parser directive, which stands among the first comments.
fn escape(text: &str) -> char {
    let comments = text.lines().map_while(|line| line.trim_start().strip_prefix('#'));
    let mut values = comments.filter_map(|line| line.split_once('='));
    let found = values.find(|(name, _)| name.trim().eq_ignore_ascii_case("escape"));
    found.and_then(|(_, value)| value.trim().chars().next()).unwrap_or('\\')
}

fn context(request: &Request) -> Context {
    let beside = request.output.as_deref().and_then(Path::parent).unwrap_or(&request.working_dir);
    let prefix = relative(beside, &request.context);
    let written = request.output.iter().chain([&request.substitutes]);
    let inside = written.filter_map(|path| path.strip_prefix(&request.context).ok());
    let outputs = inside.map(|path| path.display().to_string()).collect();
    Context::new(request.context.clone(), prefix, &request.dockerfile, outputs)
}

/// From one directory to another: empty, or with a slash at its end. Both are absolute.
fn relative(from: &Path, to: &Path) -> String {
    let (from, to): (Vec<_>, Vec<_>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().filter(|part| matches!(part, Component::Normal(_))).map(|_| "..".to_owned());
    let down = to[common..].iter().map(|part| part.as_os_str().to_string_lossy().into_owned());
    up.chain(down).map(|part| part + "/").collect()
}

/// The name that the image gets where the Dockerfile gives it none: that of the directory.
fn image_name(context: &Path) -> String {
    let name = context.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = names::layer_name(&name);
    if name.is_empty() { "image".to_owned() } else { name }
}

/// The error without its place, which is shown otherwise.
fn said(error: &parse_dockerfile::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Lines and columns start at 1.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    text.floor_char_boundary((before + column.saturating_sub(1)).min(text.len().saturating_sub(1)))
}

fn write_all(request: &Request, converter: &Converter, text: &str, warnings: &mut Vec<String>) -> Result<()> {
    let substitutes = converter.substitutions.file();
    let mut files = vec![(request.substitutes.clone(), substitutes)];
    files.extend(request.output.iter().map(|path| (path.clone(), text.to_owned())));
    files.retain(|(path, text)| !text.is_empty() || request.output.as_ref() == Some(path));
    if !request.force
        && let Some((taken, _)) = files.iter().find(|(path, _)| fs::symlink_metadata(path).is_ok())
    {
        let taken = taken.display();
        return Err(Error::Usage(format!("{taken} exists: name another file, or say --force to replace it")));
    }
    for (directory, lines) in &converter.context.ignores {
        ignore_file(&request.context.join(directory).join(".stackerignore"), lines, warnings)?;
    }
    for (path, text) in &files {
        fs::write(path, text).at("write", path)?;
    }
    if request.output.is_none() {
        std::io::stdout().write_all(text.as_bytes()).at("write to", "stdout")?;
    }
    Ok(())
}

/// One that is there is the user's: it is not changed, but what it lacks is told.
fn ignore_file(path: &Path, lines: &[String], warnings: &mut Vec<String>) -> Result<()> {
    let Ok(known) = fs::read_to_string(path) else {
        let text = format!("# Made from .dockerignore by stacker convert.\n{}\n", lines.join("\n"));
        return fs::write(path, text).at("write", path);
    };
    let missing: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| !known.lines().any(|known| known == *line)).collect();
    if !missing.is_empty() {
        let (path, missing) = (path.display(), missing.join("`, `"));
        warnings
            .push(format!("warning: {path} exists and is left as it is; Docker would leave out `{missing}` as well"));
    }
    Ok(())
}
