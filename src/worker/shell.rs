//! A command run in a root filesystem that nobody keeps: to look at a layer, at what a run sees, at what it left.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};

use crate::seal::failure::library;
use crate::seal::{Form, dress_root};
use crate::store;

use super::message::{Answer, BindMount, FailedDraft, Failure, ShellJob};
use super::run::binds;
use super::sandbox::{self, Sandbox, Streams};
use super::{Files, Purpose, Worker, failed, staged, trash};

/// Where a failed draft's parts lie meanwhile, in the draft that is thrown away.
const FAILED_UPPER: &str = "f";
const FAILED_STACKER: &str = "fs";

impl Worker<'_> {
    /// The draft is gone afterwards, whatever happened.
    pub(super) fn shell(&self, job: ShellJob, files: &mut Files) -> Result<Answer, Failure> {
        // The sandbox hears of it all the same; it must not end this process before the draft is gone.
        let held = SigSet::from(Signal::SIGTERM).thread_block();
        held.map_err(|error| failed("hold signals back for", Path::new(&job.run.draft), error.into()))?;
        let streams = match job.terminal {
            Some(size) => Streams::Terminal { socket: files.next()?, size },
            None => Streams::Own([files.next()?, files.next()?, files.next()?]),
        };
        let binds = binds(&job.run, files)?;
        let purpose = match &job.failed {
            None => Purpose::Run(&job.run.parent),
            Some(_) => Purpose::Reopen(&job.run.parent),
        };
        let draft = self.store.new_draft(&job.run.draft, purpose)?;
        let ended = self.look_around(&job, &draft, &binds, streams);
        let kept = job.failed.as_ref().map_or(Ok(()), |failed| give_back(failed, &draft));
        let removed = trash::remove(&[draft.to_string_lossy().into_owned()]);
        let code = ended?;
        kept.and(removed)?;
        Ok(Answer::Ended { code })
    }

    fn look_around(
        &self,
        job: &ShellJob,
        draft: &Path,
        binds: &[(BindMount, OwnedFd)],
        streams: Streams,
    ) -> Result<i32, Failure> {
        let run = &job.run;
        let base = self.stack(&run.parent)?;
        let root = base.lookup(b"").map_err(|error| library("read listings", error))?;
        dress_root(&draft.join("u"), root.as_ref(), self.setting.ids)?;
        let mut lowers = self.lowers(&run.parent);
        let mut left = None;
        if let Some(found) = &job.failed {
            lowers.splice(0..0, borrow(found, draft, self.store.form())?);
            left = Some(draft.join(FAILED_STACKER)).filter(|path| path.exists());
        }
        let mounts: Vec<(String, PathBuf)> =
            run.mounts.iter().map(|(place, name)| (place.clone(), staged(name))).collect();
        sandbox::run(Sandbox {
            layer: &run.layer,
            script: &run.script,
            command: &job.command,
            environment: &run.environment,
            lowers: self.mounted(&lowers),
            draft,
            left: left.as_deref(),
            mounts: &mounts,
            binds,
            inside: &[],
            network: run.network,
            base: &base,
            streams,
            setting: self.setting,
        })
    }
}

/// Takes a failed draft's parts into `draft`: its name is free meanwhile, so that who builds the layer again takes
/// nothing from under the command. Returns what to put on top of the base.
fn borrow(found: &FailedDraft, draft: &Path, form: Form) -> Result<Option<PathBuf>, Failure> {
    let from = Path::new("drafts").join(&found.name);
    if !from.join("u").exists() {
        let (step, message) = ("open the failed draft".to_owned(), "another shell has it open".to_owned());
        return Err(Failure { step, errno: None, message, users: true });
    }
    let (upper, beneath) = (draft.join("u"), draft.join(FAILED_UPPER));
    take(&from.join("u"), if found.itself { &upper } else { &beneath })?;
    // A run that failed before its sandbox was ready has none.
    if from.join(sandbox::STACKER).exists() {
        take(&from.join(sandbox::STACKER), &draft.join(FAILED_STACKER))?;
    }
    if found.itself {
        return Ok(None);
    }
    if let Form::Whole(_) = form {
        store::copy(&beneath, &upper)?;
        return Ok(None);
    }
    store::like(&beneath, &upper).map_err(|error| failed("prepare", &upper, error))?;
    Ok(Some(beneath))
}

/// Undoes [`borrow`], as far as it came, unless the draft has been removed because the layer was built again.
fn give_back(found: &FailedDraft, draft: &Path) -> Result<(), Failure> {
    let to = Path::new("drafts").join(&found.name);
    let upper = if found.itself { "u" } else { FAILED_UPPER };
    for (from, to) in [(upper, to.join("u")), (FAILED_STACKER, to.join(sandbox::STACKER))] {
        let from = draft.join(from);
        if to.parent().is_some_and(Path::exists) && !to.exists() && from.exists() {
            take(&from, &to)?;
        }
    }
    Ok(())
}

fn take(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(|error| failed("rename", from, error))
}
