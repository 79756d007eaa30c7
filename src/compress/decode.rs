//! Reading a tar in whatever compression it came, told by its first bytes.
//!
//! A file that ends early, or goes on after its end with anything else than another member or frame, is an error.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;

/// `xz -9` needs 65 MiB to be read; a header may ask for 4 GiB.
const XZ_MEMORY: u64 = 512 << 20;

/// How a stream was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Plain,
    /// gzip, any number of members.
    Gzip,
    /// zstd, any number of frames.
    Zstd,
    /// xz, any number of streams.
    Xz,
    /// bzip2, any number of streams.
    Bzip2,
}

type Source<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

/// The plain bytes of a stream.
pub struct Decoder<R: Read>(Inner<R>);

enum Inner<R: Read> {
    Plain(Source<R>),
    Gzip(MultiGzDecoder<Source<R>>),
    Zstd(zstd::stream::read::Decoder<'static, Source<R>>),
    Xz(XzDecoder<Source<R>>),
    Bzip2(MultiBzDecoder<Source<R>>),
}

/// Looks at the first bytes and decodes from there; what has no known mark is taken as plain.
pub fn decoder<R: Read>(mut reader: R) -> io::Result<(Decoder<R>, Codec)> {
    let mut first = Vec::new();
    (&mut reader).take(6).read_to_end(&mut first)?;
    let codec = match first.as_slice() {
        [0x1f, 0x8b, ..] => Codec::Gzip,
        // A zstd stream may start with a skippable frame.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Codec::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Codec::Bzip2,
        _ => Codec::Plain,
    };
    let source = BufReader::with_capacity(1 << 17, Cursor::new(first).chain(reader));
    let inner = match codec {
        Codec::Plain => Inner::Plain(source),
        Codec::Gzip => Inner::Gzip(MultiGzDecoder::new(source)),
        Codec::Zstd => Inner::Zstd(zstd::stream::read::Decoder::with_buffer(source)?),
        Codec::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Inner::Xz(XzDecoder::new_stream(source, stream))
        }
        Codec::Bzip2 => Inner::Bzip2(MultiBzDecoder::new(source)),
    };
    Ok((Decoder(inner), codec))
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.0 {
            Inner::Plain(source) => return source.read(buffer),
            Inner::Gzip(decoder) => decoder.read(buffer)?,
            Inner::Zstd(decoder) => decoder.read(buffer)?,
            Inner::Xz(decoder) => decoder.read(buffer)?,
            Inner::Bzip2(decoder) => decoder.read(buffer)?,
        };
        if read == 0 && !buffer.is_empty() && !self.source().fill_buf()?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is something after the compressed data"));
        }
        Ok(read)
    }
}

impl<R: Read> Decoder<R> {
    fn source(&mut self) -> &mut Source<R> {
        match &mut self.0 {
            Inner::Plain(source) => source,
            Inner::Gzip(decoder) => decoder.get_mut(),
            Inner::Zstd(decoder) => decoder.get_mut(),
            Inner::Xz(decoder) => decoder.get_mut(),
            Inner::Bzip2(decoder) => decoder.get_mut(),
        }
    }
}
