//! Stackerfiles as text become stackerfiles as data; several mistakes are reported in one go, each with its place.

mod model;

pub use model::{Base, ImageSettings, Import, Layer, Place, Source, Stackerfile};
