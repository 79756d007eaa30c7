//! Running a script on its base and sealing what it changed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::commit_point::CommitPoint;
use crate::listing::Stack;
use crate::seal::delta::{mtime, stat};
use crate::seal::failure::library;
use crate::seal::{Times, dress_root, seal};

use super::message::{Answer, BindMount, Failure, JOB_FILE, RunJob};
use super::sandbox::{self, Sandbox};
use super::{Files, Purpose, Worker, failed, staged};

impl Worker<'_> {
    /// The draft of a script that fails stays, for a person to look into.
    pub(super) fn run(&self, job: RunJob, files: &mut Files) -> Result<Answer, Failure> {
        let (output, mut listing) = (files.next()?, files.next_file()?);
        let binds = binds(&job, files)?;
        let lower = self.stack(&job.parent)?;
        let draft = self.store.new_draft(&job.draft, Purpose::Run(&job.parent))?;
        CommitPoint::DraftMade.reached();
        // Before there is a failure, which may be that the disk is full.
        note_job(&job, &draft)?;
        CommitPoint::JobNoted.reached();
        let upper = draft.join("u");
        // The file system's clock, which is the one that stamps what the script writes.
        let note = draft.join(JOB_FILE);
        let upper_made = mtime(&stat(&note).map_err(|error| failed("stat", &note, error))?);
        let root = lower.lookup(b"").map_err(|error| library("read listings", error))?;
        dress_root(&upper, root.as_ref(), self.setting.ids)?;
        let code = self.in_sandbox(&job, &draft, &lower, &binds, output)?;
        CommitPoint::ScriptEnded.reached();
        if code != 0 {
            return Ok(Answer::RunFailed { code });
        }
        let times = Times::Clamp { newest: job.newest, time: job.time, upper_made };
        let sealed = seal(&upper, &lower, self.store.form(), times, self.setting.ids, &mut listing)?;
        self.keep_delta(&draft, job.parent.id(), &sealed, listing)?;
        Ok(Answer::Sealed(sealed))
    }

    fn in_sandbox(
        &self,
        job: &RunJob,
        draft: &Path,
        base: &Stack,
        binds: &[(BindMount, OwnedFd)],
        output: OwnedFd,
    ) -> Result<i32, Failure> {
        let mounts: Vec<(String, PathBuf)> =
            job.mounts.iter().map(|(place, name)| (place.clone(), staged(name))).collect();
        sandbox::run(Sandbox {
            layer: &job.layer,
            script: &job.script,
            command: &[sandbox::SCRIPT.to_owned()],
            environment: &job.environment,
            lowers: self.mounted(&self.lowers(&job.parent)),
            draft,
            left: None,
            mounts: &mounts,
            binds,
            inside: &[],
            network: job.network,
            base,
            streams: sandbox::Streams::Output(output),
            setting: self.setting,
        })
    }
}

/// Each bind with its descriptor.
pub(super) fn binds(job: &RunJob, files: &mut Files) -> Result<Vec<(BindMount, OwnedFd)>, Failure> {
    job.binds.iter().map(|bind| Ok((bind.clone(), files.next()?))).collect()
}

/// Writes down what a draft is made for, should somebody want to open it after a failure.
fn note_job(job: &RunJob, draft: &Path) -> Result<(), Failure> {
    let path = draft.join(JOB_FILE);
    let text = serde_json::to_vec(job).map_err(std::io::Error::from);
    text.and_then(|text| std::fs::write(&path, text)).map_err(|error| failed("write", &path, error))
}
