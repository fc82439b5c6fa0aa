use super::*;
use onionring_proto::torrc::{self, log::Target};
use std::path::Path;
use tracing::{debug, error, info, trace, warn};

fn to_file(severity: Severity, path: &Path) -> LogOptions {
    LogOptions::new(vec![LogLine::down_to(severity, Target::File(path.display().to_string()))])
}

/// Runs `events` with a log as `options` say, on this thread only.
fn logged(options: LogOptions, events: impl FnOnce(&Log)) {
    let log = Log::open(options).unwrap();
    let subscriber = tracing_subscriber::registry().with(Logger(Arc::clone(&log.0)));
    tracing::subscriber::with_default(subscriber, || events(&log));
}

/// The lines of a file without their times.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_once(" [").map_or(line, |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn levels_are_severities_and_fields_follow_the_message() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notices.log");
    logged(to_file(Severity::Notice, &path), |_| {
        error!("broken");
        warn!(target: "net", shard = 3, reason = "full", "wrong");
        info!("worth {}", "reading");
        debug!("a detail");
        trace!("everything");
    });
    assert_eq!(lines(&path), ["err] broken", "warn] wrong shard=3 reason=full", "notice] worth reading"]);
}

#[test]
fn a_change_of_options_takes_effect_and_a_bad_one_none() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    logged(to_file(Severity::Warn, &first), |log| {
        info!("not yet");
        log.reconfigure(to_file(Severity::Debug, &second)).unwrap();
        trace!("now");
        let missing = to_file(Severity::Notice, &directory.path().join("no/such/directory"));
        let error = log.reconfigure(missing).unwrap_err().to_string();
        assert!(error.contains("no/such/directory") && error.contains("Log line"), "{error}");
        trace!("still");
    });
    assert_eq!(lines(&first), [""; 0]);
    assert_eq!(lines(&second), ["debug] now", "debug] still"]);
}

#[test]
fn a_rotated_file_is_reopened_and_a_truncated_one_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let (path, rotated) = (directory.path().join("log"), directory.path().join("log.1"));
    logged(to_file(Severity::Notice, &path), |log| {
        info!("before");
        std::fs::rename(&path, &rotated).unwrap();
        info!("between");
        log.reconfigure(to_file(Severity::Notice, &path)).unwrap();
        info!("after");
        assert_eq!(lines(&path), ["notice] after"]);
        log.reconfigure(LogOptions { truncate: true, ..to_file(Severity::Notice, &path) }).unwrap();
        info!("emptied");
    });
    assert_eq!(lines(&rotated), ["notice] before", "notice] between"]);
    assert_eq!(lines(&path), ["notice] emptied"]);
}

#[test]
fn domains_select_and_are_shown_if_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut line = LogLine::down_to(Severity::Err, Target::File(path.display().to_string()));
    line.domains = torrc::log::parse(&item("[net]debug stdout")).unwrap().domains;
    logged(LogOptions { domains: true, ..LogOptions::new(vec![line]) }, |_| {
        trace!(target: "net", "seen");
        error!("of the general domain");
        error!(target: "or", "of another");
    });
    assert_eq!(lines(&path), ["debug] {NET} seen"]);
}

fn item(value: &str) -> torrc::Item {
    let text = format!("Log {value}");
    match torrc::lines::parse(text.as_bytes(), &"test".into(), &mut Vec::new()).remove(0) {
        torrc::lines::Line::Item(item) => item,
        line => panic!("{line:?}"),
    }
}

#[test]
fn what_is_sensitive_is_scrubbed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    logged(to_file(Severity::Notice, &path), |_| {
        info!("connection from {}", safe("192.0.2.1"));
        info!(peer = ?safe("192.0.2.1"), "connection");
    });
    assert_eq!(lines(&path), ["notice] connection from [scrubbed]", "notice] connection peer=[scrubbed]"]);
}

#[test]
fn libraries_are_heard_only_when_something_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    logged(to_file(Severity::Debug, &path), |_| {
        info!(target: "rustls::conn", "chatter");
        warn!(target: "glommio::sys", "trouble");
        debug!(target: "onionring_relay::exit", "ours");
    });
    assert_eq!(lines(&path), ["warn] trouble", "info] ours"]);
}
