//! Maps of sparse files: which ranges of the file the stored bytes are, in order.

use std::io;

use tar::{GnuExtSparseHeader, Header};

use super::archive::{BLOCK, invalid};
use super::pax::number;

/// A range of the file that has stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// More would be an attack on our memory.
const MOST: usize = 1 << 20;

/// The map of an old GNU sparse member, and the file's size; `block` reads the blocks that follow the header.
pub(super) fn gnu(
    header: &Header,
    mut block: impl FnMut() -> io::Result<[u8; BLOCK]>,
) -> io::Result<(Vec<Segment>, u64)> {
    let gnu = header.as_gnu().ok_or_else(|| invalid("a sparse file in an archive that is not GNU's"))?;
    let mut segments = Vec::new();
    for slot in gnu.sparse.iter().filter(|slot| !slot.is_empty()) {
        segments.push(Segment { offset: slot.offset()?, length: slot.length()? });
    }
    let mut more = gnu.is_extended();
    while more {
        let mut extension = GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(&block()?);
        for slot in extension.sparse.iter().filter(|slot| !slot.is_empty()) {
            segments.push(Segment { offset: slot.offset()?, length: slot.length()? });
        }
        if segments.len() > MOST {
            return Err(invalid("a sparse file with too many ranges"));
        }
        more = extension.is_extended();
    }
    Ok((segments, gnu.real_size()?))
}

/// The map of PAX format 1.0: numbers, one on a line, in whole blocks before the data.
pub(super) fn leading_map(mut block: impl FnMut() -> io::Result<[u8; BLOCK]>) -> io::Result<Vec<Segment>> {
    let mut text: Vec<u8> = Vec::new();
    let (mut at, mut numbers, mut wanted) = (0, Vec::new(), 1);
    while numbers.len() < wanted {
        match text[at..].iter().position(|&byte| byte == b'\n') {
            Some(length) => {
                let value = number(&text[at..at + length])?;
                if numbers.is_empty() {
                    wanted = 1 + 2 * usize::try_from(value).unwrap_or(usize::MAX).min(MOST + 1);
                }
                if wanted > 2 * MOST {
                    return Err(invalid("a sparse file with too many ranges"));
                }
                numbers.push(value);
                at += length + 1;
            }
            None if text.len() - at > 64 => return Err(invalid("a malformed map of a sparse file")),
            None => text.extend(block()?),
        }
    }
    segments(&numbers[1..])
}

/// Pairs of offset and length.
pub(super) fn segments(numbers: &[u64]) -> io::Result<Vec<Segment>> {
    if !numbers.len().is_multiple_of(2) {
        return Err(invalid("a malformed map of a sparse file"));
    }
    Ok(numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Ranges must be in order, within the file, and together just as long as what is stored.
pub(super) fn check(segments: &[Segment], stored: u64, size: u64) -> io::Result<()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in segments {
        let next = segment.offset.checked_add(segment.length);
        let next = next.filter(|&next| segment.offset >= end && next <= size);
        end = next.ok_or_else(|| invalid("a sparse file whose ranges do not fit it"))?;
        sum += segment.length;
    }
    if sum == stored { Ok(()) } else { Err(invalid("a sparse file whose ranges are not as long as its data")) }
}
