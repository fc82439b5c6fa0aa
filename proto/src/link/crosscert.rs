//! The certificate by which a relay's RSA identity vouches for its Ed25519 identity (cert-spec 2.3, CERTS type 7).
//!
//! ```text
//! Ed25519 identity 32   expiration 4 (hours since the epoch)   signature length 1   signature
//! ```
//!
//! The signature is bare RSA over the SHA-256 of a fixed string and the first 36 bytes.

use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::crypto::rsa::{RsaError, RsaPrivate, RsaPublic};
use crate::time::Unix;

const PREFIX: &[u8] = b"Tor TLS RSA/Ed25519 cross-certificate";
const SIGNED_LEN: usize = 32 + 4;
const SECONDS_PER_HOUR: u64 = 3600;

/// Why a cross-certificate was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CrossCertError {
    /// Its length does not match its contents.
    #[error("RSA cross-certificate of {0} bytes does not have the length its contents announce")]
    Length(usize),
    /// It vouches for another key than the peer's Ed25519 identity.
    #[error("RSA cross-certificate vouches for another Ed25519 identity")]
    WrongKey,
    /// The RSA signature does not verify.
    #[error(transparent)]
    Signature(#[from] RsaError),
    /// Its time is over.
    #[error("RSA cross-certificate expired at {} (Unix time), it is {}", expires.0, now.0)]
    Expired {
        /// The last second of its life.
        expires: Unix,
        /// The time it was checked at.
        now: Unix,
    },
}

/// Makes the cross-certificate, valid at least until `expires`, which is rounded up to a whole hour.
pub fn build(
    rsa: &RsaPrivate,
    ed_identity: &[u8; 32],
    expires: Unix,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, RsaError> {
    let hours = u32::try_from(expires.0.div_ceil(SECONDS_PER_HOUR)).unwrap_or(u32::MAX);
    let mut out = ed_identity.to_vec();
    out.extend(hours.to_be_bytes());
    let signature = rsa.sign_bare(&digest(&out), rng)?;
    // Identity keys have 1024 bits, which makes 128; the field could hold 255.
    out.push(u8::try_from(signature.len()).map_err(|_| RsaError::ModulusSize(signature.len() * 8))?);
    out.extend(signature);
    Ok(out)
}

/// Checks that `rsa` vouches for `ed_identity`, and still does.
pub fn verify(
    bytes: &[u8],
    rsa: &RsaPublic,
    ed_identity: &[u8; 32],
    now: Unix,
) -> Result<(), CrossCertError> {
    let length = || CrossCertError::Length(bytes.len());
    let (signed, rest) = bytes.split_first_chunk::<SIGNED_LEN>().ok_or_else(length)?;
    let (&signature_len, signature) = rest.split_first().ok_or_else(length)?;
    if signature.len() != usize::from(signature_len) {
        return Err(length());
    }
    let (key, hours) = signed.split_at(32);
    if key != ed_identity {
        return Err(CrossCertError::WrongKey);
    }
    rsa.verify_bare(&digest(signed), signature)?;
    let hours = hours.iter().fold(0, |hours, &byte| hours << 8 | u64::from(byte));
    let expires = Unix(hours * SECONDS_PER_HOUR);
    if now > expires {
        return Err(CrossCertError::Expired { expires, now });
    }
    Ok(())
}

fn digest(signed: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(PREFIX).chain_update(signed).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::tests::{NOW, other_rsa, rng, rsa};

    const ED: [u8; 32] = [5; 32];

    fn made(expires: Unix) -> Vec<u8> {
        build(rsa(), &ED, expires, &mut rng(1)).unwrap()
    }

    #[test]
    fn it_vouches_for_one_key_until_it_expires() {
        let bytes = made(NOW);
        assert_eq!(bytes.len(), 32 + 4 + 1 + 128);
        let last = Unix(NOW.0.div_ceil(3600) * 3600);
        assert_eq!(verify(&bytes, &rsa().public(), &ED, last), Ok(()));
        let after = Unix(last.0 + 1);
        assert_eq!(
            verify(&bytes, &rsa().public(), &ED, after),
            Err(CrossCertError::Expired { expires: last, now: after })
        );
        assert_eq!(verify(&bytes, &rsa().public(), &[6; 32], NOW), Err(CrossCertError::WrongKey));
        assert_eq!(
            verify(&bytes, &other_rsa().public(), &ED, NOW),
            Err(CrossCertError::Signature(RsaError::Signature))
        );
    }

    #[test]
    fn every_other_length_is_refused() {
        let bytes = made(NOW);
        for length in 0..bytes.len() {
            assert_eq!(
                verify(&bytes[..length], &rsa().public(), &ED, NOW),
                Err(CrossCertError::Length(length))
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(verify(&longer, &rsa().public(), &ED, NOW), Err(CrossCertError::Length(longer.len())));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = verify(&bytes, &rsa().public(), &ED, NOW);
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0usize..165, with in 1u8..) {
            let mut bytes = made(NOW);
            bytes[at] ^= with;
            prop_assert!(verify(&bytes, &rsa().public(), &ED, NOW).is_err());
        }
    }
}
