//! Blobs on demand: the layers of images as compressed tars, or as file systems.

use std::collections::HashMap;
use std::fs::File;

use crate::commit_point::CommitPoint;
use crate::digest::{BlobDigest, Chain, DiffId};
use crate::error::{At, Error, Result};
use crate::layer_type::{LayerType, Maker, Packing};
use crate::place;
use crate::progress::Event;
use crate::seal::tar::Told;
use crate::worker::hashed::Hashed;
use crate::worker::message::{Answer, Compression, Job};

use super::site::{BlobPlace, Lost, Site, readable_by_workers};

impl Site {
    /// Writes the blob of the topmost layer of `chain` into the store.
    pub fn pack(
        &self,
        chain: &Chain,
        packing: &Packing,
        blobs: &HashMap<DiffId, BlobPlace>,
    ) -> Result<(BlobDigest, u64), Lost> {
        match packing {
            Packing::Tar(compression) => self.pack_tar(chain, *compression, blobs),
            Packing::FileSystem(maker) => self.pack_file_system(chain, maker, blobs),
        }
    }

    fn pack_tar(
        &self,
        chain: &Chain,
        compression: Compression,
        blobs: &HashMap<DiffId, BlobPlace>,
    ) -> Result<(BlobDigest, u64), Lost> {
        let (tmp, blob, size) = self.packed(chain, compression, blobs)?;
        self.keep_blob(tmp, &blob)?;
        Ok((blob, size))
    }

    /// The blob of the topmost layer of `chain`, in a file that nobody else knows.
    pub fn packed(
        &self,
        chain: &Chain,
        compression: Compression,
        blobs: &HashMap<DiffId, BlobPlace>,
    ) -> Result<(tempfile::NamedTempFile, BlobDigest, u64), Lost> {
        self.have_delta(chain, blobs)?;
        let tmp = self.tmp_file()?;
        let output = tmp.as_file().try_clone().at("duplicate", tmp.path())?;
        let job = Job::Pack { chain: chain.clone(), compression };
        match self.job(job, vec![output.into()])? {
            Answer::Packed { blob, size, diff_id } if chain.0.last() == Some(&diff_id) => Ok((tmp, blob, size)),
            // The delta is not what its listing says: build it again rather than export it.
            Answer::Packed { .. } => {
                self.remove(vec![place::delta(&chain.id()).to_string_lossy().into_owned()])?;
                Err(Lost::Evicted(chain.id()))
            }
            other => Err(Lost::Error(Error::Machine(format!("a worker answered out of turn: {other:?}")))),
        }
    }

    fn keep_blob(&self, tmp: tempfile::NamedTempFile, blob: &BlobDigest) -> Result<()> {
        let path = self.stacker.blob(blob);
        readable_by_workers(tmp.path())?;
        tmp.persist(&path).map_err(|error| error.error).at("rename", &path)?;
        CommitPoint::BlobNamed.reached();
        Ok(())
    }

    /// The tar from which a file system is made.
    fn archive(
        &self,
        chain: &Chain,
        kind: LayerType,
        blobs: &HashMap<DiffId, BlobPlace>,
    ) -> Result<(tempfile::NamedTempFile, Told), Lost> {
        self.have_delta(chain, blobs)?;
        let tar = self.tmp_file()?;
        let output = tar.as_file().try_clone().at("duplicate", tar.path())?;
        match self.job(Job::Archive { chain: chain.clone(), kind }, vec![output.into()])? {
            Answer::Archived(told) => Ok((tar, told)),
            other => Err(Error::Machine(format!("a worker answered out of turn: {other:?}")).into()),
        }
    }

    /// The same as a file system, also of a layer of a base image.
    fn pack_file_system(
        &self,
        chain: &Chain,
        maker: &Maker,
        blobs: &HashMap<DiffId, BlobPlace>,
    ) -> Result<(BlobDigest, u64), Lost> {
        let (mut tar, mut told) = self.archive(chain, maker.kind(), blobs)?;
        if told.damaged.is_some() {
            // The delta is not what its listing says: make it again rather than export it.
            self.remove(vec![place::delta(&chain.id()).to_string_lossy().into_owned()])?;
            (tar, told) = self.archive(chain, maker.kind(), blobs)?;
        }
        if told.damaged.is_some() {
            return Err(Lost::Evicted(chain.id()));
        }
        if let Some(first) = told.lost.first() {
            let (count, kind) = (told.lost.len(), maker.kind().name());
            self.tell(Event::Warning(format!(
                "{count} attributes of files that {kind} cannot hold are not in the image (the first is {first})"
            )));
        }
        let tmp = self.tmp_file()?;
        maker.make(File::open(tar.path()).at("open", tar.path())?, &told.root, tmp.path())?;
        // The program may have made the file anew.
        let mut made = Hashed::new(File::open(tmp.path()).at("open", tmp.path())?);
        std::io::copy(&mut made, &mut std::io::sink()).at("read", tmp.path())?;
        let (digest, size) = made.finish();
        self.keep_blob(tmp, &BlobDigest(digest))?;
        Ok((BlobDigest(digest), size))
    }
}
