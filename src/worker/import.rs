//! `dest` imports and `overlay_dirs`: a staged tree becomes a layer of its own.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::action::Ids;
use crate::commit_point::CommitPoint;
use crate::digest::Chain;
use crate::listing::{Entry, Kind, Time, View, join, scratch_root};
use crate::seal::delta::{dress, within};
use crate::seal::failure::{library, machine};
use crate::seal::{Form, Times, dress_root, seal};
use crate::text::escape;

use super::message::{Failure, Sealed};
use super::{Files, Purpose, Worker, failed, staged, trash};

impl Worker<'_> {
    /// Moves the staged tree to its place in a fresh upper and seals that. Directories that the base has already keep
    /// their mode, owner and attributes: importing into `/tmp` does not close it.
    pub(super) fn import(
        &self,
        parent: &Chain,
        name: &str,
        dest: &[u8],
        time: i64,
        draft: &str,
        files: &mut Files,
    ) -> Result<Sealed, Failure> {
        let mut listing = files.next_file()?;
        let (lower, ids) = (self.stack(parent)?, self.setting.ids);
        let draft = self.store.new_draft(draft, Purpose::Import)?;
        CommitPoint::DraftMade.reached();
        let upper = draft.join("u");
        let root = lower.lookup(b"").map_err(|error| library("read listings", error))?;
        let source = staged(name);
        let mut replaced = Vec::new();
        if dest.is_empty() {
            fs::remove_dir(&upper).map_err(|error| failed("remove", &upper, error))?;
            rename(&source, &upper).map_err(|error| failed("rename", &source, error))?;
            dress_root(&upper, root.as_ref(), ids)?;
            keep_known(&upper, b"", &lower.root(), ids, &mut replaced)?;
        } else {
            dress_root(&upper, root.as_ref(), ids)?;
            let place = place(&upper, dest, &lower.root(), time, ids)?;
            rename(&source, &within(&upper, dest)).map_err(|error| machine("import", dest, error))?;
            let known = place.filter(|view| view.exists());
            if let Some(view) = known {
                keep_itself(&upper, dest, &view, ids)?;
                keep_known(&upper, dest, &view, ids, &mut replaced)?;
            }
        }
        CommitPoint::ImportMoved.reached();
        trash::remove(&[format!("imports/{name}")])?;
        let form = Form::Changes(self.store.form().marks());
        let mut sealed = seal(&upper, &lower, form, Times::All(time), ids, &mut listing)?;
        replaced.sort();
        sealed.warnings.append(&mut replaced);
        self.keep_delta(&draft, parent.id(), &sealed, listing)?;
        Ok(sealed)
    }
}

/// Who is not root may move only directories that they can write to.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let looks = from.symlink_metadata()?;
    if !looks.is_dir() || looks.mode() & 0o200 != 0 {
        return fs::rename(from, to);
    }
    fs::set_permissions(from, Permissions::from_mode(looks.mode() | 0o200))?;
    fs::rename(from, to)?;
    fs::set_permissions(to, looks.permissions())
}

/// Makes the directories that lead to `dest`, as they are in the base; the directory of the base at `dest` itself.
fn place<'a>(upper: &Path, dest: &[u8], root: &View<'a>, time: i64, ids: Ids) -> Result<Option<View<'a>>, Failure> {
    let mut view = root.clone();
    let mut path = Vec::new();
    let names: Vec<&[u8]> = dest.split(|&byte| byte == b'/').collect();
    for (index, name) in names.iter().enumerate() {
        path = join(&path, name);
        view = view.directory(name).map_err(|error| library("read listings", error))?;
        if index + 1 == names.len() {
            break;
        }
        let full = within(upper, &path);
        fs::create_dir(&full).map_err(|error| machine("create", &path, error))?;
        let known = view.itself().map_err(|error| library("read listings", error))?.map(|lower| lower.entry);
        let entry = known.unwrap_or(Entry { mtime: Time::from_seconds(time), path: path.clone(), ..scratch_root() });
        dress(&full, &entry, ids).map_err(|error| machine("prepare", &path, error))?;
    }
    Ok(Some(view))
}

/// A directory of the upper that the base has too gets the base's looks.
fn keep_itself(upper: &Path, path: &[u8], view: &View, ids: Ids) -> Result<(), Failure> {
    let full = within(upper, path);
    if !full.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    match view.itself().map_err(|error| library("read listings", error))?.map(|lower| lower.entry) {
        Some(entry) if matches!(entry.kind, Kind::Directory { .. }) => {
            dress(&full, &entry, ids).map_err(|error| machine("prepare", path, error))
        }
        _ => Ok(()),
    }
}

/// The same for all directories below. Links of the base in whose place there is a directory now are told.
fn keep_known(upper: &Path, path: &[u8], view: &View, ids: Ids, replaced: &mut Vec<String>) -> Result<(), Failure> {
    let full = within(upper, path);
    if !full.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    for item in fs::read_dir(&full).map_err(|error| machine("read", path, error))? {
        use std::os::unix::ffi::OsStrExt;
        let item = item.map_err(|error| machine("read", path, error))?;
        if !item.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = item.file_name();
        let child = join(path, name.as_bytes());
        let below = view.directory(name.as_bytes()).map_err(|error| library("read listings", error))?;
        if below.exists() {
            keep_itself(upper, &child, &below, ids)?;
            keep_known(upper, &child, &below, ids, replaced)?;
            continue;
        }
        let known = view.child(name.as_bytes()).map_err(|error| library("read listings", error))?;
        if let Some(Kind::Symlink { target }) = known.map(|lower| lower.entry.kind) {
            let (child, target) = (escape(&child), escape(&target));
            replaced.push(format!("/{child}, a link to {target} in the base, is replaced by a directory"));
        }
    }
    Ok(())
}
