//! The client's side of a circuit (tor-spec 5 and 6): building it hop by hop, streams on any hop, taking it down.
//!
//! [`OriginCircuit`] is the state machine behind every program that speaks as a client: a relay that tests its own
//! reachability or fetches directories, an onion proxy, an authority that tests relays, a load generator. It does no
//! I/O. The driver
//!
//! - hands it the cells that arrive for its circuit ([`OriginCircuit::handle_cell`]) and the time
//!   ([`OriginCircuit::handle_timeout`] at [`OriginCircuit::poll_timeout`]),
//! - sends the cells that it makes ([`OriginCircuit::poll_transmit`]) while the link has room for them: cells are made
//!   as late as that, so nothing piles up behind a slow link,
//! - acts on its events ([`OriginCircuit::poll_event`]).
//!
//! Hops are counted from 0. Every hop has its own flow control and its own streams ("leaky pipe", paper 4.2): a stream
//! is known by its hop and ID, and a message is believed only from the hop it concerns.
//!
//! The circuit is strict: a relay that sends what no correct relay sends closes it, with a [`Violation`] that says
//! what it was, because tolerated nonsense is a channel between a relay and whoever watches the client.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use rand_core::CryptoRng;

use crate::cell::{BODY_LEN, Body, Command, DestroyReason};
use crate::crypto::tor1::{ClientOnion, SendmeTag};
use crate::flow::{CircuitRecv, CircuitSend};
use crate::handshake::{self, Create2, CreateFast, Created2, CreatedFast, Terms, htype};
use crate::limits::RELAY_EARLY_PER_CIRCUIT;
use crate::relay_msg::{
    self, End, EndReason, Extend2, Extended2, LinkSpecs, RelayCmd, StreamId, Truncate, Truncated,
};
use crate::stream::StreamTable;
use crate::time::Mono;

mod event;
mod streams;
mod transmit;

pub use event::{CloseReason, Event, OriginError, Violation};

use streams::ClientStream;
use transmit::Queued;

/// How a circuit behaves. The consensus gives most of it.
#[derive(Clone, Copy, Debug)]
pub struct OriginConfig {
    /// Cells that may be under way to a hop, consensus parameter `circwindow`.
    pub circwindow: u16,
    /// Whether unauthenticated SENDMEs will do, consensus parameter `sendme_accept_min_version` being 0. They always do
    /// from a hop made with CREATE_FAST.
    pub accept_v0_sendmes: bool,
    /// Whether the circuit lives on when a relay says that the part behind it is gone; otherwise it is closed, as
    /// deployed clients do.
    pub survive_truncation: bool,
    /// Whether the first cells that go past the first hop are RELAY_EARLY, as deployed clients send them, so that
    /// relays cannot tell extensions from data. Leaves fewer extensions for later.
    pub early_data: bool,
    /// The longest that one hop's handshake may take.
    pub hop_timeout: Duration,
}

impl Default for OriginConfig {
    /// What holds without a consensus.
    fn default() -> OriginConfig {
        OriginConfig {
            circwindow: crate::flow::CIRCUIT_WINDOW,
            accept_v0_sendmes: true,
            survive_truncation: false,
            early_data: false,
            hop_timeout: Duration::from_secs(60),
        }
    }
}

/// Which handshake to use with a relay whose onion key is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeKind {
    /// ntor, which names the relay by its RSA identity.
    Ntor,
    /// ntor-v3, which names the relay by its Ed25519 identity.
    NtorV3,
}

/// A relay to build a circuit through.
#[derive(Clone, Debug)]
pub struct HopTarget {
    /// Where and who it is.
    pub specs: LinkSpecs,
    /// Its ntor onion key.
    pub onion_key: [u8; 32],
    /// The handshake to use.
    pub handshake: HandshakeKind,
    /// What to ask it for, which only ntor-v3 can. It need not grant it.
    pub ask: Terms,
}

/// The handshake with the first hop, the relay at the other end of the link.
#[derive(Clone, Copy, Debug)]
pub enum FirstHop<'a> {
    /// CREATE_FAST, when its onion key is not known.
    Fast,
    /// CREATE2 with its onion key.
    Relay(&'a HopTarget),
}

