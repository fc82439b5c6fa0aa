use std::fs;

use onionring_proto::netdoc::authcert::{self, CertTerms};
use onionring_proto::torrc::authority;
use onionring_proto::torrc::{Command, Item, Origin};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::*;

const MADE: Unix = Unix(1_795_000_000);
const YEAR: u64 = 365 * DAY;
const RELAY: Fingerprint = Fingerprint([7; 20]);

/// A key directory with a signing key and its certificate, and the fingerprint of the identity.
fn directory() -> (tempfile::TempDir, Fingerprint) {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let [identity, signing] = [1, 2].map(|_| RsaPrivate::generate(1024, rng).unwrap());
    let terms = CertTerms { published: MADE, expires: Unix(MADE.0 + YEAR), dir_address: None };
    let certificate = authcert::build(&identity, &signing, &terms, rng).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(SIGNING_KEY), signing.to_pem().as_bytes()).unwrap();
    fs::write(directory.path().join(CERTIFICATE), certificate).unwrap();
    (directory, Fingerprint(identity.public().rsa_id()))
}

fn error(directory: &tempfile::TempDir, now: Unix) -> AuthorityKeyError {
    AuthorityKeys::load(directory.path(), now).err().unwrap()
}

fn authority(v3_ident: Fingerprint, relay: Fingerprint) -> Authority {
    let value = format!("a orport=1 v3ident={v3_ident} 127.0.0.1:1 {relay}");
    let origin = Origin::CommandLine;
    authority::parse(&Item { origin, command: Command::Set, name: "DirAuthority".into(), value }).unwrap()
}

#[test]
fn keys_that_belong_together_are_loaded_and_found_among_the_authorities() {
    let (directory, identity) = directory();
    let keys = AuthorityKeys::load(directory.path(), MADE).unwrap();
    assert_eq!(keys.signer.cert.identity, identity);
    assert_eq!(keys.signer.key.public(), keys.signer.cert.signing_key);
    assert_eq!(keys.certificate.text(), fs::read_to_string(directory.path().join(CERTIFICATE)).unwrap());

    let other = authority(Fingerprint([1; 20]), RELAY);
    let authorities = [other.clone(), authority(identity, RELAY)];
    assert_eq!(keys.find_us(&authorities, &RELAY).unwrap(), &authorities[1]);
    let unknown = keys.find_us(&[other], &RELAY).unwrap_err().to_string();
    assert!(unknown.contains(&identity.to_string()) && unknown.contains("v3ident"), "{unknown}");
    let elsewhere = keys.find_us(&authorities, &Fingerprint([8; 20])).unwrap_err();
    assert!(matches!(elsewhere, AuthorityKeyError::OtherRelay { configured: RELAY, .. }), "{elsewhere}");
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_the_remedy() {
    let empty = tempfile::tempdir().unwrap();
    let missing = error(&empty, MADE).to_string();
    assert!(missing.contains(SIGNING_KEY) && missing.contains("onionring-dirauth gencert"), "{missing}");

    let (directory, _) = directory();
    let expired = error(&directory, Unix(MADE.0 + YEAR)).to_string();
    assert!(expired.contains(CERTIFICATE) && expired.contains("has expired at 20"), "{expired}");

    let path = directory.path().join(CERTIFICATE);
    let certificate = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(error(&directory, MADE), AuthorityKeyError::Missing(missing) if missing == path));
    fs::write(&path, "").unwrap();
    assert!(matches!(error(&directory, MADE), AuthorityKeyError::Certificate { .. }));
    fs::write(&path, certificate.replace("dir-key-published 20", "dir-key-published 19")).unwrap();
    assert!(matches!(error(&directory, MADE), AuthorityKeyError::Certificate { .. }));
    fs::write(&path, vec![b'x'; limits::AUTHORITY_KEY_FILE as usize + 1]).unwrap();
    assert!(matches!(error(&directory, MADE), AuthorityKeyError::File(FileError::TooLarge { .. })));

    fs::write(&path, certificate).unwrap();
    let other = RsaPrivate::generate(1024, &mut ChaCha8Rng::seed_from_u64(2)).unwrap();
    fs::write(directory.path().join(SIGNING_KEY), other.to_pem().as_bytes()).unwrap();
    assert!(matches!(error(&directory, MADE), AuthorityKeyError::Mismatch { .. }));
    fs::write(directory.path().join(SIGNING_KEY), "no key").unwrap();
    assert!(matches!(error(&directory, MADE), AuthorityKeyError::Key { .. }));
}

#[test]
fn the_end_of_the_certificate_is_announced_as_c_tor_does() {
    let (directory, _) = directory();
    let keys = AuthorityKeys::load(directory.path(), MADE).unwrap();
    let warned = |left: u64| {
        let warning = keys.expiry(Unix(MADE.0 + YEAR - left))?;
        Some((warning.again.as_secs(), warning.to_string()))
    };
    assert_eq!(warned(30 * DAY + 1), None);
    for (left, again, text) in [
        (30 * DAY, 5 * DAY, "expires in 30 days"),
        (7 * DAY, DAY, "expires in 7 days"),
        (DAY, HOUR, "expires in 24 hours"),
        (1, HOUR, "expires in 0 hours"),
        (0, HOUR, "has expired"),
    ] {
        let (found, said) = warned(left).unwrap();
        assert_eq!(found, again, "{left}");
        assert!(said.contains(text) && said.contains("gencert"), "{said}");
    }
}
