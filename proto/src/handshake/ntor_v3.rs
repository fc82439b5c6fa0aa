//! ntor-v3: ntor with the relay's Ed25519 identity, and an encrypted message in both directions (proposal 332).
//!
//! The client's message is readable for who holds the onion key, from the first cell on; the relay's is as secret as
//! the circuit. Both carry [`Extensions`].

use rand_core::CryptoRng;
use sha3::{Digest, Sha3_256};
use shake::{ExtendableOutput, Shake256, Shake256Reader, Update, XofReader};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::extension::Extensions;
use super::keys::{OnionKey, OnionKeyRing};
use super::{HandshakeError, Terms};
use crate::crypto::tor1::KeyMaterial;
use crate::crypto::x25519::Shared;
use crate::crypto::{aes256_ctr, kdf};
use crate::limits::CREATE2_DATA;

#[cfg(test)]
mod tests;

const PROTOID: &[u8] = b"ntor3-curve25519-sha3_256-1";
const T_MSGKDF: &[u8] = b"ntor3-curve25519-sha3_256-1:kdf_phase1";
const T_MSGMAC: &[u8] = b"ntor3-curve25519-sha3_256-1:msg_mac";
const T_KEY_SEED: &[u8] = b"ntor3-curve25519-sha3_256-1:key_seed";
const T_VERIFY: &[u8] = b"ntor3-curve25519-sha3_256-1:verify";
const T_FINAL: &[u8] = b"ntor3-curve25519-sha3_256-1:kdf_final";
const T_AUTH: &[u8] = b"ntor3-curve25519-sha3_256-1:auth_final";

/// What binds the handshake to its use (VER).
const CIRCUIT_EXTEND: &[u8] = b"circuit extend";

/// Bytes of the client's message beside the encrypted part: ID, B, X and MSG_MAC of 32 bytes each.
const CLIENT_OVERHEAD: usize = 128;

