//! What happens while the proxy runs, counted for metrics, the heartbeat and the status.
//!
//! Whoever does something counts it here; the metrics are put together when they are asked for. Gauges that can be read off
//! where they are (links, guards, what is open) are not kept twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use onionring_node::metrics::table::NETWORK_SECONDS;

use crate::network::Refusal;

/// All counters.
#[derive(Debug, Default)]
pub struct Tallies {
    /// Circuits.
    pub circuits: CircuitTally,
    /// Streams, and questions to exits.
    pub streams: StreamTally,
    /// The directory.
    pub directory: DirectoryTally,
}

/// A number that goes up.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes over what is counted elsewhere.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers that go up, by a label.
#[derive(Debug, Default)]
pub struct Labelled(Mutex<BTreeMap<&'static str, u64>>);

impl Labelled {
    /// Counts one. Labels are words of the program, never what came from outside.
    pub fn add(&self, label: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(label).or_default() += 1;
    }

    /// Takes over what is counted elsewhere.
    pub fn set(&self, counts: BTreeMap<&'static str, u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// All that were counted.
    pub fn get(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.get().values().sum()
    }
}

/// How long things took, by the bounds of [`NETWORK_SECONDS`].
#[derive(Debug, Default)]
pub struct Times {
    counts: [AtomicU64; NETWORK_SECONDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Times {
    /// Counts one.
    pub fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.counts[NETWORK_SECONDS.partition_point(|bound| *bound < seconds)]
            .fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many were in each bucket, in the last those longer than every bound; and the sum of all in seconds.
    pub fn get(&self) -> (Vec<u64>, f64) {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        (counts, Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)).as_secs_f64())
    }
}

/// Circuits.
#[derive(Debug, Default)]
pub struct CircuitTally {
    /// Built, every hop.
    pub built: Count,
    /// Not built, by reason: one of [`CircuitTally::REASONS`].
    pub failed: Labelled,
    /// How long those took that were built.
    pub build_times: Times,
    /// Cut and extended to another exit.
    pub truncated: Count,
}

impl CircuitTally {
    /// No relays were found for the path.
    pub const NO_PATH: &str = "no_path";
    /// The guard could not be reached.
    pub const CONNECT: &str = "connect";
    /// It took too long.
    pub const TIMEOUT: &str = "timeout";
    /// A better guard works after all.
    pub const GUARD: &str = "better_guard";
    /// A relay on it ended it.
    pub const DESTROYED: &str = "destroyed";
    /// A relay on it broke the protocol, or a handshake was wrong.
    pub const PROTOCOL: &str = "protocol";

    /// All reasons.
    pub const REASONS: [&str; 6] =
        [Self::NO_PATH, Self::CONNECT, Self::TIMEOUT, Self::GUARD, Self::DESTROYED, Self::PROTOCOL];
}

/// Streams, and questions to exits.
#[derive(Debug, Default)]
pub struct StreamTally {
    /// Opened, as their exits say.
    pub opened: Count,
    /// Not opened, by [`Refusal::label`].
    pub refused: Labelled,
    /// Tried again on another circuit.
    pub retried: Count,
    /// Bytes that applications got from the network.
    pub read_bytes: Count,
    /// Bytes that applications gave to the network.
    pub written_bytes: Count,
    /// Questions answered with an address or a name.
    pub resolved: Count,
    /// Questions not answered, by [`Refusal::label`].
    pub unresolved: Labelled,
}

impl StreamTally {
    /// Counts how a stream came out.
    pub fn connected<T>(&self, outcome: &Result<T, Refusal>) {
        match outcome {
            Ok(_) => self.opened.add(1),
            Err(refusal) => self.refused.add(refusal.label()),
        }
    }

    /// Counts how a question came out.
    pub fn answered<T>(&self, outcome: &Result<T, Refusal>) {
        match outcome {
            Ok(_) => self.resolved.add(1),
            Err(refusal) => self.unresolved.add(refusal.label()),
        }
    }
}

/// The directory.
#[derive(Debug, Default)]
pub struct DirectoryTally {
    /// Requests that were answered with what was asked for.
    pub fetched: Count,
    /// Requests that failed, by reason: one of [`DirectoryTally::REASONS`].
    pub failed: Labelled,
    /// Bytes of documents.
    pub read_bytes: Count,
}

impl DirectoryTally {
    /// All reasons: the directory could not be reached, made no circuit or stream, took too long, broke off, sent what is no
    /// answer (`not_http`), cannot be decoded or is cut off, refused, or sent what is not fit to be kept.
    pub const REASONS: [&str; 9] =
        ["connect", "circuit", "timeout", "broken", "not_http", "undecodable", "cut_off", "refused", "unfit"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_what_they_are() {
        let streams = StreamTally::default();
        streams.connected(&Ok(()));
        streams.connected::<()>(&Err(Refusal::Timeout));
        streams.connected::<()>(&Err(Refusal::Timeout));
        streams.answered::<()>(&Err(Refusal::NotFound));
        assert_eq!((streams.opened.get(), streams.refused.sum(), streams.resolved.get()), (1, 2, 0));
        assert_eq!(streams.refused.get(), BTreeMap::from([("timeout", 2)]));
        assert_eq!(streams.unresolved.get(), BTreeMap::from([("not_found", 1)]));
    }

    #[test]
    fn a_bound_is_the_longest_of_its_bucket() {
        let times = Times::default();
        for millis in [0, 1, 2, 30_000, 30_001] {
            times.record(Duration::from_millis(millis));
        }
        let (counts, sum) = times.get();
        let last = counts.len() - 1;
        let filled: Vec<_> = counts.into_iter().enumerate().filter(|(_, n)| *n > 0).collect();
        assert_eq!(filled, [(0, 2), (1, 1), (last - 1, 1), (last, 1)]);
        assert!((sum - 60.004).abs() < 1e-6);
    }

    #[test]
    fn labels_differ() {
        let mut labels: Vec<_> = Refusal::ALL.map(Refusal::label).to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }
}
