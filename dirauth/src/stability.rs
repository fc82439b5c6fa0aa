//! How long relays stay up: mean time between failures, the share of time they are up, and for how long they are known
//! (dir-spec 3.4.2).
//!
//! A relay is in a run from when it is first found reachable until it is not. Ended runs, and the time up and known, are
//! multiplied by 0.95 every 12 hours, so that one of a month ago counts a twentieth of a fresh one.
//!
//! The state is the file `router-stability`:
//!
//! ```text
//! format 2
//! stored-at TIME
//! tracked-since TIME
//! last-downrated TIME
//! data
//! R FINGERPRINT
//! +MTBF <seconds of ended runs> <their number> [S=<start of the present run>]
//! +WFU <seconds up> <seconds known> [S=<start of the present downtime>]
//! .
//! ```
//!
//! Times before `stored-at` are moved by the time the authority did not run: what happened meanwhile is not known, and
//! counts for no relay and against none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::time::Duration;

use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::time::Unix;
use thiserror::Error;

use crate::limits::HISTORIES;

/// How often what is past is discounted, and by what.
const DISCOUNT_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);
const DISCOUNT: f64 = 0.95;
/// Runs whose weights sum to less are forgotten.
const WEIGHT_MIN: f64 = 0.0001;
/// How long runs must have been watched before their lengths say anything.
const ENOUGH: Duration = Duration::from_secs(4 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is known of one relay's ups and downs. Seconds and weights are discounted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct History {
    /// Since when it is up, if it is.
    run_start: Option<Unix>,
    /// Since when it is down, if it is.
    down_start: Option<Unix>,
    /// Seconds of ended runs, and how many they were.
    run_seconds: u64,
    runs: f64,
    /// Seconds up and seconds known, without the present run or downtime.
    up_seconds: u64,
    known_seconds: u64,
    /// Where it was last reached; not kept on disk.
    reached_at: Option<SocketAddrV4>,
}

/// What is known of all relays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stability {
    tracked_since: Option<Unix>,
    last_discount: Option<Unix>,
    relays: BTreeMap<Fingerprint, History>,
}

/// Why a file of histories is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StabilityError {
    /// It does not begin with a known format.
    #[error(
        "router-stability begins with {0:?} instead of 'format 2': it is damaged or of another program; move it away to start anew"
    )]
    Format(String),
    /// It does not say when it was written.
    #[error("router-stability has no valid line stored-at: it is damaged; move it away to start anew")]
    NoStoredAt,
}

/// What was found in a file of histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StabilityFindings {
    /// Relays of which lines were damaged; what could be read of them counts.
    pub damaged: usize,
    /// Whether the last line is missing.
    pub truncated: bool,
}

impl Stability {
    /// A relay was reached at `now`, if given at this address. One that moved is taken to have been down for `moved`:
    /// the time it takes until clients know its new address.
    pub fn reached(&mut self, relay: &Fingerprint, at: Option<SocketAddrV4>, now: Unix, moved: Duration) {
        self.tracked_since.get_or_insert(now);
        let Some(history) = self.history(relay) else { return };
        let has_moved = matches!((at, history.reached_at), (Some(at), Some(before)) if at != before);
        history.run_start.get_or_insert(now);
        if let Some(down_start) = history.down_start.take() {
            history.known_seconds = history.known_seconds.saturating_add(now.since(down_start).as_secs());
        } else if has_moved {
            history.end_run(now - moved);
            history.run_start = Some(now);
            history.known_seconds = history.known_seconds.saturating_add(moved.as_secs());
        }
        history.reached_at = at.or(history.reached_at);
    }

    /// A relay is taken to be down since `since`.
    pub fn unreachable(&mut self, relay: &Fingerprint, since: Unix, now: Unix) {
        self.tracked_since.get_or_insert(now);
        let Some(history) = self.history(relay) else { return };
        history.end_run(since);
        history.down_start.get_or_insert(since);
    }

    /// Takes all standing from a relay, as from one that looks like part of a Sybil attack.
    pub fn disgrace(&mut self, relay: &Fingerprint, now: Unix) {
        self.unreachable(relay, now, now);
        let Some(history) = self.history(relay) else { return };
        history.run_seconds = 0;
        history.up_seconds = 0;
    }

    /// Ends the runs of relays that are no longer listed: nobody looks whether they are up.
    pub fn unlisted_are_down(&mut self, is_listed: impl Fn(&Fingerprint) -> bool, now: Unix) {
        for (relay, history) in &mut self.relays {
            if history.run_start.is_some() && !is_listed(relay) {
                history.end_run(now);
                history.down_start.get_or_insert(now);
            }
        }
    }

