//! Path bias: guards that make circuits fail (path-spec 7, as C tor 0.4.9 counts in `circpathbias.c`).
//!
//! Who runs a guard and some exits can let circuits fail that lead to other exits, and so see both ends of more than his
//! share. He cannot hide that many fail. So it is counted for each guard what becomes of the circuits that got beyond it:
//! how many come to an end that was no failure, and of those that were used, how many carried anything. When the share is
//! too low, that is said; and the guard is not used any more if the configuration or the consensus says so.
//!
//! A circuit counts from its second hop on: what fails before that is the guard's own matter, and seen elsewhere.

use std::fmt;

use super::terms::BiasTerms;
use crate::netdoc::text::Fingerprint;

/// What has happened to a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has its second hop.
    SecondHop,
    /// It has all its hops.
    Built,
    /// It took too long to be built.
    TimedOut,
    /// A stream, or a question, was put on it.
    Used,
    /// Its exit has answered, whatever.
    Answered,
    /// A stream was not served on it and goes elsewhere: it has yet to carry something.
    Left,
    /// What its exit says shows that it got other bytes than were sent.
    Garbled,
    /// It is over.
    Closed {
        /// Whether that was not our doing.
        by_others: bool,
    },
}

/// How far a circuit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    New,
    Attempted,
    Built,
    Used,
    Served,
    Broken,
    Counted,
}

const STAGES: usize = 7;

/// A circuit that is watched for its guard's sake.
#[derive(Clone, Debug)]
pub struct Course {
    pub(super) guard: Fingerprint,
    stage: Stage,
}

impl Course {
    /// A circuit that is to be built through this guard.
    pub fn new(guard: Fingerprint) -> Course {
        Course { guard, stage: Stage::New }
    }

    /// Whether it was used, and it is not known that it carries anything: before it is closed, its exit should be asked for
    /// something, and [`Step::Answered`] be told if it answers.
    pub fn is_in_doubt(&self) -> bool {
        self.stage == Stage::Used
    }
}

/// What speaks against a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// The guard.
    pub guard: Fingerprint,
    /// Its nickname when it was sampled.
    pub nickname: Option<String>,
    /// What fails.
    pub of: Failing,
    /// How bad it is.
    pub level: Level,
    /// Circuits of which that did not fail, those that are open counted as such.
    pub well: u64,
    /// Of so many.
    pub all: u64,
    /// Circuits that others closed before they were used.
    pub collapsed: u64,
    /// Circuits that were used and carried nothing.
    pub unusable: u64,
    /// Circuits that took too long to be built.
    pub timed_out: u64,
}

/// What a guard makes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Circuits.
    Circuits,
    /// Streams on circuits.
    Streams,
}

/// How many fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// More than usual.
    Notable,
    /// Most: that may be an attack.
    Bad,
    /// Nearly all.
    Extreme,
    /// So many that the guard is not used any more.
    Dropped,
}

/// A number of circuits in millionths: the state file has six decimals, and counts are scaled down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Count(u64);

/// One circuit.
const ONE: u64 = 1_000_000;

impl Count {
    /// The most that a state file may say, as in C tor.
    const MAX: f64 = 1e9;

    fn read(text: &str) -> Option<Count> {
        let number: f64 = text.parse().ok()?;
        // What is no number is not in the range either.
        (0.0..=Count::MAX).contains(&number).then(|| Count((number * ONE as f64).round() as u64))
    }

    fn of(circuits: u32) -> Count {
        Count(u64::from(circuits) * ONE)
    }

    fn plus(self, other: Count) -> Count {
        Count(self.0.saturating_add(other.0))
    }

    fn minus(self, other: Count) -> Count {
        Count(self.0.saturating_sub(other.0))
    }

    fn times(self, (numerator, denominator): (u32, u32)) -> Count {
        let scaled = u128::from(self.0) * u128::from(numerator) / u128::from(denominator.max(1));
        Count(u64::try_from(scaled).unwrap_or(u64::MAX))
    }

    fn rounded(self) -> u64 {
        self.0.saturating_add(ONE / 2) / ONE
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / ONE, self.0 % ONE)
    }
}

/// What is counted, in the order of the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tally {
    UseAttempts,
    UseSuccesses,
    Attempts,
    Successes,
    ClosedWell,
    Collapsed,
    Unusable,
    Timeouts,
}

/// How many there are.
pub(super) const COUNTS: usize = 8;

