//! Circuits at home on a shard: the table, and the way of a relay cell through it.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, DestroyReason};
use onionring_proto::circuit::{Outbound, Received, RelayCircuit};
use onionring_proto::crypto::tor1::KeyMaterial;
use onionring_proto::handshake::Terms;
use onionring_proto::rate::Bucket;
use onionring_proto::relay_msg::{RelayCmd, Sendme, StreamId};
use onionring_proto::time::Mono;

use super::Engine;
use super::cross::{Cross, Message, Overrun};
use super::extend::Onionskin;
use super::ids::{CircuitId, HomeRule, Leg, LinkId};
use super::link::LinkFacts;
use super::stream::Streams;
use super::timer::TimerKey;

/// One circuit.
pub(super) struct Circuit {
    pub(super) relay: RelayCircuit,
    /// The leg towards the client.
    pub(super) prev: Leg,
    pub(super) prev_facts: Arc<LinkFacts>,
    pub(super) next: Next,
    /// The link towards the client has been told, which may want padding from then on.
    pub(super) goes_on: bool,
    /// Extensions begun so far.
    pub(super) extends: u32,
    /// When an extension that is under way has taken too long.
    pub(super) extend_timer: Option<TimerKey>,
    pub(super) streams: Streams,
    /// What the client and this relay have agreed on.
    pub(super) terms: Terms,
    /// Too many cells wait on the way to the client for more to be read for it.
    pub(super) is_held: bool,
    /// Streams that the circuit may still ask for, once it has.
    pub(super) opens: Option<Bucket>,
}

/// The leg away from the client.
pub(super) enum Next {
    /// The circuit ends here.
    None,
    /// It is being extended, and the link is not known yet.
    Searching(Onionskin),
    /// CREATE2 went out there.
    Creating(Leg),
    /// It goes on there.
    Open(Leg),
}

impl Next {
    pub(super) fn leg(&self) -> Option<Leg> {
        match self {
            Next::Creating(leg) | Next::Open(leg) => Some(*leg),
            Next::None | Next::Searching(_) => None,
        }
    }
}

/// Which leg of a circuit a cell came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// From the client.
    Prev,
    /// From the far end.
    Next,
}

/// The circuits of one shard.
///
/// Invariant: `legs` and `by_link` hold exactly the legs of the circuits in `slots`.
pub(super) struct Circuits {
    slots: Vec<(u32, Option<Box<Circuit>>)>,
    free: Vec<u32>,
    legs: HashMap<Leg, (CircuitId, Side), HomeRule>,
    /// An entry of `legs`.
    last_found: Cell<Option<(Leg, (CircuitId, Side))>>,
    by_link: HashMap<LinkId, BTreeSet<CircuitId>, HomeRule>,
    /// Second legs of circuits that are over, of which the next relay has not been told: their ids are still in use
    /// (tor-spec 5.1.1).
    leaving: BTreeSet<Leg>,
    len: usize,
}

