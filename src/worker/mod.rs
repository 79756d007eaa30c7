//! What runs inside the user namespace: one process for each job.
//!
//! A worker's current directory is the roots directory, and it names everything beneath it by short relative paths;
//! the mapped root could not pass the directories above. Files of the main process reach it as open descriptors. It
//! starts single-threaded, knows no stackerfile, key or database, and is gone after its answer.

mod check;
mod grab;
pub(crate) mod hashed;
mod import;
mod labels;
mod lack;
mod layers;
pub mod message;
mod probe;
mod run;
pub mod sandbox;
mod shell;
mod stage;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

use crate::commit_point::CommitPoint;
use crate::digest::{Chain, ChainId, DiffId};
use crate::listing::{Listing, Stack};
use crate::need::Need;
use crate::place;
use crate::room::Room;
use crate::seal::Form;
use crate::seal::failure::{library, machine};
pub use crate::store::trash::remove_what_waits;
use crate::store::{self, Purpose, SnapshotStore, failed, trash};
use crate::usage::meter::measure;
use message::{Answer, Failure, Job, Sealed, Setting};
pub use probe::{in_a_fork, own_proc, takes_uppers};

/// Does a job.
pub fn work(job: Job, descriptors: Vec<OwnedFd>, listings: BorrowedFd, setting: Setting) -> Answer {
    let worker = Worker { listings, setting, store: store::of(setting.store) };
    let mut files = Files(descriptors.into_iter());
    let answer = match job {
        Job::UnpackLayer(job) => or_nothing(&job.draft, worker.unpack_layer(&job, &mut files)).map(Answer::Sealed),
        Job::ListLayer(job) => or_nothing(&job.draft, worker.list_layer(&job, &mut files)).map(Answer::Sealed),
        Job::UnpackTar { content, in_store, draft, max_size } => {
            let unpacked = worker.unpack_tar((content, in_store), &draft, max_size, &mut files);
            let sealed = or_nothing(&draft, unpacked);
            sealed.map(|sealed| sealed.map_or(Answer::Changed, Answer::Sealed))
        }
        Job::StageFromLayer { chain, path, attributes, time, name } => {
            worker.stage_from_layer(&chain, &path, &attributes, time, &name).map(Answer::Staged)
        }
        Job::Grab { chain, path, name } => worker.grab(&chain, &path, &name, &mut files).map(|()| Answer::Done),
        Job::Own { name, attributes, time } => {
            stage::own(&staged(&name), &attributes, time, setting.ids).map(|()| Answer::Done)
        }
        Job::Import { parent, name, dest, time, draft } => {
            worker.import(&parent, &name, &dest, time, &draft, &mut files).map(Answer::Sealed)
        }
        Job::Run(job) => worker.run(*job, &mut files),
        Job::Labels(job) => worker.labels(*job, &mut files),
        Job::Shell(job) => worker.shell(*job, &mut files),
        Job::Pack { chain, compression } => worker.pack(&chain, compression, &mut files),
        Job::Archive { chain, kind } => worker.archive(&chain, kind, &mut files),
        Job::Tree { chain } => worker.store.make_tree(&chain).map(|()| Answer::Done),
        Job::CheckDelta { stack, diff_id, ours, deep } => {
            worker.check_delta(&stack, diff_id, ours, deep, &mut files).map(Answer::Checked)
        }
        Job::CheckTree { chain, deep } => worker.check_tree(&chain, deep).map(Answer::Checked),
        Job::SetAside { paths } => trash::set_aside(&paths).map(|()| Answer::Done),
        Job::Remove { paths } => trash::remove(&paths).map(|()| Answer::Done),
        Job::Measure { places } => Ok(Answer::Measured(measure(Path::new("."), &places))),
        Job::Probe { draft } => worker.probe(&draft).map(Answer::Probed),
    };
    answer.unwrap_or_else(Answer::Failed)
}

/// What every job can reach.
struct Worker<'a> {
    listings: BorrowedFd<'a>,
    store: &'static dyn SnapshotStore,
    setting: Setting,
}

/// The descriptors of a job, in the order that its variant names.
struct Files(std::vec::IntoIter<OwnedFd>);

impl Files {
    fn next(&mut self) -> Result<OwnedFd, Failure> {
        let missing = || io::Error::other("the job came without one of its files");
        self.0.next().ok_or_else(|| machine("take a file of", b"", missing()))
    }

    fn next_file(&mut self) -> Result<File, Failure> {
        self.next().map(File::from)
    }
}

impl Worker<'_> {
    /// The listings of a chain, bottom first.
    fn stack(&self, chain: &Chain) -> Result<Stack, Failure> {
        Ok(Stack::new(chain.0.iter().map(|diff_id| self.listing(diff_id)).collect::<Result<_, _>>()?))
    }

    fn listing(&self, diff_id: &DiffId) -> Result<Listing, Failure> {
        let name = place::layer_listing(diff_id);
        let file = openat(self.listings, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let file = file.map_err(|error| failed("open the listing", Path::new(&name), error.into()))?;
        Listing::from_file(file.into()).map_err(|error| library("read a listing", error))
    }

    /// The directories to be mounted beneath the upper of a run, if it is not a whole root filesystem.
    fn mounted<'a>(&self, lowers: &'a [PathBuf]) -> Option<&'a [PathBuf]> {
        match self.store.form() {
            Form::Changes(_) => Some(lowers),
            Form::Whole(_) => None,
        }
    }

    /// The directories that hold a chain, topmost first.
    fn lowers(&self, chain: &Chain) -> Vec<PathBuf> {
        self.store.lowers(chain, &|path| path.exists())
    }

    /// Gives the sealed upper of a draft its place as the delta on top of `parent`, and removes the rest.
    fn keep_delta(&self, draft: &Path, parent: ChainId, sealed: &Sealed, listing: File) -> Result<(), Failure> {
        CommitPoint::Sealed.reached();
        match sealed.diff_id {
            Some(diff_id) => {
                let listing = Listing::from_file(listing).map_err(|error| library("read a listing", error))?;
                self.store.keep_delta(draft, parent, diff_id, &listing)
            }
            None => {
                trash::remove_later(draft);
                Ok(())
            }
        }
    }
}

/// What was unpacked in vain goes at once: it may be as large as a layer can be, and nobody looks into it.
fn or_nothing<T>(draft: &str, sealed: Result<T, Failure>) -> Result<T, Failure> {
    sealed.map_err(|mut failure| {
        // Before there is room again.
        if let (Some(Need::Space), Some(room)) = (failure.lack(), Room::of(Path::new("."))) {
            failure.message += &format!(" ({} left then)", room.left());
        }
        // The failure that there is says more than another one; what stays is swept with the drafts.
        let _ = trash::remove(&[format!("drafts/{draft}")]);
        failure
    })
}

/// The staged tree beneath a directory of `imports`.
fn staged(name: &str) -> PathBuf {
    Path::new("imports").join(name).join("t")
}
