//! RSA as Tor uses it (tor-spec 0.3): exponent 65537, keys as PKCS#1 DER, signatures without a DigestInfo.
//!
//! A signature is PKCS#1 v1.5 type-1 padding around the bare digest bytes. What other software calls
//! "RSA-PKCS1-SHA1" puts an ASN.1 prefix before the digest and does not verify here, nor ours there.

use ::rsa::pkcs1::der::pem::LineEnding;
use ::rsa::pkcs1::der::{Decode, Document, SecretDocument};
use ::rsa::pkcs1::{EncodeRsaPrivateKey, EncodeRsaPublicKey, RsaPrivateKeyRef, RsaPublicKeyRef, UintRef};
use ::rsa::traits::PublicKeyParts;
use ::rsa::{BoxedUint, Oaep, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use rand_core::CryptoRng;
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use crate::limits::{RSA_DER_MAX, RSA_MODULUS_BITS_MAX, RSA_MODULUS_BITS_MIN};

#[cfg(test)]
mod tests;

/// The only public exponent in use (tor-spec 0.3).
const EXPONENT: u64 = 65537;

/// Bytes that PKCS#1 v1.5 padding adds at least (RFC 8017, 9.2).
const PKCS1_OVERHEAD: usize = 11;

const PEM_PUBLIC: &str = "RSA PUBLIC KEY";
const PEM_PRIVATE: &str = "RSA PRIVATE KEY";

/// Why an RSA key or signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RsaError {
    /// Not a PKCS#1 key in DER, or one whose numbers contradict each other.
    #[error("not a valid RSA key in PKCS#1 DER (a SubjectPublicKeyInfo or PKCS#8 object is something else)")]
    Malformed,
    /// Not PEM, or a PEM object of another kind.
    #[error("no PEM object \"{0}\" here")]
    Pem(&'static str),
    /// The modulus is shorter or longer than [`RSA_MODULUS_BITS_MIN`] and [`RSA_MODULUS_BITS_MAX`] allow.
    #[error("RSA modulus of {0} bits; {RSA_MODULUS_BITS_MIN} to {RSA_MODULUS_BITS_MAX} are accepted")]
    ModulusSize(usize),
    /// The public exponent is not 65537.
    #[error("RSA public exponent other than {EXPONENT}")]
    Exponent,
    /// What is to be signed does not fit the modulus.
    #[error("{len} bytes are too many to sign with an RSA key of {bits} bits")]
    TooLong {
        /// Bytes that were to be signed.
        len: usize,
        /// Bits of the key.
        bits: usize,
    },
    /// The signature is not one of this key over these bytes.
    #[error("RSA signature does not verify")]
    Signature,
    /// The private operation went wrong: a fault in the machine or a corrupt key.
    #[error("RSA operation failed; the private key may be damaged")]
    Operation,
    /// The ciphertext does not decrypt with this key.
    #[error("RSA ciphertext does not decrypt")]
    Decryption,
}

/// An RSA public key: identity, signing or (TAP) onion key of a relay, or a key of an authority.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaPublic(RsaPublicKey);

impl RsaPublic {
    /// Reads a PKCS#1 `RSAPublicKey` in strict DER, without anything after it.
    ///
    /// # Errors
    /// [`RsaError::Malformed`], [`RsaError::ModulusSize`] or [`RsaError::Exponent`].
    pub fn from_der(der: &[u8]) -> Result<Self, RsaError> {
        check_der_len(der)?;
        let key = RsaPublicKeyRef::from_der(der).map_err(|_| RsaError::Malformed)?;
        check_numbers(&key.modulus, &key.public_exponent)?;
        RsaPublicKey::try_from(key).map(Self).map_err(|_| RsaError::Malformed)
    }

    /// Writes the key as PKCS#1 `RSAPublicKey` DER: 140 bytes for 1024 bits.
    pub fn to_der(&self) -> Vec<u8> {
        // Encoding two integers fails only above 256 MiB.
        self.0.to_pkcs1_der().expect("a modulus of bounded size encodes").into_vec()
    }

    /// Reads the PEM object `RSA PUBLIC KEY`.
    ///
    /// # Errors
    /// [`RsaError::Pem`], otherwise as [`from_der`](Self::from_der).
    pub fn from_pem(pem: &str) -> Result<Self, RsaError> {
        let error = RsaError::Pem(PEM_PUBLIC);
        check_pem_len(pem, error)?;
        let (label, der) = Document::from_pem(pem).map_err(|_| error)?;
        if label != PEM_PUBLIC {
            return Err(error);
        }
        Self::from_der(der.as_bytes())
    }

    /// Writes the key as PEM object `RSA PUBLIC KEY`, lines of 64 columns ending in LF.
    pub fn to_pem(&self) -> String {
        // As `to_der`; every DER has a PEM form.
        self.0.to_pkcs1_pem(LineEnding::LF).expect("a modulus of bounded size encodes")
    }

    /// SHA-1 of the PKCS#1 DER: the "RSA id" of a relay or authority, the bytes of its fingerprint (tor-spec 0.3).
    pub fn rsa_id(&self) -> [u8; 20] {
        Sha1::digest(self.to_der()).into()
    }

    /// [`rsa_id`](Self::rsa_id) as 40 upper-case hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        self.rsa_id().iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// Bits of the modulus. Relay identity keys have exactly 1024 (dir-spec 2.1.1).
    pub fn bits(&self) -> usize {
        self.0.n().bits_vartime() as usize
    }

    /// Verifies a signature over the bare bytes `digest`; the signature is as long as the modulus.
    ///
    /// # Errors
    /// [`RsaError::Signature`].
    pub fn verify_bare(&self, digest: &[u8], signature: &[u8]) -> Result<(), RsaError> {
        self.0.verify(Pkcs1v15Sign::new_unprefixed(), digest, signature).map_err(|_| RsaError::Signature)
    }

    /// Encrypts with OAEP (SHA-1, no label): at most [`bits`](Self::bits)/8 - 42 bytes. Only TAP needs it.
    ///
    /// # Errors
    /// [`RsaError::TooLong`].
    pub fn encrypt_oaep(&self, rng: &mut impl CryptoRng, message: &[u8]) -> Result<Vec<u8>, RsaError> {
        self.0
            .encrypt(rng, Oaep::<Sha1>::new(), message)
            .map_err(|_| RsaError::TooLong { len: message.len(), bits: self.bits() })
    }
}

impl std::fmt::Debug for RsaPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RsaPublic({})", self.fingerprint())
    }
}

