use proptest::prelude::*;

use super::*;

fn totals(guard: i128, middle: i128, exit: i128, both: i128) -> Totals {
    Totals { guard, middle, exit, both, total: guard + middle + exit + both }
}

/// Which case of the specification totals belong to.
fn case(t: &Totals) -> &'static str {
    let (scarcer, other) = (t.guard.min(t.exit), t.guard.max(t.exit));
    match (3 * t.guard < t.total, 3 * t.exit < t.total) {
        (false, false) => "1",
        (true, true) if scarcer + t.both < other => "2a",
        (true, true) => "2b",
        _ if 3 * (scarcer + t.both) < t.total => "3a",
        _ => "3b",
    }
}

#[test]
fn every_case_as_c_tor_has_it() {
    let mut seen = std::collections::BTreeMap::new();
    for line in include_str!("cases.txt").lines().filter(|line| !line.starts_with('#')) {
        let (input, want) = line.split_once(" | ").unwrap();
        let n: Vec<i128> = input.split(' ').map(|n| n.parse().unwrap()).collect();
        let totals = totals(n[0], n[1], n[2], n[3]);
        let got = Weights::of(&totals, n[4]).map_or("-".to_owned(), |w| {
            [w.gg, w.gd, w.mg, w.me, w.md, w.ee, w.ed].map(|w| w.to_string()).join(" ")
        });
        assert_eq!(got, want, "{input}");
        let scarce = if totals.guard < totals.exit { "guards" } else { "exits" };
        *seen.entry((case(&totals), scarce, want == "-")).or_insert(0) += 1;
    }
    for case in ["1", "2a", "2b", "3a", "3b"] {
        assert!(
            seen.contains_key(&(case, "guards", false)) && seen.contains_key(&(case, "exits", false)),
            "{case}"
        );
    }
    assert!(seen.iter().any(|((case, _, suppressed), _)| *case == "2b" && *suppressed));
}

#[test]
fn relays_count_for_what_they_can_be() {
    let mut t = Totals::default();
    t.add(10, false, false, None);
    t.add(20, true, false, None);
    t.add(40, false, true, None);
    t.add(80, true, true, None);
    assert_eq!(t, totals(41, 11, 21, 81));
    // A guard for 30 percent of the time; the rest does not count in the total, as in C tor.
    t.add(101, false, true, Some(30));
    assert_eq!(t, Totals { total: 154 + 30, ..totals(41 + 30, 11 + 71, 21, 81) });
    t.add(100, true, true, Some(100));
    assert_eq!(t, Totals { total: 184 + 100, ..totals(71, 82, 21, 181) });
}

#[test]
fn the_line_is_sorted_and_complete() {
    let line = footer(&totals(40, 10, 40, 10), &VotedParams::default());
    assert_eq!(
        line,
        "directory-footer\nbandwidth-weights Wbd=3333 Wbe=2500 Wbg=2500 Wbm=10000 Wdb=10000 Web=10000 Wed=3333 \
         Wee=7500 Weg=3333 Wem=7500 Wgb=10000 Wgd=3333 Wgg=7500 Wgm=7500 Wmb=10000 Wmd=3333 Wme=2500 Wmg=2500 \
         Wmm=10000\n"
    );
    let unbalanced = totals(20, 200, 20, 60);
    assert_eq!(footer(&unbalanced, &VotedParams::default()), "directory-footer\n");
    let scaled = [("bwweightscale", -5)].into_iter().collect();
    assert!(footer(&totals(1, 1, 1, 1), &scaled).contains(" Wmm=1\n"));
}

proptest! {
    #[test]
    fn weights_are_fractions(g in 1..1i128 << 50, m in 1..1i128 << 50, e in 1..1i128 << 50, d in 1..1i128 << 50,
                             scale in 1..i128::from(i32::MAX)) {
        if let Some(w) = Weights::of(&totals(g, m, e, d), scale) {
            for weight in [w.gg, w.gd, w.mg, w.me, w.md, w.ee, w.ed] {
                prop_assert!((0..=scale).contains(&weight));
            }
        }
    }
}
