//! How long things took, in histograms.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timed {
    /// A small cell, from its intended sending until it is back.
    Probe,
    /// A bulk cell at a given rate, from its intended sending until it comes out of the relay.
    Bulk,
    /// CREATE2, from its intended sending until it is answered.
    Create,
    /// A stream, from BEGIN to the first byte.
    FirstByte,
    /// A stream, from BEGIN to the last byte.
    LastByte,
}

/// How many there are.
const TIMED: usize = Timed::LastByte as usize + 1;

/// A histogram for each [`Timed`], in nanoseconds from a microsecond to 100 s, with three digits.
pub(super) struct Latencies([Histogram<u64>; TIMED]);

impl Latencies {
    pub(super) fn new() -> Latencies {
        let histogram =
            |_| Histogram::new_with_bounds(1_000, 100_000_000_000, 3).expect("constant bounds that fit");
        Latencies(std::array::from_fn(histogram))
    }

    pub(super) fn record(&mut self, what: Timed, took: Duration) {
        self.0[what as usize].saturating_record(took.as_nanos() as u64);
    }

    pub(super) fn add(&mut self, others: &Latencies) {
        for (own, other) in self.0.iter_mut().zip(&others.0) {
            own.add(other).expect("histograms of the same bounds");
        }
    }

    pub(super) fn of(&self, what: Timed) -> &Histogram<u64> {
        &self.0[what as usize]
    }
}
