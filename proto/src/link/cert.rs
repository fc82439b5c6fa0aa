//! Ed25519 certificates (cert-spec 2.1): what a key says about another key.
//!
//! ```text
//! version 1 = 1   cert type 1   expiration 4 (hours since the epoch)   key type 1   certified key 32
//! extension count 1   { length 2   type 1   flags 1   data }*
//! signature 64, by the signing key over everything before it
//! ```
//!
//! Links, descriptors and onion services all use this form. [`UnverifiedCert`] is one that was only parsed; what it
//! certifies is out of reach until [`UnverifiedCert::verify`] has turned it into an [`Ed25519Cert`].

use thiserror::Error;

use crate::crypto::ed25519::{self, BadSignature, Ed25519Pair, SIGNATURE_LEN};
use crate::time::Unix;

/// What a certificate means (cert-spec A.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertType(pub u8);

impl CertType {
    /// Identity key certifies the medium-term signing key; names its signer.
    pub const IDENTITY_V_SIGNING: CertType = CertType(0x04);
    /// Signing key certifies the SHA-256 of the TLS certificate.
    pub const SIGNING_V_TLS: CertType = CertType(0x05);
    /// Signing key certifies the link authentication key.
    pub const SIGNING_V_LINK_AUTH: CertType = CertType(0x06);
    /// Blinded onion-service key certifies the descriptor signing key; names its signer.
    pub const HS_BLINDED_V_SIGNING: CertType = CertType(0x08);
    /// Descriptor signing key certifies an introduction point's authentication key; names its signer.
    pub const HS_SIGNING_V_INTRO_AUTH: CertType = CertType(0x09);
    /// Onion key, converted to Ed25519, certifies the identity key.
    pub const ONION_V_IDENTITY: CertType = CertType(0x0a);
    /// Descriptor signing key certifies an introduction point's encryption key; names its signer.
    pub const HS_SIGNING_V_INTRO_ENC: CertType = CertType(0x0b);
    /// Family key certifies a relay's identity key; names its signer.
    pub const FAMILY_V_IDENTITY: CertType = CertType(0x0c);

    /// Whether certificates of this type carry their signing key in an extension.
    const fn names_signer(self) -> bool {
        matches!(
            self,
            CertType::IDENTITY_V_SIGNING
                | CertType::HS_BLINDED_V_SIGNING
                | CertType::HS_SIGNING_V_INTRO_AUTH
                | CertType::HS_SIGNING_V_INTRO_ENC
                | CertType::FAMILY_V_IDENTITY
        )
    }
}

/// What a certificate vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certified {
    /// An Ed25519 public key (key type 1).
    Ed25519([u8; 32]),
    /// The SHA-256 of an RSA public key in PKCS#1 DER (key type 2).
    RsaDigest([u8; 32]),
    /// The SHA-256 of an X.509 certificate in DER (key type 3).
    X509Digest([u8; 32]),
    /// Something of a key type this crate does not know.
    Unknown {
        /// The key type.
        key_type: u8,
        /// The 32 bytes in place of the key.
        bytes: [u8; 32],
    },
}

impl Certified {
    fn to_wire(self) -> (u8, [u8; 32]) {
        match self {
            Certified::Ed25519(key) => (1, key),
            Certified::RsaDigest(digest) => (2, digest),
            Certified::X509Digest(digest) => (3, digest),
            Certified::Unknown { key_type, bytes } => (key_type, bytes),
        }
    }

    fn from_wire(key_type: u8, bytes: [u8; 32]) -> Certified {
        match key_type {
            1 => Certified::Ed25519(bytes),
            2 => Certified::RsaDigest(bytes),
            3 => Certified::X509Digest(bytes),
            _ => Certified::Unknown { key_type, bytes },
        }
    }
}

