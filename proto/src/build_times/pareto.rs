//! The Pareto curve of build times (path-spec 2.4.3).

use std::collections::BTreeMap;

use super::BIN_MS;

/// The longest time, in milliseconds.
pub(super) const MS_MAX: u32 = i32::MAX as u32;

/// A Pareto distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Curve {
    /// Where it begins, in milliseconds; above 0.
    pub start: f64,
    /// Its shape; infinite if all times are the same.
    pub alpha: f64,
}

impl Curve {
    /// The likeliest curve for these times in milliseconds, if there are any. As its start counts the mean of the `modes`
    /// commonest bins, and shorter times as if they were that.
    pub fn fit<I: Iterator<Item = u32>>(times: impl Fn() -> I, modes: usize) -> Option<Self> {
        let start = start(times(), modes)?;
        let (mut sum, mut n) = (0.0, 0u32);
        for ms in times() {
            sum += f64::from(ms).max(start).ln();
            n += 1;
        }
        let alpha = f64::from(n) / (sum - f64::from(n) * start.ln()).max(0.0);
        Some(Curve { start, alpha })
    }

    /// The time in which a share of `quantile` (0 to 1) of the circuits are built, in milliseconds, at most [`MS_MAX`].
    pub fn quantile(&self, quantile: f64) -> f64 {
        (self.start / (1.0 - quantile).powf(1.0 / self.alpha)).min(f64::from(MS_MAX))
    }
}

/// The mean of the middles of the commonest bins, weighted by what is in them, in whole milliseconds. Of bins with as
/// much in them the shorter times count.
fn start(times: impl Iterator<Item = u32>, modes: usize) -> Option<f64> {
    let mut bins: BTreeMap<u32, u64> = BTreeMap::new();
    for ms in times {
        *bins.entry(ms / BIN_MS).or_default() += 1;
    }
    let mut bins: Vec<_> = bins.into_iter().collect();
    bins.sort_by_key(|(bin, n)| (std::cmp::Reverse(*n), *bin));
    bins.truncate(modes);
    let middle = |bin: u32| u64::from(bin * BIN_MS + BIN_MS / 2);
    let total: u64 = bins.iter().map(|(bin, n)| middle(*bin) * n).sum();
    let n: u64 = bins.iter().map(|(_, n)| n).sum();
    total.checked_div(n).map(|mean| mean as f64)
}
