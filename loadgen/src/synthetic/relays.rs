//! Relays: what they are like, and the documents in which they say so.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaError;
use onionring_proto::link::cert::{CertType, Certified, build};
use onionring_proto::netdoc::extrainfo::NewExtraInfo;
use onionring_proto::netdoc::family::FamilyMember;
use onionring_proto::netdoc::microdesc::Microdesc;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{Bandwidth, DocumentKeys, NewDescriptor, OnionKeys};
use onionring_proto::netdoc::tally::METHODS;
use onionring_proto::netdoc::text::{Fingerprint, Nickname, format_time};
use onionring_proto::netdoc::vote::VotedMicrodesc;
use onionring_proto::policy::ExitPolicy;
use onionring_proto::time::Unix;
use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;

use super::keys::Pairs;
use super::{Relay, SyntheticError, rng};

/// Software that relays run, and how many of a hundred.
const PLATFORMS: [(&str, u32); 5] = [
    ("Tor 0.4.9.11 on Linux", 40),
    ("Tor 0.4.8.21 on Linux", 38),
    ("Tor 0.4.8.16 on FreeBSD", 10),
    ("Tor 0.4.9.5 on Linux", 10),
    ("Tor 0.4.8.10 on Windows Server 2019", 2),
];
const PROTOCOLS: &str = "Conflux=1 Cons=1-2 Desc=1-4 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4-5 HSRend=1-2 \
                         Link=3-5 LinkAuth=3 Microdesc=1-3 Padding=2 Relay=2-6";
/// Of a hundred relays, how many say that they belong to a family, are exits, and have IPv6.
const IN_FAMILY: usize = 40;
const EXITS: u32 = 25;
const WITH_IPV6: u32 = 55;
/// Relays of a family. The longest of the public network have hundreds; the mean over relays is about this.
const FAMILY_LEN: usize = 12;
/// Until when certificates hold.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a relay is like, whatever each authority thinks of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nature {
    /// What it can carry, kilobytes a second.
    pub kilobytes: u32,
    /// Whether it is up most of the time.
    pub stable: bool,
    /// Whether it is an exit to the web.
    pub exit: bool,
}

/// Who belongs together: of every hundred relays the first, in groups.
pub(super) struct Families(Vec<Fingerprint>);

impl Families {
    pub(super) fn new(relays: usize, keys: &Pairs) -> Result<Families, RsaError> {
        let members = relays * IN_FAMILY / 100;
        let identity = |n| Ok(Fingerprint(keys.get(n)?.public().rsa_id()));
        Ok(Families((0..members).map(identity).collect::<Result<_, RsaError>>()?))
    }

    fn of(&self, n: usize) -> Vec<FamilyMember> {
        if n >= self.0.len() {
            return Vec::new();
        }
        let start = n - n % FAMILY_LEN;
        let group: Range<usize> = start..(start + FAMILY_LEN).min(self.0.len());
        self.0[group].iter().map(|identity| FamilyMember::Identity(*identity)).collect()
    }
}

