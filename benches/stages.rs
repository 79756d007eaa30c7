//! What single stages of a build cost, on made-up input of the size of a real monorepo's.
//!
//! `cargo bench --bench stages`. The whole program is timed by `whole`.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stacker::action::{Action, Attributes, Ids, Kind, Mount, Network, Platform};
use stacker::compress::Encoder;
use stacker::digest::{Chain, ChainId, DiffId, TreeDigest};
use stacker::listing::{Listing, Stack};
use stacker::load;
use stacker::resolve::Resolver;
use stacker::seal::{self, Times};
use stacker::worker::message::Compression;
use tempfile::TempDir;

const STACKERFILES: usize = 500;
const IMPORTED: usize = 5000;
const SEALED: usize = 1000;
/// 2000-01-01.
const TIME: i64 = 946_684_800;

criterion_group! {
    name = stages;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    targets = parse, keys, stat_cache, sealing, compression
}
criterion_main!(stages);

fn parse(criterion: &mut Criterion) {
    let dir = TempDir::new().unwrap();
    for number in 0..STACKERFILES {
        let service = dir.path().join(format!("service-{number}"));
        fs::create_dir(&service).unwrap();
        fs::write(service.join("stacker.yaml"), stackerfile(number)).unwrap();
    }
    let options = load::Options { working_dir: dir.path().to_path_buf(), ..Default::default() };
    let files = load::find(dir.path(), &options).unwrap().files;
    assert_eq!(files.len(), STACKERFILES);
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(STACKERFILES as u64));
    group.bench_function("find 500 stackerfiles", |bencher| {
        bencher.iter(|| load::find(dir.path(), &options).unwrap());
    });
    group.bench_function("load 500 stackerfiles", |bencher| bencher.iter(|| load::load(&files, &options).unwrap()));
}

/// Two layers with the directives that services have.
fn stackerfile(number: usize) -> String {
    format!(
        "# What service {number} is built from.\n\
         builder-{number}:\n  from:\n    type: scratch\n  build_only: true\n  \
         imports:\n    - path: src\n      dest: /src\n    - stacker.yaml\n  \
         build_env:\n    CFLAGS: -O2 -Wall\n    VERSION: 1.{number}\n  \
         run: |\n    cd /src\n    make -j4 all\n    make install DESTDIR=/out\n    rm -rf /src\n\
         service-{number}:\n  from:\n    type: built\n    tag: builder-{number}\n  \
         imports:\n    - path: stacker://builder-{number}/out/bin/\n      dest: /usr/bin/\n      mode: 0755\n  \
         environment:\n    PORT: ${{{{PORT:8080}}}}\n  labels:\n    org.example.team: team-{number}\n  \
         entrypoint: [/usr/bin/service, --port, \"8080\"]\n"
    )
}

fn keys(criterion: &mut Criterion) {
    let mount = |number: u8| Mount {
        place: format!("/stacker/imports/source-{number}"),
        tree: TreeDigest([number; 32]),
        attributes: Attributes { mode: Some(0o644), uid: None, gid: None },
    };
    let environment: BTreeMap<String, String> =
        (0..12).map(|number| (format!("VARIABLE_{number}"), format!("value {number}"))).collect();
    let action = Action {
        platform: Platform { os: "linux".into(), arch: "amd64".into() },
        ids: Ids::Full,
        base: ChainId([7; 32]),
        time: TIME,
        kind: Kind::Run {
            script: "#!/bin/sh -xe\n".to_owned() + &"make all && make install\n".repeat(10),
            environment,
            mounts: (1..=3).map(mount).collect(),
            binds: vec![],
            network: Network::Host,
        },
    };
    let chain = Chain((0..64).map(|number| DiffId([number; 32])).collect());
    let mut group = criterion.benchmark_group("keys");
    group.bench_function("key of a run", |bencher| bencher.iter(|| black_box(&action).key()));
    group.bench_function("chain id of 64 layers", |bencher| bencher.iter(|| black_box(&chain).id()));
}

fn stat_cache(criterion: &mut Criterion) {
    let dir = TempDir::new().unwrap();
    files(dir.path(), IMPORTED, 2048);
    // Stamps that are younger cannot be trusted, and every file would be read again.
    std::thread::sleep(Duration::from_millis(2100));
    let resolver = Resolver::new(vec![]);
    let list = resolver.tree(dir.path(), None).unwrap().stat_list.unwrap();
    assert!(resolver.tree(dir.path(), Some(&list)).unwrap().stat_list.is_none(), "every file is vouched for");
    let mut group = criterion.benchmark_group("stat cache");
    group.throughput(Throughput::Elements(IMPORTED as u64));
    group.bench_function("5000 unchanged files", |bencher| {
        bencher.iter(|| resolver.tree(dir.path(), Some(&list)).unwrap());
    });
    group.bench_function("5000 files read", |bencher| bencher.iter(|| resolver.tree(dir.path(), None).unwrap()));
}

fn sealing(criterion: &mut Criterion) {
    let upper = TempDir::new().unwrap();
    files(upper.path(), SEALED, 8192);
    let scratch = Stack::new(vec![]);
    // Sealing what is sealed changes nothing, so one directory serves all iterations.
    let form = seal::Form::Changes(seal::Marks::Overlayfs);
    let seal =
        |mut listing| seal::seal(upper.path(), &scratch, form, Times::All(TIME), Ids::Full, &mut listing).unwrap();
    let listing = tempfile::tempfile().unwrap();
    let sealed = seal(listing.try_clone().unwrap());
    let listing = Listing::from_file(listing).unwrap();
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(sealed.tar_bytes));
    group.bench_function("seal 1000 files", |bencher| {
        bencher.iter_batched(|| tempfile::tempfile().unwrap(), seal, BatchSize::PerIteration);
    });
    group.bench_function("tar of 1000 files", |bencher| {
        bencher.iter(|| seal::tar::write(&listing, upper.path(), std::io::sink()).unwrap());
    });
}

fn compression(criterion: &mut Criterion) {
    let text = words(16 << 20, 1);
    let mut group = criterion.benchmark_group("compress");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.sample_size(10);
    for (name, compression) in [("gzip 6", Compression::Gzip(6)), ("zstd 3", Compression::Zstd(3))] {
        group.bench_function(format!("{name}, 16 MiB of text"), |bencher| {
            bencher.iter(|| {
                let mut encoder = Encoder::new(compression, std::io::sink()).unwrap();
                encoder.write_all(&text).unwrap();
                encoder.finish().unwrap()
            });
        });
    }
}

/// `count` files in directories of a hundred.
fn files(dir: &Path, count: usize, size: usize) {
    for number in 0..count {
        let parent = dir.join(format!("directory-{}", number / 100));
        fs::create_dir_all(&parent).unwrap();
        fs::write(parent.join(format!("file-{number}.c")), words(size, number as u64)).unwrap();
    }
}

/// Text that compresses about as well as source code does.
fn words(length: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "static ",
        "return ",
        "int ",
        "struct ",
        "name ",
        "= ",
        "(size)",
        ";\n",
        "{\n",
        "}\n",
        "while ",
        "/* why */ ",
        "const ",
        "->next ",
        "value ",
        "+ ",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(WORDS[(state % 16) as usize].as_bytes());
        if state & 0x700 == 0 {
            text.extend_from_slice(format!("{:x} ", state >> 40).as_bytes());
        }
    }
    text.truncate(length);
    text
}
