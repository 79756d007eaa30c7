//! What lies at a path of a layer, as a tar: the main process writes it anew as its caller, who may read no file of another
//! id.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::digest::Chain;
use crate::listing::{Entry, Kind, join};
use crate::seal::delta::within;
use crate::seal::failure::{machine, users};

use super::message::Failure;
use super::stage::describe;
use super::{Files, Worker, failed};

impl Worker<'_> {
    pub(super) fn grab(&self, chain: &Chain, path: &[u8], name: &str, files: &mut Files) -> Result<(), Failure> {
        let output = files.next_file()?;
        let directory = Path::new("imports").join(name);
        fs::create_dir(&directory).map_err(|error| failed("create", &directory, error))?;
        let written = self.with_view(chain, &directory, |root| write(&within(root, path), path, output));
        let removed = fs::remove_dir(&directory).map_err(|error| failed("remove", &directory, error));
        written.and(removed)
    }
}

/// Nothing is written before all of it is known to be what can be copied.
fn write(from: &Path, path: &[u8], output: File) -> Result<(), Failure> {
    let named = |entry: &Entry| if entry.path.is_empty() { path.to_vec() } else { join(path, &entry.path) };
    let mut entries = Vec::new();
    describe(from, b"", &mut entries)?;
    if let Some(pipe) = entries.iter().find(|entry| entry.kind == Kind::Fifo) {
        return Err(users("copy", &named(pipe), "is a named pipe, which cannot be copied"));
    }
    let mut tar = tar::Builder::new(BufWriter::new(output));
    for entry in &entries {
        append(&mut tar, from, entry).map_err(|error| machine("copy", &named(entry), error))?;
    }
    tar.into_inner().and_then(|mut output| output.flush()).map_err(|error| machine("copy", path, error))
}

fn append(tar: &mut tar::Builder<impl Write>, from: &Path, entry: &Entry) -> io::Result<()> {
    let name = if entry.path.is_empty() { b"t".to_vec() } else { join(b"t", &entry.path) };
    let name = PathBuf::from(std::ffi::OsStr::from_bytes(&name));
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_mtime(entry.mtime.seconds.max(0) as u64);
    header.set_size(0);
    match &entry.kind {
        Kind::Symlink { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, std::ffi::OsStr::from_bytes(target))
        }
        Kind::File { size, .. } => {
            header.set_size(*size);
            tar.append_data(&mut header, name, File::open(within(from, &entry.path))?.take(*size))
        }
        _ => {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, name, io::empty())
        }
    }
}
