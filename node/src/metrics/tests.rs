use super::*;
use std::collections::BTreeSet;

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

/// The files in `dashboards/`, by name.
fn dashboard_files() -> Vec<(String, String)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Words of a file that look like our metrics. Recording rules have colons in their names and are no metrics.
fn metrics_named_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| !word.contains(':'))
        .filter(|word| word.starts_with("onionring_") || word.starts_with("process_"))
        .collect()
}

fn is_in_table(word: &str) -> bool {
    table::ALL.iter().any(|metric| match metric.kind {
        Kind::Histogram(_) => {
            word.strip_prefix(metric.name).is_some_and(|s| ["_bucket", "_sum", "_count"].contains(&s))
        }
        _ => word == metric.name,
    })
}

#[test]
fn dashboards_and_alerts_name_only_metrics_that_exist() {
    let files = dashboard_files();
    assert!(files.len() >= 4, "dashboard, scrape configuration, rules and alerts");
    for (file, text) in &files {
        let unknown: Vec<_> = metrics_named_in(text).into_iter().filter(|word| !is_in_table(word)).collect();
        assert_eq!(unknown, [""; 0], "in {file}");
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_keeps_to_the_conventions() {
    let files = dashboard_files();
    let (_, text) = files.iter().find(|(name, _)| name == "relay.json").unwrap();
    let named = metrics_named_in(text);
    let missing: Vec<_> = table::ALL
        .iter()
        .filter(|metric| !named.iter().any(|word| word.starts_with(metric.name)))
        .map(|metric| metric.name)
        .collect();
    assert_eq!(missing, [""; 0]);

    let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
    let names = |list: &serde_json::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&dashboard["templating"]["list"]), ["datasource", "job", "instance"]);
    assert_eq!((&dashboard["refresh"], &dashboard["time"]["from"]), (&"1m".into(), &"now-24h".into()));
    let rows: Vec<_> =
        dashboard["panels"].as_array().unwrap().iter().filter(|p| p["type"] == "row").collect();
    assert!(
        rows.iter().skip(2).all(|row| row["collapsed"] == true),
        "first statistics, then traffic, then by topic"
    );
    assert!(!text.contains("[5m]") && text.contains("[$__rate_interval]"));
}

#[test]
fn alerts_use_only_recording_rules_that_exist() {
    let files = dashboard_files();
    let text = |wanted: &str| &files.iter().find(|(name, _)| name == wanted).unwrap().1;
    let rules: BTreeSet<&str> =
        text("rules.yml").lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let used: BTreeSet<&str> = text("alerts.yml")
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.starts_with("onionring:"))
        .collect();
    assert!(!used.is_empty() && used.is_subset(&rules), "{used:?} of {rules:?}");
}
