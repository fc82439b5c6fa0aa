//! Entry guards (guard-spec; proposals 271 and 310, as C tor 0.4.9 has them): a client enters the network through few
//! relays, the same for months, so that who runs some relays does not see a part of every client's traffic in time.
//!
//! [`Guards`] draws a sample of guards and keeps to it. Whoever wants a circuit or a directory request asks it for a guard
//! with [`Guards::select`], and tells how that went: [`Guards::succeeded`], [`Guards::failed`], and [`Guards::closed`] in
//! any case when it is over. A circuit through one of the primary guards may be used as soon as it is built; through
//! another, only once all better guards are known to fail, since somebody on our line may block those he does not own.
//!
//! Guards that make circuits fail are found by what becomes of circuits ([`Guards::watch`]).
//!
//! A configuration that allows only few guards (`EntryNodes`) has a sample of its own, so that the other is as before
//! when it is gone.
//!
//! What must be remembered is kept in the `Guard` lines of the [`StateFile`]; write them whenever [`Guards::revision`] has
//! changed. Times in them are random ones somewhat before the real ones.

use rand_core::Rng;

use crate::dir::backoff::below;
use crate::limits::GUARD_SAMPLE;
use crate::netdoc::consensus::RelayStatus;
use crate::netdoc::params::ConsensusParams;
use crate::netdoc::text::Fingerprint;
use crate::path::Network;
use crate::state_file::{Damage, Outcome, StateFile};
use crate::time::Unix;

mod attempts;
mod bias;
mod entry;
mod roster;
mod sample;
mod terms;

pub use attempts::AttemptId;
use attempts::{Attempt, Attempts, State};
pub use bias::{Course, Failing, Level, Step, Suspicion};
pub use entry::{Guard, Reachable};
use roster::Roster;
use sample::Sample;
use terms::Terms;
pub use terms::{BiasSettings, GuardSettings};

/// The keyword of our lines in the state file.
const KEYWORD: &str = "Guard";

/// With fewer usable guards than this, directory requests do not avoid any.
const MIN_FOR_AVOIDING_DIRECTORIES: usize = 10;

/// The samples of guards that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// From all relays that can be guards.
    Default,
    /// From those that the configuration allows, if these are few.
    Restricted,
}

impl Kind {
    /// Its name in the state file.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Default => "default",
            Kind::Restricted => "restricted",
        }
    }
}

/// What a guard is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A circuit. The guard's microdescriptor is needed.
    Circuit,
    /// A request to the guard as a directory.
    Directory,
}

/// A guard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The guard.
    pub relay: Fingerprint,
    /// The name under which to tell how it went.
    pub attempt: AttemptId,
}

/// Whether a circuit may be used, as far as its guard goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Use,
    /// Not yet: better guards may still answer. Ask [`Guards::verdict`] again when another attempt has ended, and at
    /// [`Guards::next_timeout`].
    Wait,
    /// Never: close it.
    Discard,
}

/// What a new consensus or configuration has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Guards come from another sample from now on: no circuit that there is may take new streams.
    pub switched: bool,
    /// The configuration allows so few guards that its user stands out.
    pub is_extreme: bool,
}

/// The guards of a client.
#[derive(Clone, Debug)]
pub struct Guards {
    /// By [`Kind`].
    samples: [Sample; 2],
    /// Which of them is in use; `None` before the first consensus, and then it is the default one.
    chosen: Option<Kind>,
    /// Lines of samples that we do not know (C tor's bridges), to be written as they are.
    foreign: Vec<String>,
    roster: Roster,
    terms: Terms,
    attempts: Attempts,
    /// When something last came from the network.
    last_online: Option<Unix>,
    revision: u64,
}

impl Default for Guards {
    fn default() -> Self {
        Guards {
            samples: [Sample::new(Kind::Default), Sample::new(Kind::Restricted)],
            chosen: None,
            foreign: Vec::new(),
            roster: Roster::default(),
            terms: Terms::new(&ConsensusParams::default(), &GuardSettings::default()),
            attempts: Attempts::default(),
            last_online: None,
            revision: 0,
        }
    }
}

impl Guards {
    /// No guards yet: they are drawn from the first consensus.
    pub fn new() -> Self {
        Guards::default()
    }

