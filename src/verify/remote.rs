//! Copies of files from servers, which are named by their content.

use std::collections::HashMap;
use std::path::Path;

use super::Verify;
use super::files::wrong_file;
use crate::digest::BlobDigest;
use crate::error::Result;
use crate::pins::Pin;
use crate::record::names;
use crate::remote::{COPY, Note};
use crate::resolve::sha256_file;

impl Verify<'_> {
    /// The size that a note knows; with `deep`, the digest that is their name.
    pub(super) fn copies(&mut self) -> Result<()> {
        let directory = self.directories.stacker.remote();
        let names = names(&directory)?;
        let notes = names.iter().filter_map(|name| Note::read(&directory.join(name)));
        let notes: HashMap<BlobDigest, Note> = notes.map(|note| (note.sha256, note)).collect();
        for name in names {
            let digest = name.strip_prefix(COPY).and_then(|hex| format!("sha256:{hex}").parse::<BlobDigest>().ok());
            let Some(digest) = digest else { continue };
            let (path, note) = (directory.join(&name), notes.get(&digest));
            self.report.checked.copies += 1;
            let Some(why) = self.wrong_copy(&path, &digest, note.map(|note| note.size)) else { continue };
            let done = self.set_file_aside("copy", &path, &[Pin::Remote(digest)])?;
            let of = note.map_or("a file that a `hash` names", |note| &note.url);
            self.damaged(format!("copy of {of}"), &path, why, done);
        }
        Ok(())
    }

    fn wrong_copy(&self, path: &Path, digest: &BlobDigest, size: Option<u64>) -> Option<String> {
        if let Some(why) = wrong_file(path, self.owner, false) {
            return Some(why);
        }
        // Removed meanwhile, by gc: nothing is wrong.
        let found = path.metadata().ok()?.len();
        if let Some(size) = size.filter(|size| *size != found) {
            return Some(format!("{found} bytes, should be {size}"));
        }
        if !self.deep {
            return None;
        }
        match sha256_file(path).map(BlobDigest) {
            Err(_) if !path.exists() => None,
            Err(error) => Some(error.to_string()),
            Ok(found) => (found != *digest).then(|| format!("its bytes have the digest {found}")),
        }
    }
}