/// Makes relay number `n`.
pub(super) fn make(
    n: usize,
    keys: &Pairs,
    families: &Families,
    seed: u64,
    now: Unix,
) -> Result<Relay, SyntheticError> {
    let rng = &mut rng(seed, b"relay   ", n as u64);
    // One TAP key for all: nobody uses it, and each signs with it nevertheless.
    let (identity, tap) = (keys.get(n + 1)?, keys.get(0)?);
    let (master, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
    let published = Unix(now.0 - rng.random_range(600..16 * 3600));
    let expires = now + LIFE;
    let signing_cert =
        build(CertType::IDENTITY_V_SIGNING, Certified::Ed25519(signing.public()), expires, &master);
    let document_keys = DocumentKeys {
        identity: &identity,
        ed_identity: master.public(),
        signing: &signing,
        signing_cert: &signing_cert,
    };
    let nature = nature(rng);
    let nickname = nickname(n);
    let extra_info = NewExtraInfo { nickname, published, statistics: statistics(published, &nature, rng) };
    let extra_info = extra_info.sign(&document_keys, rng)?;
    let ntor = rng.random();
    let onion = OnionKeys { ntor: &ntor, ntor_expires: expires, tap: Some(&tap) };
    let descriptor = NewDescriptor {
        nickname,
        ipv4: address(n),
        or_port: if n.is_multiple_of(3) { 443 } else { 9001 },
        dir_port: 0,
        ipv6: rng.random_ratio(WITH_IPV6, 100).then(|| (address_v6(n), 9001)),
        platform: platform(rng).to_owned(),
        protocols: Protocols::parse(PROTOCOLS).expect("a constant that a test makes descriptors with"),
        published,
        uptime: if nature.stable {
            rng.random_range(86_400..5_000_000)
        } else {
            rng.random_range(60..86_400)
        },
        bandwidth: bandwidth(&nature),
        extra_info: Some(extra_info.parsed.digests),
        caches_extra_info: false,
        family: families.of(n),
        family_certs: Vec::new(),
        hibernating: false,
        hidden_service_dir: true,
        contact: Some(format!("Operator {n} <relays-{n} AT example dot org> proof:uri-rsa ciissversion:2")),
        policy: policy(&nature, rng),
        tunnelled_dir_server: true,
        overloaded_since: None,
    };
    let descriptor = descriptor.sign(&document_keys, &onion, rng)?;
    let (mut voted, mut microdescs) = (Vec::new(), Vec::new());
    for (methods, text) in Microdesc::texts_of(&descriptor.parsed, METHODS) {
        voted.push(VotedMicrodesc { methods, digest: Microdesc::digest_of(&text) });
        microdescs.push(text);
    }
    let (descriptor, parsed) = (descriptor.text, descriptor.parsed);
    Ok(Relay { descriptor, parsed, extra_info: extra_info.text, microdescs, voted, nature })
}

/// Bandwidths spread over four orders of magnitude: most relays are small, and a tenth carries most.
fn nature(rng: &mut ChaCha20Rng) -> Nature {
    let octaves: f64 = rng.random_range(5.0..13.0) + rng.random_range(0.0..4.0);
    Nature {
        kilobytes: octaves.exp2() as u32,
        stable: rng.random_ratio(85, 100),
        exit: rng.random_ratio(EXITS, 100),
    }
}

fn bandwidth(nature: &Nature) -> Bandwidth {
    let bytes = nature.kilobytes.saturating_mul(1000).min(Bandwidth::MAX / 2);
    Bandwidth { rate: bytes * 2, burst: bytes * 2, observed: bytes }
}

fn nickname(n: usize) -> Nickname {
    const WORDS: [&str; 6] = ["onion", "QuietRelay", "NTH", "prsv", "ForPrivacyNET", "artikel"];
    let text = format!("{}{n}", WORDS[n % WORDS.len()]);
    Nickname::new(&text).expect("letters and at most 6 digits")
}

/// On loopback, so that whoever tries to reach one leaves the machine nowhere.
fn address(n: usize) -> Ipv4Addr {
    let [_, a, b, c] = (n as u32 / 250 * 256 + n as u32 % 250 + 1).to_be_bytes();
    Ipv4Addr::new(127, 100 + a, b, c)
}

/// Of the documentation's network, which is nowhere.
fn address_v6(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, (n >> 8) as u16, (n & 0xff) as u16, 0, 0, 0, 1)
}

fn platform(rng: &mut ChaCha20Rng) -> &'static str {
    let mut left = rng.random_range(0..100);
    for (platform, share) in PLATFORMS {
        if left < share {
            return platform;
        }
        left -= share;
    }
    PLATFORMS[0].0
}

fn policy(nature: &Nature, rng: &mut ChaCha20Rng) -> ExitPolicy {
    if !nature.exit {
        return ExitPolicy::middleman();
    }
    match rng.random_range(0..3) {
        0 => ExitPolicy::restricted(),
        1 => {
            ports(&["20-23", "43", "53", "79-81", "88", "110", "143", "194", "220", "389", "443", "464-465"])
        }
        _ => ports(&["53", "80", "443", "853", "5222-5223", "6667", "8000", "8080", "8443", "9418"]),
    }
}

fn ports(accepted: &[&str]) -> ExitPolicy {
    let accept = accepted.iter().map(|ports| format!("accept *:{ports}"));
    let lines: Vec<String> = accept.chain(["reject *:*".to_owned()]).collect();
    ExitPolicy::from_descriptor(lines.iter().map(String::as_str)).expect("made of numbers")
}

/// The statistics that relays publish by default: what they carried in the last days.
fn statistics(published: Unix, nature: &Nature, rng: &mut ChaCha20Rng) -> Vec<String> {
    let ended = format_time(published);
    let mut history = |name: &str| {
        let day = u64::from(nature.kilobytes) * 1000 * 86_400;
        let days: Vec<String> = (0..5).map(|_| (day / 10 * rng.random_range(3..9)).to_string()).collect();
        format!("{name} {ended} (86400 s) {}", days.join(","))
    };
    vec![
        history("write-history"),
        history("read-history"),
        history("ipv6-write-history"),
        history("ipv6-read-history"),
        history("dirreq-write-history"),
        history("dirreq-read-history"),
        format!("hidserv-stats-end {ended} (86400 s)"),
        "hidserv-rend-relayed-cells 4713042 delta_f=2048 epsilon=0.30 bin_size=1024".to_owned(),
        "hidserv-dir-onions-seen 219 delta_f=8 epsilon=0.30 bin_size=8".to_owned(),
        format!(
            "padding-counts {ended} (86400 s) bin-size=10000 write-drop=0 write-pad=140000 write-total=19320000 \
             read-drop=0 read-pad=130000 read-total=19480000 enabled-read-pad=120000 enabled-read-total=4690000 \
             enabled-write-pad=120000 enabled-write-total=4610000 max-chanpad-timers=1410"
        ),
    ]
}
