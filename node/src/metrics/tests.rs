use super::*;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn names_follow_the_rules() {
    let mut names = BTreeSet::new();
    for metric in table::ALL {
        let name = metric.name;
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("onionring_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert!(
            !["_bits", "_ms", "_milliseconds", "_percent", "_kb"].iter().any(|u| name.contains(u)),
            "{name}"
        );
        if let Kind::Histogram(bounds) = metric.kind {
            assert!(name.ends_with("_seconds") && !bounds.is_empty() && bounds.is_sorted(), "{name}");
        }
        if metric.kind == Kind::Gauge && name.contains("timestamp") {
            assert!(name.ends_with("_timestamp_seconds"), "{name}");
        }
        assert!(
            metric.help.ends_with('.') && metric.help.len() > 10 && !metric.help.contains('\n'),
            "{name}"
        );
        for label in metric.labels {
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}: {label}");
            assert!(!["le", "quantile", "peer", "address", "host"].contains(label), "{name}: {label}");
        }
    }
}

#[test]
fn every_metric_renders_with_its_help_and_type() {
    let (recorder, exporter) = recorder();
    metrics::with_local_recorder(&recorder, || {
        // The process's figures are in the page already.
        for metric in table::ALL.iter().filter(|m| !m.name.starts_with("process_")) {
            let labels: Vec<_> = metric.labels.iter().map(|&label| (label, "0")).collect();
            match metric.kind {
                Kind::Counter => metric.counter(&labels).increment(1),
                Kind::Gauge => metric.gauge(&labels).set(1.0),
                Kind::Histogram(_) => metric.histogram(&labels).record(0.02),
            }
        }
    });
    exporter.upkeep();
    let page = exporter.render();
    for metric in table::ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let name = metric.name;
        assert!(page.contains(&format!("# HELP {name} {}\n", metric.help)), "{name}");
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
    }
    assert_eq!(lint(&page), Vec::<String>::new());
    assert_eq!(lint(&exporter.render_ctor()), Vec::<String>::new());
}

#[test]
fn what_never_happened_is_counted_as_never() {
    let counted = BTreeMap::from([("idle", 3), ("rare", 1)]);
    let expected = BTreeMap::from([("idle", 3), ("rare", 1), ("overrun", 0)]);
    assert_eq!(from_zero(&["idle", "overrun"], &counted), expected);
}

/// What a Prometheus server would stumble over in a page.
fn lint(page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut typed, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap_or_default();
            if !typed.insert(name) {
                faults.push(format!("type given twice: {line}"));
            }
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else {
            faults.push(format!("no value: {line}"));
            continue;
        };
        let name = series.split('{').next().unwrap_or_default();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
        if !typed.contains(name) && !typed.contains(family) {
            faults.push(format!("no type before: {line}"));
        }
        if value.parse::<f64>().is_err() {
            faults.push(format!("not a number: {line}"));
        }
        if !seen.insert(series) {
            faults.push(format!("series twice: {line}"));
        }
    }
    faults
}
