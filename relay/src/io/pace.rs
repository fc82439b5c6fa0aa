//! Pacing: a shard whose links have a steady trickle of cells looks at them at a fixed pace.
//!
//! Sleeping in io_uring until a socket has something costs far more than the handful of cells that it then has: the
//! poll, two timers, a barrier over all threads, two task switches, and most of it again on the shard to which the
//! cells cross. So a link that has just had something does not ask to be told of more; it waits for the shard's next
//! tick, and the shard, when nobody has anything left to do, naps until then, as network cards do that moderate their
//! interrupts. What comes in meanwhile is one larger batch.
//!
//! The more comes in, the shorter the time between ticks, at most [`limits::PACE`]; cells that cross from another shard
//! end a nap at once. Ticks end with the trickle: a link that had nothing for [`limits::PACE_PATIENCE`] waits for its
//! socket again, and when no link waits for ticks there are none.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};
use std::time::Duration;

use onionring_proto::time::Mono;

use crate::limits;

/// The ticks of one shard, and what it needs to know whether it may nap.
#[derive(Default)]
pub(super) struct Pace {
    tick: Cell<u64>,
    /// When the next tick is due.
    due: Cell<Mono>,
    interval: Cell<Duration>,
    /// Those who wait for the next tick.
    waiting: RefCell<Vec<Waker>>,
    /// Bytes that came in since the last tick.
    bytes: Cell<usize>,
    /// Since the last tick, a socket was full: the shard must hear when it no longer is.
    blocked: Cell<bool>,
    /// Something has happened since the pump's last turn.
    busy: Cell<bool>,
    lull: Cell<Lull>,
    /// The shard ticks.
    on: Cell<bool>,
    /// When the executor's rings were last looked at on purpose.
    looked: Cell<Mono>,
}

/// Whether anything waits in the background queue, which the pump cannot see: it has a task at the end of that queue
/// say so.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Lull {
    #[default]
    Unknown,
    Asked,
    Found,
}

/// What the pump does at the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Wait for whatever comes: nobody waits for a tick.
    Sleep,
    /// Wait for whatever comes, but not beyond the tick at this time.
    SleepUntil(Mono),
    /// The time has come for a [`Pace::tick`].
    Tick,
    /// Look again when all tasks had their turn.
    Again,
    /// Have the background queue asked for a [`Pace::lull`].
    Ask,
    /// Nobody has anything to do, and nothing to wait for but the tick at this time.
    Nap(Mono),
}

impl Pace {
    /// The number of the last tick.
    pub(super) fn now(&self) -> u64 {
        self.tick.get()
    }

    /// Whether the shard ticks, and so learns late what its rings have.
    pub(super) fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Has the task woken at the next tick. To be called once for each tick.
    ///
    /// Returns whether the pump has to be woken: nobody waited so far, so it may be asleep, with no tick to come.
    #[must_use]
    pub(super) fn wait(&self, cx: &Context<'_>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(cx.waker().clone());
        waiting.len() == 1
    }

    /// Something has happened of which more may follow.
    pub(super) fn busy(&self) {
        self.busy.set(true);
    }

