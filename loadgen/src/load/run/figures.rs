//! From what was counted between two edges to the figures of a repetition.

use std::collections::BTreeMap;
use std::time::Instant;

use onionring_proto::relay_msg::MAX_DATA_LEN;

use crate::load::board::{Count, Counts};
use crate::load::error::{LoadError, own};
use crate::load::gauge::Reading;
use crate::load::latencies::{Latencies, Timed};
use crate::load::report::Repetition;
use crate::load::settings::Scenario;
use crate::load::subject::Subject;
use crate::load::syscalls::Syscalls;

const MIB: f64 = 1_048_576.0;
const GIB: f64 = MIB * 1024.0;
/// A lane whose thread runs for more than this share of the time is at its limit.
const LANE_BUSY: f64 = 0.9;

/// Everything that is known at one moment.
pub(super) struct Edge {
    at: Instant,
    pub(super) counts: Counts,
    per_lane: Vec<Counts>,
    reading: Option<Reading>,
    syscalls: Option<u64>,
    /// Of the epoch that ended at this moment.
    latencies: Latencies,
}

impl Edge {
    /// Reads the relay's process; latencies are to be added.
    pub(super) fn of(
        subject: &Subject,
        syscalls: Option<&mut Syscalls>,
        per_lane: Vec<Counts>,
    ) -> Result<Edge, LoadError> {
        let at = Instant::now();
        let reading = subject.gauge.as_ref().map(|gauge| gauge.read()).transpose()?;
        let syscalls =
            syscalls.map(Syscalls::read).transpose().map_err(own("reading counters of system calls"))?;
        let (counts, latencies) = (Counts::sum(&per_lane), Latencies::new());
        Ok(Edge { at, counts, per_lane, reading, syscalls, latencies })
    }

    pub(super) fn add(&mut self, latencies: &Latencies) {
        self.latencies.add(latencies);
    }
}

#[derive(Default)]
struct Measures(BTreeMap<String, f64>);

