//! The state file: as C tor writes it, damaged, and made up.

use proptest::prelude::*;

use super::*;

/// Lines as C tor 0.4.9.11 writes them, with counters of its path bias, a key from the future, and a bridge.
const FILE: &str = "# Tor state file last generated on 2026-11-28 00:00:00 local time\n\
    # Other times below are in UTC\n\
    # You *do not* need to edit this file.\n\
    \n\
    CircuitBuildTimeBin 75 2\n\
    Dormant 0\n\
    Guard in=default rsa_id=0001000000000000000000000000000000000000 nickname=relay1 \
    sampled_on=2026-11-10T11:12:13 sampled_idx=0 sampled_by=0.4.9.11 listed=1 \
    confirmed_on=2026-11-12T01:02:03 confirmed_idx=1 pb_use_attempts=3.000000 pb_use_successes=3.000000 \
    pb_circ_attempts=11.000000 pb_circ_successes=10.000000 pb_successful_circuits_closed=9.000000\n\
    Guard in=default rsa_id=0002000000000000000000000000000000000000 nickname=relay2 \
    sampled_on=2026-11-01T00:00:00 sampled_idx=1 sampled_by=0.4.8.10 unlisted_since=2026-11-20T00:00:00 \
    listed=0 confirmed_on=2026-11-02T00:00:00 confirmed_idx=0 from_the_future=yes\n\
    Guard in=default rsa_id=0003000000000000000000000000000000000000 nickname=relay3 \
    sampled_on=2026-11-15T00:00:00 sampled_idx=2 sampled_by=0.4.9.11 listed=1\n\
    Guard in=restricted rsa_id=0003000000000000000000000000000000000000 nickname=relay3 \
    sampled_on=2026-11-16T00:00:00 sampled_idx=0 sampled_by=0.4.9.11 listed=1\n\
    Guard in=bridges rsa_id=0009000000000000000000000000000000000000 bridge_addr=127.0.0.1:9001 \
    sampled_on=2026-11-16T00:00:00 sampled_idx=0 listed=1\n\
    TorVersion Tor 0.4.9.11 (git-000000000000000a)\n\
    LastWritten 2026-11-28 00:00:00\n";

fn read(text: &str) -> (Guards, Vec<Damage>) {
    Guards::read(&StateFile::read(text), NOW)
}

fn write(guards: &Guards, text: &str) -> String {
    let mut file = StateFile::read(text);
    guards.write(&mut file);
    file.to_string()
}

