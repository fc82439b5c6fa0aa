//! `relay` and `compare`, against onionring and stock tor: that figures come, that they come in the published form, and
//! that whatever goes wrong is told. How large figures are depends on the machine, so nothing here judges them.

mod scenarios;
mod schema;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use onionring_loadgen::load::{Comparison, MEASURES, Report, Standalone, StandaloneSpec, Subject};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// One load at a time: each takes all of the machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onionring-loadgen"));
    command.args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &str) -> Output {
    command(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The result on standard output, held against the schema and read back.
fn json<T: serde::de::DeserializeOwned>(output: &Output) -> T {
    let value: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(output)));
    schema::check(&value);
    serde_json::from_value(value).unwrap()
}

/// A complete measurement of a relay that loadgen starts. `stall` is long: others use this machine too.
fn measured(arguments: &str) -> Report {
    let output = run(&format!("relay --output json -n 2 -z 0.5 --warm-up 0.2 --stall 60 {arguments}"));
    let report: Report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {}", said(&output));
    assert!(report.complete && report.failure.is_none(), "{report:?}");
    assert!(report.repetitions.len() == report.settings.repetitions as usize && report.subject.pid.is_some());
    report
}

fn positive(report: &Report, measures: &[&str]) {
    for name in measures {
        assert!(MEASURES.iter().any(|m| m.name == *name), "{name} is no measure");
        let spread = report.summary.get(*name).unwrap_or_else(|| panic!("no {name} in {report:?}"));
        assert!(
            spread.min > 0.0 && spread.min <= spread.median && spread.median <= spread.max,
            "{name}: {spread:?}"
        );
    }
}

/// Everything that a relay of this kind can be measured by.
fn every_scenario(kind: &str) {
    let _alone = alone();
    for way in ["down", "up"] {
        let bulk = measured(&format!("--kind {kind} --links 3 --circuits 4 --direction {way}"));
        assert!(bulk.subject.platform.is_some(), "its descriptor was asked for");
        positive(
            &bulk,
            &["cpu_seconds_per_gib", "cpu_ns_per_cell", "goodput_bytes_per_second", "verified_cells"],
        );
    }
    let threads = measured(&format!("--kind {kind} --links 3 --next-hops 1 --threads 2 --window 1"));
    positive(&threads, &["cells_per_second"]);

    let interactive = measured(&format!("--kind {kind} -s interactive --rate 50 --links 2"));
    positive(&interactive, &["latency_p50_seconds", "latency_max_seconds", "probes_per_second"]);
    assert!(!interactive.summary.contains_key("goodput_bytes_per_second"), "there was no bulk");
    let beside = measured(&format!("--kind {kind} -s interactive --rate 50 --beside-bulk --circuits 3"));
    positive(&beside, &["latency_p99_seconds", "goodput_bytes_per_second"]);

    for handshake in ["ntor", "ntor-v3"] {
        let made = measured(&format!("--kind {kind} -s handshake --handshake {handshake} --circuits 10"));
        positive(&made, &["handshakes_per_second", "handshakes_per_cpu_second"]);
    }
    positive(&measured(&format!("--kind {kind} -s connect --links 4")), &["links_per_cpu_second"]);
    let idle = measured(&format!("--kind {kind} -s idle --links 100 --circuits 20 --next-hops 3"));
    positive(&idle, &["rss_bytes"]);
}

#[test]
fn every_scenario_on_onionring() {
    every_scenario("onionring");
}

#[test]
fn every_scenario_on_tor() {
    every_scenario("tor");
}

#[test]
fn comparisons() {
    let _alone = alone();
    let load = "--links 2 --circuits 2 -z 0.5 --warm-up 0.2 --stall 60 --pairs 2";
    let output = run(&format!("compare --against tor --output json {load}"));
    let comparison: Comparison = json(&output);
    assert!(comparison.complete && output.status.success(), "{}", said(&output));
    let peer = &comparison.peers[0];
    assert_eq!(
        (comparison.subject.subject.kind.as_str(), peer.report.subject.kind.as_str()),
        ("onionring", "tor")
    );
    assert_eq!((peer.pair_ratios.len(), peer.report.repetitions.len()), (2, 2));
    let ratio = peer.ratios["cpu_seconds_per_gib"];
    let [ours, theirs] = [&comparison.subject, &peer.report].map(|report| {
        report.repetitions.iter().map(|r| r.measures["cpu_seconds_per_gib"]).collect::<Vec<_>>()
    });
    let expected = (ours[0] / theirs[0] + ours[1] / theirs[1]) / 2.0;
    assert!((ratio.median - expected).abs() < 1e-9 * expected, "{ratio:?}, not {expected}");

    let text = run(&format!("compare --subject tor --against again=tor {load}"));
    assert_eq!(text.status.code(), Some(0), "{}", said(&text));
    let table = String::from_utf8(text.stdout).unwrap();
    assert!(table.contains("| | tor | again | ratio |") && table.contains("| CPU per GiB, s |"), "{table}");
}

