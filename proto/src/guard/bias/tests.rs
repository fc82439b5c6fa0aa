use proptest::prelude::*;

use super::*;

const TERMS: BiasTerms = BiasTerms {
    circuits: 10,
    circuit_rates: [0.7, 0.5, 0.3],
    uses: 10,
    use_rates: [0.8, 0.0, 0.6],
    scale_circuits: 300,
    scale_uses: 100,
    scale: (1, 2),
    drop: false,
};

const BY_US: Step = Step::Closed { by_others: false };
const BY_OTHERS: Step = Step::Closed { by_others: true };

#[derive(Default)]
struct Guard {
    record: Record,
    said: Vec<(Failing, Level)>,
}

impl Guard {
    /// A circuit that goes these steps.
    fn circuit(&mut self, terms: &BiasTerms, steps: &[Step]) -> Course {
        let mut course = Course::new(Fingerprint([1; 20]));
        for step in steps {
            self.step(&mut course, *step, terms);
        }
        course
    }

    fn step(&mut self, course: &mut Course, step: Step, terms: &BiasTerms) {
        self.said.extend(self.record.step(course, step, terms).0);
    }

    fn counts(&self) -> Vec<String> {
        self.record.words().collect()
    }
}

fn counts_after(steps: &[Step]) -> String {
    let mut guard = Guard::default();
    guard.circuit(&TERMS, steps);
    guard.counts().join(" ").replace(".000000", "")
}

#[test]
fn circuits_count_for_what_became_of_them() {
    use Step::{Answered, Built, Garbled, Left, SecondHop, TimedOut, Used};
    for (steps, counts) in [
        (&[BY_OTHERS][..], ""),
        (&[TimedOut, BY_US], "pb_timeouts=1"),
        (&[SecondHop, BY_OTHERS], "pb_circ_attempts=1"),
        (&[SecondHop, TimedOut, BY_US], "pb_circ_attempts=1 pb_timeouts=1"),
        (&[SecondHop, Built, BY_OTHERS], "pb_circ_attempts=1 pb_circ_successes=1 pb_collapsed_circuits=1"),
        (
            &[SecondHop, Built, BY_US],
            "pb_circ_attempts=1 pb_circ_successes=1 pb_successful_circuits_closed=1",
        ),
        (
            &[SecondHop, Built, Used, Answered, Used, BY_OTHERS],
            "pb_use_attempts=1 pb_use_successes=1 pb_circ_attempts=1 pb_circ_successes=1 \
             pb_successful_circuits_closed=1",
        ),
        (
            &[SecondHop, Built, Used, Answered, Left, BY_US],
            "pb_use_attempts=1 pb_circ_attempts=1 pb_circ_successes=1 pb_unusable_circuits=1",
        ),
        (
            &[SecondHop, Built, Used, Answered, Garbled, Answered, BY_US],
            "pb_use_attempts=1 pb_circ_attempts=1 pb_circ_successes=1 pb_unusable_circuits=1",
        ),
        // What cannot be is passed over.
        (&[Built, Used, Answered, BY_US, SecondHop, Built], ""),
        (&[SecondHop, SecondHop, Answered, BY_US, BY_US], "pb_circ_attempts=1"),
    ] {
        assert_eq!(counts_after(steps), counts, "{steps:?}");
    }
}

#[test]
fn open_circuits_get_the_benefit_of_the_doubt() {
    let served = "pb_use_attempts=1 pb_use_successes=1 pb_circ_attempts=1 pb_circ_successes=1 \
                  pb_successful_circuits_closed=1";
    assert_eq!(counts_after(&[Step::SecondHop, Step::Built, Step::Used]), served);
    let mut guard = Guard::default();
    let mut course = guard.circuit(&TERMS, &[Step::SecondHop, Step::Built, Step::Used]);
    assert!(course.is_in_doubt());
    guard.step(&mut course, Step::Answered, &TERMS);
    assert!(!course.is_in_doubt());
    // Only what is written says whether something has changed.
    assert!(!guard.record.step(&mut course, BY_US, &TERMS).1);
    assert!(!guard.record.step(&mut Course::new(Fingerprint([1; 20])), BY_US, &TERMS).1);
    assert!(guard.record.step(&mut Course::new(Fingerprint([1; 20])), Step::SecondHop, &TERMS).1);
}

#[test]
fn each_level_is_said_once_when_more_than_enough_circuits_were_seen() {
    let mut guard = Guard::default();
    let fail = |guard: &mut Guard, n| {
        for _ in 0..n {
            guard.circuit(&TERMS, &[Step::SecondHop, BY_OTHERS]);
        }
    };
    for _ in 0..7 {
        guard.circuit(&TERMS, &[Step::SecondHop, Step::Built, BY_US]);
    }
    fail(&mut guard, 4);
    assert_eq!(guard.said, [], "it is seen at the next attempt");
    // 7 of 11, then 7 of 15, then 7 of 24.
    for (more, level) in [(1, Level::Notable), (4, Level::Bad), (9, Level::Extreme)] {
        guard.said.clear();
        fail(&mut guard, more);
        assert_eq!(guard.said, [(Failing::Circuits, level)]);
        guard.said.clear();
        guard.circuit(&TERMS, &[Step::SecondHop]);
        assert_eq!(guard.said, []);
    }
    let said = guard.record.suspicion(Fingerprint([1; 20]), Some("relay"), Failing::Circuits, Level::Extreme);
    assert_eq!((said.well, said.all, said.nickname.as_deref()), (7, 28, Some("relay")));
    assert!(!guard.record.dropped);
}

