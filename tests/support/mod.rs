//! What several tests need. Each test program uses a part of it.
#![allow(dead_code)]

pub mod archive;
pub mod layout;
pub mod mapped;
