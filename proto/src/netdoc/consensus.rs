//! The consensus (dir-spec 3.4): what the authorities agree the network is, in its two flavours.
//!
//! Parsing yields an [`UnverifiedConsensus`]; only with enough signatures of the configured authorities does it
//! become a [`Consensus`]. Relays are kept in a compact form, with texts that many share stored once.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::netdoc::params::ConsensusParams;
use crate::netdoc::protover::Protocols;
use crate::netdoc::text::{self, Fingerprint};
use crate::time::Unix;

mod parse;
mod relay;
mod sign;
mod verify;

pub(in crate::netdoc) use parse::{ipv6, shared_random, voting_delay};
pub use relay::{Listed, RelayFlags, RelayStatus};
pub use sign::{Added, ConsensusDigest, PendingConsensus, SignaturesRefused, UnsignedConsensus};
pub use verify::{Shortfall, UnverifiedConsensus};

/// How far outside its lifetime a consensus is still better than none (C tor's "reasonably live").
pub const REASONABLY_LIVE: Duration = Duration::from_secs(24 * 3600);

/// Which of the two consensuses (dir-spec 3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavor {
    /// Names router descriptors.
    Ns,
    /// Names microdescriptors.
    Microdesc,
}

impl Flavor {
    /// Both.
    pub const ALL: [Flavor; 2] = [Flavor::Ns, Flavor::Microdesc];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Flavor::Ns => "ns",
            Flavor::Microdesc => "microdesc",
        }
    }
}

/// When a consensus holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// From when.
    pub valid_after: Unix,
    /// Until when there should be no newer one.
    pub fresh_until: Unix,
    /// Until when.
    pub valid_until: Unix,
}

impl Lifetime {
    /// Whether `now` lies in it, so that clients may use the consensus.
    pub fn is_valid(&self, now: Unix) -> bool {
        self.valid_after <= now && now <= self.valid_until
    }

    /// Whether it is valid and no newer one is to be expected.
    pub fn is_fresh(&self, now: Unix) -> bool {
        self.is_valid(now) && now <= self.fresh_until
    }

    /// Whether `now` is within a day of it.
    pub fn is_reasonably_live(&self, now: Unix) -> bool {
        self.valid_after - REASONABLY_LIVE <= now && now <= self.valid_until + REASONABLY_LIVE
    }

    /// Appends the three lines, as consensuses, votes and detached signatures have them.
    pub(in crate::netdoc) fn write(&self, out: &mut String) {
        let times = [
            ("valid-after", self.valid_after),
            ("fresh-until", self.fresh_until),
            ("valid-until", self.valid_until),
        ];
        for (keyword, at) in times {
            out.extend([keyword, " ", &text::format_time(at), "\n"]);
        }
    }

    /// Time between two consensuses.
    pub fn interval(&self) -> Duration {
        self.fresh_until.since(self.valid_after)
    }
}

/// An authority that took part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its nickname; entries for a superseded key have `-legacy` appended.
    pub nickname: Box<str>,
    /// Fingerprint of its v3 identity key.
    pub identity: Fingerprint,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its DirPort.
    pub dir_port: u16,
    /// Its ORPort.
    pub or_port: u16,
    /// Its operator; empty for a superseded key.
    pub contact: Box<str>,
    /// Digest of the vote it cast; `None` for a superseded key.
    pub vote_digest: Option<Fingerprint>,
}

/// A shared random value (srv-spec).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedRandom {
    /// Reveals that went into it.
    pub reveals: u64,
    /// The value.
    pub value: [u8; 32],
}

/// A consensus that enough authorities signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consensus {
    /// Its flavour.
    pub flavor: Flavor,
    /// The method by which it was computed.
    pub method: u32,
    /// When it holds.
    pub lifetime: Lifetime,
    /// Seconds for votes and for signatures to go round.
    pub voting_delay: (u32, u32),
    /// Tor versions recommended for clients.
    pub client_versions: Vec<Box<str>>,
    /// Tor versions recommended for relays.
    pub server_versions: Vec<Box<str>>,
    /// Flags that were voted on.
    pub known_flags: RelayFlags,
    /// Protocols a client should have.
    pub recommended_client_protocols: Protocols,
    /// Protocols a relay should have.
    pub recommended_relay_protocols: Protocols,
    /// Protocols without which a client must not run.
    pub required_client_protocols: Protocols,
    /// Protocols without which a relay must not run.
    pub required_relay_protocols: Protocols,
    /// The network's parameters.
    pub params: ConsensusParams,
    /// The shared random value before the current one.
    pub shared_random_previous: Option<SharedRandom>,
    /// The current shared random value.
    pub shared_random_current: Option<SharedRandom>,
    /// The authorities that took part.
    pub voters: Vec<Voter>,
    /// The relays, ascending by identity.
    pub relays: Vec<RelayStatus>,
    /// Entries that were left out because they do not parse.
    pub skipped_relays: usize,
    /// Bandwidth weights by name, in units of the parameter `bwweightscale`; empty if the line is absent.
    pub weights: ConsensusParams,
    /// SHA3-256 of the signed part: the name of this consensus in requests for diffs (dir-spec 4.5).
    pub signed_sha3: [u8; 32],
}

impl Consensus {
    /// The entry of the relay with this RSA identity.
    pub fn relay(&self, identity: &Fingerprint) -> Option<&RelayStatus> {
        self.relays.binary_search_by(|r| r.identity.cmp(identity)).ok().and_then(|n| self.relays.get(n))
    }
}

#[cfg(test)]
mod tests;
