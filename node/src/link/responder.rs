//! Circuits that others build to us, as a directory authority answers them: they end here, and what they carry is
//! requests to the directory. Everything else is refused.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, DestroyReason};
use onionring_proto::circuit::{CircuitError as Misuse, Outbound, Received, RelayCircuit};
use onionring_proto::crypto::tor1::SendmeTag;
use onionring_proto::flow::{CIRCUIT_INCREMENT, CIRCUIT_WINDOW, FlowError, StreamRecv, StreamSend};
use onionring_proto::handshake::{
    Create2, CreateFast, Created2, CreatedFast, OnionKeyRing, ServerIdentity, fast, respond,
};
use onionring_proto::link::PeerIdentity;
use onionring_proto::origin::CloseReason;
use onionring_proto::relay_msg::{
    Begin, Connected, End, EndReason, MAX_DATA_LEN, RelayCmd, RelayMsg, Resolved, ResolvedValue, Sendme,
    StreamId, Truncated,
};
use onionring_proto::time::Mono;
use tokio::io::ReadBuf;
use tokio::sync::mpsc;

use super::error::{CircuitError, LinkFailure, StreamError};
use super::shared::{LinkCircuit, Shared, Turn};
use super::slots::{Over, StreamNo};
use super::stream::{Stream, StreamHost};
use crate::limits;

/// Circuit-level SENDMEs that a client which keeps to its window can make due before one is sent.
const DUE_SENDMES: usize = (CIRCUIT_WINDOW / CIRCUIT_INCREMENT) as usize;

/// Lifetime in seconds of a refusal to look something up, as relays give it to every answer.
const RESOLVED_TTL: u32 = 60;

/// What circuits of others are answered with, shared by all links.
pub struct Service {
    identity: ServerIdentity,
    onion_keys: Mutex<OnionKeyRing>,
    requests: mpsc::Sender<DirRequest>,
}

/// A stream that a client has opened to the directory.
pub struct DirRequest {
    /// The stream, open already. Answer, and shut it down: dropping it says that the answer is not whole.
    pub stream: Stream,
    /// The relay at the other end of the link, `None` if that is a client.
    pub peer: Option<PeerIdentity>,
    /// Its address. It is the client's only if the circuit has no hop before us, which cannot be known of a relay's.
    pub address: IpAddr,
}

impl Service {
    /// Hands requests to `requests`; while that is full, further ones are refused.
    pub fn new(
        identity: ServerIdentity,
        onion_keys: OnionKeyRing,
        requests: mpsc::Sender<DirRequest>,
    ) -> Service {
        Service { identity, onion_keys: Mutex::new(onion_keys), requests }
    }

    /// Answers with these onion keys from now on, on open links too.
    pub fn replace_onion_keys(&self, onion_keys: OnionKeyRing) {
        *self.onion_keys.lock().unwrap_or_else(PoisonError::into_inner) = onion_keys;
    }

    /// Answers CREATE_FAST or CREATE2: the reply and the circuit. TAP is dead, and refused like a bad handshake.
    fn create(&self, command: Command, body: &Body) -> Result<(Command, Body, RelayCircuit), DestroyReason> {
        let rng = &mut rand::rng();
        let mut reply = [0; BODY_LEN];
        let (answer, keys) = match command {
            Command::CREATE_FAST => {
                let (answer, keys) = fast::server(rng, &CreateFast::parse(body).x);
                CreatedFast { reply: answer }.write(&mut reply);
                (Command::CREATED_FAST, keys)
            }
            Command::CREATE2 => {
                let onion_keys = self.onion_keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let (hdata, keys) = Create2::parse(body)
                    .and_then(|create| respond(rng, &self.identity, &onion_keys, create.htype, create.hdata))
                    .map_err(|_| DestroyReason::Protocol)?;
                Created2 { hdata: &hdata }.write(&mut reply);
                (Command::CREATED2, keys)
            }
            _ => return Err(DestroyReason::Protocol),
        };
        Ok((answer, reply, RelayCircuit::new(&keys, CIRCUIT_WINDOW, true)))
    }
}

