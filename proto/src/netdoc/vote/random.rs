//! Votes thrown with dice, of few different relays and opinions, so that authorities agree now and then.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha1::{Digest, Sha1};

use super::*;
use crate::crypto::rsa::RsaPrivate;
use crate::netdoc::authcert::{self, CertTerms};

/// Flags that votes may be on, sorted.
const FLAGS: &[&str] = &[
    "Authority",
    "BadExit",
    "Exit",
    "Fast",
    "Guard",
    "HSDir",
    "MiddleOnly",
    "Named",
    "NoEdConsensus",
    "Running",
    "Stable",
    "Unnamed",
    "V2Dir",
    "Valid",
];
const PARAMS: &[&str] =
    &["AuthDirNumSRVAgreements", "a", "a-b", "a0", "bwweightscale", "circwindow", "maxunmeasuredbw"];
/// No two texts of one version: which of them authorities prefer is up to their C library.
const VERSIONS: &[&str] = &["0.4.8.9", "0.4.8.10", "0.4.9.1-alpha", "0.4.9.11", "Tor 0.4.10.1", "next"];
const PROTOCOLS: &[&str] = &["Link=1-5 Relay=2-4", "Link=3-5 Relay=2,4", "Desc=2 Link=4", ""];
const PACKAGES: &[&str] = &["tor 1 u d=1", "tor 1 u d=2", "tor 2 u d=1", "broken"];
const POLICIES: &[&str] = &["accept 80,443", "reject 1-65535", "reject 25"];

pub struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.next_u32() as usize % n
    }

    /// True so often in a hundred.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn some<T: Copy>(&mut self, percent: usize, from: &[T]) -> Vec<T> {
        from.iter().copied().filter(|_| self.chance(percent)).collect()
    }
}

/// A key of 1024 bits for tests.
pub fn key() -> RsaPrivate {
    RsaPrivate::from_pem(include_str!("../../crypto/rsa/test_key.pem")).unwrap()
}

/// A certificate of `key` by itself, as the identity of an authority.
pub fn certificate(key: &RsaPrivate) -> Certificate {
    certificate_at(key, Unix(1_795_341_600))
}

/// One that is made at this time, and holds for a year.
pub fn certificate_at(key: &RsaPrivate, published: Unix) -> Certificate {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let terms = CertTerms { published, expires: Unix(published.0 + 365 * 86_400), dir_address: None };
    let out = authcert::build(key, key, &terms, rng).unwrap();
    Certificate::parse(&out).unwrap()
}

/// A vote of an authority that has one relay less than nothing to say.
pub fn plain(n: u8) -> Vote {
    static CERTIFICATE: std::sync::LazyLock<Certificate> = std::sync::LazyLock::new(|| certificate(&key()));
    Vote {
        methods: vec![32, 33, 34, 35],
        published: Unix(1_795_344_900),
        lifetime: Lifetime {
            valid_after: Unix(1_795_345_200),
            fresh_until: Unix(1_795_348_800),
            valid_until: Unix(1_795_356_000),
        },
        voting_delay: (300, 300),
        client_versions: None,
        server_versions: None,
        packages: Vec::new(),
        recommended_relay_protocols: None,
        recommended_client_protocols: None,
        required_relay_protocols: None,
        required_client_protocols: None,
        known_flags: ["Exit", "Guard", "Running", "Valid"].map(Box::from).into(),
        flag_thresholds: None,
        params: VotedParams::default(),
        bandwidth_file_headers: None,
        bandwidth_file_digest: None,
        authority: Authority {
            nickname: format!("auth{n}").into(),
            identity: Fingerprint([n; 20]),
            hostname: "localhost".into(),
            address: [127, 0, 0, n].into(),
            dir_port: 7000,
            or_port: 5000,
            contact: "someone".into(),
        },
        shared_random: None,
        legacy_identity: None,
        certificate: CERTIFICATE.clone(),
        relays: Vec::new(),
    }
}

/// A relay that has no flag and one descriptor.
pub fn relay(n: u8) -> VotedRelay {
    VotedRelay {
        nickname: Nickname::new(&format!("relay{n}")).unwrap(),
        identity: Fingerprint([n; 20]),
        ed_identity: EdListing::Key([n.max(1); 32]),
        descriptor: Fingerprint([n; 20]),
        published: Unix(1_795_340_000),
        ipv4: [10, 0, 0, n].into(),
        or_port: 9001,
        dir_port: 0,
        ipv6: None,
        flags: 0,
        version: None,
        protocols: "Link=4-5".into(),
        weight: VotedWeight::default(),
        policy: None,
        stats: None,
        microdescs: vec![VotedMicrodesc { methods: vec![32, 33, 34, 35], digest: [n.max(1); 32] }],
    }
}

