//! A sample of guards, in the order in which they were drawn, and the sets within it (guard-spec 4.1 to 4.5).
//!
//! The sample is SAMPLED_GUARDS; what lies in it is told by its members: those that the configuration and the consensus
//! allow are FILTERED_GUARDS, those that were used are CONFIRMED_GUARDS, and the first of these are PRIMARY_GUARDS. All
//! are ordered as the sample is (proposal 310).

use std::time::Duration;

use rand_core::Rng;

use super::Kind;
use super::entry::{Confirmed, Guard, Reachable, backdate};
use super::roster::{Candidate, Roster};
use super::terms::Terms;
use crate::netdoc::text::Fingerprint;
use crate::path::draw;
use crate::time::Unix;

/// A sample, at most [`crate::limits::GUARD_SAMPLE`] guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub kind: Kind,
    pub guards: Vec<Guard>,
}

impl Sample {
    pub fn new(kind: Kind) -> Self {
        Sample { kind, guards: Vec::new() }
    }

    pub fn find(&self, identity: &Fingerprint) -> Option<&Guard> {
        self.guards.iter().find(|guard| guard.identity == *identity)
    }

    pub fn find_mut(&mut self, identity: &Fingerprint) -> Option<&mut Guard> {
        self.guards.iter_mut().find(|guard| guard.identity == *identity)
    }

    pub fn primary(&self) -> impl Iterator<Item = &Guard> {
        self.guards.iter().filter(|guard| guard.primary)
    }

    /// Guards that may be tried now.
    pub fn usable(&self) -> usize {
        self.guards.iter().filter(|guard| guard.is_usable()).count()
    }

    pub fn consider_retries(&mut self, now: Unix) {
        self.guards.iter_mut().for_each(|guard| guard.consider_retry(now));
    }

