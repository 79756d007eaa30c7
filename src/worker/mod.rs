//! What runs inside the user namespace.

pub mod message;
