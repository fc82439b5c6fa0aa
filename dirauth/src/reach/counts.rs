//! How many tests were made, and what came of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// A link to the IPv4 address.
    LinkV4,
    /// A link to the IPv6 address.
    LinkV6,
}

impl Test {
    /// All kinds.
    pub const ALL: [Test; 2] = [Test::LinkV4, Test::LinkV6];

    /// A short stable name for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Test::LinkV4 => "link_ipv4",
            Test::LinkV6 => "link_ipv6",
        }
    }
}

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The relay does what it should.
    Passed,
    /// It does not.
    Failed,
    /// Nobody knows, or others may be to blame.
    Unclear,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Outcome; 3] = [Outcome::Passed, Outcome::Failed, Outcome::Unclear];

    /// A short stable name for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Unclear => "unclear",
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub struct Counts([[AtomicU64; Outcome::ALL.len()]; Test::ALL.len()]);

impl Counts {
    /// Counts a test.
    pub fn add(&self, test: Test, outcome: Outcome) {
        self.counter(test, outcome).fetch_add(1, Ordering::Relaxed);
    }

    /// Tests of a kind that had this outcome.
    pub fn get(&self, test: Test, outcome: Outcome) -> u64 {
        self.counter(test, outcome).load(Ordering::Relaxed)
    }

    /// Both are indices of a variant into an array as long as there are variants.
    fn counter(&self, test: Test, outcome: Outcome) -> &AtomicU64 {
        &self.0[test as usize][outcome as usize]
    }
}
