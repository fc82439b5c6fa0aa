//! When each relay is tested: once in a cycle, at a moment that its identity gives, never many at once.
//!
//! [`Schedule::poll`] says whose turn it is. Turns that come too close together wait in the order in which they were
//! due, so that nobody can overtake others, however often he asks to be looked at; and when more is due than may be
//! done, the cycle becomes longer for all alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Mono;
use sha2::{Digest as _, Sha256};

/// How often relays are tested, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time in which every relay is tested once.
    pub cycle: Duration,
    /// Time from a test that is to be repeated to the next one, if its turn in the cycle does not come before.
    pub repeat: Duration,
    /// Time between the beginnings of two tests.
    pub gap: Duration,
    /// Tests that are under way at once.
    pub at_once: usize,
}

/// The turns of one kind of test.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    /// So that nobody can choose an identity whose turn comes with those of others.
    salt: u64,
    /// When the relays that wait have their turn.
    turns: BTreeMap<Fingerprint, Mono>,
    /// The same in the order of turns.
    queue: BTreeSet<(Mono, Fingerprint)>,
    /// Relays that are being tested; whether they are to be tested at once again.
    under_way: BTreeMap<Fingerprint, bool>,
    /// Before that no test begins.
    pause_until: Mono,
}

impl Schedule {
    /// A schedule of nobody; `salt` is random.
    pub fn new(pace: Pace, salt: u64) -> Schedule {
        Schedule {
            pace,
            salt,
            turns: BTreeMap::new(),
            queue: BTreeSet::new(),
            under_way: BTreeMap::new(),
            pause_until: Mono::default(),
        }
    }

    /// From now on these relays are tested: new ones at their turn in the cycle, those that are missing no more.
    pub fn set_relays(&mut self, relays: &BTreeSet<Fingerprint>, now: Mono) {
        let gone: Vec<Fingerprint> =
            self.turns.keys().filter(|relay| !relays.contains(relay)).copied().collect();
        for relay in gone {
            self.forget(&relay);
        }
        for relay in relays.iter().filter(|relay| !self.knows(relay)).copied().collect::<Vec<_>>() {
            self.wait(relay, self.turn_after(&relay, now));
        }
    }

    /// Whether the relay is tested.
    pub fn knows(&self, relay: &Fingerprint) -> bool {
        self.turns.contains_key(relay) || self.under_way.contains_key(relay)
    }

    /// Whether the relay is being tested.
    pub fn is_under_way(&self, relay: &Fingerprint) -> bool {
        self.under_way.contains_key(relay)
    }

    /// The relay is to be tested as soon as there is room, after all that are due already. If it is being tested, it will
    /// be again.
    pub fn hurry(&mut self, relay: Fingerprint, now: Mono) {
        match (self.under_way.get_mut(&relay), self.turns.get(&relay)) {
            (Some(again), _) => *again = true,
            (None, Some(turn)) if *turn <= now => {}
            (None, _) => self.wait(relay, now),
        }
    }

    /// The relay whose test begins now, if one does. The caller owes [`finished`](Self::finished).
    pub fn poll(&mut self, now: Mono) -> Option<Fingerprint> {
        let (turn, relay) = *self.queue.first()?;
        if self.is_full() || turn.max(self.pause_until) > now {
            return None;
        }
        self.forget(&relay);
        self.under_way.insert(relay, false);
        self.pause_until = now + self.pace.gap;
        Some(relay)
    }

    /// When [`poll`](Self::poll) has something to give, unless a test must end first.
    pub fn poll_timeout(&self) -> Option<Mono> {
        let (turn, _) = self.queue.first()?;
        (!self.is_full()).then(|| self.pause_until.max(*turn))
    }

    /// The test of a relay is over. If it is to be repeated, its next turn comes sooner.
    pub fn finished(&mut self, relay: Fingerprint, repeat: bool, now: Mono) {
        let Some(again) = self.under_way.remove(&relay) else { return };
        let turn = self.turn_after(&relay, now);
        self.wait(
            relay,
            match (again, repeat) {
                (true, _) => now,
                (false, true) => turn.min(now + self.pace.repeat),
                (false, false) => turn,
            },
        );
    }

    /// Tests under way.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= self.pace.at_once
    }

    fn wait(&mut self, relay: Fingerprint, turn: Mono) {
        self.forget(&relay);
        self.turns.insert(relay, turn);
        self.queue.insert((turn, relay));
    }

    fn forget(&mut self, relay: &Fingerprint) {
        if let Some(turn) = self.turns.remove(relay) {
            self.queue.remove(&(turn, *relay));
        }
    }

    /// The relay's next turn in the cycle after `now`.
    fn turn_after(&self, relay: &Fingerprint, now: Mono) -> Mono {
        let cycle = u64::try_from(self.pace.cycle.as_micros()).unwrap_or(u64::MAX).max(1);
        let digest = Sha256::new().chain_update(self.salt.to_be_bytes()).chain_update(relay.0).finalize();
        let place = digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)) % cycle;
        // From where in the cycle we are to the place, at least a moment.
        let ahead = (place + cycle - now.0 % cycle - 1) % cycle + 1;
        Mono(now.0.saturating_add(ahead))
    }
}

#[cfg(test)]
mod tests;
