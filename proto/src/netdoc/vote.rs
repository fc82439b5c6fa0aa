//! Votes (dir-spec 3.4.1): what one directory authority thinks the network is.
//!
//! From the votes of all of them each authority computes the same consensus ([`crate::netdoc::tally`]). A vote is read
//! by the rules of C tor's parser, because a vote that one authority takes and another refuses makes their consensuses
//! differ; texts that are only counted (versions, protocol lists, policy summaries) are kept as they were written.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::netdoc::authcert::AuthCert;
use crate::netdoc::consensus::{Lifetime, SharedRandom};
use crate::netdoc::protover::Protocols;
use crate::netdoc::text::{Fingerprint, Nickname};
use crate::time::Unix;

mod entry;
mod parse;
#[cfg(test)]
pub(in crate::netdoc) mod random;
mod write;

pub use parse::split;
pub(in crate::netdoc) use write::{push_signature, write_values};

/// Shortest time between two consensuses that C tor takes from a vote of a testing network, in seconds. In another it is
/// 300, which is for the one who counts the votes to see to.
pub const MIN_INTERVAL_SECONDS: u64 = 10;
/// Shortest time for votes, and likewise for signatures, to go round, in seconds.
pub const MIN_DELAY_SECONDS: u32 = 2;

/// A vote whose signature is right: the embedded certificate's key made it.
///
/// Whether that certificate is one of a configured authority and current, and whether the vote is for the consensus
/// that is due, the caller has to see: [`Vote::certificate`], [`Vote::lifetime`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedVote {
    /// What it says.
    pub vote: Vote,
    /// SHA-1 over its signed part: its name in the consensus.
    pub digest: Fingerprint,
}

/// What an authority votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Consensus methods that the authority can compute.
    pub methods: Vec<u32>,
    /// When the vote was made.
    pub published: Unix,
    /// When the consensus is to hold.
    pub lifetime: Lifetime,
    /// Seconds for votes and for signatures to go round.
    pub voting_delay: (u32, u32),
    /// Tor versions recommended for clients; `None` leaves the question to others.
    pub client_versions: Option<Vec<Box<str>>>,
    /// Tor versions recommended for relays.
    pub server_versions: Option<Vec<Box<str>>>,
    /// Downloads of known good digests, as written; they count up to method 33 only.
    pub packages: Vec<Box<str>>,
    /// Protocols a relay should have.
    pub recommended_relay_protocols: Option<Protocols>,
    /// Protocols a client should have.
    pub recommended_client_protocols: Option<Protocols>,
    /// Protocols without which a relay must not run.
    pub required_relay_protocols: Option<Protocols>,
    /// Protocols without which a client must not run.
    pub required_client_protocols: Option<Protocols>,
    /// The flags voted on, sorted; at most [`crate::limits::VOTE_KNOWN_FLAGS`].
    pub known_flags: Vec<Box<str>>,
    /// What relays needed for their flags, for the curious.
    pub flag_thresholds: Option<Box<str>>,
    /// Parameters.
    pub params: VotedParams,
    /// Headers of the bandwidth file, for the curious.
    pub bandwidth_file_headers: Option<Box<str>>,
    /// SHA-256 of the bandwidth file.
    pub bandwidth_file_digest: Option<[u8; 32]>,
    /// Who votes.
    pub authority: Authority,
    /// Its part in the shared random protocol; `None` if it takes none.
    pub shared_random: Option<SharedRandomVote>,
    /// The authority's former identity, for clients that know only that.
    pub legacy_identity: Option<Fingerprint>,
    /// The certificate of the key that signs the vote.
    pub certificate: Certificate,
    /// The relays, ascending by identity.
    pub relays: Vec<VotedRelay>,
}

/// An authority as it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Its nickname.
    pub nickname: Box<str>,
    /// Fingerprint of its v3 identity key.
    pub identity: Fingerprint,
    /// Its host name, or its address again.
    pub hostname: Box<str>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its DirPort.
    pub dir_port: u16,
    /// Its ORPort.
    pub or_port: u16,
    /// Its operator.
    pub contact: Box<str>,
}

/// A certificate and the text it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    text: Box<str>,
    parsed: AuthCert,
}

impl Certificate {
    /// Parses and verifies a certificate; `text` is exactly its text.
    pub fn parse(text: &str) -> Result<Self, crate::netdoc::DocError> {
        Ok(Certificate { text: text.into(), parsed: AuthCert::parse(text)? })
    }

