//! Blobs depend on their bytes alone, others' tools read them, and whatever others compressed is read whole or refused.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use stacker::compress::{Codec, Encoder, decoder};
use stacker::digest::BlobDigest;
use stacker::worker::message::Compression;

const ALL: [Compression; 4] = [Compression::Gzip(6), Compression::Gzip(1), Compression::Zstd(3), Compression::None];

/// Half text, half noise, the same every time.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let byte = |index: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (index / 1000).is_multiple_of(2) { b"lorem ipsum dolor "[index % 18] } else { (state >> 56) as u8 }
    };
    (0..length).map(byte).collect()
}

/// Written in pieces of these sizes, over and over.
fn encoded(compression: Compression, bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).expect("an encoder");
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, left) = rest.split_at((*sizes.next().expect("a size")).min(rest.len()));
        encoder.write_all(piece).expect("writing to memory");
        encoder.flush().expect("a flush");
        rest = left;
    }
    encoder.finish().expect("writing to memory")
}

fn decoded(bytes: &[u8]) -> std::io::Result<(Vec<u8>, Codec)> {
    let (mut decoder, codec) = decoder(bytes)?;
    let mut plain = Vec::new();
    decoder.read_to_end(&mut plain)?;
    Ok((plain, codec))
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory")
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory")
}

/// What a program makes of bytes; an error if it fails.
fn piped(program: &[&str], bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", program[0]))?;
    let mut input = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes));
        child.wait_with_output()
    })
    .expect("the program ends");
    match output.status.success() && output.stderr.is_empty() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn neither_write_sizes_nor_threads_show_in_the_bytes() {
    // Around the borders of the pieces that encoders work in.
    for length in [0, 1, 1 << 20, (1 << 20) + 1, 2_500_000] {
        let bytes = sample(length);
        for compression in ALL {
            let whole = encoded(compression, &bytes, &[usize::MAX]);
            assert!(decoded(&whole).expect("it decodes").0 == bytes, "{compression:?} of {length}");
            for sizes in [&[4096][..], &[1, 99_999, 1 << 20, 7]] {
                assert!(encoded(compression, &bytes, sizes) == whole, "{compression:?} of {length} by {sizes:?}");
            }
            for threads in [1, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                let other = pool.install(|| encoded(compression, &bytes, &[70_000]));
                assert!(other == whole, "{compression:?} of {length} by {threads} threads");
            }
        }
    }
}

/// When this fails, blobs that are remembered are no longer what would be made: raise ENCODER_VERSION.
#[test]
fn the_encoders_of_this_version_are_pinned() {
    let bytes = sample(3_000_000);
    let digest = |compression| BlobDigest::of(&encoded(compression, &bytes, &[4096])).hex();
    let found = [Compression::Gzip(6), Compression::Gzip(1), Compression::Zstd(3)].map(digest);
    assert_eq!(stacker::compress::ENCODER_VERSION, 1);
    assert_eq!(
        found,
        [
            "3d89d360db3e38a8bec4bc3e85cf74f999e0285292bcabd0c086a0b1dda2dd59",
            "2f83aff86a36773a14071164ecdf31068f0b7091694bcb04179752e62f480949",
            "abd3c4198a43b66decab7995c0306d3f6ecfa19d7d0e4847a85c81ddd3434b71"
        ]
    );
}

#[test]
fn other_tools_read_what_we_write() {
    for length in [0, 3_500_000] {
        let bytes = sample(length);
        let gzip = encoded(Compression::Gzip(6), &bytes, &[4096]);
        assert_eq!(piped(&["gzip", "-t"], &gzip), Ok(vec![]));
        assert!(piped(&["gzip", "-dc"], &gzip).expect("gzip reads it") == bytes);
        // One member, as some readers stop after the first.
        let mut single = flate2::read::GzDecoder::new(&gzip[..]);
        let mut plain = Vec::new();
        single.read_to_end(&mut plain).expect("it decodes");
        assert!(plain == bytes && single.into_inner().is_empty());
        // Nothing of the host: no time, no name.
        assert_eq!(gzip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        let zstd = encoded(Compression::Zstd(3), &bytes, &[4096]);
        assert!(zstd::decode_all(&zstd[..]).expect("zstd reads it") == bytes);
    }
}

#[test]
fn every_member_and_frame_is_read() {
    let (first, second) = (sample(300_000), b"and more".to_vec());
    let both = [&first[..], &second[..]].concat();
    let join = |encode: &dyn Fn(&[u8]) -> Vec<u8>| [encode(&first), encode(&second)].concat();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let zstd = join(&|bytes| encoded(Compression::Zstd(3), bytes, &[4096]));
    let cases = [
        (Codec::Gzip, join(&|bytes| encoded(Compression::Gzip(6), bytes, &[4096]))),
        (Codec::Gzip, join(&|bytes| piped(&["gzip", "-c"], bytes).expect("gzip"))),
        (Codec::Zstd, zstd.clone()),
        (Codec::Zstd, [skippable, zstd].concat()),
        (Codec::Xz, join(&xz)),
        (Codec::Bzip2, join(&bzip2)),
        (Codec::Plain, both.clone()),
    ];
    for (codec, bytes) in cases {
        let (plain, found) = decoded(&bytes).expect("it decodes");
        assert_eq!(found, codec);
        assert!(plain == both, "{codec:?}: {} of {} bytes", plain.len(), both.len());
    }
}

#[test]
fn what_is_cut_off_or_goes_on_with_something_else_is_an_error() {
    let bytes = sample(300_000);
    for (name, whole) in [
        ("gzip", encoded(Compression::Gzip(6), &bytes, &[4096])),
        ("zstd", encoded(Compression::Zstd(3), &bytes, &[4096])),
        ("xz", xz(&bytes)),
        ("bzip2", bzip2(&bytes)),
    ] {
        assert!(decoded(&whole).is_ok(), "{name}");
        for cut in [1, 4, 1000, whole.len() - 7] {
            assert!(decoded(&whole[..whole.len() - cut]).is_err(), "{name} without its last {cut} bytes");
        }
        for rest in [&b"garbage"[..], b"x", b"\x1f\x8b"] {
            assert!(decoded(&[&whole[..], rest].concat()).is_err(), "{name} followed by {rest:?}");
        }
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;
        assert!(decoded(&flipped).is_err(), "{name} with a damaged byte");
    }
    assert_eq!(decoded(b"").expect("nothing is plain").0, b"");
}

/// An xz file of one byte whose header asks for 1 GiB of memory.
#[test]
fn a_header_cannot_ask_for_all_memory() {
    let hex = "fd377a585a000004e6d6b44602002101240000005e1fc7f9010000780000000045aeef83f8ee160a00011901a52c81cc1fb6f37d\
               010000000004595a";
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let error = decoded(&bytes).expect_err("it is refused");
    assert!(error.to_string().contains("memory"), "{error}");
}
