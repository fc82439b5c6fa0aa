//! Learning how long to wait for a circuit (path-spec 2.4, as C tor 0.4.9 reads it).
//!
//! The times in which circuits reached their third hop follow a Pareto distribution nearly enough. [`BuildTimes`] keeps
//! the last thousand, estimates the curve, and from it the time in which four of five circuits are built: the slowest
//! fifth, which crosses the slowest relays and the busiest, is not worth waiting for.
//!
//! A circuit that passes the time-out is not used, but built on until the close time, so that the curve has its tail.
//! Whoever builds circuits calls [`BuildTimes::launched`] for each, and for those of three hops and more
//! [`BuildTimes::built`] when the third is there, [`BuildTimes::timed_out`] when it passes the time-out before, and
//! [`BuildTimes::closed`] when it is closed at the close time; [`BuildTimes::network_seen`] when anything comes from the
//! network. While too few times are known, [`BuildTimes::wants_test_circuit`] asks for circuits to learn from.
//!
//! In the state file it is C tor's `TotalBuildTimes`, `CircuitBuildAbandonedCount` and `CircuitBuildTimeBin`: how many
//! times there are in all, how many circuits were closed before their third hop, and how many times fall into each bin of
//! 10 ms, by its middle.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand_core::Rng;

use crate::dir::backoff::below;
use crate::limits::BUILD_TIMES;
use crate::netdoc::params::ConsensusParams;
use crate::state_file::{Damage, Outcome, StateFile};
use crate::time::Mono;

mod pareto;
mod terms;

use pareto::{Curve, MS_MAX};
pub use terms::BuildTimeSettings;
use terms::Terms;

/// Hops after which the time is taken.
pub const MEASURED_HOPS: usize = 3;

/// Width of a bin, in milliseconds.
const BIN_MS: u32 = 10;

const TOTAL: &str = "TotalBuildTimes";
const ABANDONED: &str = "CircuitBuildAbandonedCount";
const BIN: &str = "CircuitBuildTimeBin";

/// How one circuit went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    /// Its third hop was there after that many milliseconds, from 1 to [`MS_MAX`].
    Built(u32),
    /// It was closed before.
    Abandoned,
}

/// What is known of build times.
#[derive(Clone, Debug)]
pub struct BuildTimes {
    terms: Terms,
    /// At most [`BUILD_TIMES`], the oldest first.
    samples: VecDeque<Sample>,
    /// Of the last circuits that got their first hop, whether each timed out; at most as many as the consensus says.
    recent: VecDeque<bool>,
    curve: Option<Curve>,
    timeout_ms: f64,
    close_ms: f64,
    /// When anything last came from the network.
    last_live: Mono,
    /// Circuits that began and were closed since.
    dead: u32,
    last_launch: Option<Mono>,
    revision: u64,
}

impl BuildTimes {
    /// Nothing is known yet.
    pub fn new(params: &ConsensusParams, settings: &BuildTimeSettings) -> Self {
        let terms = Terms::new(params, settings);
        let initial = terms.initial_ms;
        BuildTimes {
            terms,
            samples: VecDeque::new(),
            recent: VecDeque::new(),
            curve: None,
            timeout_ms: initial,
            close_ms: initial,
            last_live: Mono::default(),
            dead: 0,
            last_launch: None,
            revision: 0,
        }
    }

    /// Takes a new consensus or configuration.
    pub fn set_params(&mut self, params: &ConsensusParams, settings: &BuildTimeSettings) {
        let before = (self.terms.learn, self.terms.initial_ms);
        self.terms = Terms::new(params, settings);
        while self.recent.len() > self.terms.recent {
            self.recent.pop_front();
        }
        let is_changed = before != (self.terms.learn, self.terms.initial_ms);
        if !self.terms.learn || (is_changed && self.curve.is_none()) {
            (self.timeout_ms, self.close_ms) = (self.terms.initial_ms, self.terms.initial_ms);
        }
        self.estimate();
    }

    /// Whether time-outs are learned at all.
    pub fn is_learning(&self) -> bool {
        self.terms.learn
    }

    /// After how long a circuit of so many hops is not to be used. A hop more is crossed by all that comes after it:
    /// n hops take n (n + 1) / 2 round trips over one.
    pub fn timeout(&self, hops: usize) -> Duration {
        let trips = |hops: usize| (hops.min(100) * (hops.min(100) + 1) / 2) as f64;
        let scaled = match hops {
            0..=MEASURED_HOPS => self.timeout_ms,
            _ => self.timeout_ms * trips(hops) / trips(MEASURED_HOPS) + 1000.0,
        };
        Duration::from_secs_f64(scaled / 1000.0)
    }

