//! What a measurement found. `docs/loadgen.schema.json` describes the JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::error::LoadError;
use super::settings::{Scenario, Settings};
use super::subject::SubjectInfo;

/// A kind of figure. Names carry their unit.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name in JSON and CSV.
    pub name: &'static str,
    /// In a table for people.
    pub label: &'static str,
    /// What one unit in that table is, and its name.
    pub unit: (f64, &'static str),
    /// Whether less is better; `None` if neither is.
    pub less_is_better: Option<bool>,
}

const MIB: f64 = 1_048_576.0;
/// Shares of bulk cells, missed and late, from which on the reader is told.
const MISSED_NOTED: f64 = 0.005;
const LATE_NOTED: f64 = 0.02;

const fn measure(
    name: &'static str,
    label: &'static str,
    unit: (f64, &'static str),
    less_is_better: Option<bool>,
) -> Measure {
    Measure { name, label, unit, less_is_better }
}

/// All measures, in the order of tables. "CPU" is the relay's, all its threads together.
pub const MEASURES: &[Measure] = &[
    measure("goodput_bytes_per_second", "goodput", (MIB, "MiB/s"), Some(false)),
    measure("cells_per_second", "cells", (1.0, "/s"), Some(false)),
    measure("cpu_seconds_per_gib", "CPU per GiB", (1.0, "s"), Some(true)),
    measure("cpu_ns_per_cell", "CPU per cell", (1.0, "ns"), Some(true)),
    measure("syscalls_per_mib", "system calls per MiB", (1.0, ""), Some(true)),
    measure("bulk_latency_p50_seconds", "bulk latency p50", (1e-3, "ms"), Some(true)),
    measure("bulk_latency_p90_seconds", "bulk latency p90", (1e-3, "ms"), Some(true)),
    measure("bulk_latency_p99_seconds", "bulk latency p99", (1e-3, "ms"), Some(true)),
    measure("bulk_latency_p999_seconds", "bulk latency p99.9", (1e-3, "ms"), Some(true)),
    measure("bulk_latency_max_seconds", "bulk latency max", (1e-3, "ms"), Some(true)),
    measure("bulk_missed_ratio", "bulk cells missed", (0.01, "%"), Some(true)),
    measure("bulk_late_ratio", "bulk cells sent late", (0.01, "%"), None),
    measure("goodput_quiet_bytes_per_second", "goodput without flood", (MIB, "MiB/s"), Some(false)),
    measure("goodput_lost_ratio", "goodput lost to it", (0.01, "%"), Some(true)),
    measure("bulk_quiet_latency_p50_seconds", "bulk latency without, p50", (1e-3, "ms"), Some(true)),
    measure("bulk_quiet_latency_p99_seconds", "bulk latency without, p99", (1e-3, "ms"), Some(true)),
    measure("create_success_ratio", "honest CREATE2 answered", (0.01, "%"), Some(false)),
    measure("create_latency_p50_seconds", "honest CREATE2 p50", (1e-3, "ms"), Some(true)),
    measure("create_latency_p99_seconds", "honest CREATE2 p99", (1e-3, "ms"), Some(true)),
    measure("junk_per_second", "junk CREATE2 sent", (1.0, "/s"), None),
    measure("junk_answered_per_second", "junk CREATE2 answered", (1.0, "/s"), None),
    measure("junk_refused_per_second", "junk CREATE2 refused", (1.0, "/s"), None),
    measure("junk_links_lost_per_second", "links of it closed", (1.0, "/s"), None),
    measure("transfers_per_second", "streams carried", (1.0, "/s"), Some(false)),
    measure("time_to_first_byte_p50_seconds", "first byte p50", (1e-3, "ms"), Some(true)),
    measure("time_to_first_byte_p99_seconds", "first byte p99", (1e-3, "ms"), Some(true)),
    measure("time_to_last_byte_p50_seconds", "last byte p50", (1e-3, "ms"), Some(true)),
    measure("time_to_last_byte_p99_seconds", "last byte p99", (1e-3, "ms"), Some(true)),
    measure("file_mean_seconds", "60 MB over four relays", (1.0, "s"), Some(true)),
    measure("file_direct_mean_seconds", "60 MB directly", (1.0, "s"), None),
    measure("file_over_direct_ratio", "over directly", (1.0, ""), Some(true)),
    measure("page_min_seconds", "55 KB page, best", (1e-3, "ms"), Some(true)),
    measure("page_median_seconds", "55 KB page, median", (1e-3, "ms"), Some(true)),
    measure("page_p80_seconds", "55 KB page, 80 % within", (1e-3, "ms"), Some(true)),
    measure("page_direct_median_seconds", "page directly, median", (1e-3, "ms"), None),
    measure("probes_per_second", "probes answered", (1.0, "/s"), None),
    measure("latency_p50_seconds", "latency p50", (1e-3, "ms"), Some(true)),
    measure("latency_p90_seconds", "latency p90", (1e-3, "ms"), Some(true)),
    measure("latency_p99_seconds", "latency p99", (1e-3, "ms"), Some(true)),
    measure("latency_p999_seconds", "latency p99.9", (1e-3, "ms"), Some(true)),
    measure("latency_max_seconds", "latency max", (1e-3, "ms"), Some(true)),
    measure("missed_ratio", "probes missed", (0.01, "%"), Some(true)),
    measure("late_ratio", "probes sent late", (0.01, "%"), None),
    measure("handshakes_per_second", "handshakes", (1.0, "/s"), Some(false)),
    measure("handshakes_per_cpu_second", "handshakes per CPU second", (1.0, ""), Some(false)),
    measure("refused_ratio", "handshakes refused", (0.01, "%"), Some(true)),
    measure("links_per_second", "links opened", (1.0, "/s"), Some(false)),
    measure("links_per_cpu_second", "links per CPU second", (1.0, ""), Some(false)),
    measure("rss_bytes_per_1000_links", "memory per 1,000 links", (MIB, "MiB"), Some(true)),
    measure("rss_bytes_per_10000_circuits", "memory per 10,000 circuits", (MIB, "MiB"), Some(true)),
    measure("cpu_cores", "CPU used", (1.0, "cores"), None),
    measure("rss_bytes", "memory", (MIB, "MiB"), Some(true)),
    measure("context_switches_per_second", "context switches", (1.0, "/s"), None),
    measure("syscalls_per_second", "system calls", (1.0, "/s"), None),
    measure("verified_cells", "cells verified", (1.0, ""), None),
    measure("loadgen_cpu_cores", "loadgen's own CPU", (1.0, "cores"), None),
];

/// The measures by which implementations are compared in a scenario, the main one first.
pub fn headline(scenario: Scenario) -> &'static [&'static str] {
    match scenario {
        Scenario::Bulk => &["cpu_seconds_per_gib", "goodput_bytes_per_second", "bulk_latency_p99_seconds"],
        Scenario::Interactive => &["latency_p99_seconds", "latency_p50_seconds"],
        Scenario::Exit => {
            &["cpu_seconds_per_gib", "goodput_bytes_per_second", "time_to_first_byte_p50_seconds"]
        }
        Scenario::Flood => &["goodput_lost_ratio", "bulk_latency_p99_seconds", "create_success_ratio"],
        Scenario::Paper2004 => &["file_over_direct_ratio", "file_mean_seconds", "page_median_seconds"],
        Scenario::Handshake => &["handshakes_per_cpu_second", "handshakes_per_second"],
        Scenario::Connect => &["links_per_cpu_second", "links_per_second"],
        Scenario::Idle => &["rss_bytes_per_10000_circuits", "rss_bytes_per_1000_links"],
    }
}

