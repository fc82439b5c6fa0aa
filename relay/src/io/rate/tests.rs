use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use crate::engine::rate::RateLimits;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn task() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken::default());
    (woken.clone(), woken.into())
}

const RATE: Rate = Rate { per_second: 1_000_000, burst: 100_000 };

fn throttle(limits: RateLimits) -> Throttle {
    Throttle::new(Arc::new(Rates::new(limits, 1)))
}

/// Moves all there is.
fn exhaust(throttle: &Throttle, traffic: Traffic, now: Mono) {
    let (_, waker) = task();
    while let Poll::Ready(bytes) = throttle.poll(Direction::Read, traffic, now, &Context::from_waker(&waker))
    {
        throttle.charge(Direction::Read, traffic, bytes as u64);
    }
}

#[test]
fn those_who_wait_are_woken_in_turn_and_only_as_many_as_there_are_bytes_for() {
    let throttle = throttle(RateLimits { all: RATE, ..RateLimits::default() });
    let start = Mono(1_000_000);
    exhaust(&throttle, Traffic::Relayed, start);
    let tasks: Vec<_> = (0..3).map(|_| task()).collect();
    let poll = |n: usize, now| {
        throttle.poll(Direction::Read, Traffic::Relayed, now, &Context::from_waker(&tasks[n].1))
    };
    for n in [0, 1, 2, 0] {
        assert_eq!(poll(n, start), Poll::Pending);
    }
    // One task that is gone waits before them.
    let used_up = || throttle.reached(start)[0].all_used_up;
    let before = used_up();
    let Next::At(due) = throttle.turn(start) else { panic!("nobody waits") };
    assert!(before > 0 && used_up() > before, "also while somebody waits already");
    assert!(due > start && due.since(start) <= 2 * limits::RATE_ROUND, "{:?}", due.since(start));
    let woken = || tasks.iter().map(|(woken, _)| woken.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
    assert_eq!(throttle.turn(due), Next::Again);
    assert_eq!(woken(), [0, 0, 0]);
    assert_eq!(throttle.turn(due), Next::Again);
    assert_eq!(woken(), [1, 0, 0]);
    // It is no longer in the queue, and the others are not passed over.
    assert!(matches!(poll(0, due), Poll::Ready(bytes) if bytes <= limits::RATE_TURN));
    assert_eq!(poll(1, due), Poll::Pending);
    assert!(throttle.after_turn(Direction::Read, Traffic::Relayed, due, &Context::from_waker(&tasks[0].1)));
    let later = due + Duration::from_secs(1);
    while throttle.turn(later) != Next::Nothing {}
    assert_eq!(woken(), [2, 1, 1]);
    let [read, write] = throttle.reached(later);
    assert_eq!((read.times, write), (1, Reached::default()));
    assert_eq!(read.time, later.since(start));
}

#[test]
fn links_have_a_limit_that_exits_do_not_have() {
    let relayed = Some(RATE);
    let throttle = throttle(RateLimits { relayed, ..RateLimits::default() });
    let now = Mono(1_000_000);
    exhaust(&throttle, Traffic::Relayed, now);
    let (_, waker) = task();
    let cx = Context::from_waker(&waker);
    assert!(throttle.poll(Direction::Read, Traffic::Exit, now, &cx).is_ready());
    assert!(throttle.poll(Direction::Write, Traffic::Relayed, now, &cx).is_ready());
    assert!(throttle.poll(Direction::Read, Traffic::Relayed, now, &cx).is_pending());
    let [read, _] = throttle.reached(now);
    assert_eq!((read.times, read.all_used_up), (1, 0), "it is not the limit of all traffic");
}

#[test]
fn new_limits_count_for_those_who_wait() {
    let limits = RateLimits { all: RATE, ..RateLimits::default() };
    let rates = Arc::new(Rates::new(limits, 1));
    let throttle = Throttle::new(rates.clone());
    let now = Mono(1_000_000);
    exhaust(&throttle, Traffic::Relayed, now);
    let faster = Rate { per_second: 1 << 30, burst: 1 << 30 };
    throttle.set(Arc::new(rates.adjusted(RateLimits { all: faster, ..limits }, now)));
    let Next::At(due) = throttle.turn(now) else { panic!("nobody waits") };
    assert_eq!(throttle.turn(due), Next::Nothing);
}

#[test]
fn private_addresses_count_only_on_request() {
    let free = throttle(RateLimits::default());
    assert!(free.counts(false) && !free.counts(true));
    assert!(throttle(RateLimits { count_private: true, ..RateLimits::default() }).counts(true));
}
