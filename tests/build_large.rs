//! A file that is larger than memory may be and than 32 bits can count.

mod support;

use support::space::{Run, Space};

const HOLE: u64 = 5 << 30;
const END: &str = "the end";

/// As a user builds, with processes that may have two gigabytes each. (One arena: else the C library reserves address
/// space for each of many cores.) zstd is the quickest.
fn build(space: &Space) -> Run {
    let limits = ["env", "MALLOC_ARENA_MAX=1", "prlimit", "--as=2147483648"];
    space.stacker_under(&limits, &["build", "--compression", "zstd", "--compression-level", "1"]).ends_with(0)
}

#[test]
fn a_large_sparse_file_goes_into_a_layer_and_comes_out() {
    let space = Space::new();
    space.stackerfile(&format!(
        "large: {{from: {{type: built, tag: base}}, run: 'truncate -s {HOLE} /large; printf \"{END}\" >> /large'}}\n"
    ));
    let first = build(&space);
    first.built(&["base", "large"]);
    let second = build(&space);
    second.built(&[]);
    assert_eq!(second.image("large"), first.image("large"));
    // It takes no place, neither as it was written nor compressed.
    let size = |directory| {
        let output = std::process::Command::new("du").arg("-sk").arg(directory).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let kilobytes = size(space.roots_dir()) + size(space.stacker_dir()) + size(space.path("oci"));
    assert!(kilobytes < 100_000, "{kilobytes} KiB");

    let other = Space::new();
    let layout = space.path("oci").display().to_string();
    let script = "stat -c %s /large > /seen; tail -c 8 /large | tr '\\0' 0 >> /seen";
    other.write(
        "stacker.yaml",
        format!("look:\n  from: {{type: oci, url: '{layout}:large'}}\n  run: |\n    {script}\n"),
    );
    build(&other).built(&["look"]);
    assert_eq!(other.file("look", "seen").unwrap(), format!("{}\n0{END}", HOLE + END.len() as u64));
}
