//! What one archive may take of disk, memory and time before it is taken for a bomb.

use std::io::{self, Read};

use bytesize::ByteSize;

use super::archive::{Member, invalid};

/// Bytes of one layer without compression, where nobody says otherwise: more than any registry takes.
pub const MAX_LAYER_SIZE: u64 = 64 << 30;

/// Names in one layer. The largest images have a million; each costs an inode, and memory until the layer is sealed.
const ENTRIES: u64 = 1 << 22;

/// Bytes of all names, link texts and attributes in one layer, which are held in memory together.
const DESCRIPTIONS: u64 = 512 << 20;

/// PATH_MAX and NAME_MAX: what no system call takes.
pub(super) const LONGEST_PATH: usize = 4095;
pub(super) const LONGEST_NAME: usize = 255;

/// XATTR_NAME_MAX and XATTR_SIZE_MAX.
const LONGEST_ATTRIBUTE: usize = 255;
const LARGEST_ATTRIBUTE: usize = 1 << 16;

/// Passes on what it reads until it is more than a layer may have.
pub(super) struct Limited<R> {
    reader: R,
    left: u64,
    most: u64,
}

impl<R: Read> Limited<R> {
    pub fn new(reader: R, most: u64) -> Limited<R> {
        Limited { reader, left: most, most }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| too_large(self.most))?;
        Ok(read)
    }
}

/// What an archive has taken so far.
pub(super) struct Taken {
    most: u64,
    content: u64,
    entries: u64,
    descriptions: u64,
}

impl Taken {
    pub fn new(most: u64) -> Taken {
        Taken { most, content: 0, entries: 0, descriptions: 0 }
    }

    /// Bytes that the layer may have.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// One more member. The size of a file counts even where nothing of it is stored: reading its holes takes as long.
    pub fn member(&mut self, member: &Member) -> io::Result<()> {
        for (name, value) in &member.xattrs {
            if name.len() > LONGEST_ATTRIBUTE || value.len() > LARGEST_ATTRIBUTE {
                return Err(invalid("an attribute that is larger than Linux allows"));
            }
        }
        let attributes: usize = member.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.content = self.content.saturating_add(member.size);
        if self.content > self.most {
            return Err(too_large(self.most));
        }
        self.entry(member.path.len() + member.link.len() + attributes)
    }

    /// One more name, described by so many bytes.
    pub fn entry(&mut self, description: usize) -> io::Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES {
            return Err(invalid(&format!("the layer has more than {ENTRIES} entries")));
        }
        self.description(description)
    }

    /// So many bytes more to describe a name.
    pub fn description(&mut self, bytes: usize) -> io::Result<()> {
        self.descriptions = self.descriptions.saturating_add(bytes as u64);
        if self.descriptions > DESCRIPTIONS {
            let most = ByteSize(DESCRIPTIONS);
            return Err(invalid(&format!("the names and attributes of the layer are more than {most}")));
        }
        Ok(())
    }
}

fn too_large(most: u64) -> io::Error {
    invalid(&oversized("the layer", most))
}

/// What to say of something that is larger than the user allows.
pub(crate) fn oversized(what: &str, most: u64) -> String {
    format!("{what} has more than {} without compression: `--max-layer-size SIZE` allows more", ByteSize(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_and_long_ones_are_counted() {
        let mut taken = Taken::new(MAX_LAYER_SIZE);
        assert!((0..ENTRIES).all(|_| taken.entry(1).is_ok()));
        assert!(taken.entry(1).unwrap_err().to_string().contains("more than 4194304 entries"));
        let mut taken = Taken::new(MAX_LAYER_SIZE);
        assert!((0..DESCRIPTIONS / 4096).all(|_| taken.entry(4096).is_ok()));
        assert!(taken.entry(1).unwrap_err().to_string().contains("more than 512.0 MiB"));
    }
}
