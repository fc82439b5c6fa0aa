//! The far ends of links that are no engines: clients, and relays that do what a test makes them do.

use std::collections::{BTreeMap, VecDeque};

use onionring_proto::cell::{Body, CircId, Command, DestroyReason, Frame, next_frame, write_fixed};
use onionring_proto::limits::CIRC_ID_TRIES;
use onionring_proto::link::{Established, Handshake};
use onionring_proto::origin::{
    CloseReason, Event, FirstHop, HopTarget, OriginCircuit, OriginConfig, StreamKey,
};
use onionring_proto::relay_msg::{Begin, BeginFlags, End, Host};
use onionring_proto::time::Mono;
use rand_chacha::ChaCha20Rng;

use super::keys::EPOCH;
use super::net::{FakeTls, WireId};
use super::sink::{self, Exchange, Order};

/// Bytes a peer gives to its connection before the connection has room again.
const SEND_AHEAD: usize = 4096;

/// One end of a link, driven by hand or by the circuits it carries.
pub struct Peer {
    state: State,
    /// The connection and our side of it; `None` when it is gone.
    pub wire: Option<(WireId, usize)>,
    /// Bytes for the connection.
    pub out: Vec<u8>,
    pub circuits: BTreeMap<CircId, Circuit>,
    /// Cells that belong to none of `circuits`.
    pub stray: Vec<(CircId, Command, Body)>,
    /// While set, nothing is read from the connection.
    pub deaf: bool,
    /// What it sends in the link handshake is changed at random.
    pub spoil: bool,
    /// What is done to what it sends in the link handshake.
    pub tamper: Option<fn(&mut Vec<u8>)>,
    /// All of its part of the handshake has been sent.
    pub spoke: bool,
}

enum State {
    Handshake(Box<Handshake>),
    Open(Box<Established>),
    Closed,
}

/// A circuit of a client, and what it is for.
pub struct Circuit {
    pub origin: OriginCircuit,
    /// Hops that are still to be added.
    pub todo: VecDeque<HopTarget>,
    /// Exchanges to begin when the circuit is built.
    pub plans: Vec<Exchange>,
    /// Exchanges under way and done.
    pub exchanges: BTreeMap<StreamKey, Running>,
    /// Events that nothing here acts on.
    pub events: Vec<Event>,
    pub closed: Option<CloseReason>,
}

/// An exchange as its client sees it.
pub struct Running {
    pub plan: Exchange,
    pub sent: usize,
    pub received: usize,
    pub connected: bool,
    /// The service has ended its half.
    pub answered: bool,
    pub end: Option<End>,
}

impl Running {
    /// Whether all went through and the exit ended the stream, as it does after the last byte.
    pub fn complete(&self) -> bool {
        self.end.is_some() && self.sent == self.plan.up && self.received == self.plan.down
    }
}

impl Circuit {
    fn new(config: OriginConfig) -> Circuit {
        Circuit {
            origin: OriginCircuit::new(config),
            todo: VecDeque::new(),
            plans: Vec::new(),
            exchanges: BTreeMap::new(),
            events: Vec::new(),
            closed: None,
        }
    }

    /// Whether nothing more is to come of it.
    pub fn is_done(&self) -> bool {
        self.closed.is_some()
            || (self.todo.is_empty()
                && self.plans.is_empty()
                && self.exchanges.values().all(|running| running.end.is_some()))
    }

    /// Acts on what has happened: adds hops, begins exchanges, moves their bytes.
    fn work(&mut self, now: Mono, rng: &mut ChaCha20Rng) {
        while let Some(event) = self.origin.poll_event() {
            match event {
                // What ended it comes behind.
                Event::Extended { .. } if self.origin.is_closed() => {}
                Event::Extended { .. } if !self.todo.is_empty() => {
                    let target = self.todo.pop_front().expect("just seen");
                    self.origin.extend(now, rng, &target).unwrap();
                }
                Event::Extended { .. } => self.begin_plans(rng),
                Event::Connected { stream, .. } => {
                    self.exchanges.get_mut(&stream).expect("ours").connected = true;
                }
                Event::Finished(stream) => {
                    self.exchanges.get_mut(&stream).expect("ours").answered = true;
                }
                Event::Ended { stream, end } => {
                    self.exchanges.get_mut(&stream).expect("ours").end = Some(end);
                }
                Event::Closed(reason) => self.closed = Some(reason),
                Event::Readable(_) | Event::Writable(_) => {}
                other => self.events.push(other),
            }
        }
        let mut buf = [0; 2000];
        for (&key, running) in &mut self.exchanges {
            loop {
                let n = self.origin.read_stream(key, &mut buf);
                if n == 0 {
                    break;
                }
                running.plan.check_down(running.received, &buf[..n]);
                running.received += n;
            }
            let may_begin = running.plan.order != Order::ServiceFirst || running.answered;
            while may_begin && running.sent < running.plan.up {
                let n = running.plan.fill_up(running.sent, &mut buf);
                let taken = self.origin.write_stream(key, &buf[..n]);
                running.sent += taken;
                if taken == 0 {
                    break;
                }
            }
            if may_begin && running.sent == running.plan.up && running.plan.order != Order::Together {
                self.origin.finish_stream(key);
            }
        }
    }

