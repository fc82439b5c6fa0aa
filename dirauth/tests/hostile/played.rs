//! An authority that a test plays.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock, Mutex};

use onionring_dirauth::voting::Period;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::netdoc::authcert::{self, CertTerms};
use onionring_proto::netdoc::consensus::{Lifetime, PendingConsensus};
use onionring_proto::netdoc::detached::DetachedSignatures;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::tally::Tally;
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::netdoc::vote::{
    Authority, Certificate, EdListing, SignedVote, Vote, VotedMicrodesc, VotedRelay, VotedWeight,
};
use onionring_proto::time::Unix;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use sha1::{Digest as _, Sha1};

use crate::http;
use crate::stage::{DELAY, INTERVAL};

/// What it was sent, and what it answers.
#[derive(Debug, Default)]
pub struct Desk {
    /// Paths and bodies, in their order.
    pub posted: Vec<(String, String)>,
    /// The votes that it has, one after the other.
    pub votes: String,
    /// The signatures that it has.
    pub signatures: Option<String>,
}

/// One key is its identity and signs too.
pub struct Played {
    pub name: &'static str,
    pub key: RsaPrivate,
    pub certificate: Certificate,
    pub dir: SocketAddr,
    pub desk: Arc<Mutex<Desk>>,
}

/// Keys of four authorities: ours, two that are played, and a stranger. Each test's authorities have the same.
static KEYS: LazyLock<[RsaPrivate; 4]> = LazyLock::new(|| {
    [1, 2, 3, 4].map(|seed| RsaPrivate::generate(1024, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap())
});

pub fn key(n: usize) -> &'static RsaPrivate {
    &KEYS[n]
}

