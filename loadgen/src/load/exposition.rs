//! Results as Prometheus metrics, for the textfile collector of its node exporter: so results of different days and
//! machines are on one dashboard.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::report::{MEASURES, Measure, Report};

/// Name and meaning of the metric that says when a report was made.
const MEASURED: (&str, &str) =
    ("onionring_loadgen_measured_timestamp_seconds", "When the measurement ended.");

impl Measure {
    /// The name of its metric, and what a value is to be divided by: metrics are in base units.
    pub fn metric(&self) -> (String, f64) {
        match self.name.strip_prefix("cpu_ns_per_") {
            Some(what) => (format!("onionring_loadgen_cpu_seconds_per_{what}"), 1e9),
            None => (format!("onionring_loadgen_{}", self.name), 1.0),
        }
    }
}

/// The medians of all measures in the Prometheus text format, by scenario and by kind of relay. Of a measurement that
/// failed before its first repetition there is none.
pub fn exposition(reports: &[&Report]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let labels = |report: &Report| {
        let kind = report.subject.kind.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{{scenario=\"{}\",kind=\"{kind}\"}}", report.settings.scenario.word())
    };
    let measured = reports.iter().filter(|report| !report.summary.is_empty());
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        if !samples.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
    };
    family(MEASURED.0, MEASURED.1, measured.map(|report| (labels(report), now as f64)).collect());
    for measure in MEASURES {
        let (name, scale) = measure.metric();
        let median =
            |report: &&Report| Some((labels(report), report.summary.get(measure.name)?.median / scale));
        let help = format!("Median of the repetitions: {}.", measure.label);
        family(&name, &help, reports.iter().filter_map(median).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::{Repetition, Scenario, Settings, SubjectInfo};

    fn report(kind: &str, measures: &[(&str, f64)]) -> Report {
        let subject = SubjectInfo {
            kind: kind.into(),
            address: "127.0.0.1:1".parse().unwrap(),
            fingerprint: String::new(),
            ed25519: String::new(),
            platform: None,
            pid: None,
        };
        let mut report = Report::new(Settings::new(Scenario::Bulk), subject);
        let measures: BTreeMap<_, _> = measures.iter().map(|(name, v)| ((*name).to_owned(), *v)).collect();
        report.repetitions.push(Repetition { seconds: 1.0, measures, loadgen_at_limit: false });
        report.finish(None)
    }

    #[test]
    fn medians_in_base_units_by_scenario_and_kind() {
        let ours = report("onionring", &[("cpu_ns_per_cell", 500.0), ("late_ratio", 0.5)]);
        let text = exposition(&[&ours, &report("a\"b", &[("cpu_ns_per_cell", 1000.0)])]);
        let expected = "# HELP onionring_loadgen_cpu_seconds_per_cell Median of the repetitions: CPU per cell.\n\
            # TYPE onionring_loadgen_cpu_seconds_per_cell gauge\n\
            onionring_loadgen_cpu_seconds_per_cell{scenario=\"bulk\",kind=\"onionring\"} 0.0000005\n\
            onionring_loadgen_cpu_seconds_per_cell{scenario=\"bulk\",kind=\"a\\\"b\"} 0.000001\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("onionring_loadgen_late_ratio{scenario=\"bulk\",kind=\"onionring\"} 0.5\n"));
        assert_eq!(exposition(&[]), "");
    }
}