/// A stream that is to be handed over, and its place among the requests.
struct Opened<'a> {
    no: StreamNo,
    place: mpsc::Permit<'a, DirRequest>,
}

/// One circuit of somebody else's.
pub(super) struct Responder {
    myself: Weak<Responder>,
    link: Weak<Shared>,
    id: CircId,
    service: Arc<Service>,
    state: Mutex<State>,
}

struct State {
    circuit: RelayCircuit,
    /// CREATED or DESTROY, to be sent first.
    cells: VecDeque<(Command, Body)>,
    /// Messages to be sent next; [`limits::SERVED_MESSAGES`] at most.
    messages: VecDeque<(RelayCmd, StreamId, Vec<u8>)>,
    /// Tags of circuit-level SENDMEs that are due.
    sendmes: VecDeque<SendmeTag>,
    /// Streams that have a handle.
    streams: BTreeMap<StreamNo, Served>,
    /// Those that the client has not ended, nor we.
    live: BTreeMap<StreamId, StreamNo>,
    next: StreamNo,
    /// Streams that may have something to send, in the order of being served.
    ready: VecDeque<StreamNo>,
    /// The circuit is gone. What had come before may still be read.
    end: Option<CircuitError>,
}

struct Served {
    id: StreamId,
    send: StreamSend,
    recv: StreamRecv,
    /// Received and not read yet; the stream's window bounds it.
    received: VecDeque<u8>,
    /// Written and not sent yet; [`limits::SERVED_UNSENT`] bytes at most.
    unsent: VecDeque<u8>,
    /// Stream-level SENDMEs that are due.
    sendmes: u16,
    is_ready: bool,
    /// The client has ended the stream before all was sent.
    has_lost: bool,
    over: Option<Over>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Responder {
    /// Answers a request for a circuit.
    pub fn accept(
        link: &Arc<Shared>,
        id: CircId,
        service: &Arc<Service>,
        command: Command,
        body: &Body,
    ) -> Result<Arc<Responder>, DestroyReason> {
        let (answer, reply, circuit) = service.create(command, body)?;
        let state = State {
            circuit,
            cells: VecDeque::from([(answer, reply)]),
            messages: VecDeque::new(),
            sendmes: VecDeque::new(),
            streams: BTreeMap::new(),
            live: BTreeMap::new(),
            next: 0,
            ready: VecDeque::new(),
            end: None,
        };
        let (link, service) = (Arc::downgrade(link), service.clone());
        Ok(Arc::new_cyclic(|myself| Responder {
            myself: myself.clone(),
            link,
            id,
            service,
            state: Mutex::new(state),
        }))
    }

    /// A panic elsewhere leaves the state as consistent as every other moment does.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the circuit, and lets the link send what follows from it.
    fn act<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        if let Some(link) = self.link.upgrade() {
            link.mark_ready(self.id);
        }
        result
    }

