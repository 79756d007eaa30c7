//! The JSON schema of stackerfiles, which gives editors completion: types that mirror the directives that are built.
//!
//! Only their shape and their descriptions matter; nothing is read through them. A test compares their names with the
//! table that the loader reads by, and the file in `schema/` with what is generated here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use crate::action::Network;

/// The schema as it stands in `schema/stackerfile.schema.json`.
pub fn stackerfile() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Stackerfile>();
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is always JSON");
    text.push('\n');
    text
}

/// A stackerfile: layers by name, and the file's configuration.
#[derive(JsonSchema)]
#[schemars(title = "stackerfile")]
#[allow(dead_code)]
struct Stackerfile {
    /// Configuration of this file.
    config: Option<Config>,
    /// A layer: one tag in the OCI layout, unless it is `build_only`.
    #[schemars(flatten)]
    layers: BTreeMap<String, Layer>,
}

/// Configuration of this file.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct Config {
    /// Stackerfiles whose layers this file may use, relative to this file.
    prerequisites: Option<Vec<String>>,
}

/// One layer.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)]
struct Layer {
    /// What the layer starts from.
    from: From,
    /// Files for the build; those with `dest` become part of the image.
    imports: Option<Imports>,
    /// The old spelling of `imports`: the files are in `/stacker` too. Not together with `imports`.
    #[schemars(extend("deprecated" = true))]
    import: Option<Imports>,
    /// Directories of the host whose contents become part of the image, as root's and with the modes of the host.
    overlay_dirs: Option<Vec<OverlayDir>>,
    /// The script, run by `/bin/sh -xe` or by its own `#!` line. A list is joined by line feeds.
    run: Option<Lines>,
    /// A script as `run`, after it, in what nobody keeps: each file that it leaves in /stacker/oci-labels is a label.
    generate_labels: Option<Lines>,
    /// Files and directories of the host that `run` sees, and may write to.
    binds: Option<Vec<Bind>>,
    /// Variables of `run` only.
    build_env: Option<BTreeMap<String, Option<Scalar>>>,
    /// Regular expressions over whole names of host variables that `run` sees; their values are part of the cache key.
    build_env_passthrough: Option<Vec<String>>,
    /// Variables in the image config.
    environment: Option<BTreeMap<String, Option<Scalar>>>,
    /// Labels in the image config.
    labels: Option<BTreeMap<String, Option<Scalar>>>,
    /// Annotations of the manifest.
    annotations: Option<BTreeMap<String, Option<Scalar>>>,
    /// Default arguments. A text is split as a shell would.
    cmd: Option<Lines>,
    /// The program of a container. A text is split as a shell would.
    entrypoint: Option<Lines>,
    /// Sets `entrypoint` and clears `cmd`.
    full_command: Option<Lines>,
    /// Working directory of a container.
    working_dir: Option<String>,
    /// User of a container: a name or a number, with a group after a colon.
    runtime_user: Option<Scalar>,
    /// Places of volumes.
    volumes: Option<Vec<String>>,
    /// Ports that the image's program listens on: `8080`, `53/udp`, `9000-9005`. (Not in the Go tool.)
    exposed_ports: Option<Vec<Scalar>>,
    /// Signal that asks the image's program to end: a name or a number. (Not in the Go tool.)
    stop_signal: Option<Scalar>,
    /// How engines find out whether a container is well. (Not in the Go tool.)
    healthcheck: Option<HealthcheckForm>,
    /// Built for the use of other layers, never tagged.
    build_only: Option<Flag>,
    /// What network `run` sees: the host's, or loopback only.
    network: Option<Network>,
    /// Operating system of the result, as in GOOS. Default: linux.
    os: Option<String>,
    /// Architecture of the result, as in GOARCH. Default: the host's.
    arch: Option<String>,
}

/// What a layer starts from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)]
struct From {
    /// Which of the other keys counts.
    r#type: FromType,
    /// `docker`: `docker://host/name:tag`, with a digest behind `@` if that is wanted; or `oci:/path:tag`. `oci`:
    /// `path:tag` of an OCI layout.
    /// `tar`: a path, an http(s) URL, or `stacker://layer/path` for a file of another layer.
    url: Option<String>,
    /// `built`: another layer of this file or its prerequisites.
    tag: Option<Scalar>,
    /// `docker`: TLS without a look at certificates, or plain http, is good enough.
    insecure: Option<Flag>,
}