    /// What it says.
    pub fn cert(&self) -> &AuthCert {
        &self.parsed
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Parameters as a `params` line lists them: sorted, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VotedParams(Vec<(Box<str>, i32)>);

impl VotedParams {
    /// Names and values in the order of the line: that of the texts `name=`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<i32> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Sorts; of several values for one name the last one stays.
impl<'a> FromIterator<(&'a str, i32)> for VotedParams {
    fn from_iter<T: IntoIterator<Item = (&'a str, i32)>>(iter: T) -> Self {
        let sorted: std::collections::BTreeMap<String, i32> =
            iter.into_iter().map(|(name, value)| (format!("{name}="), value)).collect();
        let strip = |name: String| Box::from(name.strip_suffix('=').unwrap_or(&name));
        VotedParams(sorted.into_iter().map(|(name, value)| (strip(name), value)).collect())
    }
}

impl std::fmt::Display for VotedParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}={value}", if n == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// What an authority that takes part in the shared random protocol (srv-spec) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedRandomVote {
    /// The commitments it has seen, its own among them.
    pub commits: Vec<Commit>,
    /// The value before the current one.
    pub previous: Option<SharedRandom>,
    /// The current value.
    pub current: Option<SharedRandom>,
}

/// One authority's commitment to a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Fingerprint of its v3 identity key.
    pub authority: Fingerprint,
    /// Start of the protocol run and SHA3-256 of the reveal's base64 text.
    pub commit: [u8; 40],
    /// The number.
    pub reveal: Reveal,
}

/// What is known of the number behind a commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reveal {
    /// Nothing: it is not the time yet.
    Withheld,
    /// Nothing, although it is the time.
    Missing,
    /// Start of the protocol run and 32 random bytes.
    Known([u8; 40]),
}

/// What an authority says of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VotedRelay {
    /// Its nickname.
    pub nickname: Nickname,
    /// SHA-1 of its RSA identity key.
    pub identity: Fingerprint,
    /// Its Ed25519 identity.
    pub ed_identity: EdListing,
    /// Its descriptor.
    pub descriptor: Fingerprint,
    /// When that was published.
    pub published: Unix,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its ORPort there.
    pub or_port: u16,
    /// Its DirPort there, or 0.
    pub dir_port: u16,
    /// Its IPv6 ORPort, if the authority reached it or does not look.
    pub ipv6: Option<(Ipv6Addr, u16)>,
    /// Its flags: bit n stands for number n of [`Vote::known_flags`].
    pub flags: u64,
    /// Software version, as written (`Tor 0.4.9.11`).
    pub version: Option<Arc<str>>,
    /// Subprotocols, as written: authorities count texts, not meanings.
    pub protocols: Arc<str>,
    /// Its bandwidth.
    pub weight: VotedWeight,
    /// IPv4 exit policy in summary, as written; begins with `accept ` or `reject `.
    pub policy: Option<Arc<str>>,
    /// What the authority remembers of its uptime, for the curious.
    pub stats: Option<Box<str>>,
    /// Its microdescriptors, by the consensus methods that make them.
    pub microdescs: Vec<VotedMicrodesc>,
}

/// What a vote says of a relay's Ed25519 identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdListing {
    /// Nothing.
    Unlisted,
    /// That it has none.
    None,
    /// The identity; not all zeros, which C tor takes for none.
    Key([u8; 32]),
}

/// Bandwidths of a relay, in kilobytes (1000) a second; the line is left out if all are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VotedWeight {
    /// What it claims.
    pub bandwidth: Option<u32>,
    /// What was measured.
    pub measured: Option<u32>,
    /// What was measured of an authority, which nobody counts.
    pub measured_but_authority: Option<u32>,
    /// Percentage of the time it has been a guard.
    pub guard_fraction: Option<u8>,
}

/// A relay's microdescriptor under some consensus methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VotedMicrodesc {
    /// The methods.
    pub methods: Vec<u32>,
    /// SHA-256 of its text.
    pub digest: [u8; 32],
}

impl Vote {
    /// The bit of [`VotedRelay::flags`] that stands for this flag, if the authority votes on it.
    pub fn flag_bit(&self, name: &str) -> Option<u64> {
        let n = self.known_flags.binary_search_by(|known| (**known).cmp(name)).ok()?;
        u32::try_from(n).ok().and_then(|n| 1u64.checked_shl(n))
    }

    /// The names of a relay's flags, sorted.
    pub fn flag_names(&self, flags: u64) -> impl Iterator<Item = &str> {
        let set = move |n: usize| n < 64 && flags >> n & 1 == 1;
        self.known_flags.iter().enumerate().filter(move |(n, _)| set(*n)).map(|(_, name)| &**name)
    }

    /// Whether the authority measures bandwidths.
    pub fn measures(&self) -> bool {
        self.relays.iter().any(|relay| relay.weight.measured.is_some())
    }
}

impl VotedRelay {
    /// The microdescriptor under a method. Of contradicting lines the last one counts, as in C tor.
    pub fn microdesc(&self, method: u32) -> Option<&[u8; 32]> {
        self.microdescs.iter().rev().find(|m| m.methods.contains(&method)).map(|m| &m.digest)
    }
}

#[cfg(test)]
mod tests;