    /// Opens a stream, or refuses it.
    fn begin_dir(&self, state: &mut State, id: StreamId) -> Option<Opened<'_>> {
        if state.live.contains_key(&id) {
            return None;
        }
        if state.streams.len() < limits::SERVED_STREAMS
            && let Ok(place) = self.service.requests.try_reserve()
        {
            return Some(Opened { no: state.open(id), place });
        }
        state.end_message(id, EndReason::ResourceLimit);
        None
    }

    /// Hands a stream over. Not under the lock, which a handle that is dropped takes.
    fn hand_over(&self, opened: Opened<'_>) {
        // Both live: the link's task calls us.
        let (Some(myself), Some(link)) = (self.myself.upgrade(), self.link.upgrade()) else { return };
        opened.place.send(DirRequest {
            stream: Stream::new(myself, opened.no, Connected::default()),
            peer: link.established.peer,
            address: link.peer_address,
        });
    }

    /// A message of the client's.
    fn on_message(
        &self,
        state: &mut State,
        msg: RelayMsg<'_>,
        due: Option<SendmeTag>,
    ) -> Result<Option<Opened<'_>>, Misuse> {
        if let Some(tag) = due {
            if state.sendmes.len() == DUE_SENDMES {
                return Err(FlowError::CircuitOverrun.into());
            }
            state.sendmes.push_back(tag);
        }
        let id = msg.stream;
        if id == StreamId::CIRCUIT {
            return Ok(None);
        }
        match msg.cmd {
            RelayCmd::BEGIN_DIR => return Ok(self.begin_dir(state, id)),
            RelayCmd::BEGIN if !state.live.contains_key(&id) => {
                // No exit; and a client that takes us for one without a relay between breaks the protocol.
                let reason = match (Begin::parse(msg.data), self.is_client()) {
                    (_, true) => EndReason::TorProtocol,
                    (Ok(_), false) => EndReason::ExitPolicy,
                    (Err(error), false) => error.end_reason(),
                };
                state.end_message(id, reason);
            }
            // To clients relays do not answer this at all.
            RelayCmd::RESOLVE if !state.live.contains_key(&id) && !self.is_client() => {
                let mut data = Vec::new();
                Resolved { answers: vec![(ResolvedValue::PermanentError, RESOLVED_TTL)] }.write(&mut data);
                state.messages.push_back((RelayCmd::RESOLVED, id, data));
            }
            RelayCmd::DATA => state.on_data(id, msg.data)?,
            RelayCmd::SENDME => state.on_stream_sendme(id)?,
            RelayCmd::END => state.on_end(id, End::parse(msg.data).reason),
            // What relays do not understand they ignore.
            _ => {}
        }
        Ok(None)
    }

    fn is_client(&self) -> bool {
        self.link.upgrade().is_none_or(|link| link.established.peer.is_none())
    }

    fn on_relay(
        &self,
        state: &mut State,
        command: Command,
        body: &mut Body,
    ) -> Result<Option<Opened<'_>>, Misuse> {
        let Outbound::Recognised(tag) = state.circuit.outbound(command, body)? else {
            // It never is joined to a next hop, so nothing is to be forwarded.
            return Err(Misuse::Unrecognised);
        };
        match state.circuit.receive(command == Command::RELAY_EARLY, tag, body)? {
            Received::Nothing => {}
            Received::WindowOpen => state.mark_all_ready(),
            // We extend no circuits; deployed relays that do not destroy them for this reason.
            Received::Extend(_) => state.close(CircuitError::Dropped, Some(DestroyReason::Protocol)),
            // There is nothing behind us to be cut.
            Received::Truncate(_) => {
                let mut data = Vec::new();
                Truncated { reason: DestroyReason::Requested }.write(&mut data);
                state.messages.push_back((RelayCmd::TRUNCATED, StreamId::CIRCUIT, data));
            }
            Received::Stream(msg, due) => return self.on_message(state, msg, due),
        }
        Ok(None)
    }
}

impl LinkCircuit for Responder {
    fn handle_cell(&self, _: Mono, command: Command, body: &mut Body) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        match command {
            Command::RELAY | Command::RELAY_EARLY => match self.on_relay(&mut state, command, body) {
                Ok(opened) => {
                    if state.messages.len() > limits::SERVED_MESSAGES {
                        // It asks faster than it takes answers.
                        state.close(CircuitError::Dropped, Some(DestroyReason::ResourceLimit));
                    }
                    drop(state);
                    opened.into_iter().for_each(|opened| self.hand_over(opened));
                }
                Err(error) => state.close(CircuitError::Misuse(error), Some(DestroyReason::Protocol)),
            },
            Command::DESTROY => {
                let reason = CloseReason::Destroyed(DestroyReason::from_wire(body[0]));
                state.close(reason.into(), None);
            }
            // CREATE with an ID in use, and answers to what was not asked, are ignored, as deployed relays do.
            _ => {}
        }
    }

    fn transmit(&self, most: usize, send: &mut dyn FnMut(Command, &Body)) -> Turn {
        let mut state = self.lock();
        for _ in 0..most {
            let Some((command, body)) = state.poll_transmit() else {
                return if state.end.is_some() { Turn::Over } else { Turn::Idle };
            };
            send(command, &body);
        }
        Turn::More
    }

    fn link_lost(&self, why: &Arc<LinkFailure>) {
        self.lock().close(CircuitError::Link(why.clone()), None);
    }
}

