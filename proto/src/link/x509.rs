//! The two X.509 certificates of a relay: its RSA identity, sent inside CERTS, and the throw-away certificate that TLS
//! shows (tor-spec 2, 4.2).
//!
//! Nothing in them is believed as in a web PKI: the identity certificate is a self-signed wrapper around an RSA key, and
//! the TLS certificate matters only through its digest, which CERTS ties to the identity.

use std::str::FromStr;
use std::time::Duration;

use der::asn1::{AnyRef, BitStringRef, Null, ObjectIdentifier, OctetStringRef, UintRef};
use der::{DateTime, Decode, Encode, Sequence, Tag};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_cert::TbsCertificate;
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

use crate::crypto::rsa::{RsaError, RsaPrivate, RsaPublic};
use crate::time::Unix;

/// Bits of an RSA identity key, no more and no less (tor-spec 0.3).
pub const IDENTITY_BITS: usize = 1024;

/// Bits of the RSA key that TLS certificates are made for. Other keys work, but make C tor warn on every link.
pub const TLS_KEY_BITS: usize = 2048;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// DER before the 32 bytes of a SHA-256 in the DigestInfo of an ordinary PKCS#1 v1.5 signature (RFC 8017, 9.2). X.509
/// uses it, unlike everything else in Tor.
const DIGEST_INFO_SHA256: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

const DAY: Duration = Duration::from_secs(86_400);
const IDENTITY_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
const TLS_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// How far the clocks of two relays may disagree about an identity certificate: it may have expired this long ago,
const SLOP_PAST: Duration = Duration::from_secs(2 * 86_400);
/// or become valid this far in the future.
const SLOP_FUTURE: Duration = Duration::from_secs(30 * 86_400);

/// Why an X.509 certificate was refused or could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum X509Error {
    /// Not a certificate in DER.
    #[error("not an X.509 certificate in DER: {0}")]
    Malformed(der::Error),
    /// Signed with something else than RSA and SHA-256, or certifying no RSA key.
    #[error("X.509 certificate with algorithm {0}, only RSA with SHA-256 is in use")]
    Algorithm(ObjectIdentifier),
    /// The RSA key inside is unusable, or its signature does not verify.
    #[error(transparent)]
    Rsa(#[from] RsaError),
    /// The identity key does not have [`IDENTITY_BITS`] bits.
    #[error("RSA identity key of {0} bits, it must have {IDENTITY_BITS}")]
    KeyLength(usize),
    /// Not valid yet or not any more.
    #[error("X.509 certificate is valid from {} to {} (Unix time), it is {}", from.0, to.0, now.0)]
    Time {
        /// Start of its validity.
        from: Unix,
        /// End of its validity.
        to: Unix,
        /// The time it was checked at.
        now: Unix,
    },
}

impl From<der::Error> for X509Error {
    fn from(error: der::Error) -> X509Error {
        X509Error::Malformed(error)
    }
}

/// A certificate as a signature sees it: the signed part stays the bytes it came as.
#[derive(Sequence)]
struct Signed<'a> {
    tbs: AnyRef<'a>,
    algorithm: AlgorithmIdentifierRef<'a>,
    signature: BitStringRef<'a>,
}

/// The signed part of the certificates we make: version 3 without extensions, as C tor makes them.
#[derive(Sequence)]
struct NewTbs<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial: UintRef<'a>,
    algorithm: AlgorithmIdentifierRef<'a>,
    issuer: Name,
    validity: Validity,
    subject: Name,
    key: SubjectPublicKeyInfoRef<'a>,
}

const VERSION_3: u8 = 2;

/// A private key with its algorithm (RFC 5208).
#[derive(Sequence)]
struct Pkcs8<'a> {
    version: u8,
    algorithm: AlgorithmIdentifierRef<'a>,
    key: &'a OctetStringRef,
}

fn rsa_encryption() -> AlgorithmIdentifierRef<'static> {
    AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(Null.into()) }
}

/// Makes the self-signed certificate of a relay's RSA identity key, valid for a year (CERTS type 2).
pub fn build_identity(key: &RsaPrivate, now: Unix, rng: &mut impl CryptoRng) -> Result<Vec<u8>, X509Error> {
    let name = random_name("net", rng);
    build_self_signed(key, &name, &name, now, now + IDENTITY_LIFETIME, rng)
}

/// What our TLS side presents: a throw-away key of [`TLS_KEY_BITS`] bits and a certificate of it.
pub struct TlsLeaf {
    /// The certificate, in DER; what a [`LinkIdentity`](super::LinkIdentity) is made for.
    pub certificate: Vec<u8>,
    /// The private key as PKCS#8 in DER, the form that TLS libraries take.
    pub key: Zeroizing<Vec<u8>>,
}

