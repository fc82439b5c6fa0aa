//! What the tests of links share: a clock, seeded randomness, keys and identities.

use std::sync::{Arc, OnceLock};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::cert::{self, CertType, Certified};
use super::*;
use crate::crypto::ed25519::Ed25519Pair;
use crate::crypto::rsa::RsaPrivate;
use crate::time::Unix;

pub(crate) const NOW: Unix = Unix(1_800_000_123);

pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// An RSA identity key; `other_rsa` is another one.
pub(crate) fn rsa() -> &'static RsaPrivate {
    static KEY: OnceLock<RsaPrivate> = OnceLock::new();
    KEY.get_or_init(|| RsaPrivate::generate(x509::IDENTITY_BITS, &mut rng(1)).unwrap())
}

pub(crate) fn other_rsa() -> &'static RsaPrivate {
    static KEY: OnceLock<RsaPrivate> = OnceLock::new();
    KEY.get_or_init(|| RsaPrivate::generate(x509::IDENTITY_BITS, &mut rng(2)).unwrap())
}

/// One of two relays: its keys, and the TLS certificate it shows.
pub(crate) struct Relay {
    pub(crate) rsa: &'static RsaPrivate,
    pub(crate) identity: Ed25519Pair,
    pub(crate) signing: Ed25519Pair,
    pub(crate) tls_leaf: &'static [u8],
}

impl Relay {
    pub(crate) fn one() -> Relay {
        Relay {
            rsa: rsa(),
            identity: Ed25519Pair::from_seed(&[11; 32]),
            signing: Ed25519Pair::from_seed(&[12; 32]),
            tls_leaf: b"the TLS certificate of relay one",
        }
    }

    pub(crate) fn two() -> Relay {
        Relay {
            rsa: other_rsa(),
            identity: Ed25519Pair::from_seed(&[21; 32]),
            signing: Ed25519Pair::from_seed(&[22; 32]),
            tls_leaf: b"the TLS certificate of relay two",
        }
    }

    pub(crate) fn signing_cert(&self, expires: Unix) -> Vec<u8> {
        let key = Certified::Ed25519(self.signing.public());
        cert::build(CertType::IDENTITY_V_SIGNING, key, expires, &self.identity)
    }

    pub(crate) fn link_identity(&self) -> Arc<LinkIdentity> {
        let signing_cert = self.signing_cert(Unix(NOW.0 + 30 * 86_400));
        Arc::new(
            LinkIdentity::new(self.rsa, &signing_cert, &self.signing, self.tls_leaf, NOW, &mut rng(3))
                .unwrap(),
        )
    }

    pub(crate) fn public(&self) -> PeerIdentity {
        PeerIdentity { rsa_id: self.rsa.public().rsa_id(), ed_id: self.identity.public() }
    }
}

mod identity {
    use super::*;
    use crate::link::cert::CertError;

    fn make(
        relay: &Relay,
        signing_cert: &[u8],
        signing: &Ed25519Pair,
    ) -> Result<LinkIdentity, IdentityError> {
        LinkIdentity::new(relay.rsa, signing_cert, signing, relay.tls_leaf, NOW, &mut rng(1))
    }

    #[test]
    fn lives_as_long_as_its_shortest_certificate() {
        let relay = Relay::one();
        let long = make(&relay, &relay.signing_cert(Unix(NOW.0 + 30 * 86_400)), &relay.signing).unwrap();
        assert_eq!(long.public(), relay.public());
        assert_eq!(long.valid_until(), Unix(NOW.0 + 2 * 86_400));
        let short = make(&relay, &relay.signing_cert(Unix(1_800_003_600)), &relay.signing).unwrap();
        assert_eq!(short.valid_until(), Unix(1_800_003_600));
    }

    #[test]
    fn is_refused_with_keys_that_do_not_belong_together() {
        let relay = Relay::one();
        let cert = relay.signing_cert(Unix(NOW.0 + 3600));
        let other = Ed25519Pair::from_seed(&[9; 32]);
        assert_eq!(make(&relay, &cert, &other).err(), Some(IdentityError::SigningKey));
        let expires = Unix(NOW.0 - NOW.0 % 3600);
        assert_eq!(
            make(&relay, &relay.signing_cert(expires), &relay.signing).err(),
            Some(IdentityError::SigningCert(CertError::Expired { expires, now: NOW }))
        );
        assert_eq!(
            make(&relay, &cert[1..], &relay.signing).err(),
            Some(IdentityError::SigningCert(CertError::Version(4)))
        );
        let long = RsaPrivate::generate(1152, &mut rng(4)).unwrap();
        assert_eq!(
            LinkIdentity::new(&long, &cert, &relay.signing, relay.tls_leaf, NOW, &mut rng(1)).err(),
            Some(IdentityError::RsaLength(1152))
        );
    }
}
