//! A listing says what a layer's change, or an import tree, holds: one line for each entry, sorted as its tar will be.
//!
//! Whoever wants to know what is in an image reads listings; nobody walks trees for it.

mod entry;

pub use entry::{Entry, Kind, Time};
