//! Flights recorded from a stock tor.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::ed25519::Ed25519Pair;
use crate::crypto::rsa::RsaPrivate;
use crate::link::cert::{self, CertType, Certified};

/// What the recorded relay itself said its fingerprint was; it was made anew between the recordings.
const INITIATOR_FINGERPRINT: &str = "CDC3F3A206DE72876D473230175048BFFD7CD0FF";
const RESPONDER_FINGERPRINT: &str = "45CDB378275B04E772670D63261478780562CECE";

struct Recording(BTreeMap<&'static str, &'static str>);

impl Recording {
    fn new(text: &'static str) -> Recording {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Recording(lines.map(|line| line.split_once(' ').unwrap()).collect())
    }

    fn now(&self) -> Unix {
        Unix(self.0["now"].parse().unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        hex::decode(self.0[name]).unwrap()
    }

    fn key(&self, name: &str) -> Ed25519Pair {
        Ed25519Pair::from_expanded(&self.bytes(name).try_into().unwrap())
    }

    /// A responder with the keys of the one that tor spoke to.
    fn responder(&self, version: LinkVersion) -> Handshake {
        let rsa = RsaPrivate::from_der(&self.bytes("rsa")).unwrap();
        let signing = self.key("signing");
        let expires = Unix(self.now().0 + 86_400);
        let certified = Certified::Ed25519(signing.public());
        let signing_cert =
            cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &self.key("identity"));
        let leaf = self.bytes("tls_leaf");
        let identity = LinkIdentity::new(&rsa, &signing_cert, &signing, &leaf, self.now(), &mut rng(1));
        Handshake::responder(Arc::new(identity.unwrap()), params(&[version], INITIATOR_AT, RESPONDER_AT))
    }

    /// SHA-256 of what tor was sent up to and including AUTH_CHALLENGE.
    fn slog(&self, version: LinkVersion) -> [u8; 32] {
        let sent = cells(Framing::Initial, version, &self.bytes("sent"));
        Sha256::digest(join(&sent[..=find(&sent, Command::AUTH_CHALLENGE)])).into()
    }
}

/// Gives back what TLS exported when the recording was made.
struct Exported([u8; 32]);

impl TlsExporter for Exported {
    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8; 32]) -> Result<(), ExportError> {
        assert_eq!((label, context.len()), (authenticate::EXPORTER_LABEL, 32));
        *out = self.0;
        Ok(())
    }
}

fn initiators() -> [(LinkVersion, Recording); 2] {
    [
        (LinkVersion::V3, Recording::new(include_str!("../testdata/tor-0.4.9.11-initiator-v3.txt"))),
        (LinkVersion::V5, Recording::new(include_str!("../testdata/tor-0.4.9.11-initiator-v5.txt"))),
    ]
}

#[test]
fn a_responder_of_c_tor_is_understood() {
    for (version, text) in [
        (LinkVersion::V3, include_str!("../testdata/tor-0.4.9.11-responder-v3.txt")),
        (LinkVersion::V5, include_str!("../testdata/tor-0.4.9.11-responder-v5.txt")),
    ] {
        let recording = Recording::new(text);
        let identity = Some(Relay::one().link_identity());
        let params = params(&[version], [127, 0, 0, 31].into(), INITIATOR_AT);
        let leaf = recording.bytes("tls_leaf");
        let mut initiator = Handshake::initiator(identity, ExpectedPeer::default(), &leaf, params);
        let mut received = recording.bytes("received");
        let (_, link) = initiator.handle(recording.now(), &mut received, &SESSION, &mut rng(1)).unwrap();
        let link = link.unwrap();
        assert_eq!(link.version, version);
        assert_eq!(hex::encode_upper(link.peer.unwrap().rsa_id), RESPONDER_FINGERPRINT);
        assert_eq!(link.my_address_seen, Some([127, 0, 0, 1].into()));
        assert!(link.peer_clock_skew.unwrap().abs() < 5);
    }
}

#[test]
fn an_initiator_of_c_tor_is_authenticated() {
    for (version, recording) in initiators() {
        let mut responder = recording.responder(version);
        let received = cells(Framing::Initial, version, &recording.bytes("received"));
        let exporter = Exported(recording.bytes("tls_secrets").try_into().unwrap());
        let (versions, rest) = received.split_at(1);
        responder.handle(recording.now(), &mut join(versions), &exporter, &mut rng(1)).unwrap();
        // Its answer was another one when the recording was made.
        let Some(Role::Responder(role)) = &mut responder.role else { panic!("a responder") };
        role.slog = recording.slog(version);
        let (_, link) = responder.handle(recording.now(), &mut join(rest), &exporter, &mut rng(1)).unwrap();
        let peer = link.unwrap().peer.unwrap();
        assert_eq!(hex::encode_upper(peer.rsa_id), INITIATOR_FINGERPRINT);
    }
}
