//! Relays that publish whatever they like, signed with their own keys.

use std::net::Ipv4Addr;

use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::netdoc::extrainfo::NewExtraInfo;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{Bandwidth, DocumentKeys, NewDescriptor, OnionKeys};
use onionring_proto::netdoc::text::{Fingerprint, Nickname, base64_unpadded, push_object};
use onionring_proto::policy::ExitPolicy;
use onionring_proto::time::Unix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// A relay's keys.
pub struct Relay {
    identity: RsaPrivate,
    tap: RsaPrivate,
    master: Ed25519Pair,
    signing: Ed25519Pair,
    expires: Unix,
}

impl Relay {
    pub fn new(seed: u64) -> Relay {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        Relay {
            identity: RsaPrivate::generate(1024, rng).unwrap(),
            tap: RsaPrivate::generate(1024, rng).unwrap(),
            master: Ed25519Pair::generate(rng),
            signing: Ed25519Pair::generate(rng),
            expires: Unix(crate::now().0 + 86_400),
        }
    }

    pub fn identity(&self) -> Fingerprint {
        Fingerprint(self.identity.public().rsa_id())
    }

    /// A good descriptor, and the extra-info that goes with it.
    pub fn documents(&self, published: Unix) -> (String, String) {
        let signing_cert = cert::build(
            CertType::IDENTITY_V_SIGNING,
            Certified::Ed25519(self.signing.public()),
            self.expires,
            &self.master,
        );
        let keys = DocumentKeys {
            identity: &self.identity,
            ed_identity: self.master.public(),
            signing: &self.signing,
            signing_cert: &signing_cert,
        };
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        let nickname = Nickname::new("publisher").unwrap();
        let statistics =
            vec!["dirreq-v3-ips us=8".into(), "hidserv-stats-end 2026-01-01 00:00:00 (86400 s)".into()];
        let extra_info = NewExtraInfo { nickname, published, statistics }.sign(&keys, rng).unwrap();
        let descriptor = NewDescriptor {
            nickname,
            ipv4: Ipv4Addr::new(203, 0, 113, 1),
            or_port: 9001,
            dir_port: 0,
            ipv6: Some(("2001:db8::1".parse().unwrap(), 9001)),
            platform: "onionring 0.1.0 on Linux".into(),
            protocols: Protocols::parse("Link=3-5 Relay=2-4").unwrap(),
            published,
            uptime: 100_000,
            bandwidth: Bandwidth { rate: 1_000_000, burst: 2_000_000, observed: 500_000 },
            extra_info: Some(extra_info.parsed.digests),
            caches_extra_info: true,
            family: Vec::new(),
            family_certs: Vec::new(),
            hibernating: false,
            hidden_service_dir: true,
            contact: Some("somebody".into()),
            policy: ExitPolicy::middleman(),
            tunnelled_dir_server: true,
            overloaded_since: None,
        };
        let onion = OnionKeys { ntor: &[4; 32], ntor_expires: self.expires, tap: Some(&self.tap) };
        (descriptor.sign(&keys, &onion, rng).unwrap().text, extra_info.text)
    }

    /// Signs a document up to its signatures, whatever it says.
    pub fn sign(&self, body: &str) -> String {
        let mut doc = format!("{body}router-sig-ed25519 ");
        let message: [u8; 32] = Sha256::new()
            .chain_update("Tor router descriptor signature v1")
            .chain_update(&doc)
            .finalize()
            .into();
        doc += &base64_unpadded(&self.signing.sign(&message));
        doc += "\nrouter-signature\n";
        let signature =
            self.identity.sign_bare(&Sha1::digest(&doc), &mut ChaCha8Rng::seed_from_u64(6)).unwrap();
        push_object(&mut doc, "SIGNATURE", &signature);
        doc
    }
}

/// A document without its signatures.
pub fn unsigned(document: &str) -> &str {
    document.split_once("router-sig-ed25519 ").unwrap().0
}
