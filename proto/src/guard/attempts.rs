//! Circuits and directory requests through guards, and which of them may be used (guard-spec 4.7 to 4.9).

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Guard;
use super::sample::Sample;
use super::terms::Terms;
use crate::limits::GUARD_ATTEMPTS;
use crate::netdoc::text::Fingerprint;
use crate::time::Unix;

/// Names a circuit or directory request whose guard was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(u64);

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Under way through a guard that was primary: may be used on success.
    TryingPrimary,
    /// Under way through another, since then: may be used if all better ones fail.
    Trying(Unix),
    /// Successful, through a guard that is not primary; waits since then.
    Waiting(Unix),
    /// May be used.
    Complete,
}

#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub guard: Fingerprint,
    pub state: State,
    /// Guards that must not be used for it, of those in the sample when its own was selected.
    pub avoided: Vec<Fingerprint>,
}

/// All of them, at most [`GUARD_ATTEMPTS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts {
    all: BTreeMap<AttemptId, Attempt>,
    next: u64,
}

impl Attempts {
    pub fn add(&mut self, attempt: Attempt) -> AttemptId {
        if self.all.len() >= GUARD_ATTEMPTS {
            let complete = self.all.iter().find(|(_, attempt)| attempt.state == State::Complete);
            let victim = complete.or_else(|| self.all.first_key_value()).map(|(id, _)| *id);
            victim.and_then(|id| self.all.remove(&id));
        }
        let id = AttemptId(self.next);
        self.next += 1;
        self.all.insert(id, attempt);
        id
    }

    pub fn get(&self, id: AttemptId) -> Option<&Attempt> {
        self.all.get(&id)
    }

    pub fn get_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.all.get_mut(&id)
    }

    pub fn remove(&mut self, id: AttemptId) -> Option<Attempt> {
        self.all.remove(&id)
    }

    pub fn clear(&mut self) {
        self.all.clear();
    }

    /// Guards that are not primary and are being tried (guard-spec 4, `is_pending`).
    pub fn pending(&self) -> BTreeSet<Fingerprint> {
        let trying = self.all.values().filter(|attempt| matches!(attempt.state, State::Trying(_)));
        trying.map(|attempt| attempt.guard).collect()
    }

    /// Lets the best of those that wait be used, if all primary guards are down and nothing better is there or under way
    /// (guard-spec 4.9).
    pub fn upgrade(&mut self, sample: &Sample, terms: &Terms, now: Unix) {
        if !sample.primary_is_down() {
            return;
        }
        let pending = self.pending();
        let rank = |attempt: &Attempt| sample.find(&attempt.guard).map(|guard| Rank::of(guard, &pending));
        let is_waiting = |attempt: &Attempt| matches!(attempt.state, State::Waiting(_));
        let waiting = self.all.iter().filter(|(_, attempt)| is_waiting(attempt));
        let ranked = waiting.filter_map(|(id, attempt)| Some((rank(attempt)?, *id, attempt)));
        // The oldest of equals.
        let Some((best, best_id, attempt)) = ranked.min_by_key(|(rank, id, _)| (*rank, *id)) else { return };
        let avoided = attempt.avoided.clone();

        let may_be_blocking = |attempt: &Attempt| match attempt.state {
            State::Complete => true,
            State::Trying(since) => now < since + terms.connect,
            State::TryingPrimary | State::Waiting(_) => false,
        };
        let is_blocked = self.all.values().any(|other| {
            may_be_blocking(other)
                && !avoided.contains(&other.guard)
                && rank(other).is_some_and(|other| other < best)
        });
        if is_blocked {
            return;
        }
        // Others through a guard as good as this may be used too, unless this had to avoid better ones.
        let ready: Vec<AttemptId> = self
            .all
            .iter()
            .filter(|(id, attempt)| {
                let is_equal = || avoided.is_empty() && rank(attempt).is_some_and(|rank| rank <= best);
                is_waiting(attempt) && (**id == best_id || is_equal())
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            self.all.entry(id).and_modify(|attempt| attempt.state = State::Complete);
        }
    }

    /// When the next of those that wait may be used or is given up, if nothing else happens.
    pub fn next_timeout(&self, terms: &Terms, now: Unix) -> Option<Unix> {
        let given_up = self.all.values().filter_map(|attempt| match attempt.state {
            State::Waiting(since) => Some(given_up(since, terms)),
            _ => None,
        });
        let given_up = given_up.min()?;
        let unblocked = self.all.values().filter_map(|attempt| match attempt.state {
            State::Trying(since) => Some(since + terms.connect).filter(|at| *at > now),
            _ => None,
        });
        unblocked.chain([given_up]).min()
    }
}

/// When an attempt that waits is given up.
pub(super) fn given_up(since: Unix, terms: &Terms) -> Unix {
    Unix((since + terms.idle).0.saturating_add(1))
}

/// How good a guard is, the best first (guard-spec 4.9): those that were used by the order of first use, then those that
/// are being tried by when that began, then all others alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Confirmed(u32),
    Pending(Unix),
    Other,
}

impl Rank {
    fn of(guard: &Guard, pending: &BTreeSet<Fingerprint>) -> Self {
        match guard.confirmed {
            Some(confirmed) => Rank::Confirmed(confirmed.index),
            None if pending.contains(&guard.identity) => Rank::Pending(guard.last_tried.unwrap_or_default()),
            None => Rank::Other,
        }
    }
}
