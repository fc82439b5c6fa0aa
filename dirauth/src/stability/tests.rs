use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const NOW: Unix = Unix(1_795_800_000);
const HOUR: u64 = 3600;
const MOVED: Duration = Duration::from_secs(3600);

fn relay(n: u8) -> Fingerprint {
    Fingerprint([n; 20])
}

fn at(hours: u64) -> Unix {
    Unix(NOW.0 + hours * HOUR)
}

/// A relay that was up for 10 hours, down for 2, up for 8, and down since.
fn seen() -> Stability {
    let mut stability = Stability::default();
    stability.reached(&relay(1), None, at(0), MOVED);
    stability.reached(&relay(1), None, at(5), MOVED);
    stability.unreachable(&relay(1), at(10), at(11));
    stability.unreachable(&relay(1), at(11), at(11));
    stability.reached(&relay(1), None, at(12), MOVED);
    stability.unreachable(&relay(1), at(20), at(20));
    stability
}

#[test]
fn runs_downtimes_and_time_known() {
    let mut stability = seen();
    let r = relay(1);
    assert_eq!(stability.mtbf(&r, at(25)), 9.0 * 3600.0);
    assert_eq!(stability.time_known(&r, at(30)), 30.0 * 3600.0);
    assert_eq!(stability.fractional_uptime(&r, at(30)), 18.0 / 30.0);
    assert_eq!(stability.uptime(&r, at(30)), Duration::ZERO);
    let unknown = relay(2);
    assert!(!stability.is_up(&r) && !stability.is_up(&unknown));
    stability.reached(&r, None, at(30), MOVED);
    // The present run counts as if it ended now.
    assert_eq!(stability.mtbf(&r, at(36)), 8.0 * 3600.0);
    assert_eq!(stability.fractional_uptime(&r, at(36)), 24.0 / 36.0);
    assert_eq!(stability.uptime(&r, at(36)), Duration::from_secs(6 * HOUR));
    assert!(stability.is_up(&r));
    assert_eq!((stability.mtbf(&unknown, at(36)), stability.fractional_uptime(&unknown, at(36))), (0.0, 0.0));
    assert_eq!(
        (stability.time_known(&unknown, at(36)), stability.uptime(&unknown, at(36))),
        (0.0, Duration::ZERO)
    );
}

#[test]
fn the_past_is_discounted_every_12_hours() {
    let mut stability = seen();
    stability.discount(at(20));
    let fresh = stability.clone();
    stability.discount(Unix(at(32).0 - 1));
    assert_eq!(stability, fresh);
    stability.discount(at(45));
    let r = relay(1);
    let seconds = |hours: f64| (hours * 3600.0 * 0.95 * 0.95) as u64 as f64;
    assert_eq!(stability.mtbf(&r, at(45)), seconds(18.0) / (2.0 * 0.95f64.powi(2)));
    assert_eq!(stability.time_known(&r, at(45)), seconds(20.0) + 25.0 * 3600.0);
    // Half a year later it is forgotten; one that is up is not.
    stability.reached(&relay(2), None, at(45), MOVED);
    stability.discount(at(45 + 24 * 200));
    stability.forget_faded();
    assert_eq!((stability.len(), stability.mtbf(&r, at(5000))), (1, 0.0));
}

#[test]
fn moving_counts_as_downtime() {
    let mut stability = Stability::default();
    let r = relay(1);
    let address = |port| Some(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), port));
    stability.reached(&r, address(1), at(0), MOVED);
    stability.reached(&r, address(1), at(10), MOVED);
    stability.reached(&r, None, at(11), MOVED);
    assert_eq!(stability.mtbf(&r, at(12)), 12.0 * 3600.0);
    stability.reached(&r, address(2), at(12), MOVED);
    assert_eq!(stability.uptime(&r, at(13)), Duration::from_secs(HOUR));
    assert_eq!(stability.fractional_uptime(&r, at(13)), 12.0 / 13.0);
    // Moving soon after coming up takes away what did not count yet.
    stability.reached(&r, address(3), Unix(at(12).0 + 60), MOVED);
    assert!(stability.fractional_uptime(&r, at(12)) < 12.0 / 13.0);
    // Coming back at another address is a downtime like any.
    stability.unreachable(&r, at(14), at(14));
    stability.reached(&r, address(4), at(15), MOVED);
    assert_eq!(stability.uptime(&r, at(15)), Duration::ZERO);
}

