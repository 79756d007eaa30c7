//! Goes through the instructions: which stage they belong to, and what names mean there.

use std::ops::Range;

use parse_dockerfile::{Dockerfile, FromInstruction, Instruction};

use super::context::Context;
use super::layer::{Base, Layer, Remark};
use super::names::{is_stage_name, layer_name};
use super::script::{AS_USER, Body, preamble, script};
use super::stage::{PATH, Stage};
use super::substitution::{Substitutions, has_placeholder, has_slash_within, plain};
use super::words::expand;
use crate::registry::ImageName;

/// All that is known while a Dockerfile is read.
pub(super) struct Converter<'t> {
    pub text: &'t str,
    /// As messages name it.
    shown: String,
    /// Of the image, if its stage has no name.
    image: String,
    pub escape: char,
    /// Lines that the parser did not see.
    pub here_docs: Vec<Range<usize>>,
    pub context: Context,
    pub substitutions: Substitutions,
    pub remarks: Vec<Remark>,
    /// Comments on what stands before the first stage.
    pub early: Vec<String>,
    pub errors: Vec<Remark>,
    /// Finished ones.
    pub layers: Vec<Layer>,
    /// `ARG` before the first `FROM`.
    global: Vec<(String, Option<String>)>,
    /// The last is being read.
    pub stages: Vec<Stage>,
}

