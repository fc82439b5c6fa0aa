//! What was answered, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By connections to the DirPort.
    DirPort,
    /// By streams of circuits.
    Circuit,
}

impl Way {
    /// All ways.
    pub const ALL: [Way; 2] = [Way::DirPort, Way::Circuit];

    /// A short stable name for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Way::DirPort => "dir_port",
            Way::Circuit => "circuit",
        }
    }
}

/// Statuses that are counted by themselves: those that answers have.
const STATUSES: [u16; 7] = [200, 304, 400, 404, 413, 500, 503];

/// What came of requests that came one way.
#[derive(Debug, Default)]
pub struct Tally {
    statuses: [AtomicU64; STATUSES.len()],
    others: AtomicU64,
    unanswered: AtomicU64,
    bytes: Arc<AtomicU64>,
}

impl Tally {
    pub(super) fn answered(&self, status: u16) {
        let known = STATUSES.iter().zip(&self.statuses).find(|(known, _)| **known == status);
        known.map_or(&self.others, |(_, counter)| counter).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Where bytes of answers are counted.
    pub(super) fn meter(&self) -> Arc<AtomicU64> {
        self.bytes.clone()
    }

    /// Requests by the status of their answers; `other` and `unanswered` are the last two.
    pub fn requests(&self) -> impl Iterator<Item = (String, u64)> {
        let named = STATUSES.iter().map(u16::to_string).zip(&self.statuses);
        let rest = [("other".to_owned(), &self.others), ("unanswered".to_owned(), &self.unanswered)];
        named.chain(rest).map(|(status, counter)| (status, counter.load(Ordering::Relaxed)))
    }

    /// Bytes of bodies that were handed to connections.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_status() {
        let tally = Tally::default();
        [200, 404, 200, 777].into_iter().for_each(|status| tally.answered(status));
        tally.unanswered();
        let counted: Vec<_> = tally.requests().filter(|(_, n)| *n > 0).collect();
        let expected = [("200", 2), ("404", 1), ("other", 1), ("unanswered", 1)];
        assert_eq!(counted, expected.map(|(status, n)| (status.to_owned(), n)));
    }
}