    /// After how long a circuit whose third hop is not there is closed.
    pub fn close_after(&self) -> Duration {
        Duration::from_secs_f64(self.close_ms / 1000.0)
    }

    /// Whether the time-out is an estimate, no default.
    pub fn is_estimated(&self) -> bool {
        self.terms.learn && self.curve.is_some()
    }

    /// Times that are known, those of abandoned circuits included.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether no time is known.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// A number that grows with every change of what must be remembered.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Something came from the network.
    pub fn network_seen(&mut self, now: Mono) {
        self.last_live = now;
        self.dead = 0;
    }

    /// Whether the network is there, as far as circuits tell: none has begun and been closed in silence.
    pub fn is_live(&self) -> bool {
        self.dead == 0
    }

    /// A circuit was begun.
    pub fn launched(&mut self, now: Mono) {
        self.last_launch = Some(now);
    }

    /// Whether to build a circuit only to learn; `unused` are those that are open and were never used.
    pub fn wants_test_circuit(&self, unused: usize, now: Mono) -> bool {
        let is_due = |last: Mono| now.since(last) > self.terms.test_every;
        self.terms.learn
            && self.samples.len() < self.terms.least
            && unused < self.terms.unused_most
            && self.last_launch.is_none_or(is_due)
    }

    /// How long to keep a circuit that nobody uses while too few times are known; `None` when there are enough.
    pub fn idle_timeout(&self) -> Option<Duration> {
        (self.terms.learn && self.samples.len() < self.terms.least).then_some(self.terms.idle)
    }

    /// The third hop of a circuit is there, so long after the circuit was begun; `late` if it had timed out before.
    pub fn built(&mut self, took: Duration, late: bool) {
        if !self.terms.learn {
            return;
        }
        // So long after the close time, the machine slept.
        let ms = took.as_millis();
        if ms as f64 > 2.0 * self.close_ms + 1000.0 {
            return;
        }
        if self.is_live() {
            self.add(Sample::Built(u32::try_from(ms).unwrap_or(MS_MAX).clamp(1, MS_MAX)));
            self.estimate();
        }
        if !late {
            self.note_recent(false);
        }
    }

    /// A circuit has passed the time-out before its third hop; `has_first_hop` tells whether its first was there. Tells
    /// whether all that was known is thrown away, since nearly all recent circuits time out.
    pub fn timed_out(&mut self, has_first_hop: bool) -> bool {
        if !self.terms.learn {
            return false;
        }
        // Without a first hop, it is the guard that is slow or down, not the network that has changed.
        if has_first_hop {
            self.note_recent(true);
        }
        let timeouts = self.recent.iter().filter(|timed_out| **timed_out).count();
        if timeouts < self.terms.timeouts_most {
            return false;
        }
        self.forget();
        true
    }

    /// A circuit that was begun at `began` is closed without its third hop, at the close time.
    pub fn closed(&mut self, began: Mono) {
        if !self.terms.learn {
            return;
        }
        if self.last_live < began {
            self.dead = self.dead.saturating_add(1);
        }
        if self.is_live() {
            self.add(Sample::Abandoned);
            self.estimate();
        }
    }

    fn add(&mut self, sample: Sample) {
        if self.samples.len() >= BUILD_TIMES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.revision += 1;
    }

    fn note_recent(&mut self, timed_out: bool) {
        if self.recent.len() >= self.terms.recent {
            self.recent.pop_front();
        }
        self.recent.push_back(timed_out);
    }

    /// Starts over. If even the default was too short, it is doubled.
    fn forget(&mut self) {
        self.samples.clear();
        self.recent.clear();
        self.curve = None;
        self.revision += 1;
        let initial = self.terms.initial_ms;
        if self.timeout_ms < initial {
            (self.timeout_ms, self.close_ms) = (initial, initial);
        } else if self.timeout_ms.max(self.close_ms) <= f64::from(MS_MAX / 2) {
            (self.timeout_ms, self.close_ms) = (2.0 * self.timeout_ms, 2.0 * self.close_ms);
        }
    }

