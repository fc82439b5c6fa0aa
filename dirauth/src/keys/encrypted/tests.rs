use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::*;

/// One key, as OpenSSL wrote it in each form.
const PKCS12: &str = include_str!("pkcs12.pem");
const PBES2: &str = include_str!("pbes2.pem");
const UNENCRYPTED: &str = include_str!("plain.pem");
const RC4: &str = include_str!("rc4.pem");
const PASSPHRASE: &[u8] = "pässphrase".as_bytes();

#[test]
fn every_form_of_openssl_is_read() {
    let key = read(UNENCRYPTED, b"").unwrap();
    for pem in [PKCS12, PBES2] {
        assert!(is_encrypted(pem) && !is_encrypted(UNENCRYPTED));
        assert_eq!(read(pem, PASSPHRASE).unwrap().to_der(), key.to_der());
        assert_eq!(read(pem, b"other").err(), Some(EncryptedKeyError::Passphrase));
    }
    assert_eq!(read(&key.to_pem(), b"").unwrap().to_der(), key.to_der());
    assert_eq!(read(RC4, PASSPHRASE).err(), Some(EncryptedKeyError::Scheme));
}

#[test]
fn what_is_written_is_read_with_its_passphrase_alone() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let key = read(UNENCRYPTED, b"").unwrap();
    let pem = write(&key, PASSPHRASE, rng).unwrap();
    assert!(is_encrypted(&pem));
    assert_eq!(read(&pem, PASSPHRASE).unwrap().to_der(), key.to_der());
    assert_eq!(read(&pem, b"").err(), Some(EncryptedKeyError::Passphrase));
}

#[test]
fn what_is_no_key_is_named() {
    let public = read(UNENCRYPTED, b"").unwrap().public().to_pem();
    for pem in ["", "key", &public] {
        assert_eq!(read(pem, b"").err(), Some(EncryptedKeyError::NotPem), "{pem}");
    }
    let empty = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_eq!(read(empty, b"").err(), Some(EncryptedKeyError::Scheme));
}
