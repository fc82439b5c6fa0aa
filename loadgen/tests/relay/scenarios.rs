//! Every scenario, on onionring and on stock tor.

use std::ops::ControlFlow;

use onionring_loadgen::load::{Comparison, Progress, Report, Scenario, Settings, Sweep, Target};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Own, alone, command, in_the_middle, json, measured, positive, run, said, spec};

/// A given rate is offered, held and timed; a window too small for it is told.
fn open_loop(kind: &str) {
    let _alone = alone();
    for way in ["down", "up"] {
        let paced = measured(&format!("--kind {kind} --rate 1 --links 2 --circuits 2 --direction {way}"));
        positive(&paced, &["bulk_latency_p50_seconds", "bulk_latency_max_seconds", "cpu_seconds_per_gib"]);
        let goodput = paced.summary["goodput_bytes_per_second"].median / f64::from(1 << 20);
        assert!((0.5..2.0).contains(&goodput), "{goodput} MiB/s of 1");
        assert!(paced.summary["bulk_missed_ratio"].median < 0.5, "{paced:?}");
    }
    // One cell under way is far too few for this rate, whatever the relay does.
    let missed = measured(&format!("--kind {kind} --rate 200 --window 1"));
    assert!(missed.summary["bulk_missed_ratio"].median > 0.1, "{missed:?}");
    assert!(missed.notes.iter().any(|note| note.contains("does not carry this rate")), "{missed:?}");

    let beside = measured(&format!("--kind {kind} -s interactive --beside-bulk --bulk-rate 1 --rate 50"));
    positive(&beside, &["latency_p99_seconds", "bulk_latency_p99_seconds", "goodput_bytes_per_second"]);
    assert_eq!((beside.settings.bulk_rate, beside.settings.rate), (Some(1.0), 50.0));
}

#[test]
fn open_loop_on_onionring() {
    open_loop("onionring");
}

#[test]
fn open_loop_on_tor() {
    open_loop("tor");
}

fn exit(kind: &str) {
    let _alone = alone();
    for way in ["down", "up"] {
        let load = "-s exit --circuits 2 --streams 5 --size 0.1 --links 2 --threads 2";
        let report = measured(&format!("--kind {kind} {load} --direction {way}"));
        positive(&report, &["cpu_seconds_per_gib", "goodput_bytes_per_second", "transfers_per_second"]);
        positive(&report, &["time_to_first_byte_p50_seconds", "time_to_last_byte_p99_seconds"]);
    }
}

#[test]
fn exit_on_onionring() {
    exit("onionring");
}

#[test]
fn exit_on_tor() {
    exit("tor");
}

#[test]
fn an_exit_that_refuses_is_told_what_it_lacks() {
    let _alone = alone();
    for kind in ["onionring", "tor"] {
        let mut refusing = command(&format!("relay --kind {kind} -s exit --output json"));
        let output = refusing.args(["--torrc", "ExitPolicyRejectPrivate 1"]).output().unwrap();
        let report: Report = json(&output);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let failure = report.failure.unwrap();
        assert_eq!(failure.kind, "stream");
        assert!(failure.message.contains("`ExitPolicyRejectPrivate 0`"), "{failure:?}");
    }
}

fn flood(kind: &str) {
    let _alone = alone();
    let flooded = measured(&format!("--kind {kind} -s flood --rate 1 --flood-links 3 --flood-sources 2"));
    positive(&flooded, &["junk_per_second", "bulk_latency_p99_seconds", "bulk_quiet_latency_p99_seconds"]);
    positive(&flooded, &["goodput_quiet_bytes_per_second"]);
    assert!(flooded.summary["goodput_lost_ratio"].max <= 1.0);
    // Few enough for every relay to answer them all, and the honest ones beside them.
    let trickle = measured(&format!("--kind {kind} -s flood --rate 1 --flood-rate 20 --flood-links 1"));
    positive(&trickle, &["junk_answered_per_second", "create_success_ratio", "create_latency_p99_seconds"]);
    // Without a rate it is half of what the relay carries.
    let half = measured(&format!("--kind {kind} -s flood --flood-rate 20"));
    assert!(half.settings.bulk_rate.is_some_and(|rate| rate > 0.0), "{:?}", half.settings);
}

#[test]
fn flood_on_onionring() {
    flood("onionring");
}

#[test]
fn flood_on_tor() {
    flood("tor");
}

