//! gzip in parallel: fixed pieces, each deflated on its own, joined to one member.
//!
//! Every piece but the last ends with a sync flush, which makes it end at a byte; deflate blocks can follow each other
//! freely, so the pieces joined are one deflate stream that every gunzip reads.

use std::io::{self, Write};

use flate2::{Compress, FlushCompress, Status};
use rayon::prelude::*;

use super::PIECE;

pub(super) struct Gzip<W> {
    out: W,
    level: u32,
    full: Vec<Vec<u8>>,
    piece: Vec<u8>,
    crc: crc32fast::Hasher,
    length: u64,
}

struct Packed {
    bytes: Vec<u8>,
    crc: crc32fast::Hasher,
}

impl<W: Write> Gzip<W> {
    pub fn new(level: u32, mut out: W) -> io::Result<Gzip<W>> {
        let extra = match level {
            1 => 4,
            9 => 2,
            _ => 0,
        };
        // Deflate, no flags, no time, no name, unknown system: nothing of the host.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra, 255])?;
        Ok(Gzip { out, level, full: Vec::new(), piece: Vec::new(), crc: crc32fast::Hasher::new(), length: 0 })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            // Only now it is certain that this piece is not the last.
            self.full.push(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE)));
            if self.full.len() >= 2 * rayon::current_num_threads() {
                self.drain()?;
            }
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.length += taken as u64;
        Ok(taken)
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.drain()?;
        let last = deflate(&self.piece, self.level, FlushCompress::Finish)?;
        self.append(&last)?;
        self.out.write_all(&self.crc.clone().finalize().to_le_bytes())?;
        // The length field is modulo 2^32 by the format.
        self.out.write_all(&(self.length as u32).to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn drain(&mut self) -> io::Result<()> {
        let (pieces, level) = (std::mem::take(&mut self.full), self.level);
        let packed: Vec<io::Result<Packed>> =
            pieces.par_iter().map(|piece| deflate(piece, level, FlushCompress::Sync)).collect();
        packed.into_iter().try_for_each(|packed| self.append(&packed?))
    }

    fn append(&mut self, packed: &Packed) -> io::Result<()> {
        self.crc.combine(&packed.crc);
        self.out.write_all(&packed.bytes)
    }
}

fn deflate(piece: &[u8], level: u32, flush: FlushCompress) -> io::Result<Packed> {
    let mut deflater = Compress::new(flate2::Compression::new(level), false);
    // Room for the worst case at once, so that the output is produced in one call.
    let mut bytes = Vec::with_capacity(piece.len() + piece.len() / 512 + 4096);
    loop {
        let rest = &piece[deflater.total_in() as usize..];
        let status = deflater.compress_vec(rest, &mut bytes, flush).map_err(io::Error::other)?;
        let complete = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            _ => deflater.total_in() as usize == piece.len() && bytes.len() < bytes.capacity(),
        };
        if complete {
            break;
        }
        bytes.reserve(4096);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(piece);
    Ok(Packed { bytes, crc })
}
