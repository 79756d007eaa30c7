//! An action is the complete description of one cached act; its key is the blake3 of its readable encoding.
//!
//! One list of fields is walked to hash an action and to explain why two differ, so that what is hashed and what is
//! explained cannot drift apart. Nothing here knows host paths, layer names or the clock: two people with the same
//! checkout have the same actions. cache-format.md describes the encoding exactly.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, ContentDigest, Key, TreeDigest};
use crate::text::escape;

/// The first line of every encoding. Raising it makes every layer of every user a miss.
pub const FORMAT: u32 = 1;

/// What a layer is built for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Platform {
    /// As in GOOS: `linux`.
    pub os: String,
    /// As in GOARCH: `amd64`, `arm64`.
    pub arch: String,
}

/// Which owners files can have in the tier that builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// All 65,536.
    #[default]
    Full,
    /// Everything belongs to root.
    Single,
}

/// Overrides of mode and owner, as written in the stackerfile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Attributes {
    /// Permission bits for files; directories get the execute bits that go with the read bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// An import that appears under `/stacker/imports` during a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mount {
    /// Absolute path in the sandbox.
    pub place: String,
    /// What it holds.
    pub tree: TreeDigest,
    /// Overrides.
    pub attributes: Attributes,
}

/// A path of the host that a run sees at a place, and may write to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bind {
    /// Absolute path in the sandbox.
    pub place: String,
    /// What of it is an input.
    pub shows: Shows,
}

/// What of a bind is an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shows {
    /// The content of a file or directory, with the modes, owners and attributes that the run sees.
    Tree {
        /// All but the nodes.
        tree: TreeDigest,
        /// Those by path in the tree, an escaped word.
        nodes: BTreeMap<String, NodeKind>,
    },
    /// That there is such a node.
    Node {
        /// What it is.
        node: NodeKind,
        /// The path of the host, as the stackerfile has it.
        source: String,
    },
    /// Nothing: `key: none`.
    Anything,
}

/// What has no content that could be an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// Somebody may listen on it.
    Socket,
    /// A pipe with a name.
    Fifo,
    /// A character device.
    Character,
    /// A block device.
    Block,
}

/// What network a run sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The host's.
    #[default]
    Host,
    /// Loopback only.
    None,
}

/// The complete description of one cached act; the result is one OCI layer, or nothing when nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Action {
    /// Platform of the result.
    pub platform: Platform,
    /// Owners that files can have.
    pub ids: Ids,
    /// The layers beneath, as what they are.
    pub base: ChainId,
    /// Layer time T, seconds since 1970: what new files carry.
    pub time: i64,
    /// What is done.
    pub kind: Kind,
}

/// What is done on top of the base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A tar base is unpacked and normalised.
    Unpack {
        /// blake3 of the tar file as it lies there, compressed or not.
        tar: ContentDigest,
    },
    /// Files are copied to a place in the image.
    Import {
        /// What is copied.
        tree: TreeDigest,
        /// Absolute, links in its directory part resolved inside the base.
        dest: String,
        /// Overrides.
        attributes: Attributes,
    },
    /// A script runs.
    Run {
        /// With its `#!` line.
        script: String,
        /// Every variable set that is in the key.
        environment: BTreeMap<String, String>,
        /// In the order of the stackerfile.
        mounts: Vec<Mount>,
        /// In the order of the stackerfile.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        binds: Vec<Bind>,
        /// Network mode.
        network: Network,
    },
    /// A script runs in what nobody keeps, and leaves labels.
    Labels {
        /// With its `#!` line.
        script: String,
        /// Every variable set that is in the key.
        environment: BTreeMap<String, String>,
        /// Network mode.
        network: Network,
    },
}

