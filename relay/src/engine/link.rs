//! Links as a shard sees them: handshake, the way of a cell from a link to its circuit's home, and the way out.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::cell::{
    Body, CircId, Command, DestroyReason, Frame, FrameError, LinkVersion, next_frame,
};
use onionring_proto::link::{
    CircIds, Established, ExpectedPeer, Handshake, LinkError, LinkIdentity, LinkParams, PaddingTimer,
    PeerIdentity, TlsExporter, Verdict, judge,
};
use onionring_proto::time::{Mono, Unix};
use rand_core::Rng;

use super::Engine;
use super::cross::{Cross, Message, Overrun};
use super::dos::Admission;
use super::event::{DialId, Event, LinkEvent};
use super::ids::{Leg, LinkId};
use super::queue::{LinkQueue, QueueFull};
use super::timer::{Timer, TimerKey};
use crate::limits;

mod timeouts;

/// What circuits need to know of a link they run over. It never changes once the link is open.
#[derive(Debug)]
pub struct LinkFacts {
    /// The link protocol in use.
    pub version: LinkVersion,
    /// Who the peer proved to be; `None` for a client.
    pub peer: Option<PeerIdentity>,
    /// The peer's address as the connection has it.
    pub address: IpAddr,
    /// Whether the connection leads to an address that the peer calls its own.
    pub canonical: bool,
    /// Which circuit ids are ours to choose, and which are the peer's.
    pub circ_ids: CircIds,
    /// When the handshake was complete.
    pub opened_at: Mono,
}

impl LinkFacts {
    /// Whether the peer is a client: it did not prove to be a relay.
    pub fn is_client(&self) -> bool {
        self.peer.is_none()
    }
}

/// A connection whose TLS handshake is complete.
pub struct NewLink {
    /// Address and port of the peer.
    pub peer: SocketAddr,
    /// How it came about.
    pub origin: Origin,
    /// What [`Engine::admit`] said of it.
    pub admission: Admission,
}

/// How a connection came about, with what binds the link handshake to its TLS session.
pub enum Origin {
    /// A peer came to us; the identity is the one made for the TLS certificate that it was shown.
    Accepted(Arc<LinkIdentity>),
    /// We went to a peer, which showed this TLS certificate (DER).
    Dialed(DialId, Vec<u8>),
}

/// One link.
pub(super) struct Link {
    state: State,
    queue: LinkQueue,
    address: IpAddr,
    dial: Option<DialId>,
    /// Counts an accepted connection as one of its address, until the link goes.
    _admission: Admission,
    /// Padding of an open link.
    padding: Option<PaddingTimer>,
    /// Circuits of all shards that run over it.
    circuits: usize,
    /// Those of them that the peer created.
    created_by_peer: usize,
    /// Bytes still to come of a cell that is dropped unseen, because it is too long to be held.
    skip: usize,
    /// When the last circuit went, or the link opened.
    idle_since: Mono,
    idle_limit: Duration,
    /// The driver has been told that there is something to send.
    writable: bool,
    /// The end of the handshake, then of idleness.
    deadline: Option<TimerKey>,
    padding_timer: Option<TimerKey>,
    /// Set when the link is to be closed as soon as what goes on now is over.
    overrun_timer: Option<TimerKey>,
}

/// Stands for the link protocol of a link that never had one, and so no cell that depends on it.
const NO_CIRCUITS: LinkVersion = LinkVersion::V4;

enum State {
    Handshake(Box<Handshake>),
    Open(Arc<LinkFacts>),
    /// Only what is queued is still sent, framed as before.
    Closing(LinkVersion),
}

impl Link {
    /// Whether the peer chose this circuit id; of no account once the link is closing.
    fn is_peers(&self, circ: CircId) -> bool {
        matches!(&self.state, State::Open(facts) if facts.circ_ids.peer_may_use(circ))
    }

