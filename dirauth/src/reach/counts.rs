//! How many tests were made, and what came of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// A link to the IPv4 address.
    LinkV4,
    /// A link to the IPv6 address.
    LinkV6,
    /// A whole round of circuit tests; those that follow are its parts.
    Round,
    /// The handshake by which a circuit comes to the relay.
    Handshake,
    /// Extending a circuit from there.
    Extend,
    /// Carrying a directory request to the relay beyond, and its answer back.
    Carry,
    /// Serving the relay's own descriptor.
    Directory,
    /// Letting out a stream to our listener, as the exit policy says.
    Exit,
    /// Refusing such a stream, as the exit policy says.
    ExitRefusal,
}

impl Test {
    /// All kinds.
    pub const ALL: [Test; 9] = [
        Test::LinkV4,
        Test::LinkV6,
        Test::Round,
        Test::Handshake,
        Test::Extend,
        Test::Carry,
        Test::Directory,
        Test::Exit,
        Test::ExitRefusal,
    ];

    /// A short stable name for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Test::LinkV4 => "link_ipv4",
            Test::LinkV6 => "link_ipv6",
            Test::Round => "round",
            Test::Handshake => "handshake",
            Test::Extend => "extend",
            Test::Carry => "carry",
            Test::Directory => "directory",
            Test::Exit => "exit",
            Test::ExitRefusal => "exit_refusal",
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