impl<'t> Converter<'t> {
    pub fn new(text: &'t str, shown: String, image: String, context: Context) -> Converter<'t> {
        Converter {
            text,
            shown,
            image,
            escape: '\\',
            here_docs: Vec::new(),
            context,
            substitutions: Substitutions::default(),
            remarks: Vec::new(),
            early: Vec::new(),
            errors: Vec::new(),
            layers: Vec::new(),
            global: Vec::new(),
            stages: Vec::new(),
        }
    }

    /// Reads all of it.
    pub fn read(&mut self, dockerfile: &Dockerfile) {
        if let Some(escape) = &dockerfile.parser_directives.escape {
            self.escape = escape.value.value;
        }
        let is_from = |instruction: &&Instruction| matches!(instruction, Instruction::From(_));
        let mut left = dockerfile.instructions.iter().filter(is_from).count();
        for instruction in &dockerfile.instructions {
            match instruction {
                Instruction::From(from) => {
                    left -= 1;
                    self.end_stage();
                    self.from(from, left == 0);
                }
                instruction => self.instruction(instruction),
            }
        }
        self.end_stage();
        for stage in self.stages.iter().filter(|stage| !stage.last && !stage.used) {
            let name = &stage.tag;
            self.layers.iter_mut().find(|layer| layer.name == *name).into_iter().for_each(|layer| {
                layer
                    .comments
                    .push("The image does not need this stage. `stacker build` builds it all the same.".into());
            });
        }
        self.share_preambles();
    }

    /// The stage that is being read. There is one: the parser lets only ARG come before FROM.
    pub fn stage(&mut self) -> &mut Stage {
        if self.stages.is_empty() {
            self.stages.push(Stage::new(None, "image".into(), "image".into(), Base::Scratch));
        }
        self.stages.last_mut().expect("there is one now")
    }

    /// Something that the stackerfile says otherwise, or not at all.
    pub fn remark(&mut self, span: &Range<usize>, title: impl Into<String>, help: Option<&str>) {
        let title = title.into();
        let line = self.text[..span.start.min(self.text.len())].matches('\n').count() + 1;
        let help_text = help.map(|help| format!("; {help}")).unwrap_or_default();
        let comment = format!("{}:{line}: {title}{help_text}", self.shown);
        self.remarks.push(Remark { span: span.clone(), title, help: help.map(str::to_owned) });
        if self.before_stages() {
            return self.early.push(comment);
        }
        let stage = self.stage();
        match stage.layers.last_mut() {
            Some(layer) => layer.comments.push(comment),
            None => stage.open().comments.push(comment),
        }
    }

    /// Something that nobody could build.
    pub fn error(&mut self, span: &Range<usize>, title: impl Into<String>) {
        self.errors.push(Remark { span: span.clone(), title: title.into(), help: None });
    }

    fn from(&mut self, from: &FromInstruction, last: bool) {
        let image = self.expand_global(&from.image.value, &from.image.span);
        let name = from.as_.as_ref().map(|(_, name)| name.value.to_string());
        if let Some((_, name)) = from.as_.as_ref().filter(|(_, name)| !is_stage_name(&name.value)) {
            self.error(&name.span, format!("`{}` cannot name a stage", name.value));
        }
        let wanted = match &name {
            Some(name) => layer_name(name),
            None if last => self.image.clone(),
            None => format!("stage-{}", self.stages.len()),
        };
        let prefix = self.unique(&wanted);
        let tag = match last {
            true => self.substitutions.placeholder("IMAGE", &prefix, "Name of the image"),
            false => prefix.clone(),
        };
        let mut stage = Stage::new(name, tag, prefix, Base::Scratch);
        stage.last = last;
        let below = self.stages.iter().position(|known| known.is_named(&image));
        self.stages.push(stage);
        if let Some(below) = below {
            self.stages[below].used = true;
            let below = self.stages[below].clone();
            self.stage().inherit(&below);
        } else if image != "scratch" {
            let (url, origin) = self.base(&image, &from.image.span);
            self.stage().base = Base::Docker(url);
            self.stage().origin = Some(origin);
        }
        self.platform(from);
    }

    fn is_taken(&self, name: &str) -> bool {
        self.stages.iter().any(|stage| stage.prefix == name || stage.tag == name)
            || self.layers.iter().any(|layer| layer.name == name)
    }

    fn unique(&self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while self.is_taken(&name) {
            name.push_str("-x");
        }
        name
    }

    /// The url of an image, which one substitution replaces, and the name of it in others.
    pub fn base(&mut self, image: &str, span: &Range<usize>) -> (String, String) {
        let known = plain(image);
        // What arguments are part of may become right by their values.
        if !has_placeholder(image)
            && let Err(wrong) = ImageName::parse(&format!("docker://{known}"))
        {
            self.error(span, wrong.replacen("docker://", "", 1));
        }
        let name = known.split('@').next().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        let word = |text: &str| text.replace(|character: char| !character.is_ascii_alphanumeric(), "_");
        let short = word(name.split(':').next().unwrap_or_default());
        let url = format!("docker://{image}");
        let (mut head, mut tail) =
            url.split_at(if has_placeholder(&url) { url.find("${{").unwrap_or(0) } else { url.len() });
        if head.ends_with([':', '@']) && head != "docker://" {
            (head, tail) = url.split_at(head.len() - 1);
        }
        let mut origin = short;
        if self.substitutions.is_taken(&format!("BASE_{origin}"), head) {
            origin = word(name);
        }
        let purpose = format!("Base image {known}; a layout on disk is oci:/path:tag");
        (self.substitutions.placeholder(&format!("BASE_{origin}"), head, &purpose) + tail, origin)
    }

    fn platform(&mut self, from: &FromInstruction) {
        for flag in &from.options {
            let Some(value) = flag.value.as_ref().filter(|_| flag.name.value == "platform") else {
                self.error(&flag.span(), format!("FROM has no option --{}", flag.name.value));
                continue;
            };
            if ["$BUILDPLATFORM", "${BUILDPLATFORM}", "$TARGETPLATFORM", "${TARGETPLATFORM}"].contains(&&*value.value) {
                continue;
            }
            let said = self.expand_global(&value.value, &value.span);
            let fixed = has_slash_within(&said);
            let platform = if fixed { plain(&said) } else { said };
            let parts: Vec<&str> = platform.split('/').collect();
            if let [os, arch, rest @ ..] = parts.as_slice() {
                // Before a remark, which begins a layer with it.
                self.stage().platform = Some(((*os).to_owned(), (*arch).to_owned()));
                if fixed {
                    let title = format!("the platform is {os}/{arch} and does not follow the arguments in it");
                    self.remark(&flag.span(), title, Some("it is what `os` and `arch` say"));
                }
                if !rest.is_empty() {
                    self.remark(&flag.span(), "a platform's variant is not carried over", None);
                }
            } else {
                self.error(&flag.span(), format!("`{platform}` is not OS/ARCHITECTURE"));
            }
        }
    }

    /// What a global `ARG` or one of the stage says, as a placeholder.
    pub fn argument(&mut self, name: &str, default: Option<&str>) -> String {
        let mut placeholder = format!("ARG_{name}");
        if self.substitutions.is_taken(&placeholder, default.unwrap_or_default()) {
            placeholder = format!("ARG_{}_{name}", self.stages.len());
        }
        self.substitutions.placeholder(&placeholder, default.unwrap_or_default(), &format!("ARG {name}"))
    }

    /// Of `ARG` before `FROM`, and what every Dockerfile has.
    pub fn global_argument(&mut self, name: &str) -> Option<String> {
        if let Some((_, value)) = self.global.iter().rev().find(|(known, _)| known == name) {
            return Some(value.clone().unwrap_or_default());
        }
        let arch = crate::binfmt::host_arch();
        let value = match name {
            "TARGETPLATFORM" | "BUILDPLATFORM" => format!("linux/{arch}"),
            "TARGETOS" | "BUILDOS" => "linux".to_owned(),
            "TARGETARCH" | "BUILDARCH" => arch.to_owned(),
            "TARGETVARIANT" | "BUILDVARIANT" => String::new(),
            _ => return None,
        };
        Some(self.argument(name, Some(&value)))
    }

    pub fn set_global(&mut self, name: String, value: Option<String>) {
        self.global.push((name, value));
    }

    pub fn before_stages(&self) -> bool {
        self.stages.is_empty()
    }

    /// A word before the first stage, or of `FROM`.
    pub fn expand_global(&mut self, word: &str, span: &Range<usize>) -> String {
        let escape = self.escape;
        match expand(word, escape, &mut |name| self.global_argument(name)) {
            Ok(text) => text,
            Err(wrong) => {
                self.error(span, wrong);
                String::new()
            }
        }
    }

    /// A word in a stage.
    pub fn expand(&mut self, word: &str, span: &Range<usize>) -> String {
        let (escape, mut unknown) = (self.escape, Vec::new());
        let expanded = expand(word, escape, &mut |name| self.variable(name, &mut unknown));
        for name in unknown {
            let title = format!("`${name}` may be a variable of the base image, which is not known here");
            let help = format!("its value is taken from the substitution that ends in {name}");
            self.remark(span, title, Some(&help));
        }
        expanded.unwrap_or_else(|wrong| {
            self.error(span, wrong);
            String::new()
        })
    }

    fn variable(&mut self, name: &str, unknown: &mut Vec<String>) -> Option<String> {
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let stage = self.stage();
        if let Some((_, value)) = stage.environment.iter().find(|(known, _)| known == name) {
            return Some(value.clone());
        }
        if let Some((_, value)) = stage.arguments.iter().rev().find(|(known, _)| known == name) {
            return value.clone();
        }
        let Some(origin) = stage.origin.clone() else { return (name == "PATH").then(|| PATH.to_owned()) };
        unknown.push(name.to_owned());
        let purpose = format!("{name} in the base image {origin}");
        let default = if name == "PATH" { PATH } else { "" };
        Some(self.substitutions.placeholder(&format!("BASE_{origin}_{name}"), default, &purpose))
    }

    /// Ends the layer with a script.
    pub fn run(&mut self, body: &Body) {
        let stage = self.stage();
        let (text, as_user) = script(stage, body);
        stage.pending.clear();
        let build_env = stage.build_env();
        let layer = stage.open();
        layer.build_env = build_env;
        layer.run = Some(text);
        layer.preamble = as_user.then(|| preamble(AS_USER));
    }

    /// Directories that only `WORKDIR` named are made by a script of their own, if nothing else came to do it.
    pub fn make_pending(&mut self) {
        let stage = self.stage();
        let pending = std::mem::take(&mut stage.pending);
        let imported = |directory: &String| {
            let below = |dest: &str| format!("{}/", dest.trim_end_matches('/')).starts_with(&format!("{directory}/"));
            let layers = stage.layers.iter();
            layers.flat_map(|layer| &layer.imports).filter_map(|import| import.dest.as_deref()).any(below)
        };
        let missing: Vec<String> = pending.into_iter().filter(|directory| !imported(directory)).collect();
        if missing.is_empty() {
            return;
        }
        if stage.base == Base::Scratch && stage.layers.iter().all(|layer| layer.run.is_none()) {
            let span = 0..0;
            let title =
                format!("nothing can make the directory {} of WORKDIR: the image has no shell", missing.join(", "));
            return self.remark(&span, title, Some("copy something into it"));
        }
        let places: Vec<String> = missing.iter().map(|directory| super::script::quote(directory)).collect();
        stage.open().run = Some(format!("#!/bin/sh\nmkdir -p {}\n", places.join(" ")));
    }

    fn end_stage(&mut self) {
        if self.stages.is_empty() {
            return;
        }
        self.make_pending();
        let stage = self.stage();
        if stage.layers.is_empty() {
            stage.fresh();
        }
        let stage = stage.clone();
        let finished = stage.finished(|name| self.is_taken(name));
        self.layers.extend(finished);
    }

    /// The first layer with a preamble has it, the others refer to it.
    fn share_preambles(&mut self) {
        let mut seen = Vec::new();
        for preamble in self.layers.iter_mut().filter_map(|layer| layer.preamble.as_mut()) {
            preamble.first = !seen.contains(&preamble.name);
            seen.push(preamble.name);
        }
    }
}