    /// Brings everything up to date with a new consensus or configuration; tells whether what is remembered has changed.
    pub fn update(
        &mut self,
        roster: &Roster,
        terms: &Terms,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> bool {
        let mut changed = false;
        if roster.is_live(now) {
            changed |= self.note_listed(roster, terms, now, rng);
            changed |= self.remove_old(terms, now);
        }
        for guard in &mut self.guards {
            let candidate = roster.find(&guard.identity);
            guard.bias.review(&terms.bias);
            let is_allowed = guard.listed && candidate.is_some_and(|candidate| candidate.allowed);
            guard.filtered = is_allowed && !guard.bias.dropped;
            guard.described = candidate.is_some_and(|candidate| candidate.described);
            guard.consider_retry(now);
        }
        changed |= self.number_confirmed();
        changed | self.choose_primary(roster, terms, now, rng)
    }

    /// Notes which guards the consensus lists (guard-spec 4.2).
    fn note_listed(
        &mut self,
        roster: &Roster,
        terms: &Terms,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> bool {
        let mut changed = false;
        for guard in &mut self.guards {
            let before = (guard.listed, guard.unlisted_since);
            guard.listed = roster.find(&guard.identity).is_some();
            guard.unlisted_since = match guard.unlisted_since {
                _ if guard.listed => None,
                Some(since) if !before.0 => Some(since),
                _ => Some(backdate(now, terms.unlisted / 5, rng)),
            };
            changed |= before != (guard.listed, guard.unlisted_since);
        }
        changed
    }

    /// Removes guards that have been gone, unused or used for too long (guard-spec 4.2, as C tor reads it).
    fn remove_old(&mut self, terms: &Terms, now: Unix) -> bool {
        let older = |since: Unix, age: Duration| since < now - age;
        let before = self.guards.len();
        self.guards.retain(|guard| {
            let is_gone = guard.unlisted_since.is_some_and(|since| older(since, terms.unlisted));
            let is_old = match guard.confirmed {
                Some(confirmed) => older(confirmed.on, terms.confirmed_lifetime),
                None => older(guard.sampled_on, terms.lifetime),
            };
            !is_gone && !is_old
        });
        self.guards.len() != before
    }

    /// Numbers the guards that were used without gaps, as the file wants them.
    fn number_confirmed(&mut self) -> bool {
        let mut confirmed: Vec<_> =
            self.guards.iter_mut().filter_map(|guard| guard.confirmed.as_mut()).collect();
        confirmed.sort_by_key(|confirmed| confirmed.index);
        let mut changed = false;
        for (n, confirmed) in (0..).zip(confirmed) {
            changed |= confirmed.index != n;
            confirmed.index = n;
        }
        changed
    }

    /// Notes that a guard is used, if it is so for the first time (guard-spec 4.4); it may become primary.
    pub fn confirm(
        &mut self,
        identity: &Fingerprint,
        roster: &Roster,
        terms: &Terms,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> bool {
        let indices = self.guards.iter().filter_map(|guard| guard.confirmed.map(|c| c.index));
        let index = indices.max().map_or(0, |last| last.saturating_add(1));
        let Some(guard) = self.find_mut(identity).filter(|guard| guard.confirmed.is_none()) else {
            return false;
        };
        guard.confirmed = Some(Confirmed { on: backdate(now, terms.lifetime / 10, rng), index });
        self.choose_primary(roster, terms, now, rng);
        true
    }

    /// Takes those out of use that make too many circuits fail; others become primary. Tells whether the sample has grown.
    pub fn drop_biased(
        &mut self,
        roster: &Roster,
        terms: &Terms,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> bool {
        for guard in self.guards.iter_mut().filter(|guard| guard.bias.dropped) {
            guard.filtered = false;
        }
        self.choose_primary(roster, terms, now, rng)
    }

    /// Chooses the primary guards: those that were used come first, then those that are primary already, then the sample
    /// (guard-spec 4.5). Tells whether the sample has grown.
    fn choose_primary(
        &mut self,
        roster: &Roster,
        terms: &Terms,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> bool {
        let filtered = || self.guards.iter().filter(|guard| guard.filtered);
        let confirmed = filtered().filter(|guard| guard.confirmed.is_some());
        let kept = filtered().filter(|guard| guard.confirmed.is_none() && guard.primary);
        let first: Vec<Fingerprint> =
            confirmed.chain(kept).map(|guard| guard.identity).take(terms.primary).collect();
        for guard in &mut self.guards {
            guard.primary = first.contains(&guard.identity);
        }
        let mut grown = false;
        for _ in first.len()..terms.primary {
            grown |= self.expand(roster, terms, now, rng);
            let is_next =
                |guard: &&mut Guard| guard.is_usable() && guard.confirmed.is_none() && !guard.primary;
            match self.guards.iter_mut().find(is_next) {
                Some(guard) => guard.primary = true,
                None => break,
            }
        }
        grown
    }

    /// Draws guards until enough are usable or the sample has its full size (guard-spec 4.2); tells whether it has grown.
    pub fn expand(
        &mut self,
        roster: &Roster,
        terms: &Terms,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> bool {
        let mut usable = self.usable();
        let most = terms.max_sample(roster.possible(self.kind).count());
        if usable >= terms.min_usable || self.guards.len() >= most || !roster.is_live(now) {
            return false;
        }
        let is_new = |candidate: &&Candidate| self.find(&candidate.identity).is_none();
        let mut eligible: Vec<&Candidate> = roster.possible(self.kind).filter(is_new).collect();
        let before = self.guards.len();
        while usable < terms.min_usable && self.guards.len() < most {
            let Some(drawn) = draw(&eligible, |candidate| candidate.weight, rng) else { break };
            eligible.retain(|candidate| candidate.identity != drawn.identity);
            let new = Guard {
                filtered: drawn.allowed,
                described: drawn.described,
                ..Guard::sampled(drawn.identity, drawn.nickname, terms.lifetime, now, rng)
            };
            usable += usize::from(new.is_usable());
            self.guards.push(new);
        }
        self.guards.len() != before
    }

    /// Whether all primary guards are known to be down.
    pub fn primary_is_down(&self) -> bool {
        self.primary().all(|guard| guard.reachable == Reachable::No)
    }
}
