//! The onion-routing protocol without I/O.
//!
//! Nothing here touches a socket, a clock, a thread, a file or the operating system's randomness: time
//! ([`time`]), random numbers and configuration come in as arguments. That is what lets one implementation run in
//! a deterministic simulation, in a relay that is sharded over cores, and in the other programs.
//!
//! Errors come in three kinds that are never mixed: what a peer did wrong (one type per module, mapped to the wire
//! in one place), misuse of an interface by our own code (an assertion), and a limit that was reached.
#![forbid(unsafe_code)]
// Tests may read vectors and start the stock tor (clippy.toml).
#![cfg_attr(test, allow(clippy::disallowed_types, clippy::disallowed_methods))]

pub mod build_times;
pub mod cell;
pub mod circuit;
pub mod crypto;
pub mod dir;
pub mod flow;
pub mod guard;
pub mod handshake;
pub mod limits;
pub mod link;
pub mod netdoc;
pub mod origin;
pub mod path;
pub mod policy;
pub mod rate;
pub mod relay_msg;
pub mod rotation;
pub mod socks;
pub mod state_file;
pub mod stream;
pub mod time;
pub mod torrc;
