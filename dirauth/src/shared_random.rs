//! Shared randomness: a value a day that nobody can foresee, made by all authorities together (srv-spec).
//!
//! A run has 24 rounds of voting. In the first half each authority votes a commitment to a number, in the second half
//! the number; what all have revealed is hashed into the value of the next day. What is voted on is
//!
//! ```text
//! reveal      base64 of <seconds since 1970, 8 bytes> <random number, 32 bytes>
//! commitment  base64 of <the same seconds>            <SHA3-256 of the reveal's base64>
//! ```
//!
//! and the value is `SHA3-256("shared-random" | u64 reveals | u32 1 | SHA3-256(identities and reveals) | last value)`.
//!
//! The state is the file `sr-state` ([`SharedRandom::read`]), so that a run goes on over a restart. It holds our own
//! number before it is revealed: nobody else may read it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::time::Unix;
use rand_core::CryptoRng;
use sha3::{Digest, Sha3_256};
use thiserror::Error;
use zeroize::Zeroizing;

mod state;

pub use state::StateError;

/// Version of the protocol, and the only hash it knows.
const VERSION: u32 = 1;
const ALGORITHM: &str = "sha3-256";
/// Rounds of each of the two phases.
const ROUNDS: u64 = 12;
/// Bytes of a reveal and of a commitment, before base64.
const PART: usize = 8 + 32;
const PART_BASE64: usize = 56;

/// Which half of a run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Commitments are collected.
    Commit,
    /// What was committed to is revealed.
    Reveal,
}

impl Phase {
    /// The phase of the round whose consensus is valid after `valid_after`, with one round each `interval`.
    pub fn of(valid_after: Unix, interval: Duration) -> Phase {
        if round(valid_after, interval) < ROUNDS { Phase::Commit } else { Phase::Reveal }
    }
}

fn round(valid_after: Unix, interval: Duration) -> u64 {
    valid_after.0 / interval.as_secs().max(1) % (2 * ROUNDS)
}

/// When the run that this round belongs to ends: the round 0 after it.
fn end_of_run(valid_after: Unix, interval: Duration) -> Unix {
    let left = 2 * ROUNDS - round(valid_after, interval);
    Unix(valid_after.0.saturating_add(left.saturating_mul(interval.as_secs().max(1))))
}

/// A shared random value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Srv {
    /// How many authorities revealed a number for it.
    pub reveals: u64,
    /// The value.
    pub value: [u8; 32],
}

impl Srv {
    /// Reads `<reveals> <value>`.
    pub fn parse(text: &str) -> Option<Srv> {
        let (reveals, value) = text.split_once(' ')?;
        let value = value.split(' ').next()?;
        Some(Srv { reveals: reveals.parse().ok()?, value: text::base64_array(value)? })
    }
}

impl fmt::Display for Srv {
    /// As in votes, consensuses and the state: the value with its padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}=", self.reveals, text::base64_unpadded(&self.value))
    }
}

/// The number an authority commits to.
#[derive(Clone, PartialEq, Eq)]
struct Reveal {
    base64: Zeroizing<String>,
    seconds: u64,
}

/// What one authority committed to, and the number once it is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Commit {
    identity: Fingerprint,
    base64: String,
    seconds: u64,
    hash: [u8; 32],
    reveal: Option<Reveal>,
}

impl fmt::Debug for Commit {
    /// Without the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commit({} {} revealed={})", self.identity, self.base64, self.reveal.is_some())
    }
}

/// Why a commitment in a vote cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// It has fewer than four arguments.
    #[error("a shared-rand-commit has fewer than four arguments")]
    TooShort,
    /// It is of another version or hash.
    #[error("a shared-rand-commit is not of version 1 with sha3-256")]
    Unsupported,
    /// The identity is not 40 hex digits.
    #[error("a shared-rand-commit names no identity of an authority")]
    Identity,
    /// The commitment or the reveal is not 40 bytes in base64.
    #[error("a shared-rand-commit has a value that is not base64 of 40 bytes")]
    Value,
}

