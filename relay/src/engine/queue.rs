//! Cells that wait to be sent: one pool of slots per shard, one FIFO per circuit and link, and the order in which a
//! link serves its circuits.
//!
//! The order is the paper's preference for interactive traffic (section 4.5 there), in the form that became common:
//! each circuit has an exponentially weighted moving average (EWMA) of the cells it sent, and the circuit with the
//! lowest average goes first. The choice is made cell by cell, as late as the driver asks for bytes.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use onionring_proto::cell::{
    BODY_LEN, Body, CircId, Command, DestroyReason, LinkVersion, write_destroy, write_fixed,
};
use onionring_proto::time::Mono;
use slab::Slab;

use super::ids::HomeRule;
use crate::limits;

const NONE: u32 = u32::MAX;

/// Slots for waiting cells. Slots are reused; memory grows in steps and never beyond the limit.
///
/// The limit is shared with bytes that wait elsewhere: [`CellPool::charge`].
pub struct CellPool {
    slots: Vec<Slot>,
    free: u32,
    used: usize,
    charged_bytes: usize,
    limit: usize,
}

struct Slot {
    next: u32,
    queued_at: Mono,
    command: Command,
    body: Body,
}

/// A queue of cells in a [`CellPool`]. It owns its slots: give them back with [`CellPool::clear`].
#[derive(Debug)]
pub struct CellFifo {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for CellFifo {
    fn default() -> Self {
        CellFifo { head: NONE, tail: NONE, len: 0 }
    }
}

impl CellFifo {
    /// Cells in the queue.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl CellPool {
    /// A pool that holds at most `limit` cells.
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(NONE as usize - 1);
        CellPool { slots: Vec::new(), free: NONE, used: 0, charged_bytes: 0, limit }
    }

    /// Bytes one waiting cell costs, for turning a memory limit into a number of cells.
    pub const BYTES_PER_CELL: usize = size_of::<Slot>();

    /// Cells waiting in all queues of the pool.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes of waiting cells, and bytes charged.
    pub fn bytes(&self) -> usize {
        self.used * Self::BYTES_PER_CELL + self.charged_bytes
    }

    /// Bytes of slots that no cell is in.
    pub fn spare_bytes(&self) -> usize {
        (self.slots.capacity() - self.used) * Self::BYTES_PER_CELL
    }

    /// Whether nothing more may wait.
    pub fn is_full(&self) -> bool {
        self.used + self.charged_bytes / Self::BYTES_PER_CELL >= self.limit
    }

    /// Counts bytes that wait outside the pool against its limit, until they are [released](CellPool::release).
    pub fn charge(&mut self, bytes: usize) {
        self.charged_bytes += bytes;
    }

    /// Takes back what was charged.
    pub fn release(&mut self, bytes: usize) {
        self.charged_bytes -= bytes;
    }

    /// Bytes charged and not released.
    pub fn charged_bytes(&self) -> usize {
        self.charged_bytes
    }

    /// Changes the limit; cells beyond it stay until they are sent or shed.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(NONE as usize - 1);
    }

    /// Appends a cell, or says `false` when the pool is full.
    #[must_use]
    pub fn push(&mut self, fifo: &mut CellFifo, now: Mono, command: Command, body: &Body) -> bool {
        if self.is_full() {
            return false;
        }
        let index = if self.free != NONE {
            let index = self.free;
            let slot = &mut self.slots[index as usize];
            self.free = slot.next;
            slot.next = NONE;
            slot.queued_at = now;
            slot.command = command;
            slot.body.copy_from_slice(body);
            index
        } else {
            self.slots.push(Slot { next: NONE, queued_at: now, command, body: *body });
            (self.slots.len() - 1) as u32
        };
        match fifo.tail {
            NONE => fifo.head = index,
            tail => self.slots[tail as usize].next = index,
        }
        fifo.tail = index;
        fifo.len += 1;
        self.used += 1;
        true
    }

    /// Takes the oldest cell: hands it to `take`, then frees its slot. `None` if the queue is empty.
    pub fn pop<R>(&mut self, fifo: &mut CellFifo, take: impl FnOnce(Command, &Body) -> R) -> Option<R> {
        if fifo.head == NONE {
            return None;
        }
        let index = fifo.head;
        let slot = &mut self.slots[index as usize];
        let taken = take(slot.command, &slot.body);
        fifo.head = slot.next;
        if fifo.head == NONE {
            fifo.tail = NONE;
        }
        fifo.len -= 1;
        slot.next = self.free;
        self.free = index;
        self.used -= 1;
        Some(taken)
    }

    /// The command of the oldest waiting cell.
    fn first(&self, fifo: &CellFifo) -> Option<Command> {
        (fifo.head != NONE).then(|| self.slots[fifo.head as usize].command)
    }

    /// When the oldest waiting cell was queued.
    pub fn oldest(&self, fifo: &CellFifo) -> Option<Mono> {
        (fifo.head != NONE).then(|| self.slots[fifo.head as usize].queued_at)
    }

    /// Drops all cells of a queue.
    pub fn clear(&mut self, fifo: &mut CellFifo) {
        if fifo.head == NONE {
            return;
        }
        self.slots[fifo.tail as usize].next = self.free;
        self.free = fifo.head;
        self.used -= fifo.len();
        *fifo = CellFifo::default();
    }
}

