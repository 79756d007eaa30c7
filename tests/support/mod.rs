//! What several tests need. Each test program uses a part of it.
#![allow(dead_code)]

pub mod archive;
pub mod authority;
pub mod base;
pub mod browser;
pub mod container;
pub mod debian;
pub mod identity;
pub mod image;
pub mod inner;
pub mod layout;
pub mod mapped;
pub mod offer;
pub mod processes;
pub mod random;
pub mod registry;
pub mod schema;
pub mod server;
pub mod space;
pub mod terminal;
pub mod undisturbed;
pub mod unpacked;
pub mod volume;
pub mod watched;
pub mod writer;

/// Set where tests that need subordinate ids may be left out, which otherwise is a failure.
pub const ALLOW_SKIP: &str = "STACKER_TEST_ALLOW_SKIP";

/// Says that a test, or a part of it, cannot run on this machine, also where a test that passes says nothing.
pub fn skipped(why: &str) {
    use std::io::Write;
    // Other than eprintln, this is not captured.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
