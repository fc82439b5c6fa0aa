//! What the one authority of a played network signs.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::netdoc::authcert::{self, CertTerms};
use onionring_proto::netdoc::consensus::{Lifetime, PendingConsensus};
use onionring_proto::netdoc::microdesc::Microdesc;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::tally::{METHODS, Tally, Terms};
use onionring_proto::netdoc::text::{Fingerprint, base64_unpadded};
use onionring_proto::netdoc::vote::{
    Authority, Certificate, EdListing, SignedVote, Vote, VotedMicrodesc, VotedRelay, VotedWeight,
};
use onionring_proto::policy::Family;
use onionring_proto::time::Unix;

const HOUR: Duration = Duration::from_secs(3600);

/// The flags voted on, sorted.
const FLAGS: [&str; 7] = ["Exit", "Fast", "Guard", "Running", "Stable", "V2Dir", "Valid"];

/// One key is the authority's identity and signs too.
static KEY: LazyLock<RsaPrivate> = LazyLock::new(|| RsaPrivate::generate(1024, &mut rand::rng()).unwrap());

/// A relay as the authority lists it.
pub struct Listed<'a> {
    pub descriptor: &'a RouterDesc,
    pub is_guard: bool,
}

/// What directories of the network have.
pub struct Paper {
    consensus: String,
    certificate: String,
    microdescs: Vec<([u8; 32], String)>,
}

pub fn now() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// A consensus of this hour.
pub fn current() -> Lifetime {
    let valid_after = now() - HOUR / 2;
    Lifetime { valid_after, fresh_until: valid_after + HOUR, valid_until: valid_after + HOUR * 3 }
}

/// The authority's v3 identity.
pub fn authority() -> Fingerprint {
    Fingerprint(KEY.public().rsa_id())
}

fn certificate() -> Certificate {
    let day = HOUR * 24;
    let terms = CertTerms { published: now() - day * 60, expires: now() + day * 60, dir_address: None };
    let text = authcert::build(&KEY, &KEY, &terms, &mut rand::rng()).unwrap();
    Certificate::parse(&text).unwrap()
}

impl Paper {
    /// Lists relays in a consensus that holds so long.
    pub fn new(listed: &[Listed<'_>], lifetime: Lifetime, authority: SocketAddr) -> Paper {
        let certificate = certificate();
        let mut microdescs = Vec::new();
        let mut relays: Vec<VotedRelay> = listed.iter().map(|relay| voted(relay, &mut microdescs)).collect();
        relays.sort_by_key(|relay| relay.identity);
        let vote = vote(relays, lifetime, authority, &certificate);
        let (_, signed): (String, SignedVote) = vote.sign(&KEY, &mut rand::rng()).unwrap();
        let tally = Tally::of([&signed], &Terms { authorities: 1, shared_random: None }).unwrap();
        let mut pending = PendingConsensus::new(tally.microdesc);
        pending.sign(certificate.cert(), &KEY, &mut rand::rng()).unwrap();
        Paper { consensus: pending.text(), certificate: certificate.text().to_owned(), microdescs }
    }

    /// What a directory answers.
    pub fn document(&self, path: &str) -> Option<String> {
        if path.starts_with("/tor/status-vote/current/consensus-microdesc") {
            return Some(self.consensus.clone());
        }
        if path.starts_with("/tor/keys/") {
            return Some(self.certificate.clone());
        }
        let asked = path.strip_prefix("/tor/micro/d/")?;
        let wanted = self.microdescs.iter().filter(|(digest, _)| asked.contains(&base64_unpadded(digest)));
        Some(wanted.map(|(_, text)| text.as_str()).collect())
    }
}

fn voted(listed: &Listed<'_>, microdescs: &mut Vec<([u8; 32], String)>) -> VotedRelay {
    let Listed { descriptor, is_guard } = listed;
    let mut of_methods = Vec::new();
    for (methods, text) in Microdesc::texts_of(descriptor, METHODS) {
        let digest = Microdesc::digest_of(&text);
        of_methods.push(VotedMicrodesc { methods, digest });
        microdescs.push((digest, text));
    }
    let policy = descriptor.policy.summary(Family::V4).to_string();
    let has = |flag: &str| match flag {
        "Exit" => policy.starts_with("accept"),
        "Guard" => *is_guard,
        _ => true,
    };
    let flags = FLAGS.iter().enumerate().filter(|(_, flag)| has(flag)).map(|(n, _)| 1 << n).sum();
    VotedRelay {
        nickname: descriptor.nickname,
        identity: descriptor.identity,
        ed_identity: EdListing::Key(descriptor.ed_identity),
        descriptor: descriptor.digest,
        published: descriptor.published,
        ipv4: descriptor.ipv4,
        or_port: descriptor.or_port,
        dir_port: 0,
        ipv6: None,
        flags,
        version: Some("Tor 0.4.9.11".into()),
        protocols: (&*descriptor.proto).into(),
        weight: VotedWeight { bandwidth: Some(1000), ..VotedWeight::default() },
        policy: Some(policy.into()),
        stats: None,
        microdescs: of_methods,
    }
}

fn vote(relays: Vec<VotedRelay>, lifetime: Lifetime, at: SocketAddr, certificate: &Certificate) -> Vote {
    let SocketAddr::V4(at) = at else { unreachable!("an IPv4 network") };
    Vote {
        methods: METHODS.collect(),
        published: lifetime.valid_after - Duration::from_secs(600),
        lifetime,
        voting_delay: (300, 300),
        client_versions: None,
        server_versions: None,
        packages: Vec::new(),
        recommended_relay_protocols: None,
        recommended_client_protocols: None,
        required_relay_protocols: None,
        required_client_protocols: None,
        known_flags: FLAGS.map(Box::from).to_vec(),
        flag_thresholds: None,
        params: [("bwweightscale", 10_000), ("circwindow", 1000)].into_iter().collect(),
        bandwidth_file_headers: None,
        bandwidth_file_digest: None,
        authority: Authority {
            nickname: "authority".into(),
            identity: authority(),
            hostname: at.ip().to_string().into(),
            address: *at.ip(),
            dir_port: 9,
            or_port: at.port(),
            contact: "nobody".into(),
        },
        shared_random: None,
        legacy_identity: None,
        certificate: certificate.clone(),
        relays,
    }
}
