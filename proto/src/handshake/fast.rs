//! CREATE_FAST: both sides send 20 random bytes, and TLS is all the protection they have (tor-spec 5.1.5).
//!
//! Clients use it for one-hop circuits to a relay whose onion key they do not know yet.

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::HandshakeError;
use crate::crypto::kdf::kdf_tor;
use crate::crypto::tor1::KeyMaterial;

/// Bytes that each side contributes.
pub const SHARE_LEN: usize = 20;

/// Bytes of the reply: the relay's share and KH.
pub const REPLY_LEN: usize = 40;

/// Answers a CREATE_FAST cell: `Y | KH`, and the keys of the circuit.
pub fn server(rng: &mut impl CryptoRng, x: &[u8; SHARE_LEN]) -> ([u8; REPLY_LEN], KeyMaterial) {
    let mut y = [0; SHARE_LEN];
    rng.fill_bytes(&mut y);
    let keys = derive(x, &y);
    let mut reply = [0; REPLY_LEN];
    reply[..SHARE_LEN].copy_from_slice(&y);
    reply[SHARE_LEN..].copy_from_slice(&keys.kh);
    (reply, keys)
}

/// The client's side under way.
pub struct Client {
    x: Zeroizing<[u8; SHARE_LEN]>,
}

impl Client {
    /// Starts a handshake; the second value goes into CREATE_FAST.
    pub fn start(rng: &mut impl CryptoRng) -> (Self, [u8; SHARE_LEN]) {
        let mut x = [0; SHARE_LEN];
        rng.fill_bytes(&mut x);
        (Self { x: Zeroizing::new(x) }, x)
    }

    /// Takes the reply, [`REPLY_LEN`] bytes.
    ///
    /// # Errors
    /// [`HandshakeError::Length`] or [`HandshakeError::Authentication`].
    pub fn finish(self, reply: &[u8]) -> Result<KeyMaterial, HandshakeError> {
        let reply: &[u8; REPLY_LEN] = reply.try_into().map_err(|_| HandshakeError::Length(reply.len()))?;
        let (y, kh) = reply.split_at(SHARE_LEN);
        let keys = derive(&self.x, y);
        if bool::from(keys.kh.ct_eq(kh)) { Ok(keys) } else { Err(HandshakeError::Authentication) }
    }
}

fn derive(x: &[u8; SHARE_LEN], y: &[u8]) -> KeyMaterial {
    kdf_tor(&Zeroizing::new([&x[..], y].concat()))
}
