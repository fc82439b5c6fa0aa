//! Which relays can be reached.
//!
//! Every relay is tested as stock authorities do it: a link to its addresses on which it proves who it is
//! ([`link_test`]). [`schedule`] says when; [`results`] keeps what was found, for the votes; [`prober`] is the task that
//! carries the tests out.

pub mod counts;
mod link_test;
pub mod prober;
pub mod results;
pub mod schedule;

pub use prober::{Options, Paces, Prober, Relays, Setup};
pub use results::Reached;
