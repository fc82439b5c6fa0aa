use super::*;
use proptest::prelude::*;

const RATE: Rate = Rate { per_second: 1000, burst: 5000 };

fn at(millis: u64) -> Mono {
    Mono(millis * 1000)
}

#[test]
fn starts_full_whenever_that_is() {
    assert_eq!(Bucket::full(RATE).level(at(0)), 5000);
    let bucket = Bucket::full(RATE);
    assert!(bucket.is_full(at(1_000_000)));
    assert_eq!(bucket.level(at(1_000_000)), 5000);
}

#[test]
fn fills_at_its_rate_up_to_its_burst() {
    let mut bucket = Bucket::full(RATE);
    bucket.charge(at(1000), 5000);
    assert_eq!(bucket.level(at(1000)), 0);
    assert_eq!(bucket.level(at(1500)), 500);
    assert!(!bucket.is_full(at(5999)));
    assert!(bucket.is_full(at(6000)));
    assert_eq!(bucket.level(at(60_000)), 5000);
}

#[test]
fn what_is_owed_is_paid_first() {
    let mut bucket = Bucket::full(RATE);
    bucket.charge(at(0), 7000);
    assert_eq!(bucket.level(at(0)), -2000);
    assert!(!bucket.take_one(at(2000)));
    assert!(bucket.take_one(at(2001)));
    assert_eq!(bucket.due(100), at(2101));
    // More than it can hold is never there.
    assert_eq!(bucket.due(1_000_000), at(7001));
}

#[test]
fn another_rate_keeps_what_is_there() {
    let mut bucket = Bucket::full(RATE);
    bucket.charge(at(1000), 4000);
    bucket.adjust(Rate { per_second: 10, burst: 2000 }, at(1000));
    assert_eq!(bucket.level(at(1000)), 1000);
    assert_eq!(bucket.level(at(2000)), 1010);
    bucket.adjust(Rate { per_second: 10, burst: 100 }, at(2000));
    assert_eq!(bucket.level(at(2000)), 100);
    bucket.charge(at(2000), 300);
    bucket.adjust(RATE, at(2000));
    assert_eq!(bucket.level(at(2000)), -200);
}

proptest! {
    #[test]
    fn never_gives_more_than_burst_and_rate(
        per_second in 1u64..1 << 31,
        burst in 1u64..1 << 31,
        start in 0u64..1 << 45,
        steps in prop::collection::vec((0u64..3_000_000, 0u64..1 << 20), 1..50),
    ) {
        let mut bucket = Bucket::full(Rate { per_second, burst });
        let (mut now, mut taken) = (Mono(start), 0);
        for (wait, want) in steps {
            now = Mono(now.0 + wait);
            let take = want.min(u64::try_from(bucket.level(now)).unwrap_or(0));
            bucket.charge(now, take);
            taken += take;
        }
        let most = u128::from(burst) + u128::from(per_second) * u128::from(now.0 - start) / 1_000_000 + 1;
        prop_assert!(u128::from(taken) <= most);
    }

    #[test]
    fn what_is_due_is_there_and_not_before(
        per_second in 1u64..1 << 31, burst in 1u64..1 << 31, spent in 0u64..1 << 40, tokens in 0u64..1 << 31,
    ) {
        let rate = Rate { per_second, burst };
        let due = rate.due(spent, tokens);
        let wanted = i64::try_from(tokens.min(burst)).unwrap();
        prop_assert!(rate.level(spent, due) >= wanted);
        if due.0 > 0 {
            prop_assert!(rate.level(spent, Mono(due.0 - 1)) < wanted);
        }
    }
}
