use proptest::prelude::*;

use super::*;
use crate::link::tests::{NOW, other_rsa, rng, rsa};

fn identity() -> Vec<u8> {
    build_identity(rsa(), NOW, &mut rng(1)).unwrap()
}

fn after(days: u64) -> Unix {
    Unix(NOW.0 + days * 86_400)
}

#[test]
fn an_identity_certificate_yields_its_key() {
    assert_eq!(verify_identity(&identity(), NOW), Ok(rsa().public()));
}

#[test]
fn clocks_may_disagree_by_days() {
    let der = identity();
    assert!(verify_identity(&der, after(365 + 2)).is_ok());
    assert!(matches!(verify_identity(&der, after(365 + 3)), Err(X509Error::Time { .. })));
    let days_before = |days: u64| Unix(NOW.0 - days * 86_400);
    assert!(verify_identity(&der, days_before(30)).is_ok());
    assert!(matches!(verify_identity(&der, days_before(31)), Err(X509Error::Time { .. })));
}

#[test]
fn identity_keys_have_exactly_1024_bits() {
    let key = RsaPrivate::generate(1152, &mut rng(2)).unwrap();
    let der = build_identity(&key, NOW, &mut rng(1)).unwrap();
    assert_eq!(verify_identity(&der, NOW), Err(X509Error::KeyLength(1152)));
}

#[test]
fn a_certificate_signed_by_another_key_is_refused() {
    let (mine, theirs) = (identity(), build_identity(other_rsa(), NOW, &mut rng(1)).unwrap());
    let forged = [&mine[..mine.len() - 128], &theirs[theirs.len() - 128..]].concat();
    assert_eq!(verify_identity(&forged, NOW), Err(X509Error::Rsa(RsaError::Signature)));
}

#[test]
fn certificates_have_version_3_and_reencode_to_the_same_bytes() {
    let tls = TlsLeaf::generate(NOW, &mut rng(1)).unwrap();
    for der in [identity(), tls.certificate] {
        let cert = x509_cert::Certificate::from_der(&der).unwrap();
        assert_eq!(cert.tbs_certificate().version(), x509_cert::certificate::Version::V3);
        assert_eq!(cert.to_der().unwrap(), der);
        let validity = cert.tbs_certificate().validity();
        let (from, to) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
        assert!(from.as_secs() <= NOW.0 && NOW.0 <= to.as_secs());
    }
}

#[test]
fn host_names_look_like_c_tors() {
    for seed in 0..200 {
        let name = random_host_name("com", &mut rng(seed));
        let label = name.strip_prefix("www.").and_then(|rest| rest.strip_suffix(".com")).unwrap();
        assert!((4..=25).contains(&label.len()), "{name}");
    }
}

#[test]
fn every_changed_bit_is_noticed() {
    let der = identity();
    for bit in 0..8 * der.len() {
        let mut changed = der.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(verify_identity(&changed, NOW).is_err(), "byte {}, bit {}", bit / 8, bit % 8);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        prop_assert!(verify_identity(&bytes, NOW).is_err());
    }

    #[test]
    fn a_changed_or_missing_byte_is_noticed(at: prop::sample::Index, with in 1u8..) {
        let mut der = identity();
        let at = at.index(der.len());
        prop_assert!(verify_identity(&der[..at], NOW).is_err());
        der[at] ^= with;
        prop_assert!(verify_identity(&der, NOW).is_err());
    }
}