    /// Bytes of cells came in.
    pub(super) fn took(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// A socket is full.
    pub(super) fn blocked(&self) {
        self.blocked.set(true);
    }

    /// The background queue has nothing to do, if that was asked.
    pub(super) fn lull(&self) -> bool {
        let asked = self.lull.get() == Lull::Asked;
        if asked {
            self.lull.set(Lull::Found);
        }
        asked
    }

    /// What to do at the end of a turn of the pump.
    pub(super) fn rest(&self, now: Mono, crossings: &mut Trickle) -> Rest {
        let busy = self.busy.take();
        let lull = self.lull.take();
        let due = match self.waiting.borrow().is_empty() {
            false => Some(self.due.get()),
            true => crossings.goes_on(now).then_some(now + limits::PACE),
        };
        self.on.set(due.is_some());
        let Some(due) = due else { return Rest::Sleep };
        if due <= now {
            Rest::Tick
        } else if busy {
            Rest::Again
        } else if self.blocked.get() {
            Rest::SleepUntil(due)
        } else if lull != Lull::Found {
            self.lull.set(Lull::Asked);
            Rest::Ask
        } else {
            Rest::Nap(due)
        }
    }

    /// Whether the executor has to look at its rings after a nap that ends at this time; if so, counts it as done.
    pub(super) fn looks_at_rings(&self, end: Mono) -> bool {
        let look = end.since(self.looked.get()) >= limits::RING_INTERVAL;
        if look {
            self.looked.set(end);
        }
        look
    }

    /// Wakes those that wait, and sets the time of the next tick.
    pub(super) fn tick(&self, now: Mono) {
        self.tick.set(self.tick.get() + 1);
        let interval = match self.bytes.take() {
            bytes if bytes > limits::PACE_BYTES => self.interval.get() / 2,
            bytes if bytes < limits::PACE_BYTES / 2 => self.interval.get() * 2,
            _ => self.interval.get(),
        };
        let interval = interval.clamp(limits::PACE_LEAST, limits::PACE);
        self.interval.set(interval);
        self.due.set(now + interval);
        self.blocked.set(false);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

/// Whether one source of cells, a link or the other shards, has a steady trickle.
#[derive(Default)]
pub(super) struct Trickle {
    last: Mono,
    steady: bool,
}

impl Trickle {
    /// There was something. Twice within [`limits::PACE_GAP`] is a trickle, and whatever comes to a shard that ticks
    /// anyway.
    pub(super) fn heard(&mut self, now: Mono, pace: &Pace) {
        self.steady |= pace.is_on() || now.since(self.last) < limits::PACE_GAP;
        self.last = now;
    }

    /// Whether more is to be expected; not if there has been nothing for [`limits::PACE_PATIENCE`].
    pub(super) fn goes_on(&mut self, now: Mono) -> bool {
        self.steady &= now.since(self.last) < limits::PACE_PATIENCE;
        self.steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Mono {
        Mono(1_000_000 + micros)
    }

    fn waiter() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_shard_naps_only_when_nobody_has_anything_to_do() {
        let (pace, mut crossings) = (Pace::default(), Trickle::default());
        assert_eq!(pace.rest(at(0), &mut crossings), Rest::Sleep);
        assert!(!pace.is_on());

        assert!(pace.wait(&waiter()), "a sleeping pump would not tick");
        assert!(!pace.wait(&waiter()));
        assert_eq!(pace.rest(at(0), &mut crossings), Rest::Tick);
        assert!(pace.is_on());
        pace.tick(at(0));
        assert!(pace.wait(&waiter()));
        pace.busy();
        assert_eq!(pace.rest(at(1), &mut crossings), Rest::Again);
        assert_eq!(pace.rest(at(2), &mut crossings), Rest::Ask);
        // Not told yet: asked once more.
        assert_eq!(pace.rest(at(3), &mut crossings), Rest::Ask);
        assert!(pace.lull());
        let due = at(0) + limits::PACE_LEAST;
        assert_eq!(pace.rest(at(4), &mut crossings), Rest::Nap(due));

        // What was found does not last.
        assert!(!pace.lull());
        assert_eq!(pace.rest(at(5), &mut crossings), Rest::Ask);
        assert!(pace.lull());
        pace.busy();
        assert_eq!(pace.rest(at(6), &mut crossings), Rest::Again);
        pace.blocked();
        assert_eq!(pace.rest(at(7), &mut crossings), Rest::SleepUntil(due));
        assert_eq!(pace.rest(due, &mut crossings), Rest::Tick);
        pace.tick(due);
        // Nobody waits any more.
        assert_eq!(pace.rest(due, &mut crossings), Rest::Sleep);
    }

    #[test]
    fn cells_from_other_shards_keep_a_shard_from_sleeping() {
        let (pace, mut crossings) = (Pace::default(), Trickle::default());
        crossings.heard(at(0), &pace);
        assert_eq!(pace.rest(at(0), &mut crossings), Rest::Sleep);
        crossings.heard(at(1), &pace);
        assert_eq!(pace.rest(at(1), &mut crossings), Rest::Ask);
        assert!(pace.lull());
        assert_eq!(pace.rest(at(1), &mut crossings), Rest::Nap(at(1) + limits::PACE));
        assert_eq!(pace.rest(at(1) + limits::PACE_PATIENCE, &mut crossings), Rest::Sleep);
    }

    #[test]
    fn ticks_come_the_faster_the_more_there_is() {
        let pace = Pace::default();
        let interval = |bytes| {
            pace.took(bytes);
            pace.tick(at(0));
            pace.due.get().since(at(0))
        };
        for _ in 0..20 {
            interval(0);
        }
        assert_eq!(interval(0), limits::PACE);
        assert_eq!(interval(limits::PACE_BYTES), limits::PACE);
        assert_eq!(interval(limits::PACE_BYTES + 1), limits::PACE / 2);
        assert_eq!(interval(limits::PACE_BYTES / 2), limits::PACE / 2);
        for _ in 0..20 {
            interval(usize::MAX / 2);
        }
        assert_eq!(interval(limits::PACE_BYTES), limits::PACE_LEAST);
    }

    #[test]
    fn a_trickle_takes_two_and_ends_with_silence() {
        let (pace, mut trickle) = (Pace::default(), Trickle::default());
        assert!(!trickle.goes_on(at(0)));
        trickle.heard(at(0), &pace);
        let next = at(0) + limits::PACE_GAP;
        trickle.heard(next, &pace);
        assert!(!trickle.goes_on(next));
        trickle.heard(next, &pace);
        assert!(trickle.goes_on(next));
        assert!(!trickle.goes_on(next + limits::PACE_PATIENCE));
        assert!(!trickle.goes_on(next));

        // A shard that ticks would be late to hear of the second.
        pace.on.set(true);
        trickle.heard(at(0) + 10 * limits::PACE_PATIENCE, &pace);
        assert!(trickle.goes_on(at(0) + 10 * limits::PACE_PATIENCE));
    }

    #[test]
    fn rings_are_looked_at_now_and_then() {
        let pace = Pace::default();
        assert!(pace.looks_at_rings(at(0)));
        assert!(!pace.looks_at_rings(at(1)));
        assert!(pace.looks_at_rings(at(0) + limits::RING_INTERVAL));
    }
}
