//! One layer of a stackerfile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::action::{Network, Platform};
use crate::diag::Diagnostic;

use super::directives::{DIRECTIVES, Directive};
use super::reader::{Reader, kind_name};
use super::yaml::{Entry, Kind};
use super::{Base, Bind, ImageSettings, Import, Layer};

/// The grammar of OCI reference names, without the colon.
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    let part = "[A-Za-z0-9]+(?:(?:[-._@+]|--)[A-Za-z0-9]+)*";
    Regex::new(&format!("^{part}(?:/{part})*$")).expect("the pattern is constant")
});

/// What was read of a layer so far.
#[derive(Default)]
pub(super) struct Draft {
    pub base: Option<Base>,
    pub imports: Vec<Import>,
    /// Of the name of the directive that these stand in.
    pub imports_span: Option<Range<usize>>,
    pub overlay_dirs: Vec<Import>,
    pub run: Option<String>,
    pub generate_labels: Option<String>,
    pub binds: Vec<Bind>,
    pub build_env: BTreeMap<String, String>,
    pub build_env_passthrough: Vec<Regex>,
    pub settings: ImageSettings,
    pub full_command: Option<(Vec<String>, Range<usize>)>,
    pub build_only: bool,
    pub network: Network,
    pub os: Option<String>,
    pub arch: Option<String>,
}

/// Reads a top-level entry as a layer; `None` if it has no base that can be understood.
pub(super) fn read(reader: &mut Reader, entry: &Entry) -> Option<Layer> {
    check_name(reader, entry);
    let directives: &[Entry] = match &entry.value.kind {
        Kind::Mapping(entries) => entries,
        Kind::Blank => &[],
        other => {
            let title = format!("layer `{}` must be a map of directives, not {}", entry.key, kind_name(other));
            reader.error(&entry.value.span, title);
            return None;
        }
    };
    let mut draft = Draft::default();
    for directive in directives {
        read_directive(reader, &mut draft, directive);
    }
    if !directives.iter().any(|directive| &*directive.key == "from" && directive.value.kind != Kind::Blank) {
        let diagnostic = Diagnostic::error(format!("layer `{}` has no `from`", entry.key));
        let place = reader.place(&entry.key_span);
        reader.push(diagnostic.at(place, "").help("say what it starts from: `from: {type: scratch}` is an empty root"));
    }
    finish(reader, draft, entry)
}

fn check_name(reader: &mut Reader, entry: &Entry) {
    let name = &entry.key;
    if name.contains(':') {
        reader.error(&entry.key_span, format!("layer name `{name}` holds a `:`, which separates image and tag"));
    } else if !NAME.is_match(name) {
        let diagnostic =
            Diagnostic::error(format!("`{name}` cannot be a layer name")).at(reader.place(&entry.key_span), "");
        reader.push(
            diagnostic.help("names are letters and digits, with single `-`, `.`, `_`, `@`, `+` or `/` between them"),
        );
    }
}

fn read_directive(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let name = &*entry.key;
    let known = DIRECTIVES.iter().find(|(known, _)| *known == name).map(|(_, directive)| directive);
    let blank = entry.value.kind == Kind::Blank;
    match known {
        Some(_) if blank => {}
        Some(Directive::Read(read)) => read(reader, draft, entry),
        Some(Directive::Reserved) => reader.error(&entry.key_span, format!("`{name}` is known, not supported yet")),
        Some(Directive::Ignored) => {
            let diagnostic = Diagnostic::warning(format!("`{name}` has no effect here"));
            reader.push(diagnostic.at(reader.place(&entry.key_span), ""));
        }
        None => {
            let diagnostic = Diagnostic::error(format!("unknown directive `{name}`"));
            let diagnostic = diagnostic.at(reader.place(&entry.key_span), "");
            reader.push(diagnostic.did_you_mean(name, DIRECTIVES.iter().map(|(name, _)| *name)));
        }
    }
}

fn finish(reader: &mut Reader, mut draft: Draft, entry: &Entry) -> Option<Layer> {
    if let Some((command, span)) = draft.full_command {
        if draft.settings.cmd.is_some() || draft.settings.entrypoint.is_some() {
            let diagnostic = Diagnostic::warning("`full_command` replaces the `cmd` and `entrypoint` beside it");
            reader.push(diagnostic.at(reader.place(&span), ""));
        }
        draft.settings.entrypoint = Some(command);
        draft.settings.cmd = Some(Vec::new());
    }
    let platform_given = draft.os.is_some() || draft.arch.is_some();
    Some(Layer {
        name: entry.key.to_string(),
        place: reader.place(&entry.key_span),
        base: draft.base?,
        imports: draft.overlay_dirs.into_iter().chain(draft.imports).collect(),
        run: draft.run.filter(|script| !script.trim().is_empty()),
        generate_labels: draft.generate_labels.filter(|script| !script.trim().is_empty()),
        binds: draft.binds,
        build_env: draft.build_env,
        build_env_passthrough: draft.build_env_passthrough,
        settings: draft.settings,
        build_only: draft.build_only,
        network: draft.network,
        platform: Platform {
            os: draft.os.unwrap_or_else(|| "linux".to_owned()),
            arch: draft.arch.unwrap_or_else(|| crate::binfmt::host_arch().to_owned()),
        },
        platform_given,
    })
}

pub(super) fn read_passthrough(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let Kind::Sequence(nodes) = &entry.value.kind else {
        return reader.wrong_type("`build_env_passthrough`", "a list of texts", &entry.value);
    };
    for node in nodes.iter() {
        let Some(pattern) = reader.text("an entry of `build_env_passthrough`", node) else { continue };
        match Regex::new(&format!("^(?:{pattern})$")) {
            Ok(regex) => draft.build_env_passthrough.push(regex),
            Err(_) => reader.error(&node.span, format!("`{pattern}` is not a regular expression")),
        }
    }
}

pub(super) fn read_full_command(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let words = reader.words("`full_command`", &entry.value);
    draft.full_command = words.map(|words| (words, entry.key_span.clone()));
}

pub(super) fn read_working_dir(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    draft.settings.working_dir = reader.text("`working_dir`", &entry.value);
}

pub(super) fn read_volumes(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    draft.settings.volumes = reader.texts("`volumes`", &entry.value).unwrap_or_default();
}

pub(super) fn read_network(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let known = [("host", Network::Host), ("none", Network::None)];
    draft.network = reader.word("`network`", &entry.value, &known).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar_of_oci_references() {
        for name in ["a", "a-b", "a--b", "A1.b_c@d+e", "a/b/c-1.0"] {
            assert!(NAME.is_match(name), "{name}");
        }
        for name in ["", "-a", "a-", "a---b", "a__b", "a//b", "/a", "a b", "ä", "a:b", "a\n"] {
            assert!(!NAME.is_match(name), "{name}");
        }
    }
}
