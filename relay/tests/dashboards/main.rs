//! What `dashboards/` holds: that it is what the descriptions here say (`topics`, `authority`, `proxy`), names only metrics that exist, shows
//! all of them in units that fit, and keeps to the conventions. That every query has an answer, a real Prometheus says
//! in `network::operators`.
//!
//! After a change of `topics`, `UPDATE_DOCS=1 cargo test --workspace --test dashboards` writes the JSON.

#[macro_use]
mod grafana;
mod authority;
mod proxy;
mod topics;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::{env, fs, thread};

use onionring_loadgen::load::MEASURES;
use onionring_node::atomic_file;
use onionring_node::metrics::{Kind, table};
use serde_json::Value;

/// Files of alerts: for operators of relays, of authorities, and for people who run proxies.
const ALERTS: [&str; 3] = ["alerts.yml", "authority-alerts.yml", "proxy-alerts.yml"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn read(file: &str) -> String {
    update();
    let path = directory().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes the JSON if that is wanted, before anything of it is read here.
fn update() {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(|| {
        if env::var_os("UPDATE_DOCS").is_some() {
            for dashboard in topics::ALL {
                let text = serde_json::to_string_pretty(&dashboard.json()).unwrap();
                replace(&directory().join(dashboard.file), &(text + "\n"));
            }
        }
    });
}

/// Other programs may read the file meanwhile: they find the old text or the new one.
fn replace(path: &Path, text: &str) {
    atomic_file::write(path, text.as_bytes(), 0o644).unwrap();
}

#[test]
fn whoever_reads_a_file_that_is_replaced_finds_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dashboard.json");
    let texts = ["old\n", "new\n"].map(|line| line.repeat(100_000));
    replace(&path, &texts[0]);
    thread::scope(|scope| {
        let writer = scope.spawn(|| texts.iter().cycle().take(100).for_each(|text| replace(&path, text)));
        while !writer.is_finished() {
            let found = fs::read_to_string(&path).unwrap();
            assert!(texts.contains(&found), "{} bytes", found.len());
        }
    });
}

#[test]
fn files_are_what_the_descriptions_say() {
    for dashboard in topics::ALL {
        let committed: Value = serde_json::from_str(&read(dashboard.file)).unwrap();
        assert!(committed == dashboard.json(), "{} is out of date (see above)", dashboard.file);
    }
    let files: BTreeSet<_> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = topics::ALL.iter().map(|dashboard| dashboard.file.to_owned());
    let expected: BTreeSet<_> = expected
        .chain(["prometheus.yml", "rules.yml"].into_iter().chain(ALERTS).map(str::to_owned))
        .collect();
    assert_eq!(files, expected);
}

/// Words of a text that may be names of metrics or of recording rules.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
}

/// Those that look like our metrics. Recording rules have colons in their names and are no metrics.
fn metrics_named_in(text: &str) -> BTreeSet<&str> {
    words(text)
        .filter(|word| !word.contains(':'))
        .filter(|word| word.starts_with("onionring_") || word.starts_with("process_"))
        .collect()
}

/// The names under which Prometheus knows all our metrics, and whether each must be on a dashboard.
fn known() -> BTreeSet<String> {
    let relay = table::ALL.iter().flat_map(|metric| {
        let endings: &[&str] = match metric.kind {
            Kind::Histogram(_) => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        endings.iter().map(|ending| format!("{}{ending}", metric.name))
    });
    let loadgen = MEASURES.iter().map(|measure| measure.metric().0);
    relay.chain(loadgen).chain(["onionring_loadgen_measured_timestamp_seconds".to_owned()]).collect()
}

#[test]
fn only_metrics_that_exist_are_named_and_every_one_is_shown() {
    let known = known();
    let mut shown = BTreeSet::new();
    for dashboard in topics::ALL {
        let text = read(dashboard.file);
        shown.extend(metrics_named_in(&text).into_iter().map(str::to_owned));
    }
    let rules = [read("rules.yml"), ALERTS.map(read).concat(), read("prometheus.yml")].concat();
    let named: BTreeSet<_> = metrics_named_in(&rules).into_iter().map(str::to_owned).collect();
    let unknown: Vec<_> = shown.union(&named).filter(|name| !known.contains(*name)).collect();
    assert_eq!(unknown, [""; 0]);
    let missing: Vec<_> = known
        .iter()
        .filter(|name| !name.ends_with("_sum") && !name.ends_with("_count"))
        .filter(|name| !shown.contains(*name))
        .collect();
    assert_eq!(missing, [""; 0]);
}

/// The unit of what a query gives, as Grafana calls it.
fn unit(query: &str) -> &'static str {
    let metric = metrics_named_in(query).into_iter().next().expect("a query names a metric");
    let is_rate = query.contains("rate(");
    match metric {
        "onionring_build_info" => "none",
        "onionring_limited_by" => "percentunit",
        _ if query.contains("histogram_quantile(") => "s",
        _ if query.ends_with(" * 1000") => "dateTimeFromNow",
        // A share of what was counted, or of the time.
        _ if is_rate && query.contains(" / ") => "percentunit",
        m if is_rate && m.ends_with("_seconds_total") => "percentunit",
        m if is_rate && m.ends_with("_bytes_total") => "Bps",
        _ if is_rate => "ops",
        m if m.ends_with("_timestamp_seconds") => {
            if query.contains("time()") {
                "s"
            } else {
                "a date without a scale"
            }
        }
        m if m.ends_with("_ratio") => "percentunit",
        m if m.ends_with("_bytes_per_second") => "Bps",
        m if m.ends_with("_per_cpu_second") => "short",
        m if m.ends_with("_per_second") => "ops",
        m if m.contains("_seconds") => "s",
        m if m.contains("_bytes") => "bytes",
        _ => "short",
    }
}