/// A circuit's standing on a link: activity, scaled so that it needs no update while time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Activity(f64);

/// A place in the ready heap; the lowest activity is served first, then the lower slot.
#[derive(Debug, PartialEq)]
struct Ready {
    activity: f64,
    slot: u32,
    generation: u32,
}

impl Eq for Ready {}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        // Reversed, because `BinaryHeap` gives the greatest first.
        other.activity.total_cmp(&self.activity).then(other.slot.cmp(&self.slot))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct CircuitQueue {
    circ: CircId,
    generation: u32,
    cells: CellFifo,
    activity: Activity,
    /// Its streams are not read until no more cells wait than that.
    low_mark: Option<usize>,
    /// It is to be closed, and sends no more cells.
    condemned: bool,
}

/// What a link has to send.
///
/// Invariant: a circuit has one live entry in `ready` exactly while its queue is not empty; entries of an older
/// generation of a slot are leftovers and skipped.
pub struct LinkQueue {
    /// Handshake and padding.
    urgent: Vec<u8>,
    /// Circuits that are over, or (`true`) were refused.
    destroys: VecDeque<(CircId, DestroyReason, bool)>,
    /// How many of those were refused.
    refusals: usize,
    /// Circuits that are over and of which `fill` has told the peer, until [`LinkQueue::take_told`].
    told: Vec<CircId>,
    /// Circuits that have come down to their low mark, until [`LinkQueue::take_low`].
    low: Vec<CircId>,
    circuits: Slab<CircuitQueue>,
    by_circ: HashMap<CircId, u32, HomeRule>,
    /// Where the last cell was queued, if that circuit is still there.
    last_slot: u32,
    ready: BinaryHeap<Ready>,
    half_life: Duration,
    /// Activities are in units of 2^-((now - epoch) / half_life) cells.
    epoch: Mono,
    next_generation: u32,
    cells: usize,
}

/// Why a cell was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFull {
    /// The circuit's own queue is at its limit.
    Circuit,
    /// The shard's pool is at its limit.
    Pool,
}

/// Exponent at which activities are scaled back, far below the largest that an `f64` holds.
const RESCALE_AT_EXPONENT: f64 = 256.0;

impl LinkQueue {
    /// An empty queue whose averages halve every `half_life`.
    pub fn new(hasher: HomeRule, half_life: Duration, now: Mono) -> Self {
        LinkQueue {
            urgent: Vec::new(),
            destroys: VecDeque::new(),
            refusals: 0,
            told: Vec::new(),
            low: Vec::new(),
            circuits: Slab::new(),
            by_circ: HashMap::with_hasher(hasher),
            last_slot: 0,
            ready: BinaryHeap::new(),
            half_life,
            epoch: now,
            next_generation: 0,
            cells: 0,
        }
    }

