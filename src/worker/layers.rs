//! Layers from tars, and tars from layers.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::action::Ids;
use crate::commit_point::CommitPoint;
use crate::compress::{Encoder, decoder};
use crate::digest::{BlobDigest, Chain, ChainId, ContentDigest, DiffId};
use crate::layer_type::LayerType;
use crate::listing::Stack;
use crate::place;
use crate::seal::failure::{library, machine, users};
use crate::seal::{Owners, Recorded, seal_unpacked, tar};
use crate::store::trash;
use crate::unpack::{Whiteouts, list_onto, unpack_onto};

use super::hashed::{Content, Hashed};
use super::message::{Answer, Compression, Failure, LayerJob, Sealed};
use super::{Files, Purpose, Worker, failed};

impl Worker<'_> {
    /// A layer of an image: both its digests are checked before it gets its place.
    pub(super) fn unpack_layer(&self, job: &LayerJob, files: &mut Files) -> Result<Sealed, Failure> {
        let (source, mut listing) = (files.next_file()?, files.next_file()?);
        let lower = self.stack(&job.parent)?;
        let draft = self.store.new_draft(&job.draft, Purpose::Unpack(&job.parent))?;
        CommitPoint::DraftMade.reached();
        let (upper, marks) = (draft.join("u"), self.store.form().marks());
        let mut owners = Recorded::new();
        let recorded = self.records_owners().then_some(&mut owners);
        let warnings = read_layer(source, job, |tar| {
            unpack_onto(tar, &upper, Whiteouts::Oci(marks), &lower, job.max_size, recorded)
        })?;
        CommitPoint::Unpacked.reached();
        let mut sealed = seal_unpacked(&upper, Some(job.diff_id), marks, self.owners(&owners), &mut listing)?;
        sealed.warnings.splice(0..0, warnings);
        self.keep_delta(&draft, job.parent.id(), &sealed, listing)?;
        Ok(sealed)
    }

    /// The listing alone of a layer of an image, both of whose digests are checked. The draft is for trials.
    pub(super) fn list_layer(&self, job: &LayerJob, files: &mut Files) -> Result<Sealed, Failure> {
        let (source, mut listing) = (files.next_file()?, files.next_file()?);
        let lower = self.stack(&job.parent)?;
        let draft = self.store.new_draft(&job.draft, Purpose::Import)?;
        CommitPoint::DraftMade.reached();
        let (trial, ids) = (draft.join("u"), self.setting.ids);
        let listed = read_layer(source, job, |tar| list_onto(tar, &trial, &lower, job.max_size, ids))?;
        let sealed = listed.seal(job.diff_id, &mut listing)?;
        trash::remove_path(&draft)?;
        Ok(sealed)
    }

    /// A tar base becomes a layer of its own, with our tar of it. `None`: the tar is something else than `content`.
    pub(super) fn unpack_tar(
        &self,
        (content, in_store): (ContentDigest, Option<Vec<u8>>),
        draft: &str,
        max_size: u64,
        files: &mut Files,
    ) -> Result<Option<Sealed>, Failure> {
        let source = match in_store {
            Some(path) => open_file(Path::new(OsStr::from_bytes(&path)))?,
            None => files.next_file()?,
        };
        let mut listing = files.next_file()?;
        let draft = self.store.new_draft(draft, Purpose::Unpack(&Chain::default()))?;
        CommitPoint::DraftMade.reached();
        let read = |error| machine("read the tar of", b"", error);
        let mut raw = Content::new(source);
        let mut owners = Recorded::new();
        let recorded = self.records_owners().then_some(&mut owners);
        let unpacked = decoder(&mut raw).map_err(read).and_then(|(decoder, _)| {
            unpack_onto(decoder, &draft.join("u"), Whiteouts::Literal, &Stack::default(), max_size, recorded)
        });
        io::copy(&mut raw, &mut io::sink()).map_err(read)?;
        // That explains every other failure.
        if raw.finish() != content {
            trash::remove_path(&draft)?;
            return Ok(None);
        }
        let warnings = unpacked?;
        CommitPoint::Unpacked.reached();
        let marks = self.store.form().marks();
        let mut sealed = seal_unpacked(&draft.join("u"), None, marks, self.owners(&owners), &mut listing)?;
        sealed.warnings.splice(0..0, warnings);
        self.keep_delta(&draft, ChainId::SCRATCH, &sealed, listing)?;
        Ok(Some(sealed))
    }

    /// Owners that archives name are for the listing only.
    fn records_owners(&self) -> bool {
        self.setting.ids == Ids::Single
    }

    fn owners<'a>(&self, recorded: &'a Recorded) -> Owners<'a> {
        if self.records_owners() { Owners::Recorded(recorded) } else { Owners::OnDisk }
    }

    /// The tar of the topmost layer from which a file system is made.
    pub(super) fn archive(&self, chain: &Chain, kind: LayerType, files: &mut Files) -> Result<Answer, Failure> {
        let out = files.next_file()?;
        let Some(top) = chain.0.last() else { return Err(users("pack", b"", "there is no layer")) };
        let listing = self.listing(top)?;
        tar::write_for(kind, &listing, &place::delta(&chain.id()), out)
            .map(Answer::Archived)
            .map_err(|error| library("write the tar of a layer", error))
    }

    /// The blob of the topmost layer.
    pub(super) fn pack(&self, chain: &Chain, compression: Compression, files: &mut Files) -> Result<Answer, Failure> {
        let out = files.next_file()?;
        let Some(top) = chain.0.last() else { return Err(users("pack", b"", "there is no layer")) };
        let written = |error| machine("write the blob of", b"", error);
        let mut encoder = Encoder::new(compression, Hashed::new(out)).map_err(written)?;
        let mut plain = Hashed::new(&mut encoder);
        let listing = self.listing(top)?;
        tar::write(&listing, &place::delta(&chain.id()), &mut plain)
            .map_err(|error| library("write the layer tar", error))?;
        let diff_id = DiffId(plain.finish().0);
        let (blob, size) = encoder.finish().map_err(written)?.finish();
        CommitPoint::Packed.reached();
        Ok(Answer::Packed { blob: BlobDigest(blob), size, diff_id })
    }
}

/// Reads the whole blob of a layer by `read`, which is given its tar. A blob that is not what its digests say is the
/// failure, since that explains every other one.
fn read_layer<T>(
    source: File,
    &LayerJob { diff_id, blob, .. }: &LayerJob,
    read: impl FnOnce(&mut dyn Read) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let failed = |error| machine("read the blob of", b"", error);
    let mut raw = Hashed::new(source);
    let (decoder, _) = decoder(&mut raw).map_err(failed)?;
    let mut plain = Hashed::new(decoder);
    let result = read(&mut plain);
    let drained = io::copy(&mut plain, &mut io::sink());
    let found = DiffId(plain.finish().0);
    let rest = io::copy(&mut raw, &mut io::sink());
    let found_blob = BlobDigest(raw.finish().0);
    rest.map_err(failed)?;
    if found_blob != blob {
        return Err(users("unpack", b"", format!("the blob {blob} is damaged: its bytes have digest {found_blob}")));
    }
    let result = result?;
    drained.map_err(failed)?;
    if found != diff_id {
        let why = format!("the layer {blob} is not what its image says: its diff id is {found}, not {diff_id}");
        return Err(users("unpack", b"", why));
    }
    Ok(result)
}

/// A file of a layer. In a store that is damaged it may be something else, which is not to be waited for.
fn open_file(path: &Path) -> Result<File, Failure> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|error| failed("open", path, error.into()))?;
    Ok(file.into())
}
