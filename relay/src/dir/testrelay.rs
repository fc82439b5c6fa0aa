//! A relay that has something to publish.

use std::net::SocketAddrV4;
use std::time::Duration;

use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::dir::publish::Contents;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::netdoc::extrainfo::NewExtraInfo;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{Bandwidth, BuildError, DocumentKeys, NewDescriptor, OnionKeys};
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::policy::ExitPolicy;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use super::publish::{Describe, SignedDocs};

/// Its keys, and what it says.
pub struct TestRelay {
    identity: RsaPrivate,
    tap: RsaPrivate,
    master: Ed25519Pair,
    signing: Ed25519Pair,
    ntor: [u8; 32],
    rng: ChaCha20Rng,
    /// What it says.
    pub descriptor: NewDescriptor,
}

impl TestRelay {
    /// A middle relay at this address.
    pub fn new(address: SocketAddrV4) -> Self {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        TestRelay {
            identity: RsaPrivate::generate(1024, &mut rng).unwrap(),
            tap: RsaPrivate::generate(1024, &mut rng).unwrap(),
            master: Ed25519Pair::generate(&mut rng),
            signing: Ed25519Pair::generate(&mut rng),
            ntor: [4; 32],
            rng,
            descriptor: NewDescriptor {
                nickname: Nickname::new("testrelay").unwrap(),
                ipv4: *address.ip(),
                or_port: address.port(),
                dir_port: 0,
                ipv6: None,
                platform: "onionring 0.1.0 on Linux".into(),
                protocols: Protocols::parse("Link=3-5 Relay=2").unwrap(),
                published: Unix(0),
                uptime: 1,
                bandwidth: Bandwidth { rate: 1_000_000, burst: 1_000_000, observed: 0 },
                extra_info: None,
                caches_extra_info: false,
                family: Vec::new(),
                family_certs: Vec::new(),
                hibernating: false,
                hidden_service_dir: false,
                contact: None,
                policy: ExitPolicy::middleman(),
                tunnelled_dir_server: true,
                overloaded_since: None,
            },
        }
    }

    /// SHA-1 of its RSA identity key.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.identity.public().rsa_id())
    }
}

impl Describe for TestRelay {
    fn contents(&mut self, _now: Unix) -> Option<Contents> {
        Some(Contents {
            descriptor: self.descriptor.clone(),
            ntor_key: self.ntor,
            tap_key: Some(Fingerprint(self.tap.public().rsa_id())),
            signing_cert: Box::default(),
        })
    }

    fn sign(&mut self, contents: &Contents) -> Result<SignedDocs, BuildError> {
        let expires = contents.descriptor.published + Duration::from_secs(30 * 86_400);
        let subject = Certified::Ed25519(self.signing.public());
        let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, subject, expires, &self.master);
        let keys = DocumentKeys {
            identity: &self.identity,
            ed_identity: self.master.public(),
            signing: &self.signing,
            signing_cert: &signing_cert,
        };
        let mut descriptor = contents.descriptor.clone();
        let NewDescriptor { nickname, published, .. } = descriptor;
        let extra_info = NewExtraInfo { nickname, published, statistics: Vec::new() };
        let extra_info = extra_info.sign(&keys, &mut self.rng)?;
        descriptor.extra_info = Some(extra_info.parsed.digests);
        let onion = OnionKeys { ntor: &self.ntor, ntor_expires: expires, tap: Some(&self.tap) };
        let descriptor = descriptor.sign(&keys, &onion, &mut self.rng)?;
        Ok(SignedDocs { descriptor, extra_info })
    }
}
