//! What happened while the authority ran, counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onionring_proto::netdoc::text::Fingerprint;

use crate::voting::{Alarm, NoConsensus};

/// Counters and the state of the vote, for metrics and the heartbeat.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<Figures>);

/// The figures at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Alarms by their labels.
    pub alarms: BTreeMap<&'static str, u64>,
    /// Periods that ended without a consensus, by why.
    pub no_consensus: BTreeMap<&'static str, u64>,
    /// Consensuses that were published.
    pub consensuses: u64,
    /// How long it took to compute the last one.
    pub computation: Duration,
    /// The authorities whose votes for this period are at hand.
    pub votes: Vec<Fingerprint>,
    /// The authorities that have signed the consensus that we computed.
    pub signers: Vec<Fingerprint>,
    /// What authorities have failed to do.
    pub missed: BTreeMap<Fingerprint, Missed>,
    /// State that could not be written.
    pub unsaved: u64,
    /// Exchanges with other authorities, by what they were about and how they ended.
    pub exchanges: BTreeMap<(&'static str, &'static str), u64>,
    /// Seconds by which the clocks of others were ahead of ours when they answered last.
    pub skews: BTreeMap<Fingerprint, i64>,
    /// What our last vote says.
    pub voted: Option<Voted>,
}

/// The last periods in a row that ended without something of an authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Its vote.
    pub votes: u64,
    /// Its signature on the consensus that we computed.
    pub signatures: u64,
}

/// A vote of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Voted {
    /// Relays in it.
    pub relays: usize,
    /// How many relays have each of the flags that it knows.
    pub flags: BTreeMap<String, usize>,
    /// Relays with a measured bandwidth.
    pub measured: usize,
    /// Seconds that it took to make.
    pub seconds: f64,
}

impl Tallies {
    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        self.lock().clone()
    }

    /// An alarm.
    pub fn alarm(&self, alarm: &Alarm) {
        *self.lock().alarms.entry(alarm.label()).or_default() += 1;
    }

    /// A period without a consensus.
    pub fn no_consensus(&self, reason: &NoConsensus) {
        *self.lock().no_consensus.entry(reason.label()).or_default() += 1;
    }

    /// A consensus was published.
    pub fn published(&self) {
        self.lock().consensuses += 1;
    }

    /// A consensus was computed.
    pub fn computed(&self, took: Duration) {
        self.lock().computation = took;
    }

    /// A period is over: whoever is not among those with votes and signatures at hand has missed it.
    pub fn period_over(&self, authorities: &[Fingerprint]) {
        let figures = &mut *self.lock();
        for authority in authorities {
            let missed = figures.missed.entry(*authority).or_default();
            let count = |before: u64, at_hand: &[Fingerprint]| match at_hand.contains(authority) {
                true => 0,
                false => before + 1,
            };
            missed.votes = count(missed.votes, &figures.votes);
            missed.signatures = count(missed.signatures, &figures.signers);
        }
    }

    /// The votes at hand.
    pub fn votes(&self, votes: impl Iterator<Item = Fingerprint>) {
        self.lock().votes = votes.collect();
    }

    /// The signatures at hand.
    pub fn signers(&self, signers: impl Iterator<Item = Fingerprint>) {
        self.lock().signers = signers.collect();
    }

    /// State that was not written.
    pub fn unsaved(&self) {
        self.lock().unsaved += 1;
    }

    /// An exchange with another authority.
    pub fn exchange(&self, what: &'static str, how: &'static str) {
        *self.lock().exchanges.entry((what, how)).or_default() += 1;
    }

    /// By how much the clock of another authority is ahead of ours, or behind.
    pub fn skew(&self, authority: Fingerprint, seconds: i64) {
        self.lock().skews.insert(authority, seconds);
    }

    /// We have voted.
    pub fn voted(&self, voted: Voted) {
        self.lock().voted = Some(voted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_without_a_vote_or_signature_are_counted_in_a_row() {
        let [us, other] = [Fingerprint([1; 20]), Fingerprint([2; 20])];
        let tallies = Tallies::default();
        let period = |votes: &[Fingerprint], signers: &[Fingerprint]| {
            tallies.votes(votes.iter().copied());
            tallies.signers(signers.iter().copied());
            tallies.period_over(&[us, other]);
            let missed = tallies.figures().missed;
            [us, other].map(|authority| (missed[&authority].votes, missed[&authority].signatures))
        };
        assert_eq!(period(&[us], &[us]), [(0, 0), (1, 1)]);
        assert_eq!(period(&[us, other], &[us]), [(0, 0), (0, 2)]);
        assert_eq!(period(&[other], &[]), [(1, 1), (0, 3)]);
        assert_eq!(period(&[us, other], &[us, other]), [(0, 0), (0, 0)]);
    }
}