    /// The guards that a state file remembers, and what in it could not be used.
    pub fn read(file: &StateFile, now: Unix) -> (Self, Vec<Damage>) {
        let mut guards = Guards::new();
        let mut damage = Vec::new();
        let mut found: [Vec<(u32, usize, Guard)>; 2] = [Vec::new(), Vec::new()];
        for (line, value) in file.values(KEYWORD) {
            let mut note = |what, value: &str, outcome| {
                damage.push(Damage { line, keyword: KEYWORD, what, value: value.to_owned(), outcome });
            };
            let read = match entry::parse(value, now) {
                Ok(read) => read,
                Err((what, value)) => {
                    note(what, value, Outcome::LineLost);
                    continue;
                }
            };
            let sample = match read.selection {
                "default" => &mut found[Kind::Default as usize],
                "restricted" => &mut found[Kind::Restricted as usize],
                "legacy" => {
                    note("it is in a form that is not used any more", value, Outcome::LineLost);
                    continue;
                }
                _ => {
                    guards.foreign.push(value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
                    continue;
                }
            };
            if sample.iter().any(|(_, _, other)| other.identity == read.guard.identity) {
                note("the guard is there twice", value, Outcome::LineLost);
                continue;
            }
            for (what, value) in read.faults {
                note(what, value, Outcome::Mended);
            }
            // Without an order, behind all that have one.
            sample.push((read.index.unwrap_or(u32::MAX), line, read.guard));
        }
        for (sample, mut found) in guards.samples.iter_mut().zip(found) {
            found.sort_by_key(|(index, line, _)| (*index, *line));
            for (_, line, guard) in found.drain(found.len().min(GUARD_SAMPLE)..) {
                let value = guard.identity.to_string();
                let what = "the sample has more guards than can be";
                damage.push(Damage { line, keyword: KEYWORD, what, value, outcome: Outcome::LineLost });
            }
            sample.guards = found.into_iter().map(|(_, _, guard)| guard).collect();
        }
        (guards, damage)
    }

    /// Puts what must be remembered into the place of what a state file remembers.
    pub fn write(&self, file: &mut StateFile) {
        let of = |sample: &Sample| {
            let name = sample.kind.name();
            let lines = sample.guards.iter().enumerate().map(|(n, guard)| guard.encode(name, n));
            lines.collect::<Vec<_>>()
        };
        let ours = self.samples.iter().flat_map(of);
        file.replace(KEYWORD, ours.chain(self.foreign.iter().cloned()));
    }

    /// A number that grows with every change of what must be remembered.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes a new consensus, newly arrived microdescriptors, or a new configuration; `filter` tells which relays the
    /// configuration allows as guards (`EntryNodes`, `ExcludeNodes`, `ReachableAddresses`).
    pub fn set_network(
        &mut self,
        network: &Network,
        settings: &GuardSettings,
        filter: &dyn Fn(&RelayStatus) -> bool,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> Update {
        self.roster = Roster::new(network, filter);
        self.terms = Terms::new(&network.consensus().params, settings);
        let (possible, allowed) = self.roster.counts();
        let mut update =
            Update { is_extreme: allowed < possible * self.terms.extreme_percent / 100, switched: false };
        let before = self.chosen;
        if self.roster.is_live(now) {
            self.chosen = Some(self.choose_kind(possible, allowed));
        }
        if kind_index(self.chosen) != kind_index(before) {
            // What is under way belongs to the other sample.
            self.attempts.clear();
            update.switched = before.is_some();
        }
        let Guards { roster, terms, .. } = self;
        let sample = &mut self.samples[kind_index(self.chosen)];
        self.revision += u64::from(sample.update(roster, terms, now, rng));
        update
    }

    /// Which sample to use if the configuration allows `allowed` of `possible` guards. The one in use stays so within 5 %
    /// of the threshold, so that it does not change to and fro.
    fn choose_kind(&self, possible: u64, allowed: u64) -> Kind {
        let threshold = possible.saturating_mul(self.terms.restricted_percent);
        let (low, high) = match self.chosen {
            Some(_) => (threshold.saturating_mul(95) / 10_000, threshold.saturating_mul(105) / 10_000),
            None => (threshold / 100, threshold / 100),
        };
        match self.chosen {
            _ if allowed >= high => Kind::Default,
            _ if allowed < low => Kind::Restricted,
            chosen => chosen.unwrap_or(Kind::Default),
        }
    }

    /// Selects a guard (guard-spec 4.7), or none: then all have failed, and may be tried again with the next call.
    ///
    /// Guards for which `avoid` holds are left out: for a circuit those that do not go with its exit, for a directory
    /// request those that lately did not have what was asked for.
    pub fn select(
        &mut self,
        purpose: Purpose,
        avoid: &dyn Fn(&Fingerprint) -> bool,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<Selected> {
        let sample = &mut self.samples[kind_index(self.chosen)];
        sample.consider_retries(now);
        let never = |_: &Fingerprint| false;
        let avoid = match purpose {
            Purpose::Directory if sample.usable() < MIN_FOR_AVOIDING_DIRECTORIES => &never,
            _ => avoid,
        };
        let fits = |guard: &Guard| {
            guard.is_usable() && (purpose == Purpose::Directory || guard.described) && !avoid(&guard.identity)
        };
        let (relay, state) = match Self::select_primary(sample, &self.terms, purpose, avoid, &fits, rng) {
            Some(relay) => (relay, State::TryingPrimary),
            None => {
                let usable =
                    sample.guards.iter().filter(|guard| guard.is_usable() && !avoid(&guard.identity));
                if usable.count() < self.terms.min_usable {
                    self.revision += u64::from(sample.expand(&self.roster, &self.terms, now, rng));
                }
                let pending = self.attempts.pending();
                let mut others = sample
                    .guards
                    .iter()
                    .filter(|guard| fits(guard) && !guard.primary && !pending.contains(&guard.identity));
                let confirmed = others.clone().find(|guard| guard.confirmed.is_some());
                let Some(guard) = confirmed.or_else(|| others.next()) else {
                    sample.guards.iter_mut().for_each(Guard::may_be_back);
                    return None;
                };
                (guard.identity, State::Trying(now))
            }
        };
        let avoided = sample.guards.iter().map(|guard| guard.identity).filter(avoid).collect();
        if let Some(guard) = sample.find_mut(&relay) {
            guard.last_tried = Some(now);
        }
        let attempt = self.attempts.add(Attempt { guard: relay, state, avoided });
        Some(Selected { relay, attempt })
    }

    /// One of the primary guards that come first and can be used, as many as the purpose is spread over.
    fn select_primary(
        sample: &Sample,
        terms: &Terms,
        purpose: Purpose,
        avoid: &dyn Fn(&Fingerprint) -> bool,
        fits: &dyn Fn(&Guard) -> bool,
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<Fingerprint> {
        let wanted = match purpose {
            Purpose::Circuit => terms.for_circuits,
            Purpose::Directory => terms.for_directories,
        };
        let mut usable = Vec::new();
        let mut considered = 0;
        for guard in sample.primary() {
            if considered >= wanted && !usable.is_empty() {
                break;
            }
            if fits(guard) {
                usable.push(guard.identity);
                considered += 1;
            } else if purpose == Purpose::Circuit && avoid(&guard.identity) {
                // It takes its place, so that a choice of exits does not lead to ever more guards.
                considered += 1;
            }
        }
        usable.get(below(usable.len() as u64, rng) as usize).copied()
    }

    /// The circuit is built, or the directory has answered.
    pub fn succeeded(&mut self, id: AttemptId, now: Unix, rng: &mut (impl Rng + ?Sized)) -> Verdict {
        let sample = &mut self.samples[kind_index(self.chosen)];
        let Some(attempt) = self.attempts.get_mut(id) else { return Verdict::Discard };
        let relay = attempt.guard;
        let Some(guard) = sample.find_mut(&relay) else {
            self.attempts.remove(id);
            return Verdict::Discard;
        };
        guard.reachable = Reachable::Yes;
        guard.failing_since = None;
        self.revision += u64::from(sample.confirm(&relay, &self.roster, &self.terms, now, rng));
        let is_primary = sample.find(&relay).is_some_and(|guard| guard.primary);
        match attempt.state {
            State::TryingPrimary => attempt.state = State::Complete,
            // To be used for the first time may have made it primary.
            State::Trying(_) if is_primary => attempt.state = State::Complete,
            State::Trying(_) => attempt.state = State::Waiting(now),
            State::Waiting(_) | State::Complete => {}
        }
        // After a long silence it was our own connection that was down, not the primary guards.
        let was_down = self.last_online.is_none_or(|last| last + self.terms.likely_down < now);
        if !is_primary && was_down {
            sample.guards.iter_mut().filter(|guard| guard.primary).for_each(Guard::may_be_back);
        }
        self.last_online = Some(now);
        self.verdict(id, now)
    }

    /// The guard could not be reached, or the circuit failed before its first hop was there.
    pub fn failed(&mut self, id: AttemptId, now: Unix) {
        let sample = &mut self.samples[kind_index(self.chosen)];
        let attempt = self.attempts.remove(id);
        let Some(guard) = attempt.and_then(|attempt| sample.find_mut(&attempt.guard)) else { return };
        guard.reachable = Reachable::No;
        guard.failing_since.get_or_insert(now);
    }

    /// The circuit or request is over, or was given up for reasons that say nothing of its guard. While one is not closed,
    /// circuits through worse guards wait for it.
    pub fn closed(&mut self, id: AttemptId) {
        self.attempts.remove(id);
    }

    /// Something has happened to a circuit through a guard; says what that makes suspicious.
    pub fn watch(
        &mut self,
        course: &mut Course,
        step: Step,
        now: Unix,
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<Suspicion> {
        let sample = &mut self.samples[kind_index(self.chosen)];
        // It may have left the sample meanwhile.
        let guard = sample.find_mut(&course.guard)?;
        let (suspicious, changed) = guard.bias.step(course, step, &self.terms.bias);
        self.revision += u64::from(changed);
        let (failing, level) = suspicious?;
        let suspicion = guard.bias.suspicion(guard.identity, guard.nickname(), failing, level);
        if level == Level::Dropped {
            self.revision += u64::from(sample.drop_biased(&self.roster, &self.terms, now, rng));
        }
        Some(suspicion)
    }

    /// Whether the circuit may be used by now. An attempt of which nothing is known any more is to be discarded.
    pub fn verdict(&mut self, id: AttemptId, now: Unix) -> Verdict {
        let sample = &mut self.samples[kind_index(self.chosen)];
        sample.consider_retries(now);
        self.attempts.upgrade(sample, &self.terms, now);
        let attempt = self.attempts.get(id).filter(|attempt| sample.find(&attempt.guard).is_some());
        let verdict = match attempt.map(|attempt| attempt.state) {
            Some(State::Complete) => Verdict::Use,
            Some(State::Waiting(since)) if now >= attempts::given_up(since, &self.terms) => Verdict::Discard,
            Some(_) => Verdict::Wait,
            None => Verdict::Discard,
        };
        if verdict == Verdict::Discard {
            self.attempts.remove(id);
        }
        verdict
    }

    /// When a verdict may change if nothing happens; `None` if none waits.
    pub fn next_timeout(&self, now: Unix) -> Option<Unix> {
        self.attempts.next_timeout(&self.terms, now)
    }

    /// Something came from the network.
    pub fn network_seen(&mut self, now: Unix) {
        self.last_online = Some(now);
    }

    /// Which sample is in use.
    pub fn kind(&self) -> Kind {
        self.chosen.unwrap_or(Kind::Default)
    }

    /// The guards of the sample in use, in its order.
    pub fn sample(&self) -> impl Iterator<Item = &Guard> {
        self.samples[kind_index(self.chosen)].guards.iter()
    }

    /// The primary guards, the best first.
    pub fn primary(&self) -> impl Iterator<Item = &Guard> {
        self.samples[kind_index(self.chosen)].primary()
    }

    /// Of the primary guards that circuits are to go through, those that may be up and whose microdescriptor is missing:
    /// until it is there, no circuits should be built.
    pub fn undescribed(&self) -> impl Iterator<Item = Fingerprint> {
        let up = self.primary().filter(|guard| guard.is_usable()).take(self.terms.for_circuits);
        up.filter(|guard| !guard.described).map(|guard| guard.identity)
    }
}

/// Where the sample in use is.
fn kind_index(chosen: Option<Kind>) -> usize {
    chosen.unwrap_or(Kind::Default) as usize
}

#[cfg(test)]
mod tests;
