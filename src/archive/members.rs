//! Members of an archive, written and read.
//!
//! Every byte of the tar follows from names, sizes and contents, so a reader that knows those from the manifest compares
//! all of it: a header that says anything else, padding that is not zero, or something behind the end is damage.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::error::{Error, Result};

const BLOCK: usize = 512;

/// Writes members.
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// To `out`.
    pub fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// One member; its content must have `size` bytes.
    pub fn put(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        self.out.write_all(header(name, size)?.as_bytes())?;
        let written = io::copy(&mut content.take(size), &mut self.out)?;
        if written != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} became shorter")));
        }
        self.out.write_all(&[0; BLOCK][..padding(size)])
    }

    /// The end.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

/// Reads members.
pub struct Reader<R> {
    reader: R,
    /// For messages.
    pub shown: String,
}

impl<R: Read> Reader<R> {
    /// From `reader`, which messages call `shown`.
    pub fn new(reader: R, shown: String) -> Reader<R> {
        Reader { reader, shown }
    }

    /// The name and the size of the first member, of which nothing is known before.
    pub fn first(&mut self) -> Result<(String, u64)> {
        let mut block = [0; BLOCK];
        self.exact(&mut block)?;
        let found = Header::from_byte_slice(&block);
        let name = String::from_utf8_lossy(&found.path_bytes()).into_owned();
        let size = found.entry_size().unwrap_or(u64::MAX);
        match header(&name, size) {
            Ok(expected) if expected.as_bytes() == &block => Ok((name, size)),
            _ => Err(self.damaged("it does not begin as one")),
        }
    }

    /// Begins the member that must come next.
    pub fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        let mut block = [0; BLOCK];
        self.exact(&mut block)?;
        match header(name, size) {
            Ok(expected) if expected.as_bytes() == &block => Ok(()),
            _ => Err(self.damaged(&format!("{name} should come next, and does not"))),
        }
    }

    /// The content of the member that was begun goes to `out`.
    pub fn copy(&mut self, size: u64, out: &mut impl Write) -> Result<()> {
        let copied = io::copy(&mut (&mut self.reader).take(size), out).map_err(|error| self.broken(&error))?;
        if copied != size {
            return Err(self.ended());
        }
        let mut rest = [0; BLOCK];
        let rest = &mut rest[..padding(size)];
        self.exact(rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            Err(self.damaged("there is something between members"))
        } else {
            Ok(())
        }
    }

    /// The end of the archive, and of the stream.
    pub fn end(&mut self) -> Result<()> {
        let mut blocks = [0; 2 * BLOCK];
        self.exact(&mut blocks)?;
        let more = io::copy(&mut self.reader, &mut io::sink()).map_err(|error| self.broken(&error))?;
        match blocks.iter().all(|byte| *byte == 0) && more == 0 {
            true => Ok(()),
            false => Err(self.damaged("there is something after its end")),
        }
    }

    /// It is not what was exported.
    pub fn damaged(&self, why: &str) -> Error {
        Error::Build(format!("{} is no cache archive, or a damaged one: {why}", self.shown))
    }

    fn ended(&self) -> Error {
        self.damaged("it was cut off")
    }

    fn broken(&self, error: &io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        match error.kind() {
            UnexpectedEof => self.ended(),
            // Of the system there would be a number.
            InvalidData | InvalidInput | Other if error.raw_os_error().is_none() => self.damaged(&error.to_string()),
            _ => Error::Machine(format!("cannot read {}: {error}", self.shown)),
        }
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.reader.read_exact(bytes).map_err(|error| self.broken(&error))
    }
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Plain ustar: no time, no owner, mode 644.
fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name)?;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.put("one", 3, &b"abc"[..]).unwrap();
        writer.put("two/three", 0, &b""[..]).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut reader = Reader::new(bytes, "it".to_owned());
        let mut found = Vec::new();
        let (name, size) = reader.first()?;
        if (name.as_str(), size) != ("one", 3) {
            return Err(reader.damaged("another first member"));
        }
        reader.copy(size, &mut found)?;
        reader.begin("two/three", 0)?;
        reader.copy(0, &mut found)?;
        reader.end()?;
        Ok(found)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&archive()).unwrap(), b"abc");
        // Other programs can look into it.
        let mut names = Vec::new();
        for entry in tar::Archive::new(&archive()[..]).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().into_owned());
        }
        assert_eq!(names, [std::path::Path::new("one"), std::path::Path::new("two/three")]);
    }

    #[test]
    fn every_flipped_bit_outside_of_contents_is_damage() {
        let whole = archive();
        for at in (0..whole.len()).filter(|at| !(512..515).contains(at)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(matches!(read(&bytes), Err(Error::Build(_))), "byte {at}");
        }
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).unwrap_err().to_string().contains("cut off"), "{length} bytes");
        }
        assert!(read(&[&whole[..], b"x"].concat()).is_err());
    }
}
