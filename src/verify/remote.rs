//! Copies of files from servers, which are named by their content.

use std::collections::HashMap;

use super::Verify;
use crate::digest::BlobDigest;
use crate::error::Result;
use crate::pins::Pin;
use crate::record::names;
use crate::remote::{COPY, Note};

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
            let Some(why) = self.wrong_blob(&path, &digest, note.map(|note| note.size)) else { continue };
            let done = self.set_file_aside("copy", &path, &[Pin::Remote(digest)])?;
            let of = note.map_or("a file that a `hash` names", |note| &note.url);
            self.damaged(format!("copy of {of}"), &path, why, done);
        }
        Ok(())
    }
}
