//! What several tests need. Each test program uses a part of it.
#![allow(dead_code)]

pub mod archive;
pub mod base;
pub mod identity;
pub mod inner;
pub mod layout;
pub mod mapped;
pub mod space;

/// Set where tests that need subordinate ids may be left out, which otherwise is a failure.
pub const ALLOW_SKIP: &str = "STACKER_TEST_ALLOW_SKIP";