    /// Estimates the curve and sets the times by it (path-spec 2.4.3 and 2.4.4), if enough is known.
    fn estimate(&mut self) {
        if !self.terms.learn || self.samples.len() < self.terms.least {
            return;
        }
        let times = || {
            self.samples.iter().filter_map(|sample| match sample {
                Sample::Built(ms) => Some(*ms),
                Sample::Abandoned => None,
            })
        };
        let Some(curve) = Curve::fit(times, self.terms.modes) else { return };
        // Times beyond all that was seen are not worth trusting the curve for.
        let longest = f64::from(times().max().unwrap_or_default());
        let timeout = curve.quantile(self.terms.timeout_quantile).min(longest);
        let close = curve.quantile(self.terms.close_quantile).min(2.0 * longest);
        self.timeout_ms = timeout.max(self.terms.least_ms);
        self.close_ms = close.max(self.terms.default_ms).max(self.timeout_ms);
        self.curve = Some(curve);
    }

    /// What a state file remembers, in random order, since it does not tell the real one; and what in it could not be
    /// used: then nothing is known.
    pub fn read(
        file: &StateFile,
        params: &ConsensusParams,
        settings: &BuildTimeSettings,
        rng: &mut (impl Rng + ?Sized),
    ) -> (Self, Option<Damage>) {
        let mut times = BuildTimes::new(params, settings);
        match read_samples(file) {
            Ok(mut samples) => {
                for n in (1..samples.len()).rev() {
                    samples.swap(n, below(n as u64 + 1, rng) as usize);
                }
                samples.truncate(BUILD_TIMES);
                times.samples = samples.into();
                times.estimate();
                (times, None)
            }
            Err(damage) => (times, Some(damage)),
        }
    }

    /// Puts what must be remembered into the place of what a state file remembers.
    pub fn write(&self, file: &mut StateFile) {
        let mut bins: BTreeMap<u32, u32> = BTreeMap::new();
        let mut abandoned = 0u32;
        for sample in &self.samples {
            match sample {
                Sample::Built(ms) => *bins.entry(ms / BIN_MS).or_default() += 1,
                Sample::Abandoned => abandoned += 1,
            }
        }
        let count = |n: usize| (n > 0).then(|| n.to_string());
        file.replace(TOTAL, count(self.samples.len()));
        file.replace(ABANDONED, count(abandoned as usize));
        let middle = |bin: u32| bin * BIN_MS + BIN_MS / 2;
        file.replace(BIN, bins.into_iter().map(|(bin, n)| format!("{} {n}", middle(bin))));
    }
}

/// The samples of a state file. There must be as many as it says, as in C tor.
fn read_samples(file: &StateFile) -> Result<Vec<Sample>, Damage> {
    let damage = |line, keyword, what, value: &str| Damage {
        line,
        keyword,
        what,
        value: value.to_owned(),
        outcome: Outcome::Forgotten,
    };
    let number = |keyword| {
        // The last one counts, as in C tor.
        let Some((line, value)) = file.values(keyword).last() else { return Ok((0, 0)) };
        let number = value.parse::<u32>().ok().filter(|number| *number <= MS_MAX);
        let number = number.ok_or_else(|| damage(line, keyword, "it is not a number that can be", value))?;
        Ok((line, u64::from(number)))
    };
    let (line, total) = number(TOTAL)?;
    let (_, abandoned) = number(ABANDONED)?;
    let mut bins = Vec::new();
    let mut count = abandoned;
    for (line, value) in file.values(BIN) {
        let bin = value
            .split_once(' ')
            .and_then(|(ms, n)| Some((ms.parse::<u32>().ok()?, n.trim().parse::<u32>().ok()?)));
        let (ms, n) = bin
            .filter(|(ms, _)| (1..=MS_MAX).contains(ms))
            .ok_or_else(|| damage(line, BIN, "it is not a time in milliseconds and a count", value))?;
        count += u64::from(n);
        bins.push((Sample::Built(ms), n));
    }
    bins.push((Sample::Abandoned, u32::try_from(abandoned).unwrap_or(u32::MAX)));
    if count != total {
        return Err(damage(
            line,
            TOTAL,
            "the bins and abandoned circuits do not add up to it",
            &total.to_string(),
        ));
    }
    // A file with more than we keep was not written by us, nor by C tor, which keeps as many.
    if count > BUILD_TIMES as u64 {
        return Err(damage(line, TOTAL, "it is more than are kept", &total.to_string()));
    }
    Ok(bins.into_iter().flat_map(|(sample, n)| std::iter::repeat_n(sample, n as usize)).collect())
}

#[cfg(test)]
mod tests;