impl TlsLeaf {
    /// Makes a new one, valid for 30 days from yesterday's midnight on, so that it tells nothing about our clock or
    /// start. Finding the key takes a good part of a second.
    pub fn generate(now: Unix, rng: &mut impl CryptoRng) -> Result<TlsLeaf, X509Error> {
        let key = RsaPrivate::generate(TLS_KEY_BITS, rng)?;
        let (issuer, subject) = (random_name("com", rng), random_name("net", rng));
        let midnight = Unix(now.0 - now.0 % DAY.as_secs());
        let certificate =
            build_self_signed(&key, &issuer, &subject, midnight - DAY, midnight + TLS_LIFETIME, rng)?;
        let pkcs1 = key.to_der();
        let key = Pkcs8 { version: 0, algorithm: rsa_encryption(), key: OctetStringRef::new(&pkcs1)? };
        Ok(TlsLeaf { certificate, key: Zeroizing::new(key.to_der()?) })
    }
}

/// Reads the identity certificate of a peer and checks all that can be checked in it: its own signature, the length of
/// the key, and with much tolerance the time. Returns the key.
pub fn verify_identity(der: &[u8], now: Unix) -> Result<RsaPublic, X509Error> {
    let cert = Signed::from_der(der)?;
    let tbs: TbsCertificate = cert.tbs.decode_as()?;
    let key_info = tbs.subject_public_key_info();
    if key_info.algorithm.oid != RSA_ENCRYPTION {
        return Err(X509Error::Algorithm(key_info.algorithm.oid));
    }
    let key = RsaPublic::from_der(key_info.subject_public_key.raw_bytes())?;
    if key.bits() != IDENTITY_BITS {
        return Err(X509Error::KeyLength(key.bits()));
    }
    if cert.algorithm.oid != SHA256_WITH_RSA {
        return Err(X509Error::Algorithm(cert.algorithm.oid));
    }
    // The one that no signature covers must be the one that is signed (RFC 5280 4.1.1.2).
    if cert.algorithm.to_der()? != tbs.signature().to_der()? {
        return Err(X509Error::Algorithm(tbs.signature().oid));
    }
    let signature =
        cert.signature.as_bytes().ok_or_else(|| der::Error::from(Tag::BitString.value_error()))?;
    key.verify_bare(&digest_info(&cert.tbs.to_der()?), signature)?;

    let unix = |time: Time| Unix(time.to_unix_duration().as_secs());
    let (from, to) = (unix(tbs.validity().not_before), unix(tbs.validity().not_after));
    if now > to + SLOP_PAST || now + SLOP_FUTURE < from {
        return Err(X509Error::Time { from, to, now });
    }
    Ok(key)
}

/// Host names as C tor makes them up: `www.`, 4 to 25 base32 characters, and this top-level domain.
pub fn random_host_name(top_level: &str, rng: &mut impl CryptoRng) -> String {
    const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let length = 4 + rng.next_u32() as usize % 22;
    let label: String =
        (0..length).map(|_| char::from(BASE32[rng.next_u32() as usize % BASE32.len()])).collect();
    format!("www.{label}.{top_level}")
}

fn random_name(top_level: &str, rng: &mut impl CryptoRng) -> Name {
    // Letters, digits and dots alone, which no name has to escape (RFC 4514), and far fewer than 64 of them.
    Name::from_str(&format!("CN={}", random_host_name(top_level, rng))).expect("a host name needs no escapes")
}

fn digest_info(tbs: &[u8]) -> Vec<u8> {
    [&DIGEST_INFO_SHA256[..], &Sha256::digest(tbs)].concat()
}

fn build_self_signed(
    key: &RsaPrivate,
    issuer: &Name,
    subject: &Name,
    from: Unix,
    to: Unix,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, X509Error> {
    let time = |at: Unix| DateTime::from_unix_duration(Duration::from_secs(at.0)).map(Time::from);
    let mut serial = [0; 8];
    rng.fill_bytes(&mut serial);
    let public = key.public().to_der();
    let algorithm = AlgorithmIdentifierRef { oid: SHA256_WITH_RSA, parameters: Some(Null.into()) };
    let tbs = NewTbs {
        version: VERSION_3,
        serial: UintRef::new(&serial)?,
        algorithm,
        issuer: issuer.clone(),
        validity: Validity::new(time(from)?, time(to)?),
        subject: subject.clone(),
        key: SubjectPublicKeyInfoRef {
            algorithm: rsa_encryption(),
            subject_public_key: BitStringRef::from_bytes(&public)?,
        },
    }
    .to_der()?;
    let signature = key.sign_bare(&digest_info(&tbs), rng)?;
    Ok(Signed { tbs: AnyRef::from_der(&tbs)?, algorithm, signature: BitStringRef::from_bytes(&signature)? }
        .to_der()?)
}

#[cfg(test)]
mod tests;