    /// Lets the driver know, once, that this link has something to send.
    fn tell_writable(&mut self, id: LinkId, events: &mut VecDeque<Event>) {
        if !self.writable && !self.queue.is_empty() {
            self.writable = true;
            events.push_back(Event::Link(LinkEvent::Writable(id)));
        }
    }
}

/// Why a link ends.
#[derive(Debug)]
pub enum LinkEnd {
    /// The peer broke the protocol.
    Peer(LinkError),
    /// The connection closed or failed.
    Connection,
    /// The handshake took too long.
    Timeout,
    /// It carried no circuit for long.
    Idle,
    /// The peer makes work and does not read the answers.
    Overrun,
    /// Too many were being dialed.
    Shed,
    /// The relay shuts down.
    Shutdown,
}

impl LinkEnd {
    /// A short name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            LinkEnd::Peer(error) => error.label(),
            LinkEnd::Connection => "connection",
            LinkEnd::Timeout => "handshake_timeout",
            LinkEnd::Idle => "idle",
            LinkEnd::Overrun => "overrun",
            LinkEnd::Shed => "dial_shed",
            LinkEnd::Shutdown => "shutdown",
        }
    }
}

impl Engine {
    /// Starts the link handshake on a new connection whose TLS handshake is complete.
    pub fn open_link(&mut self, now: Mono, new: NewLink) -> LinkId {
        let id = LinkId::new(self.me, self.next_link);
        self.next_link += 1;
        let params = LinkParams {
            versions: self.snapshot.link_versions.clone(),
            peer_address: new.peer.ip(),
            own_addresses: self.snapshot.own_addresses.clone(),
        };
        let (handshake, dial) = match new.origin {
            Origin::Accepted(identity) => (Handshake::responder(identity, params), None),
            Origin::Dialed(dial, leaf) => {
                // A dial that is over leads to a link nobody waits for, to whoever answers.
                let target = self.registry.dial_connected(dial, id);
                let expected = ExpectedPeer {
                    rsa_id: target.map(|(rsa_id, _)| rsa_id),
                    ed_id: target.and_then(|(_, ed_id)| ed_id),
                };
                let identity = Some(self.snapshot.link_identity.clone());
                (Handshake::initiator(identity, expected, &leaf, params), Some(dial))
            }
        };
        let mut link = Link {
            state: State::Handshake(Box::new(handshake)),
            queue: LinkQueue::new(self.homes.clone(), self.snapshot.params.priority_half_life, now),
            address: new.peer.ip().to_canonical(),
            dial,
            _admission: new.admission,
            padding: None,
            circuits: 0,
            created_by_peer: 0,
            skip: 0,
            idle_since: now,
            idle_limit: Duration::MAX,
            writable: false,
            deadline: None,
            padding_timer: None,
            overrun_timer: None,
        };
        self.timers.set(&mut link.deadline, now + limits::LINK_HANDSHAKE_TIMEOUT, Timer::Handshake(id));
        self.links.insert(id, link);
        self.flush_handshake(id);
        id
    }

    /// A dial did not lead to a connection with a complete TLS handshake.
    pub fn dial_failed(&mut self, now: Mono, dial: DialId) {
        let mut todo = Vec::new();
        self.registry.dial_failed(dial, DestroyReason::ChannelClosed, &mut todo);
        self.registry_todo(now, todo);
    }

