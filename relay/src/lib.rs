//! A thread-per-core onion-routing relay.

pub mod io;
pub mod limits;