#[test]
fn streams_are_judged_when_circuits_are_used() {
    let mut guard = Guard::default();
    for _ in 0..11 {
        guard.circuit(&TERMS, &[Step::SecondHop, Step::Built, Step::Used, Step::Left, BY_US]);
    }
    // Circuits that carry nothing are no success either.
    assert_eq!(guard.said, []);
    guard.circuit(&TERMS, &[Step::SecondHop, Step::Built, Step::Used]);
    assert_eq!(guard.said, [(Failing::Circuits, Level::Extreme), (Failing::Streams, Level::Extreme)]);
    let said = guard.record.suspicion(Fingerprint([1; 20]), None, Failing::Streams, Level::Extreme);
    assert_eq!((said.well, said.all, said.unusable), (1, 12, 11));
}

#[test]
fn a_rate_of_0_switches_a_level_off_and_a_guard_is_dropped_only_if_that_is_wanted() {
    let fail = |terms: &BiasTerms| {
        let mut guard = Guard::default();
        for _ in 0..13 {
            guard.circuit(terms, &[Step::SecondHop, BY_OTHERS]);
        }
        guard
    };
    assert_eq!(fail(&BiasTerms { circuit_rates: [0.0; 3], ..TERMS }).said, []);
    let dropping = BiasTerms { drop: true, ..TERMS };
    let mut guard = fail(&dropping);
    assert_eq!(guard.said, [(Failing::Circuits, Level::Dropped)]);
    assert!(guard.record.dropped);
    guard.record.review(&TERMS);
    assert!(!guard.record.dropped);
    guard.record.review(&dropping);
    assert!(guard.record.dropped);
}

#[test]
fn what_is_old_counts_less() {
    let mut guard = Guard::default();
    let terms = BiasTerms { scale_circuits: 100, scale_uses: 100, ..TERMS };
    let served = [Step::SecondHop, Step::Built, Step::Used, Step::Answered];
    let _open = guard.circuit(&terms, &served);
    for _ in 0..100 {
        guard.circuit(&terms, &[&served[..], &[BY_US]].concat());
    }
    assert_eq!(guard.counts()[..2], ["pb_use_attempts=101.000000", "pb_use_successes=101.000000"]);
    guard.circuit(&terms, &[&served[..], &[BY_US]].concat());
    // The half of a hundred, the open one, and the new one.
    assert_eq!(
        guard.counts(),
        [
            "pb_use_attempts=52.000000",
            "pb_use_successes=52.000000",
            "pb_circ_attempts=52.000000",
            "pb_circ_successes=52.000000",
            "pb_successful_circuits_closed=52.000000"
        ]
    );
}

#[test]
fn counts_are_read_as_they_are_written() {
    let read = |word| Record::read(word);
    assert_eq!(read("pb_use_attempts=3.000000"), Some((0, Some(3_000_000))));
    assert_eq!(read("pb_timeouts=0.25"), Some((7, Some(250_000))));
    for bad in ["pb_timeouts=", "pb_timeouts=x", "pb_timeouts=-1", "pb_timeouts=1e10", "pb_timeouts=NaN"] {
        assert_eq!(read(bad), Some((7, None)), "{bad}");
    }
    assert_eq!(read("pb_future=1"), None);
    assert_eq!(read("pb_timeouts"), None);
}

proptest! {
    #[test]
    fn written_counts_read_the_same(number in 0.0..1e9f64) {
        let count = Count::read(&number.to_string()).unwrap();
        prop_assert_eq!(Count::read(&count.to_string()), Some(count));
    }

    /// Whatever happens to circuits, no more of them did well than there were.
    #[test]
    fn shares_are_shares(
        steps in prop::collection::vec((0usize..8, prop::sample::select(vec![
            Step::SecondHop, Step::Built, Step::TimedOut, Step::Used, Step::Answered, Step::Left, Step::Garbled,
            BY_US, BY_OTHERS,
        ])), 0..600),
        drop in any::<bool>(),
    ) {
        let terms = BiasTerms { scale_circuits: 20, scale_uses: 10, drop, ..TERMS };
        let mut record = Record::default();
        let mut courses = vec![Course::new(Fingerprint([1; 20])); 8];
        for (n, step) in steps {
            record.step(&mut courses[n], step, &terms);
            if matches!(step, Step::Closed { .. }) {
                courses[n] = Course::new(Fingerprint([1; 20]));
            }
            for failing in [Failing::Circuits, Failing::Streams] {
                let (well, all) = record.share(failing);
                prop_assert!(well <= all, "{failing:?}: {well} of {all}");
            }
        }
    }
}
