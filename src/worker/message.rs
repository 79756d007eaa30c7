//! What the main process asks a worker to do, and what a worker answers: the same messages will serve a remote worker.
//!
//! A job names its directories by their short names beneath the roots directory (see [`crate::place`]); files of the
//! main process (tars, blobs, listings, logs) travel beside the message as open descriptors, in the order that each
//! variant names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::{Attributes, Ids, Network};
use crate::digest::{BlobDigest, Chain, ChainId, ContentDigest, DiffId, TreeDigest};
use crate::layer_type::LayerType;
use crate::listing::Time;
use crate::need::Need;
use crate::seal::tar::Told;
use crate::store::kind::StoreKind;
use crate::usage::meter::{Measured, Place};

/// How the machine lets stacker work: the same for all jobs of a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Which owners files can have on disk.
    pub ids: Ids,
    /// There is no user namespace: nothing can be mounted, no script run.
    pub bare: bool,
    /// Sandboxes show the /proc outside of them, since the kernel shows them no other.
    pub shared_proc: bool,
    /// How layers are stored.
    pub store: StoreKind,
}

/// One job, done by one worker process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Unpack a layer of an image onto what is beneath. Descriptors: blob (read), listing (write).
    /// The answer is `Sealed` with the very diff id, else an error.
    UnpackLayer(LayerJob),
    /// Write the listing that `UnpackLayer` would write, and nothing else. Descriptors and answer are the same.
    ListLayer(LayerJob),
    /// Unpack and normalise a tar base. Descriptors: unless it is `in_store`, tar (read); listing (write).
    /// The answer is `Sealed`, or `Changed` where the bytes that were read are not `content`.
    UnpackTar {
        /// What its key says that the tar is.
        content: ContentDigest,
        /// Where it lies as a file of a layer, relative to the roots directory.
        in_store: Option<Vec<u8>>,
        /// Unique name of the draft directory.
        draft: String,
        /// Bytes that the layer may have without compression.
        max_size: u64,
    },
    /// Copy `path` of a chain to `imports/NAME` with mode, owner and xattrs as they are there, then apply `attributes`.
    /// Descriptors: none. The answer is `Staged`.
    StageFromLayer {
        /// Where to read.
        chain: Chain,
        /// Resolved path in it, no leading slash.
        path: Vec<u8>,
        /// Overrides.
        attributes: Attributes,
        /// Time that every entry gets.
        time: i64,
        /// The directory to make beneath `imports`; the tree is its entry `t`.
        name: String,
    },
    /// Write `path` of a chain as a tar, in which it is named `t`. Descriptors: tar (write). The answer is `Done`.
    Grab {
        /// Where to read.
        chain: Chain,
        /// Resolved path in it, no leading slash.
        path: Vec<u8>,
        /// The directory to make beneath `imports` meanwhile.
        name: String,
    },
    /// Give the staged `imports/NAME/t` its overrides (owners that main can not set) and times. Descriptors: none.
    Own {
        /// Directory beneath `imports`.
        name: String,
        /// Overrides.
        attributes: Attributes,
        /// Time that every entry gets.
        time: i64,
    },
    /// Seal the staged `imports/NAME/t` as a layer at `dest`. The staged directory is used up. Descriptors: listing (write).
    Import {
        /// The layers beneath.
        parent: Chain,
        /// Directory beneath `imports`.
        name: String,
        /// Resolved place in the image, no leading slash; empty for the root.
        dest: Vec<u8>,
        /// Time of all entries of the layer.
        time: i64,
        /// Unique name of the draft directory.
        draft: String,
    },
    /// Run a script and seal what it changed. Descriptors: log (write), listing (write), one for each bind.
    Run(Box<RunJob>),
    /// Run a script in a throw-away copy of `parent`; what it leaves in `/stacker/oci-labels` is the answer, `Labels`.
    /// Descriptors: log (write).
    Labels(Box<RunJob>),
    /// Run a command in a throw-away copy of a root filesystem. Descriptors: with `terminal` the socket to send it over,
    /// else standard input, output and error; then one for each bind. The answer is `Ended`.
    Shell(Box<ShellJob>),
    /// Write the layer tar of the topmost layer of `chain`, compressed. Descriptors: blob (write). The answer is `Packed`.
    Pack {
        /// The layer is the last of it.
        chain: Chain,
        /// Codec.
        compression: Compression,
    },
    /// Write the tar from which a file system is made of the topmost layer of `chain`. Descriptors: tar (write). The answer
    /// is `Archived`.
    Archive {
        /// The layer is the last of it.
        chain: Chain,
        /// The file system.
        kind: LayerType,
    },
    /// Make `trees/SHORT` of `chain` by merging the deltas beneath (hard links, else reflinks, else copies). Descriptors: none.
    Tree {
        /// The whole stack.
        chain: Chain,
    },
    /// Compare a delta with its listing; nothing is changed. Descriptors: listing (write). The answer is `Checked`.
    CheckDelta {
        /// The stack that it is the top of.
        stack: ChainId,
        /// The layer, whose listing it is.
        diff_id: DiffId,
        /// Its tar is ours, so that the diff id tells whether the listing or the delta is wrong.
        ours: bool,
        /// Contents are read too.
        deep: bool,
    },
    /// Compare the tree of `chain` with the listings; nothing is changed. Descriptors: none. The answer is `Checked`.
    CheckTree {
        /// The whole stack.
        chain: Chain,
        /// Contents are read too.
        deep: bool,
    },
    /// Rename directories beneath the roots directory into `trash`, where they stay for now. Descriptors: none.
    SetAside {
        /// As for `Remove`.
        paths: Vec<String>,
    },
    /// Remove directories beneath the roots directory (each first renamed into `trash`), whoever owns them. Descriptors: none.
    Remove {
        /// Relative to the roots directory: `drafts/x`, `imports/y`, `trash/z`.
        paths: Vec<String>,
    },
    /// Measure what lies beneath the roots directory. Descriptors: none. The answer is `Measured`.
    Measure {
        /// What, and whose it is.
        places: Vec<Place>,
    },
    /// Try what runs need. Descriptors: none. The answer is `Probed`.
    Probe {
        /// Unique name of the draft directory.
        draft: String,
    },
}

