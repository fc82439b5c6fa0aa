//! Every bound of the protocol crate, in one place.
//!
//! What happens at each limit is written beside it.

/// RELAY_EARLY cells a circuit may carry outbound (tor-spec 5.6); one more closes the circuit.
pub const RELAY_EARLY_PER_CIRCUIT: u8 = 8;

/// Bytes of the body of a variable-length cell we accept; a longer one closes the link at its header. The largest in
/// use, CERTS of C tor, has about 3 KiB.
pub const VARIABLE_CELL_BODY: usize = 16 * 1024;