    /// Takes bytes that came out of a link's TLS session, and returns how many were used: the rest is the beginning of
    /// a cell, to be handed in again with what follows it. Cells are processed where they lie.
    ///
    /// A peer that breaks the protocol has its link closed: [`LinkEvent::Close`] follows.
    pub fn handle_link_data(
        &mut self,
        now: Mono,
        unix: Unix,
        id: LinkId,
        buf: &mut [u8],
        exporter: &dyn TlsExporter,
    ) -> usize {
        let mut used = 0;
        loop {
            let result = match self.links.get(&id).map(|link| &link.state) {
                None | Some(State::Closing(_)) => return buf.len(),
                Some(State::Handshake(_)) => self.handshake_data(now, unix, id, &mut buf[used..], exporter),
                Some(State::Open(facts)) => {
                    let facts = facts.clone();
                    match self.skip(id, buf.len() - used) {
                        0 => self.cells(now, id, &facts, &mut buf[used..]),
                        skipped => Ok(skipped),
                    }
                }
            };
            match result {
                Ok(0) => return used,
                Ok(n) => used += n,
                Err(error) => {
                    self.close_link(now, id, LinkEnd::Peer(error));
                    return buf.len();
                }
            }
        }
    }

    fn handshake_data(
        &mut self,
        now: Mono,
        unix: Unix,
        id: LinkId,
        buf: &mut [u8],
        exporter: &dyn TlsExporter,
    ) -> Result<usize, LinkError> {
        let Some(Link { state: State::Handshake(handshake), .. }) = self.links.get_mut(&id) else {
            return Ok(0);
        };
        let (used, established) = handshake.handle(unix, buf, exporter, &mut self.rng)?;
        self.flush_handshake(id);
        if let Some(established) = established {
            self.link_established(now, id, established);
        }
        Ok(used)
    }

    fn flush_handshake(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let State::Handshake(handshake) = &mut link.state {
            let mut out = Vec::new();
            handshake.poll_transmit(&mut out);
            link.queue.push_urgent(&out);
        }
        self.tell_writable(id);
    }

