//! What lanes and the thread that watches them tell each other: a few numbers, written once per turn of a lane.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What lanes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// Client links that are open.
    Links,
    /// Circuits that lead through the relay to us.
    Circuits,
    /// Bulk cells that came out of the relay.
    Cells,
    /// Bulk cells that were compared byte by byte.
    Verified,
    /// Circuit handshakes that the relay answered.
    Handshakes,
    /// Circuit handshakes that the relay refused.
    Refused,
    /// Links opened so far.
    Connects,
    /// Small cells that came back.
    Echoes,
    /// Small cells that were not sent, for want of room.
    Missed,
    /// Small cells that loadgen sent more than a millisecond after their time.
    Late,
    /// Bulk cells at a given rate that were not sent, for want of room.
    BulkMissed,
    /// Bulk cells that loadgen sent more than a millisecond after their time.
    BulkLate,
    /// Junk CREATE2 sent.
    Junk,
    /// Junk CREATE2 that the relay answered, ...
    JunkAnswered,
    /// ... and that it refused.
    JunkRefused,
    /// Links of the flood that the relay closed.
    JunkLinksLost,
    /// Bytes of streams that arrived.
    Bytes,
    /// Streams that were carried to their end.
    Transfers,
    /// CPU time of the lane's thread, in nanoseconds.
    CpuNs,
}

/// How many there are.
const COUNTS: usize = Count::CpuNs as usize + 1;

/// A value for each [`Count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts([u64; COUNTS]);

impl Counts {
    pub(super) fn get(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    pub(super) fn set(&mut self, count: Count, n: u64) {
        self.0[count as usize] = n;
    }

    pub(super) fn add(&mut self, count: Count, n: u64) {
        self.0[count as usize] += n;
    }

    /// What was counted since `earlier`.
    pub(super) fn since(mut self, earlier: &Counts) -> Counts {
        self.0.iter_mut().zip(earlier.0).for_each(|(now, before)| *now = now.wrapping_sub(before));
        self
    }

    /// Of several lanes together.
    pub(super) fn sum(lanes: &[Counts]) -> Counts {
        let mut sum = Counts::default();
        for lane in lanes {
            sum.0.iter_mut().zip(lane.0).for_each(|(sum, n)| *sum += n);
        }
        sum
    }
}

/// How far a measurement is to go, and how far a lane has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Nothing yet.
    Start,
    /// All links are open.
    Links,
    /// All circuits are built.
    Circuits,
    /// Traffic flows.
    Traffic,
    /// Junk comes beside it. From here one can go back.
    Flood,
}

const STAGES: [Stage; 5] = [Stage::Start, Stage::Links, Stage::Circuits, Stage::Traffic, Stage::Flood];

/// One lane's board.
#[derive(Default)]
pub(super) struct Board {
    stop: AtomicBool,
    goal: AtomicU8,
    reached: AtomicU8,
    epoch: AtomicU32,
    counts: [AtomicU64; COUNTS],
}

impl Board {
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(super) fn set_goal(&self, goal: Stage) {
        self.goal.store(goal as u8, Relaxed);
    }

    pub(super) fn goal(&self) -> Stage {
        STAGES[usize::from(self.goal.load(Relaxed))]
    }

    pub(super) fn set_reached(&self, stage: Stage) {
        self.reached.store(stage as u8, Relaxed);
    }

    pub(super) fn reached(&self) -> Stage {
        STAGES[usize::from(self.reached.load(Relaxed))]
    }

    /// Begins the next epoch: the lane hands in its latencies and starts afresh.
    pub(super) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Relaxed);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Relaxed)
    }

    pub(super) fn publish(&self, counts: &Counts) {
        self.counts.iter().zip(counts.0).for_each(|(shown, count)| shown.store(count, Relaxed));
    }

    pub(super) fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|n| self.counts[n].load(Relaxed)))
    }
}