#[test]
fn a_disgraced_relay_has_no_standing() {
    let mut stability = seen();
    stability.reached(&relay(1), None, at(30), MOVED);
    stability.disgrace(&relay(1), at(40));
    assert_eq!(
        (stability.mtbf(&relay(1), at(40)), stability.fractional_uptime(&relay(1), at(40))),
        (0.0, 0.0)
    );
    assert_eq!(stability.time_known(&relay(1), at(41)), 41.0 * 3600.0);
}

#[test]
fn four_hours_of_watching_are_enough() {
    let mut stability = Stability::default();
    assert!(!stability.is_long_enough(at(100)));
    stability.unreachable(&relay(1), at(0), at(0));
    assert!(!stability.is_long_enough(at(4)));
    assert!(stability.is_long_enough(Unix(at(4).0 + 1)));
}

/// A file that C tor 0.4.9.11 read at `LOADED`, and what it wrote 84 s later. In between it reached a relay that had been
/// down, marked one as down that is up but not listed, and forgot one that has faded.
const BEFORE: &str = include_str!("../testdata/router-stability-before.txt");
const AFTER: &str = include_str!("../testdata/router-stability-after.txt");
const LOADED: Unix = Unix(1_795_801_381);
const STORED: Unix = Unix(1_795_801_465);

/// Each relay's lines together, sorted: C tor writes them in no order.
fn entries(state: &str) -> Vec<&str> {
    let (header, relays) = state.split_once("data\n").unwrap();
    let mut entries: Vec<_> =
        relays.strip_suffix(".\n").unwrap().split_inclusive("R ").map(|e| e.trim_end_matches("R ")).collect();
    entries.push(header);
    entries.sort_unstable();
    entries
}

#[test]
fn c_tor_makes_the_same_of_the_same_file() {
    let (mut stability, found) = Stability::read(BEFORE, LOADED).unwrap();
    assert_eq!((found, stability.len()), (StabilityFindings::default(), 9));
    let came_up = Fingerprint::from_hex("DA15826C7F6F2A589FC6E10AC5086249EB48030B").unwrap();
    let unlisted = Fingerprint::from_hex("00000000000000000000000000000000000000FF").unwrap();
    let reached = Unix(LOADED.0 + 1);
    stability.forget_faded();
    stability.reached(&came_up, None, reached, MOVED);
    stability.unlisted_are_down(|relay| *relay != unlisted, reached);
    assert_eq!(entries(&stability.write(STORED)), entries(AFTER));
}

#[test]
fn states_survive_being_written() {
    let (stability, _) = Stability::read(AFTER, STORED).unwrap();
    let written = stability.write(STORED);
    assert_eq!(entries(&written), entries(AFTER));
    assert_eq!(Stability::read(&written, STORED).unwrap().0, stability);
}

#[test]
fn time_in_which_nobody_watched_is_left_out() {
    let mut stability = seen();
    stability.reached(&relay(2), None, at(22), MOVED);
    let (again, found) = Stability::read(&stability.write(at(24)), at(100)).unwrap();
    assert_eq!(found, StabilityFindings::default());
    assert_eq!(again.uptime(&relay(2), at(100)), Duration::from_secs(2 * HOUR));
    assert_eq!(again.time_known(&relay(1), at(100)), 24.0 * 3600.0);
    assert_eq!(again.mtbf(&relay(1), at(100)), stability.mtbf(&relay(1), at(24)));
}