#[test]
fn what_stock_tor_wrote_is_read_and_written_as_it_was() {
    let (guards, damage) = read(FILE);
    assert_eq!(damage, []);
    assert_eq!(write(&guards, FILE), FILE);
    let all: Vec<_> = guards.sample().collect();
    assert_eq!(all.iter().map(|guard| guard.identity()).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    assert_eq!(all[0].nickname(), Some("relay1"));
    assert_eq!(all[0].sampled_on(), Unix(1_794_309_133));
    assert_eq!(all[0].confirmed_on(), Some(Unix(1_794_445_323)));
    assert_eq!(all[1].unlisted_since(), Some(Unix(1_795_132_800)));
    assert_eq!(all[2].confirmed_on(), None);
    assert!(all.iter().all(|guard| guard.reachable() == Reachable::Maybe));
}

#[test]
fn guards_of_stock_tor_stay_in_use() {
    let (guards, _) = read(FILE);
    let now = Unix(1_795_824_000);
    let mut client = Client { guards, rng: rng(1), now };
    client.set(&Net::new(0..200, now));
    // Confirmed guards come first, in the order of the sample.
    assert_eq!(client.primary(), [id(1), id(2), id(3)]);
    assert_eq!(client.circuit().relay, id(1));
    assert_eq!(client.sample()[..3], [id(1), id(2), id(3)]);
    assert_eq!(client.sample().len(), 20);
    assert_eq!(client.guard(id(2)).unlisted_since(), None);
    let written = write(&client.guards, FILE);
    assert!(written.contains("Guard in=bridges") && written.contains("from_the_future=yes"));
}

#[test]
fn the_order_is_that_of_the_indices() {
    let line = |n: u16, more: &str| format!("Guard in=default rsa_id={} {more}\n", id(n));
    let text = line(5, "sampled_idx=x")
        + &line(4, "")
        + &line(3, "confirmed_idx=1")
        + &line(2, "sampled_idx=7")
        + &line(1, "sampled_idx=0");
    let (guards, damage) = read(&text);
    let order: Vec<_> = guards.sample().map(Guard::identity).collect();
    assert_eq!(order, [1, 3, 2, 5, 4].map(id));
    assert_eq!(damage.len(), 1);
    assert!(guards.sample().all(|guard| guard.sampled_on() == NOW));
    assert_eq!(guards.sample().filter(|guard| guard.confirmed_on().is_some()).count(), 1);
}

#[test]
fn damage_is_reported_and_left_out() {
    let good =
        format!("Guard in=default rsa_id={} sampled_on=2026-11-10T11:12:13 sampled_idx=0 listed=1\n", id(7));
    for (line, outcome) in [
        ("Guard", Outcome::LineLost),
        ("Guard rsa_id=0001000000000000000000000000000000000000", Outcome::LineLost),
        ("Guard in=default", Outcome::LineLost),
        ("Guard in=default rsa_id=00010000000000000000000000000000000000", Outcome::LineLost),
        ("Guard in=default rsa_id=000700000000000000000000000000000000000g", Outcome::LineLost),
        ("Guard in=default rsa_id=0007000000000000000000000000000000000000", Outcome::LineLost),
        ("Guard in=legacy rsa_id=0001000000000000000000000000000000000000", Outcome::LineLost),
        (
            "Guard in=default rsa_id=0001000000000000000000000000000000000000 sampled_on=yesterday",
            Outcome::Mended,
        ),
        (
            "Guard in=default rsa_id=0001000000000000000000000000000000000000 confirmed_idx=-1",
            Outcome::Mended,
        ),
        (
            "Guard in=default rsa_id=0001000000000000000000000000000000000000 listed=1 listed=0",
            Outcome::Mended,
        ),
        (
            "Guard in=default rsa_id=0001000000000000000000000000000000000000 pb_timeouts=many",
            Outcome::Mended,
        ),
        (
            "Guard in=default rsa_id=0001000000000000000000000000000000000000 pb_timeouts=1 pb_timeouts=1",
            Outcome::Mended,
        ),
    ] {
        let (guards, damage) = read(&format!("{good}{line}\n"));
        assert_eq!(damage.iter().map(|d| (d.line, d.outcome)).collect::<Vec<_>>(), [(2, outcome)], "{line}");
        assert!(damage[0].to_string().starts_with("line 2 of the state file (Guard): "), "{}", damage[0]);
        let kept = 1 + usize::from(outcome == Outcome::Mended);
        assert_eq!(guards.sample().count(), kept, "{line}");
        let (again, damage) = read(&write(&guards, line));
        assert_eq!((again.sample().count(), damage.len()), (kept, 0));
    }
}

#[test]
fn more_guards_than_can_be_are_left_out() {
    let all = GUARD_SAMPLE as u16 + 10;
    let text: String =
        (0..all).rev().map(|n| format!("Guard in=default rsa_id={} sampled_idx={n}\n", id(n))).collect();
    let (guards, damage) = read(&text);
    assert_eq!((guards.sample().count(), damage.len()), (GUARD_SAMPLE, 10));
    assert!(guards.sample().map(Guard::identity).eq((0..GUARD_SAMPLE as u16).map(id)));
}

fn word() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "in",
        "rsa_id",
        "nickname",
        "sampled_on",
        "sampled_idx",
        "sampled_by",
        "unlisted_since",
        "listed",
        "confirmed_on",
        "confirmed_idx",
        "bridge_addr",
        "pb_timeouts",
        "pb_circ_attempts",
        "pb_future",
        "other",
    ]);
    let value = prop_oneof![
        "[0-9]{1,11}",
        "[0-9]{1,9}\\.[0-9]{1,9}",
        "[ -~]{0,12}",
        Just("default".to_owned()),
        Just("restricted".to_owned()),
        "[0-9A-Fa-f]{40}",
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]",
    ];
    (key, value).prop_map(|(key, value)| format!("{key}={value}"))
}

proptest! {
    #[test]
    fn any_lines_read_and_what_is_written_reads_the_same(
        lines in prop::collection::vec(prop::collection::vec(word(), 0..8), 0..8),
    ) {
        let head = format!("in=default rsa_id={}", id(3));
        let text: String = lines
            .iter()
            .enumerate()
            .map(|(n, words)| {
                let words = words.join(" ").replace('\n', "");
                if n.is_multiple_of(2) { format!("Guard {head} {words}\n") } else { format!("Guard {words}\n") }
            })
            .collect();
        let (guards, _) = read(&text);
        let written = write(&guards, &text);
        let (again, damage) = read(&written);
        prop_assert_eq!(damage, vec![]);
        prop_assert_eq!(&again.samples, &guards.samples);
        prop_assert_eq!(write(&again, &written), written);
    }
}
