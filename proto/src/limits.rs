//! Every bound of the protocol crate, in one place.
//!
//! What happens at each limit is written beside it.

/// RELAY_EARLY cells a circuit may carry outbound (tor-spec 5.6); one more closes the circuit.
pub const RELAY_EARLY_PER_CIRCUIT: u8 = 8;
