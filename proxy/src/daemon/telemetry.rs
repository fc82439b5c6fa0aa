//! From what the parts of the proxy count to metrics, whenever somebody asks for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use onionring_node::metrics::http::Pages;
use onionring_node::metrics::{Exporter, from_zero, table};
use onionring_proto::guard::{Guard, Reachable};
use onionring_proto::time::Unix;

use super::parts::Parts;
use crate::control::{Report, Status as _};
use crate::network::Refusal;
use crate::tallies::{CircuitTally, DirectoryTally, StreamTally};

/// The pages of the metrics port.
pub struct Telemetry {
    pub exporter: Exporter,
    pub parts: Arc<Parts>,
}

impl Pages for Telemetry {
    fn own(&self) -> String {
        let tallies = self.parts.tallies();
        table::PROXY_LINKS.gauge(&[]).set(self.parts.links() as f64);
        publish_report(&self.parts.report());
        self.parts.guards().state(|state| publish_guards(state.sample()));
        publish_circuits(&tallies.circuits, &self.exporter);
        publish_streams(&tallies.streams);
        publish_directory(&tallies.directory);
        self.exporter.render()
    }
}

fn publish_report(report: &Report) {
    table::PROXY_BOOTSTRAP.gauge(&[]).set(f64::from(report.percent) / 100.0);
    let (after, until) = report.consensus.unwrap_or((Unix(0), Unix(0)));
    table::PROXY_CONSENSUS_VALID_AFTER.gauge(&[]).set(after.0 as f64);
    table::PROXY_CONSENSUS_VALID_UNTIL.gauge(&[]).set(until.0 as f64);
    table::PROXY_CIRCUITS.gauge(&[]).set(report.circuits as f64);
    table::PROXY_STREAMS.gauge(&[]).set(report.streams as f64);
}

/// The labels of [`table::PROXY_GUARDS`].
const GUARD_KINDS: [&str; 3] = ["primary", "confirmed", "sampled"];
const GUARD_STATES: [&str; 4] = ["up", "untried", "down", "barred"];

fn publish_guards<'a>(guards: impl Iterator<Item = &'a Guard>) {
    let all = GUARD_KINDS.into_iter().flat_map(|kind| GUARD_STATES.map(|state| ((kind, state), 0)));
    let mut counts: BTreeMap<_, u32> = all.collect();
    for guard in guards {
        *counts.entry(guard_labels(guard)).or_default() += 1;
    }
    for ((kind, state), n) in counts {
        table::PROXY_GUARDS.gauge(&[("kind", kind), ("state", state)]).set(f64::from(n));
    }
}

fn guard_labels(guard: &Guard) -> (&'static str, &'static str) {
    let kind = match (guard.is_primary(), guard.confirmed_on()) {
        (true, _) => "primary",
        (false, Some(_)) => "confirmed",
        (false, None) => "sampled",
    };
    let state = match guard.reachable() {
        _ if !guard.is_filtered() => "barred",
        Reachable::Yes => "up",
        Reachable::Maybe => "untried",
        Reachable::No => "down",
    };
    (kind, state)
}

fn publish_circuits(tally: &CircuitTally, exporter: &Exporter) {
    table::PROXY_CIRCUITS_BUILT.counter(&[]).absolute(tally.built.get());
    table::PROXY_CIRCUITS_TRUNCATED.counter(&[]).absolute(tally.truncated.get());
    for (reason, n) in from_zero(&CircuitTally::REASONS, &tally.failed.get()) {
        table::PROXY_CIRCUITS_FAILED.counter(&[("reason", reason)]).absolute(n);
    }
    let (counts, sum) = tally.build_times.get();
    exporter.set_histogram(&table::PROXY_CIRCUIT_BUILD_SECONDS, &[], &counts, sum);
}

fn publish_streams(tally: &StreamTally) {
    table::PROXY_STREAMS_OPENED.counter(&[]).absolute(tally.opened.get());
    table::PROXY_STREAMS_RETRIED.counter(&[]).absolute(tally.retried.get());
    table::PROXY_STREAM_READ_BYTES.counter(&[]).absolute(tally.read_bytes.get());
    table::PROXY_STREAM_WRITTEN_BYTES.counter(&[]).absolute(tally.written_bytes.get());
    table::PROXY_LOOKUPS_ANSWERED.counter(&[]).absolute(tally.resolved.get());
    let reasons = Refusal::ALL.map(Refusal::label);
    for (reason, n) in from_zero(&reasons, &tally.refused.get()) {
        table::PROXY_STREAMS_REFUSED.counter(&[("reason", reason)]).absolute(n);
    }
    for (reason, n) in from_zero(&reasons, &tally.unresolved.get()) {
        table::PROXY_LOOKUPS_REFUSED.counter(&[("reason", reason)]).absolute(n);
    }
}