/// A layer of an image as a blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerJob {
    /// The layers beneath.
    pub parent: Chain,
    /// What the uncompressed tar must hash to.
    pub diff_id: DiffId,
    /// What the blob must hash to.
    pub blob: BlobDigest,
    /// Unique name of the draft directory.
    pub draft: String,
    /// Bytes that the layer may have without compression.
    pub max_size: u64,
}

/// A script to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunJob {
    /// The layer's name: title of the sandbox.
    pub layer: String,
    /// The layers beneath.
    pub parent: Chain,
    /// Executed as it is; starts with `#!`.
    pub script: String,
    /// The whole environment of the script, keyed or not.
    pub environment: BTreeMap<String, String>,
    /// (place, directory beneath `imports`).
    pub mounts: Vec<(String, String)>,
    /// In the order of their descriptors.
    #[serde(default)]
    pub binds: Vec<BindMount>,
    /// Network mode.
    pub network: Network,
    /// N: the newest time of the layers beneath.
    pub newest: i64,
    /// T: what new files get.
    pub time: i64,
    /// Unique name of the draft directory.
    pub draft: String,
}

/// A path of the host to be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute place in the sandbox.
    pub place: String,
    /// The path of the host.
    pub source: Vec<u8>,
    /// Its content is an input.
    pub keyed: bool,
    /// What the descriptor is.
    pub found: Found,
}

/// What the main process found at the source of a bind when it handed over the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Where it is, without links.
    pub path: Vec<u8>,
    /// Device and inode.
    pub id: (u64, u64),
    /// It is a directory.
    pub directory: bool,
    /// The descriptor is a mount that only has to be put in its place. Else it only says that the path leads to the same.
    pub mount: bool,
    /// Nobody may write to it.
    pub read_only: bool,
    /// Directories in it that are stacker's own, and show as empty ones.
    pub hidden: Vec<Vec<u8>>,
}

/// A command to look around with: in what a run would see, in what it left when it failed, or in a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShellJob {
    /// What to run it in: the surroundings of a run, whose own script lies at `/stacker/run` and is not started.
    /// `draft` is what is thrown away.
    pub run: RunJob,
    /// What is executed, with its arguments.
    pub command: Vec<String>,
    /// A failed run's draft to be opened.
    pub failed: Option<FailedDraft>,
    /// A terminal of the sandbox's own, with so many rows and columns.
    pub terminal: Option<(u16, u16)>,
}

/// What a failed run left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedDraft {
    /// Directory beneath `drafts`.
    pub name: String,
    /// The command works on the draft itself rather than on a copy.
    pub itself: bool,
}

/// The file of a draft that holds the [`RunJob`] that it was made for.
pub const JOB_FILE: &str = "job";

/// How a blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip at a level 1..=9.
    Gzip(u32),
    /// zstd at a level 1..=19.
    Zstd(i32),
    /// Plain tar.
    None,
}

/// What a worker answers, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// A layer lies in `deltas`; its listing was written to the descriptor.
    Sealed(Sealed),
    /// What was read is not what the key says: it changed meanwhile. Nothing is left of it.
    Changed,
    /// A tree was staged.
    Staged(TreeDigest),
    /// A tar was written to the descriptor.
    Archived(Told),
    /// A blob was written to the descriptor.
    Packed {
        /// sha256 of its bytes.
        blob: BlobDigest,
        /// Bytes.
        size: u64,
        /// sha256 of the tar before compression.
        diff_id: DiffId,
    },
    /// How what lies there and what the listing says compare.
    Checked(Checked),
    /// How many bytes are held by whom.
    Measured(Measured),
    /// What a script left as labels, by name.
    Labels(BTreeMap<String, String>),
    /// Done, nothing to tell.
    Done,
    /// What was tried, and how it went.
    Probed(Vec<Probed>),
    /// The script ended with this exit code, or by this signal (128 + number).
    RunFailed {
        /// As a shell would say it.
        code: i32,
    },
    /// The command ended with this exit code, or by this signal (128 + number).
    Ended {
        /// As a shell would say it.
        code: i32,
    },
    /// The job failed at a step, for a reason that a person can read.
    Failed(Failure),
}

/// One thing that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probed {
    /// What.
    pub need: Need,
    /// Whether it is there.
    pub ok: bool,
    /// What was seen.
    pub found: String,
}

/// The result of sealing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// `None`: nothing changed, no layer.
    pub diff_id: Option<DiffId>,
    /// The newest mtime of the listing.
    pub newest: Time,
    /// Entries of the listing.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Bytes of the tar.
    pub tar_bytes: u64,
    /// What was left out, and why.
    pub warnings: Vec<String>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The first difference; `None`: they agree.
    pub difference: Option<String>,
    /// The delta as it was listed anew, contents and all: after a difference, or when asked for. That listing was
    /// written to the descriptor. Its diff id is that of our tar of it; of a layer whose tar is not ours, what it was
    /// said to be.
    pub relisted: Option<Sealed>,
}

/// Why a job failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done: `mount overlay`, `unpack usr/bin/x`.
    pub step: String,
    /// errno, where a system call failed.
    pub errno: Option<i32>,
    /// Why.
    pub message: String,
    /// Whose fault: the build's input (exit code 1) or the machine's (3).
    pub users: bool,
}
