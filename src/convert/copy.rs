//! `COPY` and `ADD`: imports with a `dest` wherever they give what Docker gives, and else scripts that copy.

use std::ops::Range;

use parse_dockerfile::{Flag, HereDoc, Source, UnescapedString};

use super::context::Found;
use super::converter::Converter;
use super::layer::{Base, Layer, OutImport};
use super::script::{Body, PUT, preamble, quote};
use super::substitution::{guarded, has_placeholder};
use crate::http;

/// What the options and the last word say.
pub(super) struct Target {
    span: Range<usize>,
    add: bool,
    /// Absolute, without a slash at its end.
    pub dest: String,
    /// The last word ends like a directory.
    pub into: bool,
    owner: Option<Owner>,
    /// Octal digits.
    pub mode: Option<String>,
    /// A stage or an image.
    pub from: Option<String>,
    checksum: Option<String>,
}

/// `--chown`.
#[derive(Clone)]
enum Owner {
    /// Numbers.
    Ids(String, String),
    /// What only the image can look up, as `chown` takes it.
    Named(String),
}

/// A path below a directory, or an absolute one, without `.`, `..` and a slash at its end.
pub(super) fn absolute(directory: &str, path: &str) -> String {
    let full = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    format!("/{}", cleaned(&full))
}

/// A path relative to a root that nothing leads out of. Placeholders stay whole.
pub(super) fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    if has_placeholder(path) {
        return path.trim_matches('/').to_owned();
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

pub(super) fn is_directory_like(path: &str) -> bool {
    path.ends_with('/') || [".", ".."].contains(&path) || path.ends_with("/.") || path.ends_with("/..")
}

pub(super) fn has_wildcards(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Or stands for one.
fn is_sha256(digits: &str) -> bool {
    has_placeholder(digits) || (digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

impl Converter<'_> {
    /// An instruction of either kind.
    pub fn copy(&mut self, span: &Range<usize>, flags: &[Flag], sources: &[Source], dest: &UnescapedString, add: bool) {
        let text = self.word(dest);
        let mut target = Target {
            span: span.start..dest.span.end,
            add,
            dest: absolute(&self.stage().workdir, &text),
            into: is_directory_like(&text),
            owner: None,
            mode: None,
            from: None,
            checksum: None,
        };
        flags.iter().for_each(|flag| self.copy_flag(flag, &mut target));
        if sources.len() > 1 && !target.into {
            return self.error(&dest.span, "several sources need a directory: end this with a `/`");
        }
        if target.owner.is_some() {
            self.make_before(&target.dest);
        }
        let mut paths = Vec::new();
        let mut names = super::here_docs::ends(&self.text[target.span.clone()], self.escape).into_iter();
        for source in sources {
            match source {
                Source::HereDoc(document) => {
                    let name = names.next().map_or_else(|| "file".to_owned(), |(_, name)| name);
                    self.copy_text(document, &target, &name);
                }
                Source::Path(path) => paths.push((self.word(path), path.span.clone())),
                _ => self.error(span, "a source that this version does not know"),
            }
        }
        match target.from.clone() {
            Some(from) => self.copy_from(&from, &paths, &target),
            None => paths.iter().for_each(|(path, span)| self.copy_one(path, span, &target)),
        }
    }

    /// WORKDIR has made a directory before something comes that would give it another owner or mode.
    fn make_before(&mut self, dest: &str) {
        let stage = self.stage();
        if stage.origin.is_some() && stage.pending.iter().any(|directory| directory == dest) {
            self.run(&Body::Text(":".to_owned()));
        }
    }

    fn copy_flag(&mut self, flag: &Flag, target: &mut Target) {
        let span = flag.span();
        let value = flag.value.as_ref().map(|value| self.word(value)).unwrap_or_default();
        match &*flag.name.value {
            "from" if !target.add => target.from = Some(value),
            "chown" => target.owner = Some(owner(&value)),
            "chmod" => match !value.is_empty() && value.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
                true => target.mode = Some(value),
                false => self.remark(&span, format!("--chmod={value} is not carried over: only octal modes are"), None),
            },
            "checksum" if target.add => match value.strip_prefix("sha256:").filter(|digits| is_sha256(digits)) {
                Some(digits) => target.checksum = Some(digits.to_owned()),
                None => self.error(&span, format!("--checksum={value} is not sha256: and 64 hexadecimal digits")),
            },
            // About how layers are made, not what is in them.
            "link" => {}
            name => self.remark(&span, format!("--{name} is not carried over"), None),
        }
    }

    fn copy_one(&mut self, source: &str, span: &Range<usize>, target: &Target) {
        let is_url = source.starts_with("http://") || source.starts_with("https://");
        if target.add
            && (source.starts_with("git@") || (is_url && source.split('#').next().unwrap_or("").ends_with(".git")))
        {
            return self.remark(span, format!("ADD of the repository {source} is not carried over"), None);
        }
        if target.add && is_url {
            return self.add_url(source, span, target);
        }
        let path = cleaned(source);
        if !has_wildcards(&path) || has_placeholder(&path) {
            return self.copy_host(&path, span, target);
        }
        let found = self.context.matches(&path);
        let (count, names) = (found.len(), "convert again when files come or go");
        self.remark(span, format!("`{source}` became the {count} names that it matches now"), Some(names));
        if found.len() > 1 && !target.into {
            return self.error(span, format!("`{source}` matches several: they need a directory that ends with a `/`"));
        }
        found.iter().for_each(|path| self.copy_host(path, span, target));
    }

    fn add_url(&mut self, source: &str, span: &Range<usize>, target: &Target) {
        let name = if has_placeholder(source) {
            let path = source.split(['?', '#']).next().unwrap_or(source);
            path.rsplit('/').next().map(str::to_owned)
        } else {
            match http::url(source) {
                Ok(url) => http::name(&url).map(|name| guarded(&name)),
                Err(why) => return self.error(span, why),
            }
        };
        let dest = match (target.into, name) {
            (false, _) => target.dest.clone(),
            (true, Some(name)) if !name.is_empty() => format!("{}/{name}", target.dest.trim_end_matches('/')),
            _ => return self.error(span, "no file is named in this URL: end the destination with a name"),
        };
        let mode = target.mode.clone().or(Some("0600".to_owned()));
        let import = OutImport { hash: target.checksum.clone(), mode, ..import(source, Some(dest), None) };
        self.place(import, target);
    }

    fn copy_host(&mut self, path: &str, span: &Range<usize>, target: &Target) {
        let full = format!("{}{path}", self.context.prefix);
        let dest = target.dest.clone();
        match self.context.find(path) {
            Found::Directory { odd } => {
                let full = format!("{}/", full.trim_end_matches('/')).replacen("/", "/", 1);
                let full = if full == "/" { "./".to_owned() } else { full };
                self.context.ignore(path);
                if odd && target.owner.is_none() && target.mode.is_none() {
                    self.make_before(&dest);
                    let stage = self.stage();
                    let layer = stage.open();
                    // Such directories come before imports.
                    let taken = !layer.imports.is_empty() || layer.overlay.is_some();
                    let layer = if taken { stage.fresh() } else { layer };
                    layer.overlay = Some((full, dest));
                    return;
                }
                if odd && target.mode.is_none() {
                    let title = format!("modes in {path} become 0644, or 0755 of what can be executed");
                    self.remark(span, title, None);
                }
                self.place(import(&full, Some(dest), target.mode.clone()), target);
            }
            Found::File { .. } if target.add && self.context.is_archive(path) => self.unpacked(&full, target),
            found => {
                let mode = match found {
                    Found::File { odd_mode: Some(mode) } => Some(format!("{mode:04o}")),
                    Found::Nothing => {
                        let title = format!("`{path}` is not there, and taken for a file");
                        self.remark(span, title, Some("convert again when it is"));
                        None
                    }
                    _ => None,
                };
                let dest = if target.into { format!("{}/", dest.trim_end_matches('/')) } else { dest };
                self.place(import(&full, Some(dest), target.mode.clone().or(mode)), target);
            }
        }
    }

    /// An archive becomes a layer, out of which it is imported: no tool has to be in the image.
    fn unpacked(&mut self, path: &str, target: &Target) {
        let stage = self.stage();
        if stage.is_bare() && target.dest == "/" && target.owner.is_none() {
            stage.base = Base::Tar(path.to_owned());
            return;
        }
        let tag = self.extra("unpacked", Base::Tar(path.to_owned()));
        self.place(import(&format!("stacker://{tag}/"), Some(target.dest.clone()), target.mode.clone()), target);
    }

    /// A layer beside the stage that only imports need.
    pub(super) fn extra(&mut self, what: &str, base: Base) -> String {
        if let Some(known) =
            self.layers.iter().find(|layer| layer.base == base && layer.run.is_none() && layer.imports.is_empty())
        {
            return known.name.clone();
        }
        let mut number = 1;
        while self.layers.iter().any(|layer| layer.name == format!("{what}-{number}")) {
            number += 1;
        }
        let name = format!("{what}-{number}");
        self.layers.push(Layer { name: name.clone(), base, build_only: true, ..Layer::default() });
        name
    }

    /// Adds an import, with its owner; where only the image knows that, by a script.
    pub(super) fn place(&mut self, import: OutImport, target: &Target) {
        match target.owner.clone() {
            None => self.stage().open().imports.push(import),
            Some(Owner::Ids(uid, gid)) => {
                self.stage().open().imports.push(OutImport { uid: Some(uid), gid: Some(gid), ..import });
            }
            Some(Owner::Named(owner)) => {
                let dest = import.dest.clone().unwrap_or_default();
                let name = import.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
                let stage = self.stage();
                let pending = std::mem::take(&mut stage.pending);
                let made: String = pending.iter().map(|place| format!("mkdir -p {}\n", quote(place))).collect();
                let layer = if stage.open().imports.is_empty() { stage.open() } else { stage.fresh() };
                // The root of what is imported has no name of its own.
                let (dest_of_import, source) = match name.is_empty() || name == "." || name == ".." {
                    true => (None, "/stacker/imports".to_owned()),
                    false => (None, format!("/stacker/imports/{name}")),
                };
                layer.imports.push(OutImport { dest: dest_of_import, uid: None, gid: None, ..import });
                layer.run = Some(format!("{made}put {} {} {}\n", quote(&source), quote(&dest), quote(&owner)));
                layer.preamble = Some(preamble(PUT));
            }
        }
    }

    /// A file whose text stands in the Dockerfile.
    fn copy_text(&mut self, document: &HereDoc, target: &Target, name: &str) {
        let text = match document.expand {
            true => document.value.split_inclusive('\n').map(|line| self.expand_text(line, &document.span)).collect(),
            false => guarded(&document.value),
        };
        let dest =
            if target.into { format!("{}/{name}", target.dest.trim_end_matches('/')) } else { target.dest.clone() };
        let mut end = "END".to_owned();
        while text.lines().any(|line: &str| line == end) {
            end.push('_');
        }
        let above = dest.rsplit_once('/').map_or("/", |(above, _)| above);
        let (dest, above) = (quote(&dest), quote(if above.is_empty() { "/" } else { above }));
        let mode = target.mode.clone().unwrap_or_else(|| "0644".to_owned());
        let owner = match &target.owner {
            None => String::new(),
            Some(Owner::Ids(uid, gid)) => format!("chown {uid}:{gid} {dest}\n"),
            Some(Owner::Named(owner)) => format!("chown {} {dest}\n", quote(owner)),
        };
        let run = format!(
            "#!/bin/sh -e\nmkdir -p {above}\ncat > {dest} <<'{end}'\n{text}{end}\nchmod {mode} {dest}\n{owner}"
        );
        self.stage().open().run = Some(run);
    }

    /// Variables in a text: quotes mean nothing there.
    fn expand_text(&mut self, line: &str, span: &Range<usize>) -> String {
        let escape = self.escape;
        let kept: String =
            line.chars().flat_map(|c| if c == '\'' || c == '"' { vec![escape, c] } else { vec![c] }).collect();
        self.expand(&kept, span)
    }
}

pub(super) fn import(path: &str, dest: Option<String>, mode: Option<String>) -> OutImport {
    OutImport { path: path.to_owned(), dest, mode, ..OutImport::default() }
}

fn owner(text: &str) -> Owner {
    let number =
        |text: &str| !text.is_empty() && super::substitution::plain(text).bytes().all(|byte| byte.is_ascii_digit());
    // A colon may stand in a placeholder.
    let colon = text.match_indices(':').map(|(at, _)| at).find(|at| {
        let before = &text[..*at];
        before.matches("${{").count() == before.matches("}}").count()
    });
    let (user, group) = match colon {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let id = |name: &str| match name {
        "root" => Some("0".to_owned()),
        name => number(name).then(|| name.to_owned()),
    };
    match (id(user), group.map(id)) {
        (Some(uid), None) => Owner::Ids(uid.clone(), uid),
        (Some(uid), Some(Some(gid))) => Owner::Ids(uid, gid),
        (_, None) => Owner::Named(format!("{user}:")),
        _ => Owner::Named(text.to_owned()),
    }
}