impl State {
    fn open(&mut self, id: StreamId) -> StreamNo {
        let no = self.next;
        self.next += 1;
        let served = Served {
            id,
            send: StreamSend::default(),
            recv: StreamRecv::default(),
            received: VecDeque::new(),
            unsent: VecDeque::new(),
            sendmes: 0,
            is_ready: false,
            has_lost: false,
            over: None,
            reader: None,
            writer: None,
        };
        self.streams.insert(no, served);
        self.live.insert(id, no);
        let mut data = Vec::new();
        Connected::default().write(&mut data);
        self.messages.push_back((RelayCmd::CONNECTED, id, data));
        no
    }

    fn end_message(&mut self, id: StreamId, reason: EndReason) {
        let mut data = Vec::new();
        End::from(reason).write(&mut data);
        self.messages.push_back((RelayCmd::END, id, data));
    }

    fn live(&mut self, id: StreamId) -> Option<(StreamNo, &mut Served)> {
        let no = *self.live.get(&id)?;
        Some((no, self.streams.get_mut(&no)?))
    }

    fn on_data(&mut self, id: StreamId, data: &[u8]) -> Result<(), FlowError> {
        let Some((no, served)) = self.live(id) else { return Ok(()) };
        served.recv.on_data()?;
        served.received.extend(data);
        served.wake_reader();
        self.mark_ready(no);
        Ok(())
    }

    fn on_stream_sendme(&mut self, id: StreamId) -> Result<(), FlowError> {
        let Some((no, served)) = self.live(id) else { return Ok(()) };
        served.send.on_sendme()?;
        self.mark_ready(no);
        Ok(())
    }

    fn on_end(&mut self, id: StreamId, reason: EndReason) {
        let Some((_, served)) = self.live(id) else { return };
        served.over = Some(Over::Ended(reason));
        served.has_lost = !served.unsent.is_empty();
        served.unsent.clear();
        served.wake_reader();
        served.wake_writer();
        self.live.remove(&id);
    }

    /// We end the stream, unless it is over.
    fn shut(&mut self, no: StreamNo, reason: EndReason) {
        let Some(served) = self.streams.get_mut(&no).filter(|served| served.over.is_none()) else { return };
        served.over = Some(Over::Shut);
        served.wake_reader();
        let id = served.id;
        self.live.remove(&id);
        if self.end.is_none() {
            self.end_message(id, reason);
        }
    }

    fn mark_ready(&mut self, no: StreamNo) {
        if let Some(served) = self.streams.get_mut(&no)
            && !served.is_ready
        {
            served.is_ready = true;
            self.ready.push_back(no);
        }
    }

    fn mark_all_ready(&mut self) {
        let waiting: Vec<StreamNo> =
            self.streams.iter().filter(|(_, served)| !served.unsent.is_empty()).map(|(&no, _)| no).collect();
        for no in waiting {
            self.mark_ready(no);
        }
    }

