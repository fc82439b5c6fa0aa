//! What a relay must have for Fast, Stable and Guard: little more than most others have.

use std::fmt;
use std::time::Duration;

use onionring_proto::netdoc::params::ConsensusParams;
use onionring_proto::netdoc::routerdesc::RouterDesc;

use super::{FlagOptions, Terms, View, real_uptime};
use crate::stability::Stability;

/// Kilobytes a second below which a relay does not count for thresholds.
const COUNTED_MIN: u32 = 4;
/// Kilobytes a second below which the eighth part of relays says nothing about Fast: half of what relays need at least.
const FAST_MIN: u32 = 75 * 1024 / 2000;
/// Least and usual value of the parameter `FastFlagMinThreshold`, bytes a second.
const FAST_PARAM_MIN: i32 = 4;

/// The thresholds of one vote. Bandwidths are in kilobytes (1000) a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// Stable, if there is not enough history: time up.
    pub stable_uptime: Duration,
    /// Stable: mean seconds between failures.
    pub stable_mtbf: f64,
    /// Fast: bandwidth.
    pub fast: u32,
    /// Guard: weighted share of time up.
    pub guard_wfu: f64,
    /// Guard: weighted seconds known.
    pub guard_time_known: f64,
    /// Guard: bandwidth, by all relays.
    pub guard_with_exits: u32,
    /// Guard: bandwidth, by those that are no exits.
    pub guard_without_exits: u32,
    /// Whether there is history enough for `stable_mtbf`.
    pub enough_mtbf: bool,
    /// Whether bandwidths that were not measured count as nothing.
    pub ignoring_advertised: bool,
}

impl Thresholds {
    pub(super) fn of(view: &View<'_>, stability: &Stability) -> Thresholds {
        let (terms, options) = (view.terms, view.terms.options);
        let now = terms.now;
        let min_counted = options.testing.as_ref().map_or(COUNTED_MIN, |t| kilobytes(t.min_counted));
        let is_measured = |identity| terms.measurements.get(identity).is_some();
        let counted: Vec<_> = view
            .iter()
            .filter(|relay| {
                let identity = &relay.descriptor.identity;
                view.is_active(relay)
                    && !view.sybils.contains(identity)
                    && view.bandwidth(relay) >= min_counted
                    && (view.advertised_count || is_measured(identity))
            })
            .collect();

        let bandwidths = sorted(counted.iter().map(|relay| view.bandwidth(relay)), u32::cmp);
        let others = counted.iter().filter(|relay| !view.is_exit(relay) || relay.standing.marks.bad_exit);
        let without_exits = sorted(others.map(|relay| view.bandwidth(relay)), u32::cmp);
        let uptimes = sorted(counted.iter().map(|relay| real_uptime(relay.descriptor, now)), Duration::cmp);
        let mtbfs = sorted(
            counted.iter().map(|relay| stability.mtbf(&relay.descriptor.identity, now)),
            f64::total_cmp,
        );
        let known = |identity| stability.time_known(identity, now);
        let times_known =
            sorted(counted.iter().map(|relay| known(&relay.descriptor.identity)), f64::total_cmp);
        let count = counted.len();

        let mut fast = nth(&bandwidths, count / 8);
        if fast < FAST_MIN {
            fast = nth(&bandwidths, count / 4);
        }
        let guard_time_known =
            nth(&times_known, count / 8).min(options.guard_time_known_guarantee.as_secs() as f64);
        let familiar =
            counted.iter().map(|relay| &relay.descriptor.identity).filter(|id| known(id) >= guard_time_known);
        let wfus = sorted(familiar.map(|id| stability.fractional_uptime(id, now)), f64::total_cmp);
        let at_fraction = |bandwidths: &[u32]| {
            nth(bandwidths, (bandwidths.len() as f64 * options.guard_bandwidth_fraction) as usize)
        };
        Thresholds {
            stable_uptime: median(&uptimes),
            stable_mtbf: median(&mtbfs),
            fast: bounded_fast(fast, options, terms.params),
            guard_wfu: median(&wfus).min(options.guard_wfu_guarantee),
            guard_time_known,
            guard_with_exits: at_fraction(&bandwidths),
            guard_without_exits: at_fraction(&without_exits),
            enough_mtbf: stability.is_long_enough(now),
            ignoring_advertised: !view.advertised_count,
        }
    }

