//! Hashing file contents.

use std::fs::File;
use std::io::{self, Read};

use crate::digest::ContentDigest;

/// From this size on, one file's bytes are hashed by several threads.
const LARGE: usize = 1 << 20;

/// blake3 of the file's bytes, and how many there were; never more than a few megabytes in memory.
pub fn hash(mut file: File) -> io::Result<(ContentDigest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let length = file.metadata()?.len();
    let mut buffer = vec![0; (length as usize).clamp(1, 2 * LARGE)];
    let mut size = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        size += filled as u64;
        if filled >= LARGE {
            hasher.update_rayon(&buffer[..filled]);
        } else {
            hasher.update(&buffer[..filled]);
        }
        if filled < buffer.len() {
            return Ok((ContentDigest(*hasher.finalize().as_bytes()), size));
        }
    }
}