/// Answers a client's message with `Y | AUTH | encrypted reply`, and gives the keys of the circuit. `answer` makes the
/// relay's list of extensions from the client's, or refuses.
///
/// # Errors
/// [`HandshakeError::Length`], [`HandshakeError::WrongIdentity`], [`HandshakeError::UnknownOnionKey`],
/// [`HandshakeError::BadPublicKey`], [`HandshakeError::Authentication`],
/// [`HandshakeError::MalformedExtensions`], and what `answer` returns.
pub fn server(
    rng: &mut impl CryptoRng,
    ed_id: &[u8; 32],
    keys: &OnionKeyRing,
    message: &[u8],
    answer: impl FnOnce(&Extensions<'_>) -> Result<Vec<u8>, HandshakeError>,
) -> Result<(Vec<u8>, KeyMaterial), HandshakeError> {
    let (request, opened) = open(ed_id, keys, message, CIRCUIT_EXTEND)?;
    let answer = answer(&Extensions::parse(&request)?)?;
    let (reply, mut stream) = opened.reply(rng, &answer, CIRCUIT_EXTEND)?;
    Ok((reply, kdf::xof(&mut stream)))
}

/// The client's side under way.
pub struct Client {
    sent: Sent,
    asked: Terms,
}

impl Client {
    /// Starts a handshake with the relay of this Ed25519 identity and ntor onion key, asking for no extension. The
    /// second value is HDATA of CREATE2 or EXTEND2.
    pub fn start(rng: &mut impl CryptoRng, ed_id: &[u8; 32], onion_key: &[u8; 32]) -> (Self, Vec<u8>) {
        Self::start_asking(rng, ed_id, onion_key, Terms::default())
    }

    /// The same, asking for terms.
    pub fn start_asking(
        rng: &mut impl CryptoRng,
        ed_id: &[u8; 32],
        onion_key: &[u8; 32],
        asked: Terms,
    ) -> (Self, Vec<u8>) {
        let (sent, message) = start(rng, ed_id, onion_key, &asked.request(), CIRCUIT_EXTEND);
        (Self { sent, asked }, message)
    }

    /// What the client has asked for.
    pub fn asked(&self) -> Terms {
        self.asked
    }

    /// Takes the reply: the keys, and the relay's list of extensions still to be parsed.
    ///
    /// # Errors
    /// [`HandshakeError::Length`], [`HandshakeError::BadPublicKey`] or [`HandshakeError::Authentication`].
    pub fn finish(self, reply: &[u8]) -> Result<(KeyMaterial, Vec<u8>), HandshakeError> {
        let (mut stream, message) = self.sent.finish(reply, CIRCUIT_EXTEND)?;
        Ok((kdf::xof(&mut stream), message))
    }
}

/// The public values that both sides know after the first message.
struct Known {
    ed_id: [u8; 32],
    b: [u8; 32],
    x: [u8; 32],
}

impl Known {
    /// Keys of the client's message: for encryption and for its MAC.
    fn message_keys(&self, bx: &Shared, verification: &[u8]) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
        let mut stream = xof(
            T_MSGKDF,
            &[bx.as_bytes(), &self.ed_id, &self.x, &self.b, PROTOID, &length(verification), verification],
        );
        (read_key(&mut stream), read_key(&mut stream))
    }

    /// MAC over the client's message.
    fn message_mac(&self, key: &[u8; 32], encrypted: &[u8]) -> [u8; 32] {
        hash(T_MSGMAC, &[&length(key), key, &self.ed_id, &self.b, &self.x, encrypted])
    }

    /// What the two shared secrets give.
    fn agree(&self, yx: &Shared, bx: &Shared, y: &[u8; 32], verification: &[u8]) -> Agreed {
        let Self { ed_id, b, x } = self;
        let secret_input: [&[u8]; 8] =
            [yx.as_bytes(), bx.as_bytes(), ed_id, b, x, y, PROTOID, &length(verification)];
        let secret_input = [&secret_input[..], &[verification]].concat();
        let key_seed = Zeroizing::new(hash(T_KEY_SEED, &secret_input));
        let verify = Zeroizing::new(hash(T_VERIFY, &secret_input));
        let mut stream = xof(T_FINAL, &[&key_seed[..]]);
        Agreed { verify, message_key: read_key(&mut stream), stream }
    }

    /// The relay's proof.
    fn auth(&self, verify: &[u8; 32], y: &[u8; 32], message_mac: &[u8; 32], encrypted: &[u8]) -> [u8; 32] {
        let Self { ed_id, b, x } = self;
        hash(
            T_AUTH,
            &[verify, ed_id, b, y, x, message_mac, &length(encrypted), encrypted, PROTOID, b"Server"],
        )
    }
}

/// Secrets of a finished exchange.
struct Agreed {
    verify: Zeroizing<[u8; 32]>,
    /// Encrypts the relay's message.
    message_key: Zeroizing<[u8; 32]>,
    /// Goes on with the keys of the circuit.
    stream: Shake256Reader,
}

/// A client's message at the relay, authenticated and decrypted.
struct Opened {
    known: Known,
    message_mac: [u8; 32],
    bx: Shared,
}

/// Reads a client's message. All checks are made before any of them is acted on.
fn open(
    ed_id: &[u8; 32],
    keys: &OnionKeyRing,
    message: &[u8],
    verification: &[u8],
) -> Result<(Vec<u8>, Opened), HandshakeError> {
    let too_short = HandshakeError::Length(message.len());
    let (id, rest) = message.split_first_chunk::<32>().ok_or(too_short)?;
    let (key_id, rest) = rest.split_first_chunk::<32>().ok_or(too_short)?;
    let (x, rest) = rest.split_first_chunk::<32>().ok_or(too_short)?;
    let (encrypted, message_mac) = rest.split_last_chunk::<32>().ok_or(too_short)?;

    let (onion_key, key_known) = keys.find(key_id);
    let bx = onion_key.agree(x);
    let known = Known { ed_id: *ed_id, b: *onion_key.public(), x: *x };
    let (message_key, mac_key) = known.message_keys(&bx, verification);
    let authentic = known.message_mac(&mac_key, encrypted).ct_eq(message_mac);
    let id_is_ours = id.ct_eq(ed_id);

    // One branch for all failures; which one it was only says what everybody knows or the peer sent.
    if !bool::from(id_is_ours & key_known & bx.is_contributory() & authentic) {
        return Err(if !bool::from(id_is_ours) {
            HandshakeError::WrongIdentity
        } else if !bool::from(key_known) {
            HandshakeError::UnknownOnionKey
        } else if !bool::from(bx.is_contributory()) {
            HandshakeError::BadPublicKey
        } else {
            HandshakeError::Authentication
        });
    }
    let mut request = encrypted.to_vec();
    aes256_ctr(&message_key, &mut request);
    Ok((request, Opened { known, message_mac: *message_mac, bx }))
}

