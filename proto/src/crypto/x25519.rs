//! Diffie-Hellman on Curve25519 (RFC 7748), by AWS-LC: the work of a circuit handshake is little else, and this takes a
//! third of the time of portable code.

use std::fmt;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

/// A secret key with its public half.
pub struct Secret {
    bytes: Zeroizing<[u8; 32]>,
    key: PrivateKey,
    public: [u8; 32],
}

impl Secret {
    /// The key with these bytes, which count as if they were clamped.
    pub fn new(bytes: &[u8; 32]) -> Secret {
        // Refused for another length only: RFC 7748 clamps whatever the bytes are.
        let key = PrivateKey::from_private_key(&X25519, bytes).expect("any 32 bytes are a secret key");
        // The library has computed it with the key, and hands it out as RFC 7748 has it: 32 bytes.
        let public = key.compute_public_key().expect("a secret key has a public half");
        let public = public.as_ref().try_into().expect("public keys have 32 bytes");
        Secret { bytes: Zeroizing::new(*bytes), key, public }
    }

    /// The bytes it was made of.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The public half.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The secret that only we and the owner of `theirs` know.
    pub fn agree(&self, theirs: &[u8; 32]) -> Shared {
        let mut shared = Zeroizing::new([0; 32]);
        let copy = |secret: &[u8]| {
            shared.copy_from_slice(secret);
            Ok(())
        };
        // It fails if the result is all zero, and then leaves that.
        let _ = agreement::agree(&self.key, UnparsedPublicKey::new(&X25519, theirs), (), copy);
        Shared(shared)
    }
}

impl Clone for Secret {
    fn clone(&self) -> Secret {
        Secret::new(&self.bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A shared secret.
pub struct Shared(Zeroizing<[u8; 32]>);

impl Shared {
    /// Its bytes: all zero unless [`is_contributory`](Self::is_contributory).
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it depends on our secret at all: not if the other side sent a point of low order.
    pub fn is_contributory(&self) -> Choice {
        !self.0.ct_eq(&[0; 32])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    /// RFC 7748, 6.1.
    #[test]
    fn agrees_with_the_rfc() {
        let alice = Secret::new(&bytes("77076d0a7318a57d3c16c17251b26645df4c2e9f4c2fb0ce0e0ea0f1ff3e0e1d"));
        let bob = Secret::new(&bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(bob.public(), &bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        assert_eq!(alice.agree(bob.public()).as_bytes(), bob.agree(alice.public()).as_bytes());
    }

    #[test]
    fn points_of_low_order_give_nothing() {
        let secret = Secret::new(&[7; 32]);
        for point in [
            [0; 32],
            {
                let mut one = [0; 32];
                one[0] = 1;
                one
            },
            // The prime itself, and one more.
            bytes("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            bytes("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            // Of order 8.
            bytes("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
            bytes("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        ] {
            let shared = secret.agree(&point);
            assert_eq!(shared.as_bytes(), &[0; 32]);
            assert!(!bool::from(shared.is_contributory()));
        }
        assert!(bool::from(secret.agree(Secret::new(&[8; 32]).public()).is_contributory()));
    }

    proptest! {
        #[test]
        fn agrees_with_another_implementation(secret: [u8; 32], theirs: [u8; 32]) {
            let ours = Secret::new(&secret);
            let other = x25519_dalek::StaticSecret::from(secret);
            prop_assert_eq!(*ours.public(), x25519_dalek::PublicKey::from(&other).to_bytes());
            let shared = other.diffie_hellman(&x25519_dalek::PublicKey::from(theirs));
            prop_assert_eq!(*ours.agree(&theirs).as_bytes(), shared.to_bytes());
        }
    }
}