#[test]
fn impossible_times_are_mended() {
    let header =
        |tracked: &str| format!("format 2\nstored-at 2026-11-27 12:00:00\ntracked-since {tracked}\ndata\n");
    let runs = |start: &str| format!("R {}\n+MTBF 10 1.0 S={start}\n+WFU 10 10\n.\n", relay(1));
    let now = time("2026-11-27 12:00:00").unwrap();
    let start = |text: String| Stability::read(&text, now).unwrap().0.relays[&relay(1)].run_start;
    let tracked = "2026-11-01 00:00:00";
    assert_eq!(start(header(tracked) + &runs("2026-11-27 12:00:01")), None);
    assert_eq!(start(header(tracked) + &runs("2026-10-01 00:00:00")), time(tracked));
    assert_eq!(start(header(tracked) + &runs("2025-10-01 00:00:00")), None);
    // Nothing was tracked before the programs were written.
    let early =
        Stability::read(&(header("1970-01-02 00:00:00") + &runs("2026-11-20 00:00:00")), now).unwrap().0;
    assert_eq!(early.tracked_since, time("2026-11-19 23:59:50"));
    let late = Stability::read(&(header("2027-01-01 00:00:00") + "."), now).unwrap().0;
    assert_eq!(late.tracked_since, Some(now));
}

#[test]
fn damage_is_counted_and_the_rest_read() {
    let text = format!(
        "format 2\nstored-at 2026-11-27 12:00:00\ndata\nR {}\n+MTBF 10 x\n+WFU y\nR 12\n+MTBF 1 1.0\nR {}\n+MTBF 7 1.0\n",
        relay(1),
        relay(2)
    );
    let (stability, found) = Stability::read(&text, NOW).unwrap();
    assert_eq!(found, StabilityFindings { damaged: 2, truncated: true });
    assert_eq!(stability.mtbf(&relay(2), NOW), 7.0);
    assert_eq!(Stability::read("format 1\n", NOW).unwrap_err(), StabilityError::Format("format 1".into()));
    assert_eq!(Stability::read("format 2\ndata\n.\n", NOW).unwrap_err(), StabilityError::NoStoredAt);
}

proptest! {
    #[test]
    fn any_text_is_a_state_or_an_error(
        body in "(R 0123456789abcdef0123456789abcdef01234567\n|\\+MTBF |\\+WFU |[0-9]{1,20}| S=|2026-11-27 10:00:00|[ .\n-]){0,40}"
    ) {
        let text = format!("format 2\nstored-at 2026-11-27 12:00:00\ndata\n{body}");
        let (mut stability, _) = Stability::read(&text, NOW).unwrap();
        let all: Vec<_> = stability.relays.keys().copied().collect();
        for relay in all {
            stability.reached(&relay, None, at(1), MOVED);
            stability.unreachable(&relay, at(2), at(2));
            prop_assert!(stability.mtbf(&relay, at(3)).is_finite());
            prop_assert!(stability.fractional_uptime(&relay, at(3)).is_finite());
        }
        stability.discount(at(50));
        let _ = Stability::read(&body, NOW);
    }

    #[test]
    fn histories_survive_being_written(
        events in prop::collection::vec((1u8..5, any::<bool>(), 0u64..50_000), 0..40)
    ) {
        let mut stability = Stability::default();
        let mut now = NOW;
        for (n, up, later) in events {
            now = Unix(now.0 + later);
            stability.discount(now);
            if up {
                stability.reached(&relay(n), None, now, MOVED);
            } else {
                stability.unreachable(&relay(n), now, now);
            }
            let share = stability.fractional_uptime(&relay(n), now);
            prop_assert!((0.0..=1.0).contains(&share), "{}", share);
        }
        let (again, found) = Stability::read(&stability.write(now), now).unwrap();
        prop_assert_eq!(found, StabilityFindings::default());
        for (relay, history) in &stability.relays {
            // Weights are written with five digits.
            let theirs = again.relays[relay];
            prop_assert!((theirs.runs - history.runs).abs() < 0.00001);
            prop_assert_eq!(History { runs: history.runs, ..theirs }, *history);
        }
        prop_assert_eq!(again.tracked_since, stability.tracked_since);
        prop_assert_eq!(again.last_discount, stability.last_discount);
    }
}
