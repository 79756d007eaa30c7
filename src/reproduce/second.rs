//! The second place: a stacker and a roots directory that live as long as one comparison, within the real ones.
//!
//! The layers beneath a step are not unpacked once more: links lead to their data, which nobody writes to. All that is
//! made lies in the second place. Whatever a killed process leaves of it looks like a leftover, and gc removes it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::options::Directories;
use crate::database::make_directories;
use crate::digest::Chain;
use crate::error::{At, Error, Result};
use crate::holder::Holder;
use crate::place::{self, RootsDir, StackerDir};
use crate::store::trash;
use crate::worker::message::{Answer, Job};

/// See the module's header.
pub struct Second {
    /// The main process's directory.
    pub stacker: StackerDir,
    /// The workers' directory.
    pub roots: RootsDir,
    /// Relative to the real roots directory.
    name: String,
    of: Directories,
}

impl Second {
    /// Where it will be.
    pub fn new(of: &Directories) -> Second {
        let name = format!("again-{}", trash::unique());
        Second {
            stacker: StackerDir(of.stacker.tmp().join(&name)),
            roots: RootsDir(of.roots.0.join("drafts").join(&name)),
            name: format!("drafts/{name}"),
            of: of.clone(),
        }
    }

    /// Makes the stacker directory; its holder makes the other one.
    pub fn make(&self) -> Result<()> {
        make_directories(&self.stacker)
    }

    /// The layers of a chain can be mounted there too.
    pub fn show(&self, chain: &Chain) -> Result<()> {
        for (diff_id, id) in chain.0.iter().zip(chain.ids()) {
            for path in [place::delta(&id), place::tree(&id)] {
                // From within `deltas` or `trees` of the second place. Workers can name nothing above the real one.
                self.link(&Path::new("../../..").join(&path), &path)?;
            }
            let (from, to) = (self.of.stacker.listing(diff_id), self.stacker.listing(diff_id));
            if from.exists() && !to.exists() && fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).at("copy", &from)?;
            }
        }
        Ok(())
    }

    fn link(&self, target: &Path, path: &Path) -> Result<()> {
        let link: PathBuf = self.roots.0.join(path);
        if !self.of.roots.0.join(path).exists() || link.symlink_metadata().is_ok() {
            return Ok(());
        }
        std::os::unix::fs::symlink(target, &link).at("create", &link)
    }

    /// Removes all of it, by the real store's workers.
    pub fn remove(&self, holder: &Holder) -> Result<()> {
        let removed = match holder.submit(Job::Remove { paths: vec![self.name.clone()] }, vec![])?.wait()? {
            Answer::Done => Ok(()),
            Answer::Failed(failure) => Err(failure.error(self.of.written())),
            other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
        };
        match fs::remove_dir_all(&self.stacker.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("remove", &self.stacker.0),
            _ => removed,
        }
    }
}
