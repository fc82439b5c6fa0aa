use super::*;

const NOW: Unix = Unix(1_790_000_000);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Totals that grow by these rates for `seconds`, from `from` on; gives the totals at the end.
fn carry(history: &mut History, from: u64, seconds: u64, mut totals: [u64; 2], rates: [u64; 2]) -> [u64; 2] {
    for second in 1..=seconds {
        totals = [totals[0] + rates[0], totals[1] + rates[1]];
        history.observe(NOW + secs(from + second), secs(from + second), totals);
    }
    totals
}

#[test]
fn the_slower_direction_counts_and_only_over_ten_seconds() {
    let mut history = History::new(NOW);
    history.observe(NOW, secs(0), [0; 2]);
    let totals = carry(&mut history, 0, 9, [0; 2], [5000, 3000]);
    assert_eq!(history.observed(), 0, "nine seconds are no window");
    let totals = carry(&mut history, 9, 1, totals, [5000, 3000]);
    assert_eq!(history.observed(), 3000);
    // Of a burst of five seconds, half a window's worth.
    let totals = carry(&mut history, 10, 5, totals, [5000, 9000]);
    assert_eq!(history.observed(), 5000);
    carry(&mut history, 15, 100, totals, [0, 0]);
    assert_eq!(history.observed(), 5000);
}

#[test]
fn late_looks_do_not_make_the_relay_look_faster() {
    let mut history = History::new(NOW);
    // A look every four seconds at 1000 bytes a second; the window is twelve seconds then.
    for look in 0..20 {
        history.observe(NOW + secs(4 * look), secs(4 * look), [4000 * look; 2]);
    }
    assert_eq!(history.observed(), 1000);
}

#[test]
fn a_good_day_is_forgotten_after_five_more() {
    let mut history = History::new(NOW);
    history.observe(NOW, secs(0), [0; 2]);
    let totals = carry(&mut history, 0, 20, [0; 2], [7000, 7000]);
    let later = |days: u64, history: &mut History| {
        let at = secs(days * 86_400 + 100);
        history.observe(NOW + at, at, totals);
        history.observed()
    };
    assert_eq!(later(5, &mut history), 7000);
    assert_eq!(later(6, &mut history), 0);
}

#[test]
fn the_state_file_of_c_tor_keeps_it_and_loses_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    assert_eq!(History::load(data, NOW).unwrap().observed(), 0);
    // As C tor 0.4.9 writes it.
    let theirs = format!(
        "# Tor state file last generated on 2026-09-21 14:13:20 local time\nBWHistoryDirReadEnds 2026-09-22 14:00:00\n\
         BWHistoryReadEnds {}\nBWHistoryReadInterval 86400\nBWHistoryReadMaxima 40960,81920,1024\n\
         BWHistoryReadValues 1024,2048,1024\nBWHistoryWriteEnds {}\nBWHistoryWriteInterval 86400\n\
         BWHistoryWriteMaxima 10240,61440,2048\nBWHistoryWriteValues 1024,2048,3072\n\
         Guard in=default rsa_id=00\nTorVersion Tor 0.4.9.11\n",
        format_time(NOW + secs(3600)),
        format_time(NOW + secs(3600)),
    );
    fs::write(data.join("state"), &theirs).unwrap();
    let mut history = History::load(data, NOW).unwrap();
    assert_eq!(history.observed(), 61_440);
    history.observe(NOW, secs(0), [0; 2]);
    carry(&mut history, 0, 10, [0; 2], [2 << 20, 1 << 20]);
    assert_eq!(history.observed(), 1 << 20);
    history.save(data).unwrap();
    let state = fs::read_to_string(data.join("state")).unwrap();
    for kept in
        ["# Tor state file", "BWHistoryDirReadEnds 2026-09-22 14:00:00", "Guard in=default", "TorVersion Tor"]
    {
        assert!(state.contains(kept), "{state}");
    }
    assert_eq!(state.matches("BWHistoryReadValues").count(), 1, "{state}");
    assert!(state.contains("BWHistoryWriteMaxima 10240,61440,1048576\n"), "{state}");
    let loaded = History::load(data, NOW + secs(60)).unwrap();
    assert_eq!(loaded.observed(), 1 << 20);
    assert_eq!(
        loaded.series,
        history.series.map(|mut series| {
            series.present.bytes &= !0x3ff;
            series
        })
    );
    // Long after, it says nothing of what the relay can do.
    assert_eq!(History::load(data, NOW + secs(20 * 86_400)).unwrap().observed(), 0);
}

#[test]
fn the_bytes_of_past_days_are_published() {
    let mut history = History::new(NOW);
    assert_eq!(history.lines(), [""; 0], "no day is over");
    history.observe(NOW, secs(0), [0; 2]);
    let totals = carry(&mut history, 0, 2, [0; 2], [1500, 600]);
    history.observe(NOW + secs(86_400), secs(86_400), totals);
    history.observe(NOW + secs(2 * 86_400), secs(2 * 86_400), [10_000, 20_000]);
    assert_eq!(
        history.lines(),
        [
            "write-history 2026-09-23 14:13:20 (86400 s) 1024,0",
            "read-history 2026-09-23 14:13:20 (86400 s) 2048,0",
        ]
    );
}

#[test]
fn damaged_lines_count_for_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for lines in [
        "BWHistoryReadEnds soon\nBWHistoryReadInterval 86400\nBWHistoryReadValues 1\nBWHistoryReadMaxima 1\n",
        "BWHistoryReadEnds 2026-09-21 15:13:20\nBWHistoryReadInterval 900\nBWHistoryReadValues 1\nBWHistoryReadMaxima 1\n",
        "BWHistoryReadEnds 2026-09-21 15:13:20\nBWHistoryReadInterval 86400\nBWHistoryReadValues 1,2\nBWHistoryReadMaxima 1\n",
        "BWHistoryReadEnds 9999-09-21 15:13:20\nBWHistoryReadInterval 86400\nBWHistoryReadValues 1\nBWHistoryReadMaxima 1\n",
        "BWHistoryReadEnds\nBWHistoryReadValues -1\n",
    ] {
        fs::write(directory.path().join("state"), lines).unwrap();
        assert_eq!(History::load(directory.path(), NOW).unwrap().series, History::new(NOW).series, "{lines}");
    }
}
