//! A listing as a file: written in order, searched where it lies (mapped, never loaded whole).
//!
//! Text that is not a listing is an error, never a panic: a file may have been damaged since it was written.

use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

use super::line::{self, Times};
use super::order::{Place, is_below};
use super::{Entry, Time};
use crate::error::At;
use crate::{Error, Result};

const FIRST_LINE: &str = "stacker listing 1\n";

/// Writes the listing of entries that are sorted by [`super::order`].
pub fn write<'a>(entries: impl Iterator<Item = &'a Entry>, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = FIRST_LINE.to_owned();
    for entry in entries {
        line::encode(entry, Times::Written, &mut text);
        if text.len() > 1 << 16 {
            out.write_all(text.as_bytes())?;
            text.clear();
        }
    }
    out.write_all(text.as_bytes())
}

/// A listing that can be searched.
#[derive(Debug)]
pub struct Listing(Text);

#[derive(Debug)]
enum Text {
    Mapped(Mmap),
    Loaded(Vec<u8>),
}

/// What a listing says of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What stands there.
    pub entry: Option<Entry>,
    /// Whether the name is removed from the layers beneath.
    pub whiteout: bool,
}

impl Listing {
    /// Maps the file.
    pub fn open(path: &Path) -> Result<Listing> {
        let file = File::open(path).at("open", path)?;
        Listing(Text::Mapped(crate::sys::map(&file).at("map", path)?)).checked()
    }

    /// Maps an open file (open for reading).
    pub fn from_file(file: File) -> Result<Listing> {
        Listing(Text::Mapped(crate::sys::map(&file).at("map", "a listing")?)).checked()
    }

    /// A listing that was made in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Listing> {
        Listing(Text::Loaded(bytes)).checked()
    }

    fn checked(self) -> Result<Listing> {
        let bytes = self.bytes();
        if bytes.starts_with(FIRST_LINE.as_bytes()) && bytes.ends_with(b"\n") { Ok(self) } else { Err(corrupt(0)) }
    }

    /// The whole text.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Mapped(map) => map,
            Text::Loaded(bytes) => bytes,
        }
    }

    /// All entries in order.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        self.lines_from(FIRST_LINE.len())
    }

    /// What is said of that very path.
    pub fn find(&self, path: &[u8]) -> Result<Found> {
        Ok(Found { entry: self.at_place(Place { path, whiteout: false })?, whiteout: self.whites_out(path)? })
    }

    /// The newest time of any entry; 1970 when there is none.
    pub fn newest(&self) -> Result<Time> {
        let mut newest = None;
        for entry in self.entries() {
            newest = newest.max(Some(entry?.mtime));
        }
        Ok(newest.unwrap_or_default())
    }

    pub(super) fn entry(&self, path: &[u8]) -> Result<Option<Entry>> {
        self.at_place(Place { path, whiteout: false })
    }

    pub(super) fn whites_out(&self, path: &[u8]) -> Result<bool> {
        Ok(self.at_place(Place { path, whiteout: true })?.is_some())
    }

    /// The entries directly in `directory`, whiteouts too, without reading what lies below them.
    pub(super) fn children(&self, directory: &[u8]) -> Result<Vec<Entry>> {
        let mut children = Vec::new();
        let place = Place { path: directory, whiteout: false };
        let mut offset = self.partition(|line| line.cmp(&place) != Ordering::Greater)?;
        while let Some((line, end)) = self.line_at(offset) {
            let entry = line::decode(line).ok_or_else(|| corrupt(offset))?;
            if !is_below(&entry.path, directory) {
                break;
            }
            let next = self
                .line_at(end)
                .and_then(|(line, _)| line::place(line, &mut Vec::new()).map(|p| is_below(p.path, &entry.path)));
            let below = |line: &Place| *line <= Place::of(&entry) || is_below(line.path, &entry.path);
            // A damaged listing must not lead back.
            offset = if next == Some(true) { self.partition(below)?.max(end) } else { end };
            children.push(entry);
        }
        Ok(children)
    }

    fn at_place(&self, place: Place) -> Result<Option<Entry>> {
        let offset = self.partition(|line| *line < place)?;
        let Some((line, _)) = self.line_at(offset) else { return Ok(None) };
        let mut buffer = Vec::new();
        if line::place(line, &mut buffer).ok_or_else(|| corrupt(offset))? != place {
            return Ok(None);
        }
        line::decode(line).map(Some).ok_or_else(|| corrupt(offset))
    }

    /// The offset of the first line that is not `before`, where all that are stand before all that are not.
    fn partition(&self, before: impl Fn(&Place) -> bool) -> Result<usize> {
        let bytes = self.bytes();
        let (mut low, mut high) = (FIRST_LINE.len(), bytes.len());
        let mut buffer = Vec::new();
        while low < high {
            let middle = low + (high - low) / 2;
            let start = bytes[low..middle].iter().rposition(|&byte| byte == b'\n').map_or(low, |feed| low + feed + 1);
            let (line, end) = self.line_at(start).ok_or_else(|| corrupt(start))?;
            let place = line::place(line, &mut buffer).ok_or_else(|| corrupt(start))?;
            if before(&place) {
                low = end;
            } else {
                high = start;
            }
        }
        Ok(low)
    }

    /// The line that starts at `offset`, and where the next one starts.
    fn line_at(&self, offset: usize) -> Option<(&[u8], usize)> {
        let rest = self.bytes().get(offset..)?;
        let feed = rest.iter().position(|&byte| byte == b'\n')?;
        Some((&rest[..feed], offset + feed + 1))
    }

    fn lines_from(&self, mut offset: usize) -> impl Iterator<Item = Result<Entry>> + '_ {
        std::iter::from_fn(move || {
            let (line, end) = self.line_at(offset)?;
            let entry = line::decode(line).ok_or_else(|| corrupt(offset));
            offset = end;
            Some(entry)
        })
    }
}

fn corrupt(offset: usize) -> Error {
    Error::Machine(format!("a listing is damaged at byte {offset}: `stacker cache verify` finds which"))
}