fn spec(kind: &str) -> StandaloneSpec {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_onionring-loadgen"));
    let program = if kind == "tor" { PathBuf::from("tor") } else { built.with_file_name("onionring-relay") };
    StandaloneSpec { kind: kind.to_owned(), program, cpus: None, exit: true, torrc: Vec::new() }
}

/// A relay of its own, found at its address only.
struct Own {
    relay: Standalone,
    address: SocketAddr,
    pid: Pid,
}

impl Own {
    fn start(kind: &str) -> Own {
        let relay = Standalone::start(&spec(kind)).unwrap();
        let pid = Pid::from_raw(relay.pid().cast_signed()).unwrap();
        let address = relay.address();
        // Its descriptor has the onion key, which some scenarios need.
        while Subject::at(address, None, None, None).unwrap().info().platform.is_none() {
            thread::sleep(Duration::from_millis(100));
        }
        Own { address, pid, relay }
    }
}

#[test]
fn a_relay_that_is_there_is_held_against_what_is_known_of_it() {
    let _alone = alone();
    let own = Own::start("tor");
    let (address, pid) = (own.address, own.pid.as_raw_nonzero());
    let known = Subject::at(address, None, None, None).unwrap().info().clone();
    let load = "-z 0.5 -n 1 --warm-up 0.1 --stall 60 --output json";
    let fingerprint = &known.fingerprint;
    let report: Report =
        json(&run(&format!("relay --address {address} --fingerprint {fingerprint} --pid {pid} {load}")));
    assert!(report.complete && report.subject.fingerprint == known.fingerprint, "{report:?}");
    positive(&report, &["cpu_seconds_per_gib"]);
    let blind: Report = json(&run(&format!("relay --address {address} {load}")));
    assert!(blind.complete && blind.subject.pid.is_none() && !blind.summary.contains_key("cpu_cores"));

    let other = "0123456789abcdef0123456789abcdef01234567";
    let wrong = run(&format!("relay --address {address} --fingerprint {other} {load}"));
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("another relay than expected"), "{}", said(&wrong));
    drop(own.relay);
    let gone = run(&format!("relay --address {address} {load}"));
    assert_eq!(gone.status.code(), Some(1));
    assert!(said(&gone).contains("no relay answers"), "{}", said(&gone));
}