    fn link_established(&mut self, now: Mono, id: LinkId, established: Established) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let facts = Arc::new(LinkFacts {
            version: established.version,
            canonical: established.canonical,
            circ_ids: established.circ_ids,
            peer: established.peer,
            address: link.address,
            opened_at: now,
        });
        let params = &self.snapshot.params;
        let canonical = params.idle_canonical_link;
        let range = if facts.canonical { canonical * 3 / 4..canonical * 5 / 4 } else { limits::IDLE_LINK };
        let spread = (range.end - range.start).as_millis() as u64;
        link.idle_limit = range.start + Duration::from_millis(self.rng.next_u64() % spread);
        link.idle_since = now;
        let pad = facts.is_client() || params.pad_relays;
        link.padding = Some(PaddingTimer::new(facts.version, pad, now));
        link.state = State::Open(facts.clone());
        self.timers.set(&mut link.deadline, now + link.idle_limit, Timer::Idle(id));
        let dial = link.dial.take();
        let kind = if facts.is_client() { 0 } else { 1 + usize::from(dial.is_some()) };
        self.counters.links_opened[kind] += 1;
        self.counters.links_from_relays_ipv6 += u64::from(kind == 1 && facts.address.is_ipv6());
        if let Some(peer) = &facts.peer {
            let registrar = self.homes.registrar(&peer.rsa_id);
            self.tell(now, registrar, Message::LinkOpened(id, facts.clone()));
        }
        if let Some(dial) = dial {
            // Dials are made by the registrar itself, so the entry is here.
            let mut todo = Vec::new();
            self.registry.dial_done(dial, &mut todo);
            self.registry_todo(now, todo);
        }
    }

    /// Takes what has come, up to `len` bytes, of a cell that is dropped unseen.
    fn skip(&mut self, id: LinkId, len: usize) -> usize {
        let Some(link) = self.links.get_mut(&id) else { return 0 };
        let skipped = link.skip.min(len);
        link.skip -= skipped;
        skipped
    }

    /// Takes all whole cells off an open link.
    fn cells(
        &mut self,
        now: Mono,
        id: LinkId,
        facts: &Arc<LinkFacts>,
        buf: &mut [u8],
    ) -> Result<usize, LinkError> {
        let mut used = 0;
        loop {
            let (len, frame) = match next_frame(facts.version.into(), &mut buf[used..]) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(used),
                // C tor drops what it does not know at any length.
                Err(FrameError::TooLong { command, length }) => {
                    let frame = Frame::Variable { circ_id: CircId::LINK, command, body: &mut [] };
                    judge(facts.version, &frame)?;
                    self.counters.ignored("link_cell");
                    if let Some(link) = self.links.get_mut(&id) {
                        link.skip = facts.version.circ_id_len() + 1 + 2 + length;
                    }
                    return Ok(used + self.skip(id, buf.len() - used));
                }
                Err(error) => return Err(error.into()),
            };
            used += len;
            self.counters.cells_in[usize::from(frame.command().0)] += 1;
            self.counters.link_bytes_in += len as u64;
            match (judge(facts.version, &frame)?, frame) {
                (Verdict::Circuit, Frame::Fixed { circ_id, command, body }) => {
                    self.link_cell(now, Leg { link: id, circ: circ_id }, facts, command, body);
                }
                (Verdict::Padding(request), _) => {
                    let params = self.snapshot.params.padding;
                    if let Some(padding) = self.links.get_mut(&id).and_then(|link| link.padding.as_mut()) {
                        padding.negotiate(request, &params, now, &mut self.rng);
                    }
                    self.arm_padding(id);
                }
                _ => self.counters.ignored("link_cell"),
            }
        }
    }

    /// Sends a circuit's cell to the circuit's home.
    fn link_cell(&mut self, now: Mono, leg: Leg, facts: &Arc<LinkFacts>, command: Command, body: &mut Body) {
        let home = self.homes.home(leg);
        match command {
            Command::CREATE2 | Command::CREATE_FAST | Command::CREATE => {
                let flood = self.is_create_flood(now, facts);
                let link_full = self.link_is_full(leg.link);
                let body = Box::new(*body);
                let message = Message::Create { leg, command, body, facts: facts.clone(), flood, link_full };
                self.tell(now, home, message);
            }
            Command::DESTROY => {
                self.forget_queued(leg);
                self.tell(now, home, Message::Destroyed(leg));
            }
            _ if home == self.me => self.circuit_cell(now, leg, command, body),
            _ => {
                if !self.outgoing.push_cell(home, Cross::Inward(leg, command), body) {
                    self.overrun(now, leg, Overrun::Crossing);
                }
            }
        }
    }

    /// Queues a cell on a link of this shard.
    pub(super) fn queue_cell(&mut self, now: Mono, leg: Leg, command: Command, body: &Body) {
        let link = match self.links.get_mut(&leg.link) {
            Some(link) if !matches!(link.state, State::Closing(_)) => link,
            // The home chose the link before it heard that it is gone.
            _ => {
                let home = self.homes.home(leg);
                return self.tell(now, home, Message::LinkClosed(leg.link));
            }
        };
        // What the peer created leads to the client.
        let to_client = link.is_peers(leg.circ);
        let params = &self.snapshot.params;
        let limit = params.cells_per_circuit[usize::from(!to_client)];
        match link.queue.push(&mut self.pool, now, leg.circ, command, body, limit) {
            Ok(()) => {
                link.tell_writable(leg.link, &mut self.events);
                if to_client && link.queue.reaches(params.cells_high, params.cells_low) {
                    self.tell(now, self.homes.home(leg), Message::QueueHigh(leg));
                }
            }
            Err(QueueFull::Circuit) => self.overrun(now, leg, Overrun::Queue),
            Err(QueueFull::Pool) => {
                let shed = self.shed_oldest(now);
                // The circuit of this cell may be among them, or be closed already if this is its home.
                let home = self.homes.home(leg);
                if shed.contains(&leg) || (home == self.me && self.circuits.find(leg).is_none()) {
                    return;
                }
                let Some(link) = self.links.get_mut(&leg.link) else { return };
                match link.queue.push(&mut self.pool, now, leg.circ, command, body, limit) {
                    Ok(()) => link.tell_writable(leg.link, &mut self.events),
                    Err(QueueFull::Circuit) => self.overrun(now, leg, Overrun::Queue),
                    Err(QueueFull::Pool) => self.overrun(now, leg, Overrun::Memory),
                }
            }
        }
    }

    /// Gives up a circuit whose cells find no room.
    pub(super) fn overrun(&mut self, now: Mono, leg: Leg, cause: Overrun) {
        // Until the home hears of it, it may send more.
        if let Some(link) = self.links.get_mut(&leg.link) {
            link.queue.condemn(&mut self.pool, leg.circ);
        }
        let home = self.homes.home(leg);
        self.tell(now, home, Message::Overrun(leg, cause));
    }

    /// Legs of this shard's links that have cells waiting, and since when the first one waits.
    pub(super) fn waiting_legs(&self) -> impl Iterator<Item = (Mono, Leg)> {
        self.links.iter().flat_map(|(&link, state)| {
            state.queue.waiting(&self.pool).map(move |(circ, at)| (at, Leg { link, circ }))
        })
    }

    fn forget_queued(&mut self, leg: Leg) {
        if let Some(link) = self.links.get_mut(&leg.link) {
            link.queue.remove(&mut self.pool, leg.circ);
        }
    }

    /// Whether the peer has all the circuits it may have. Those of which it has yet to read that they are gone count
    /// too, so that a peer which reads nothing cannot have ever more of them. Those whose public-key work is still to be
    /// done do not: their number has its own limit.
    fn link_is_full(&self, id: LinkId) -> bool {
        let Some(Link { state: State::Open(facts), created_by_peer, queue, .. }) = self.links.get(&id) else {
            return false;
        };
        let params = &self.snapshot.params;
        let limit = if facts.is_client() { params.circuits_per_client } else { params.circuits_per_link };
        created_by_peer + queue.destroys() >= limit
    }

    /// Sends a DESTROY on a link of this shard, ahead of all data, and drops what the circuit had waiting.
    pub(super) fn send_destroy(&mut self, now: Mono, leg: Leg, reason: DestroyReason) {
        let Some(link @ Link { state: State::Open(_), .. }) = self.links.get_mut(&leg.link) else { return };
        if link.queue.push_destroy(&mut self.pool, leg.circ, reason) {
            self.tell_writable(leg.link);
        } else {
            self.tell(now, self.homes.home(leg), Message::Free(leg));
        }
    }

    /// Sends a DESTROY for a circuit that the peer asked for in vain.
    pub(super) fn send_refusal(&mut self, now: Mono, leg: Leg, reason: DestroyReason) {
        let Some(link @ Link { state: State::Open(_), .. }) = self.links.get_mut(&leg.link) else { return };
        if link.queue.push_refusal(leg.circ, reason) {
            self.tell_writable(leg.link);
        } else {
            // Not here: this call may be deep in the closing of many circuits.
            self.timers.set(&mut link.overrun_timer, now, Timer::Overrun(leg.link));
        }
    }

    fn tell_writable(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.tell_writable(id, &mut self.events);
        }
    }

    /// Appends to `out` what the link sends next, until `out` holds `until` bytes or more, or nothing is left. The
    /// later it is called, the better the choice of circuits. `false` if nothing was left to give.
    pub fn poll_transmit(&mut self, now: Mono, id: LinkId, out: &mut Vec<u8>, until: usize) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let version = match &link.state {
            State::Open(facts) => facts.version,
            State::Closing(version) => *version,
            State::Handshake(_) => NO_CIRCUITS,
        };
        let before = out.len();
        let (cells, waited) = link.queue.fill(&mut self.pool, now, version, out, until);
        if let Some(since) = waited {
            self.counters.queue_delay.record(now.since(since));
        }
        self.counters.cells_out += cells as u64;
        self.counters.link_bytes_out += (out.len() - before) as u64;
        if let Some(padding) = &mut link.padding
            && out.len() > before
        {
            padding.sent(now);
        }
        if link.queue.is_empty() {
            link.writable = false;
        }
        while let Some(circ) = self.links.get_mut(&id).and_then(|link| link.queue.take_told()) {
            let leg = Leg { link: id, circ };
            self.tell(now, self.homes.home(leg), Message::Free(leg));
        }
        while let Some(circ) = self.links.get_mut(&id).and_then(|link| link.queue.take_low()) {
            let leg = Leg { link: id, circ };
            self.tell(now, self.homes.home(leg), Message::QueueLow(leg));
        }
        out.len() > before
    }

    /// The link's connection is gone.
    pub fn link_gone(&mut self, now: Mono, id: LinkId) {
        self.close_link(now, id, LinkEnd::Connection);
        self.forget_link(id);
    }

    /// Closes a link: its circuits end now, what is queued for it is still sent. [`LinkEvent::Close`] follows.
    pub fn close_link(&mut self, now: Mono, id: LinkId, end: LinkEnd) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (version, facts, dial) = match &link.state {
            State::Closing(_) => return,
            State::Handshake(_) => (NO_CIRCUITS, None, link.dial.take()),
            State::Open(facts) => (facts.version, Some(facts.clone()), None),
        };
        link.state = State::Closing(version);
        link.queue.drop_circuits(&mut self.pool);
        link.padding = None;
        self.timers.cancel(&mut link.deadline);
        self.timers.cancel(&mut link.overrun_timer);
        self.timers.cancel(&mut link.padding_timer);
        *self.counters.links_closed.entry(end.label()).or_default() += 1;
        self.events.push_back(Event::Link(LinkEvent::Close(id)));
        if let Some(dial) = dial {
            self.dial_failed(now, dial);
        }
        let Some(facts) = facts else { return };
        if let Some(peer) = &facts.peer {
            let registrar = self.homes.registrar(&peer.rsa_id);
            self.tell(now, registrar, Message::LinkRetired(id, facts.clone()));
        }
        for shard in 0..self.homes.shards() {
            self.tell(now, super::ids::ShardIndex(shard), Message::LinkClosed(id));
        }
    }

    /// Forgets a link after [`LinkEvent::Close`], when its last bytes are sent.
    pub fn forget_link(&mut self, id: LinkId) {
        if let Some(mut link) = self.links.remove(&id) {
            link.queue.clear(&mut self.pool);
        }
    }

    /// Whether the link has been closed and has nothing more to send.
    pub fn link_finished(&self, id: LinkId) -> bool {
        self.links
            .get(&id)
            .is_none_or(|link| matches!(link.state, State::Closing(_)) && link.queue.is_empty())
    }

    /// Whether the peer of a link has proved to be a relay of the consensus.
    pub fn leads_to_listed_relay(&self, id: LinkId) -> bool {
        let Some(Link { state: State::Open(facts), .. }) = self.links.get(&id) else { return false };
        self.snapshot.is_listed(facts)
    }

    /// The links of this shard.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.links.keys().copied()
    }

    pub(super) fn leg_joined(&mut self, leg: Leg) {
        if let Some(link) = self.links.get_mut(&leg.link) {
            link.circuits += 1;
            link.created_by_peer += usize::from(link.is_peers(leg.circ));
        }
    }

    /// The last that a link hears of a circuit. Cells that the home sent before it heard of the peer's DESTROY may still
    /// wait.
    pub(super) fn leg_left(&mut self, now: Mono, leg: Leg) {
        self.forget_queued(leg);
        let Some(link) = self.links.get_mut(&leg.link) else { return };
        link.circuits = link.circuits.saturating_sub(1);
        link.created_by_peer = link.created_by_peer.saturating_sub(usize::from(link.is_peers(leg.circ)));
        if link.circuits == 0 && matches!(link.state, State::Open(_)) {
            link.idle_since = now;
            self.timers.set(&mut link.deadline, now + link.idle_limit, Timer::Idle(leg.link));
        }
    }
}