fn publish_directory(tally: &DirectoryTally) {
    table::PROXY_DIRECTORY_FETCHED.counter(&[]).absolute(tally.fetched.get());
    table::PROXY_DIRECTORY_READ_BYTES.counter(&[]).absolute(tally.read_bytes.get());
    for (reason, n) in from_zero(&DirectoryTally::REASONS, &tally.failed.get()) {
        table::PROXY_DIRECTORY_FAILED.counter(&[("reason", reason)]).absolute(n);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onionring_node::metrics::page::Page;
    use onionring_node::metrics::page_of;
    use onionring_proto::guard::Guards;
    use onionring_proto::state_file::StateFile;

    use super::*;
    use crate::control::Phase;
    use crate::tallies::Tallies;

    /// A page on which everything is set.
    fn page() -> String {
        let tallies = Tallies::default();
        tallies.circuits.built.add(3);
        tallies.circuits.failed.add(CircuitTally::TIMEOUT);
        tallies.circuits.build_times.record(Duration::from_millis(1500));
        tallies.streams.connected(&Ok(()));
        tallies.streams.connected::<()>(&Err(Refusal::NotAllowed));
        tallies.streams.answered::<()>(&Err(Refusal::NotFound));
        tallies.streams.read_bytes.add(514);
        tallies.directory.failed.add("unfit");
        let report = Report {
            phase: Phase::Descriptors,
            percent: 40,
            consensus: Some((Unix(100), Unix(400))),
            circuits: 5,
            streams: 6,
            ..Report::default()
        };
        let line = |n: u8, more: &str| format!("Guard in=default rsa_id={n:040} listed=1{more}\n");
        let used = " confirmed_on=2026-11-12T01:02:03 confirmed_idx=0";
        let state = StateFile::read(&(line(1, used) + &line(2, "") + &line(3, "")));
        let (guards, _) = Guards::read(&state, Unix(1));
        let exporter = Exporter::detached();
        let mut page = page_of(|| {
            table::PROXY_LINKS.gauge(&[]).set(1.0);
            publish_report(&report);
            publish_guards(guards.sample());
            publish_circuits(&tallies.circuits, &exporter);
            publish_streams(&tallies.streams);
            publish_directory(&tallies.directory);
        });
        page += &exporter.render();
        page
    }

    #[test]
    fn every_metric_of_proxies_is_set_and_explained() {
        let page = page();
        let of_proxies = table::ALL.iter().filter(|metric| metric.name.starts_with("onionring_proxy_"));
        let mut found = 0;
        for metric in of_proxies {
            assert!(page.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
            let sample = |line: &str| {
                let rest = line.strip_prefix(metric.name);
                rest.is_some_and(|rest| rest.starts_with([' ', '{']) || rest.starts_with("_bucket{"))
            };
            assert!(page.lines().any(sample), "{} has no value", metric.name);
            found += 1;
        }
        assert!(found > 20, "{found}");
    }

    #[test]
    fn figures_are_found_under_their_labels() {
        let page = page();
        let page = Page::parse(&page);
        for (name, labels, value) in [
            ("bootstrap_ratio", &[][..], 0.4),
            ("consensus_valid_until_timestamp_seconds", &[], 400.0),
            ("guards", &[("kind", "confirmed"), ("state", "barred")], 1.0),
            ("guards", &[("kind", "sampled"), ("state", "barred")], 2.0),
            ("guards", &[("kind", "primary")], 0.0),
            ("guards", &[], 3.0),
            ("circuits", &[], 5.0),
            ("streams", &[], 6.0),
            ("circuits_built_total", &[], 3.0),
            ("circuits_failed_total", &[("reason", "timeout")], 1.0),
            ("circuits_failed_total", &[("reason", "no_path")], 0.0),
            ("circuit_build_seconds_sum", &[], 1.5),
            ("circuit_build_seconds_bucket", &[("le", "1")], 0.0),
            ("circuit_build_seconds_bucket", &[("le", "2.5")], 1.0),
            ("streams_opened_total", &[], 1.0),
            ("streams_refused_total", &[("reason", "not_allowed")], 1.0),
            ("streams_refused_total", &[], 1.0),
            ("lookups_refused_total", &[("reason", "not_found")], 1.0),
            ("stream_read_bytes_total", &[], 514.0),
            ("directory_requests_failed_total", &[("reason", "unfit")], 1.0),
        ] {
            assert_eq!(page.sum(&format!("onionring_proxy_{name}"), labels), value, "{name} {labels:?}");
        }
    }
}
