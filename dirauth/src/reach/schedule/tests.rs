use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn relay(n: u16) -> Fingerprint {
    let mut identity = [0; 20];
    identity[18..].copy_from_slice(&n.to_be_bytes());
    Fingerprint(identity)
}

fn relays(count: u16) -> BTreeSet<Fingerprint> {
    (0..count).map(relay).collect()
}

fn pace() -> Pace {
    Pace { cycle: 1000 * SECOND, repeat: 100 * SECOND, gap: SECOND / 10, at_once: 8 }
}

/// A schedule that is carried out.
struct Tests {
    schedule: Schedule,
    /// How long each takes.
    takes: Duration,
    over: BTreeSet<(Mono, Fingerprint)>,
    begun: Vec<(Mono, Fingerprint)>,
}

impl Tests {
    fn new(pace: Pace, salt: u64, count: u16, takes: Duration) -> Tests {
        let mut schedule = Schedule::new(pace, salt);
        schedule.set_relays(&relays(count), Mono(0));
        Tests { schedule, takes, over: BTreeSet::new(), begun: Vec::new() }
    }

    /// Lets time pass until `end`.
    fn run(&mut self, end: Mono, repeat: impl Fn(&Fingerprint) -> bool) {
        loop {
            let over = self.over.first().map(|(at, _)| *at);
            let next = [self.schedule.poll_timeout(), over].into_iter().flatten().min();
            let Some(now) = next.filter(|next| *next <= end) else { return };
            while let Some((at, relay)) = self.over.first().copied().filter(|(at, _)| *at <= now) {
                self.over.remove(&(at, relay));
                self.schedule.finished(relay, repeat(&relay), at);
            }
            while let Some(relay) = self.schedule.poll(now) {
                self.begun.push((now, relay));
                self.over.insert((now + self.takes, relay));
            }
        }
    }

    fn starts_of(&self, relay: Fingerprint) -> Vec<Mono> {
        self.begun.iter().filter(|(_, tested)| *tested == relay).map(|(at, _)| *at).collect()
    }
}

#[test]
fn everybody_is_tested_once_in_a_cycle_spread_over_it() {
    let mut tests = Tests::new(pace(), 7, 1000, SECOND / 2);
    tests.run(Mono(0) + 3000 * SECOND, |_| false);
    for n in 0..1000 {
        let starts = tests.starts_of(relay(n));
        assert!((2..=4).contains(&starts.len()), "{n}: {starts:?}");
        for pair in starts.windows(2) {
            let between = pair[1].since(pair[0]);
            assert!((980 * SECOND..1020 * SECOND).contains(&between), "{n}: {between:?}");
        }
    }
    // No tenth of a cycle has much more than its share.
    let mut tenths = [0; 30];
    for (at, _) in &tests.begun {
        tenths[(at.since(Mono(1)).as_secs() / 100) as usize] += 1;
    }
    assert!(tenths.iter().all(|tests| (60..150).contains(tests)), "{tenths:?}");
}

#[test]
fn whoever_is_in_a_hurry_comes_next_but_does_not_overtake() {
    let mut schedule = Schedule::new(pace(), 7);
    schedule.set_relays(&relays(3), Mono(0));
    schedule.hurry(relay(2), Mono(5));
    schedule.hurry(relay(1), Mono(6));
    // Asking again gains nothing, and does not lose the place.
    schedule.hurry(relay(2), Mono(7));
    assert_eq!(schedule.poll(Mono(8)), Some(relay(2)));
    assert_eq!(schedule.poll(Mono(8)), None);
    // Under way: it comes again, after the other.
    schedule.hurry(relay(2), Mono(9));
    schedule.finished(relay(2), false, Mono(10));
    let later = Mono(8) + pace().gap;
    assert_eq!(schedule.poll_timeout(), Some(later));
    assert_eq!(schedule.poll(later), Some(relay(1)));
    assert_eq!(schedule.poll(later + pace().gap), Some(relay(2)));
    // One that is new to the schedule.
    schedule.hurry(relay(9), later);
    assert_eq!(schedule.poll(later + 2 * pace().gap), Some(relay(9)));
}

#[test]
fn what_failed_is_repeated_sooner() {
    let mut tests = Tests::new(pace(), 7, 20, SECOND);
    tests.run(Mono(0) + 5000 * SECOND, |tested| *tested == relay(0));
    assert!((41..=52).contains(&tests.starts_of(relay(0)).len()));
    assert!((4..=6).contains(&tests.starts_of(relay(1)).len()));
}

#[test]
fn those_who_are_gone_are_tested_no_more() {
    let mut schedule = Schedule::new(pace(), 7);
    schedule.set_relays(&relays(2), Mono(0));
    schedule.hurry(relay(0), Mono(0));
    assert_eq!(schedule.poll(Mono(0)), Some(relay(0)));
    schedule.set_relays(&BTreeSet::new(), Mono(1));
    // Only the one under way comes back, until it is said again who is there.
    schedule.finished(relay(0), false, Mono(2));
    assert!(schedule.knows(&relay(0)) && !schedule.knows(&relay(1)));
    schedule.set_relays(&BTreeSet::new(), Mono(3));
    assert_eq!((schedule.poll_timeout(), schedule.under_way()), (None, 0));
    // What nobody waits for does no harm.
    schedule.finished(relay(5), true, Mono(4));
    assert!(!schedule.knows(&relay(5)));
}

proptest! {
    /// Whatever happens: the bounds hold, and everybody has his turn.
    #[test]
    fn bounds_hold_and_nobody_starves(
        salt: u64,
        count in 1u16..200,
        takes in 0u32..30,
        at_once in 1usize..20,
        // Relays that ask all the time to be looked at.
        pushy in 0u16..20,
    ) {
        let pace = Pace { at_once, ..pace() };
        let takes = takes * SECOND;
        let mut tests = Tests::new(pace, salt, count, takes);
        // What one test of each takes, and as much again for those that ask.
        let each = (takes / u32::try_from(at_once).unwrap()).max(pace.gap);
        let enough = pace.cycle + 3 * u32::from(count) * each + takes;
        for step in 0..20u32 {
            for n in 0..pushy.min(count) {
                tests.schedule.hurry(relay(n), Mono(0) + enough * step / 20);
            }
            tests.run(Mono(0) + enough * (step + 1) / 20, |_| false);
        }
        for pair in tests.begun.windows(2) {
            prop_assert!(pair[1].0.since(pair[0].0) >= pace.gap);
        }
        for (n, (at, _)) in tests.begun.iter().enumerate() {
            let others = tests.begun[..n].iter().rev().take_while(|(before, _)| at.since(*before) < takes);
            prop_assert!(others.count() < at_once);
        }
        for n in 0..count {
            prop_assert!(!tests.starts_of(relay(n)).is_empty(), "{n} was never tested");
        }
    }
}
