//! What happened while the authority ran, counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;

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
    /// When the newest consensus began, how long it is fresh and valid, and the relays in it.
    pub consensus: Option<InForce>,
    /// The authorities whose votes for this period are at hand.
    pub votes: Vec<Fingerprint>,
    /// The authorities that have signed the consensus that we computed.
    pub signers: Vec<Fingerprint>,
    /// State that could not be written.
    pub unsaved: u64,
    /// Exchanges with other authorities, by what they were about and how they ended.
    pub exchanges: BTreeMap<(&'static str, &'static str), u64>,
    /// Seconds by which the clocks of others were ahead of ours when they answered last.
    pub skews: BTreeMap<Fingerprint, i64>,
    /// What our last vote says.
    pub voted: Option<Voted>,
}

/// A consensus in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// When it began.
    pub valid_after: Unix,
    /// Until when it is the newest.
    pub fresh_until: Unix,
    /// Until when it may be used.
    pub valid_until: Unix,
    /// Relays in it.
    pub relays: usize,
}

/// A vote of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Voted {
    /// Relays in it.
    pub relays: usize,
    /// How many relays have each flag.
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

    /// A consensus is in force.
    pub fn in_force(&self, consensus: InForce) {
        self.lock().consensus = Some(consensus);
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