/// A stream of this circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The hop that serves it.
    pub hop: usize,
    /// Its ID on that hop.
    pub id: StreamId,
}

enum State {
    /// CREATE is not made yet.
    New,
    /// CREATE or EXTEND2 is made, the reply is awaited.
    Handshake { client: Box<handshake::Client>, since: Mono },
    /// All is quiet.
    Ready,
    /// TRUNCATE is made for this hop, TRUNCATED is awaited.
    Truncating { hop: usize },
    /// Gone.
    Closed,
}

/// One hop, as flow control and streams see it.
struct Hop {
    send: CircuitSend,
    recv: CircuitRecv,
    accept_v0_sendmes: bool,
    /// Tags of circuit-level SENDMEs that are due.
    sendmes: VecDeque<SendmeTag>,
    /// What was agreed on with it.
    terms: Terms,
    streams: StreamTable<ClientStream>,
}

/// A circuit at its client; see the [module](self).
pub struct OriginCircuit {
    config: OriginConfig,
    state: State,
    onion: ClientOnion,
    hops: Vec<Hop>,
    /// RELAY_EARLY cells that may still be sent.
    early_left: u8,
    /// Whether the other side has seen a cell of the circuit, so that it needs to hear of its end.
    known_to_peer: bool,
    queue: VecDeque<Queued>,
    /// Streams that may have something to send, in the order of being served.
    ready: VecDeque<StreamKey>,
    events: VecDeque<Event>,
}

