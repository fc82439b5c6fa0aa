//! What this authority thinks of the network, as a vote (dir-spec 3.4.1): all that it knows and was told comes in, the
//! vote goes out, ready to be signed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use onionring_proto::netdoc::consensus::{Lifetime, SharedRandom as Value};
use onionring_proto::netdoc::microdesc::Microdesc;
use onionring_proto::netdoc::params::ConsensusParams;
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::tally::METHODS;
use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::netdoc::vote::{
    Authority, Certificate, Commit, EdListing, Reveal, SharedRandomVote, Vote, VotedMicrodesc, VotedRelay,
    VotedWeight,
};
use onionring_proto::policy::Family;
use onionring_proto::time::Unix;

use crate::approval::Approvals;
use crate::bandwidth_file::Measurements;
use crate::flags::{self, Assessed, Assessment, Flag, Relay};
use crate::options::AuthorityOptions;
use crate::reach::Reached;
use crate::shared_random::VoteLines;
use crate::stability::Stability;
use crate::version;

/// What relays and clients should have and need: what authorities of C tor 0.4.9 vote, less what relays of this project
/// do not have. Nobody may be told to have what the software of whoever says so lacks.
const RELAY: &str = "Cons=2 Desc=2 DirCache=2 FlowCtrl=1 Link=4-5 LinkAuth=3 Microdesc=2 Relay=2-4";
const RECOMMENDED_CLIENT: &str = "Cons=2 Desc=2 DirCache=2 FlowCtrl=1 Link=4-5 Microdesc=2 Relay=2-4";
const REQUIRED_CLIENT: &str = "Cons=2 Desc=2 FlowCtrl=1 Link=4 Microdesc=2 Relay=2";

/// The bandwidth file that a vote goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BandwidthSource {
    /// Its headers, in their order.
    pub headers: Vec<String>,
    /// Its SHA-256.
    pub digest: [u8; 32],
}

/// All that an opinion is made of.
pub struct Grounds<'a> {
    /// The settings.
    pub options: &'a AuthorityOptions,
    /// The newest descriptor of each relay.
    pub relays: &'a BTreeMap<Fingerprint, Arc<RouterDesc>>,
    /// What the administrator decided.
    pub approvals: &'a Approvals,
    /// When each relay was last reached.
    pub reached: &'a dyn Fn(&Fingerprint) -> Reached,
    /// The relays that are authorities, by their relay identity.
    pub authorities: &'a [Fingerprint],
    /// The parameters of the latest consensus.
    pub params: &'a ConsensusParams,
    /// The bandwidths measured.
    pub measurements: &'a Measurements,
    /// Where those are from.
    pub bandwidth_source: Option<BandwidthSource>,
    /// Our part in the shared random protocol.
    pub shared_random: Option<VoteLines>,
    /// Who we are.
    pub us: &'a Us,
    /// When we were started.
    pub started: Unix,
    /// When the consensus is to begin that is voted on.
    pub valid_after: Unix,
    /// Now.
    pub now: Unix,
}

/// How an authority introduces itself.
#[derive(Clone, Debug)]
pub struct Us {
    /// Its nickname.
    pub nickname: Box<str>,
    /// SHA-1 of its relay identity key.
    pub relay: Fingerprint,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its ORPort.
    pub or_port: u16,
    /// Its DirPort.
    pub dir_port: u16,
    /// Its certificate.
    pub certificate: Certificate,
}

/// An opinion.
#[derive(Clone, Debug)]
pub struct Opinion {
    /// The vote, not signed yet.
    pub vote: Vote,
    /// The microdescriptors that it names, under all methods.
    pub microdescs: Vec<Microdesc>,
    /// Their texts, in the same order.
    pub microdesc_texts: Vec<String>,
}

