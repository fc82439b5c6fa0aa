//! Which relays can be reached, and do what they should.
//!
//! Every relay is tested as stock authorities do it: a link to its addresses on which it proves who it is (`link_test`).
//! That shows nothing of its work. So it is also used as clients use it, anonymously, by circuits through other relays
//! ([`circuit_test`]): it must complete handshakes, extend, carry cells both ways, serve its directory and honour its exit
//! policy ([`exit_listener`]). [`schedule`] says whose turn it is; [`results`] keeps what was found, for the votes;
//! [`prober`] is the task that carries the tests out.

pub mod answer;
pub mod circuit_test;
pub mod counts;
pub mod exit_listener;
mod link_test;
pub mod prober;
#[cfg(test)]
mod puppet;
pub mod results;
pub mod schedule;

pub use counts::{Counts, Outcome, Test};
pub use prober::{ListenAt, Options, Paces, Prober, Relays, Setup, Standing};
pub use results::Reached;