/// Why a certificate was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CertError {
    /// It ends early, or goes on after its signature.
    #[error("certificate of {0} bytes does not have the length its contents announce")]
    Length(usize),
    /// Not version 1.
    #[error("certificate version {0}, only 1 is known")]
    Version(u8),
    /// Another certificate type than this place needs.
    #[error("certificate type {:#04x} where {:#04x} is needed", found.0, expected.0)]
    Type {
        /// The type this place needs.
        expected: CertType,
        /// The type that came.
        found: CertType,
    },
    /// An extension that affects validation and is not known.
    #[error("unknown certificate extension {0:#04x} that affects validation")]
    UnknownExtension(u8),
    /// A signing-key extension that is not 32 bytes, or a second one.
    #[error("malformed or repeated signing-key extension")]
    SigningKeyExtension,
    /// No signing-key extension in a certificate that must have one.
    #[error("certificate does not name its signing key")]
    NoSigningKey,
    /// The certificate names another signing key than the one that should have signed it.
    #[error("certificate names another signing key than expected")]
    WrongSigner,
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// Its time is over.
    #[error("certificate expired at {} (Unix time), it is {}", expires.0, now.0)]
    Expired {
        /// The last second of its life.
        expires: Unix,
        /// The time it was checked at.
        now: Unix,
    },
    /// It certifies something of another key type than this place needs.
    #[error("certificate certifies a key of type {0}, which this place does not allow")]
    KeyType(u8),
    /// It certifies another key than the one it should vouch for.
    #[error("certificate vouches for another key than expected")]
    WrongKey,
}

const VERSION: u8 = 1;
const EXTENSION_SIGNING_KEY: u8 = 4;
const FLAG_AFFECTS_VALIDATION: u8 = 1;
const SECONDS_PER_HOUR: u64 = 3600;

/// A certificate that was parsed and not yet verified.
#[derive(Clone, Debug)]
pub struct UnverifiedCert<'a> {
    cert: Ed25519Cert,
    signed: &'a [u8],
    signature: &'a [u8; SIGNATURE_LEN],
}

/// A certificate whose signature and time have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ed25519Cert {
    /// What the certificate means.
    pub cert_type: CertType,
    /// The last second in which it is valid.
    pub expires: Unix,
    /// What it vouches for.
    pub certified: Certified,
    /// The key that signed it, if the certificate says so itself.
    pub signing_key: Option<[u8; 32]>,
}

impl Ed25519Cert {
    /// The Ed25519 key it certifies, or an error if it certifies something else.
    pub fn ed25519(&self) -> Result<[u8; 32], CertError> {
        match self.certified {
            Certified::Ed25519(key) => Ok(key),
            other => Err(CertError::KeyType(other.to_wire().0)),
        }
    }

    /// The X.509 certificate digest it certifies, or an error if it certifies something else.
    pub fn x509_digest(&self) -> Result<[u8; 32], CertError> {
        match self.certified {
            Certified::X509Digest(digest) => Ok(digest),
            other => Err(CertError::KeyType(other.to_wire().0)),
        }
    }
}

impl<'a> UnverifiedCert<'a> {
    /// Parses a certificate that fills `bytes` exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<UnverifiedCert<'a>, CertError> {
        let length = || CertError::Length(bytes.len());
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or_else(length)?;
        let (&[version, cert_type], rest) = signed.split_first_chunk::<2>().ok_or_else(length)?;
        if version != VERSION {
            return Err(CertError::Version(version));
        }
        let (hours, rest) = rest.split_first_chunk::<4>().ok_or_else(length)?;
        let (&key_type, rest) = rest.split_first().ok_or_else(length)?;
        let (&key, rest) = rest.split_first_chunk::<32>().ok_or_else(length)?;
        let (&extensions, mut rest) = rest.split_first().ok_or_else(length)?;