impl Circuits {
    pub(super) fn new(hasher: HomeRule) -> Self {
        Circuits {
            slots: Vec::new(),
            free: Vec::new(),
            legs: HashMap::with_hasher(hasher.clone()),
            last_found: Cell::default(),
            by_link: HashMap::with_hasher(hasher),
            leaving: BTreeSet::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Legs of all circuits.
    pub(super) fn legs(&self) -> usize {
        self.legs.len()
    }

    /// Ids of ours that are in use after their circuits.
    pub(super) fn ids_leaving(&self) -> usize {
        self.leaving.len()
    }

    /// The circuit with this leg. Cells of one circuit come in runs, so it is most often the last one that was found.
    pub(super) fn find(&self, leg: Leg) -> Option<(CircuitId, Side)> {
        if let Some((last, found)) = self.last_found.get()
            && last == leg
        {
            return Some(found);
        }
        let found = self.legs.get(&leg).copied()?;
        self.last_found.set(Some((leg, found)));
        Some(found)
    }

    /// Whether an id of ours may be given to a new circuit.
    pub(super) fn is_free(&self, leg: Leg) -> bool {
        !self.legs.contains_key(&leg) && !self.leaving.contains(&leg)
    }

    /// The next relay knows that the circuit on this leg is over.
    pub(super) fn free_leg(&mut self, leg: Leg) {
        self.leaving.remove(&leg);
    }

    pub(super) fn get_mut(&mut self, id: CircuitId) -> Option<&mut Circuit> {
        match self.slots.get_mut(id.slot as usize) {
            Some((generation, Some(circuit))) if *generation == id.generation => Some(circuit),
            _ => None,
        }
    }

    pub(super) fn get(&self, id: CircuitId) -> Option<&Circuit> {
        match self.slots.get(id.slot as usize) {
            Some((generation, Some(circuit))) if *generation == id.generation => Some(circuit),
            _ => None,
        }
    }

    fn add(&mut self, circuit: Circuit) -> CircuitId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.0 = entry.0.wrapping_add(1);
        let id = CircuitId { slot, generation: entry.0 };
        let leg = circuit.prev;
        entry.1 = Some(Box::new(circuit));
        self.len += 1;
        self.add_leg(leg, id, Side::Prev);
        id
    }

    /// Gives a circuit its second leg.
    pub(super) fn join(&mut self, id: CircuitId, leg: Leg) {
        if let Some(circuit) = self.get_mut(id) {
            circuit.next = Next::Creating(leg);
            self.add_leg(leg, id, Side::Next);
        }
    }

    /// Takes a circuit's second leg away, and returns it.
    pub(super) fn part(&mut self, id: CircuitId) -> Next {
        let Some(circuit) = self.get_mut(id) else { return Next::None };
        let next = std::mem::replace(&mut circuit.next, Next::None);
        if let Some(leg) = next.leg() {
            self.remove_leg(leg, id);
        }
        next
    }

    fn remove(&mut self, id: CircuitId) -> Option<Box<Circuit>> {
        let (generation, circuit) = self.slots.get_mut(id.slot as usize)?;
        if *generation != id.generation {
            return None;
        }
        let circuit = circuit.take()?;
        self.free.push(id.slot);
        self.len -= 1;
        self.remove_leg(circuit.prev, id);
        if let Some(leg) = circuit.next.leg() {
            self.remove_leg(leg, id);
        }
        Some(circuit)
    }

    fn add_leg(&mut self, leg: Leg, id: CircuitId, side: Side) {
        self.legs.insert(leg, (id, side));
        self.last_found.take();
        self.by_link.entry(leg.link).or_default().insert(id);
    }

    fn remove_leg(&mut self, leg: Leg, id: CircuitId) {
        self.legs.remove(&leg);
        self.last_found.take();
        // Both legs of a circuit may run over one link only if a peer extended to itself, which is refused.
        if let Some(ids) = self.by_link.get_mut(&leg.link) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_link.remove(&leg.link);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (CircuitId, &Circuit)> {
        self.slots.iter().enumerate().filter_map(|(slot, (generation, circuit))| {
            let id = CircuitId { slot: slot as u32, generation: *generation };
            Some((id, circuit.as_deref()?))
        })
    }

    fn on_link(&self, link: LinkId) -> Vec<CircuitId> {
        self.by_link.get(&link).map(|ids| ids.iter().copied().collect()).unwrap_or_default()
    }
}

impl Engine {
    pub(super) fn add_circuit(
        &mut self,
        now: Mono,
        leg: Leg,
        facts: Arc<LinkFacts>,
        fast: bool,
        keys: &KeyMaterial,
        terms: Terms,
    ) {
        let params = &self.snapshot.params;
        let relay = RelayCircuit::new(keys, params.circuit_window, fast || params.accept_sendme_v0);
        self.circuits.add(Circuit {
            relay,
            prev: leg,
            prev_facts: facts,
            next: Next::None,
            goes_on: false,
            extends: 0,
            extend_timer: None,
            streams: Streams::default(),
            terms,
            is_held: false,
            opens: None,
        });
        self.counters.circuits_created += 1;
        self.tell(now, leg.link.shard(), Message::Joined(leg));
    }

    /// A cell from a link, at the home of its circuit.
    pub(super) fn circuit_cell(&mut self, now: Mono, leg: Leg, command: Command, body: &mut Body) {
        let Some((id, side)) = self.circuits.find(leg) else {
            return self.counters.ignored("unknown_circuit");
        };
        match (side, command) {
            (Side::Prev, Command::RELAY | Command::RELAY_EARLY) => self.outbound(now, id, command, body),
            (Side::Next, Command::RELAY) => self.inbound(now, id, body),
            (Side::Next, Command::CREATED2) => self.extended(now, id, body),
            _ => self.close_circuit(now, id, "unexpected_command", DestroyReason::Protocol),
        }
    }

    fn outbound(&mut self, now: Mono, id: CircuitId, command: Command, body: &mut Body) {
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        match circuit.relay.outbound(command, body) {
            Ok(Outbound::Forward) => match circuit.next.leg() {
                Some(leg) => {
                    self.counters.relayed[0] += 1;
                    // A client that is still building its circuit sends RELAY_EARLY.
                    if !circuit.goes_on && command == Command::RELAY {
                        self.circuit_goes_on(now, id);
                    }
                    self.send_cell(now, leg, command, body);
                }
                // There is no leg to send on while the search for a link goes on.
                None => self.close_circuit(now, id, "unrecognised", DestroyReason::Protocol),
            },
            Ok(Outbound::Recognised(tag)) => {
                self.counters.recognised += 1;
                let may_extend =
                    command == Command::RELAY_EARLY || self.snapshot.params.allow_nonearly_extend;
                match circuit.relay.receive(may_extend, tag, body) {
                    Ok(received) => self.received(now, id, received),
                    Err(error) => self.close_circuit(now, id, error.label(), DestroyReason::Protocol),
                }
            }
            Err(error) => self.close_circuit(now, id, error.label(), DestroyReason::Protocol),
        }
    }

    fn received(&mut self, now: Mono, id: CircuitId, received: Received<'_>) {
        match received {
            Received::Nothing => {}
            Received::WindowOpen => self.window_open(id),
            Received::Extend(extend) => self.extend(now, id, &extend),
            Received::Truncate(truncate) => self.truncate(now, id, truncate.reason),
            Received::Stream(msg, due) => {
                if let Some(tag) = due {
                    let mut data = Vec::with_capacity(23);
                    Sendme::V1 { tag }.write(&mut data);
                    self.originate(now, id, RelayCmd::SENDME, StreamId::CIRCUIT, &data);
                }
                self.stream_message(now, id, msg);
            }
        }
    }

    fn inbound(&mut self, now: Mono, id: CircuitId, body: &mut Body) {
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        circuit.relay.inbound(body);
        let leg = circuit.prev;
        self.counters.relayed[1] += 1;
        self.send_cell(now, leg, Command::RELAY, body);
    }

    /// Sends a message of this relay's to the client.
    pub(super) fn originate(
        &mut self,
        now: Mono,
        id: CircuitId,
        cmd: RelayCmd,
        stream: StreamId,
        data: &[u8],
    ) {
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        // Every byte of it is written; to clear it first would cost as much as to copy it.
        let mut body = self.draft.take().unwrap_or_else(|| Box::new([0; BODY_LEN]));
        circuit.relay.originate(cmd, stream, data, &mut self.rng, &mut body);
        let leg = circuit.prev;
        self.send_cell(now, leg, Command::RELAY, &body);
        self.draft = Some(body);
    }

    /// Sends a cell on a leg, whichever shard has the link.
    pub(super) fn send_cell(&mut self, now: Mono, leg: Leg, command: Command, body: &Body) {
        let shard = leg.link.shard();
        if shard == self.me {
            self.queue_cell(now, leg, command, body);
        } else if !self.outgoing.push_cell(shard, Cross::Outward(leg, command), body) {
            self.leg_overrun(now, leg, Overrun::Crossing);
        }
    }

    /// Closes a circuit for a reason found here: both neighbours are told `reason`.
    pub(super) fn close_circuit(
        &mut self,
        now: Mono,
        id: CircuitId,
        label: &'static str,
        reason: DestroyReason,
    ) {
        self.remove_circuit(now, id, label, Some(reason), Some(reason));
    }

    fn remove_circuit(
        &mut self,
        now: Mono,
        id: CircuitId,
        label: &'static str,
        to_prev: Option<DestroyReason>,
        to_next: Option<DestroyReason>,
    ) {
        let Some(mut circuit) = self.circuits.remove(id) else { return };
        self.timers.cancel(&mut circuit.extend_timer);
        *self.counters.circuits_closed.entry(label).or_default() += 1;
        self.close_streams(id, &circuit.streams);
        self.stop_seeking(now, id, &circuit.next);
        self.drop_leg(now, circuit.prev, to_prev);
        if let Some(leg) = circuit.next.leg() {
            self.drop_next_leg(now, leg, to_next);
        }
    }

    /// Parts with a leg that is no longer in the table; with a reason, its circuit is destroyed at the neighbour.
    fn drop_leg(&mut self, now: Mono, leg: Leg, reason: Option<DestroyReason>) {
        if let Some(reason) = reason {
            self.tell(now, leg.link.shard(), Message::Destroy(leg, reason));
        }
        self.tell(now, leg.link.shard(), Message::Left(leg));
    }

    /// The same for a second leg, whose id we chose.
    pub(super) fn drop_next_leg(&mut self, now: Mono, leg: Leg, reason: Option<DestroyReason>) {
        if reason.is_some() {
            self.circuits.leaving.insert(leg);
        }
        self.drop_leg(now, leg, reason);
    }

    /// The neighbour on this leg destroyed the circuit. Its reason stays here (tor-spec 5.4).
    pub(super) fn leg_destroyed(&mut self, now: Mono, leg: Leg) {
        match self.circuits.find(leg) {
            Some((id, Side::Prev)) => {
                self.remove_circuit(
                    now,
                    id,
                    "destroyed_by_client_side",
                    None,
                    Some(DestroyReason::Destroyed),
                );
            }
            Some((id, Side::Next)) => {
                self.remove_circuit(now, id, "destroyed_by_far_side", Some(DestroyReason::Destroyed), None);
            }
            None => self.creates.cancel(leg),
        }
    }

    /// The cells of this leg found no more room.
    pub(super) fn leg_overrun(&mut self, now: Mono, leg: Leg, cause: Overrun) {
        let Some((id, side)) = self.circuits.find(leg) else { return };
        let label = match (cause, side) {
            (Overrun::Queue, Side::Prev) => "queue_overrun_inbound",
            (Overrun::Queue, Side::Next) => "queue_overrun_outbound",
            (Overrun::Memory, _) => "memory_overrun",
            (Overrun::Crossing, _) => "crossing_overrun",
        };
        // What fills the queue towards the client may be the far end's doing, and the other causes anybody's.
        if (cause, side) == (Overrun::Queue, Side::Next)
            && let Some(circuit) = self.circuits.get(id)
        {
            let facts = circuit.prev_facts.clone();
            self.note_outq(now, &facts);
        }
        self.close_circuit(now, id, label, DestroyReason::ResourceLimit);
    }

    /// A link is gone: so are the circuits that ran over it.
    pub(super) fn link_lost(&mut self, now: Mono, link: LinkId) {
        self.creates.cancel_link(link);
        let all = Leg { link, circ: CircId(0) }..=Leg { link, circ: CircId(u32::MAX) };
        while let Some(&leg) = self.circuits.leaving.range(all.clone()).next() {
            self.circuits.leaving.remove(&leg);
        }
        for id in self.circuits.on_link(link) {
            let Some(circuit) = self.circuits.get(id) else { continue };
            let gone = Some(DestroyReason::ChannelClosed);
            let (to_prev, to_next) = if circuit.prev.link == link { (None, gone) } else { (gone, None) };
            self.remove_circuit(now, id, "link_closed", to_prev, to_next);
        }
    }
}
