//! Compressing layer blobs, and reading whatever compression a tar came in.
//!
//! The bytes an [`Encoder`] writes depend on the bytes it was given and on its setting alone: neither on the number of
//! threads nor on the sizes of the writes. A change that breaks this promise, or that alters any output, must raise
//! [`ENCODER_VERSION`], because blobs are remembered by it.

mod decode;
mod gzip;

pub use decode::{Codec, Decoder, decoder};

use std::io::{self, Write};

use crate::worker::message::Compression;

/// Part of what a remembered blob is named by.
pub const ENCODER_VERSION: u32 = 1;

/// Encoders see their input in pieces of this size, whatever the sizes of the writes.
const PIECE: usize = 1 << 20;

/// A compressing writer; what it was given is complete only after [`Encoder::finish`].
pub struct Encoder<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Gzip(gzip::Gzip<W>),
    Zstd { encoder: zstd::stream::write::Encoder<'static, W>, piece: Vec<u8> },
    None(W),
}

impl<W: Write> Encoder<W> {
    /// Compresses to `out`.
    pub fn new(compression: Compression, out: W) -> io::Result<Encoder<W>> {
        Ok(Encoder(match compression {
            Compression::Gzip(level) => Inner::Gzip(gzip::Gzip::new(level, out)?),
            Compression::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                // No workers at all gives other bytes than one or more.
                encoder.multithread(rayon::current_num_threads().max(1) as u32)?;
                encoder.include_checksum(true)?;
                Inner::Zstd { encoder, piece: Vec::with_capacity(PIECE) }
            }
            Compression::None => Inner::None(out),
        }))
    }

    /// Writes what is still held back, and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd { mut encoder, piece } => {
                encoder.write_all(&piece)?;
                encoder.finish()
            }
            Inner::None(mut out) => out.flush().map(|()| out),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Gzip(gzip) => gzip.write(bytes),
            Inner::Zstd { encoder, piece } => {
                let taken = bytes.len().min(PIECE - piece.len());
                piece.extend_from_slice(&bytes[..taken]);
                if piece.len() == PIECE {
                    encoder.write_all(piece)?;
                    piece.clear();
                }
                Ok(taken)
            }
            Inner::None(out) => out.write(bytes),
        }
    }

    /// Does nothing: where an encoder flushes decides its bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
