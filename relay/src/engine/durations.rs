//! Durations counted by size: a histogram in plain numbers.

use std::time::Duration;

/// How many durations were how long. Written by one thread; recording one takes some nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: [u64; Self::BOUNDS.len() + 1],
    sum_micros: u64,
}

impl Durations {
    /// The longest duration of each bucket but the last, in microseconds.
    pub const BOUNDS: [u64; 15] = [
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 10_000_000,
    ];

    /// Counts one.
    pub fn record(&mut self, time: Duration) {
        let micros = time.as_micros() as u64;
        self.counts[Self::BOUNDS.partition_point(|&bound| bound < micros)] += 1;
        self.sum_micros = self.sum_micros.wrapping_add(micros);
    }

    /// How many were in each bucket; in the last, those longer than every bound.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_the_longest_of_its_bucket() {
        let mut durations = Durations::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            durations.record(Duration::from_micros(micros));
        }
        let filled: Vec<_> = durations.counts().iter().enumerate().filter(|(_, n)| **n > 0).collect();
        assert_eq!(filled, [(0, &2), (1, &1), (14, &1), (15, &1)]);
        assert_eq!(durations.sum(), Duration::from_micros(20_000_202));
        assert!(Durations::BOUNDS.is_sorted());
    }
}