#[test]
fn a_relay_that_dies_under_other_loads_is_told() {
    let _alone = alone();
    for scenario in ["exit", "flood --rate 1 --flood-rate 100", "bulk --rate 5"] {
        let own = Own::start("onionring");
        let killed =
            in_the_middle(&own, &format!("json -s {scenario}"), Signal::KILL).wait_with_output().unwrap();
        let report: Report = json(&killed);
        assert_eq!(killed.status.code(), Some(1), "{scenario}");
        let failure = report.failure.unwrap();
        assert_eq!(failure.kind, "died", "{scenario}: {failure:?}");
        assert!(!report.complete && !report.repetitions.is_empty(), "{scenario}");
    }
}

#[test]
fn a_relay_that_stalls_under_other_loads_is_told() {
    let _alone = alone();
    for kind in ["onionring", "tor"] {
        for scenario in ["exit", "flood --rate 1 --flood-rate 100"] {
            let own = Own::start(kind);
            let stalled = in_the_middle(&own, &format!("json -s {scenario}"), Signal::STOP);
            let stalled = stalled.wait_with_output().unwrap();
            kill_process(own.pid, Signal::CONT).unwrap();
            let report: Report = json(&stalled);
            assert_eq!(stalled.status.code(), Some(1), "{kind}: {scenario}");
            let failure = report.failure.unwrap();
            assert_eq!(failure.kind, "stalled", "{kind}: {scenario}: {failure:?}");
            assert!(!report.complete && !report.repetitions.is_empty(), "{kind}: {scenario}");
        }
    }
}

/// What it had measured until then is there, whichever way the program prints it.
#[test]
fn a_network_that_stalls_is_told() {
    let _alone = alone();
    let settings = Settings {
        size: 0.5,
        downloads: 1,
        repetitions: 1000,
        stall: 3.0,
        ..Settings::new(Scenario::Paper2004)
    };
    let target =
        Target::start(&spec("onionring"), settings.scenario, &mut |_| ControlFlow::Continue(())).unwrap();
    let first = Pid::from_raw(target.info().pid.unwrap().cast_signed()).unwrap();
    let report = target.measure(&settings, None, &mut |progress| {
        if matches!(progress, Progress::Measuring { repetition: 2, .. }) {
            kill_process(first, Signal::STOP).unwrap();
        }
        ControlFlow::Continue(())
    });
    kill_process(first, Signal::CONT).unwrap();
    let failure = report.failure.as_ref().unwrap();
    assert_eq!(failure.kind, "stalled", "{failure:?}");
    assert!(failure.message.contains("no progress for 3s while downloading over four relays"), "{failure:?}");
    assert!(!report.complete && report.repetitions.len() == 1, "{report:?}");
    assert!(report.to_text().contains("INCOMPLETE after 1 of 1000"));
}

#[test]
fn the_paper_of_2004() {
    let _alone = alone();
    let load = "-s paper-2004 --size 0.5 --downloads 1 --pairs 1";
    let output = run(&format!("compare --against tor --output json {load}"));
    let comparison: Comparison = json(&output);
    assert!(comparison.complete && output.status.success(), "{}", said(&output));
    for report in [&comparison.subject, &comparison.peers[0].report] {
        positive(report, &["file_mean_seconds", "file_direct_mean_seconds", "file_over_direct_ratio"]);
        positive(report, &["page_min_seconds", "page_median_seconds", "page_p80_seconds"]);
        assert!(report.notes.iter().any(|note| note.contains("300 s")), "{report:?}");
    }
}

#[test]
fn sweeps() {
    let _alone = alone();
    let load = "-z 0.3 --warm-up 0.1 --stall 60";
    let output = run(&format!("relay --kind tor -n 1 --links 1,3 --rate 0.5,1 --output json {load}"));
    let sweep: Sweep<Report> = json(&output);
    assert!(output.status.success(), "{}", said(&output));
    let points: Vec<_> =
        sweep.points.iter().map(|p| (p.settings.links, p.settings.bulk_rate.unwrap())).collect();
    assert_eq!(points, [(1, 0.5), (1, 1.0), (3, 0.5), (3, 1.0)]);

    let compared =
        run(&format!("compare --against tor --pairs 1 -s connect --links 1,2 --output json {load}"));
    let sweep: Sweep<Comparison> = json(&compared);
    assert!(sweep.points.len() == 2 && sweep.points.iter().all(|point| point.complete));
    let text = run(&format!("relay --kind tor -n 1 --links 1,2 {load}"));
    let table = String::from_utf8(text.stdout).unwrap();
    assert!(table.contains("| links | rate | tor: CPU per GiB, s |"), "{table}");
    assert_eq!(table.lines().filter(|line| line.contains("| most |")).count(), 2, "{table}");
}
