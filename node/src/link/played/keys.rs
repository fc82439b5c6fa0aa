//! The keys of relays that a test plays.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::handshake::OnionKey;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::x509::{IDENTITY_BITS, TlsLeaf};
use onionring_proto::link::{LinkIdentity, PeerIdentity};
use onionring_proto::netdoc::routerdesc::{DocumentKeys, NewDescriptor, OnionKeys, SignedDescriptor};

use super::now;
use crate::tls::{Acceptor, TlsVersions};

/// How long certificates hold.
const LIFE: Duration = Duration::from_secs(86_400);

/// All relays show the same TLS certificate: it is their identities that tell them apart.
pub(super) static LEAF: LazyLock<(TlsLeaf, Acceptor)> = LazyLock::new(|| {
    let leaf = TlsLeaf::generate(now(), &mut rand::rng()).expect("keys are made");
    let acceptor = Acceptor::new(&leaf, TlsVersions::Both).expect("made for it");
    (leaf, acceptor)
});

/// A relay's keys.
pub struct Keys {
    rsa: RsaPrivate,
    ed: Ed25519Pair,
    signing: Ed25519Pair,
    signing_cert: Vec<u8>,
    /// Its ntor key.
    pub onion: OnionKey,
    /// Who it is on links.
    pub link: Arc<LinkIdentity>,
}

impl Keys {
    /// New ones.
    ///
    /// # Panics
    /// If keys cannot be made.
    pub fn generate() -> Keys {
        let rng = &mut rand::rng();
        let rsa = RsaPrivate::generate(IDENTITY_BITS, rng).expect("keys are made");
        let (ed, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
        let certified = Certified::Ed25519(signing.public());
        let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, now() + LIFE, &ed);
        let link = LinkIdentity::new(&rsa, &signing_cert, &signing, &LEAF.0.certificate, now(), rng);
        let (onion, link) = (OnionKey::generate(rng), Arc::new(link.expect("its own certificates")));
        Keys { rsa, ed, signing, signing_cert, onion, link }
    }

    /// Who it is.
    pub fn id(&self) -> PeerIdentity {
        PeerIdentity { rsa_id: self.rsa.public().rsa_id(), ed_id: self.ed.public() }
    }

    /// Signs a descriptor.
    ///
    /// # Panics
    /// If it would not be taken.
    pub fn sign(&self, new: &NewDescriptor) -> SignedDescriptor {
        let keys = DocumentKeys {
            identity: &self.rsa,
            ed_identity: self.ed.public(),
            signing: &self.signing,
            signing_cert: &self.signing_cert,
        };
        // Nobody uses a TAP key, but without one authorities make no microdescriptor.
        let tap = Some(&self.rsa);
        let onion = OnionKeys { ntor: self.onion.secret(), ntor_expires: now() + LIFE, tap };
        new.sign(&keys, &onion, &mut rand::rng()).expect("it says what relays say")
    }
}