impl OriginCircuit {
    /// A circuit without a hop, on a circuit ID that the driver has allocated.
    pub fn new(config: OriginConfig) -> OriginCircuit {
        OriginCircuit {
            config,
            state: State::New,
            onion: ClientOnion::new(),
            hops: Vec::new(),
            early_left: RELAY_EARLY_PER_CIRCUIT,
            known_to_peer: false,
            queue: VecDeque::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Number of hops whose handshake is done.
    pub fn hops(&self) -> usize {
        self.hops.len()
    }

    /// What was agreed on with hop number `hop`; nothing if there is no such hop.
    pub fn terms(&self, hop: usize) -> Terms {
        self.hops.get(hop).map(|hop| hop.terms).unwrap_or_default()
    }

    /// Number of live streams on all hops.
    pub fn streams(&self) -> usize {
        self.hops.iter().map(|hop| hop.streams.len()).sum()
    }

    /// Whether the circuit is gone.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Starts the handshake with the first hop.
    pub fn create<R: CryptoRng>(
        &mut self,
        now: Mono,
        rng: &mut R,
        first: FirstHop<'_>,
    ) -> Result<(), OriginError> {
        match self.state {
            State::New => {}
            State::Closed => return Err(OriginError::Closed),
            _ => return Err(OriginError::Created),
        }
        let mut body = [0; BODY_LEN];
        let (client, command) = match first {
            FirstHop::Fast => {
                let (client, x) = handshake::fast::Client::start(rng);
                CreateFast { x }.write(&mut body);
                (handshake::Client::Fast(client), Command::CREATE_FAST)
            }
            FirstHop::Relay(target) => {
                let (client, htype, hdata) = target.start(rng)?;
                Create2 { htype, hdata: &hdata }.write(&mut body);
                (client, Command::CREATE2)
            }
        };
        if self.config.early_data {
            // As deployed clients do, so that the last RELAY_EARLY does not tell a relay its place.
            self.early_left -= (rng.next_u32() & 1) as u8;
        }
        self.state = State::Handshake { client: Box::new(client), since: now };
        self.queue.push_back(Queued::Cell(command, Box::new(body)));
        Ok(())
    }

    /// Starts the handshake with one more hop.
    pub fn extend<R: CryptoRng>(
        &mut self,
        now: Mono,
        rng: &mut R,
        target: &HopTarget,
    ) -> Result<(), OriginError> {
        self.check_ready()?;
        // Taken off now, so that other cells made before it is sent leave it one.
        let early_left = self.early_left.checked_sub(1).ok_or(OriginError::EarlySpent)?;
        let (client, htype, hdata) = target.start(rng)?;
        let mut data = Vec::new();
        Extend2 { specs: target.specs.clone(), htype, hdata: &hdata }.write(&mut data);
        self.early_left = early_left;
        self.state = State::Handshake { client: Box::new(client), since: now };
        self.queue_message(self.hops.len() - 1, RelayCmd::EXTEND2, StreamId::CIRCUIT, data);
        Ok(())
    }

    /// Asks hop number `hop` to cut the circuit behind it. Streams there are deaf from now on, and end with
    /// [`Event::Truncated`]. Not every deployed relay knows TRUNCATE: Arti's destroys the circuit instead.
    pub fn truncate(&mut self, hop: usize) -> Result<(), OriginError> {
        self.check_ready()?;
        if hop >= self.hops.len() {
            return Err(OriginError::NoSuchHop(hop));
        }
        let mut data = Vec::new();
        Truncate { reason: DestroyReason::None }.write(&mut data);
        self.state = State::Truncating { hop };
        self.queue_message(hop, RelayCmd::TRUNCATE, StreamId::CIRCUIT, data);
        Ok(())
    }

    /// Destroys the circuit. What is left to do is to send what [`OriginCircuit::poll_transmit`] still gives.
    pub fn close(&mut self) {
        if self.is_closed() {
            return;
        }
        self.state = State::Closed;
        self.queue.clear();
        self.ready.clear();
        if self.known_to_peer {
            // Clients never say why (tor-spec 5.4).
            let mut body = [0; BODY_LEN];
            body[0] = DestroyReason::None.to_wire();
            self.queue.push_back(Queued::Cell(Command::DESTROY, Box::new(body)));
        }
    }

    /// What has happened since the last call; `None` if nothing more has.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`OriginCircuit::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Mono> {
        match self.state {
            State::Handshake { since, .. } => Some(since + self.config.hop_timeout),
            _ => None,
        }
    }

    /// Closes the circuit if a handshake has taken too long.
    pub fn handle_timeout(&mut self, now: Mono) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.fail(CloseReason::Timeout { hop: self.hops.len() });
        }
    }

    /// A cell has arrived on the circuit's ID. `body` is decrypted in place.
    pub fn handle_cell(&mut self, now: Mono, command: Command, body: &mut Body) {
        if self.is_closed() {
            return;
        }
        let result = match command {
            Command::RELAY => self.on_relay(now, body),
            Command::CREATED_FAST | Command::CREATED2 => self.on_created(now, command, body),
            Command::DESTROY => Err(CloseReason::Destroyed(DestroyReason::from_wire(body[0]))),
            other => Err(Violation::Cell(other).into()),
        };
        if let Err(reason) = result {
            self.fail(reason);
        }
    }

    fn fail(&mut self, reason: CloseReason) {
        self.known_to_peer &= !matches!(reason, CloseReason::Destroyed(_));
        self.close();
        self.events.push_back(Event::Closed(reason));
    }

    fn check_ready(&self) -> Result<(), OriginError> {
        match self.state {
            State::Ready => Ok(()),
            State::Closed => Err(OriginError::Closed),
            State::New | State::Handshake { .. } | State::Truncating { .. } => Err(OriginError::Busy),
        }
    }

    fn on_created(&mut self, now: Mono, command: Command, body: &Body) -> Result<(), CloseReason> {
        let fast = match &self.state {
            State::Handshake { client, .. } if self.hops.is_empty() => {
                matches!(**client, handshake::Client::Fast(_))
            }
            _ => return Err(Violation::Cell(command).into()),
        };
        match (fast, command) {
            (true, Command::CREATED_FAST) => self.finish_handshake(now, &CreatedFast::parse(body).reply),
            (false, Command::CREATED2) => {
                let created =
                    Created2::parse(body).map_err(|error| CloseReason::Handshake { hop: 0, error })?;
                self.finish_handshake(now, created.hdata)
            }
            _ => Err(Violation::Cell(command).into()),
        }
    }

    /// The reply that [`State::Handshake`] waits for has come.
    fn finish_handshake(&mut self, now: Mono, reply: &[u8]) -> Result<(), CloseReason> {
        let State::Handshake { client, since } = mem::replace(&mut self.state, State::Ready) else {
            // The callers have just looked for this state, and only parsed the reply since.
            unreachable!("the callers have looked");
        };
        let fast = matches!(*client, handshake::Client::Fast(_));
        let hop = self.hops.len();
        let (keys, terms) = client.agree(reply).map_err(|error| CloseReason::Handshake { hop, error })?;
        self.onion.push_hop(&keys);
        self.hops.push(Hop {
            send: CircuitSend::new(self.config.circwindow),
            recv: CircuitRecv::default(),
            accept_v0_sendmes: fast || self.config.accept_v0_sendmes,
            sendmes: VecDeque::new(),
            terms,
            streams: StreamTable::new(),
        });
        self.events.push_back(Event::Extended { hops: hop + 1, took: now.since(since) });
        Ok(())
    }

    fn on_relay(&mut self, now: Mono, body: &mut Body) -> Result<(), CloseReason> {
        let (hop, tag) = self.onion.decrypt_inbound(body).ok_or(Violation::Unrecognised)?;
        let msg = relay_msg::decode(body).map_err(Violation::from)?;
        match msg.cmd {
            RelayCmd::EXTENDED2 => {
                let awaited = matches!(self.state, State::Handshake { .. }) && hop + 1 == self.hops.len();
                if !awaited || msg.stream != StreamId::CIRCUIT {
                    return Err(Violation::Message { hop, cmd: msg.cmd }.into());
                }
                let extended = Extended2::parse(msg.data).map_err(Violation::from)?;
                self.finish_handshake(now, extended.hdata)
            }
            RelayCmd::TRUNCATED => {
                if msg.stream != StreamId::CIRCUIT {
                    return Err(Violation::Message { hop, cmd: msg.cmd }.into());
                }
                let truncated = Truncated::parse(msg.data).map_err(Violation::from)?;
                self.on_truncated(hop, truncated.reason)
            }
            RelayCmd::DROP => Ok(()),
            _ => Ok(self.on_stream_message(hop, tag, msg)?),
        }
    }

    fn on_truncated(&mut self, hop: usize, reason: DestroyReason) -> Result<(), CloseReason> {
        let is_last = hop + 1 == self.hops.len();
        let goes_on = match self.state {
            // From behind the cut: about to be lost, as asked.
            State::Truncating { hop: asked } if hop > asked => return Ok(()),
            State::Truncating { hop: asked } if hop == asked => true,
            // There is nothing behind it that could be lost.
            State::Ready if is_last => {
                return Err(Violation::Message { hop, cmd: RelayCmd::TRUNCATED }.into());
            }
            _ => self.config.survive_truncation,
        };
        if !goes_on {
            return Err(CloseReason::Truncated { hop, reason });
        }
        self.state = State::Ready;
        self.onion.truncate_hops(hop + 1);
        self.queue.retain(|queued| queued.hop() <= Some(hop));
        for (offset, lost) in self.hops.drain(hop + 1..).enumerate() {
            let end = End::from(EndReason::Destroy);
            let ended = |id| Event::Ended { stream: StreamKey { hop: hop + 1 + offset, id }, end };
            self.events.extend(lost.streams.ids().map(ended));
        }
        self.events.push_back(Event::Truncated { hops: hop + 1, reason });
        Ok(())
    }
}

impl HopTarget {
    /// Starts the handshake: the client's state, and type and data for CREATE2 or EXTEND2.
    fn start<R: CryptoRng>(&self, rng: &mut R) -> Result<(handshake::Client, u16, Vec<u8>), OriginError> {
        Ok(match self.handshake {
            HandshakeKind::Ntor => {
                let (client, hdata) =
                    handshake::ntor::Client::start(rng, &self.specs.rsa_id, &self.onion_key);
                (handshake::Client::Ntor(client), htype::NTOR, hdata)
            }
            HandshakeKind::NtorV3 => {
                let ed_id = self.specs.ed_id.as_ref().ok_or(OriginError::NoEdId)?;
                let (client, hdata) =
                    handshake::ntor_v3::Client::start_asking(rng, ed_id, &self.onion_key, self.ask);
                (handshake::Client::NtorV3(client), htype::NTOR_V3, hdata)
            }
        })
    }
}

#[cfg(test)]
mod tests;
