//! A thread-per-core onion-routing relay.

pub mod exit;
pub mod io;
pub mod limits;
