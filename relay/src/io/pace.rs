//! Pacing: a shard that gets a steady trickle of cells naps between them instead of sleeping.
//!
//! Sleeping in io_uring until a socket has something costs far more than the handful of cells that it then has. So while
//! cells keep coming, the shard, when nobody has anything left to do, naps until a socket or another shard has something
//! ([`Ready`](super::ready)); and as network cards do that moderate their interrupts, not before
//! [`limits::LOOK_GAP`] after it looked last, unless that brought much: what comes in meanwhile is one larger batch.
//!
//! A trickle is two arrivals within [`limits::PACE_GAP`], and ends with a silence of [`limits::PACE_PATIENCE`]. Then the
//! sockets are handed back to io_uring, and the shard sleeps.

use std::cell::Cell;
use std::time::Duration;

use onionring_proto::time::Mono;

use crate::limits;

/// When one shard last did what, and so what it does next.
#[derive(Default)]
pub(super) struct Pace {
    /// When cells last came in, from a socket or another shard.
    heard: Cell<Mono>,
    /// There is a trickle.
    steady: Cell<bool>,
    /// When the sockets were last looked at.
    looked: Cell<Mono>,
    /// What has come in since the last nap.
    bytes: Cell<usize>,
    /// When the executor's rings were last looked at on purpose.
    looked_at_rings: Cell<Mono>,
    /// Something has happened since the pump's last turn.
    busy: Cell<bool>,
    lull: Cell<Lull>,
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
    /// Wait for whatever comes, in io_uring.
    Sleep,
    /// Look at the sockets, and again when all tasks had their turn.
    Look,
    /// Look again when all tasks had their turn.
    Again,
    /// Have the background queue asked for a [`Pace::lull`].
    Ask,
    /// Nobody has anything to do: nap, but look at no socket before this time.
    Nap(Mono),
    /// Nobody has anything to do, and it is time to see what io_uring has.
    Rings,
}

impl Pace {
    /// Something has happened of which more may follow.
    pub(super) fn busy(&self) {
        self.busy.set(true);
    }

    /// Bytes of cells came in.
    pub(super) fn heard(&self, now: Mono, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        let last = self.heard.replace(now);
        self.steady.set(self.steady.get() || now.since(last) < limits::PACE_GAP);
    }

    /// The background queue has nothing to do, if that was asked.
    pub(super) fn lull(&self) -> bool {
        let asked = self.lull.get() == Lull::Asked;
        if asked {
            self.lull.set(Lull::Found);
        }
        asked
    }

    /// What to do at the end of a turn of the pump; `hurry` if the next look is not to wait for more to come in.
    pub(super) fn rest(&self, now: Mono, hurry: bool) -> Rest {
        let busy = self.busy.take();
        let lull = self.lull.take();
        self.steady.set(self.steady.get() && now.since(self.heard.get()) < limits::PACE_PATIENCE);
        let gap = if hurry { Duration::ZERO } else { self.gap() };
        let due = self.looked.get() + gap;
        if !self.steady.get() {
            Rest::Sleep
        } else if busy && due <= now {
            Rest::Look
        } else if busy {
            Rest::Again
        } else if lull != Lull::Found {
            self.lull.set(Lull::Asked);
            Rest::Ask
        } else if self.looks_at_rings_by() <= now {
            Rest::Rings
        } else {
            Rest::Nap(due)
        }
    }

    /// The time between two looks: the shorter the more has come in since the last nap.
    fn gap(&self) -> Duration {
        let wanting = limits::LOOK_BYTES.saturating_sub(self.bytes.get());
        limits::LOOK_GAP.mul_f32(wanting as f32 / limits::LOOK_BYTES as f32)
    }

    /// When the executor has to look at its rings next.
    pub(super) fn looks_at_rings_by(&self) -> Mono {
        self.looked_at_rings.get() + limits::RING_INTERVAL
    }

    /// The sockets have been looked at.
    pub(super) fn looked(&self, now: Mono) {
        self.looked.set(now);
    }