impl Opened {
    /// The relay's reply with `message` in it, and the stream of key material.
    fn reply(
        self,
        rng: &mut impl CryptoRng,
        message: &[u8],
        verification: &[u8],
    ) -> Result<(Vec<u8>, Shake256Reader), HandshakeError> {
        let ephemeral = OnionKey::generate(rng);
        let y = ephemeral.public();
        let yx = ephemeral.agree(&self.known.x);
        if !bool::from(yx.is_contributory()) {
            return Err(HandshakeError::BadPublicKey);
        }
        let agreed = self.known.agree(&yx, &self.bx, y, verification);
        let mut encrypted = message.to_vec();
        aes256_ctr(&agreed.message_key, &mut encrypted);
        let auth = self.known.auth(&agreed.verify, y, &self.message_mac, &encrypted);
        Ok(([&y[..], &auth, &encrypted].concat(), agreed.stream))
    }
}

/// What a client remembers of its message.
struct Sent {
    known: Known,
    message_mac: [u8; 32],
    bx: Shared,
    ephemeral: OnionKey,
}

/// A client's message with `request` in it.
fn start(
    rng: &mut impl CryptoRng,
    ed_id: &[u8; 32],
    onion_key: &[u8; 32],
    request: &[u8],
    verification: &[u8],
) -> (Sent, Vec<u8>) {
    debug_assert!(CLIENT_OVERHEAD + request.len() <= CREATE2_DATA);
    let ephemeral = OnionKey::generate(rng);
    let bx = ephemeral.agree(onion_key);
    let known = Known { ed_id: *ed_id, b: *onion_key, x: *ephemeral.public() };
    let (message_key, mac_key) = known.message_keys(&bx, verification);
    let mut encrypted = request.to_vec();
    aes256_ctr(&message_key, &mut encrypted);
    let message_mac = known.message_mac(&mac_key, &encrypted);
    let message = [&ed_id[..], onion_key, &known.x, &encrypted, &message_mac].concat();
    (Sent { known, message_mac, bx, ephemeral }, message)
}

impl Sent {
    /// The stream of key material, and the relay's message.
    fn finish(self, reply: &[u8], verification: &[u8]) -> Result<(Shake256Reader, Vec<u8>), HandshakeError> {
        let too_short = HandshakeError::Length(reply.len());
        let (y, rest) = reply.split_first_chunk::<32>().ok_or(too_short)?;
        let (auth, encrypted) = rest.split_first_chunk::<32>().ok_or(too_short)?;
        let yx = self.ephemeral.agree(y);
        let agreed = self.known.agree(&yx, &self.bx, y, verification);
        let expected = self.known.auth(&agreed.verify, y, &self.message_mac, encrypted);
        if !bool::from(yx.is_contributory() & self.bx.is_contributory()) {
            return Err(HandshakeError::BadPublicKey);
        }
        if !bool::from(expected.ct_eq(auth)) {
            return Err(HandshakeError::Authentication);
        }
        let mut message = encrypted.to_vec();
        aes256_ctr(&agreed.message_key, &mut message);
        Ok((agreed.stream, message))
    }
}

/// The length that goes before a value of variable length (ENCAP).
fn length(value: &[u8]) -> [u8; 8] {
    (value.len() as u64).to_be_bytes()
}

/// SHA3-256 of the parts in a row, under a tweak.
fn hash(tweak: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha3_256::new().chain_update(length(tweak)).chain_update(tweak);
    parts.iter().for_each(|part| Digest::update(&mut hash, part));
    hash.finalize().into()
}

/// SHAKE-256 over the parts in a row, under a tweak.
fn xof(tweak: &[u8], parts: &[&[u8]]) -> Shake256Reader {
    let mut hash = Shake256::default();
    hash.update(&length(tweak));
    hash.update(tweak);
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize_xof()
}

fn read_key(stream: &mut Shake256Reader) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    stream.read(&mut *key);
    key
}