        let mut signing_key = None;
        for _ in 0..extensions {
            let (&[high, low, kind, flags], after) = rest.split_first_chunk::<4>().ok_or_else(length)?;
            let (data, after) =
                after.split_at_checked(usize::from(u16::from_be_bytes([high, low]))).ok_or_else(length)?;
            rest = after;
            if kind == EXTENSION_SIGNING_KEY {
                let key = data.try_into().map_err(|_| CertError::SigningKeyExtension)?;
                if signing_key.replace(key).is_some() {
                    return Err(CertError::SigningKeyExtension);
                }
            } else if flags & FLAG_AFFECTS_VALIDATION != 0 {
                return Err(CertError::UnknownExtension(kind));
            }
        }
        if !rest.is_empty() {
            return Err(length());
        }
        let expires = Unix(u64::from(u32::from_be_bytes(*hours)) * SECONDS_PER_HOUR);
        let certified = Certified::from_wire(key_type, key);
        let cert = Ed25519Cert { cert_type: CertType(cert_type), expires, certified, signing_key };
        Ok(UnverifiedCert { cert, signed, signature })
    }

    /// The key the certificate says it was signed by: a claim until the certificate is verified with it.
    pub fn claimed_signing_key(&self) -> Result<[u8; 32], CertError> {
        self.cert.signing_key.ok_or(CertError::NoSigningKey)
    }

    /// Verifies type, signature by `signer` and time.
    pub fn verify(
        &self,
        cert_type: CertType,
        signer: &[u8; 32],
        now: Unix,
    ) -> Result<Ed25519Cert, CertError> {
        if self.cert.cert_type != cert_type {
            return Err(CertError::Type { expected: cert_type, found: self.cert.cert_type });
        }
        if self.cert.signing_key.is_some_and(|named| named != *signer) {
            return Err(CertError::WrongSigner);
        }
        ed25519::verify(signer, self.signed, self.signature)?;
        if now > self.cert.expires {
            return Err(CertError::Expired { expires: self.cert.expires, now });
        }
        Ok(self.cert)
    }

    /// Verifies a certificate with the signing key it names itself, which is returned beside it.
    pub fn verify_self_named(
        &self,
        cert_type: CertType,
        now: Unix,
    ) -> Result<([u8; 32], Ed25519Cert), CertError> {
        let signer = self.claimed_signing_key()?;
        Ok((signer, self.verify(cert_type, &signer, now)?))
    }
}

/// Makes a certificate. It is valid at least until `expires`, which is rounded up to a whole hour, and names its signer
/// where its type asks for that.
pub fn build(cert_type: CertType, certified: Certified, expires: Unix, signer: &Ed25519Pair) -> Vec<u8> {
    let hours = u32::try_from(expires.0.div_ceil(SECONDS_PER_HOUR)).unwrap_or(u32::MAX);
    let (key_type, key) = certified.to_wire();
    let mut out = Vec::new();
    out.extend([VERSION, cert_type.0]);
    out.extend(hours.to_be_bytes());
    out.push(key_type);
    out.extend(key);
    if cert_type.names_signer() {
        out.extend([1, 0, 32, EXTENSION_SIGNING_KEY, 0]);
        out.extend(signer.public());
    } else {
        out.push(0);
    }
    out.extend(signer.sign(&out));
    out
}

/// Makes the certificate by which a relay's ntor onion key vouches for its identity, and the sign bit that goes beside
/// it in the descriptor (dir-spec 2.1.1, "ntor-onion-key-crosscert").
pub fn build_onion_key_crosscert(
    onion_secret: &[u8; 32],
    identity: &[u8; 32],
    expires: Unix,
) -> (Vec<u8>, u8) {
    let (signer, sign) = Ed25519Pair::from_curve25519(onion_secret);
    (build(CertType::ONION_V_IDENTITY, Certified::Ed25519(*identity), expires, &signer), sign)
}

/// Verifies what [`build_onion_key_crosscert`] makes: that the holder of the Curve25519 key `onion_public` vouches for
/// `identity`. `sign` is the bit from the descriptor.
pub fn verify_onion_key_crosscert(
    bytes: &[u8],
    onion_public: &[u8; 32],
    sign: u8,
    identity: &[u8; 32],
    now: Unix,
) -> Result<Ed25519Cert, CertError> {
    let signer = ed25519::public_from_curve25519(onion_public, sign).ok_or(BadSignature)?;
    let cert = UnverifiedCert::parse(bytes)?.verify(CertType::ONION_V_IDENTITY, &signer, now)?;
    if cert.ed25519()? == *identity { Ok(cert) } else { Err(CertError::WrongKey) }
}

#[cfg(test)]
mod tests;
