//! Deadlines of one shard.
//!
//! Owners keep the key of what they set and cancel it when they go, so there are never more timers than owners.

use std::collections::BTreeMap;

use onionring_proto::time::Mono;

use super::ids::{CircuitId, LinkId};

/// Whose deadline it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// The link handshake must be over.
    Handshake(LinkId),
    /// The link may have been idle for too long.
    Idle(LinkId),
    /// The link is to be closed, because too much waits for it.
    Overrun(LinkId),
    /// The link may want padding.
    Padding(LinkId),
    /// The extension of the circuit must have been answered.
    Extend(CircuitId),
}

/// A deadline that has been set: its time, and a number that tells it from others of the same time.
pub(super) type TimerKey = (Mono, u64);

/// Deadlines in order of time, then in the order in which they were set.
#[derive(Default)]
pub(super) struct Timers {
    queue: BTreeMap<TimerKey, Timer>,
    set: u64,
}

impl Timers {
    /// Sets a deadline, in place of the one in `slot` if there is one.
    pub(super) fn set(&mut self, slot: &mut Option<TimerKey>, at: Mono, timer: Timer) {
        self.cancel(slot);
        let key = (at, self.set);
        self.set += 1;
        self.queue.insert(key, timer);
        *slot = Some(key);
    }

    /// Takes the deadline in `slot` back; one that has fired is gone already.
    pub(super) fn cancel(&mut self, slot: &mut Option<TimerKey>) {
        if let Some(key) = slot.take() {
            self.queue.remove(&key);
        }
    }

    /// Deadlines that are set.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn next(&self) -> Option<Mono> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the first deadline that has passed.
    pub(super) fn expired(&mut self, now: Mono) -> Option<Timer> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
