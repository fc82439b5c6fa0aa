//! Every bound of this crate, in one place.
//!
//! What happens at each limit is written beside it.

/// Nested `%include` lines, as in C tor; deeper ones are an error.
pub const INCLUDE_DEPTH: usize = 31;

/// Files that one torrc may bring in through `%include`, so that files which include each other many times over cannot
/// occupy the program; more are an error.
pub const INCLUDED_FILES: usize = 1_000;

/// Bytes of one configuration file; a longer one is an error, read no further.
pub const TORRC_BYTES: u64 = 8 << 20;

/// Bytes of one key file; a longer one is an error, read no further. The largest in use, an RSA key, has 900.
pub const KEY_FILE_BYTES: u64 = 16 << 10;
