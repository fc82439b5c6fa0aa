//! The cryptography that is Tor's own: everything a standard crate does not already offer under its standard name.

pub mod ed25519;
pub mod kdf;
mod keystream;
pub mod rsa;
pub mod tor1;
pub mod x25519;

pub(crate) use keystream::{Keystream, aes256_ctr};
