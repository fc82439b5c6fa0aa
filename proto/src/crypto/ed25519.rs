//! Ed25519 as Tor uses it: key pairs in expanded form, and keys that double as Curve25519 keys.
//!
//! C tor's key files hold the 64 expanded bytes (scalar, then the half that seeds nonces) and not the 32-byte seed,
//! and a relay signs one certificate with its Curve25519 onion key. Both rule out a seed as the form of a key pair.

use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::clamp_integer;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, VerifyingKey};
use rand_core::CryptoRng;
use sha2::{Digest, Sha512};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a public key.
pub const PUBLIC_LEN: usize = 32;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// The signature is not one of this key over these bytes, or the key is no point of large order on the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("Ed25519 signature does not verify")]
pub struct BadSignature;

/// An Ed25519 key pair. The secret half is zeroized on drop.
#[derive(Clone)]
pub struct Ed25519Pair {
    secret: Zeroizing<[u8; 64]>,
    public: VerifyingKey,
}

impl Ed25519Pair {
    /// Makes a new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Ed25519Pair {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Ed25519Pair::from_seed(&seed)
    }

    /// The key pair of a 32-byte seed (RFC 8032, 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Ed25519Pair {
        let mut expanded = Zeroizing::new([0; 64]);
        expanded.copy_from_slice(&Sha512::digest(seed));
        if let Some(scalar) = expanded.first_chunk_mut::<32>() {
            *scalar = clamp_integer(*scalar);
        }
        Ed25519Pair::from_expanded(&expanded)
    }

    /// The key pair of an expanded secret, the form in C tor's key files: 32 bytes of clamped scalar, 32 bytes that
    /// nonces are derived from. The two must have come out of one hash: a scalar with someone else's second half
    /// leaks through its signatures.
    pub fn from_expanded(secret: &[u8; 64]) -> Ed25519Pair {
        let public = VerifyingKey::from(&ExpandedSecretKey::from_bytes(secret));
        Ed25519Pair { secret: Zeroizing::new(*secret), public }
    }

    /// The Ed25519 key pair of a Curve25519 secret key, and the sign bit that a verifier needs beside the Curve25519
    /// public key to find the same public key, see [`public_from_curve25519`] (dir-spec 2.1.1,
    /// "ntor-onion-key-crosscert").
    pub fn from_curve25519(secret: &[u8; 32]) -> (Ed25519Pair, u8) {
        let scalar = Zeroizing::new(clamp_integer(*secret));
        let hash = Sha512::new()
            .chain_update(scalar.as_slice())
            .chain_update(b"Derive high part of ed25519 key from curve25519 key\0")
            .finalize();
        let mut expanded = Zeroizing::new([0; 64]);
        expanded[..32].copy_from_slice(&*scalar);
        expanded[32..].copy_from_slice(&hash[..32]);
        let pair = Ed25519Pair::from_expanded(&expanded);
        let sign = pair.public()[31] >> 7;
        (pair, sign)
    }

    /// The expanded secret, as [`from_expanded`](Self::from_expanded) takes it.
    pub fn expanded(&self) -> &[u8; 64] {
        &self.secret
    }

    /// The public key.
    pub fn public(&self) -> [u8; PUBLIC_LEN] {
        self.public.to_bytes()
    }

    /// Signs `message` (RFC 8032, plain Ed25519).
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let secret = ExpandedSecretKey::from_bytes(&self.secret);
        raw_sign::<Sha512>(&secret, message, &self.public).to_bytes()
    }
}

/// Verifies a plain Ed25519 signature, refusing keys of small order, with which anyone can sign.
pub fn verify(
    public: &[u8; PUBLIC_LEN],
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), BadSignature> {
    VerifyingKey::from_bytes(public)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .map_err(|_| BadSignature)
}

/// The Ed25519 public key that belongs to a Curve25519 public key with this sign bit (0 or 1); `None` if there is no
/// such point.
pub fn public_from_curve25519(public: &[u8; 32], sign: u8) -> Option<[u8; PUBLIC_LEN]> {
    Some(MontgomeryPoint(*public).to_edwards(sign)?.compress().to_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc8032_vector_2() {
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let pair = Ed25519Pair::from_seed(seed[..].try_into().unwrap());
        assert_eq!(
            hex::encode(pair.public()),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        assert_eq!(
            hex::encode(pair.sign(&[0x72])),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // With the neutral element as key and as R, and S = 0, the plain equation holds for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert_eq!(verify(&neutral, b"anything", &signature), Err(BadSignature));
    }

    proptest! {
        #[test]
        fn signatures_verify_and_expanded_secrets_round_trip(seed: [u8; 32], message: Vec<u8>, flip in 0usize..64) {
            let pair = Ed25519Pair::from_seed(&seed);
            let again = Ed25519Pair::from_expanded(pair.expanded());
            prop_assert_eq!(pair.public(), again.public());
            let mut signature = again.sign(&message);
            prop_assert_eq!(verify(&pair.public(), &message, &signature), Ok(()));
            signature[flip] ^= 1;
            prop_assert_eq!(verify(&pair.public(), &message, &signature), Err(BadSignature));
        }

        #[test]
        fn curve25519_keys_convert_alike_from_both_halves(secret: [u8; 32]) {
            let (pair, sign) = Ed25519Pair::from_curve25519(&secret);
            let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret));
            prop_assert_eq!(public_from_curve25519(public.as_bytes(), sign), Some(pair.public()));
            prop_assert_ne!(public_from_curve25519(public.as_bytes(), 1 - sign), Some(pair.public()));
        }

        #[test]
        fn arbitrary_keys_never_panic(public: [u8; 32], message: Vec<u8>, tail: [u8; 32], sign in 0u8..2) {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&public);
            signature[32..].copy_from_slice(&tail);
            let _ = verify(&public, &message, &signature);
            let _ = public_from_curve25519(&public, sign);
        }
    }
}