/// As if it were signed.
pub fn as_signed(vote: Vote) -> SignedVote {
    let digest = Fingerprint(Sha1::digest(vote.encode()).into());
    SignedVote { vote, digest }
}

/// The vote of authority number `n`.
pub fn vote(dice: &mut Dice, n: u8) -> Vote {
    let methods: &[&[u32]] =
        &[&[32], &[32, 33], &[32, 33, 34], &[34, 35, 34], &[32, 33, 34, 35], &[35, 36], &[1]];
    let later = dice.below(3) as u64;
    let mut vote = plain(n);
    vote.methods = if dice.chance(70) { vec![32, 33, 34, 35] } else { dice.pick(methods).to_vec() };
    vote.lifetime.valid_until = Unix(vote.lifetime.valid_until.0 + later);
    vote.voting_delay = (dice.pick(&[2, 300, 400]), dice.pick(&[2, 300, 301]));
    vote.client_versions = versions(dice);
    vote.server_versions = versions(dice);
    vote.packages = dice.some(60, PACKAGES).into_iter().map(Box::from).collect();
    vote.recommended_relay_protocols = protocols(dice);
    vote.recommended_client_protocols = protocols(dice);
    vote.required_relay_protocols = protocols(dice);
    vote.required_client_protocols = protocols(dice);
    let known: Vec<&str> = dice.some(90, FLAGS);
    let rare = |flag: &&str| ["Named", "NoEdConsensus", "Unnamed"].contains(flag);
    let known = known.into_iter().filter(|flag| !rare(flag) || dice.chance(20));
    vote.known_flags = known.map(Box::from).collect();
    vote.flag_thresholds = dice.chance(50).then(|| "stable-uptime=0".into());
    vote.params = dice.some(60, PARAMS).into_iter().map(|p| (p, dice.below(9) as i32 - 2)).collect();
    vote.bandwidth_file_headers = dice.chance(30).then(|| "timestamp=1".into());
    vote.bandwidth_file_digest = dice.chance(30).then_some([7; 32]);
    vote.legacy_identity = dice.chance(10).then_some(Fingerprint([200 - n; 20]));
    vote.shared_random = dice.chance(80).then(|| shared_random(dice));
    let listed: Vec<u8> = (1..=8).filter(|_| dice.chance(93)).collect();
    vote.relays = listed.into_iter().map(|n| random_relay(dice, n)).collect();
    // Ed25519 identities are unique in a vote.
    let mut seen = std::collections::BTreeSet::new();
    for relay in &mut vote.relays {
        if let EdListing::Key(key) = relay.ed_identity
            && !seen.insert(key)
        {
            relay.ed_identity = EdListing::Unlisted;
        }
    }
    let mask = u64::MAX.checked_shr(64 - vote.known_flags.len() as u32).unwrap_or(0);
    vote.relays.iter_mut().for_each(|relay| relay.flags &= mask);
    // Flags that take others away are rare.
    for (flag, percent) in [("MiddleOnly", 75), ("BadExit", 50)] {
        let bit = vote.flag_bit(flag).unwrap_or(0);
        vote.relays.iter_mut().filter(|_| dice.chance(percent)).for_each(|relay| relay.flags &= !bit);
    }
    vote
}

fn versions(dice: &mut Dice) -> Option<Vec<Box<str>>> {
    dice.chance(70).then(|| dice.some(60, VERSIONS).into_iter().map(Box::from).collect())
}

fn protocols(dice: &mut Dice) -> Option<Protocols> {
    dice.chance(80).then(|| Protocols::parse(dice.pick(PROTOCOLS)).unwrap())
}

fn shared_random(dice: &mut Dice) -> SharedRandomVote {
    let value = |dice: &mut Dice| {
        let value = [dice.below(3) as u8; 32];
        dice.chance(80).then_some(SharedRandom { reveals: 3, value })
    };
    let reveals = [Reveal::Withheld, Reveal::Missing, Reveal::Known([9; 40])];
    SharedRandomVote {
        commits: (0..dice.below(3))
            .map(|n| Commit {
                authority: Fingerprint([n as u8; 20]),
                commit: [n as u8; 40],
                reveal: dice.pick(&reveals),
            })
            .collect(),
        previous: value(dice),
        current: value(dice),
    }
}

