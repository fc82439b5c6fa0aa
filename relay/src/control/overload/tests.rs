use super::*;

/// 2026-09-21 14:13:20; the hour began 800 s before.
const NOW: Unix = Unix(1_790_000_000);
const HOUR: Unix = Unix(1_789_999_200);
const LIMIT: Rate = Rate { per_second: 1000, burst: 2000 };

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn limits() -> NtorLimits {
    NtorLimits::new(&ConsensusParams::default())
}

fn after(totals: Totals) -> Overload {
    let mut overload = Overload::default();
    overload.observe(NOW, totals, limits());
    overload
}

#[test]
fn a_relay_with_nothing_to_tell_tells_nothing() {
    let overload = after(Totals { ntor: [5000, 0], ..Totals::default() });
    assert_eq!((overload.told(Kind::General, NOW), overload.lines(NOW, LIMIT)), (None, vec![]));
}

#[test]
fn memory_and_ports_are_general_and_told_by_the_hour_for_three_days() {
    let memory = Totals { circuits_shed: 1, ..Totals::default() };
    let ports = Totals { ports_exhausted: 1, ..Totals::default() };
    for totals in [memory, ports] {
        let mut overload = after(totals);
        // The same totals again are no event.
        overload.observe(NOW + secs(7200), totals, limits());
        assert_eq!(overload.told(Kind::General, NOW), Some(HOUR));
        assert_eq!(overload.told(Kind::General, HOUR + TOLD - secs(1)), Some(HOUR));
        assert_eq!(overload.told(Kind::General, HOUR + TOLD), None);
        assert_eq!(overload.lines(NOW, LIMIT), [""; 0]);
    }
}

#[test]
fn file_descriptors_are_told_for_three_days_in_the_extra_info() {
    let overload = after(Totals { files_exhausted: 1, ..Totals::default() });
    assert_eq!(overload.told(Kind::General, NOW), None);
    let line = "overload-fd-exhausted 1 2026-09-21 14:00:00";
    assert_eq!(overload.lines(HOUR + TOLD - secs(1), LIMIT), [line]);
    assert_eq!(overload.lines(HOUR + TOLD, LIMIT), [""; 0]);
}

#[test]
fn used_up_bandwidth_is_told_for_a_day_and_counted_once_a_minute_and_direction() {
    let mut overload = Overload::default();
    let mut totals = Totals::default();
    // Reading all the time for two minutes and a second, writing once.
    for second in 0..=120 {
        totals.bandwidth[0] += 7;
        totals.bandwidth[1] = 3;
        overload.observe(NOW + secs(second), totals, limits());
    }
    let line = "overload-ratelimits 1 2026-09-21 14:00:00 1000 2000 3 1";
    assert_eq!(overload.lines(NOW, LIMIT), [line]);
    assert_eq!(overload.lines(HOUR + BANDWIDTH_TOLD - secs(1), LIMIT), [line]);
    assert_eq!(overload.lines(HOUR + BANDWIDTH_TOLD, LIMIT), [""; 0]);

    // Counts are those since the start.
    totals.bandwidth[1] += 1;
    totals.files_exhausted += 1;
    overload.observe(NOW + secs(100_000), totals, limits());
    let lines = overload.lines(NOW + secs(100_000), LIMIT);
    let expected = [
        "overload-ratelimits 1 2026-09-22 18:00:00 1000 2000 3 2",
        "overload-fd-exhausted 1 2026-09-22 18:00:00",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn one_percent_of_ntor_handshakes_dropped_in_six_hours_is_general() {
    let period = secs(6 * 3600);
    let judged = |asked, dropped, at| {
        let mut overload = after(Totals::default());
        overload.observe(NOW + at, Totals { ntor: [asked, dropped], ..Totals::default() }, limits());
        overload.told(Kind::General, NOW + at).is_some()
    };
    assert!(judged(1000, 10, period) && judged(50_000, 500, period));
    assert!(!judged(1000, 9, period) && !judged(50_000, 499, period));
    assert!(!judged(1000, 1000, period - secs(1)), "the period is not over");
    assert!(!judged(999, 999, period), "too few to judge by");
}

#[test]
fn few_ntor_handshakes_are_counted_on_and_each_period_by_itself() {
    let mut overload = after(Totals::default());
    let mut observe = |hours: u64, asked, dropped| {
        let at = NOW + secs(hours * 3600);
        overload.observe(at, Totals { ntor: [asked, dropped], ..Totals::default() }, limits());
        overload.told(Kind::General, at)
    };
    assert_eq!(observe(6, 999, 100), None);
    let judged = observe(9, 1000, 100);
    assert_eq!(judged, Some(HOUR + secs(9 * 3600)));
    // The next period ends six hours after that, and knows nothing of what was before.
    assert_eq!(observe(14, 9000, 1000), judged);
    assert_eq!(observe(15, 101_000, 1099), judged);
    assert_eq!(observe(21, 102_000, 1109), Some(HOUR + secs(21 * 3600)));
}

#[test]
fn the_consensus_says_when_dropped_handshakes_are_an_overload() {
    assert_eq!(limits(), NtorLimits { period: secs(21_600), share: 1000 });
    let says: ConsensusParams =
        [("overload_onionskin_ntor_scale_percent", 50_000), ("overload_onionskin_ntor_period_secs", 60)]
            .into_iter()
            .collect();
    let limits = NtorLimits::new(&says);
    let mut overload = after(Totals::default());
    overload.observe(NOW + secs(60), Totals { ntor: [1000, 499], ..Totals::default() }, limits);
    assert_eq!(overload.told(Kind::General, NOW + secs(60)), None);
    overload.observe(NOW + secs(120), Totals { ntor: [2000, 999], ..Totals::default() }, limits);
    assert_eq!(overload.told(Kind::General, NOW + secs(120)), Some(HOUR));
}

#[test]
fn an_overload_lasts_for_a_minute_and_each_kind_by_itself() {
    let event = |kind| match kind {
        Kind::General => Totals { ports_exhausted: 1, ..Totals::default() },
        Kind::RateLimits => Totals { bandwidth: [0, 1], ..Totals::default() },
        Kind::FilesExhausted => Totals { files_exhausted: 1, ..Totals::default() },
    };
    for kind in Kind::ALL {
        assert!(!Overload::default().lasts(kind, NOW));
        let overload = after(event(kind));
        for other in Kind::ALL {
            assert_eq!(overload.lasts(other, NOW + secs(59)), other == kind, "{kind:?} {other:?}");
            assert_eq!(overload.told(other, NOW + secs(60)).is_some(), other == kind, "{kind:?} {other:?}");
            assert!(!overload.lasts(other, NOW + secs(60)));
        }
    }
    let mut overload = after(event(Kind::RateLimits));
    overload.observe(NOW + secs(90), Totals { bandwidth: [1, 1], ..Totals::default() }, limits());
    assert!(overload.lasts(Kind::RateLimits, NOW + secs(100)), "it is again");
}
