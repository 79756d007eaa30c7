//! `generate_labels`: a script run in a root filesystem that nobody keeps, and the files that it leaves as labels.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};

use crate::seal::dress_root;
use crate::seal::failure::{library, machine, users};

use super::message::{Answer, Failure, RunJob};
use super::sandbox::{self, Sandbox};
use super::{Files, Purpose, Worker, failed, staged, trash};

/// Where in `/stacker` they are left.
const DIRECTORY: &str = "oci-labels";

/// Bytes that all names and values may have together: every tool that reads the image holds them in memory.
const MOST: usize = 1 << 20;

impl Worker<'_> {
    /// The draft is gone afterwards, whatever happened.
    pub(super) fn labels(&self, job: RunJob, files: &mut Files) -> Result<Answer, Failure> {
        // The sandbox hears of it all the same; it must not end this process before the draft is gone.
        let held = SigSet::from(Signal::SIGTERM).thread_block();
        held.map_err(|error| failed("hold signals back for", Path::new(&job.draft), error.into()))?;
        let output = files.next()?;
        let draft = self.store.new_draft(&job.draft, Purpose::Run(&job.parent))?;
        let answer = self.generate(&job, &draft, output);
        let removed = trash::remove(&[draft.to_string_lossy().into_owned()]);
        let answer = answer?;
        removed.map(|()| answer)
    }

    fn generate(&self, job: &RunJob, draft: &Path, output: OwnedFd) -> Result<Answer, Failure> {
        let base = self.stack(&job.parent)?;
        let root = base.lookup(b"").map_err(|error| library("read listings", error))?;
        dress_root(&draft.join("u"), root.as_ref(), self.setting.ids)?;
        let mounts: Vec<_> = job.mounts.iter().map(|(place, name)| (place.clone(), staged(name))).collect();
        let code = sandbox::run(Sandbox {
            layer: &job.layer,
            script: &job.script,
            command: &[sandbox::SCRIPT.to_owned()],
            environment: &job.environment,
            lowers: self.mounted(&self.lowers(&job.parent)),
            draft,
            left: None,
            mounts: &mounts,
            binds: &[],
            inside: &[DIRECTORY],
            network: job.network,
            base: &base,
            streams: sandbox::Streams::Output(output),
            setting: self.setting,
        })?;
        match code {
            0 => read(&draft.join(sandbox::STACKER).join(DIRECTORY)).map(Answer::Labels),
            code => Ok(Answer::RunFailed { code }),
        }
    }
}

/// The files of a directory that a script has filled: no link in it leads anywhere.
fn read(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(CWD, path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(labels),
        Err(_) => return Err(wrong("", "is no longer a directory")),
        Ok(directory) => directory,
    };
    let mut left = MOST;
    for entry in Dir::read_from(&directory).map_err(|error| machine("read", DIRECTORY.as_bytes(), error.into()))? {
        let entry = entry.map_err(|error| machine("read", DIRECTORY.as_bytes(), error.into()))?;
        let bytes = entry.file_name().to_bytes();
        if matches!(bytes, b"." | b"..") {
            continue;
        }
        let shown = String::from_utf8_lossy(bytes);
        let name = std::str::from_utf8(bytes).map_err(|_| wrong(&shown, "has a name that is not UTF-8"))?;
        let content = content(&directory, &entry, left).map_err(|why| wrong(&shown, &why))?;
        let size = name.len() + content.len();
        left = left
            .checked_sub(size)
            .ok_or_else(|| users("generate labels", b"", format!("they have more than {} MiB in all", MOST >> 20)))?;
        let content = String::from_utf8(content).map_err(|_| wrong(&shown, "is not UTF-8"))?;
        labels.insert(name.to_owned(), content);
    }
    Ok(labels)
}

/// No more of it than says that it is too much.
fn content(directory: &OwnedFd, entry: &rustix::fs::DirEntry, left: usize) -> Result<Vec<u8>, String> {
    // Nobody waits for the other side of a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || -> io::Result<Option<File>> {
        let file = match openat(directory, entry.file_name(), flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(None),
            other => File::from(other?),
        };
        Ok(file.metadata()?.is_file().then_some(file))
    };
    let Some(file) = open().map_err(|error| format!("cannot be read: {error}"))? else {
        return Err("is no file".to_owned());
    };
    let mut content = Vec::new();
    file.take(left as u64 + 1).read_to_end(&mut content).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(content)
}

fn wrong(name: &str, why: &str) -> Failure {
    let slash = if name.is_empty() { "" } else { "/" };
    let message = format!("/stacker/{DIRECTORY}{slash}{name} {why}, so it cannot be a label");
    Failure { step: "generate labels".to_owned(), errno: None, message, users: true }
}