impl Grounds<'_> {
    /// Forms the opinion. Takes a second or two for the public network.
    pub fn opinion(self, stability: &mut Stability) -> Opinion {
        let relays: Vec<Relay<'_>> = self.relays.values().map(|descriptor| self.relay(descriptor)).collect();
        let terms = flags::Terms {
            options: &self.options.flags,
            params: self.params,
            measurements: self.measurements,
            us: self.us.relay,
            hibernating: false,
            started: self.started,
            now: self.now,
        };
        let assessment = flags::assess(&relays, &terms, stability);
        let known_flags: Vec<Box<str>> =
            assessment.known_flags.iter().map(|flag| Box::from(flag.name())).collect();
        let mut texts = Texts::default();
        let voted = assessment.relays.iter().filter_map(|assessed| {
            let relay = relays.get(assessed.relay)?;
            Some(self.voted(relay, assessed, &known_flags, stability, &mut texts))
        });
        let voted = voted.collect();
        let Texts { microdescs, microdesc_texts } = texts;
        Opinion { vote: self.vote(&assessment, known_flags, voted), microdescs, microdesc_texts }
    }

    fn relay<'b>(&self, descriptor: &'b RouterDesc) -> Relay<'b> {
        let identity = &descriptor.identity;
        let Reached { v4, v6 } = (self.reached)(identity);
        Relay {
            descriptor,
            standing: self.approvals.standing(identity, &descriptor.ed_identity, descriptor.ipv4),
            is_authority: self.authorities.contains(identity),
            reached: v4,
            reached_v6: v6,
        }
    }

    fn vote(&self, assessment: &Assessment, known_flags: Vec<Box<str>>, relays: Vec<VotedRelay>) -> Vote {
        let AuthorityOptions { timing, intervals_valid, .. } = *self.options;
        let versions = |list: &Option<Vec<String>>| {
            list.as_ref().map(|list| list.iter().map(|v| (**v).into()).collect())
        };
        // They are constants, which a test parses.
        let protocols = |list: &str| Protocols::parse(list).ok();
        let seconds = |delay: std::time::Duration| u32::try_from(delay.as_secs()).unwrap_or(u32::MAX);
        let headers = |source: &BandwidthSource| source.headers.join(" ").into();
        Vote {
            methods: METHODS.collect(),
            published: self.now,
            lifetime: Lifetime {
                valid_after: self.valid_after,
                fresh_until: self.valid_after + timing.interval,
                valid_until: self.valid_after + timing.interval.saturating_mul(intervals_valid),
            },
            voting_delay: (seconds(timing.vote_delay), seconds(timing.dist_delay)),
            client_versions: versions(&self.options.client_versions),
            server_versions: versions(&self.options.server_versions),
            packages: Vec::new(),
            recommended_relay_protocols: protocols(RELAY),
            recommended_client_protocols: protocols(RECOMMENDED_CLIENT),
            required_relay_protocols: protocols(RELAY),
            required_client_protocols: protocols(REQUIRED_CLIENT),
            known_flags,
            flag_thresholds: Some(assessment.thresholds.to_string().into()),
            params: self.options.params.iter().map(|(name, value)| (&**name, *value)).collect(),
            bandwidth_file_headers: self.bandwidth_source.as_ref().map(headers),
            bandwidth_file_digest: self.bandwidth_source.as_ref().map(|source| source.digest),
            authority: self.authority(),
            shared_random: self.shared_random.as_ref().map(shared_random_vote),
            legacy_identity: None,
            certificate: self.us.certificate.clone(),
            relays,
        }
    }

    fn authority(&self) -> Authority {
        let Us { nickname, address, or_port, dir_port, certificate, .. } = self.us;
        Authority {
            nickname: nickname.clone(),
            identity: certificate.cert().identity,
            hostname: address.to_string().into(),
            address: *address,
            dir_port: *dir_port,
            or_port: *or_port,
            contact: self.options.contact.as_deref().unwrap_or("(none)").into(),
        }
    }

    fn voted(
        &self,
        relay: &Relay<'_>,
        assessed: &Assessed,
        known_flags: &[Box<str>],
        stability: &Stability,
        texts: &mut Texts,
    ) -> VotedRelay {
        let descriptor = relay.descriptor;
        let has = |name: &str| assessed.flags.iter().any(|flag| flag.name() == name);
        let bits = known_flags.iter().enumerate().filter(|(_, name)| has(name));
        VotedRelay {
            nickname: descriptor.nickname,
            identity: descriptor.identity,
            ed_identity: EdListing::Key(descriptor.ed_identity),
            descriptor: descriptor.digest,
            published: descriptor.published,
            ipv4: descriptor.ipv4,
            or_port: descriptor.or_port,
            dir_port: descriptor.dir_port,
            ipv6: descriptor.ipv6.filter(|_| assessed.with_ipv6),
            // Names come sorted; there are far fewer than 64.
            flags: bits.map(|(n, _)| 1u64 << n).sum(),
            version: descriptor.platform.as_deref().and_then(version::words).map(Arc::from),
            protocols: Arc::from(&*descriptor.proto),
            weight: self.weight(descriptor, assessed.flags.contains(Flag::Authority)),
            policy: Some(descriptor.policy.summary(Family::V4).to_string().into()),
            stats: Some(stats(&descriptor.identity, stability, self.now).into()),
            microdescs: texts.of(descriptor),
        }
    }

    fn weight(&self, descriptor: &RouterDesc, is_authority: bool) -> VotedWeight {
        let measured = self.measurements.get(&descriptor.identity);
        VotedWeight {
            bandwidth: Some(flags::claimed_kilobytes(descriptor)),
            measured: measured.filter(|_| !is_authority),
            measured_but_authority: measured.filter(|_| is_authority),
            guard_fraction: None,
        }
    }
}

