//! Readers and writers that hash what passes through them.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use crate::digest::ContentDigest;

/// Hashes what is read or written, and counts it.
pub struct Hashed<T> {
    inner: T,
    hasher: Sha256,
    count: u64,
}

impl<T> Hashed<T> {
    /// Nothing has passed yet.
    pub fn new(inner: T) -> Hashed<T> {
        Hashed { inner, hasher: Sha256::new(), count: 0 }
    }

    /// The sha256 of all that passed, and how many bytes it was.
    pub fn finish(self) -> ([u8; 32], u64) {
        (self.hasher.finalize().into(), self.count)
    }

    /// What it hashed for, and the sha256 of all that passed.
    pub fn into_parts(self) -> (T, [u8; 32]) {
        (self.inner, self.hasher.finalize().into())
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.count += bytes.len() as u64;
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.passed(&buffer[..count]);
        Ok(count)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.passed(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes a file of the host as keys name it while it is read.
pub struct Content<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R> Content<R> {
    /// Nothing was read yet.
    pub fn new(inner: R) -> Content<R> {
        Content { inner, hasher: blake3::Hasher::new() }
    }

    /// What all that was read is.
    pub fn finish(self) -> ContentDigest {
        ContentDigest(*self.hasher.finalize().as_bytes())
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
