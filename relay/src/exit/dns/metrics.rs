//! What a shard's resolver counts.

use super::DnsError;
use metrics::{Counter, Gauge, Histogram};
use onionring_node::metrics::table;
use std::time::Duration;

/// Handles, registered once per shard.
pub struct Metrics {
    /// Questions sent to servers, repeats included.
    pub queries: Counter,
    /// Lookups answered from memory.
    pub cache_hits: Counter,
    /// Answers remembered.
    pub cache_entries: Gauge,
    /// Servers passed over because they fail.
    pub servers_failing: Gauge,
    seconds: Histogram,
    /// By [`outcome_index`].
    lookups: [Counter; OUTCOMES.len()],
}

/// Values of the label `outcome`.
const OUTCOMES: [&str; 11] = [
    "success",
    "bad_name",
    "no_such_name",
    "no_data",
    "server_failed",
    "refused",
    "format",
    "not_implemented",
    "timeout",
    "unreachable",
    "overloaded",
];

fn outcome_index(error: Option<DnsError>) -> usize {
    match error {
        None => 0,
        Some(DnsError::BadName) => 1,
        Some(DnsError::NoSuchName) => 2,
        Some(DnsError::NoData) => 3,
        Some(DnsError::ServerFailed) => 4,
        Some(DnsError::Refused) => 5,
        Some(DnsError::Format) => 6,
        Some(DnsError::NotImplemented) => 7,
        Some(DnsError::Timeout) => 8,
        Some(DnsError::Unreachable) => 9,
        Some(DnsError::Overloaded) => 10,
    }
}

impl Metrics {
    /// Registers the resolver of `shard`.
    pub fn new(shard: usize) -> Self {
        let shard = shard.to_string();
        let only_shard = [("shard", shard.as_str())];
        Metrics {
            queries: table::DNS_QUERIES.counter(&only_shard),
            cache_hits: table::DNS_CACHE_HITS.counter(&only_shard),
            cache_entries: table::DNS_CACHE_ENTRIES.gauge(&only_shard),
            servers_failing: table::DNS_SERVERS_FAILING.gauge(&only_shard),
            seconds: table::DNS_LOOKUP_SECONDS.histogram(&only_shard),
            lookups: OUTCOMES
                .map(|outcome| table::DNS_LOOKUPS.counter(&[("shard", &shard), ("outcome", outcome)])),
        }
    }

    /// A lookup ended after `time`.
    pub fn finished(&self, error: Option<DnsError>, time: Duration) {
        self.lookups[outcome_index(error)].increment(1);
        self.seconds.record(time);
    }
}