/// Why a measurement ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// A short stable name, such as `unreachable` or `stalled`.
    pub kind: String,
    /// The same in a sentence.
    pub message: String,
}

impl From<&LoadError> for Failure {
    fn from(error: &LoadError) -> Failure {
        Failure { kind: error.label().to_owned(), message: error.to_string() }
    }
}

/// One repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repetition {
    /// How long it really was.
    pub seconds: f64,
    /// Figures by the names of [`MEASURES`].
    pub measures: BTreeMap<String, f64>,
    /// Whether a thread of loadgen was so busy that it may have held up the relay.
    pub loadgen_at_limit: bool,
}

/// A figure over all repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of figures; `None` if there are none.
    pub fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let half = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { figures[half] } else { (figures[half - 1] + figures[half]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

/// A measurement of one relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What was measured, and how.
    pub settings: Settings,
    /// The relay.
    pub subject: SubjectInfo,
    /// Whether all repetitions were made.
    pub complete: bool,
    /// Why not.
    pub failure: Option<Failure>,
    /// Repetitions that were made in full.
    pub repetitions: Vec<Repetition>,
    /// Their medians and ranges.
    pub summary: BTreeMap<String, Spread>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn new(settings: Settings, subject: SubjectInfo) -> Report {
        Report {
            settings,
            subject,
            complete: false,
            failure: None,
            repetitions: Vec::new(),
            summary: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Sums up.
    pub(super) fn finish(mut self, failure: Option<Failure>) -> Report {
        for measure in MEASURES {
            let figures = self.repetitions.iter().filter_map(|r| r.measures.get(measure.name).copied());
            if let Some(spread) = Spread::of(figures.collect()) {
                self.summary.insert(measure.name.to_owned(), spread);
            }
        }
        if self.repetitions.iter().any(|r| r.loadgen_at_limit) {
            let note = match self.settings.scenario {
                Scenario::Flood => {
                    "loadgen itself was at its limit: the flood may be less than the links would take"
                }
                _ => {
                    "loadgen itself was at its limit: the relay may be capable of more per second than this (the \
                     figures per CPU time hold); use more --threads"
                }
            };
            self.notes.push(note.to_owned());
        }
        let missed = self.summary.get("bulk_missed_ratio").map_or(0.0, |missed| missed.max);
        if missed > MISSED_NOTED && self.settings.scenario != Scenario::Flood {
            let note = format!(
                "{:.1} % of the bulk could not be sent: the relay does not carry this rate",
                missed * 1e2
            );
            self.notes.push(note);
        }
        if self.summary.get("bulk_late_ratio").is_some_and(|late| late.max > LATE_NOTED) {
            let note = "loadgen itself sent some of the bulk late: latencies hold less; use more --threads or less --rate";
            self.notes.push(note.to_owned());
        }
        self.complete = failure.is_none();
        self.failure = failure;
        self
    }

    /// A table for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let SubjectInfo { kind, address, fingerprint, platform, .. } = &self.subject;
        let platform = platform.as_deref().unwrap_or("unknown version");
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "{}\n{kind} at {address} ({platform}), {fingerprint}", self.settings.describe());
        if !self.summary.is_empty() {
            let _ = writeln!(text, "\n{:<28} {:>12} {:>12} {:>12}", "", "MEDIAN", "LEAST", "MOST");
        }
        for measure in MEASURES {
            let Some(spread) = self.summary.get(measure.name) else { continue };
            let [median, min, max] =
                [spread.median, spread.min, spread.max].map(|v| plain(v / measure.unit.0));
            let (label, unit) = (measure.label, measure.unit.1);
            let _ = writeln!(text, "{label:<28} {median:>12} {min:>12} {max:>12} {unit}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        if let Some(failure) = &self.failure {
            let (done, all) = (self.repetitions.len(), self.settings.repetitions);
            let _ = writeln!(text, "INCOMPLETE after {done} of {all} repetitions: {}", failure.message);
        }
        text
    }

    /// The head of CSV.
    pub const CSV_HEAD: &str = "scenario,kind,links,rate,repetition,complete,measure,value\n";

    /// CSV without its head: one line for each figure. The rate is empty for a closed loop.
    pub fn csv_lines(&self) -> String {
        let mut text = String::new();
        let (scenario, kind, complete) = (self.settings.scenario.word(), &self.subject.kind, self.complete);
        let links = self.settings.links;
        let rate = self.settings.offered().map_or_else(String::new, |rate| rate.to_string());
        for (repetition, n) in self.repetitions.iter().zip(1..) {
            for (name, value) in &repetition.measures {
                let _ = writeln!(text, "{scenario},{kind},{links},{rate},{n},{complete},{name},{value}");
            }
        }
        text
    }
}

/// A figure with about three digits that matter.
pub fn plain(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]).unwrap().median, 2.5);
    }

    #[test]
    fn headlines_are_measures() {
        for scenario in <Scenario as clap::ValueEnum>::value_variants() {
            for name in headline(*scenario) {
                assert!(MEASURES.iter().any(|m| m.name == *name && m.less_is_better.is_some()), "{name}");
            }
        }
    }
}
