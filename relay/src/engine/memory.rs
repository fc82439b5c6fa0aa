//! What to give up when the memory for waiting cells and stream bytes runs out.

use onionring_proto::cell::DestroyReason;
use onionring_proto::time::Mono;

use super::Engine;
use super::cross::Overrun;
use super::ids::{CircuitId, Leg};

/// Somebody who holds memory.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// Cells wait on a link.
    Queue(Leg),
    /// Streams have bytes that the driver has not taken.
    Inbox(CircuitId),
}

impl Engine {
    /// Frees a tenth of the memory by closing the circuits whose cells or bytes have waited longest. Returns the legs
    /// that lost their cells.
    pub(super) fn shed_oldest(&mut self, now: Mono) -> Vec<Leg> {
        let queues = self.waiting_legs().map(|(since, leg)| (since, Holder::Queue(leg)));
        let inboxes = self
            .circuits
            .iter()
            .filter_map(|(id, circuit)| Some((circuit.streams.waiting_since()?, Holder::Inbox(id))));
        let mut holders: Vec<(Mono, Holder)> = queues.chain(inboxes).collect();
        holders.sort_unstable();
        let before = self.pool.bytes();
        let mut shed = Vec::new();
        for (_, holder) in holders {
            if self.pool.bytes() <= before / 10 * 9 {
                break;
            }
            self.counters.circuits_shed += 1;
            match holder {
                Holder::Queue(leg) => {
                    self.overrun(now, leg, Overrun::Memory);
                    shed.push(leg);
                }
                Holder::Inbox(id) => {
                    self.close_circuit(now, id, "inbox_overrun", DestroyReason::ResourceLimit);
                }
            }
        }
        self.counters.bytes_shed += before.saturating_sub(self.pool.bytes()) as u64;
        shed
    }
}