    /// A nap is over, and the sockets have been looked at.
    pub(super) fn napped(&self, now: Mono) {
        self.looked(now);
        self.bytes.set(0);
    }

    /// The rings are being looked at.
    pub(super) fn looks_at_rings(&self, now: Mono) {
        self.looked_at_rings.set(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Mono {
        Mono(1_000_000 + micros)
    }

    /// A shard with a trickle since `at(0)`, that has just looked at everything.
    fn steady() -> Pace {
        let pace = Pace::default();
        pace.heard(at(0), 0);
        pace.heard(at(0), 0);
        pace.looked(at(0));
        pace.looks_at_rings(at(0));
        pace
    }

    #[test]
    fn a_shard_naps_only_when_nobody_has_anything_to_do() {
        let pace = steady();
        let due = at(0) + limits::LOOK_GAP;
        pace.busy();
        assert_eq!(pace.rest(at(1), false), Rest::Again);
        assert_eq!(pace.rest(at(2), false), Rest::Ask);
        // Not told yet: asked once more.
        assert_eq!(pace.rest(at(3), false), Rest::Ask);
        assert!(pace.lull());
        assert_eq!(pace.rest(at(4), false), Rest::Nap(due));

        // What was found does not last.
        assert!(!pace.lull());
        assert_eq!(pace.rest(at(5), false), Rest::Ask);
        assert!(pace.lull());
        pace.busy();
        assert_eq!(pace.rest(at(6), false), Rest::Again);
    }

    #[test]
    fn a_busy_shard_looks_at_its_sockets_too() {
        let pace = steady();
        let due = at(0) + limits::LOOK_GAP;
        pace.busy();
        assert_eq!(pace.rest(due, false), Rest::Look);
        pace.busy();
        assert_eq!(pace.rest(at(0), true), Rest::Look);
        pace.looked(due);
        pace.busy();
        assert_eq!(pace.rest(due, false), Rest::Again);
    }

    #[test]
    fn what_brings_much_is_looked_at_again_soon() {
        let pace = steady();
        pace.heard(at(0), limits::LOOK_BYTES / 4);
        pace.heard(at(0), limits::LOOK_BYTES / 4);
        assert_eq!(pace.gap(), limits::LOOK_GAP / 2);
        pace.heard(at(0), limits::LOOK_BYTES);
        assert_eq!(pace.gap(), Duration::ZERO);
        pace.looked(at(0));
        assert_eq!(pace.gap(), Duration::ZERO);
        pace.napped(at(0));
        assert_eq!(pace.gap(), limits::LOOK_GAP);
    }

    #[test]
    fn a_trickle_takes_two_and_ends_with_silence() {
        let pace = Pace::default();
        assert_eq!(pace.rest(at(0), false), Rest::Sleep);
        pace.heard(at(0), 0);
        assert_eq!(pace.rest(at(0), false), Rest::Sleep);
        let next = at(0) + limits::PACE_GAP;
        pace.heard(next, 0);
        assert_eq!(pace.rest(next, false), Rest::Sleep);
        pace.heard(next, 0);
        assert_ne!(pace.rest(next, false), Rest::Sleep);
        let patience = Duration::from_micros(1);
        assert_ne!(pace.rest(next + (limits::PACE_PATIENCE - patience), false), Rest::Sleep);
        assert_eq!(pace.rest(next + limits::PACE_PATIENCE, false), Rest::Sleep);
        // Also when it is asked again.
        assert_eq!(pace.rest(next, false), Rest::Sleep);
    }

    #[test]
    fn rings_are_looked_at_now_and_then() {
        let pace = steady();
        let time = at(0) + limits::RING_INTERVAL;
        let idle = |time| {
            assert_eq!(pace.rest(time, false), Rest::Ask);
            assert!(pace.lull());
            pace.rest(time, false)
        };
        assert_eq!(idle(time), Rest::Rings);
        pace.looks_at_rings(time);
        assert!(matches!(idle(time), Rest::Nap(_)));
        assert_eq!(pace.looks_at_rings_by(), time + limits::RING_INTERVAL);
    }
}
