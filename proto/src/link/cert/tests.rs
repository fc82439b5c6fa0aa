use proptest::prelude::*;

use super::*;

const NOW: Unix = Unix(1_800_000_123);
const LATER: Unix = Unix(NOW.0 + 86_400);

fn key(seed: u8) -> Ed25519Pair {
    Ed25519Pair::from_seed(&[seed; 32])
}

fn signing_cert(expires: Unix) -> Vec<u8> {
    build(CertType::IDENTITY_V_SIGNING, Certified::Ed25519(key(2).public()), expires, &key(1))
}

/// A type-4 certificate with these raw extensions.
fn with_extensions(count: u8, extensions: &[u8]) -> Vec<u8> {
    let mut cert = signing_cert(LATER)[..39].to_vec();
    cert.push(count);
    cert.extend(extensions);
    cert.extend(key(1).sign(&cert));
    cert
}

fn signing_key_extension() -> Vec<u8> {
    let mut extension = vec![0, 32, 4, 0];
    extension.extend(key(1).public());
    extension
}

#[test]
fn a_signing_certificate_names_its_signer() {
    let bytes = signing_cert(LATER);
    assert_eq!(bytes.len(), 140);
    let (identity, cert) =
        UnverifiedCert::parse(&bytes).unwrap().verify_self_named(CertType::IDENTITY_V_SIGNING, NOW).unwrap();
    assert_eq!(identity, key(1).public());
    assert_eq!(cert.ed25519(), Ok(key(2).public()));
    assert_eq!(cert.x509_digest(), Err(CertError::KeyType(1)));
}

#[test]
fn link_certificates_do_not_name_their_signer() {
    let bytes = build(CertType::SIGNING_V_TLS, Certified::X509Digest([9; 32]), LATER, &key(2));
    assert_eq!(bytes.len(), 104);
    let cert = UnverifiedCert::parse(&bytes).unwrap();
    assert_eq!(cert.claimed_signing_key(), Err(CertError::NoSigningKey));
    let verified = cert.verify(CertType::SIGNING_V_TLS, &key(2).public(), NOW).unwrap();
    assert_eq!(verified.x509_digest(), Ok([9; 32]));
    assert_eq!(verified.ed25519(), Err(CertError::KeyType(3)));
}

#[test]
fn expiration_is_rounded_up_and_its_last_second_counts() {
    let bytes = signing_cert(NOW);
    let cert = UnverifiedCert::parse(&bytes).unwrap();
    let last = Unix(NOW.0.div_ceil(3600) * 3600);
    assert!(last > NOW);
    assert!(cert.verify_self_named(CertType::IDENTITY_V_SIGNING, last).is_ok());
    let after = Unix(last.0 + 1);
    assert_eq!(
        cert.verify_self_named(CertType::IDENTITY_V_SIGNING, after),
        Err(CertError::Expired { expires: last, now: after })
    );
}

#[test]
fn a_certificate_passes_only_for_its_type_and_signer() {
    let bytes = signing_cert(LATER);
    let cert = UnverifiedCert::parse(&bytes).unwrap();
    assert_eq!(
        cert.verify_self_named(CertType::FAMILY_V_IDENTITY, NOW),
        Err(CertError::Type { expected: CertType::FAMILY_V_IDENTITY, found: CertType::IDENTITY_V_SIGNING })
    );
    assert_eq!(cert.verify(CertType::IDENTITY_V_SIGNING, &key(3).public(), NOW), Err(CertError::WrongSigner));
    let bytes = build(CertType::SIGNING_V_LINK_AUTH, Certified::Ed25519([1; 32]), LATER, &key(2));
    assert_eq!(
        UnverifiedCert::parse(&bytes).unwrap().verify(CertType::SIGNING_V_LINK_AUTH, &key(3).public(), NOW),
        Err(CertError::Signature(BadSignature))
    );
}

#[test]
fn extensions() {
    let verify = |bytes: &[u8]| {
        UnverifiedCert::parse(bytes)
            .and_then(|cert| cert.verify_self_named(CertType::IDENTITY_V_SIGNING, NOW))
            .map(|_| ())
    };
    let signer = signing_key_extension();
    assert_eq!(verify(&with_extensions(1, &signer)), Ok(()));
    // An unknown extension is ignored unless it affects validation.
    let unknown = |flags| [&[0, 3, 0x77, flags, 1, 2, 3], &signer[..]].concat();
    assert_eq!(verify(&with_extensions(2, &unknown(2))), Ok(()));
    assert_eq!(verify(&with_extensions(2, &unknown(1))), Err(CertError::UnknownExtension(0x77)));
    assert_eq!(
        verify(&with_extensions(2, &[&signer[..], &signer[..]].concat())),
        Err(CertError::SigningKeyExtension)
    );
    assert_eq!(verify(&with_extensions(1, &[0, 1, 4, 0, 5])), Err(CertError::SigningKeyExtension));
    assert_eq!(verify(&with_extensions(0, &[])), Err(CertError::NoSigningKey));
    // A count or a length that does not match what is there.
    for (count, extensions) in
        [(2, &signer[..]), (0, &signer[..]), (1, &signer[..35]), (1, &[0xff, 0xff, 4, 0])]
    {
        assert!(matches!(verify(&with_extensions(count, extensions)), Err(CertError::Length(_))));
    }
}

#[test]
fn any_cut_of_a_certificate_is_refused() {
    let bytes = signing_cert(LATER);
    for length in 0..bytes.len() {
        let cut = UnverifiedCert::parse(&bytes[..length])
            .and_then(|cert| cert.verify_self_named(CertType::IDENTITY_V_SIGNING, NOW));
        assert!(cut.is_err(), "{length} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(UnverifiedCert::parse(&longer).is_err());
    let mut other_version = bytes;
    other_version[0] = 2;
    assert_eq!(UnverifiedCert::parse(&other_version).unwrap_err(), CertError::Version(2));
}

#[test]
fn the_onion_key_vouches_for_the_identity() {
    let secret = [7; 32];
    let public = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret));
    let (bytes, sign) = build_onion_key_crosscert(&secret, &key(1).public(), LATER);
    let verify = |sign, identity: [u8; 32]| {
        verify_onion_key_crosscert(&bytes, public.as_bytes(), sign, &identity, NOW).map(|_| ())
    };
    assert_eq!(verify(sign, key(1).public()), Ok(()));
    assert_eq!(verify(1 - sign, key(1).public()), Err(CertError::Signature(BadSignature)));
    assert_eq!(verify(sign, key(2).public()), Err(CertError::WrongKey));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        if let Ok(cert) = UnverifiedCert::parse(&bytes) {
            let _ = cert.verify_self_named(CertType::IDENTITY_V_SIGNING, NOW);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed(at in 0usize..140, with in 1u8..) {
        let mut bytes = signing_cert(LATER);
        bytes[at] ^= with;
        let verified = UnverifiedCert::parse(&bytes)
            .and_then(|cert| cert.verify(CertType::IDENTITY_V_SIGNING, &key(1).public(), NOW));
        prop_assert!(verified.is_err());
    }
}