    pub(super) fn is_stable(
        &self,
        descriptor: &RouterDesc,
        stability: &Stability,
        terms: &Terms<'_>,
    ) -> bool {
        if self.enough_mtbf {
            let mtbf = stability.mtbf(&descriptor.identity, terms.now);
            mtbf >= self.stable_mtbf || mtbf >= terms.options.stable_mtbf_guarantee.as_secs() as f64
        } else {
            let uptime = real_uptime(descriptor, terms.now);
            uptime >= self.stable_uptime || uptime >= terms.options.stable_uptime_guarantee
        }
    }

    /// Whether a relay that is stable, fast and serves its directory is fit to be a guard.
    pub(super) fn is_guard(
        &self,
        descriptor: &RouterDesc,
        bandwidth: u32,
        stability: &Stability,
        terms: &Terms<'_>,
    ) -> bool {
        let guarantee = terms.options.guard_bandwidth_guarantee;
        let is_guaranteed = guarantee != 0 && bandwidth >= kilobytes(guarantee);
        (is_guaranteed || bandwidth >= self.guard_with_exits.min(self.guard_without_exits))
            && stability.fractional_uptime(&descriptor.identity, terms.now) >= self.guard_wfu
            && stability.time_known(&descriptor.identity, terms.now) >= self.guard_time_known
    }
}

impl fmt::Display for Thresholds {
    /// The arguments of the line `flag-thresholds`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stable-uptime={} stable-mtbf={} fast-speed={} guard-wfu={:.3}% guard-tk={} guard-bw-inc-exits={} \
             guard-bw-exc-exits={} enough-mtbf={} ignoring-advertised-bws={}",
            self.stable_uptime.as_secs(),
            self.stable_mtbf as u64,
            u64::from(self.fast) * 1000,
            self.guard_wfu * 100.0,
            self.guard_time_known as u64,
            u64::from(self.guard_with_exits) * 1000,
            u64::from(self.guard_without_exits) * 1000,
            u8::from(self.enough_mtbf),
            u8::from(self.ignoring_advertised),
        )
    }
}

/// Keeps the threshold for Fast between the bounds that the consensus sets, and never above what is guaranteed.
fn bounded_fast(fast: u32, options: &FlagOptions, params: &ConsensusParams) -> u32 {
    let param = |name, default, min: i32| params.raw(name).unwrap_or(default).max(min);
    let min = match &options.testing {
        Some(testing) => i32::try_from(testing.min_fast).unwrap_or(i32::MAX),
        None => param("FastFlagMinThreshold", FAST_PARAM_MIN, FAST_PARAM_MIN),
    };
    let max = param("FastFlagMaxThreshold", i32::MAX, min);
    // Both are positive, and `min` is not above `max`.
    let fast = fast.clamp(min.unsigned_abs() / 1000, max.unsigned_abs() / 1000);
    match options.fast_guarantee {
        0 => fast,
        guarantee => fast.min(kilobytes(guarantee)),
    }
}

fn kilobytes(bytes: u64) -> u32 {
    u32::try_from(bytes / 1000).unwrap_or(u32::MAX)
}

fn sorted<T>(values: impl Iterator<Item = T>, order: impl Fn(&T, &T) -> std::cmp::Ordering) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_by(order);
    values
}

/// The value at a place of a sorted list, the last one beyond its end, nothing much of an empty one.
fn nth<T: Copy + Default>(sorted: &[T], at: usize) -> T {
    sorted.get(at).or(sorted.last()).copied().unwrap_or_default()
}

/// The lower of the two in the middle.
fn median<T: Copy + Default>(sorted: &[T]) -> T {
    nth(sorted, sorted.len().saturating_sub(1) / 2)
}
