//! `stacker grab`: copies a file or a directory out of a layer, for whoever calls.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{At, Error, Result};
use crate::execute::Site;
use crate::holder::Holder;
use crate::shell::{Request, find_layer, heeding_signals};
use crate::worker::message::{Answer, Job};

/// Copies `path` of the layer to its last name in the working directory: a regular file there is replaced at once and as
/// a whole, anything else is left alone.
pub fn grab(request: &Request, path: &str, holder: Holder) -> Result<()> {
    let name = Path::new(path).file_name().ok_or_else(|| {
        Error::Usage(format!("grab: {path:?} has no last name that the copy could have here: name something below it"))
    })?;
    let working = &request.directories.working;
    let target = working.join(name);
    if fs::symlink_metadata(&target).is_ok_and(|found| !found.is_file()) {
        return Err(taken(&target));
    }
    let ((site, run, _), _) = find_layer(request, holder)?;
    let found = site.listings(&run.parent)?.resolve(path.trim_matches('/').as_bytes(), true)?;
    if found.entry.is_none() {
        let layer = &run.layer;
        return Err(Error::Build(format!("{layer}:{path}: no such file or directory in layer {layer}")));
    }
    site.ready()?;
    let beside =
        tempfile::Builder::new().prefix(".stacker-grab-").tempdir_in(working).at("make a directory in", working)?;
    let job = Job::Grab { chain: run.parent, path: found.path, name: site.unique() };
    heeding_signals(&site, || copy(&site, job, beside.path()))?;
    put(&beside.path().join("t"), &target)
}

/// Unpacks what a worker packs. It is its answer that counts, unless it only says that nobody listened any longer.
fn copy(site: &Arc<Site>, job: Job, into: &Path) -> Result<()> {
    let (tar, output) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from).at("make a pipe to", into)?;
    let pending = site.holder.submit(job, vec![output])?;
    let unpacked = tar::Archive::new(BufReader::new(File::from(tar))).unpack(into).at("write to", into);
    match pending.wait()? {
        Answer::Done => unpacked,
        Answer::Failed(failure) if failure.errno == Some(Errno::EPIPE as i32) => unpacked,
        Answer::Failed(failure) if failure.users => Err(Error::Build(format!("{}: {}", failure.step, failure.message))),
        Answer::Failed(failure) => Err(site.fault(&failure)),
        other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
    }
}

fn put(from: &Path, to: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(from).at("read", from)?;
    if !metadata.is_dir() {
        return match fs::rename(from, to) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => Err(taken(to)),
            other => other.at("rename to", to),
        };
    }
    // Only a directory that may be written to can get another place.
    let mode = metadata.mode() & 0o777;
    fs::set_permissions(from, Permissions::from_mode(mode | 0o700)).at("change the mode of", from)?;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) => return Err(taken(to)),
        other => other.map_err(io::Error::from).at("rename to", to)?,
    }
    fs::set_permissions(to, Permissions::from_mode(mode)).at("change the mode of", to)
}

fn taken(target: &Path) -> Error {
    Error::Build(format!("{} exists, and only a regular file is replaced: move it away", target.display()))
}
