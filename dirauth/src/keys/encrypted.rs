//! The identity key of an authority as a file: PKCS #8, encrypted with a passphrase, in PEM.
//!
//! Written with PBES2 (PBKDF2-HMAC-SHA256, AES-256-CBC), which C tor's `tor-gencert` reads. It writes PKCS #12's scheme
//! with SHA-1 and triple DES itself, which is read here. Keys that are not encrypted are read as well, as it does.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode as _, SecretDocument, Sequence};
use des::TdesEde3;
use onionring_proto::crypto::rsa::{RsaError, RsaPrivate};
use pkcs8::pkcs5::pbes2;
use pkcs8::spki::AlgorithmIdentifierRef;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef};
use rand_core::CryptoRng;
use sha1::{Digest as _, Sha1};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::limits::KDF_ITERATIONS;

const PLAIN: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// pbeWithSHAAnd3-KeyTripleDES-CBC.
const PBE_3DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3");

/// Why an identity key cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncryptedKeyError {
    /// There is no such object.
    #[error("it is no private key in PEM (PRIVATE KEY, ENCRYPTED PRIVATE KEY or RSA PRIVATE KEY)")]
    NotPem,
    /// It is encrypted in another way.
    #[error("it is encrypted in a way that is not known here; convert it with `openssl pkcs8 -topk8`")]
    Scheme,
    /// It does not decrypt to a key.
    #[error("the passphrase is wrong, or the file is damaged")]
    Passphrase,
    /// What was encrypted is no RSA key.
    #[error("it holds no RSA key that can be used: {0}")]
    Key(#[from] RsaError),
    /// It cannot be encrypted.
    #[error("it cannot be encrypted")]
    Encrypt,
}

/// Whether reading it takes a passphrase.
pub fn is_encrypted(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// Reads a key.
///
/// # Errors
/// All of [`EncryptedKeyError`] but the last.
pub fn read(pem: &str, passphrase: &[u8]) -> Result<RsaPrivate, EncryptedKeyError> {
    let (label, document) = SecretDocument::from_pem(pem).map_err(|_| EncryptedKeyError::NotPem)?;
    match label {
        ENCRYPTED => of_pkcs8(decrypt(document.as_bytes(), passphrase)?.as_bytes()),
        PLAIN => of_pkcs8(document.as_bytes()),
        _ => RsaPrivate::from_pem(pem).map_err(|error| match error {
            RsaError::Pem(_) => EncryptedKeyError::NotPem,
            error => EncryptedKeyError::Key(error),
        }),
    }
}

/// Writes a key, encrypted.
///
/// # Errors
/// [`EncryptedKeyError::Encrypt`].
pub fn write(
    key: &RsaPrivate,
    passphrase: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Zeroizing<String>, EncryptedKeyError> {
    let der = key.to_der();
    let mut encrypt = || {
        let algorithm = AlgorithmIdentifierRef { oid: RSA, parameters: Some(der::asn1::AnyRef::NULL) };
        let info = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(&der)?);
        let document = info.encrypt_with_params(pbes2::Parameters::generate_pbkdf2(rng)?, passphrase)?;
        Ok::<_, pkcs8::Error>(document.to_pem(ENCRYPTED, LineEnding::LF)?)
    };
    encrypt().map_err(|_| EncryptedKeyError::Encrypt)
}

fn of_pkcs8(info: &[u8]) -> Result<RsaPrivate, EncryptedKeyError> {
    // With a wrong passphrase the padding is right one time in 256.
    let info = PrivateKeyInfoRef::from_der(info).map_err(|_| EncryptedKeyError::Passphrase)?;
    if info.algorithm.oid != RSA {
        return Err(EncryptedKeyError::Key(RsaError::Malformed));
    }
    Ok(RsaPrivate::from_der(info.private_key.as_bytes())?)
}

/// `EncryptedPrivateKeyInfo` with a scheme of any kind.
#[derive(Sequence)]
struct Encrypted<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    data: &'a OctetStringRef,
}

/// `pkcs-12PbeParams` (RFC 7292, appendix C).
#[derive(Sequence)]
struct PbeParams<'a> {
    salt: &'a OctetStringRef,
    iterations: u32,
}

fn decrypt(document: &[u8], passphrase: &[u8]) -> Result<SecretDocument, EncryptedKeyError> {
    let outer = Encrypted::from_der(document).map_err(|_| EncryptedKeyError::Scheme)?;
    if outer.algorithm.oid != PBE_3DES {
        let info = EncryptedPrivateKeyInfoRef::try_from(document).map_err(|_| EncryptedKeyError::Scheme)?;
        return info.decrypt(passphrase).map_err(|_| EncryptedKeyError::Passphrase);
    }
    let params: Option<PbeParams<'_>> = outer.algorithm.parameters.and_then(|any| any.decode_as().ok());
    let params = params.filter(|params| (1..=KDF_ITERATIONS).contains(&params.iterations));
    let Some(PbeParams { salt, iterations }) = params else { return Err(EncryptedKeyError::Scheme) };
    let password = bmp_string(passphrase);
    let key = derive::<24>(1, &password, salt.as_bytes(), iterations);
    let iv = derive::<8>(2, &password, salt.as_bytes(), iterations);
    let cipher = cbc::Decryptor::<TdesEde3>::new((&*key).into(), (&*iv).into());
    let plain = cipher.decrypt_padded_vec::<Pkcs7>(outer.data.as_bytes());
    let plain = Zeroizing::new(plain.map_err(|_| EncryptedKeyError::Passphrase)?);
    SecretDocument::try_from(plain.as_slice()).map_err(|_| EncryptedKeyError::Passphrase)
}

/// A passphrase in two bytes a character with two zero bytes at the end, as PKCS #12 has it. What is not UTF-8 is taken
/// byte by byte, as OpenSSL does.
fn bmp_string(passphrase: &[u8]) -> Zeroizing<Vec<u8>> {
    let units: Zeroizing<Vec<u16>> = Zeroizing::new(match std::str::from_utf8(passphrase) {
        Ok(text) => text.encode_utf16().collect(),
        Err(_) => passphrase.iter().map(|&byte| byte.into()).collect(),
    });
    Zeroizing::new(units.iter().chain(&[0]).flat_map(|unit| unit.to_be_bytes()).collect())
}

/// PKCS #12's derivation with SHA-1 (RFC 7292, B.2); `id` is 1 for a key, 2 for an IV.
fn derive<const N: usize>(id: u8, password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<[u8; N]> {
    /// The block of SHA-1, in bytes.
    const V: usize = 64;
    let fill = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().copied().cycle().take(bytes.len().div_ceil(V) * V).collect()
    };
    let mut input = Zeroizing::new([fill(salt), fill(password)].concat());
    let mut out = Zeroizing::new([0; N]);
    for part in out.chunks_mut(20) {
        let mut hash = Sha1::new().chain_update([id; V]).chain_update(&*input).finalize();
        for _ in 1..iterations {
            hash = Sha1::digest(hash);
        }
        part.copy_from_slice(&hash[..part.len()]);
        // Each block of the input becomes itself, plus the hash repeated, plus 1, as numbers of 512 bits.
        for block in input.chunks_mut(V) {
            let mut carry = 1;
            for (i, byte) in block.iter_mut().enumerate().rev() {
                carry += u16::from(*byte) + u16::from(hash[i % 20]);
                *byte = carry as u8;
                carry >>= 8;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
