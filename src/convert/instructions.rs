//! Each instruction but `FROM` and those that copy.

use std::ops::Range;

use parse_dockerfile::{
    ArgInstruction, Command, Flag, HealthcheckArguments, HealthcheckInstruction, Instruction, JsonOrStringArray,
    RunInstruction, UnescapedString,
};

use super::converter::Converter;
use super::layer::set;
use super::names::is_variable;
use super::script::{Body, readable};
use super::substitution::{guarded, has_placeholder, plain};
use super::words::pairs;
use crate::load::{binds::refused, container};

impl Converter<'_> {
    pub fn instruction(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::Arg(arg) => self.arg(arg),
            Instruction::Run(run) => self.run_instruction(run),
            Instruction::Copy(copy) => self.copy(&copy.copy.span, &copy.options, &copy.src, &copy.dest, false),
            Instruction::Add(add) => self.copy(&add.add.span, &add.options, &add.src, &add.dest, true),
            Instruction::Env(env) => {
                for (name, value) in self.pairs(&env.arguments) {
                    if name.contains('=') && !has_placeholder(&name) {
                        self.error(&env.arguments.span, format!("`{name}` cannot name a variable"));
                    }
                    set(&mut self.stage().environment, name, value);
                }
            }
            Instruction::Label(label) => {
                for (name, value) in self.pairs(&label.arguments) {
                    set(&mut self.stage().settings.labels, name, value);
                }
            }
            Instruction::Workdir(workdir) => self.workdir(&workdir.arguments),
            Instruction::User(user) => {
                let user = self.word(&user.arguments);
                let root = ["root", "0", "root:root", "0:0", "root:0", "0:root"].contains(&user.as_str());
                self.stage().user = (!root).then(|| user.clone());
                self.stage().settings.user = Some(user);
            }
            Instruction::Cmd(cmd) => {
                let words = self.command(&cmd.arguments);
                self.stage().settings.cmd = Some(words);
                self.stage().own_cmd = true;
            }
            Instruction::Entrypoint(entrypoint) => {
                let words = self.command(&entrypoint.arguments);
                let stage = self.stage();
                stage.settings.entrypoint = Some(words);
                if !stage.own_cmd {
                    stage.settings.cmd = None;
                }
            }
            other => self.setting(other),
        }
    }

    fn setting(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::Volume(volume) => {
                let places = match &volume.arguments {
                    JsonOrStringArray::Json(places) => places.value.iter().collect::<Vec<_>>(),
                    JsonOrStringArray::String(places) => places.iter().collect(),
                };
                let places: Vec<String> = places.into_iter().map(|place| self.word(place)).collect();
                self.stage().settings.volumes.extend(places);
            }
            Instruction::Expose(expose) => expose.arguments.iter().for_each(|port| self.expose(port)),
            Instruction::Stopsignal(signal) => {
                let text = self.word(&signal.arguments);
                if !has_placeholder(&text) && !container::is_signal(&text) {
                    return self.error(&signal.arguments.span, format!("`{text}` is not a signal"));
                }
                self.stage().settings.stop_signal = Some(text);
            }
            Instruction::Shell(shell) => {
                self.stage().shell = shell.arguments.iter().map(|word| guarded(&word.value)).collect();
                let title = "SHELL counts for the instructions here; the image's own `Shell` cannot be said";
                self.remark(&shell.shell.span, title, None);
            }
            Instruction::Healthcheck(check) => self.healthcheck(check),
            Instruction::Maintainer(maintainer) => {
                let title = "MAINTAINER is not carried over: stackerfiles name no author";
                self.remark(&maintainer.maintainer.span, title, Some("use a label"));
            }
            Instruction::Onbuild(onbuild) => {
                self.remark(&onbuild.onbuild.span, "ONBUILD is not carried over: stackerfiles have no triggers", None);
            }
            _ => self.error(&(0..1), "an instruction that this version does not know"),
        }
    }

    /// A word of the stage, variables replaced.
    pub fn word(&mut self, word: &UnescapedString) -> String {
        self.expand(&word.value, &word.span)
    }

    fn pairs(&mut self, text: &UnescapedString) -> Vec<(String, String)> {
        let found = pairs(&text.value, self.escape);
        let found = found.unwrap_or_else(|wrong| {
            self.error(&text.span, wrong);
            Vec::new()
        });
        // All of one instruction see what was there before it.
        let mut pairs = Vec::new();
        for (written, value) in found {
            let name = self.expand(&written, &text.span);
            match name.is_empty() {
                true => self.error(&text.span, format!("`{written}` has no value here, and so names nothing")),
                false => pairs.push((name, self.expand(&value, &text.span))),
            }
        }
        pairs
    }

    fn arg(&mut self, arg: &ArgInstruction) {
        for word in super::words::split(&arg.arguments.value, self.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word, None),
            };
            if !is_variable(&name) {
                self.error(&arg.arguments.span, format!("`{name}` cannot name an argument"));
                continue;
            }
            if self.before_stages() {
                let default = default.map(|text| self.expand_global(&text, &arg.arguments.span));
                let default = default.map(|text| self.fixed(text, &name, &arg.arguments.span));
                let value = self.argument(&name, default.as_deref());
                self.set_global(name, Some(value));
                continue;
            }
            let value = match default {
                Some(default) => {
                    let default = self.expand(&default, &arg.arguments.span);
                    let default = self.fixed(default, &name, &arg.arguments.span);
                    Some(self.argument(&name, Some(&default)))
                }
                None => self.global_argument(&name).or_else(|| Some(self.argument(&name, None))),
            };
            self.stage().arguments.push((name, value));
        }
    }

    /// Defaults cannot hold placeholders.
    fn fixed(&mut self, default: String, name: &str, span: &Range<usize>) -> String {
        if has_placeholder(&default) {
            self.remark(span, format!("the default of {name} does not follow the arguments in it"), None);
        }
        let default = plain(&default);
        if default.contains('}') && default.contains(['\'', '\n']) {
            self.error(span, format!("the default of {name} has a `}}` and a quote, which no substitution can have"));
        }
        default
    }

    fn workdir(&mut self, argument: &UnescapedString) {
        let directory = self.word(argument);
        let directory = super::copy::absolute(&self.stage().workdir, &directory);
        let stage = self.stage();
        stage.workdir = directory.clone();
        stage.settings.working_dir = Some(directory.clone());
        if directory != "/" && !stage.pending.contains(&directory) {
            stage.pending.push(directory);
        }
    }

    fn expose(&mut self, port: &UnescapedString) {
        for text in self.word(port).split_whitespace() {
            let ports = match has_placeholder(text) {
                true => Some(vec![text.to_owned()]),
                // As it is written, ranges too, if it can be read at all.
                false => container::ports(text).map(|_| vec![text.to_owned()]),
            };
            match ports {
                Some(ports) => self.stage().settings.exposed_ports.extend(ports),
                None => self.error(&port.span, format!("`{text}` is not a port that can be exposed")),
            }
        }
    }

    /// For the image's configuration: variables are the shell's matter, at run time.
    fn command(&mut self, command: &Command) -> Vec<String> {
        match form(command) {
            Form::Exec(words) => words,
            Form::Shell(text) => {
                let text = guarded(&super::words::joined(text.trim(), self.escape));
                let shell = self.stage().shell.clone();
                [shell, vec![text]].concat()
            }
        }
    }

    fn healthcheck(&mut self, check: &HealthcheckInstruction) {
        let HealthcheckArguments::Cmd { arguments, .. } = &check.arguments else {
            self.stage().settings.healthcheck = Some(Vec::new());
            return;
        };
        let test = match form(arguments) {
            Form::Exec(words) => [vec!["CMD".to_owned()], words].concat(),
            Form::Shell(text) => {
                vec!["CMD-SHELL".to_owned(), guarded(&super::words::joined(text.trim(), self.escape))]
            }
        };
        let mut lines = vec![("test".to_owned(), test)];
        for flag in &check.options {
            let name = flag.name.value.replace('-', "_");
            let value = flag.value.as_ref().map(|value| self.word(value)).unwrap_or_default();
            let good = match name.as_str() {
                "interval" | "timeout" | "start_period" | "start_interval" => container::time(&value).is_some(),
                "retries" => value.parse::<u32>().is_ok_and(|retries| retries > 0),
                _ => {
                    self.error(&flag.span(), format!("HEALTHCHECK has no option --{}", flag.name.value));
                    continue;
                }
            };
            // Zero stands for what the engine chooses, which is said by saying nothing.
            match good || has_placeholder(&value) {
                true => lines.push((name, vec![value])),
                false if value.trim_end_matches(char::is_alphabetic) == "0" => {}
                false => self.error(&flag.span(), format!("`{value}` cannot be --{}", flag.name.value)),
            }
        }
        self.stage().settings.healthcheck = Some(lines);
    }

    fn run_instruction(&mut self, run: &RunInstruction) {
        let mut network_none = false;
        let mut binds = Vec::new();
        for flag in &run.options {
            match (&*flag.name.value, flag.value.as_ref().map(|value| &*value.value)) {
                ("network", Some("none")) => network_none = true,
                ("network", Some("default" | "host")) => {}
                ("mount", Some(value)) => self.mount(flag, value, &mut binds),
                _ => {
                    let title =
                        format!("RUN --{} is not carried over: scripts have no rights outside", flag.name.value);
                    self.remark(&flag.span(), title, None);
                }
            }
        }
        let body = self.body(run);
        if network_none || !binds.is_empty() {
            let layer = self.stage().open();
            layer.network_none = network_none;
            layer.binds = binds;
        }
        self.run(&body);
    }

    fn body(&self, run: &RunInstruction) -> Body {
        let (text, end) = match (form(&run.arguments), &run.arguments) {
            (Form::Exec(words), _) => return Body::Exec(words),
            (Form::Shell(text), Command::Shell(spanned)) => (text, spanned.span.end),
            (Form::Shell(text), _) => (text, 0),
        };
        let text = guarded(&readable(text.trim(), self.escape));
        if let [document] = run.here_docs.as_slice() {
            // The parser has only what is behind the first word.
            let start = self.text[..document.span.start].rfind("<<").unwrap_or(end);
            let text = guarded(&readable(self.text[start..end.max(start)].trim(), self.escape));
            let body = guarded(&document.value);
            let ends = super::here_docs::ends(&text, self.escape);
            let is_all = text.split_whitespace().count() == 1;
            return match ends.first() {
                _ if is_all && body.starts_with("#!") => Body::Script(body),
                Some((_, end)) if !is_all => Body::Text(format!("{text}\n{body}{end}")),
                _ => Body::Text(body),
            };
        }
        let lines = self.here_docs.iter().find(|lines| {
            lines.start >= end && self.text.get(end..lines.start).is_some_and(|between| between.trim().is_empty())
        });
        Body::Text(match lines {
            Some(lines) => text + "\n" + guarded(&self.text[lines.clone()].replace('\r', "")).trim_end_matches('\n'),
            None => text,
        })
    }

    /// A bind of the context is one here; nothing else is.
    fn mount(&mut self, flag: &Flag, value: &str, binds: &mut Vec<(String, String)>) {
        let option = |name: &str| {
            value.split(',').find_map(|part| {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                (key == name).then(|| value.to_owned())
            })
        };
        let kind = option("type").unwrap_or_else(|| "bind".to_owned());
        let target = option("target").or_else(|| option("dst")).or_else(|| option("destination")).unwrap_or_default();
        let span = flag.span();
        match kind.as_str() {
            "bind" if option("from").is_none() => {
                let source = option("source").or_else(|| option("src")).unwrap_or_default();
                let source = super::copy::cleaned(&source);
                let path = format!("{}{source}", self.context.prefix);
                let path = if path.is_empty() { "./".to_owned() } else { path };
                let target = self.expand(&target, &span);
                let target = super::copy::absolute(&self.stage().workdir, &target);
                if target == "/" {
                    self.error(&span, "RUN --mount needs a `target`, which cannot be the root");
                } else if let Some(why) = refused(&target) {
                    self.error(&span, format!("RUN --mount cannot be at {target}: {why}"));
                } else if binds.iter().any(|(_, other)| *other == target) {
                    self.error(&span, format!("another RUN --mount is at {target}"));
                } else {
                    binds.push((path, target));
                }
            }
            "cache" => {
                let title = format!("the cache at {target} is not carried over: the script starts without it");
                self.remark(&span, title, Some("what it leaves there becomes part of the layer"));
            }
            "tmpfs" => self.remark(&span, format!("{target} is a directory of the layer, not a tmpfs"), None),
            kind => {
                let what = if target.is_empty() { "it" } else { &target };
                let title = format!("RUN --mount=type={kind} is not carried over: the script runs without {what}");
                self.remark(&span, title, None);
            }
        }
    }
}

/// How a command is written.
enum Form<'a> {
    /// A list of words.
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(&'a str),
}

fn form<'a>(command: &Command<'a>) -> Form<'a> {
    match command {
        Command::Exec(words) => Form::Exec(words.value.iter().map(|word| guarded(&word.value)).collect()),
        Command::Shell(text) => Form::Shell(text.value),
        _ => Form::Shell(""),
    }
}