/// An RSA key pair. Zeroized on drop; private operations are constant time and blinded.
#[derive(Clone)]
pub struct RsaPrivate(RsaPrivateKey);

impl RsaPrivate {
    /// Makes a key of `bits` bits: 1024 for relays, 2048 or 3072 for authorities.
    ///
    /// # Errors
    /// [`RsaError::ModulusSize`].
    pub fn generate(bits: usize, rng: &mut impl CryptoRng) -> Result<Self, RsaError> {
        check_modulus_bits(bits)?;
        RsaPrivateKey::new_with_exp(rng, bits, BoxedUint::from(EXPONENT))
            .map(Self)
            .map_err(|_| RsaError::Operation)
    }

    /// Reads a PKCS#1 `RSAPrivateKey` of two primes in strict DER, and checks that its numbers belong together.
    ///
    /// # Errors
    /// [`RsaError::Malformed`], [`RsaError::ModulusSize`] or [`RsaError::Exponent`].
    pub fn from_der(der: &[u8]) -> Result<Self, RsaError> {
        check_der_len(der)?;
        let key = RsaPrivateKeyRef::from_der(der).map_err(|_| RsaError::Malformed)?;
        check_numbers(&key.modulus, &key.public_exponent)?;
        RsaPrivateKey::try_from(key).map(Self).map_err(|_| RsaError::Malformed)
    }

