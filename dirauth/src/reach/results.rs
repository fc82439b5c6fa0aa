//! What the tests have found: when each relay was reached, and whether it carries circuits.
//!
//! A relay that is reached by links and fails [`FAILED_ROUNDS`] rounds of circuit tests in a row counts as not reached,
//! until a round passes. Rounds of which nobody knows whose fault they are change nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::policy::Family;
use onionring_proto::time::Unix;

use crate::limits::STORED_RELAYS;

mod state;

pub use state::{StateError, StateFindings};

/// Rounds that a relay must fail in a row to count as not reached.
pub const FAILED_ROUNDS: u8 = 3;

/// How long a relay counts as proven after it was reached.
const PROVEN_FOR: Duration = Duration::from_secs(45 * 60);

/// When a relay was last reached, as votes see it: `None` if it never was, or does not carry circuits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// At its IPv4 address.
    pub v4: Option<Unix>,
    /// At its IPv6 address.
    pub v6: Option<Unix>,
}

/// How a round of circuit tests went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// The relay does what it should.
    Passed,
    /// It does not, and nobody else can be to blame.
    Failed,
    /// It did not come to a test of the relay, or others may be to blame.
    Unclear,
}

/// What a round has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on the relay counts as not reached.
    Condemned,
    /// It counts as reached again.
    Cleared,
}

/// What is known of one relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    /// When links reached it.
    links: Reached,
    /// When a round passed.
    passed: Option<Unix>,
    /// Rounds that failed since then; at most [`FAILED_ROUNDS`].
    failed: u8,
}

/// What is known of all relays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    relays: BTreeMap<Fingerprint, Record>,
}

impl Results {
    /// A link has reached the relay. Returns whether that counts: not if it carries no circuits.
    pub fn link(&mut self, relay: &Fingerprint, family: Family, now: Unix) -> bool {
        let Some(record) = self.record(relay) else { return true };
        match family {
            Family::V4 => record.links.v4 = Some(now),
            Family::V6 => record.links.v6 = Some(now),
        }
        !record.is_condemned()
    }

    /// A round of circuit tests is over.
    pub fn round(&mut self, relay: &Fingerprint, round: Round, now: Unix) -> Option<Change> {
        let record = self.record(relay)?;
        let was_condemned = record.is_condemned();
        match round {
            Round::Passed => {
                record.passed = Some(now);
                record.failed = 0;
            }
            Round::Failed => record.failed = (record.failed + 1).min(FAILED_ROUNDS),
            Round::Unclear => {}
        }
        match (was_condemned, record.is_condemned()) {
            (false, true) => Some(Change::Condemned),
            (true, false) => Some(Change::Cleared),
            _ => None,
        }
    }

    /// What votes see of the relay.
    pub fn reached(&self, relay: &Fingerprint) -> Reached {
        match self.relays.get(relay) {
            Some(record) if !record.is_condemned() => record.links,
            _ => Reached::default(),
        }
    }

    /// What links alone have found.
    pub fn linked(&self, relay: &Fingerprint) -> Reached {
        self.relays.get(relay).map(|record| record.links).unwrap_or_default()
    }

    /// Whether a link has reached the relay's IPv4 address lately, so that there is something to test.
    pub fn is_up(&self, relay: &Fingerprint, now: Unix) -> bool {
        self.linked(relay).v4.is_some_and(|at| now.since(at) < PROVEN_FOR)
    }

    /// Whether no round of the relay has passed or failed yet.
    pub fn is_untested(&self, relay: &Fingerprint) -> bool {
        self.relays.get(relay).is_none_or(|record| record.passed.is_none() && record.failed == 0)
    }

    /// Whether the relay is known to do its work, so that others may be tested through it: it was reached lately, and its
    /// last round passed.
    pub fn is_proven(&self, relay: &Fingerprint, now: Unix) -> bool {
        let passes = |record: &Record| record.passed.is_some() && record.failed == 0;
        self.is_up(relay, now) && self.relays.get(relay).is_some_and(passes)
    }

    /// Relays that count as not reached though links reach them.
    pub fn condemned(&self) -> impl Iterator<Item = &Fingerprint> {
        self.relays.iter().filter(|(_, record)| record.is_condemned()).map(|(relay, _)| relay)
    }

    /// Forgets all rounds, as if circuits had never been tested.
    pub fn forget_rounds(&mut self) {
        for record in self.relays.values_mut() {
            (record.passed, record.failed) = (None, 0);
        }
    }

    /// Forgets relays that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&Fingerprint) -> bool) {
        self.relays.retain(|relay, _| is_there(relay));
    }

    /// Relays of which something is known.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    fn record(&mut self, relay: &Fingerprint) -> Option<&mut Record> {
        if !self.relays.contains_key(relay) && self.relays.len() >= STORED_RELAYS {
            return None;
        }
        Some(self.relays.entry(*relay).or_default())
    }
}

impl Record {
    fn is_condemned(&self) -> bool {
        self.failed >= FAILED_ROUNDS
    }
}

#[cfg(test)]
mod tests;
