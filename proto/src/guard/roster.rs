//! The relays of a consensus that can be guards.

use super::Kind;
use crate::netdoc::consensus::{Lifetime, RelayFlags, RelayStatus};
use crate::netdoc::text::{Fingerprint, Nickname};
use crate::path::{Network, Position};
use crate::time::Unix;

/// Whether a relay can be a guard (guard-spec 4.1, GUARDS).
fn is_possible(relay: &RelayStatus) -> bool {
    use RelayFlags as F;
    relay.flags.has(F::GUARD | F::STABLE | F::FAST | F::VALID | F::V2_DIR)
}

/// A relay that can be a guard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub identity: Fingerprint,
    pub nickname: Nickname,
    pub weight: f64,
    /// Whether the configuration allows it.
    pub allowed: bool,
    /// Whether its microdescriptor is at hand.
    pub described: bool,
}

/// All of them, as many as a consensus may have relays.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    /// `None` before the first consensus.
    lifetime: Option<Lifetime>,
    /// Ascending by identity, as consensuses are.
    candidates: Vec<Candidate>,
    allowed: usize,
}

impl Roster {
    pub fn new(network: &Network, filter: &dyn Fn(&RelayStatus) -> bool) -> Self {
        let fit = network.consensus().relays.iter().filter(|relay| is_possible(relay));
        let candidates: Vec<_> = fit
            .map(|relay| Candidate {
                identity: relay.identity,
                nickname: relay.nickname,
                weight: network.weights().of(Position::Guard, relay),
                allowed: filter(relay),
                described: network.relay(&relay.identity).is_some(),
            })
            .collect();
        let allowed = candidates.iter().filter(|candidate| candidate.allowed).count();
        Roster { lifetime: Some(network.consensus().lifetime), candidates, allowed }
    }

    /// Whether the consensus is recent enough to change a sample by.
    pub fn is_live(&self, now: Unix) -> bool {
        self.lifetime.is_some_and(|lifetime| lifetime.is_reasonably_live(now))
    }

    pub fn find(&self, identity: &Fingerprint) -> Option<&Candidate> {
        let n = self.candidates.binary_search_by(|candidate| candidate.identity.cmp(identity)).ok()?;
        self.candidates.get(n)
    }

    /// Relays to sample from.
    pub fn possible(&self, kind: Kind) -> impl Iterator<Item = &Candidate> {
        // If the configuration leaves few, a sample of all would hardly have any of them.
        self.candidates.iter().filter(move |candidate| kind == Kind::Default || candidate.allowed)
    }

    /// How many can be guards, and how many of these the configuration allows.
    pub fn counts(&self) -> (u64, u64) {
        (self.candidates.len() as u64, self.allowed as u64)
    }
}