#[test]
fn what_answers_nonsense_is_no_relay() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 64]);
            let _ = socket.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
    });
    let output = run(&format!("relay --address {address}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("is no relay"), "{}", said(&output));
}

/// Waits until the relay under test is at work, then does something to it.
fn in_the_middle(own: &Own, output: &str, then: Signal) -> Child {
    let (address, pid) = (own.address, own.pid.as_raw_nonzero());
    let mut child = command(&format!(
        "relay --address {address} --pid {pid} -n 500 -z 0.2 --warm-up 0.1 --stall 3 --output {output}"
    ))
    .spawn()
    .unwrap();
    let used = || onionring_loadgen::net::process::usage(own.relay.pid()).unwrap().cpu_seconds;
    let before = used();
    while used() < before + 0.4 {
        assert_eq!(child.try_wait().unwrap(), None, "{output}: it has ended by itself");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_secs(1));
    kill_process(own.pid, then).unwrap();
    child
}

#[test]
fn a_relay_that_dies_or_stalls_leaves_partial_results() {
    let _alone = alone();
    for kind in ["tor", "onionring"] {
        let own = Own::start(kind);
        let stalled = in_the_middle(&own, "json", Signal::STOP).wait_with_output().unwrap();
        kill_process(own.pid, Signal::CONT).unwrap();
        let report: Report = json(&stalled);
        assert_eq!(stalled.status.code(), Some(1));
        assert_eq!(report.failure.as_ref().map(|f| f.kind.as_str()), Some("stalled"), "{:?}", report.failure);
        assert!(!report.complete && !report.repetitions.is_empty(), "{report:?}");

        let killed = in_the_middle(&own, "json", Signal::KILL).wait_with_output().unwrap();
        let report: Report = json(&killed);
        assert_eq!(killed.status.code(), Some(1));
        assert_eq!(report.failure.as_ref().map(|f| f.kind.as_str()), Some("died"), "{:?}", report.failure);
        assert!(!report.repetitions.is_empty());
    }
    let own = Own::start("tor");
    let text = in_the_middle(&own, "text", Signal::KILL).wait_with_output().unwrap();
    let table = String::from_utf8(text.stdout.clone()).unwrap();
    assert!(table.contains("INCOMPLETE after") && table.contains("has ended"), "{table}");
}

/// Whether the kernel lets this process count system calls.
fn counts_syscalls() -> bool {
    let tracepoint = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";
    rustix::process::geteuid().is_root() && std::fs::read_to_string(tracepoint).is_ok()
}

#[test]
fn system_calls_are_counted_where_they_can_be_and_left_out_elsewhere() {
    const SYSCALLS: [&str; 2] = ["syscalls_per_mib", "syscalls_per_second"];
    let _alone = alone();
    let unasked = measured("--kind onionring");
    assert!(SYSCALLS.iter().all(|name| !unasked.summary.contains_key(*name)), "{unasked:?}");
    for load in ["bulk --links 2", "exit --size 0.1"] {
        let report = measured(&format!("--kind onionring --syscalls -s {load}"));
        if counts_syscalls() {
            positive(&report, &SYSCALLS);
        } else {
            assert!(SYSCALLS.iter().all(|name| !report.summary.contains_key(*name)), "{report:?}");
            let why = report.notes.iter().find(|note| note.starts_with("system calls are not counted"));
            assert!(why.is_some_and(|why| why.contains("root")), "{report:?}");
        }
    }
    let load = "--syscalls -z 0.5 --warm-up 0.2 --stall 60 --pairs 1";
    let output = run(&format!("compare --against tor --output json {load}"));
    let comparison: Comparison = json(&output);
    assert!(comparison.complete, "{}", said(&output));
    let peer = &comparison.peers[0];
    for name in SYSCALLS {
        assert_eq!(peer.ratios.contains_key(name), counts_syscalls(), "{comparison:?}");
    }
    for report in [&comparison.subject, &peer.report] {
        let told = report.notes.iter().any(|note| note.starts_with("system calls are not counted"));
        assert_eq!(told, !counts_syscalls(), "{report:?}");
    }
}

#[test]
fn csv_and_pipes() {
    let _alone = alone();
    let output = run("relay --kind tor -z 0.3 -n 2 --warm-up 0.1 --stall 60 --output csv");
    let csv = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("scenario,kind,links,rate,repetition,complete,measure,value"));
    let line = lines.find(|line| line.starts_with("bulk,tor,1,,2,true,cpu_ns_per_cell,")).unwrap();
    assert!(line.rsplit(',').next().unwrap().parse::<f64>().unwrap() > 0.0);
    assert!(output.stderr.is_empty(), "no progress in a pipe: {}", said(&output));
}

#[test]
fn wrong_usage_is_told() {
    for (arguments, word) in [
        ("relay", "--address"),
        ("relay --kind tor --links 0", "--links"),
        ("relay --kind tor --window 20000", "--window"),
        ("relay --kind tor --seconds 0", "--seconds"),
        ("relay --kind tor -s nothing", "--scenario"),
        ("relay --kind tor --links 2000 --circuits 2000", "--circuits 2000 is 4000000"),
        ("relay --kind tor --beside-bulk", "--beside-bulk"),
        ("relay --kind nothing", "nothing=PATH"),
        ("relay --address 127.0.0.1:9 --kind tor", "--kind"),
        ("relay --address 127.0.0.1:9 --fingerprint abc", "40 hex digits"),
        ("relay --address 127.0.0.1:9 -s idle", "--pid"),
        ("relay --address 127.0.0.1:9 --syscalls", "--pid"),
        ("relay --kind tor -s idle --syscalls", "--syscalls"),
        ("relay --kind tor --rate 0", "--rate"),
        ("relay --kind tor --links 1,2 --output prometheus", "csv or json"),
        ("relay --kind tor --links 1,0", "--links"),
        ("relay --kind tor -s connect --rate 5", "--rate is for"),
        ("relay --kind tor --bulk-rate 5", "--beside-bulk"),
        ("relay --kind tor -s flood --flood-sources 101", "--flood-sources"),
        ("relay --kind tor -s exit --streams 0", "--streams"),
        ("relay --kind tor -s exit --size 0", "--size"),
        ("relay --address 127.0.0.1:9 -s paper-2004", "--kind"),
        ("compare --against onionring", "`onionring`"),
        ("compare --against tor --pairs 0", "--pairs"),
        ("compare", "--against"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", said(&output));
        assert!(said(&output).contains(word), "{arguments}: {}", said(&output));
    }
    for (arguments, word) in [
        ("relay --kind x=/nonexistent", "x does not start"),
        ("relay --address 127.0.0.1:9 --descriptor /nonexistent", "/nonexistent is no relay descriptor"),
        ("relay --address 127.0.0.1:9 --pid 999999999", "process 999999999"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {}", said(&output));
        assert!(said(&output).contains(word), "{arguments}: {}", said(&output));
    }
}
