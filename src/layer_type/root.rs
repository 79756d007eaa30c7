//! The time of the root directory of a squashfs file system whose inodes are not compressed.
//!
//! mksquashfs 4.5, as in Debian 12, takes the time of day for it when it reads a tar, and nothing changes its mind.

use std::io::{self, Read, Seek, SeekFrom, Write};

const MAGIC: &[u8; 4] = b"hsqs";
/// Bytes of inodes in a block of them.
const BLOCK: u64 = 8192;
/// In the two bytes before each block: it is not compressed.
const PLAIN: u16 = 0x8000;
/// Where an inode has its time.
const TIME: u64 = 8;

/// Seconds since 1970.
pub fn time(file: &mut (impl Read + Seek)) -> io::Result<u32> {
    let mut bytes = [0; 4];
    for (place, byte) in places(file)?.into_iter().zip(&mut bytes) {
        file.seek(SeekFrom::Start(place))?;
        file.read_exact(std::slice::from_mut(byte))?;
    }
    Ok(u32::from_le_bytes(bytes))
}

/// Replaces it.
pub fn set_time(file: &mut (impl Read + Write + Seek), seconds: u32) -> io::Result<()> {
    for (place, byte) in places(file)?.into_iter().zip(seconds.to_le_bytes()) {
        file.seek(SeekFrom::Start(place))?;
        file.write_all(&[byte])?;
    }
    Ok(())
}

/// Where each byte of the time lies: an inode may begin in one block and end in the next.
fn places(file: &mut (impl Read + Seek)) -> io::Result<[u64; 4]> {
    let wrong = || io::Error::other("it is no squashfs with plain inodes");
    let mut head = [0; 96];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut head)?;
    let long = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| wrong());
    if &head[..4] != MAGIC {
        return Err(wrong());
    }
    let (root, inodes) = (long(32)?, long(64)?);
    // The block, counted from the first one, and where the inode is in it.
    let (block, offset) = (inodes.checked_add(root >> 16).ok_or_else(wrong)?, root & 0xffff);
    let mut size = [0; 2];
    file.seek(SeekFrom::Start(block))?;
    file.read_exact(&mut size)?;
    if u16::from_le_bytes(size) & PLAIN == 0 {
        return Err(wrong());
    }
    Ok([0, 1, 2, 3].map(|byte| {
        let at = offset + TIME + byte;
        // Past the size of the block, and of the next one.
        block + 2 + at + if at < BLOCK { 0 } else { 2 }
    }))
}