/// Signs the text of a vote as it stands.
pub fn sign(mut text: String, vote: &Vote, key: &RsaPrivate) -> String {
    let digest = Sha1::digest(format!("{text}directory-signature "));
    let signature = key.sign_bare(&digest, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let cert = vote.certificate.cert();
    push_signature(&mut text, "directory-signature", &cert.identity, &cert.signing_key_id, &signature);
    text
}

/// The same vote in words that nobody uses, and that mean something to C tor all the same.
pub fn oddly(dice: &mut Dice, text: &str) -> String {
    text.split_inclusive('\n').map(|line| odd_line(dice, line.trim_end_matches('\n'))).collect()
}

fn odd_line(dice: &mut Dice, line: &str) -> String {
    let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
    if !dice.chance(30) {
        return format!("{line}\n");
    }
    match keyword {
        "consensus-methods" => {
            let more = dice.pick(&["x", "2147483648", "4294967295", "35x", "-35", "0"]);
            format!("{line} {more}\n")
        }
        "m" => {
            let (methods, digest) = rest.split_once(' ').unwrap_or((rest, ""));
            let last = digest.len() - 1;
            let odd = match dice.below(9) {
                0 => format!("m {methods}\n"),
                1 => format!("m {methods} md5=x\n"),
                2 => format!("m {methods}\t{digest}\n"),
                3 => format!("m 0{methods} {digest}\n"),
                4 => format!("m 99999999999,{methods}x {digest}\n"),
                5 => format!("m {methods} x=y {digest}more\n"),
                6 => format!("m {methods} sha256=x\n"),
                7 => format!("m {methods} {}\n", &digest[..last]),
                _ => format!("m {},,35 {digest}\n", methods.replace(",35", "")),
            };
            if dice.chance(50) { format!("{line}\n{odd}") } else { format!("{odd}{line}\n").repeat(70) }
        }
        "r" => {
            let ports = dice.pick(&["x 65536", "+9001 0", "09001 +0"]);
            format!("{} {ports}\n", line.rsplitn(3, ' ').last().unwrap_or(""))
        }
        "stats" => format!("{line}\n-----BEGIN X-----\nAAAA\n-----END X-----\n"),
        _ => format!("{line}\n"),
    }
}

fn random_relay(dice: &mut Dice, n: u8) -> VotedRelay {
    let mut relay = relay(n);
    let variant = if dice.chance(60) { 0 } else { 1 + dice.below(3) as u8 };
    let number = |dice: &mut Dice, percent| dice.chance(percent).then(|| dice.below(1000) as u32);
    relay.ed_identity = match dice.below(10) {
        0 => EdListing::Unlisted,
        1 => EdListing::None,
        2 => EdListing::Key([(n + 1) % 8 + 1; 32]),
        _ => EdListing::Key([n + 1; 32]),
    };
    relay.descriptor = Fingerprint([variant; 20]);
    relay.published = Unix(1_795_340_000 + dice.below(2) as u64 * u64::from(variant));
    relay.nickname = Nickname::new(dice.pick(&["one", "One", "two"])).unwrap();
    relay.or_port = dice.pick(&[9001, 9001, 9001, 443]);
    // The second is written as `::1.2.3.4`.
    let prefix = dice.pick(&[[0xfe80, 0], [0xfe80, 0], [0, 0x102]]);
    let address = [prefix[0], 0, 0, 0, 0, 0, prefix[1], 0x304 + dice.below(2) as u16];
    relay.ipv6 = dice.chance(60).then(|| (address.into(), 9 + dice.below(2) as u16));
    // Most have the flags without which they are not listed.
    relay.flags = u64::MAX;
    for bit in 0..FLAGS.len() {
        if dice.chance(12) {
            relay.flags &= !(1 << bit);
        }
    }
    relay.version = dice.chance(80).then(|| Arc::from(dice.pick(VERSIONS)));
    relay.protocols = Arc::from(dice.pick(PROTOCOLS));
    relay.weight = VotedWeight {
        bandwidth: number(dice, 90),
        measured: number(dice, 60),
        measured_but_authority: number(dice, 5),
        guard_fraction: dice.chance(40).then(|| dice.below(101) as u8),
    };
    relay.policy = dice.chance(80).then(|| Arc::from(dice.pick(POLICIES)));
    relay.stats = dice.chance(50).then(|| "wfu=1.000000 tk=5 mtbf=7".into());
    relay.microdescs = (0..dice.below(3))
        .map(|_| VotedMicrodesc {
            methods: if dice.chance(50) { vec![32, 33, 34] } else { vec![32, 35] },
            digest: [dice.below(3) as u8; 32],
        })
        .collect();
    relay
}
