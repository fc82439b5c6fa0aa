//! Keys of the relays in these tests: made once per process, because RSA keys take long to find.

use std::array;
use std::sync::{Arc, OnceLock};

use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::handshake::{OnionKey, OnionKeyRing, ServerIdentity};
use onionring_proto::link::LinkIdentity;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Civil time at the start of every test.
pub const EPOCH: Unix = Unix(1_800_000_123);

/// Relays that can be had.
pub const RELAYS: usize = 9;

/// Who one relay is.
pub struct Keys {
    pub server: ServerIdentity,
    pub link: Arc<LinkIdentity>,
    /// What its TLS side shows: the handshake only takes its digest.
    pub tls_leaf: Vec<u8>,
    onion_secret: [u8; 32],
}

impl Keys {
    fn generate(index: usize) -> Keys {
        let mut rng = ChaCha20Rng::seed_from_u64(index as u64);
        let rsa = RsaPrivate::generate(1024, &mut rng).unwrap();
        let identity = Ed25519Pair::generate(&mut rng);
        let signing = Ed25519Pair::generate(&mut rng);
        let certified = Certified::Ed25519(signing.public());
        let signing_cert =
            cert::build(CertType::IDENTITY_V_SIGNING, certified, Unix(EPOCH.0 + 30 * 86_400), &identity);
        let tls_leaf = format!("the TLS certificate of relay {index}").into_bytes();
        let link = LinkIdentity::new(&rsa, &signing_cert, &signing, &tls_leaf, EPOCH, &mut rng).unwrap();
        let server = ServerIdentity { rsa_id: rsa.public().rsa_id(), ed_id: identity.public() };
        Keys { server, link: Arc::new(link), tls_leaf, onion_secret: [index as u8 + 1; 32] }
    }

    pub fn onion_key(&self) -> OnionKey {
        OnionKey::from_secret(&self.onion_secret)
    }

    pub fn onion_keys(&self) -> OnionKeyRing {
        OnionKeyRing::new(self.onion_key(), None, &mut ChaCha20Rng::seed_from_u64(0))
    }
}

/// The keys of relay number `index`.
pub fn keys(index: usize) -> &'static Keys {
    static KEYS: OnceLock<[OnceLock<Keys>; RELAYS]> = OnceLock::new();
    KEYS.get_or_init(|| array::from_fn(|_| OnceLock::new()))[index].get_or_init(|| Keys::generate(index))
}
