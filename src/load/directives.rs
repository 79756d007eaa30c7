//! The one table of a layer's directives: how each is read, or why it is not.

use std::collections::BTreeMap;

use super::Written;
use super::layer::Draft;
use super::reader::Reader;
use super::yaml::Entry;

/// Reads the value of a directive that is not blank.
type Read = fn(&mut Reader, &mut Draft, &Entry);

/// What is done about a directive.
pub(super) enum Directive {
    /// It is read.
    Read(Read),
    /// A name kept for later.
    Reserved,
    /// Accepted for the sake of files that have it, without effect.
    Ignored,
}

/// How far a directive is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Fully.
    Now,
    /// A name kept for later: an error.
    Reserved,
    /// Accepted with a warning, without effect.
    Ignored,
}

pub(super) static DIRECTIVES: [(&str, Directive); 33] = [
    ("from", Directive::Read(super::base::read)),
    ("imports", Directive::Read(|reader, draft, entry| super::imports::read(reader, draft, entry, Written::Imports))),
    ("import", Directive::Read(|reader, draft, entry| super::imports::read(reader, draft, entry, Written::Import))),
    ("overlay_dirs", Directive::Read(super::overlay_dirs::read)),
    ("run", Directive::Read(|reader, draft, entry| draft.run = reader.lines("`run`", &entry.value))),
    (
        "generate_labels",
        Directive::Read(|reader, draft, entry| {
            draft.generate_labels = reader.lines("`generate_labels`", &entry.value);
        }),
    ),
    ("binds", Directive::Read(super::binds::read)),
    ("build_env", Directive::Read(|reader, draft, entry| variables(reader, &mut draft.build_env, entry))),
    ("build_env_passthrough", Directive::Read(super::layer::read_passthrough)),
    ("environment", Directive::Read(|reader, draft, entry| variables(reader, &mut draft.settings.environment, entry))),
    ("labels", Directive::Read(|reader, draft, entry| map(reader, &mut draft.settings.labels, entry))),
    ("annotations", Directive::Read(|reader, draft, entry| map(reader, &mut draft.settings.annotations, entry))),
    ("cmd", Directive::Read(|reader, draft, entry| draft.settings.cmd = reader.words("`cmd`", &entry.value))),
    (
        "entrypoint",
        Directive::Read(|reader, draft, entry| draft.settings.entrypoint = reader.words("`entrypoint`", &entry.value)),
    ),
    ("full_command", Directive::Read(super::layer::read_full_command)),
    ("working_dir", Directive::Read(super::layer::read_working_dir)),
    (
        "runtime_user",
        Directive::Read(|reader, draft, entry| {
            draft.settings.runtime_user = reader.text("`runtime_user`", &entry.value);
        }),
    ),
    ("volumes", Directive::Read(super::layer::read_volumes)),
    ("exposed_ports", Directive::Read(super::container::read_exposed_ports)),
    ("stop_signal", Directive::Read(super::container::read_stop_signal)),
    ("healthcheck", Directive::Read(super::container::read_healthcheck)),
    (
        "build_only",
        Directive::Read(|reader, draft, entry| {
            draft.build_only = reader.flag("`build_only`", &entry.value).unwrap_or_default();
        }),
    ),
    ("network", Directive::Read(super::layer::read_network)),
    ("os", Directive::Read(|reader, draft, entry| draft.os = reader.text("`os`", &entry.value))),
    ("arch", Directive::Read(|reader, draft, entry| draft.arch = reader.text("`arch`", &entry.value))),
    ("bom", Directive::Ignored),
    ("caches", Directive::Reserved),
    ("secrets", Directive::Reserved),
    ("ssh", Directive::Reserved),
    ("timeout", Directive::Reserved),
    ("refresh", Directive::Reserved),
    ("resources", Directive::Reserved),
    ("platforms", Directive::Reserved),
];

/// Every directive of a layer and how far it is supported.
pub fn directives() -> impl Iterator<Item = (&'static str, Support)> {
    DIRECTIVES.iter().map(|(name, directive)| {
        let support = match directive {
            Directive::Read(_) => Support::Now,
            Directive::Reserved => Support::Reserved,
            Directive::Ignored => Support::Ignored,
        };
        (*name, support)
    })
}

fn variables(reader: &mut Reader, target: &mut BTreeMap<String, String>, entry: &Entry) {
    *target = reader.variables(&format!("`{}`", entry.key), &entry.value).unwrap_or_default();
}

fn map(reader: &mut Reader, target: &mut BTreeMap<String, String>, entry: &Entry) {
    *target = reader.map(&format!("`{}`", entry.key), &entry.value).unwrap_or_default();
}