impl Commit {
    /// A fresh commitment of the authority `identity` for the run that begins with `valid_after`.
    pub fn generate(identity: Fingerprint, valid_after: Unix, rng: &mut impl CryptoRng) -> Commit {
        let seconds = valid_after.0;
        let mut number = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *number);
        let reveal = Reveal { base64: Zeroizing::new(encode(seconds, &number)), seconds };
        let hash = Sha3_256::digest(reveal.base64.as_bytes()).into();
        Commit { identity, base64: encode(seconds, &hash), seconds, hash, reveal: Some(reveal) }
    }

    /// Reads the arguments of a `shared-rand-commit` line: `1 sha3-256 IDENTITY COMMITMENT [REVEAL]`.
    ///
    /// Whether the reveal is what was committed to is looked at by [`SharedRandom::receive`].
    pub fn parse(arguments: &str) -> Result<Commit, CommitError> {
        let mut arguments = arguments.split(' ').filter(|a| !a.is_empty());
        let mut next = || arguments.next().ok_or(CommitError::TooShort);
        let (version, algorithm, identity, base64) = (next()?, next()?, next()?, next()?);
        if version.parse() != Ok(VERSION) || algorithm != ALGORITHM {
            return Err(CommitError::Unsupported);
        }
        let identity = Fingerprint::from_hex(identity).ok_or(CommitError::Identity)?;
        let (seconds, hash) = decode(base64).ok_or(CommitError::Value)?;
        let reveal = match arguments.next() {
            None => None,
            Some(base64) => {
                let (seconds, _) = decode(base64).ok_or(CommitError::Value)?;
                Some(Reveal { base64: Zeroizing::new(base64.to_owned()), seconds })
            }
        };
        Ok(Commit { identity, base64: base64.to_owned(), seconds, hash, reveal })
    }

    /// The v3 identity of the authority.
    pub fn identity(&self) -> Fingerprint {
        self.identity
    }

    /// Whether the number is what was committed to.
    fn is_kept(&self) -> bool {
        self.reveal.as_ref().is_some_and(|reveal| {
            reveal.seconds == self.seconds && Sha3_256::digest(reveal.base64.as_bytes())[..] == self.hash
        })
    }

    /// The arguments of its line, with the number if that is to be told and known.
    fn arguments(&self, reveal: bool) -> Zeroizing<String> {
        let mut out = format!("{VERSION} {ALGORITHM} {} {}", self.identity, self.base64);
        if let Some(number) = self.reveal.as_ref().filter(|_| reveal) {
            // The buffer is replaced, not grown: nothing of the number stays behind.
            out = format!("{out} {}", *number.base64);
        }
        Zeroizing::new(out)
    }
}

fn encode(seconds: u64, part: &[u8; 32]) -> String {
    use base64ct::{Base64, Encoding as _};
    let mut bytes = Zeroizing::new([0; PART]);
    bytes[..8].copy_from_slice(&seconds.to_be_bytes());
    bytes[8..].copy_from_slice(part);
    Base64::encode_string(&*bytes)
}

fn decode(base64: &str) -> Option<(u64, [u8; 32])> {
    if base64.len() != PART_BASE64 {
        return None;
    }
    let bytes: [u8; PART] = text::base64_array(base64)?;
    let (seconds, part) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*seconds), part.try_into().ok()?))
}

/// What was done with a commitment in another authority's vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The commitment is new, and kept.
    Committed,
    /// The number is new, and kept.
    Revealed,
    /// Nothing new.
    Known,
    /// It is another authority's: each vouches for its own only.
    NotItsOwn,
    /// The authority is not one of ours.
    UnknownAuthority,
    /// The authority committed to something else before.
    Altered,
    /// It came too late, or the number too early.
    OutOfPhase,
    /// The number is not what was committed to.
    WrongReveal,
}

/// What an authority votes about shared randomness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteLines {
    /// The arguments of the `shared-rand-commit` lines, in their order.
    pub commits: Vec<String>,
    /// The arguments of `shared-rand-previous-value`.
    pub previous: Option<Srv>,
    /// The arguments of `shared-rand-current-value`.
    pub current: Option<Srv>,
}

impl fmt::Display for VoteLines {
    /// The lines of the vote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shared-rand-participate\n")?;
        for commit in &self.commits {
            writeln!(f, "shared-rand-commit {commit}")?;
        }
        for (when, srv) in [("previous", self.previous), ("current", self.current)] {
            if let Some(srv) = srv {
                writeln!(f, "shared-rand-{when}-value {srv}")?;
            }
        }
        Ok(())
    }
}

/// The state of the present run, and the values that are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedRandom {
    /// The round that was prepared last: its consensus is valid after this.
    valid_after: Unix,
    /// When the run ends.
    valid_until: Unix,
    phase: Phase,
    commits: BTreeMap<Fingerprint, Commit>,
    previous: Option<Srv>,
    current: Option<Srv>,
    /// Whether `current` was computed by us and no consensus has confirmed it yet.
    fresh: bool,
}

impl SharedRandom {
    /// The state of an authority that has none yet.
    pub fn new(now: Unix, interval: Duration) -> SharedRandom {
        SharedRandom {
            // Before the round of this very moment.
            valid_after: now - interval,
            valid_until: end_of_run(now, interval),
            phase: Phase::of(now, interval),
            commits: BTreeMap::new(),
            previous: None,
            current: None,
            fresh: false,
        }
    }

