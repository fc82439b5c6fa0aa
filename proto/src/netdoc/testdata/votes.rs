//! Votes of private networks of C tor 0.4.9.11, with what its authorities made of them; `votes/README.md` says how
//! they were recorded.

use crate::netdoc::vote::{SignedVote, split};

/// One round of voting.
pub struct Recording {
    /// For messages.
    pub name: &'static str,
    /// Configured authorities.
    pub authorities: usize,
    /// All votes.
    pub votes: &'static str,
    /// The consensus of flavour `ns`.
    pub ns: &'static str,
    /// The other one.
    pub microdesc: &'static str,
    /// The signatures as they were passed on, if there are any.
    pub detached: &'static str,
}

macro_rules! recording {
    ($name:literal, $authorities:literal, $detached:expr) => {
        Recording {
            name: $name,
            authorities: $authorities,
            votes: include_str!(concat!("votes/", $name, "/votes.txt")),
            ns: include_str!(concat!("votes/", $name, "/consensus.txt")),
            microdesc: include_str!(concat!("votes/", $name, "/consensus_microdesc.txt")),
            detached: $detached,
        }
    };
}

pub const THREE: Recording = recording!("three", 3, include_str!("votes/three/detached.txt"));
pub const FIVE: Recording = recording!("five", 5, include_str!("votes/five/detached.txt"));

/// Those of networks that worked, with signatures.
pub fn signed() -> Vec<Recording> {
    vec![THREE, FIVE]
}

pub fn all() -> Vec<Recording> {
    let made_up = [
        recording!("made-up-32", 5, ""),
        recording!("made-up-33", 5, ""),
        recording!("made-up-34", 5, ""),
        recording!("made-up-35", 5, ""),
    ];
    signed().into_iter().chain(made_up).collect()
}

pub fn parsed(votes: &str) -> Vec<SignedVote> {
    split(votes).map(|vote| SignedVote::parse(vote).unwrap_or_else(|e| panic!("{e}"))).collect()
}

/// A document without its signatures.
pub fn unsigned(text: &str) -> &str {
    let end = text.find("\ndirectory-signature ").map_or(text.len(), |n| n + 1);
    &text[..end]
}

/// That two texts are the same, or else the first lines that differ.
pub fn same_lines(what: &str, ours: &str, theirs: &str) {
    for (n, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(ours, theirs, "{what}, line {}", n + 1);
    }
    assert_eq!(ours, theirs, "{what}");
}