    /// Writes the key as PKCS#1 `RSAPrivateKey` DER.
    pub fn to_der(&self) -> Zeroizing<Vec<u8>> {
        // Encoding fails only for keys of more than two primes, which `from_der` refuses and `generate` never makes.
        let der = self.0.to_pkcs1_der().expect("a key of two primes encodes");
        Zeroizing::new(der.as_bytes().to_vec())
    }

    /// Reads the PEM object `RSA PRIVATE KEY`, the form of C tor's `secret_id_key`.
    ///
    /// # Errors
    /// [`RsaError::Pem`], otherwise as [`from_der`](Self::from_der).
    pub fn from_pem(pem: &str) -> Result<Self, RsaError> {
        let error = RsaError::Pem(PEM_PRIVATE);
        check_pem_len(pem, error)?;
        let (label, der) = SecretDocument::from_pem(pem).map_err(|_| error)?;
        if label != PEM_PRIVATE {
            return Err(error);
        }
        Self::from_der(der.as_bytes())
    }

    /// Writes the key as PEM object `RSA PRIVATE KEY`, lines of 64 columns ending in LF.
    pub fn to_pem(&self) -> Zeroizing<String> {
        // As `to_der`.
        self.0.to_pkcs1_pem(LineEnding::LF).expect("a key of two primes encodes")
    }

    /// The public half.
    pub fn public(&self) -> RsaPublic {
        RsaPublic(self.0.to_public_key())
    }

    /// Signs the bare bytes `digest`; `rng` blinds the operation and does not influence the result.
    ///
    /// # Errors
    /// [`RsaError::TooLong`] if `digest` is longer than the modulus less 11 bytes, or [`RsaError::Operation`].
    pub fn sign_bare(&self, digest: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, RsaError> {
        if digest.len() + PKCS1_OVERHEAD > self.0.size() {
            return Err(RsaError::TooLong { len: digest.len(), bits: self.public().bits() });
        }
        self.0.sign_with_rng(rng, Pkcs1v15Sign::new_unprefixed(), digest).map_err(|_| RsaError::Operation)
    }

    /// Decrypts what [`RsaPublic::encrypt_oaep`] made; `rng` blinds the operation.
    ///
    /// # Errors
    /// [`RsaError::Decryption`], whatever was wrong.
    pub fn decrypt_oaep(
        &self,
        rng: &mut impl CryptoRng,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        self.0
            .decrypt_blinded(rng, Oaep::<Sha1>::new(), ciphertext)
            .map(Zeroizing::new)
            .map_err(|_| RsaError::Decryption)
    }
}

fn check_der_len(der: &[u8]) -> Result<(), RsaError> {
    if der.len() > RSA_DER_MAX { Err(RsaError::Malformed) } else { Ok(()) }
}

/// Base64 in lines of 64 columns takes less than 3/2 of the DER, and the two framing lines less than 64 bytes.
fn check_pem_len(pem: &str, error: RsaError) -> Result<(), RsaError> {
    if pem.len() > RSA_DER_MAX / 2 * 3 + 64 { Err(error) } else { Ok(()) }
}

/// Refuses unusual numbers before any arithmetic is done with them.
fn check_numbers(modulus: &UintRef<'_>, exponent: &UintRef<'_>) -> Result<(), RsaError> {
    let bytes = modulus.as_bytes();
    let top_zeros = bytes.first().map_or(0, |byte| byte.leading_zeros() as usize);
    check_modulus_bits(bytes.len() * 8 - top_zeros.min(bytes.len() * 8))?;
    if exponent.as_bytes() != &EXPONENT.to_be_bytes()[5..] {
        return Err(RsaError::Exponent);
    }
    Ok(())
}

fn check_modulus_bits(bits: usize) -> Result<(), RsaError> {
    if (RSA_MODULUS_BITS_MIN..=RSA_MODULUS_BITS_MAX).contains(&bits) {
        Ok(())
    } else {
        Err(RsaError::ModulusSize(bits))
    }
}
