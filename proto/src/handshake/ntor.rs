//! ntor: a one-way authenticated Curve25519 handshake (tor-spec 5.1.4).
//!
//! The client knows the relay's RSA identity and onion key B and sends a fresh X; the relay answers with a fresh Y
//! and a proof that it knows both the secret of B and X.

use hmac::{Hmac, KeyInit, Mac};
use rand_core::CryptoRng;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::HandshakeError;
use super::keys::{OnionKey, OnionKeyRing};
use crate::crypto::kdf::hkdf_expand;
use crate::crypto::tor1::KeyMaterial;
use crate::crypto::x25519::Shared;

const PROTOID: &[u8] = b"ntor-curve25519-sha256-1";
const T_MAC: &[u8] = b"ntor-curve25519-sha256-1:mac";
const T_KEY: &[u8] = b"ntor-curve25519-sha256-1:key_extract";
const T_VERIFY: &[u8] = b"ntor-curve25519-sha256-1:verify";
const M_EXPAND: &[u8] = b"ntor-curve25519-sha256-1:key_expand";

/// Bytes of the client's message: NODEID 20, KEYID 32, X 32.
pub const CLIENT_LEN: usize = 84;

/// Bytes of the relay's reply: Y 32, AUTH 32.
pub const SERVER_LEN: usize = 64;

/// Answers a client's message with `Y | AUTH`, and gives the keys of the circuit.
///
/// A message for an unknown onion key is answered too, with an AUTH that no client accepts: an error would tell the
/// time from which on a key is not known any more.
///
/// # Errors
/// [`HandshakeError::Length`], [`HandshakeError::WrongIdentity`] or [`HandshakeError::BadPublicKey`].
pub fn server(
    rng: &mut impl CryptoRng,
    rsa_id: &[u8; 20],
    keys: &OnionKeyRing,
    message: &[u8],
) -> Result<(Vec<u8>, KeyMaterial), HandshakeError> {
    let message: &[u8; CLIENT_LEN] = message.try_into().map_err(|_| HandshakeError::Length(message.len()))?;
    let (node_id, rest) = message.split_at(20);
    if !bool::from(node_id.ct_eq(rsa_id)) {
        return Err(HandshakeError::WrongIdentity);
    }
    let (key_id, x) = halves(rest);
    let (onion_key, _) = keys.find(&key_id);
    let ephemeral = OnionKey::generate(rng);
    let y = ephemeral.public();
    let exchange = Exchange { node_id: rsa_id, b: onion_key.public(), x: &x, y };
    let (auth, keys) = exchange.derive(&ephemeral.agree(&x), &onion_key.agree(&x))?;
    Ok(([&y[..], &auth].concat(), keys))
}

/// The client's side under way.
pub struct Client {
    rsa_id: [u8; 20],
    onion_key: [u8; 32],
    ephemeral: OnionKey,
}

impl Client {
    /// Starts a handshake with the relay of this identity and ntor onion key; the second value is HDATA of CREATE2 or
    /// EXTEND2.
    pub fn start(rng: &mut impl CryptoRng, rsa_id: &[u8; 20], onion_key: &[u8; 32]) -> (Self, Vec<u8>) {
        let ephemeral = OnionKey::generate(rng);
        let message = [&rsa_id[..], onion_key, ephemeral.public()].concat();
        (Self { rsa_id: *rsa_id, onion_key: *onion_key, ephemeral }, message)
    }

    /// Takes the reply.
    ///
    /// # Errors
    /// [`HandshakeError::Length`], [`HandshakeError::BadPublicKey`] or [`HandshakeError::Authentication`].
    pub fn finish(self, reply: &[u8]) -> Result<KeyMaterial, HandshakeError> {
        let reply: &[u8; SERVER_LEN] = reply.try_into().map_err(|_| HandshakeError::Length(reply.len()))?;
        let (y, auth) = halves(reply);
        let exchange =
            Exchange { node_id: &self.rsa_id, b: &self.onion_key, x: self.ephemeral.public(), y: &y };
        let with_y = self.ephemeral.agree(&y);
        let with_b = self.ephemeral.agree(&self.onion_key);
        let (expected, keys) = exchange.derive(&with_y, &with_b)?;
        if bool::from(expected.ct_eq(&auth)) { Ok(keys) } else { Err(HandshakeError::Authentication) }
    }
}

/// The public values of one handshake.
struct Exchange<'a> {
    node_id: &'a [u8; 20],
    b: &'a [u8; 32],
    x: &'a [u8; 32],
    y: &'a [u8; 32],
}

impl Exchange<'_> {
    /// AUTH and the keys, from the shared secrets `xy` and `xb`. Fails if one of them is all zero.
    fn derive(&self, xy: &Shared, xb: &Shared) -> Result<([u8; 32], KeyMaterial), HandshakeError> {
        let Self { node_id, b, x, y } = self;
        let secret_input: [&[u8]; 7] =
            [xy.as_bytes(), xb.as_bytes(), &node_id[..], &b[..], &x[..], &y[..], PROTOID];
        let verify = Zeroizing::new(mac(T_VERIFY, &secret_input));
        let key_seed = Zeroizing::new(mac(T_KEY, &secret_input));
        let auth = mac(T_MAC, &[&verify[..], &node_id[..], &b[..], &y[..], &x[..], PROTOID, b"Server"]);
        let keys = hkdf_expand(&key_seed, M_EXPAND);
        if bool::from(xy.is_contributory() & xb.is_contributory()) {
            Ok((auth, keys))
        } else {
            Err(HandshakeError::BadPublicKey)
        }
    }
}

/// Splits 64 bytes into two keys.
fn halves(bytes: &[u8]) -> ([u8; 32], [u8; 32]) {
    let mut halves = [[0; 32]; 2];
    for (half, bytes) in halves.iter_mut().zip(bytes.chunks_exact(32)) {
        half.copy_from_slice(bytes);
    }
    halves.into()
}

/// HMAC-SHA256 of the parts in a row, keyed with the tweak.
fn mac(tweak: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A key longer than a block is hashed, a shorter one padded (RFC 2104); the error is of the trait, for other MACs.
    let mut mac = Hmac::<Sha256>::new_from_slice(tweak).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