    /// Whether `fill` has nothing to give.
    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.destroys.is_empty() && self.cells == 0
    }

    /// Cells waiting in circuits' queues.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Cells waiting for one circuit.
    pub fn circuit_cells(&self, circ: CircId) -> usize {
        self.by_circ.get(&circ).map_or(0, |&slot| self.circuits[slot as usize].cells.len())
    }

    /// Bytes that go before everything else: handshake and padding.
    pub fn push_urgent(&mut self, bytes: &[u8]) {
        self.urgent.extend_from_slice(bytes);
    }

    /// Tells the peer that a circuit is over, before any circuit's cells, and forgets the circuit. A peer that has not
    /// been told of the circuit, because CREATE2 still waits, need not be told. So there are never more such messages
    /// than there were circuits at once, however long the peer reads nothing. Returns whether the peer is told.
    pub fn push_destroy(&mut self, pool: &mut CellPool, circ: CircId, reason: DestroyReason) -> bool {
        let first = self.by_circ.get(&circ).and_then(|&slot| pool.first(&self.circuits[slot as usize].cells));
        self.remove(pool, circ);
        let tell = first != Some(Command::CREATE2);
        if tell {
            self.destroys.push_back((circ, reason, false));
        }
        tell
    }

    /// A circuit of whose end the peer has been told since it was last asked for.
    pub fn take_told(&mut self) -> Option<CircId> {
        self.told.pop()
    }

    /// Tells the peer that it does not get a circuit. `false` if too many such messages wait: the peer makes work and
    /// reads nothing.
    #[must_use]
    pub fn push_refusal(&mut self, circ: CircId, reason: DestroyReason) -> bool {
        let fits = self.refusals < limits::REFUSALS_PER_LINK;
        if fits {
            self.refusals += 1;
            self.destroys.push_back((circ, reason, true));
        }
        fits
    }

    /// Circuits of whose end the peer has still to be told.
    pub fn destroys(&self) -> usize {
        self.destroys.len() - self.refusals
    }

    /// Queues a cell for a circuit, which has at most `limit` waiting.
    pub fn push(
        &mut self,
        pool: &mut CellPool,
        now: Mono,
        circ: CircId,
        command: Command,
        body: &Body,
        limit: usize,
    ) -> Result<(), QueueFull> {
        let slot = self.slot(circ);
        let queue = &mut self.circuits[slot as usize];
        if queue.condemned {
            return Ok(());
        }
        if queue.cells.len() >= limit {
            return Err(QueueFull::Circuit);
        }
        if !pool.push(&mut queue.cells, now, command, body) {
            return Err(QueueFull::Pool);
        }
        self.cells += 1;
        if queue.cells.len() == 1 {
            self.ready.push(Ready { activity: queue.activity.0, slot, generation: queue.generation });
            self.drop_leftovers();
        }
        Ok(())
    }

    /// Whether so many cells wait for the circuit that was pushed to last that its streams are not to be read: said once,
    /// when `high` is reached, until [`take_low`](Self::take_low) has said that no more than `low` are left.
    pub fn reaches(&mut self, high: usize, low: usize) -> bool {
        let Some(queue) = self.circuits.get_mut(self.last_slot as usize) else { return false };
        let reached = queue.cells.len() >= high && queue.low_mark.is_none();
        if reached {
            queue.low_mark = Some(low.min(high - 1));
        }
        reached
    }

    /// A circuit of which few enough cells are left.
    pub fn take_low(&mut self) -> Option<CircId> {
        self.low.pop()
    }

    /// The slot of a circuit. Cells of one circuit come in runs, so it is most often the last one.
    fn slot(&mut self, circ: CircId) -> u32 {
        if self.circuits.get(self.last_slot as usize).is_none_or(|queue| queue.circ != circ) {
            self.last_slot = match self.by_circ.get(&circ) {
                Some(&slot) => slot,
                None => self.add_circuit(circ),
            };
        }
        self.last_slot
    }

    /// Keeps the leftovers in `ready` fewer than the circuits, also while the peer reads nothing.
    fn drop_leftovers(&mut self) {
        if self.ready.len() > 2 * self.circuits.len() + 16 {
            let circuits = &self.circuits;
            self.ready.retain(|ready| {
                circuits.get(ready.slot as usize).is_some_and(|queue| queue.generation == ready.generation)
            });
        }
    }

    fn add_circuit(&mut self, circ: CircId) -> u32 {
        self.next_generation = self.next_generation.wrapping_add(1);
        let slot = self.circuits.insert(CircuitQueue {
            circ,
            generation: self.next_generation,
            cells: CellFifo::default(),
            activity: Activity(0.0),
            low_mark: None,
            condemned: false,
        }) as u32;
        self.by_circ.insert(circ, slot);
        slot
    }

    /// Forgets a circuit and the cells it had waiting.
    pub fn remove(&mut self, pool: &mut CellPool, circ: CircId) {
        if let Some(slot) = self.by_circ.remove(&circ) {
            let mut queue = self.circuits.remove(slot as usize);
            self.cells -= queue.cells.len();
            pool.clear(&mut queue.cells);
            // Whoever was told of the high mark may have another circuit of this id by now.
            self.low.extend(queue.low_mark.map(|_| circ));
        }
    }

    /// Drops what a circuit has waiting, and whatever comes for it until it is removed: after a cell that is lost, none must
    /// follow.
    pub fn condemn(&mut self, pool: &mut CellPool, circ: CircId) {
        self.remove(pool, circ);
        let slot = self.add_circuit(circ);
        self.circuits[slot as usize].condemned = true;
    }

    /// Forgets all circuits; what goes before them is still sent.
    pub fn drop_circuits(&mut self, pool: &mut CellPool) {
        for mut queue in self.circuits.drain() {
            pool.clear(&mut queue.cells);
        }
        self.by_circ.clear();
        self.ready.clear();
        self.cells = 0;
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut CellPool) {
        self.drop_circuits(pool);
        self.urgent.clear();
        self.destroys.clear();
        self.refusals = 0;
    }

    /// The circuits that have cells waiting, and since when their first one waits.
    pub fn waiting(&self, pool: &CellPool) -> impl Iterator<Item = (CircId, Mono)> {
        self.circuits.iter().filter_map(|(_, queue)| Some((queue.circ, pool.oldest(&queue.cells)?)))
    }

    /// Appends to `out` what goes next, until `out` holds `until` bytes or nothing is left. Returns the number of
    /// circuits' cells appended, and since when the last of them waited. The last cell may take `out` beyond `until` by
    /// less than its size.
    pub fn fill(
        &mut self,
        pool: &mut CellPool,
        now: Mono,
        version: LinkVersion,
        out: &mut Vec<u8>,
        until: usize,
    ) -> (usize, Option<Mono>) {
        out.append(&mut self.urgent);
        while out.len() < until
            && let Some((circ, reason, refused)) = self.destroys.pop_front()
        {
            self.refusals -= usize::from(refused);
            if !refused {
                self.told.push(circ);
            }
            write_destroy(version, circ, reason, out);
        }
        let weight = self.weight(now);
        let (mut sent, mut waited) = (0, None);
        while out.len() < until {
            let Some(next) = self.ready.pop() else { break };
            let Some(queue) = self.circuits.get_mut(next.slot as usize) else { continue };
            if queue.generation != next.generation {
                continue;
            }
            let circ = queue.circ;
            let Some(since) = pool.oldest(&queue.cells) else { continue };
            pool.pop(&mut queue.cells, |command, body: &[u8; BODY_LEN]| {
                write_fixed(version, circ, command, body, out);
            });
            waited = Some(since);
            self.cells -= 1;
            sent += 1;
            queue.activity.0 += weight;
            if queue.low_mark.is_some_and(|low| queue.cells.len() <= low) {
                queue.low_mark = None;
                self.low.push(circ);
            }
            if !queue.cells.is_empty() {
                self.ready.push(Ready { activity: queue.activity.0, ..next });
            }
        }
        (sent, waited)
    }

    /// What one cell adds to an activity now: the later, the more, which is the same as letting the past decay.
    fn weight(&mut self, now: Mono) -> f64 {
        let exponent = now.since(self.epoch).as_secs_f64() / self.half_life.as_secs_f64();
        if exponent < RESCALE_AT_EXPONENT {
            return exponent.exp2();
        }
        let scale = (-exponent).exp2();
        for (_, queue) in &mut self.circuits {
            queue.activity.0 *= scale;
        }
        self.ready = self.ready.drain().map(|r| Ready { activity: r.activity * scale, ..r }).collect();
        self.epoch = now;
        1.0
    }
}

#[cfg(test)]
mod tests;
