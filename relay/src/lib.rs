//! A thread-per-core onion-routing relay.

pub mod control;
pub mod engine;
pub mod exit;
pub mod io;
pub mod limits;