/// Kinds of bases.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[allow(dead_code)]
enum FromType {
    /// An image.
    Docker,
    /// A tag of an OCI layout on disk.
    Oci,
    /// A tar archive, plain or compressed with gzip, zstd, xz or bzip2.
    Tar,
    /// Another layer.
    Built,
    /// An empty root.
    Scratch,
}

/// A path, or a list of paths and maps.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum Imports {
    /// One path.
    One(String),
    /// Several.
    Several(Vec<Import>),
}

/// A path, or a map with more.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum Import {
    /// A file or directory beside the stackerfile, an http(s) URL, or `stacker://layer/path`.
    Path(String),
    /// A path with its place and attributes.
    Map(ImportMap),
}

/// A path with its place and attributes.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct ImportMap {
    /// A file or directory beside the stackerfile, an http(s) URL, or `stacker://layer/path`.
    path: String,
    /// The sha256 that the file must have.
    #[schemars(regex(pattern = "^[0-9A-Fa-f]{64}$"))]
    hash: Option<String>,
    /// Absolute place in the image; without it the file is only there during `run`, in `/stacker/imports`.
    #[schemars(regex(pattern = "^/"))]
    dest: Option<String>,
    /// Permission bits, as octal digits.
    mode: Option<Scalar>,
    /// Owner.
    #[schemars(range(min = 0, max = 65535))]
    uid: Option<u32>,
    /// Group.
    #[schemars(range(min = 0, max = 65535))]
    gid: Option<u32>,
}

/// A directory of the host that is laid over the image.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct OverlayDir {
    /// A directory beside the stackerfile.
    source: String,
    /// Absolute place in the image of what is in it. Default: `/`.
    #[schemars(regex(pattern = "^/"))]
    dest: Option<String>,
}

/// `PATH`, `PATH -> PLACE`, or a map with more.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum Bind {
    /// A path, relative to the stackerfile; ` -> ` and its absolute place in the sandbox may follow.
    Text(String),
    /// A path with its place.
    Map(BindMap),
}

/// A path of the host that `run` sees.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct BindMap {
    /// A file or directory, relative to the stackerfile.
    source: String,
    /// Absolute place in the sandbox. Default: the path of the source.
    #[schemars(regex(pattern = "^/"))]
    dest: Option<String>,
    /// Whether its content is an input of the layer. Default: content.
    key: Option<BindKey>,
}

/// What of a bind is an input.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[allow(dead_code)]
enum BindKey {
    /// All that the script can see of it; a run that changes it is not cached.
    Content,
    /// Nothing: for stores that check content themselves, as of ccache, never for a directory that is built in.
    None,
}

/// A check, or the word that there is none.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum HealthcheckForm {
    /// Containers are not checked, whatever the base says.
    None(NoHealthcheck),
    /// How they are checked.
    Some(Healthcheck),
}

/// The word for no check.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[allow(dead_code)]
enum NoHealthcheck {
    /// Containers are not checked.
    None,
}

/// How containers are checked. Times are written as `30s`, `1m30s` or `500ms`.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct Healthcheck {
    /// A shell's command as a text, or a program with its arguments as a list.
    test: Option<Lines>,
    /// Time between two tests.
    interval: Option<String>,
    /// Time that one test may take.
    timeout: Option<String>,
    /// Time after the start in which failures do not count.
    start_period: Option<String>,
    /// Time between two tests in that time.
    start_interval: Option<String>,
    /// Failures in a row until a container counts as ill.
    #[schemars(range(min = 1))]
    retries: Option<u32>,
    /// Containers are not checked, whatever the base says.
    disable: Option<Flag>,
}

/// A text or a list of texts.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum Lines {
    /// A text.
    One(String),
    /// A list of texts.
    Several(Vec<Option<Scalar>>),
}

/// A text; numbers and the like keep the spelling of the file.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum Scalar {
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
    /// A truth value.
    Flag(bool),
}

/// Yes or no.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum Flag {
    /// As YAML 1.2 spells it.
    Flag(bool),
    /// As YAML 1.1 spells it, too.
    Word(Word),
}

/// Other words for yes and no.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[allow(dead_code)]
enum Word {
    /// Yes.
    Yes,
    /// No.
    No,
    /// Yes.
    On,
    /// No.
    Off,
}
