//! What runs inside the user namespace: one process for each job.
//!
//! A worker's current directory is the roots directory, and it names everything beneath it by short relative paths;
//! the mapped root could not pass the directories above. Files of the main process reach it as open descriptors. It
//! starts single-threaded, knows no stackerfile, key or database, and is gone after its answer.

mod hashed;
mod import;
mod layers;
pub mod message;
mod run;
pub mod sandbox;
mod stage;
pub(crate) mod trash;
mod tree;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

use crate::digest::{Chain, ChainId, DiffId};
use crate::listing::{Listing, Stack};
use crate::place;
use crate::seal::failure::{library, machine};
use crate::store;
use message::{Answer, Failure, Job, Sealed};

/// Does a job.
pub fn work(job: Job, descriptors: Vec<OwnedFd>, listings: BorrowedFd) -> Answer {
    let worker = Worker { listings };
    let mut files = Files(descriptors.into_iter());
    let answer = match job {
        Job::UnpackLayer { parent, diff_id, blob, draft, max_size } => {
            let sealed = worker.unpack_layer(&parent, (diff_id, blob), &draft, max_size, &mut files);
            or_nothing(&draft, sealed).map(Answer::Sealed)
        }
        Job::UnpackTar { draft, max_size } => {
            or_nothing(&draft, worker.unpack_tar(&draft, max_size, &mut files)).map(Answer::Sealed)
        }
        Job::StageFromLayer { chain, path, attributes, time, name } => {
            worker.stage_from_layer(&chain, &path, &attributes, time, &name).map(Answer::Staged)
        }
        Job::Own { name, attributes, time } => stage::own(&staged(&name), &attributes, time).map(|()| Answer::Done),
        Job::Import { parent, name, dest, time, draft } => {
            worker.import(&parent, &name, &dest, time, &draft, &mut files).map(Answer::Sealed)
        }
        Job::Run(job) => worker.run(*job, &mut files),
        Job::Pack { chain, compression } => worker.pack(&chain, compression, &mut files),
        Job::Tree { chain } => worker.tree(&chain).map(|()| Answer::Done),
        Job::Remove { paths } => trash::remove(&paths).map(|()| Answer::Done),
    };
    answer.unwrap_or_else(Answer::Failed)
}

/// What every job can reach.
struct Worker<'a> {
    listings: BorrowedFd<'a>,
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

    /// The directories that hold a chain, topmost first.
    fn lowers(&self, chain: &Chain) -> Vec<PathBuf> {
        store::lowers(chain, |path| path.exists())
    }
}

/// A fresh draft directory with its upper.
fn new_draft(name: &str) -> Result<PathBuf, Failure> {
    let draft = Path::new("drafts").join(name);
    for path in [&draft, &draft.join("u")] {
        std::fs::create_dir(path).map_err(|error| failed("create", path, error))?;
    }
    Ok(draft)
}

/// What was unpacked in vain goes at once: it may be as large as a layer can be, and nobody looks into it.
fn or_nothing(draft: &str, sealed: Result<Sealed, Failure>) -> Result<Sealed, Failure> {
    if sealed.is_err() {
        // The failure that there is says more than another one; what stays is swept with the drafts.
        let _ = trash::remove(&[format!("drafts/{draft}")]);
    }
    sealed
}

/// Gives a sealed upper its place as the delta on top of `parent`, and removes the rest of the draft. Where the delta
/// lies already, another one made the same: that one stays, since runs may be mounted on it.
fn keep_delta(draft: &Path, parent: ChainId, sealed: &Sealed) -> Result<(), Failure> {
    if let Some(diff_id) = sealed.diff_id {
        let delta = place::delta(&parent.push(diff_id));
        match std::fs::rename(draft.join("u"), &delta) {
            Err(error) if !delta.exists() => return Err(failed("rename to", &delta, error)),
            _ => {}
        }
    }
    trash::remove(&[draft.to_string_lossy().into_owned()])
}

/// The staged tree beneath a directory of `imports`.
fn staged(name: &str) -> PathBuf {
    Path::new("imports").join(name).join("t")
}

/// A system call on something of the store failed.
fn failed(doing: &str, path: &Path, error: io::Error) -> Failure {
    let step = format!("{doing} {}", path.display());
    Failure { step, errno: error.raw_os_error(), message: error.to_string(), users: false }
}