    /// Discounts what is past, if it is time.
    pub fn discount(&mut self, now: Unix) {
        let mut last = *self.last_discount.get_or_insert(now);
        let intervals = now.since(last).as_secs() / DISCOUNT_INTERVAL.as_secs();
        if intervals == 0 {
            return;
        }
        last = Unix(last.0 + intervals * DISCOUNT_INTERVAL.as_secs());
        self.last_discount = Some(last);
        let factor = DISCOUNT.powi(i32::try_from(intervals).unwrap_or(i32::MAX));
        for history in self.relays.values_mut() {
            history.runs *= factor;
            for seconds in [&mut history.run_seconds, &mut history.up_seconds, &mut history.known_seconds] {
                *seconds = (*seconds as f64 * factor) as u64;
            }
        }
    }

    /// Forgets relays that have not been up for about half a year, or never.
    pub fn forget_faded(&mut self) {
        self.relays.retain(|_, h| h.runs >= WEIGHT_MIN || h.run_start.is_some());
    }

    /// Mean seconds between failures; 0 for an unknown relay. The present run counts as if it ended now.
    pub fn mtbf(&self, relay: &Fingerprint, now: Unix) -> f64 {
        let Some(history) = self.relays.get(relay) else { return 0.0 };
        let present = history.run_start.map_or(0.0, |start| seconds_between(start, now));
        let runs = history.runs + if history.run_start.is_some() { 1.0 } else { 0.0 };
        if runs < WEIGHT_MIN { 0.0 } else { (history.run_seconds as f64 + present) / runs }
    }

    /// The weighted share of time that the relay was up; 0 for an unknown relay.
    pub fn fractional_uptime(&self, relay: &Fingerprint, now: Unix) -> f64 {
        let Some(history) = self.relays.get(relay) else { return 0.0 };
        let present = history.run_start.map_or(0.0, |start| seconds_between(start, now));
        let known = history.known(now);
        if known == 0.0 { 0.0 } else { (history.up_seconds as f64 + present) / known }
    }

    /// Weighted seconds for which the relay is known; 0 for an unknown relay.
    pub fn time_known(&self, relay: &Fingerprint, now: Unix) -> f64 {
        self.relays.get(relay).map_or(0.0, |history| history.known(now))
    }

    /// Whether the relay was reached, and not found to be down since.
    pub fn is_up(&self, relay: &Fingerprint) -> bool {
        self.relays.get(relay).is_some_and(|history| history.run_start.is_some())
    }

    /// How long the present run lasts; zero for a relay that is down.
    pub fn uptime(&self, relay: &Fingerprint, now: Unix) -> Duration {
        self.relays.get(relay).and_then(|h| h.run_start).map_or(Duration::ZERO, |start| now.since(start))
    }

    /// Whether relays were watched for long enough that the lengths of their runs mean something.
    pub fn is_long_enough(&self, now: Unix) -> bool {
        self.tracked_since.is_some_and(|since| now.since(since) > ENOUGH)
    }

    /// Relays of which something is known.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    fn history(&mut self, relay: &Fingerprint) -> Option<&mut History> {
        if !self.relays.contains_key(relay) && self.relays.len() >= HISTORIES {
            return None;
        }
        Some(self.relays.entry(*relay).or_default())
    }

    /// Reads the state that `now` finds.
    pub fn read(state: &str, now: Unix) -> Result<(Stability, StabilityFindings), StabilityError> {
        let mut lines = state.lines();
        let first = lines.next().unwrap_or("");
        if first != "format 2" {
            return Err(StabilityError::Format(first.chars().take(64).collect()));
        }
        let (mut stored_at, mut tracked_since, mut last_discount) = (None, None, None);
        for line in lines.by_ref().take_while(|line| *line != "data") {
            match line.split_once(' ') {
                Some(("stored-at", at)) => stored_at = time(at),
                Some(("tracked-since", at)) => tracked_since = time(at).map(|at| at.min(now)),
                Some(("last-downrated", at)) => last_discount = time(at).map(|at| at.min(now)),
                _ => {}
            }
        }
        let stored_at = stored_at.ok_or(StabilityError::NoStoredAt)?;
        let shift = Shift { now, stored_at, tracked_since: tracked_since.unwrap_or(Unix(0)) };

        let mut stability = Stability { tracked_since: None, last_discount, relays: BTreeMap::new() };
        let mut found = StabilityFindings { damaged: 0, truncated: true };
        let mut present: Option<(Fingerprint, bool)> = None;
        for line in lines {
            let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
            match (keyword, present.as_mut()) {
                (".", _) => {
                    found.truncated = false;
                    break;
                }
                ("R", _) => {
                    let relay =
                        Fingerprint::from_hex(rest).filter(|relay| stability.history(relay).is_some());
                    found.damaged += usize::from(relay.is_none());
                    present = relay.map(|relay| (relay, false));
                }
                ("+MTBF" | "+WFU", Some((relay, damaged))) => {
                    let history = stability.relays.entry(*relay).or_default();
                    let read = match keyword {
                        "+MTBF" => history.read_runs(rest, &shift),
                        _ => history.read_uptime(rest, &shift),
                    };
                    if read.is_none() && !std::mem::replace(damaged, true) {
                        found.damaged += 1;
                    }
                }
                _ => {}
            }
        }
        // A file without a believable beginning: that of the first run we know of.
        stability.tracked_since = tracked_since.filter(|since| since.0 >= YEAR.as_secs()).or_else(|| {
            stability
                .relays
                .values()
                .filter_map(|h| Some(h.run_start? - Duration::from_secs(h.run_seconds)))
                .min()
        });
        Ok((stability, found))
    }

    /// The state as of `now`.
    pub fn write(&self, now: Unix) -> String {
        let mut out = String::with_capacity(128 * (self.relays.len() + 2));
        out.push_str("format 2\n");
        let times = [
            ("stored-at", Some(now)),
            ("tracked-since", self.tracked_since),
            ("last-downrated", self.last_discount),
        ];
        // Writing to a String does not fail.
        for (keyword, at) in times {
            if let Some(at) = at {
                let _ = writeln!(out, "{keyword} {}", text::format_time(at));
            }
        }
        out.push_str("data\n");
        let since = |at: Option<Unix>| at.map_or(String::new(), |at| format!(" S={}", text::format_time(at)));
        for (relay, h) in &self.relays {
            let _ = writeln!(out, "R {relay}");
            let _ = writeln!(out, "+MTBF {} {:.5}{}", h.run_seconds, h.runs, since(h.run_start));
            let _ = writeln!(out, "+WFU {} {}{}", h.up_seconds, h.known_seconds, since(h.down_start));
        }
        out.push_str(".\n");
        out
    }
}

