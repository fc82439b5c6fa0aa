//! Figures that somebody else counts and the recorder cannot hold: counters with a fraction, and histograms whose samples
//! are not told one by one. They are shown as they were last set.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::{Kind, Metric};

/// By the metric's name.
#[derive(Default)]
pub(super) struct Figures(Mutex<BTreeMap<&'static str, Family>>);

struct Family {
    metric: Metric,
    /// By the text between the braces.
    series: BTreeMap<String, Figure>,
}

enum Figure {
    Total(f64),
    /// Samples in each bucket (the last one has no bound), and the sum of all samples.
    Histogram(Vec<u64>, f64),
}

impl Figures {
    pub(super) fn set_total(&self, metric: &Metric, labels: &[(&'static str, &str)], value: f64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.set(metric, labels, Figure::Total(value));
    }

    pub(super) fn set_histogram(
        &self,
        metric: &Metric,
        labels: &[(&'static str, &str)],
        counts: &[u64],
        sum: f64,
    ) {
        debug_assert!(
            matches!(metric.kind, Kind::Histogram(bounds) if bounds.len() + 1 == counts.len()),
            "{}",
            metric.name
        );
        self.set(metric, labels, Figure::Histogram(counts.to_vec(), sum));
    }

    fn set(&self, metric: &Metric, labels: &[(&'static str, &str)], figure: Figure) {
        debug_assert!(labels.iter().map(|(name, _)| name).eq(metric.labels), "labels of {}", metric.name);
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let mut figures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = || Family { metric: *metric, series: BTreeMap::new() };
        figures.entry(metric.name).or_insert_with(empty).series.insert(labels.join(","), figure);
    }

    /// Appends them in the Prometheus text format.
    pub(super) fn write(&self, page: &mut String) {
        let figures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Family { metric: Metric { name, kind, help, .. }, series } in figures.values() {
            let word = if let Kind::Histogram(_) = kind { "histogram" } else { "counter" };
            // Writing to a string cannot fail.
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {word}");
            for (labels, figure) in series {
                match figure {
                    Figure::Total(value) => write_sample(page, name, labels, *value),
                    Figure::Histogram(counts, sum) => {
                        write_histogram(page, name, *kind, labels, counts, *sum)
                    }
                }
            }
            page.push('\n');
        }
    }
}

fn write_histogram(page: &mut String, name: &str, kind: Kind, labels: &str, counts: &[u64], sum: f64) {
    let Kind::Histogram(bounds) = kind else { return };
    let mut total = 0;
    for (count, bound) in counts.iter().zip(bounds.iter().chain([&f64::INFINITY])) {
        total += count;
        let comma = if labels.is_empty() { "" } else { "," };
        let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
        write_sample(
            page,
            &format!("{name}_bucket"),
            &format!("{labels}{comma}le=\"{bound}\""),
            total as f64,
        );
    }
    write_sample(page, &format!("{name}_sum"), labels, sum);
    write_sample(page, &format!("{name}_count"), labels, total as f64);
}

fn write_sample(page: &mut String, name: &str, labels: &str, value: f64) {
    let _ = match labels {
        "" => writeln!(page, "{name} {value}"),
        _ => writeln!(page, "{name}{{{labels}}} {value}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Metric =
        Metric { name: "x_seconds", kind: Kind::Histogram(&[0.5, 1.0]), labels: &["shard"], help: "X." };
    const TOTAL: Metric = Metric { name: "y_total", kind: Kind::Counter, labels: &[], help: "Y." };

    #[test]
    fn buckets_add_up_and_fractions_stay() {
        let figures = Figures::default();
        figures.set_total(&TOTAL, &[], 1.0);
        figures.set_total(&TOTAL, &[], 1.25);
        figures.set_histogram(&SECONDS, &[("shard", "0")], &[3, 0, 2], 4.5);
        let mut page = String::new();
        figures.write(&mut page);
        let expected = "# HELP x_seconds X.\n# TYPE x_seconds histogram\n\
                        x_seconds_bucket{shard=\"0\",le=\"0.5\"} 3\nx_seconds_bucket{shard=\"0\",le=\"1\"} 3\n\
                        x_seconds_bucket{shard=\"0\",le=\"+Inf\"} 5\nx_seconds_sum{shard=\"0\"} 4.5\n\
                        x_seconds_count{shard=\"0\"} 5\n\n\
                        # HELP y_total Y.\n# TYPE y_total counter\ny_total 1.25\n\n";
        assert_eq!(page, expected);
    }
}
