//! Cells: the unit that links exchange (tor-spec 3).

/// Bytes of the body of a fixed-size cell.
pub const BODY_LEN: usize = 509;

/// The body of a fixed-size cell.
pub type Body = [u8; BODY_LEN];
