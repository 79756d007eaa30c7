//! What runs inside the user namespace.

pub mod message;
pub mod sandbox;