#[test]
fn units_fit() {
    for dashboard in topics::ALL {
        for panel in dashboard.panels() {
            for (query, _) in panel.queries {
                assert_eq!(panel.unit, unit(query), "{}: {}: {query}", dashboard.file, panel.title);
            }
        }
    }
}

#[test]
fn all_dashboards_keep_to_the_conventions() {
    for dashboard in topics::ALL {
        let text = read(dashboard.file);
        let json: Value = serde_json::from_str(&text).unwrap();
        let variables = json["templating"]["list"].as_array().unwrap();
        let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["datasource", "job", "instance"]);
        assert_eq!((&json["refresh"], &json["time"]["from"]), (&"1m".into(), &"now-24h".into()));
        let rows: Vec<_> =
            json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row").collect();
        let open: Vec<_> = rows.iter().map(|row| row["collapsed"] == false).collect();
        assert!(open.len() > 2 && open.iter().enumerate().all(|(i, open)| *open == (i < 2)), "{open:?}");
        assert_eq!(24 % dashboard.stats.len() + 24 % dashboard.traffic.len(), 0, "rows are full");
        for panel in dashboard.panels() {
            assert!(!panel.hint.contains("..") && !panel.title.ends_with('.'), "{}", panel.title);
            for (query, legend) in panel.queries {
                let query = grafana::expand(query);
                assert_eq!(
                    query.matches('[').count(),
                    query.matches("[$__rate_interval]").count(),
                    "{query}"
                );
                // With more than one line, each has a name.
                assert!(!legend.is_empty() || panel.queries.len() == 1, "{}: {query}", panel.title);
            }
        }
    }
}

#[test]
fn alerts_keep_to_the_conventions() {
    let (rules, alerts) = (read("rules.yml"), ALERTS.map(read).concat());
    let recorded: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let used: BTreeSet<&str> = words(&alerts).filter(|word| word.starts_with("onionring:")).collect();
    assert!(used.is_subset(&recorded), "{used:?} of {recorded:?}");
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        let camel = name.starts_with("Onionring") && name.bytes().all(|b| b.is_ascii_alphabetic());
        assert!(camel, "{name}");
        let severe = ["critical", "warning", "info"]
            .iter()
            .any(|severity| alert.contains(&format!("labels: {{severity: {severity}}}")));
        assert!(severe, "{name} has no severity");
        for part in ["expr: ", "summary: ", "description: "] {
            assert_eq!(alert.matches(part).count(), 1, "{name}: {part}");
        }
    }
}

/// `authority_alerts.yml` says which alerts are to fire when.
#[test]
fn alerts_of_authorities_fire_when_they_should_and_not_before() {
    fire_as_told(ALERTS[1], "authority_alerts.yml");
}

/// `proxy_alerts.yml` says which alerts are to fire when.
#[test]
fn alerts_of_proxies_fire_when_they_should_and_not_before() {
    fire_as_told(ALERTS[2], "proxy_alerts.yml");
}

/// Has `promtool` run the tests of a file of alerts; each alert must be in them.
fn fire_as_told(alerts: &str, tests: &str) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboards").join(tests);
    let tested = fs::read_to_string(&tests).unwrap();
    for alert in read(alerts).lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tested.contains(&format!("alertname=\"{alert}\"")), "{alert} is not tested");
    }
    let output = Command::new("promtool").arg("test").arg("rules").arg(tests).output();
    let output = output.expect("promtool, of Debian's package prometheus");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