/// A certificate by which a key vouches for itself for a day from now.
pub fn certificate(key: &RsaPrivate) -> Certificate {
    let now = crate::now();
    let terms =
        CertTerms { published: Unix(now.0 - 86_400), expires: Unix(now.0 + 86_400), dir_address: None };
    let text = authcert::build(key, key, &terms, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    Certificate::parse(&text).unwrap()
}

/// Signs the text of a vote up to its footer, whatever it says.
pub fn sign_text(key: &RsaPrivate, text: &str) -> String {
    let id = Fingerprint(key.public().rsa_id());
    let digest = Sha1::digest(format!("{text}directory-signature "));
    let signature = key.sign_bare(&digest, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let mut out = format!("{text}directory-signature {id} {id}\n");
    onionring_proto::netdoc::text::push_object(&mut out, "SIGNATURE", &signature);
    out
}

impl Played {
    /// Number `n`, which listens on this address.
    pub fn start(n: usize, name: &'static str, address: Ipv4Addr) -> Played {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let dir = listener.local_addr().unwrap();
        let desk = Arc::new(Mutex::new(Desk::default()));
        let (key, at_desk) = (key(n).clone(), desk.clone());
        let certificate = certificate(&key);
        let certs = certificate.text().to_owned();
        http::serve(listener, move |path, body| {
            let mut desk = at_desk.lock().unwrap();
            match body {
                Some(body) => {
                    desk.posted.push((path.to_owned(), body));
                    Some(String::new())
                }
                None if path.starts_with("/tor/keys/") => Some(certs.clone()),
                None if path == "/tor/status-vote/next/consensus-signatures" => desk.signatures.clone(),
                None if path.starts_with("/tor/status-vote/next/") => {
                    Some(desk.votes.clone()).filter(|votes| !votes.is_empty())
                }
                None => None,
            }
        });
        Played { name, key, certificate, dir, desk }
    }

    pub fn identity(&self) -> Fingerprint {
        self.certificate.cert().identity
    }

    /// A vote for a period, published that many seconds ago.
    pub fn vote(&self, period: &Period, age: u64, contact: &str) -> String {
        sign_text(&self.key, &self.unsigned(period, age, contact).encode())
    }

    pub fn unsigned(&self, period: &Period, age: u64, contact: &str) -> Vote {
        let after = |seconds| Unix(period.valid_after.0 + seconds);
        let SocketAddr::V4(dir) = self.dir else { unreachable!("bound to an IPv4 address") };
        Vote {
            methods: vec![32, 33, 34, 35],
            published: Unix(crate::now().0 - age),
            lifetime: Lifetime {
                valid_after: after(0),
                fresh_until: after(INTERVAL),
                valid_until: after(3 * INTERVAL),
            },
            voting_delay: (DELAY as u32, DELAY as u32),
            client_versions: Some(vec!["0.4.9.11".into()]),
            server_versions: Some(vec!["0.4.9.11".into()]),
            packages: Vec::new(),
            recommended_relay_protocols: Some(protocols("Link=5")),
            recommended_client_protocols: Some(protocols("Link=5")),
            required_relay_protocols: Some(protocols("Link=4")),
            required_client_protocols: Some(protocols("Link=4")),
            known_flags: ["Exit", "Fast", "Running", "Stable", "Valid"].map(Box::from).into(),
            flag_thresholds: Some("stable-uptime=1".into()),
            params: [("bwweightscale", 10_000), ("circwindow", 1000)].into_iter().collect(),
            bandwidth_file_headers: Some("timestamp=1".into()),
            bandwidth_file_digest: Some([1; 32]),
            authority: Authority {
                nickname: self.name.into(),
                identity: self.identity(),
                hostname: dir.ip().to_string().into(),
                address: *dir.ip(),
                dir_port: dir.port(),
                or_port: 9,
                contact: contact.into(),
            },
            shared_random: None,
            legacy_identity: None,
            certificate: self.certificate.clone(),
            relays: vec![relay(1), relay(2)],
        }
    }

    /// What it posts when it has computed this consensus.
    pub fn signatures(&self, tally: &Tally) -> DetachedSignatures {
        let sign = |consensus| {
            let mut pending = PendingConsensus::new(consensus);
            let rng = &mut ChaCha8Rng::seed_from_u64(2);
            pending.sign(self.certificate.cert(), &self.key, rng).unwrap();
            pending
        };
        DetachedSignatures::of(&sign(tally.ns.clone()), &sign(tally.microdesc.clone())).unwrap()
    }

    /// The votes of an authority for a period that were posted to it, each once.
    pub fn votes_of(&self, voter: Fingerprint, valid_after: Unix) -> Vec<SignedVote> {
        let mut votes: Vec<SignedVote> = Vec::new();
        for (_, body) in self.desk.lock().unwrap().posted.iter().filter(|(path, _)| path == "/tor/post/vote")
        {
            let vote = SignedVote::parse(body).unwrap();
            let is_of_it =
                (vote.vote.authority.identity, vote.vote.lifetime.valid_after) == (voter, valid_after);
            if is_of_it && votes.iter().all(|known| known.digest != vote.digest) {
                votes.push(vote);
            }
        }
        votes
    }

    /// The signatures for a period that were posted to it, in their order.
    pub fn signatures_for(&self, valid_after: Unix) -> Vec<DetachedSignatures> {
        let desk = self.desk.lock().unwrap();
        let posted = desk.posted.iter().filter(|(path, _)| path == "/tor/post/consensus-signature");
        let parsed = posted.map(|(_, body)| DetachedSignatures::parse(body).unwrap());
        parsed.filter(|doc| doc.lifetime.valid_after == valid_after).collect()
    }
}

fn protocols(text: &str) -> Protocols {
    Protocols::parse(text).unwrap()
}

fn relay(n: u8) -> VotedRelay {
    VotedRelay {
        nickname: Nickname::new("relay").unwrap(),
        identity: Fingerprint([n; 20]),
        ed_identity: EdListing::Key([n; 32]),
        descriptor: Fingerprint([n; 20]),
        published: Unix(crate::now().0 - 3600),
        ipv4: [10, 0, 0, n].into(),
        or_port: 9001,
        dir_port: 0,
        ipv6: None,
        flags: 0b11111,
        version: Some("Tor 0.4.9.11".into()),
        protocols: "Link=4-5".into(),
        weight: VotedWeight { bandwidth: Some(100), ..VotedWeight::default() },
        policy: Some("accept 80,443".into()),
        stats: Some("wfu=1".into()),
        microdescs: vec![VotedMicrodesc { methods: vec![32, 33, 34, 35], digest: [n; 32] }],
    }
}