/// Their names in the state file.
const NAMES: [&str; COUNTS] = [
    "pb_use_attempts",
    "pb_use_successes",
    "pb_circ_attempts",
    "pb_circ_successes",
    "pb_successful_circuits_closed",
    "pb_collapsed_circuits",
    "pb_unusable_circuits",
    "pb_timeouts",
];

/// What is known of one guard's circuits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    counts: [Count; COUNTS],
    /// Open circuits by stage. Not remembered.
    open: [u32; STAGES],
    /// The worst that was said of its circuits and of its streams. Not remembered.
    said: [Option<Level>; 2],
    /// Whether so many fail that it is not to be used.
    pub dropped: bool,
}

impl Record {
    /// Reads a word of a `Guard` line: the place of the count, if it is one; the count is `None` if it is no number.
    pub fn read(word: &str) -> Option<(usize, Option<u64>)> {
        let (key, value) = word.split_once('=')?;
        let place = NAMES.iter().position(|name| *name == key)?;
        Some((place, Count::read(value).map(|count| count.0)))
    }

    /// Takes over what was read.
    pub fn set(&mut self, place: usize, millionths: u64) {
        self.counts[place] = Count(millionths);
    }

    /// The words of a `Guard` line.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let known = NAMES.into_iter().zip(self.remembered()).filter(|(_, count)| count.0 > 0);
        known.map(|(name, count)| format!("{name}={count}"))
    }

    /// Open circuits count as successful: a restart is no failure.
    fn remembered(&self) -> [Count; COUNTS] {
        let mut counts = self.counts;
        counts[Tally::UseSuccesses as usize] = self.used_well();
        counts[Tally::ClosedWell as usize] = self.closed_well();
        counts
    }

    /// A circuit goes on; says what that makes suspicious, and whether what is remembered has changed.
    pub fn step(
        &mut self,
        course: &mut Course,
        step: Step,
        terms: &BiasTerms,
    ) -> (Option<(Failing, Level)>, bool) {
        let before = self.remembered();
        let (stage, suspicion) = self.next(course.stage, step, terms);
        // Those that are over before they began were never here.
        let open = &mut self.open[course.stage as usize];
        *open = open.saturating_sub(1);
        self.open[stage as usize] += 1;
        self.open[Stage::New as usize] = 0;
        self.open[Stage::Counted as usize] = 0;
        course.stage = stage;
        (suspicion, self.remembered() != before)
    }

    fn next(&mut self, stage: Stage, step: Step, terms: &BiasTerms) -> (Stage, Option<(Failing, Level)>) {
        let stage = match (stage, step) {
            (Stage::New, Step::SecondHop) => {
                let suspicion = self.judge(Failing::Circuits, terms);
                self.scale_circuits(terms);
                self.add(Tally::Attempts);
                return (Stage::Attempted, suspicion);
            }
            (Stage::Attempted, Step::Built) => {
                self.add(Tally::Successes);
                Stage::Built
            }
            (Stage::Built, Step::Used) => {
                let suspicion = self.judge(Failing::Streams, terms);
                self.scale_uses(terms);
                self.add(Tally::UseAttempts);
                return (Stage::Used, suspicion);
            }
            (Stage::Used, Step::Answered) => Stage::Served,
            (Stage::Served, Step::Left) => Stage::Used,
            (Stage::Used | Stage::Served, Step::Garbled) => Stage::Broken,
            (Stage::New | Stage::Attempted | Stage::Built, Step::TimedOut) => {
                self.add(Tally::Timeouts);
                stage
            }
            (_, Step::Closed { by_others }) => {
                self.close(stage, by_others);
                Stage::Counted
            }
            _ => stage,
        };
        (stage, None)
    }

    fn close(&mut self, stage: Stage, by_others: bool) {
        match stage {
            Stage::Built if by_others => self.add(Tally::Collapsed),
            Stage::Built => self.add(Tally::ClosedWell),
            Stage::Served => {
                self.add(Tally::ClosedWell);
                self.add(Tally::UseSuccesses);
            }
            Stage::Used | Stage::Broken => self.add(Tally::Unusable),
            Stage::New | Stage::Attempted | Stage::Counted => {}
        }
    }

    /// Whether it is to be dropped by what is known already.
    pub fn review(&mut self, terms: &BiasTerms) {
        let is_extreme = |failing| self.level(failing, terms) == Some(Level::Extreme);
        self.dropped = terms.drop && (is_extreme(Failing::Circuits) || is_extreme(Failing::Streams));
    }

    /// What there is to say, if it is worse than what was said before.
    fn judge(&mut self, failing: Failing, terms: &BiasTerms) -> Option<(Failing, Level)> {
        let level = match self.level(failing, terms)? {
            Level::Extreme if terms.drop => Level::Dropped,
            level => level,
        };
        self.dropped |= level == Level::Dropped;
        let said = &mut self.said[failing as usize];
        if *said >= Some(level) {
            return None;
        }
        *said = Some(level);
        Some((failing, level))
    }

    fn level(&self, failing: Failing, terms: &BiasTerms) -> Option<Level> {
        let (well, all) = self.share(failing);
        let (least, rates) = match failing {
            Failing::Circuits => (terms.circuits, terms.circuit_rates),
            Failing::Streams => (terms.uses, terms.use_rates),
        };
        if all <= Count::of(least) {
            return None;
        }
        let share = well.0 as f64 / all.0 as f64;
        let [notable, bad, extreme] = rates;
        // A rate of 0 is never reached, which switches a level off.
        let levels = [(extreme, Level::Extreme), (bad, Level::Bad), (notable, Level::Notable)];
        levels.into_iter().find(|(rate, _)| share < *rate).map(|(_, level)| level)
    }

    /// Circuits that did not fail, and how many there were.
    fn share(&self, failing: Failing) -> (Count, Count) {
        match failing {
            Failing::Circuits => (self.closed_well(), self.count(Tally::Attempts)),
            Failing::Streams => (self.used_well(), self.count(Tally::UseAttempts)),
        }
    }

    /// What is said of a guard of this name.
    pub fn suspicion(
        &self,
        guard: Fingerprint,
        nickname: Option<&str>,
        of: Failing,
        level: Level,
    ) -> Suspicion {
        let (well, all) = self.share(of);
        Suspicion {
            guard,
            nickname: nickname.map(str::to_owned),
            of,
            level,
            well: well.rounded(),
            all: all.rounded(),
            collapsed: self.count(Tally::Collapsed).rounded(),
            unusable: self.count(Tally::Unusable).rounded(),
            timed_out: self.count(Tally::Timeouts).rounded(),
        }
    }

    /// Circuits that were closed without a failure; open ones get the benefit of the doubt.
    fn closed_well(&self) -> Count {
        self.count(Tally::ClosedWell).plus(self.open(&[Stage::Built, Stage::Used, Stage::Served]))
    }

    /// Circuits that were used and carried something, likewise.
    fn used_well(&self) -> Count {
        self.count(Tally::UseSuccesses).plus(self.open(&[Stage::Used, Stage::Served]))
    }

    /// When there are many, what is old counts less. Open circuits are not scaled: they will be counted whole.
    fn scale_circuits(&mut self, terms: &BiasTerms) {
        if self.count(Tally::Attempts) <= Count::of(terms.scale_circuits) {
            return;
        }
        let attempted = self.open(&[Stage::Attempted]);
        let built = self.open(&[Stage::Built, Stage::Used, Stage::Served, Stage::Broken]);
        for (tally, open) in [
            (Tally::Attempts, attempted.plus(built)),
            (Tally::Successes, built),
            (Tally::ClosedWell, Count::default()),
            (Tally::Collapsed, Count::default()),
            (Tally::Unusable, Count::default()),
            (Tally::Timeouts, Count::default()),
        ] {
            self.scale(tally, open, terms);
        }
    }

    fn scale_uses(&mut self, terms: &BiasTerms) {
        if self.count(Tally::UseAttempts) <= Count::of(terms.scale_uses) {
            return;
        }
        let open = self.open(&[Stage::Used, Stage::Served]);
        self.scale(Tally::UseAttempts, open, terms);
        self.scale(Tally::UseSuccesses, Count::default(), terms);
    }

    fn scale(&mut self, tally: Tally, open: Count, terms: &BiasTerms) {
        let count = &mut self.counts[tally as usize];
        *count = count.minus(open).times(terms.scale).plus(open);
    }

    fn count(&self, tally: Tally) -> Count {
        self.counts[tally as usize]
    }

    fn add(&mut self, tally: Tally) {
        let count = &mut self.counts[tally as usize];
        *count = count.plus(Count(ONE));
    }

    fn open(&self, stages: &[Stage]) -> Count {
        Count::of(stages.iter().map(|stage| self.open[*stage as usize]).sum())
    }
}

#[cfg(test)]
mod tests;
