//! What authorities on paper vote.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::crypto::rsa::RsaError;
use onionring_proto::netdoc::consensus::{Lifetime, PendingConsensus};
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::tally::{METHODS, Tally, Terms};
use onionring_proto::netdoc::vote::{
    Authority as Introduction, EdListing, SignedVote, Vote, VotedParams, VotedRelay, VotedWeight,
};
use onionring_proto::policy::Family;
use onionring_proto::time::Unix;
use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::CryptoRng;

use super::{Authority, Directory, Relay, SyntheticError, rng};

/// The flags on which C tor 0.4.9 votes, sorted.
const FLAGS: [&str; 13] = [
    "Authority",
    "BadExit",
    "Exit",
    "Fast",
    "Guard",
    "HSDir",
    "MiddleOnly",
    "Running",
    "Stable",
    "StaleDesc",
    "Sybil",
    "V2Dir",
    "Valid",
];
const RECOMMENDED: &str = "Cons=2 Desc=2 DirCache=2 FlowCtrl=1 Link=4-5 Microdesc=2 Relay=2-4";
const REQUIRED: &str = "Cons=2 Desc=2 FlowCtrl=1 Link=4 Microdesc=2 Relay=2";
/// Authorities without a bandwidth file.
const UNMEASURING: usize = 2;
/// Of a hundred relays, those that an authority does not list, of which it has another opinion than most, that were
/// measured, and of which it says something else than in the period before.
const UNLISTED: u32 = 2;
const DISSENTING: u32 = 3;
const MEASURED: u32 = 95;
const CHANGED: u32 = 5;

/// The consensus that is voted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// How many there were before: opinions change from one to the next.
    pub number: u64,
    /// When the votes are made.
    pub published: Unix,
    /// When the consensus is to begin.
    pub valid_after: Unix,
    /// Time to the next consensus.
    pub interval: Duration,
    /// Seconds for votes and for signatures to go round.
    pub voting_delay: (u32, u32),
}

impl Authority {
    /// Signs both flavours of a consensus.
    ///
    /// # Errors
    /// [`RsaError`] if the key does not sign, which would be this module's fault.
    pub fn sign(
        &self,
        flavors: [&mut PendingConsensus; 2],
        rng: &mut impl CryptoRng,
    ) -> Result<(), RsaError> {
        flavors.into_iter().try_for_each(|pending| pending.sign(self.certificate.cert(), &self.signing, rng))
    }
}

impl Directory {
    /// What the votes of all authorities give, in both flavours, signed by all.
    ///
    /// # Errors
    /// [`SyntheticError`].
    pub fn consensuses<'a>(
        &self,
        votes: impl IntoIterator<Item = &'a SignedVote>,
    ) -> Result<[String; 2], SyntheticError> {
        let terms = Terms { authorities: self.authorities.len(), shared_random: None };
        let tally = Tally::of(votes, &terms)?;
        let (mut ns, mut microdesc) =
            (PendingConsensus::new(tally.ns), PendingConsensus::new(tally.microdesc));
        for (n, authority) in self.authorities.iter().enumerate() {
            authority.sign([&mut ns, &mut microdesc], &mut rng(self.seed, b"consensu", n as u64))?;
        }
        Ok([ns.text(), microdesc.text()])
    }

    /// The vote of an authority, by its number: it lists 98 % of the relays, thinks of 3 % otherwise than most, and has
    /// measured 95 %, unless it is one of the first two, which do not measure. From slot to slot a twentieth changes.
    ///
    /// # Errors
    /// [`SyntheticError`].
    pub fn vote(&self, authority: usize, slot: &Slot) -> Result<(String, SignedVote), SyntheticError> {
        let voter = &self.authorities[authority];
        let relays = self.relays.iter().enumerate();
        let relays = relays.filter_map(|(n, relay)| self.opinion(authority, n, relay, slot)).collect();
        let vote = self.frame(authority, slot, relays);
        Ok(vote.sign(&voter.signing, &mut rng(self.seed, b"signatur", authority as u64))?)
    }

    fn frame(&self, authority: usize, slot: &Slot, relays: Vec<VotedRelay>) -> Vote {
        let voter = &self.authorities[authority];
        let protocols = |list: &str| Protocols::parse(list).ok();
        let address = Ipv4Addr::new(127, 99, 0, 1 + authority as u8);
        let versions = || Some(["0.4.8.21", "0.4.9.5", "0.4.9.11"].map(Box::from).to_vec());
        let params = [("bwweightscale", 10_000), ("circwindow", 1000), ("onion-key-rotation-days", 28)];
        Vote {
            methods: METHODS.collect(),
            published: slot.published,
            lifetime: Lifetime {
                valid_after: slot.valid_after,
                fresh_until: slot.valid_after + slot.interval,
                valid_until: slot.valid_after + slot.interval * 3,
            },
            voting_delay: slot.voting_delay,
            client_versions: versions(),
            server_versions: versions(),
            packages: Vec::new(),
            recommended_relay_protocols: protocols(RECOMMENDED),
            recommended_client_protocols: protocols(RECOMMENDED),
            required_relay_protocols: protocols(REQUIRED),
            required_client_protocols: protocols(REQUIRED),
            known_flags: FLAGS.map(Box::from).to_vec(),
            flag_thresholds: Some(
                "stable-uptime=1209600 stable-mtbf=3628800 fast-speed=102000 guard-wfu=98.000% guard-tk=691200 \
                 guard-bw-inc-exits=10000000 guard-bw-exc-exits=9000000 enough-mtbf=1 ignoring-advertised-bws=1"
                    .into(),
            ),
            params: params.into_iter().collect::<VotedParams>(),
            bandwidth_file_headers: None,
            bandwidth_file_digest: None,
            authority: Introduction {
                nickname: voter.nickname.as_str().into(),
                identity: voter.identity(),
                hostname: address.to_string().into(),
                address,
                dir_port: 7000,
                or_port: 5000,
                contact: "on paper only".into(),
            },
            shared_random: None,
            legacy_identity: None,
            certificate: voter.certificate.clone(),
            relays,
        }
    }

    fn opinion(&self, authority: usize, n: usize, relay: &Relay, slot: &Slot) -> Option<VotedRelay> {
        let rng = &mut mood(self, b"opinion ", authority, n, slot.number);
        if rng.random_ratio(UNLISTED, 100) {
            return None;
        }
        let descriptor = &relay.parsed;
        Some(VotedRelay {
            nickname: descriptor.nickname,
            identity: descriptor.identity,
            ed_identity: EdListing::Key(descriptor.ed_identity),
            descriptor: descriptor.digest,
            published: descriptor.published,
            ipv4: descriptor.ipv4,
            or_port: descriptor.or_port,
            dir_port: descriptor.dir_port,
            ipv6: descriptor.ipv6,
            flags: flags(relay, rng),
            version: descriptor.platform.as_deref().and_then(version),
            protocols: Arc::from(&*descriptor.proto),
            weight: VotedWeight {
                bandwidth: Some(relay.nature.kilobytes),
                measured: measured(self, authority, n, relay, slot.number),
                ..VotedWeight::default()
            },
            policy: Some(descriptor.policy.summary(Family::V4).to_string().into()),
            stats: Some(stats(rng).into()),
            microdescs: relay.voted.clone(),
        })
    }
}

