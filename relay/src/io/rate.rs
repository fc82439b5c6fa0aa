//! Bandwidth limits on one shard: who may move bytes now, and who waits for more of them.
//!
//! A task that may not read or write is put into a queue for its direction; the pump wakes as many from the head of it as
//! there are bytes for, when there are some, and asks for a timer until then. While somebody waits, everybody moves
//! [`limits::RATE_TURN`] bytes and goes to the end of the queue. Nobody looks twice for the same bytes.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;
use onionring_proto::rate::{Bucket, Rate};
use onionring_proto::time::Mono;

use crate::engine::rate::{Direction, Part, Rates, Traffic};
use crate::limits;

/// The limits of one shard.
pub(super) struct Throttle {
    rates: RefCell<Arc<Rates>>,
    sides: [RefCell<Side>; 2],
}

/// How often bandwidth ran out on a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// How often somebody had to wait when nobody did before.
    pub times: u64,
    /// How long somebody waited, in all.
    pub time: Duration,
    /// How often somebody found nothing left of `BandwidthRate`, while waiting too; `RelayBandwidthRate` does not count.
    pub all_used_up: u64,
}

/// What the pump has to do for those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: nobody waits.
    Nothing,
    /// Ask again when those who were woken have had their turn.
    Again,
    /// Ask again at this time.
    At(Mono),
}

/// One direction.
#[derive(Default)]
struct Side {
    part: Part,
    waiting: VecDeque<(Traffic, Waker)>,
    /// The tasks in that queue.
    queued: BTreeSet<*const ()>,
    /// Since when somebody waits.
    since: Option<Mono>,
    reached: Reached,
}

impl Throttle {
    pub(super) fn new(rates: Arc<Rates>) -> Throttle {
        Throttle { rates: RefCell::new(rates), sides: Default::default() }
    }

    pub(super) fn set(&self, rates: Arc<Rates>) {
        *self.rates.borrow_mut() = rates;
    }

    /// Whether the traffic with this address is limited.
    pub(super) fn counts(&self, is_private: bool) -> bool {
        !is_private || self.rates.borrow().limits().count_private
    }

    /// The limit of each link of its own.
    pub(super) fn per_link(&self) -> Option<Rate> {
        self.rates.borrow().limits().per_link
    }

    /// How many bytes may be moved now; pending if none, with the task in the queue.
    pub(super) fn poll(
        &self,
        direction: Direction,
        traffic: Traffic,
        now: Mono,
        cx: &Context<'_>,
    ) -> Poll<usize> {
        let side = &mut *self.sides[direction as usize].borrow_mut();
        if side.queued.contains(&cx.waker().data()) {
            return Poll::Pending;
        }
        match side.available(direction, traffic, &self.rates.borrow(), now) {
            0 => {
                side.queue(traffic, now, cx);
                Poll::Pending
            }
            bytes if side.waiting.is_empty() => Poll::Ready(bytes),
            bytes => Poll::Ready(bytes.min(limits::RATE_TURN)),
        }
    }

    /// If others wait, puts the task behind them: it has had its turn.
    #[must_use]
    pub(super) fn after_turn(
        &self,
        direction: Direction,
        traffic: Traffic,
        now: Mono,
        cx: &Context<'_>,
    ) -> bool {
        let side = &mut *self.sides[direction as usize].borrow_mut();
        let others = !side.waiting.is_empty();
        if others {
            side.queue(traffic, now, cx);
        }
        others
    }

    /// Bytes have been moved.
    pub(super) fn charge(&self, direction: Direction, traffic: Traffic, bytes: u64) {
        let side = &mut *self.sides[direction as usize].borrow_mut();
        side.part.charge(&self.rates.borrow(), traffic, bytes);
    }

    /// Wakes those for whom there are bytes.
    pub(super) fn turn(&self, now: Mono) -> Next {
        let rates = self.rates.borrow();
        let mut next = Next::Nothing;
        for direction in Direction::BOTH {
            let side = &mut *self.sides[direction as usize].borrow_mut();
            match (side.turn(direction, &rates, now), next) {
                (Next::Nothing, _) | (_, Next::Again) => {}
                (Next::At(at), Next::At(before)) => next = Next::At(at.min(before)),
                (this, _) => next = this,
            }
        }
        next
    }

    /// What happened so far, reading and writing.
    pub(super) fn reached(&self, now: Mono) -> [Reached; 2] {
        self.sides.each_ref().map(|side| {
            let side = side.borrow();
            let waited = side.since.map_or(Duration::ZERO, |since| now.since(since));
            Reached { time: side.reached.time + waited, ..side.reached }
        })
    }
}

impl Side {
    fn available(&mut self, direction: Direction, traffic: Traffic, rates: &Rates, now: Mono) -> usize {
        let bytes = self.part.available(rates, direction, traffic, now);
        self.reached.all_used_up += u64::from(self.part.all_is_empty());
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn queue(&mut self, traffic: Traffic, now: Mono, cx: &Context<'_>) {
        if self.queued.insert(cx.waker().data()) {
            self.waiting.push_back((traffic, cx.waker().clone()));
        }
        if self.since.is_none() {
            self.since = Some(now);
            self.reached.times += 1;
        }
    }

    fn turn(&mut self, direction: Direction, rates: &Rates, now: Mono) -> Next {
        let mut woken = 0;
        while let Some(&(traffic, _)) = self.waiting.front() {
            let bytes = self.available(direction, traffic, rates, now);
            if bytes == 0 && woken == 0 {
                return Next::At(self.part.due(rates, direction, traffic, now));
            }
            if bytes <= woken * limits::RATE_TURN {
                return Next::Again;
            }
            if let Some((_, waker)) = self.waiting.pop_front() {
                self.queued.remove(&waker.data());
                waker.wake();
                woken += 1;
            }
        }
        if let Some(since) = self.since.take() {
            self.reached.time += now.since(since);
        }
        Next::Nothing
    }
}

/// The buckets of one link with a peer that is no relay of the consensus.
pub(super) struct OwnLimit {
    buckets: [Bucket; 2],
    timers: [Option<Timer>; 2],
}

impl OwnLimit {
    pub(super) fn new(rate: Rate) -> OwnLimit {
        OwnLimit { buckets: [Bucket::full(rate); 2], timers: [None, None] }
    }

    /// Follows a change of the limit.
    pub(super) fn adjust(&mut self, rate: Rate, now: Mono) {
        self.buckets.iter_mut().for_each(|bucket| bucket.adjust(rate, now));
    }

    /// How many bytes may be moved now; pending if none, with the task woken when there are.
    pub(super) fn poll(&mut self, direction: Direction, now: Mono, cx: &mut Context<'_>) -> Poll<usize> {
        let bucket = &self.buckets[direction as usize];
        let timer = &mut self.timers[direction as usize];
        if bucket.level(now) > 0 {
            *timer = None;
            return Poll::Ready(usize::try_from(bucket.level(now)).unwrap_or(0));
        }
        let due = bucket.due(limits::RATE_LEAST);
        let timer = timer.insert(Timer::new(due.since(now)));
        if Pin::new(timer).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Bytes have been moved.
    pub(super) fn charge(&mut self, direction: Direction, now: Mono, bytes: u64) {
        self.buckets[direction as usize].charge(now, bytes);
    }
}

#[cfg(test)]
mod tests;