/// Microdescriptors as they are made.
#[derive(Default)]
struct Texts {
    microdescs: Vec<Microdesc>,
    microdesc_texts: Vec<String>,
}

impl Texts {
    fn of(&mut self, descriptor: &RouterDesc) -> Vec<VotedMicrodesc> {
        let mut voted = Vec::new();
        for (methods, text) in Microdesc::texts_of(descriptor, METHODS) {
            // What cannot be read back would be of no use to anybody.
            let Ok(microdesc) = Microdesc::parse(&text) else { continue };
            voted.push(VotedMicrodesc { methods, digest: microdesc.digest });
            self.microdescs.push(microdesc);
            self.microdesc_texts.push(text);
        }
        voted
    }
}

fn stats(relay: &Fingerprint, stability: &Stability, now: Unix) -> String {
    let (wfu, known) = (stability.fractional_uptime(relay, now), stability.time_known(relay, now));
    format!("wfu={wfu:.6} tk={known:.0} mtbf={:.0}", stability.mtbf(relay, now))
}

/// Our part in the shared random protocol, in the form of votes.
fn shared_random_vote(lines: &VoteLines) -> SharedRandomVote {
    let value = |srv: crate::shared_random::Srv| Value { reveals: srv.reveals, value: srv.value };
    SharedRandomVote {
        commits: lines.commits.iter().filter_map(|line| commit(line)).collect(),
        previous: lines.previous.map(value),
        current: lines.current.map(value),
    }
}

/// `1 sha3-256 IDENTITY COMMIT [REVEAL]`; a blank after the commit says that there ought to be a reveal.
fn commit(arguments: &str) -> Option<Commit> {
    let mut words = arguments.splitn(5, ' ');
    let (identity, base64) = (words.nth(2)?, words.next()?);
    let reveal = match words.next() {
        None => Reveal::Withheld,
        Some("") => Reveal::Missing,
        Some(reveal) => Reveal::Known(text::base64_array(reveal)?),
    };
    Some(Commit { authority: Fingerprint::from_hex(identity)?, commit: text::base64_array(base64)?, reveal })
}

#[cfg(test)]
mod tests;