/// What an authority has measured of relay number `n`, kilobytes a second.
pub(super) fn measured(
    directory: &Directory,
    authority: usize,
    n: usize,
    relay: &Relay,
    slot: u64,
) -> Option<u32> {
    let rng = &mut mood(directory, b"measured", authority, n, slot);
    let is_measured = authority >= UNMEASURING && rng.random_ratio(MEASURED, 100);
    is_measured.then(|| (f64::from(relay.nature.kilobytes) * rng.random_range(0.7..1.4)) as u32)
}

/// The random numbers behind what an authority says of a relay: the same in most slots.
fn mood(directory: &Directory, purpose: &[u8; 8], authority: usize, n: usize, slot: u64) -> ChaCha20Rng {
    let number = |slot: u64| (slot << 40) | ((authority as u64) << 32) | n as u64;
    let changed = (1..=slot).rev().find(|slot| {
        let rng = &mut rng(directory.seed, b"changes ", number(*slot));
        rng.random_ratio(CHANGED, 100)
    });
    rng(directory.seed, purpose, number(changed.unwrap_or(0)))
}

fn flags(relay: &Relay, rng: &mut ChaCha20Rng) -> u64 {
    let nature = &relay.nature;
    let fast = nature.kilobytes >= 100;
    let has = |name: &str| match name {
        "Running" | "V2Dir" | "Valid" => true,
        "Exit" => nature.exit,
        "Fast" => fast,
        "Guard" => nature.stable && nature.kilobytes >= 2000,
        "HSDir" | "Stable" => nature.stable && fast,
        _ => false,
    };
    let disputed = |name: &str| matches!(name, "Fast" | "Guard" | "HSDir" | "Running" | "Stable");
    let dissents = rng.random_ratio(DISSENTING, 100);
    let dispute = rng.random_range(0..FLAGS.len());
    let bits = FLAGS
        .iter()
        .enumerate()
        .filter(|(n, name)| has(name) != (dissents && *n == dispute && disputed(name)));
    bits.map(|(n, _)| 1 << n).sum()
}

fn version(platform: &str) -> Option<Arc<str>> {
    Some(platform.split(' ').take(2).collect::<Vec<_>>().join(" ").into())
}

fn stats(rng: &mut ChaCha20Rng) -> String {
    let (wfu, known): (f64, u32) = (rng.random_range(0.5..1.0), rng.random_range(80_000..900_000));
    format!("wfu={wfu:.6} tk={known} mtbf={}", rng.random_range(100_000..9_000_000))
}