    fn close(&mut self, why: CircuitError, tell: Option<DestroyReason>) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(why);
        self.cells.clear();
        self.messages.clear();
        self.sendmes.clear();
        self.ready.clear();
        if let Some(reason) = tell {
            let mut body = [0; BODY_LEN];
            body[0] = reason.to_wire();
            self.cells.push_back((Command::DESTROY, body));
        }
        for served in self.streams.values_mut() {
            served.wake_reader();
            served.wake_writer();
        }
    }

    fn poll_transmit(&mut self) -> Option<(Command, Body)> {
        if let Some(cell) = self.cells.pop_front() {
            return Some(cell);
        }
        if let Some((cmd, stream, data)) = self.messages.pop_front() {
            return Some(self.originate(cmd, stream, &data));
        }
        if let Some(tag) = self.sendmes.pop_front() {
            let mut data = Vec::new();
            Sendme::V1 { tag }.write(&mut data);
            return Some(self.originate(RelayCmd::SENDME, StreamId::CIRCUIT, &data));
        }
        self.poll_streams()
    }

    /// Serves the streams in turn until one has something to send.
    fn poll_streams(&mut self) -> Option<(Command, Body)> {
        while let Some(no) = self.ready.pop_front() {
            let Some(served) = self.streams.get_mut(&no) else { continue };
            served.is_ready = false;
            if served.over.is_some() {
                continue;
            }
            let id = served.id;
            if served.take_sendme() {
                self.mark_ready(no);
                return Some(self.originate(RelayCmd::SENDME, id, &[]));
            }
            if served.unsent.is_empty() || !served.send.can_send() || self.circuit.window() == 0 {
                // A SENDME will bring it back.
                continue;
            }
            served.send.sent();
            let len = served.unsent.len().min(self.circuit.data_limit());
            let data: Vec<u8> = served.unsent.drain(..len).collect();
            if served.unsent.len() <= limits::SERVED_UNSENT / 2 {
                served.wake_writer();
            }
            self.mark_ready(no);
            return Some(self.originate(RelayCmd::DATA, id, &data));
        }
        None
    }

    fn originate(&mut self, cmd: RelayCmd, stream: StreamId, data: &[u8]) -> (Command, Body) {
        let mut body = [0; BODY_LEN];
        self.circuit.originate(cmd, stream, data, &mut rand::rng(), &mut body);
        (Command::RELAY, body)
    }

    /// Why the stream takes no more.
    fn cannot_write(&self, served: &Served) -> Option<StreamError> {
        served.over.map(StreamError::from).or_else(|| self.end.clone().map(StreamError::from))
    }
}

impl Served {
    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    /// Whether a stream-level SENDME is to be sent now.
    fn take_sendme(&mut self) -> bool {
        self.sendmes += self.recv.flushed(self.received.len().div_ceil(MAX_DATA_LEN));
        let due = self.sendmes > 0;
        self.sendmes -= u16::from(due);
        due
    }
}

impl StreamHost for Responder {
    fn poll_read(&self, no: StreamNo, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.act(|state| {
            let end = state.end.clone();
            let Some(served) = state.streams.get_mut(&no) else { return fail(StreamError::Shut) };
            if served.over == Some(Over::Shut) {
                return fail(StreamError::Shut);
            }
            if !served.received.is_empty() {
                // Reading from memory cannot fail.
                let len = served.received.read(buf.initialize_unfilled())?;
                buf.advance(len);
                // The client may send more now.
                state.mark_ready(no);
                return Poll::Ready(Ok(()));
            }
            match (served.over, end) {
                (Some(Over::Ended(EndReason::Done)), _) => Poll::Ready(Ok(())),
                (Some(over), _) => fail(over.into()),
                (None, Some(end)) => fail(end.into()),
                (None, None) => {
                    served.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    fn poll_write(&self, no: StreamNo, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.act(|state| {
            let Some(served) = state.streams.get(&no) else { return fail(StreamError::Shut) };
            if let Some(error) = state.cannot_write(served) {
                return fail(error);
            }
            let Some(served) = state.streams.get_mut(&no) else { return fail(StreamError::Shut) };
            let len = data.len().min(limits::SERVED_UNSENT.saturating_sub(served.unsent.len()));
            if len == 0 {
                served.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            served.unsent.extend(&data[..len]);
            state.mark_ready(no);
            Poll::Ready(Ok(len))
        })
    }

    fn poll_flush(&self, no: StreamNo, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        let Some(served) = state.streams.get(&no) else { return fail(StreamError::Shut) };
        if served.unsent.is_empty() && !served.has_lost {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = state.cannot_write(served) {
            return fail(error);
        }
        if let Some(served) = state.streams.get_mut(&no) {
            served.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn end(&self, no: StreamNo) {
        self.act(|state| state.shut(no, EndReason::Done));
    }

    fn drop_stream(&self, no: StreamNo) {
        self.act(|state| {
            state.shut(no, EndReason::Misc);
            state.streams.remove(&no);
        });
    }
}

fn fail<T>(error: StreamError) -> Poll<io::Result<T>> {
    Poll::Ready(Err(error.into()))
}
