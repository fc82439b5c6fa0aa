//! Authorities with real keys, and small votes of them.

use std::sync::{Arc, LazyLock};

use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::netdoc::authcert::{self, CertTerms};
use onionring_proto::netdoc::consensus::Lifetime;
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::netdoc::vote::{
    Authority, Certificate, EdListing, Vote, VotedMicrodesc, VotedParams, VotedRelay, VotedWeight,
};
use onionring_proto::time::Unix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::voting::{Period, Signer};

/// When the consensus begins that all tests vote on.
pub const VALID_AFTER: u64 = 1_795_345_200;

/// Votes and signatures have eight seconds each.
pub const PERIOD: Period = Period {
    voting_starts: Unix(VALID_AFTER - 16),
    fetch_votes: Unix(VALID_AFTER - 12),
    voting_ends: Unix(VALID_AFTER - 8),
    fetch_signatures: Unix(VALID_AFTER - 4),
    valid_after: Unix(VALID_AFTER),
};

/// An authority: one key is its identity and signs too.
pub struct Maker {
    pub signer: Signer,
    pub certificate: Certificate,
}

/// As many as any test wants.
static MAKERS: LazyLock<Vec<Maker>> = LazyLock::new(|| {
    let rng = &mut ChaCha8Rng::seed_from_u64(7);
    (0..10).map(|_| Maker::new(RsaPrivate::generate(1024, rng).unwrap())).collect()
});

pub fn maker(n: usize) -> &'static Maker {
    &MAKERS[n]
}

/// Identities of the first `n`.
pub fn identities(n: usize) -> Vec<Fingerprint> {
    MAKERS[..n].iter().map(Maker::identity).collect()
}

impl Maker {
    fn new(key: RsaPrivate) -> Self {
        let certificate = certificate(&key, Unix(VALID_AFTER + 86_400));
        Maker { signer: Signer { cert: certificate.cert().clone(), key }, certificate }
    }

    pub fn identity(&self) -> Fingerprint {
        self.signer.cert.identity
    }

    /// A vote that says these two things about itself.
    pub fn vote(&self, published: u64, contact: &str) -> Arc<str> {
        self.sign(&self.unsigned(published, contact))
    }

    pub fn sign(&self, vote: &Vote) -> Arc<str> {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        vote.sign(&self.signer.key, rng).unwrap().0.into()
    }

    /// With a certificate that ended.
    pub fn expired_vote(&self) -> Arc<str> {
        let mut vote = self.unsigned(VALID_AFTER - 16, "late");
        vote.certificate = certificate(&self.signer.key, Unix(VALID_AFTER - 100));
        self.sign(&vote)
    }

    pub fn unsigned(&self, published: u64, contact: &str) -> Vote {
        let at = |seconds| Unix(VALID_AFTER + seconds);
        Vote {
            methods: vec![32, 33, 34, 35],
            published: Unix(published),
            lifetime: Lifetime { valid_after: at(0), fresh_until: at(20), valid_until: at(60) },
            voting_delay: (8, 8),
            client_versions: None,
            server_versions: None,
            packages: Vec::new(),
            recommended_relay_protocols: None,
            recommended_client_protocols: None,
            required_relay_protocols: None,
            required_client_protocols: None,
            known_flags: ["Running", "Valid"].map(Box::from).into(),
            flag_thresholds: None,
            params: VotedParams::default(),
            bandwidth_file_headers: None,
            bandwidth_file_digest: None,
            authority: Authority {
                nickname: "auth".into(),
                identity: self.identity(),
                hostname: "localhost".into(),
                address: [127, 0, 0, 1].into(),
                dir_port: 7000,
                or_port: 5000,
                contact: contact.into(),
            },
            shared_random: None,
            legacy_identity: None,
            certificate: self.certificate.clone(),
            relays: vec![relay(1), relay(2)],
        }
    }
}

fn relay(n: u8) -> VotedRelay {
    VotedRelay {
        nickname: Nickname::new("relay").unwrap(),
        identity: Fingerprint([n; 20]),
        ed_identity: EdListing::Key([n; 32]),
        descriptor: Fingerprint([n; 20]),
        published: Unix(1_795_340_000),
        ipv4: [10, 0, 0, n].into(),
        or_port: 9001,
        dir_port: 0,
        ipv6: None,
        flags: 3,
        version: None,
        protocols: "Link=4-5".into(),
        weight: VotedWeight { bandwidth: Some(100), ..VotedWeight::default() },
        policy: None,
        stats: None,
        microdescs: vec![VotedMicrodesc { methods: vec![32, 33, 34, 35], digest: [n; 32] }],
    }
}

fn certificate(key: &RsaPrivate, expires: Unix) -> Certificate {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let terms = CertTerms { published: Unix(1_795_000_000), expires, dir_address: None };
    let out = authcert::build(key, key, &terms, rng).unwrap();
    Certificate::parse(&out).unwrap()
}
