use proptest::prelude::*;

use super::*;

const NOW: Unix = Unix(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn relay(n: u8) -> Fingerprint {
    Fingerprint([n; 20])
}

#[test]
fn three_failed_rounds_in_a_row_and_one_that_passes() {
    let mut results = Results::default();
    assert!(results.link(&relay(1), Family::V4, NOW));
    assert!(results.link(&relay(1), Family::V6, NOW));
    let reached = Reached { v4: Some(NOW), v6: Some(NOW) };
    for round in [Round::Failed, Round::Unclear, Round::Failed, Round::Passed, Round::Failed, Round::Failed] {
        assert_eq!(results.round(&relay(1), round, NOW), None);
        assert_eq!(results.reached(&relay(1)), reached);
    }
    // What is unclear does not interrupt a row, nor is part of it.
    assert_eq!(results.round(&relay(1), Round::Unclear, NOW), None);
    assert_eq!(results.reached(&relay(1)), reached);
    assert_eq!(results.round(&relay(1), Round::Failed, NOW), Some(Change::Condemned));
    assert_eq!(results.reached(&relay(1)), Reached::default());
    assert_eq!(results.condemned().collect::<Vec<_>>(), [&relay(1)]);
    // Links no longer count, but are known.
    let later = NOW + MINUTE;
    assert!(!results.link(&relay(1), Family::V4, later));
    assert_eq!(results.reached(&relay(1)), Reached::default());
    assert_eq!(results.linked(&relay(1)).v4, Some(later));
    for round in [Round::Failed, Round::Unclear] {
        assert_eq!(results.round(&relay(1), round, later), None);
    }
    assert_eq!(results.round(&relay(1), Round::Passed, later), Some(Change::Cleared));
    assert_eq!(results.reached(&relay(1)), Reached { v4: Some(later), v6: Some(NOW) });
}

#[test]
fn proven_is_who_was_reached_lately_and_passed() {
    let mut results = Results::default();
    assert!(results.is_untested(&relay(1)) && !results.is_proven(&relay(1), NOW));
    results.round(&relay(1), Round::Passed, NOW);
    assert!(!results.is_proven(&relay(1), NOW));
    results.link(&relay(1), Family::V6, NOW);
    assert!(!results.is_proven(&relay(1), NOW));
    results.link(&relay(1), Family::V4, NOW);
    assert!(results.is_proven(&relay(1), NOW + 44 * MINUTE));
    assert!(!results.is_proven(&relay(1), NOW + 45 * MINUTE));
    results.round(&relay(1), Round::Failed, NOW);
    assert!(!results.is_proven(&relay(1), NOW) && results.is_up(&relay(1), NOW));
    results.forget_rounds();
    assert!(results.is_untested(&relay(1)));
    results.retain(|_| false);
    assert!(results.is_empty());
}

#[test]
fn a_file_is_read_as_far_as_it_is_good() {
    let hex = |n| relay(n).to_string();
    let state = format!(
        "format 1\nR {} v4=5 v6=6 passed=7 failed=2\nR {} v4=nonsense\nR {} new=thing failed=3\n\nX\nR {} v4=9\n\
         R {} failed=4\nR {} v4={}\nR 12",
        hex(1),
        hex(2),
        hex(3),
        hex(1),
        hex(4),
        hex(5),
        u64::MAX,
    );
    let (results, found) = Results::read(&state, NOW).unwrap();
    assert_eq!((results.len(), found.damaged), (3, 5));
    let expected =
        Record { links: Reached { v4: Some(Unix(5)), v6: Some(Unix(6)) }, passed: Some(Unix(7)), failed: 2 };
    assert_eq!(results.relays[&relay(1)], expected);
    assert_eq!(results.condemned().collect::<Vec<_>>(), [&relay(3)]);
    assert_eq!(results.linked(&relay(5)).v4, Some(NOW));
    let other = Results::read("format 2\n", NOW);
    assert_eq!(other, Err(StateError::Format("format 2".into())));
    assert!(Results::read("", NOW).is_err());
}

#[test]
fn there_is_room_for_so_many_relays() {
    let nth = |n: usize| {
        let mut identity = [0; 20];
        identity[..8].copy_from_slice(&n.to_be_bytes());
        Fingerprint(identity)
    };
    let mut results = Results::default();
    for n in 0..=STORED_RELAYS {
        results.link(&nth(n), Family::V4, NOW);
    }
    assert_eq!(results.len(), STORED_RELAYS);
    let mut state = results.write();
    state.push_str(&format!("R {}\n", nth(STORED_RELAYS)));
    let (read, found) = Results::read(&state, NOW).unwrap();
    assert_eq!((read, found.damaged), (results, 1));
}

fn records() -> impl Strategy<Value = Results> {
    let time = || proptest::option::of((0..=NOW.0).prop_map(Unix));
    let record = (time(), time(), time(), 0..=FAILED_ROUNDS).prop_map(|(v4, v6, passed, failed)| Record {
        links: Reached { v4, v6 },
        passed,
        failed,
    });
    proptest::collection::btree_map(any::<[u8; 20]>().prop_map(Fingerprint), record, 0..20)
        .prop_map(|relays| Results { relays })
}

proptest! {
    #[test]
    fn what_is_written_is_read(results in records()) {
        let read = Results::read(&results.write(), NOW).unwrap();
        prop_assert_eq!(read, (results, StateFindings::default()));
    }

    /// A file cut off anywhere loses no more than a line.
    #[test]
    fn a_file_that_was_cut_off(results in records(), cut in any::<prop::sample::Index>()) {
        let state = results.write();
        let end = cut.index(state.len() + 1);
        if let Ok((read, found)) = Results::read(&state[..end], NOW) {
            let lines = state[..end].lines().count() - 1;
            prop_assert!(read.len() + found.damaged == lines && found.damaged <= 1);
        }
    }

    #[test]
    fn any_text_does_no_harm(text in "(format 1\n)?(R [0-9A-F]{40}( (v4|v6|passed|failed|x)=[0-9]{0,22}){0,5}\n|.{0,40}\n){0,9}") {
        if let Ok((read, _)) = Results::read(&text, NOW) {
            prop_assert_eq!(Results::read(&read.write(), NOW), Ok((read, StateFindings::default())));
        }
    }

    /// The rule of three, whatever the rounds.
    #[test]
    fn whoever_fails_three_in_a_row_is_condemned(rounds in proptest::collection::vec(0..3u8, 0..40)) {
        let mut results = Results::default();
        results.link(&relay(1), Family::V4, NOW);
        let mut row = 0;
        for round in rounds {
            let round = [Round::Passed, Round::Failed, Round::Unclear][usize::from(round)];
            let was = row >= 3;
            row = match round {
                Round::Passed => 0,
                Round::Failed => row + 1,
                Round::Unclear => row,
            };
            let change = results.round(&relay(1), round, NOW);
            prop_assert_eq!(change.is_some(), was != (row >= 3));
            prop_assert_eq!(results.reached(&relay(1)).v4.is_none(), row >= 3);
        }
    }
}