/// One line of an encoding: the unit in which two actions are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// Kind of the action.
    Kind(&'static str),
    /// Platform.
    Platform(&'a Platform),
    /// Owners that files can have.
    Ids(Ids),
    /// The base.
    Base(ChainId),
    /// Layer time.
    Time(i64),
    /// The tar of an `Unpack`.
    Tar(ContentDigest),
    /// The tree, place and overrides of an `Import`.
    Tree(TreeDigest, &'a str, Attributes),
    /// The script of a `Run` or `Labels`.
    Script(&'a str),
    /// A variable of such a script.
    Variable(&'a str, &'a str),
    /// A mounted import of a `Run`.
    Mount(&'a Mount),
    /// A bind of a `Run`.
    Bind(&'a Bind),
    /// A node in a bind: the bind's place, and the node's path in it as an escaped word.
    Node(&'a str, &'a str, NodeKind),
    /// The network of such a script.
    Network(Network),
}

impl Action {
    /// Every field in the order of the encoding. (Patterns without `..`: a new field does not compile until it is here.)
    pub fn fields(&self) -> Vec<Field<'_>> {
        let Action { platform, ids, base, time, kind } = self;
        let mut fields = vec![
            Field::Kind(kind.name()),
            Field::Platform(platform),
            Field::Ids(*ids),
            Field::Base(*base),
            Field::Time(*time),
        ];
        match kind {
            Kind::Unpack { tar } => fields.push(Field::Tar(*tar)),
            Kind::Import { tree, dest, attributes } => fields.push(Field::Tree(*tree, dest, *attributes)),
            Kind::Run { script, environment, mounts, binds, network } => {
                fields.push(Field::Script(script));
                fields.extend(environment.iter().map(|(name, value)| Field::Variable(name, value)));
                fields.extend(mounts.iter().map(Field::Mount));
                fields.extend(binds.iter().flat_map(Bind::fields));
                fields.push(Field::Network(*network));
            }
            Kind::Labels { script, environment, network } => {
                fields.push(Field::Script(script));
                fields.extend(environment.iter().map(|(name, value)| Field::Variable(name, value)));
                fields.push(Field::Network(*network));
            }
        }
        fields
    }

    /// The canonical text: a first line with the format, then one line for each field.
    pub fn encoding(&self) -> String {
        let mut text = format!("stacker action {FORMAT}\n");
        for field in self.fields() {
            text.push_str(&field.line());
            text.push('\n');
        }
        text
    }

    /// Whether both do the same thing, be it upon something else: with the same script, or an import of the same.
    pub fn shares_with(&self, other: &Action) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Unpack { tar }, Kind::Unpack { tar: same }) => tar == same,
            (Kind::Import { tree, .. }, Kind::Import { tree: same, .. }) => tree == same,
            (Kind::Run { script, mounts, .. }, Kind::Run { script: same, mounts: others, .. }) => {
                script == same || mounts.iter().any(|mount| others.contains(mount))
            }
            (Kind::Labels { script, .. }, Kind::Labels { script: same, .. }) => script == same,
            _ => false,
        }
    }

    /// The key.
    pub fn key(&self) -> Key {
        Key::of(self.encoding().as_bytes())
    }
}

impl Bind {
    fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let nodes = match &self.shows {
            Shows::Tree { nodes, .. } => Some(nodes),
            Shows::Node { .. } | Shows::Anything => None,
        };
        let nodes = nodes.into_iter().flatten().map(|(path, node)| Field::Node(&self.place, path, *node));
        std::iter::once(Field::Bind(self)).chain(nodes)
    }
}

impl NodeKind {
    /// `socket`, `fifo`, `character` or `block`.
    pub fn name(self) -> &'static str {
        match self {
            NodeKind::Socket => "socket",
            NodeKind::Fifo => "fifo",
            NodeKind::Character => "character",
            NodeKind::Block => "block",
        }
    }
}

impl Kind {
    /// `unpack`, `import`, `run` or `labels`.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Unpack { .. } => "unpack",
            Kind::Import { .. } => "import",
            Kind::Run { .. } => "run",
            Kind::Labels { .. } => "labels",
        }
    }
}

impl Field<'_> {
    /// `name value…`, without a line feed: strings are JSON strings, paths are escaped words.
    pub fn line(&self) -> String {
        match self {
            Field::Kind(name) => format!("kind {name}"),
            Field::Platform(platform) => format!("platform {} {}", json(&platform.os), json(&platform.arch)),
            Field::Ids(Ids::Full) => "ids full".to_owned(),
            Field::Ids(Ids::Single) => "ids single".to_owned(),
            Field::Base(ChainId::SCRATCH) => "base scratch".to_owned(),
            Field::Base(chain) => format!("base {chain}"),
            Field::Time(seconds) => format!("time {seconds}"),
            Field::Tar(digest) => format!("tar {digest}"),
            Field::Tree(tree, dest, attributes) => {
                format!("tree {tree} {}{}", escape(dest.as_bytes()), attributes.words())
            }
            Field::Script(script) => format!("script {}", json(script)),
            Field::Variable(name, value) => format!("variable {} {}", json(name), json(value)),
            Field::Mount(mount) => {
                format!("mount {} {}{}", mount.tree, escape(mount.place.as_bytes()), mount.attributes.words())
            }
            Field::Bind(Bind { place, shows }) => {
                let place = escape(place.as_bytes());
                match shows {
                    Shows::Tree { tree, .. } => format!("bind {tree} {place}"),
                    Shows::Node { node, source } => {
                        format!("bind {} {place} {}", node.name(), escape(source.as_bytes()))
                    }
                    Shows::Anything => format!("bind none {place}"),
                }
            }
            Field::Node(place, path, node) => format!("node {} {} {path}", node.name(), escape(place.as_bytes())),
            Field::Network(Network::Host) => "network host".to_owned(),
            Field::Network(Network::None) => "network none".to_owned(),
        }
    }
}

impl Attributes {
    /// ` mode=644 uid=0 gid=0`: only what is set, mode in octal, each with a blank before it.
    pub fn words(&self) -> String {
        let Attributes { mode, uid, gid } = self;
        let mut words = String::new();
        if let Some(mode) = mode {
            words += &format!(" mode={mode:o}");
        }
        if let Some(uid) = uid {
            words += &format!(" uid={uid}");
        }
        if let Some(gid) = gid {
            words += &format!(" gid={gid}");
        }
        words
    }

    /// No override at all.
    pub fn is_none(&self) -> bool {
        *self == Attributes::default()
    }
}

fn json(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}
