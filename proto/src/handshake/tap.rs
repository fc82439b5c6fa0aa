//! TAP: the handshake of the design paper. Half a Diffie-Hellman exchange encrypted to the relay's RSA onion key, the
//! other half and a hash of the key back (tor-spec 5.1.3).
//!
//! A library function with no place on the wire: every deployed relay refuses it, and so does
//! [`respond`](super::respond). Its security rests on 1024-bit groups.

use crypto_bigint::{U320, U1024};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::HandshakeError;
use crate::crypto::Keystream;
use crate::crypto::kdf::kdf_tor;
use crate::crypto::rsa::{RsaError, RsaPrivate, RsaPublic};
use crate::crypto::tor1::KeyMaterial;

/// Bytes of the client's message: 128 of RSA ciphertext, 58 of AES ciphertext.
pub const CLIENT_LEN: usize = 186;

/// Bytes of the relay's reply: g^y 128, KH 20.
pub const SERVER_LEN: usize = 148;

/// Bits of the RSA key.
const RSA_BITS: usize = 1024;

/// Bytes of a public value of the group.
const PUBLIC_LEN: usize = 128;

/// Bytes of the symmetric key at the start of the RSA plaintext.
const KEY_LEN: usize = 16;

/// Bytes of g^x that go with that key: what OAEP leaves of an RSA block.
const FIRST_LEN: usize = 70;

mod group {
    //! Oakley group 2 (RFC 2409, 6.2): the 1024-bit group with generator 2.

    use crypto_bigint::modular::ConstMontyForm;
    use crypto_bigint::{U320, U1024, const_monty_params};

    const_monty_params!(
        Prime,
        U1024,
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
         EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
         EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
        "The prime of the group."
    );

    type Element = ConstMontyForm<Prime, { U1024::LIMBS }>;

    /// `base` to the power of `exponent`, in constant time.
    pub(super) fn pow(base: &U1024, exponent: &U320) -> U1024 {
        Element::new(base).pow(exponent).retrieve()
    }

    /// Whether a public value leaves the shared secret open: neither 0, 1, -1 nor beyond the prime.
    pub(super) fn is_sound(public: &U1024) -> bool {
        *public > U1024::ONE && *public < Element::MODULUS.get().wrapping_sub(&U1024::ONE)
    }
}

/// One side's half of the Diffie-Hellman exchange.
struct Half {
    exponent: Zeroizing<U320>,
    public: [u8; PUBLIC_LEN],
}

impl Half {
    fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 40]);
        rng.fill_bytes(&mut *bytes);
        let exponent = Zeroizing::new(U320::from_be_slice(&*bytes));
        let public = to_bytes(&group::pow(&U1024::from_u8(2), &exponent));
        Self { exponent, public }
    }

    fn derive(&self, theirs: &[u8; PUBLIC_LEN]) -> Result<KeyMaterial, HandshakeError> {
        let theirs = U1024::from_be_slice(theirs);
        if !group::is_sound(&theirs) {
            return Err(HandshakeError::BadPublicKey);
        }
        let shared = Zeroizing::new(group::pow(&theirs, &self.exponent));
        Ok(kdf_tor(&*Zeroizing::new(to_bytes(&shared))))
    }
}

fn to_bytes(number: &U1024) -> [u8; PUBLIC_LEN] {
    let mut bytes = [0; PUBLIC_LEN];
    bytes.copy_from_slice(number.to_be_bytes().as_ref());
    bytes
}

/// Answers a client's message with `g^y | KH`, and gives the keys of the circuit. `onion_key` has 1024 bits.
///
/// # Errors
/// [`HandshakeError::Length`], [`HandshakeError::BadPublicKey`], or [`HandshakeError::Authentication`] if the message
/// does not decrypt.
pub fn server(
    rng: &mut impl CryptoRng,
    onion_key: &RsaPrivate,
    message: &[u8],
) -> Result<(Vec<u8>, KeyMaterial), HandshakeError> {
    let message: &[u8; CLIENT_LEN] = message.try_into().map_err(|_| HandshakeError::Length(message.len()))?;
    let (rsa, aes) = message.split_at(RSA_BITS / 8);
    let plaintext = onion_key.decrypt_oaep(rng, rsa).map_err(|_| HandshakeError::Authentication)?;
    let plaintext: &[u8; KEY_LEN + FIRST_LEN] =
        plaintext.as_slice().try_into().map_err(|_| HandshakeError::Authentication)?;
    let (key, first) = plaintext.split_first_chunk::<KEY_LEN>().expect("the array is longer than the key");
    let mut gx = [0; PUBLIC_LEN];
    gx[..FIRST_LEN].copy_from_slice(first);
    gx[FIRST_LEN..].copy_from_slice(aes);
    Keystream::new(key).apply(&mut gx[FIRST_LEN..]);
    let half = Half::generate(rng);
    let keys = half.derive(&gx)?;
    Ok(([&half.public[..], &keys.kh].concat(), keys))
}

/// The client's side under way.
pub struct Client(Half);

impl Client {
    /// Starts a handshake with the relay that has this onion key; the second value is the message to send.
    ///
    /// # Errors
    /// [`RsaError::ModulusSize`] if the key does not have 1024 bits.
    pub fn start(rng: &mut impl CryptoRng, onion_key: &RsaPublic) -> Result<(Self, Vec<u8>), RsaError> {
        if onion_key.bits() != RSA_BITS {
            return Err(RsaError::ModulusSize(onion_key.bits()));
        }
        let half = Half::generate(rng);
        let mut plaintext = Zeroizing::new([0; KEY_LEN + FIRST_LEN]);
        let (key, first) =
            plaintext.split_first_chunk_mut::<KEY_LEN>().expect("the array is longer than the key");
        rng.fill_bytes(key);
        first.copy_from_slice(&half.public[..FIRST_LEN]);
        let mut rest = half.public[FIRST_LEN..].to_vec();
        Keystream::new(key).apply(&mut rest);
        let mut message = onion_key.encrypt_oaep(rng, &*plaintext)?;
        message.append(&mut rest);
        Ok((Self(half), message))
    }

    /// Takes the reply.
    ///
    /// # Errors
    /// [`HandshakeError::Length`], [`HandshakeError::BadPublicKey`] or [`HandshakeError::Authentication`].
    pub fn finish(self, reply: &[u8]) -> Result<KeyMaterial, HandshakeError> {
        let reply: &[u8; SERVER_LEN] = reply.try_into().map_err(|_| HandshakeError::Length(reply.len()))?;
        let (gy, kh) = reply.split_first_chunk::<PUBLIC_LEN>().expect("the reply is longer than g^y");
        let keys = self.0.derive(gy)?;
        if bool::from(keys.kh.ct_eq(kh)) { Ok(keys) } else { Err(HandshakeError::Authentication) }
    }
}