    /// Prepares the round of voting whose consensus will be valid after `valid_after`; once for each, at start and after
    /// each consensus. `us` is our v3 identity, one of `authorities`.
    ///
    /// The first round of a run makes the value of the last one, and a fresh commitment. True if anything changed, so
    /// that the state is to be saved.
    pub fn prepare(
        &mut self,
        valid_after: Unix,
        interval: Duration,
        us: Fingerprint,
        authorities: &[Fingerprint],
        rng: &mut impl CryptoRng,
    ) -> bool {
        if valid_after <= self.valid_after {
            return false;
        }
        let phase = Phase::of(valid_after, interval);
        // The second is for an authority that was stopped for so long.
        let has_missed_a_run =
            valid_after.since(self.valid_after) >= interval.saturating_mul(2 * ROUNDS as u32);
        let ends_a_run = (self.phase, phase) == (Phase::Reveal, Phase::Commit);
        if ends_a_run || has_missed_a_run {
            // Later in a run the value that the others made at its beginning is in force, and a consensus says which.
            if ends_a_run {
                self.previous = self.current.take();
                self.current = Some(self.compute(authorities));
                self.fresh = true;
            }
            self.commits.clear();
        }
        if phase == Phase::Commit {
            self.commits.entry(us).or_insert_with(|| Commit::generate(us, valid_after, rng));
        }
        self.phase = phase;
        self.valid_after = valid_after;
        self.valid_until = end_of_run(valid_after, interval);
        true
    }

    /// Takes in the commitment that stands in the vote of the authority `voter`. The state is to be saved if it was new.
    pub fn receive(&mut self, voter: &Fingerprint, commit: &Commit, authorities: &[Fingerprint]) -> Received {
        if commit.identity != *voter {
            return Received::NotItsOwn;
        }
        if !authorities.contains(voter) {
            return Received::UnknownAuthority;
        }
        let known = self.commits.get_mut(voter);
        if known.as_ref().is_some_and(|known| known.base64 != commit.base64) {
            return Received::Altered;
        }
        match (self.phase, known) {
            (Phase::Commit, Some(_)) => Received::Known,
            (Phase::Commit, None) if commit.reveal.is_some() => Received::OutOfPhase,
            (Phase::Commit, None) => {
                self.commits.insert(*voter, commit.clone());
                Received::Committed
            }
            (Phase::Reveal, None) => Received::OutOfPhase,
            (Phase::Reveal, Some(known)) if known.reveal.is_some() || commit.reveal.is_none() => {
                Received::Known
            }
            (Phase::Reveal, Some(known)) if commit.is_kept() => {
                known.reveal = commit.reveal.clone();
                Received::Revealed
            }
            (Phase::Reveal, Some(_)) => Received::WrongReveal,
        }
    }

    /// Takes over the values of a new consensus: what the majority voted holds, whatever we computed.
    pub fn adopt(&mut self, previous: Option<Srv>, current: Option<Srv>) {
        self.previous = previous;
        self.current = current;
        self.fresh = false;
    }

    /// Whether the current value was computed for this very vote. It then needs as many votes as the parameter
    /// AuthDirNumSRVAgreements says to come into the consensus.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Which half of the run the prepared round belongs to.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The values in force: that of the last run but one, and that of the last.
    pub fn values(&self) -> (Option<Srv>, Option<Srv>) {
        (self.previous, self.current)
    }

    /// What to vote in the prepared round.
    pub fn vote(&self) -> VoteLines {
        let reveal = self.phase == Phase::Reveal;
        let commits = self.commits.values().map(|commit| {
            let mut arguments = commit.arguments(reveal).to_string();
            // In this phase C tor always writes the blank before the reveal; the lines are sorted with it.
            if reveal && commit.reveal.is_none() {
                arguments.push(' ');
            }
            arguments
        });
        VoteLines { commits: commits.collect(), previous: self.previous, current: self.current }
    }

    /// The value of the run that ends, from the numbers revealed, after `self.previous` (srv-spec 3.3).
    fn compute(&self, authorities: &[Fingerprint]) -> Srv {
        let mut kept: Vec<_> = self
            .commits
            .values()
            .filter(|commit| authorities.contains(&commit.identity))
            .filter_map(|commit| Some((commit, commit.reveal.as_ref()?)))
            .collect();
        kept.sort_by_key(|(commit, _)| commit.hash);
        let mut hash = Sha3_256::new();
        for (commit, reveal) in &kept {
            hash.update(commit.identity.to_string());
            hash.update(reveal.base64.as_bytes());
        }
        let reveals = kept.len() as u64;
        let value = Sha3_256::new()
            .chain_update(b"shared-random")
            .chain_update(reveals.to_be_bytes())
            .chain_update(VERSION.to_be_bytes())
            .chain_update(hash.finalize())
            .chain_update(self.previous.map_or([0; 32], |srv| srv.value))
            .finalize()
            .into();
        Srv { reveals, value }
    }
}

#[cfg(test)]
mod tests;