    /// Begins what is planned, on the hop that each plan names.
    pub fn begin_plans(&mut self, rng: &mut ChaCha20Rng) {
        for mut plan in std::mem::take(&mut self.plans) {
            let hop = plan.hop.unwrap_or(self.origin.hops() - 1);
            if !self.origin.terms(hop).half_close {
                plan.order = Order::Together;
            }
            let name = plan.host_name();
            let begin = Begin { host: Host::Name(&name), port: sink::PORT, flags: BeginFlags::default() };
            let key = match plan.directory {
                true => self.origin.begin_dir(rng, hop).unwrap(),
                false => self.origin.begin(rng, hop, &begin).unwrap(),
            };
            let running =
                Running { plan, sent: 0, received: 0, connected: false, answered: false, end: None };
            self.exchanges.insert(key, running);
        }
    }
}

impl Peer {
    pub fn new(handshake: Handshake, wire: (WireId, usize)) -> Peer {
        let mut peer = Peer {
            state: State::Handshake(Box::new(handshake)),
            wire: Some(wire),
            out: Vec::new(),
            circuits: BTreeMap::new(),
            stray: Vec::new(),
            deaf: false,
            spoil: false,
            tamper: None,
            spoke: false,
        };
        if let State::Handshake(handshake) = &mut peer.state {
            handshake.poll_transmit(&mut peer.out);
        }
        peer
    }

    /// The open link.
    pub fn link(&self) -> Option<&Established> {
        match &self.state {
            State::Open(link) => Some(link),
            _ => None,
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The connection is gone.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.wire = None;
        self.out.clear();
    }

    /// Takes bytes off the connection, and returns how many were used.
    pub fn receive(&mut self, now: Mono, buf: &mut [u8], tls: &FakeTls, rng: &mut ChaCha20Rng) -> usize {
        let mut used = 0;
        while !self.is_closed() {
            let n = match &mut self.state {
                State::Handshake(handshake) => {
                    let Ok((n, established)) = handshake.handle(EPOCH, &mut buf[used..], tls, rng) else {
                        self.state = State::Closed;
                        break;
                    };
                    handshake.poll_transmit(&mut self.out);
                    if let Some(established) = established {
                        self.state = State::Open(Box::new(established));
                    }
                    n
                }
                State::Open(link) => {
                    let framing = link.version.into();
                    let Some((n, frame)) = next_frame(framing, &mut buf[used..]).expect("a relay's cells")
                    else {
                        break;
                    };
                    if let Frame::Fixed { circ_id, command, body } = frame {
                        match self.circuits.get_mut(&circ_id) {
                            Some(circuit) if !circuit.origin.is_closed() => {
                                circuit.origin.handle_cell(now, command, body);
                            }
                            _ if circ_id != CircId::LINK => self.stray.push((circ_id, command, *body)),
                            _ => {}
                        }
                    }
                    n
                }
                State::Closed => 0,
            };
            used += n;
            if n == 0 {
                break;
            }
        }
        used
    }

    /// Sends a cell as it is.
    pub fn send(&mut self, circ_id: CircId, command: Command, body: &Body) {
        let version = self.link().expect("an open link").version;
        write_fixed(version, circ_id, command, body, &mut self.out);
    }

    /// A circuit id of ours that is free.
    pub fn free_circ_id(&self, rng: &mut ChaCha20Rng) -> CircId {
        let link = self.link().expect("an open link");
        link.circ_ids.allocate(CIRC_ID_TRIES, rng, |id| !self.circuits.contains_key(&id)).expect("plenty")
    }

    /// Starts a circuit; it grows by itself.
    pub fn start_circuit(
        &mut self,
        now: Mono,
        rng: &mut ChaCha20Rng,
        first: FirstHop<'_>,
        rest: Vec<HopTarget>,
        plans: Vec<Exchange>,
        config: OriginConfig,
    ) -> CircId {
        let id = self.free_circ_id(rng);
        let mut circuit = Circuit::new(config);
        circuit.origin.create(now, rng, first).unwrap();
        circuit.todo = rest.into();
        circuit.plans = plans;
        self.circuits.insert(id, circuit);
        id
    }

    /// Gives the circuits a turn.
    pub fn work(&mut self, now: Mono, rng: &mut ChaCha20Rng) {
        let State::Open(link) = &self.state else {
            if self.is_closed() {
                for circuit in self.circuits.values_mut() {
                    circuit.origin.close();
                    circuit.closed.get_or_insert(CloseReason::Destroyed(DestroyReason::ChannelClosed));
                }
            }
            return;
        };
        for (&id, circuit) in &mut self.circuits {
            circuit.origin.handle_timeout(now);
            circuit.work(now, rng);
            while self.out.len() < SEND_AHEAD
                && let Some((command, body)) = circuit.origin.poll_transmit(rng)
            {
                write_fixed(link.version, id, command, &body, &mut self.out);
            }
            circuit.work(now, rng);
        }
    }
}
