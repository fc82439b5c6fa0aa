use std::net::Ipv4Addr;

use crate::keys::KeyOptions;
use onionring_proto::link::{ExpectedPeer, ExportError, Handshake, LinkParams, TlsExporter};
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use tempfile::TempDir;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const LIFE: OnionKeyLife =
    OnionKeyLife { rotation: Duration::from_secs(28 * 24 * 3600), grace: Duration::from_secs(7 * 24 * 3600) };

fn rng() -> impl CryptoRng {
    UnwrapErr(SysRng)
}

/// Key files have the time of the system, so the clock starts there and is simulated from then on.
fn start() -> Unix {
    Unix(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

fn identity(now: Unix) -> (TempDir, Identity) {
    let directory = tempfile::tempdir().unwrap();
    let store = KeyStore::open(&directory.path().join("keys"), KeyOptions::default()).unwrap();
    let identity = Identity::load(store, TlsVersions::Both, now, &mut rng()).unwrap();
    (directory, identity)
}

fn rotate(identity: &mut Identity, now: Unix) -> bool {
    let rotation = identity.rotate(LIFE, now, &mut rng());
    assert!(rotation.failure.is_none(), "{:?}", rotation.failure);
    rotation.changed
}

fn onion(identity: &Identity) -> (Vec<u8>, Option<Vec<u8>>) {
    let ring = &identity.onion_keys;
    (ring.current().public().to_vec(), ring.previous().map(|key| key.public().to_vec()))
}

/// Nobody authenticates to the responder here, which is what keying material is for.
struct NoTls;

impl TlsExporter for NoTls {
    fn export(&self, _: &[u8], _: &[u8], _: &mut [u8; 32]) -> Result<(), ExportError> {
        Err(ExportError)
    }
}

/// Whether a client that sees the certificate of the TLS side takes what is proved inside.
fn link_holds(identity: &Identity, now: Unix) -> bool {
    let params = || LinkParams {
        versions: onionring_proto::cell::LinkVersion::ALL.to_vec(),
        peer_address: Ipv4Addr::LOCALHOST.into(),
        own_addresses: Vec::new(),
    };
    let leaf = identity.acceptor.certificate();
    let server = identity.server();
    let expected = ExpectedPeer { rsa_id: Some(server.rsa_id), ed_id: Some(server.ed_id) };
    let mut sides = [
        Handshake::initiator(None, expected, leaf, params()),
        Handshake::responder(identity.link.clone(), params()),
    ];
    let mut towards = [Vec::new(), Vec::new()];
    let mut established = [false; 2];
    for turn in 0..6 {
        let (from, to) = (turn % 2, 1 - turn % 2);
        sides[from].poll_transmit(&mut towards[to]);
        if established[to] {
            continue;
        }
        let Ok((used, link)) = sides[to].handle(now, &mut towards[to], &NoTls, &mut rng()) else {
            return false;
        };
        towards[to].drain(..used);
        established[to] = link.is_some();
    }
    established == [true; 2]
}

#[test]
fn an_onion_key_lives_its_life_and_the_one_before_its_grace() {
    let begin = start();
    let (_directory, mut identity) = identity(begin);
    let (first, none) = onion(&identity);
    assert_eq!(none, None);
    // Nothing but the link side changes before the time has come.
    rotate(&mut identity, begin + LIFE.rotation - HOUR);
    assert_eq!(onion(&identity), (first.clone(), None));
    let rotated = begin + LIFE.rotation + HOUR;
    assert!(rotate(&mut identity, rotated));
    let (second, before) = onion(&identity);
    assert_eq!(before, Some(first.clone()));
    assert_ne!(second, first);
    rotate(&mut identity, rotated + LIFE.grace - HOUR);
    assert_eq!(onion(&identity), (second.clone(), Some(first)));
    rotate(&mut identity, rotated + LIFE.grace + HOUR);
    assert_eq!(onion(&identity), (second.clone(), None));
    assert!(rotate(&mut identity, rotated + LIFE.rotation));
    assert_eq!(onion(&identity).1, Some(second));
}

#[test]
fn the_signing_key_is_renewed_before_its_certificate_ends_and_links_follow() {
    let begin = start();
    let (_directory, mut identity) = identity(begin);
    let (first, expires) = (identity.keys.signing.public(), identity.keys.signing_expires);
    let due = begin + 29 * DAY + HOUR;
    assert!(due < expires);
    // An hour in which nothing else is due.
    identity.tls_since = due;
    assert!(rotate(&mut identity, due));
    assert_ne!(identity.keys.signing.public(), first);
    assert!(identity.keys.signing_expires > due + 29 * DAY);
    assert!(link_holds(&identity, due + HOUR));
    assert!(!identity.link_is_stale);
}

#[test]
fn certificate_and_proof_of_a_link_change_together_every_two_hours() {
    let begin = start();
    let (_directory, mut identity) = identity(begin);
    let old_acceptor = identity.acceptor.clone();
    assert!(link_holds(&identity, begin));
    assert!(!rotate(&mut identity, begin + TLS_KEY_LIFETIME - Duration::from_secs(1)));
    assert_eq!(identity.acceptor.certificate(), old_acceptor.certificate());
    let now = begin + TLS_KEY_LIFETIME;
    assert!(rotate(&mut identity, now));
    assert_ne!(identity.acceptor.certificate(), old_acceptor.certificate());
    assert!(link_holds(&identity, now));
    // The one without the other is what peers refuse.
    identity.acceptor = old_acceptor;
    assert!(!link_holds(&identity, now));
}

#[test]
fn a_disk_that_takes_no_keys_does_not_stop_the_link_certificates() {
    let begin = start();
    let (directory, mut identity) = identity(begin);
    let (keys, away) = (directory.path().join("keys"), directory.path().join("away"));
    // Tests may run as root, who may write anywhere: a directory that is gone stands in for a full disk.
    std::fs::rename(&keys, &away).unwrap();
    let now = begin + 29 * DAY + HOUR;
    let old = (identity.keys.signing.public(), onion(&identity));
    let certificate = identity.acceptor.certificate().to_vec();
    let rotation = identity.rotate(LIFE, now, &mut rng());
    assert!(matches!(rotation.failure, Some(IdentityFailure::Keys(_))), "{rotation:?}");
    assert!(rotation.changed);
    assert_ne!(identity.acceptor.certificate(), certificate);
    assert!(link_holds(&identity, now));
    assert_eq!((identity.keys.signing.public(), onion(&identity)), old);

    std::fs::rename(&away, &keys).unwrap();
    assert!(rotate(&mut identity, now + HOUR));
    assert_ne!(identity.keys.signing.public(), old.0);
    assert_eq!(onion(&identity).1, Some(old.1.0));
    assert!(link_holds(&identity, now + HOUR));
}
