//! Moments in which what is stored changes, for tests that kill processes there.
//!
//! In a debug build that finds [`WATCHER`] in its environment, each process that comes to such a point says so over
//! that socket, in a packet with the point's name, the process id and one end of a pipe, and stands still until that
//! end is closed. So a test stops any of the three processes wherever it wants and kills whom it wants. Release builds
//! have nothing of it.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use clap::ValueEnum;

use crate::holder::wire;

/// The variable that names the socket. It is read once, before anything is forked; no sandbox gets to see either.
pub const WATCHER: &str = "STACKER_TEST_WATCHER";

/// The connection, which forked processes share.
static CONNECTION: OnceLock<UnixStream> = OnceLock::new();

/// A moment right after something was changed, and before what follows from it. [`CommitPoint::value_variants`] is the
/// list of all, which `tests/commit_points.rs` goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum CommitPoint {
    // The main process: before something is built.
    /// A new database is filled.
    DatabaseMade,
    /// Rows that another boot did not sync are gone; their fresh records are not.
    DatabaseSettled,
    /// Something that a power cut may have damaged is put out of reach.
    DoubtfulSetAside,
    /// `boot.json` is written.
    BootWritten,
    /// `store.json` is written.
    StoreWritten,
    /// The directories of the store are made.
    RootsMade,
    /// The database knows which store this is.
    StoreNoted,
    /// Stat lists of imports are in the database.
    StatListsNoted,
    /// The listing of an import tree has its name.
    TreeListingNamed,
    /// The file of this build's pins is there.
    PinsMade,
    /// Something is pinned, and not looked at yet.
    Pinned,
    /// It is written down which file of a server a part will be of.
    RemoteBegun,
    /// It is written down what a URL gave; the copy does not have its name yet.
    RemoteNoted,
    /// The copy has its name.
    RemoteNamed,
    /// Images that are built upon are in the database.
    BasesNoted,

    // The main process: what it writes down of itself.
    /// A build is in the database, which begins with its first step.
    BuildNoted,
    /// A step of it is, which begins or has ended.
    StepNoted,
    /// All of it is.
    BuildEnded,

    // The main process: around a step.
    /// A key is claimed.
    Claimed,
    /// The action is in the database.
    ActionBegun,
    /// A host import is copied, under a name of nobody.
    HostImportCopied,
    /// A staged import has its name.
    ImportNamed,
    /// It is written down that a result's data is lost.
    LossNoted,
    /// A layer's listing has its name.
    ListingNamed,
    /// The record of a result lies in `fresh/`.
    RecordWritten,
    /// The result is in the database.
    ResultInserted,
    /// An earlier record of the same key is gone.
    RecordRemoved,
    /// What was learned of a layer is in the database.
    LayerNoted,
    /// What was found out of a stack is in the database.
    AnswerNoted,
    /// What a failed script left has its name.
    FailedDraftKept,
    /// A compressed layer has its name.
    BlobNamed,
    /// The compressed layer is in the database.
    BlobNoted,
    /// The keys of this build are in the database, for the reasons of the next.
    LastActionsNoted,

    // The main process: the layout.
    /// There is a layout, without anything in it.
    LayoutMade,
    /// A blob is noted as ours.
    LayoutBlobNoted,
    /// A blob lies in the layout.
    LayoutBlobNamed,
    /// The index leads to the new images.
    IndexWritten,
    /// A blob that the index no longer leads to is gone.
    LayoutBlobRemoved,

    // The main process: making results durable.
    /// The file systems are synced.
    Synced,
    /// A record is in `records/`.
    RecordKept,
    /// All of them are, and their rows say so.
    RowsKept,

    // The main process: gc.
    /// Data that can be made again is out of reach.
    DataSetAside,
    /// Data of a result is out of reach.
    ResultSetAside,
    /// A blob that only that result needed is gone.
    ResultFileRemoved,
    /// The rows of a result's blobs are gone.
    BlobsForgotten,
    /// The row of a result is gone, and it is written down why; its record is there.
    ResultForgotten,
    /// What nothing refers to is out of reach.
    LeftoversSetAside,
    /// A file that nothing refers to is gone.
    LeftoverRemoved,

    // The holder.
    /// It is in a user namespace, whose map is not written yet.
    NamespaceMade,
    /// It is root there.
    NamespaceEntered,
    /// A job has arrived.
    JobReceived,
    /// A worker is there for it.
    WorkerForked,

    // A worker.
    /// There is a draft.
    DraftMade,
    /// What a draft is made for is written in it.
    JobNoted,
    /// The script has ended.
    ScriptEnded,
    /// A layer is unpacked in its draft.
    Unpacked,
    /// The upper directory is what its listing says, and that is written.
    Sealed,
    /// A delta has its name.
    DeltaNamed,
    /// The blob of a layer is written.
    Packed,
    /// The directory of a staged import is there.
    StageMade,
    /// A path of a layer is copied.
    LayerImportCopied,
    /// A staged import lies in the upper directory.
    ImportMoved,
    /// A staged import has its owners.
    ImportOwned,
    /// Layers are merged, under a name of nobody.
    TreeMerged,
    /// A tree has its name.
    TreeNamed,
    /// A directory is in the trash.
    Trashed,
    /// It is gone.
    TrashRemoved,
    /// The job is done, its answer not given.
    JobDone,

    // A worker, on btrfs.
    /// There is an empty subvolume.
    SubvolumeMade,
    /// There is a snapshot of a tree.
    SnapshotMade,
    /// A snapshot is prepared as nursery, under a name of nobody.
    NurseryPrepared,
    /// A nursery has its name.
    NurseryNamed,
    /// A draft's place in a nursery is made, and no link leads there.
    NurseryPlaceMade,
    /// An upper directory has its last name in the nursery, and no link leads there.
    UpperKept,
    /// A link to a delta is made, under a name of nobody.
    DeltaLinkMade,
    /// A tree that has its name is read-only.
    TreeSealed,
}

impl CommitPoint {
    /// Connects to whoever watches. For a process that has forked nothing yet.
    pub fn watch() {
        if let Some(socket) = watcher() {
            // A watcher that is not there is waited for by nobody.
            let _ = UnixStream::connect(socket).map(|connection| CONNECTION.set(connection));
        }
    }

    /// This process is there: it stands still if somebody watches.
    pub fn reached(self) {
        if cfg!(debug_assertions)
            && let Some(connection) = CONNECTION.get()
        {
            // A watcher that has gone is told nothing, and waited for by nobody.
            let _ = self.stand(connection);
        }
    }

    fn stand(self, connection: &UnixStream) -> io::Result<()> {
        let (mut wait, go) = io::pipe()?;
        let note = format!("{self} {}", std::process::id());
        wire::send(connection, wire::COMMIT_POINT, note.as_bytes(), &[go.as_fd()])?;
        drop(go);
        wait.read(&mut [0]).map(drop)
    }
}

fn watcher() -> Option<std::ffi::OsString> {
    if cfg!(debug_assertions) { std::env::var_os(WATCHER) } else { None }
}

impl std::fmt::Display for CommitPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