impl History {
    /// Ends the present run, if there is one, at `at`. A run that ends before it began takes away as much.
    fn end_run(&mut self, at: Unix) {
        let Some(start) = self.run_start.take() else { return };
        self.runs += 1.0;
        if at < start {
            let penalty = start.since(at).as_secs();
            self.run_seconds = self.run_seconds.saturating_sub(penalty);
            self.up_seconds = self.up_seconds.saturating_sub(penalty);
        } else {
            let length = at.since(start).as_secs();
            self.run_seconds = self.run_seconds.saturating_add(length);
            self.up_seconds = self.up_seconds.saturating_add(length);
            self.known_seconds = self.known_seconds.saturating_add(length);
        }
    }

    fn known(&self, now: Unix) -> f64 {
        let present = self.run_start.or(self.down_start).map_or(0.0, |start| seconds_between(start, now));
        self.known_seconds as f64 + present
    }

    fn read_runs(&mut self, rest: &str, shift: &Shift) -> Option<()> {
        let (seconds, rest) = rest.split_once(' ')?;
        let (runs, start) = rest.split_once(' ').map_or((rest, None), |(runs, start)| (runs, Some(start)));
        self.run_seconds = seconds.parse().ok()?;
        self.runs = runs.parse().ok().filter(|runs: &f64| runs.is_finite() && *runs >= 0.0)?;
        self.run_start = match start {
            Some(start) => shift.apply(time(start.strip_prefix("S=")?)?),
            None => None,
        };
        Some(())
    }

    fn read_uptime(&mut self, rest: &str, shift: &Shift) -> Option<()> {
        let (up, rest) = rest.split_once(' ')?;
        let (known, start) = rest.split_once(' ').map_or((rest, None), |(known, start)| (known, Some(start)));
        self.up_seconds = up.parse().ok()?;
        self.known_seconds = known.parse().ok()?;
        self.down_start = match start {
            Some(start) => shift.apply(time(start.strip_prefix("S=")?)?),
            None => None,
        };
        Some(())
    }
}

/// Moves times of a file past the time in which nobody watched.
struct Shift {
    now: Unix,
    stored_at: Unix,
    tracked_since: Unix,
}

impl Shift {
    /// As long before `now` as it was before the file was written. `None` for what cannot be: after that, or long before
    /// anything was tracked.
    fn apply(&self, at: Unix) -> Option<Unix> {
        if at > self.stored_at || at < self.tracked_since - YEAR {
            None
        } else if at < self.tracked_since {
            Some(self.tracked_since)
        } else {
            Some((self.now - self.stored_at.since(at)).max(self.tracked_since))
        }
    }
}

fn time(at: &str) -> Option<Unix> {
    let (date, clock) = at.split_once(' ')?;
    text::time(date, clock)
}

/// Seconds from one moment to another, negative if it lies before.
fn seconds_between(from: Unix, to: Unix) -> f64 {
    if to < from { -(from.since(to).as_secs() as f64) } else { to.since(from).as_secs() as f64 }
}

#[cfg(test)]
mod tests;
