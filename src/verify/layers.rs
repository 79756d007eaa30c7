//! Listings, deltas and trees, which must say the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Verify;
use super::files::{self, whole_listing, wrong_file};
use super::known::{Known, Layer};
use crate::database::Cause;
use crate::digest::{ChainId, DiffId};
use crate::error::{At, Error, Result};
use crate::pins::Pin;
use crate::place;
use crate::record::{LayerInfo, names};
use crate::worker::message::{Answer, Checked, Job, Sealed};

/// A listing by itself.
enum Listed {
    Missing,
    Wrong(String),
    Whole(LayerInfo),
}

/// What the deltas of a layer say of it and of its listing.
#[derive(Default)]
struct Deltas {
    any: bool,
    /// One agrees with the listing.
    fits: bool,
    /// Facts of one whose diff id was looked up, or that was read whole.
    facts: Option<Sealed>,
    /// The listing as a delta with the right diff id gives it, and how it differs.
    anew: Option<(NamedTempFile, Sealed, String)>,
    wrong: Vec<(ChainId, String)>,
}

impl Verify<'_> {
    /// Listings, with the deltas that they are of.
    pub(super) fn layers(&mut self, known: &Known) -> Result<()> {
        for (diff_id, layer) in &known.layers {
            self.layer(known, diff_id, layer)?;
        }
        Ok(())
    }

    fn layer(&mut self, known: &Known, diff_id: &DiffId, layer: &Layer) -> Result<()> {
        let listed = self.listed(diff_id);
        let row = self.database.layer(diff_id)?;
        let doubt = match (&listed, row) {
            (Listed::Whole(info), Some(row)) => LayerInfo { tar_bytes: row.tar_bytes, ..*info } != row,
            _ => false,
        };
        let whole = matches!(listed, Listed::Whole(_));
        let mut deltas = self.deltas(diff_id, layer, whole, self.deep || doubt || !whole)?;
        if matches!(listed, Listed::Missing) && !layer.ours {
            // A build that was killed while it unpacked leaves it so.
            deltas.wrong.clear();
        }
        for (stack, why) in std::mem::take(&mut deltas.wrong) {
            let path = place::delta(&stack);
            let done = self.set_directory_aside(&path, known.pins(&stack))?;
            self.damaged(format!("delta of {}", layer.of), &self.directories.roots.0.join(path), &why, done);
            deltas.wrong.push((stack, why));
        }
        if doubt
            && deltas.fits
            && let Some(sealed) = &deltas.facts
        {
            let why = format!("its row of {diff_id} is not what listing and delta say");
            self.database.put_layer(diff_id, &crate::execute::layer_info(sealed))?;
            self.damaged(format!("facts of {}", layer.of), &self.directories.stacker.database(), why, "written anew");
        }
        self.settle_listing(diff_id, layer, listed, doubt, deltas)
    }

    fn listed(&mut self, diff_id: &DiffId) -> Listed {
        let path = self.directories.stacker.listing(diff_id);
        if path.symlink_metadata().is_err() {
            return Listed::Missing;
        }
        self.report.checked.listings += 1;
        if let Some(why) = wrong_file(&path, self.owner, true) {
            return Listed::Wrong(why);
        }
        match whole_listing(&path) {
            Some((_, info)) => Listed::Whole(info),
            None => Listed::Wrong("is no whole listing".to_owned()),
        }
    }

    /// `whole`: there is nothing wrong with the listing by itself.
    fn deltas(&mut self, diff_id: &DiffId, layer: &Layer, whole: bool, deep: bool) -> Result<Deltas> {
        let mut found = Deltas::default();
        for stack in &layer.stacks {
            let path = self.directories.roots.delta(stack);
            if !path.exists() {
                continue;
            }
            let tmp = NamedTempFile::new_in(self.directories.stacker.tmp()).at("create a file in", "tmp")?;
            let out = tmp.as_file().try_clone().at("duplicate", tmp.path())?;
            let job = Job::CheckDelta { stack: *stack, diff_id: *diff_id, ours: layer.ours, deep };
            let Checked { difference, relisted } = self.check(job, vec![out.into()])?;
            if !path.exists() {
                // gc took it.
                continue;
            }
            self.report.checked.deltas += 1;
            found.any = true;
            let right = relisted.as_ref().is_some_and(|sealed| sealed.diff_id == Some(*diff_id));
            match (difference, relisted) {
                (None, Some(_)) if !right => found.wrong.push((*stack, "it has another diff id".to_owned())),
                // Of the right text, but in a file that is wrong.
                (None, Some(sealed)) if !whole => found.anew = Some((tmp, sealed, String::new())),
                (None, relisted) => {
                    found.fits = true;
                    found.facts = relisted.or(found.facts);
                }
                (Some(why), Some(sealed)) if right && layer.ours => found.anew = Some((tmp, sealed, why)),
                (Some(why), _) => found.wrong.push((*stack, why)),
            }
        }
        Ok(found)
    }

    /// A listing is right if a delta that is right says so.
    fn settle_listing(
        &mut self,
        diff_id: &DiffId,
        layer: &Layer,
        listed: Listed,
        doubt: bool,
        deltas: Deltas,
    ) -> Result<()> {
        let (path, what) = (self.directories.stacker.listing(diff_id), format!("listing of {}", layer.of));
        if let Some((tmp, sealed, difference)) = deltas.anew {
            self.write_listing(&path, tmp)?;
            self.database.put_layer(diff_id, &crate::execute::layer_info(&sealed))?;
            let done = "written anew from its delta";
            match listed {
                Listed::Missing => self.note(what, &path, "missing", done),
                Listed::Wrong(why) => self.damaged(what, &path, why, done),
                Listed::Whole(_) => self.damaged(what, &path, format!("as it says, {difference}"), done),
            }
            return Ok(());
        }
        let why = match listed {
            Listed::Missing => return self.nothing_left(diff_id, layer, &path, deltas.any && deltas.wrong.is_empty()),
            Listed::Wrong(why) => why,
            Listed::Whole(_) if deltas.fits => return Ok(()),
            Listed::Whole(_) if !deltas.wrong.is_empty() => {
                "no delta is left that could tell whether it is right".into()
            }
            Listed::Whole(_) if doubt => "it is not what the database says".to_owned(),
            Listed::Whole(_) => return self.nothing_left(diff_id, layer, &path, deltas.any),
        };
        self.wrong.insert(*diff_id);
        let done = self.set_file_aside("listing", &path, &layer.pins)?;
        self.damaged(what, &path, why, done);
        self.nothing_left(diff_id, layer, &path, false)
    }

    /// Tells of a layer that only its step can bring back.
    fn nothing_left(&mut self, diff_id: &DiffId, layer: &Layer, listing: &Path, delta: bool) -> Result<()> {
        let mut blobs = self.database.tars(diff_id)?.into_iter();
        if layer.ours && !delta {
            let (why, done) = match blobs.any(|blob| self.directories.stacker.blob(&blob).exists()) {
                true => ("its delta is missing", "made again from its blob when it is needed"),
                false => {
                    self.lost(diff_id, layer)?;
                    ("neither its delta nor its blob is there", "its step runs again when it is needed")
                }
            };
            self.note(format!("layer of {}", layer.of), listing, why, done);
        }
        Ok(())
    }

    /// Writes down that nothing is left of a layer: it was damaged, if any of it was, else it is missing.
    fn lost(&self, diff_id: &DiffId, layer: &Layer) -> Result<()> {
        let (stacker, roots) = (&self.directories.stacker, &self.directories.roots);
        let blobs = self.database.blobs(diff_id)?;
        let mut paths: Vec<PathBuf> = blobs.iter().map(|blob| stacker.blob(blob)).collect();
        paths.extend(layer.stacks.iter().map(|stack| roots.delta(stack)));
        paths.push(stacker.listing(diff_id));
        let damaged = self.report.damaged.iter().any(|found| paths.contains(&found.path));
        let cause = if damaged { Cause::Damaged } else { Cause::Missing };
        let keys = layer.pins.iter().filter_map(|pin| if let Pin::Result(key) = pin { Some(key) } else { None });
        keys.into_iter().try_for_each(|key| self.database.note_lost(key, &cause))
    }

    /// Puts a listing that is proven right in the place of what is there, at no moment of which there is none.
    fn write_listing(&self, path: &Path, tmp: NamedTempFile) -> Result<()> {
        fs::set_permissions(tmp.path(), Permissions::from_mode(0o644)).at("chmod", tmp.path())?;
        // What cannot be copied (a directory, another user's file) is moved.
        match files::copy_aside(&self.directories.stacker, "listing", path) {
            Err(_) if path.symlink_metadata().is_ok() => {
                files::set_aside(&self.directories.stacker, "listing", path)?;
            }
            _ => {}
        }
        tmp.persist(path).map(drop).map_err(|error| error.error).at("rename", path)
    }

    /// Trees, with the view of the stack that they are of. Of what stack nobody knows is gc's.
    pub(super) fn trees(&mut self, known: &Known) -> Result<()> {
        let directory = self.directories.roots.0.join("trees");
        for name in names(&directory).unwrap_or_default() {
            let Some(chain) = known.stack(&name) else { continue };
            self.report.checked.trees += 1;
            let path = directory.join(&name);
            let missing = chain.0.iter().find(|diff_id| !self.directories.stacker.listing(diff_id).exists());
            let difference = match missing {
                None => self.check(Job::CheckTree { chain: chain.clone(), deep: self.deep }, vec![])?.difference,
                Some(diff_id) if self.wrong.contains(diff_id) => Some(format!("its layer {diff_id} was damaged")),
                Some(_) => {
                    let what = format!("tree of {}", known.of(chain));
                    self.note(what, &path, "cannot be compared without the listings of its layers", "left as it is");
                    continue;
                }
            };
            let Some(why) = difference.filter(|_| path.exists()) else { continue };
            let id = chain.id();
            let done = self.set_directory_aside(&place::tree(&id), known.pins(&id))?;
            self.damaged(format!("tree of {}", known.of(chain)), &path, why, done);
        }
        Ok(())
    }

    fn check(&self, job: Job, descriptors: Vec<std::os::fd::OwnedFd>) -> Result<Checked> {
        match self.job(job, descriptors)? {
            Answer::Checked(checked) => Ok(checked),
            other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
        }
    }
}