impl Measures {
    /// A figure that cannot be computed, for want of what it is divided by, is left out.
    fn put(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// Some quantiles of what was timed, and the longest if that is a measure.
    fn quantiles(&mut self, name: &str, edge: &Edge, timed: Timed, wanted: &[&str]) {
        let histogram = edge.latencies.of(timed);
        if histogram.is_empty() {
            return;
        }
        for quantile in wanted {
            let value = match *quantile {
                "p50" => histogram.value_at_quantile(0.5),
                "p90" => histogram.value_at_quantile(0.9),
                "p99" => histogram.value_at_quantile(0.99),
                "p999" => histogram.value_at_quantile(0.999),
                _ => histogram.max(),
            };
            self.put(&format!("{name}_{quantile}_seconds"), value as f64 / 1e9);
        }
    }
}

const ALL: &[&str] = &["p50", "p90", "p99", "p999", "max"];
const TWO: &[&str] = &["p50", "p99"];

/// The figures between two edges.
pub(super) fn repetition(scenario: Scenario, before: &Edge, after: &Edge) -> Repetition {
    let seconds = (after.at - before.at).as_secs_f64();
    let counts = after.counts.since(&before.counts);
    let count = |which| counts.get(which) as f64;
    let used = before.reading.zip(after.reading);
    // Without the relay's process, what is divided by its CPU time is left out.
    let cpu = used.map_or(f64::NAN, |(before, after)| (after.cpu_ns - before.cpu_ns) as f64 / 1e9);
    // The same where they are not counted.
    let syscalls = before.syscalls.zip(after.syscalls);
    let syscalls = syscalls.map_or(f64::NAN, |(before, after)| after.saturating_sub(before) as f64);
    let mut m = Measures::default();
    match scenario {
        Scenario::Handshake => {
            let (answered, refused) = (count(Count::Handshakes), count(Count::Refused));
            m.put("handshakes_per_second", answered / seconds);
            m.put("handshakes_per_cpu_second", answered / cpu);
            m.put("refused_ratio", refused / (answered + refused));
        }
        Scenario::Connect => {
            m.put("links_per_second", count(Count::Connects) / seconds);
            m.put("links_per_cpu_second", count(Count::Connects) / cpu);
        }
        Scenario::Interactive => probes(&mut m, after, &counts, seconds),
        Scenario::Exit => streams(&mut m, after, &counts, seconds, [cpu, syscalls]),
        Scenario::Flood => flood(&mut m, after, &counts, seconds),
        Scenario::Bulk | Scenario::Idle | Scenario::Paper2004 => {}
    }
    let cells = count(Count::Cells);
    if matches!(scenario, Scenario::Bulk | Scenario::Flood) || cells > 0.0 {
        let bytes = cells * MAX_DATA_LEN as f64;
        m.put("goodput_bytes_per_second", bytes / seconds);
        m.put("cells_per_second", cells / seconds);
        m.put("verified_cells", count(Count::Verified));
        m.put("cpu_seconds_per_gib", cpu / (bytes / GIB));
        m.put("cpu_ns_per_cell", cpu * 1e9 / cells);
        m.put("syscalls_per_mib", syscalls / (bytes / MIB));
        m.quantiles("bulk_latency", after, Timed::Bulk, ALL);
    }
    if !after.latencies.of(Timed::Bulk).is_empty() {
        let meant = cells + count(Count::BulkMissed);
        m.put("bulk_missed_ratio", count(Count::BulkMissed) / meant);
        m.put("bulk_late_ratio", count(Count::BulkLate) / meant);
    }
    m.put("cpu_cores", cpu / seconds);
    if let Some((before, after)) = used {
        m.put("rss_bytes", after.rss_bytes as f64);
        let switches = after.context_switches.saturating_sub(before.context_switches);
        m.put("context_switches_per_second", switches as f64 / seconds);
    }
    m.put("syscalls_per_second", syscalls / seconds);
    m.put("loadgen_cpu_cores", count(Count::CpuNs) / 1e9 / seconds);
    let busy = |(before, after): (&Counts, &Counts)| {
        after.since(before).get(Count::CpuNs) as f64 / 1e9 / seconds > LANE_BUSY
    };
    let loadgen_at_limit = before.per_lane.iter().zip(&after.per_lane).any(busy);
    Repetition { seconds, measures: m.0, loadgen_at_limit }
}

fn probes(m: &mut Measures, after: &Edge, counts: &Counts, seconds: f64) {
    let count = |which| counts.get(which) as f64;
    let (echoes, missed) = (count(Count::Echoes), count(Count::Missed));
    m.put("probes_per_second", echoes / seconds);
    m.put("missed_ratio", missed / (echoes + missed));
    m.put("late_ratio", count(Count::Late) / (echoes + missed));
    m.quantiles("latency", after, Timed::Probe, ALL);
}

fn streams(m: &mut Measures, after: &Edge, counts: &Counts, seconds: f64, [cpu, syscalls]: [f64; 2]) {
    let bytes = counts.get(Count::Bytes) as f64;
    m.put("goodput_bytes_per_second", bytes / seconds);
    m.put("cpu_seconds_per_gib", cpu / (bytes / GIB));
    m.put("syscalls_per_mib", syscalls / (bytes / MIB));
    m.put("transfers_per_second", counts.get(Count::Transfers) as f64 / seconds);
    m.quantiles("time_to_first_byte", after, Timed::FirstByte, TWO);
    m.quantiles("time_to_last_byte", after, Timed::LastByte, TWO);
}

fn flood(m: &mut Measures, after: &Edge, counts: &Counts, seconds: f64) {
    let count = |which| counts.get(which) as f64;
    let (answered, refused) = (count(Count::Handshakes), count(Count::Refused));
    m.put("create_success_ratio", answered / (answered + refused));
    m.quantiles("create_latency", after, Timed::Create, TWO);
    m.put("junk_per_second", count(Count::Junk) / seconds);
    m.put("junk_answered_per_second", count(Count::JunkAnswered) / seconds);
    m.put("junk_refused_per_second", count(Count::JunkRefused) / seconds);
    m.put("junk_links_lost_per_second", count(Count::JunkLinksLost) / seconds);
}

/// Adds what was there without the flood: `quiet` lies before the repetition.
pub(super) fn lost_to_flood(flooded: &mut Repetition, quiet: &Repetition) {
    let get = |of: &Repetition, name: &str| of.measures.get(name).copied().unwrap_or(f64::NAN);
    let name = "goodput_bytes_per_second";
    let (before, with) = (get(quiet, name), get(flooded, name));
    let mut m = Measures(std::mem::take(&mut flooded.measures));
    m.put("goodput_quiet_bytes_per_second", before);
    m.put("goodput_lost_ratio", 1.0 - with / before);
    for q in TWO {
        m.put(&format!("bulk_quiet_latency_{q}_seconds"), get(quiet, &format!("bulk_latency_{q}_seconds")));
    }
    flooded.measures = m.0;
    flooded.loadgen_at_limit |= quiet.loadgen_at_limit;
}

/// Memory before anything, with links, and with links and circuits.
pub(super) fn idle(before: &Edge, links: &Edge, circuits: &Edge) -> Repetition {
    let rss = |edge: &Edge| edge.reading.map_or(f64::NAN, |r| r.rss_bytes as f64);
    let count = |which| circuits.counts.get(which) as f64;
    let mut m = Measures::default();
    m.put("rss_bytes_per_1000_links", (rss(links) - rss(before)) / count(Count::Links) * 1_000.0);
    m.put("rss_bytes_per_10000_circuits", (rss(circuits) - rss(links)) / count(Count::Circuits) * 10_000.0);
    m.put("rss_bytes", rss(circuits));
    let seconds = (circuits.at - before.at).as_secs_f64();
    Repetition { seconds, measures: m.0, loadgen_at_limit: false }
}
