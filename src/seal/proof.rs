//! Whether a tar is the layer tar of a listing, of which neither is believed: the headers are made of the listing once
//! more and compared as the tar is read, and so are sizes, contents and the end.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use super::tar::Tar;
use crate::listing::{Kind, Listing};

/// What is the listing's or the tar's fault is `InvalidData` or `UnexpectedEof`. Returns the bytes of the tar.
pub fn prove(listing: &Listing, tar: impl Read) -> io::Result<u64> {
    let source = RefCell::new(tar);
    let mut writer = Tar::new(Compared { source: &source });
    for entry in listing.entries() {
        let entry = entry.map_err(|error| invalid(error.to_string()))?;
        if entry.xattrs.keys().any(|name| name.contains(&b'=')) {
            return Err(invalid("its listing has an attribute that no tar can hold".to_owned()));
        }
        writer.node(&entry)?;
        let Kind::File { size, content } = entry.kind else { continue };
        let mut hasher = blake3::Hasher::new();
        let read = io::copy(&mut (&mut *source.borrow_mut()).take(size), &mut hasher)?;
        if read != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if hasher.finalize().as_bytes() != &content.0 {
            let path = crate::text::escape(&entry.path);
            return Err(invalid(format!("the content of /{path} is not what its listing says")));
        }
        writer.passed(size);
        writer.pad(size)?;
    }
    let length = writer.end()?;
    match source.borrow_mut().read(&mut [0])? {
        0 => Ok(length),
        _ => Err(invalid("its tar goes on after its end".to_owned())),
    }
}

/// Takes only what the source has next.
struct Compared<'a, R> {
    source: &'a RefCell<R>,
}

impl<R: Read> Write for Compared<'_, R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = [0; 512];
        for piece in bytes.chunks(buffer.len()) {
            let buffer = &mut buffer[..piece.len()];
            self.source.borrow_mut().read_exact(buffer)?;
            if buffer != piece {
                return Err(invalid("its tar is not what its listing says".to_owned()));
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "stacker listing 1\n% d 755 0 0 946684802 -\n";

    fn empty_layer() -> Vec<u8> {
        let mut bytes = Vec::new();
        let listing = Listing::from_bytes(LISTING.as_bytes().to_vec()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        super::super::tar::write(&listing, directory.path(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_tar_is_proven_by_its_listing_and_no_other() {
        let tar = empty_layer();
        let prove =
            |listing: &str, tar: &[u8]| super::prove(&Listing::from_bytes(listing.as_bytes().to_vec()).unwrap(), tar);
        assert_eq!(prove(LISTING, &tar).unwrap(), 1536);
        for wrong in ["% d 700 0 0 946684802 -", "% d 755 0 0 946684803 -", "% d 755 0 0 946684802 opaque"] {
            assert!(prove(&format!("stacker listing 1\n{wrong}\n"), &tar).is_err(), "{wrong}");
        }
        for length in 0..tar.len() {
            assert!(prove(LISTING, &tar[..length]).is_err(), "{length} bytes");
        }
        assert!(prove(LISTING, &[&tar[..], &[0]].concat()).is_err());
        for at in 0..tar.len() {
            let mut flipped = tar.clone();
            flipped[at] ^= 1;
            assert!(prove(LISTING, &flipped).is_err(), "byte {at}");
        }
    }
}
