//! Streams that end at this relay: from relay messages to bytes and back, within their windows.
//!
//! The engine keeps what a client sent until the driver takes it ([`Engine::stream_read`]), at most a window's worth
//! per stream. It keeps nothing in the other direction: the driver reads from its connection only what
//! [`Engine::stream_writable`] allows, so a slow circuit slows the connection and not the relay.
//!
//! An END ends both directions of a stream, unless its circuit agreed on something else ([`Terms::half_close`]): there END
//! with reason DONE ends only what its sender sends.
//!
//! [`Terms::half_close`]: onionring_proto::handshake::Terms::half_close

use std::net::IpAddr;

use onionring_proto::cell::DestroyReason;
use onionring_proto::flow::{FlowError, MAX_UNPREDICTABLE_DATA_LEN, STREAM_WINDOW};
use onionring_proto::limits::STREAMS_PER_CIRCUIT;
use onionring_proto::relay_msg::{
    self, Begin, Connected, End, EndReason, MAX_DATA_LEN, RelayCmd, RelayMsg, Resolve, Resolved,
    ResolvedValue, StreamId,
};
use onionring_proto::stream::Halves;
use onionring_proto::time::Mono;

use super::Engine;
use super::circuit::Side;
use super::event::{Event, Host, Lookup, StreamEvent, StreamRef};
use super::ids::{CircuitId, Leg};
use crate::limits;

mod table;

pub(super) use table::Streams;
use table::{State, Stream};

/// Lifetime in seconds that answers to look-ups carry, always the same, so that they tell nothing of the cache.
const RESOLVED_TTL: u32 = 60;

impl Engine {
    /// A message of the client's for a stream.
    pub(super) fn stream_message(&mut self, now: Mono, id: CircuitId, msg: RelayMsg<'_>) {
        if msg.stream == StreamId::CIRCUIT {
            return self.counters.ignored("stream_id_zero");
        }
        let Some(circuit) = self.circuits.get(id) else { return };
        // The stream that has the id, or that gets it.
        let serial = circuit.streams.open.get(&msg.stream).map(|stream| stream.serial);
        let serial = serial.unwrap_or(circuit.streams.next_serial);
        let at = StreamRef { circuit: id, stream: msg.stream, serial };
        let result = match msg.cmd {
            RelayCmd::DATA => self.stream_data(now, at, msg.data),
            RelayCmd::SENDME => self.stream_sendme(at),
            RelayCmd::BEGIN => {
                self.begin(now, at, msg.data);
                Ok(())
            }
            RelayCmd::BEGIN_DIR => {
                self.begin_dir(now, at);
                Ok(())
            }
            RelayCmd::RESOLVE => {
                self.resolve(now, at, msg.data);
                Ok(())
            }
            RelayCmd::END => {
                self.ended(at, End::parse(msg.data).reason);
                Ok(())
            }
            // CONNECTED and RESOLVED are for clients.
            _ => {
                self.counters.ignored("message_for_clients");
                Ok(())
            }
        };
        if let Err(error) = result {
            let error = onionring_proto::circuit::CircuitError::from(error);
            self.close_circuit(now, id, error.label(), DestroyReason::Protocol);
        }
    }

    fn stream(&mut self, at: StreamRef) -> Option<&mut Stream> {
        self.circuits.get_mut(at.circuit)?.streams.get_mut(at)
    }

    fn add_stream(&mut self, at: StreamRef, state: State, event: StreamEvent) {
        let Some(circuit) = self.circuits.get_mut(at.circuit) else { return };
        circuit.streams.next_serial = at.serial.wrapping_add(1);
        let by_halves = circuit.terms.half_close && matches!(event, StreamEvent::Begin { .. });
        let halves = by_halves.then(Halves::default);
        circuit.streams.open.insert(at.stream, Stream::new(at, state, halves));
        self.counters.streams += 1;
        self.events.push_back(Event::Stream(event));
    }

    fn remove_stream(&mut self, at: StreamRef) -> Option<Stream> {
        let stream = self.circuits.get_mut(at.circuit)?.streams.remove(at)?;
        self.counters.streams -= 1;
        self.pool.release(stream.inbox.len());
        self.turn_is_over(at.circuit, stream.has_turn);
        Some(stream)
    }

    /// A stream is gone, perhaps before it asked in its turn: if it was the last of its round, the next one begins.
    fn turn_is_over(&mut self, id: CircuitId, had_turn: bool) {
        if had_turn && self.circuits.get(id).is_some_and(|circuit| circuit.streams.turns.open == 0) {
            self.window_open(id);
        }
    }

    fn begin(&mut self, now: Mono, at: StreamRef, data: &[u8]) {
        if self.stream(at).is_some() {
            return self.counters.ignored("stream_id_in_use");
        }
        if let Some(reason) = self.exit_refused(at.circuit).or_else(|| self.streams_full(at.circuit)) {
            return self.send_end(now, at, &End { reason, addr: None });
        }
        let begin = match Begin::parse(data) {
            Ok(begin) => begin,
            Err(error) => return self.send_end(now, at, &End { reason: error.end_reason(), addr: None }),
        };
        // What is refused whatever its number takes no token, as in C tor. Of RESOURCELIMIT a client would conclude that the
        // relay has no room for anybody.
        let refuse = |engine: &mut Engine| {
            engine.send_end(now, at, &End { reason: EndReason::Misc, addr: None });
        };
        if self.is_stream_flood(now, at.circuit, refuse) {
            return;
        }
        let host = match begin.host {
            relay_msg::Host::Name(name) => Host::Name(name.to_owned()),
            relay_msg::Host::Addr(address) => Host::Address(address),
        };
        self.counters.streams_opened[0] += 1;
        let event = StreamEvent::Begin { at, host, port: begin.port, flags: begin.flags };
        self.add_stream(at, State::Opening, event);
    }

    /// Why this circuit may not reach the outside: it comes from a client directly, or from a relay nobody knows.
    fn exit_refused(&self, id: CircuitId) -> Option<EndReason> {
        match &self.circuits.get(id)?.prev_facts.peer {
            None => Some(EndReason::TorProtocol),
            Some(peer)
                if self.snapshot.params.refuse_unknown_exits
                    && self.snapshot.relays.get(&peer.rsa_id).is_none() =>
            {
                Some(EndReason::Misc)
            }
            Some(_) => None,
        }
    }

    /// The address from which a circuit's cells come: the client's, or that of the relay before this one.
    pub fn previous_hop(&self, id: CircuitId) -> Option<IpAddr> {
        self.circuits.get(id).map(|circuit| circuit.prev_facts.address)
    }

    /// Whether the circuit has all the streams it may have.
    fn streams_full(&self, id: CircuitId) -> Option<EndReason> {
        let streams = &self.circuits.get(id)?.streams;
        (streams.len() >= STREAMS_PER_CIRCUIT).then_some(EndReason::ResourceLimit)
    }

    fn begin_dir(&mut self, now: Mono, at: StreamRef) {
        if self.stream(at).is_some() {
            return self.counters.ignored("stream_id_in_use");
        }
        if let Some(reason) = self.streams_full(at.circuit) {
            return self.send_end(now, at, &End { reason, addr: None });
        }
        self.counters.streams_opened[1] += 1;
        self.add_stream(at, State::Opening, StreamEvent::BeginDir { at });
    }

    fn resolve(&mut self, now: Mono, at: StreamRef, data: &[u8]) {
        if self.stream(at).is_some() {
            return self.counters.ignored("stream_id_in_use");
        }
        // As in C tor, a look-up takes its token before anything else is asked.
        let refuse = |engine: &mut Engine| {
            let answers = vec![(ResolvedValue::TransientError, RESOLVED_TTL)];
            engine.send_resolved(now, at, &Resolved { answers });
        };
        if self.is_stream_flood(now, at.circuit, refuse) {
            return;
        }
        if self.exit_refused(at.circuit).is_some() {
            return self.counters.ignored("resolve_refused");
        }
        if let Some(reason) = self.streams_full(at.circuit) {
            return self.send_end(now, at, &End { reason, addr: None });
        }
        let lookup = match Resolve::parse(data) {
            Ok(Resolve::Name(name)) => Lookup::Name(name.to_owned()),
            Ok(Resolve::Reverse(address)) => Lookup::Reverse(address),
            // Nothing to look up: deployed exits answer so.
            Ok(Resolve::Literal(_)) | Err(_) => {
                return self.send_resolved(
                    now,
                    at,
                    &Resolved { answers: vec![(ResolvedValue::PermanentError, RESOLVED_TTL)] },
                );
            }
        };
        self.counters.streams_opened[2] += 1;
        self.add_stream(at, State::Resolving, StreamEvent::Resolve { at, lookup });
    }

    fn stream_data(&mut self, now: Mono, at: StreamRef, data: &[u8]) -> Result<(), FlowError> {
        let Some(stream) = self.stream(at) else {
            self.counters.ignored("unknown_stream");
            return Ok(());
        };
        if !stream.is_received() {
            self.counters.ignored("data_on_closed_stream");
            return Ok(());
        }
        stream.recv.on_data()?;
        let was_empty = stream.inbox.is_empty();
        if was_empty {
            stream.waiting_since = now;
        }
        stream.inbox.extend(data);
        self.pool.charge(data.len());
        self.counters.stream_bytes[0] += data.len() as u64;
        if was_empty && !data.is_empty() {
            self.events.push_back(Event::Stream(StreamEvent::Readable(at)));
        }
        if self.pool.is_full() {
            self.shed_oldest(now);
        }
        // Little may be waiting: of an empty cell, nothing ever.
        self.acknowledge(now, at);
        Ok(())
    }

    fn stream_sendme(&mut self, at: StreamRef) -> Result<(), FlowError> {
        let Some(stream) = self.stream(at) else {
            self.counters.ignored("unknown_stream");
            return Ok(());
        };
        stream.send.on_sendme()?;
        if std::mem::take(&mut stream.blocked) {
            self.events.push_back(Event::Stream(StreamEvent::Writable(at)));
        }
        Ok(())
    }

    fn ended(&mut self, at: StreamRef, reason: EndReason) {
        let Some(circuit) = self.circuits.get_mut(at.circuit) else { return };
        if reason == EndReason::Done
            && let Some(stream) = circuit.streams.open.get_mut(&at.stream)
            && stream.state == State::Open
            && let Some(halves) = &mut stream.halves
            && !halves.theirs_over
        {
            halves.theirs_over = true;
            self.end_if_both_have(at);
            return self.events.push_back(Event::Stream(StreamEvent::Finished(at)));
        }
        let Some(mut stream) = circuit.streams.remove_open(at.stream) else {
            return self.counters.ignored("unknown_stream");
        };
        let had_turn = std::mem::take(&mut stream.has_turn);
        if stream.state == State::Resolving {
            self.counters.streams -= 1;
        } else {
            stream.state = State::Ended;
            circuit.streams.flushing.insert(at.serial, stream);
        }
        self.turn_is_over(at.circuit, had_turn);
        self.events.push_back(Event::Stream(StreamEvent::Closed { at, reason: Some(reason) }));
    }

    /// The circuit's window has opened: streams that waited for it may go on, in turn.
    pub(super) fn window_open(&mut self, id: CircuitId) {
        let Some(circuit) = self.circuits.get_mut(id) else { return };
        if circuit.is_held {
            return;
        }
        let room = u16::try_from(self.snapshot.params.cells_high).unwrap_or(u16::MAX);
        for (stream, serial) in circuit.streams.begin_round(circuit.relay.window().min(room)) {
            let at = StreamRef { circuit: id, stream, serial };
            self.events.push_back(Event::Stream(StreamEvent::Writable(at)));
        }
    }

    /// So many cells of a circuit wait for the client that its destinations are left unread, as by C tor: what waits there
    /// costs no memory here, and what is read late is chosen late.
    pub(super) fn hold_streams(&mut self, leg: Leg) {
        if let Some(circuit) = self.circuit_to_client(leg).and_then(|id| self.circuits.get_mut(id)) {
            circuit.is_held = true;
        }
    }

    /// The destinations of a circuit may be read again.
    pub(super) fn release_streams(&mut self, leg: Leg) {
        let Some(id) = self.circuit_to_client(leg) else { return };
        if let Some(circuit) = self.circuits.get_mut(id) {
            circuit.is_held = false;
            self.window_open(id);
        }
    }

    fn circuit_to_client(&self, leg: Leg) -> Option<CircuitId> {
        match self.circuits.find(leg)? {
            (id, Side::Prev) => Some(id),
            (_, Side::Next) => None,
        }
    }

    /// Tells the driver that the streams of a circuit are gone.
    pub(super) fn close_streams(&mut self, id: CircuitId, streams: &Streams) {
        self.counters.streams -= streams.len();
        for (&stream, Stream { serial, inbox, .. }) in &streams.open {
            self.pool.release(inbox.len());
            let at = StreamRef { circuit: id, stream, serial: *serial };
            self.events.push_back(Event::Stream(StreamEvent::Closed { at, reason: None }));
        }
        // Of these the driver knows, and will find them gone; but not where both sides have ended what they send.
        for stream in streams.flushing.values() {
            self.pool.release(stream.inbox.len());
            if stream.halves.is_some_and(Halves::are_over) {
                let at = StreamRef { circuit: id, stream: stream.id, serial: stream.serial };
                self.events.push_back(Event::Stream(StreamEvent::Closed { at, reason: None }));
            }
        }
    }

    /// The connection of a stream is open: the client hears so.
    pub fn stream_connected(&mut self, now: Mono, at: StreamRef, connected: &Connected) {
        let Some(stream) = self.stream(at) else { return };
        if stream.state != State::Opening {
            return;
        }
        stream.state = State::Open;
        let mut data = Vec::with_capacity(25);
        connected.write(&mut data);
        self.originate(now, at.circuit, RelayCmd::CONNECTED, at.stream, &data);
        self.acknowledge(now, at);
    }

    /// The destination sends nothing more. Whether the stream goes on all the same, because its directions end one by one:
    /// then the client hears that this one is over, and the driver may still take what it sends, and has to end the
    /// stream when that is done. Otherwise nothing happens: END would end both.
    pub fn stream_finish(&mut self, now: Mono, at: StreamRef) -> bool {
        let Some(circuit) = self.circuits.get_mut(at.circuit) else { return false };
        let Some(stream) = circuit.streams.get_mut(at).filter(|stream| stream.is_sent()) else {
            return false;
        };
        let Some(halves) = &mut stream.halves else { return false };
        halves.ours_over = true;
        stream.blocked = false;
        let had_turn = std::mem::take(&mut stream.has_turn);
        circuit.streams.turns.open -= usize::from(had_turn);
        self.turn_is_over(at.circuit, had_turn);
        self.send_end(now, at, &EndReason::Done.into());
        self.end_if_both_have(at);
        true
    }

    /// Where client and destination have both ended what they send, the stream is over for the client, and its id may
    /// serve another; the driver may still take what is in the inbox.
    fn end_if_both_have(&mut self, at: StreamRef) {
        let Some(circuit) = self.circuits.get_mut(at.circuit) else { return };
        let is_over = |stream: &Stream| stream.halves.is_some_and(Halves::are_over);
        if circuit.streams.open.get(&at.stream).is_some_and(is_over)
            && let Some(mut stream) = circuit.streams.remove_open(at.stream)
        {
            stream.state = State::Ended;
            circuit.streams.flushing.insert(at.serial, stream);
        }
    }

    /// Ends a stream from this side, in any state: the client hears so, unless it ended the stream itself, or both
    /// directions have ended.
    pub fn stream_end(&mut self, now: Mono, at: StreamRef, end: &End) {
        let Some(stream) = self.remove_stream(at) else { return };
        if stream.state == State::Ended {
            return;
        }
        // DONE would end only one direction, where that was agreed on and the client still goes on sending.
        let one_half =
            stream.halves.is_some() && stream.state == State::Open && end.reason == EndReason::Done;
        let reason = if one_half { EndReason::Misc } else { end.reason };
        self.send_end(now, at, &End { reason, ..*end });
    }

    fn send_end(&mut self, now: Mono, at: StreamRef, end: &End) {
        *self.counters.stream_ends.entry(end.reason.label()).or_default() += 1;
        let mut data = Vec::with_capacity(21);
        end.write(&mut data);
        self.originate(now, at.circuit, RelayCmd::END, at.stream, &data);
    }

    /// Answers a look-up.
    pub fn stream_resolved(&mut self, now: Mono, at: StreamRef, resolved: &Resolved) {
        if self.stream(at).is_some_and(|stream| stream.state == State::Resolving) {
            self.remove_stream(at);
            self.send_resolved(now, at, resolved);
        }
    }

    fn send_resolved(&mut self, now: Mono, at: StreamRef, resolved: &Resolved) {
        let mut data = Vec::with_capacity(MAX_DATA_LEN);
        resolved.write(&mut data);
        self.originate(now, at.circuit, RelayCmd::RESOLVED, at.stream, &data);
    }

    /// The next bytes that the client sent on a stream; empty if there are none.
    pub fn stream_read(&self, at: StreamRef) -> &[u8] {
        self.circuits
            .get(at.circuit)
            .and_then(|circuit| circuit.streams.get(at))
            .map(|stream| stream.inbox.as_slices().0)
            .unwrap_or_default()
    }

    /// The driver has passed on the first `n` bytes of what [`Engine::stream_read`] gives.
    pub fn stream_consume(&mut self, now: Mono, at: StreamRef, n: usize) {
        let Some(stream) = self.stream(at) else { return };
        stream.inbox.drain(..n);
        if stream.inbox.is_empty() {
            stream.inbox.shrink_to(limits::INBOX_KEPT);
        }
        self.pool.release(n);
        self.acknowledge(now, at);
    }

    /// Sends the stream-level SENDMEs that are due: not before CONNECTED, and not while much waits for the driver.
    fn acknowledge(&mut self, now: Mono, at: StreamRef) {
        let Some(stream) = self.stream(at) else { return };
        // Of a client that has ended what it sends, nothing more is to be let in.
        if stream.state != State::Open || !stream.is_received() {
            return;
        }
        for _ in 0..stream.recv.flushed(stream.inbox.len().div_ceil(MAX_DATA_LEN)) {
            self.originate(now, at.circuit, RelayCmd::SENDME, at.stream, &[]);
        }
    }

    /// How many bytes [`Engine::stream_write`] would take now. At 0, [`StreamEvent::Writable`] follows later.
    pub fn stream_writable(&mut self, at: StreamRef) -> usize {
        let Some(circuit) = self.circuits.get_mut(at.circuit) else { return 0 };
        // While the circuit is held, nobody gets anything, and something is to come.
        let is_held = circuit.is_held;
        let room = u16::try_from(self.snapshot.params.cells_high).unwrap_or(u16::MAX);
        let window = if is_held { 0 } else { circuit.relay.window().min(room) };
        let more_to_come = is_held || circuit.relay.expects_sendme();
        let streams = &mut circuit.streams;
        let Some(stream) = streams.get_mut(at) else { return 0 };
        if !stream.is_sent() {
            return 0;
        }
        let had_turn = std::mem::take(&mut stream.has_turn);
        let own_window = stream.send.window();
        streams.turns.open -= usize::from(had_turn);
        if is_held && had_turn && !streams.turns.lost {
            (streams.turns.first, streams.turns.lost) = (at.stream.0, true);
        }
        // Without anything outstanding there would be no SENDME to end a round that somebody holds up.
        let others = streams.turns.open;
        let circuit_share = if others == 0 || !more_to_come {
            window
        } else if had_turn {
            window.div_ceil(u16::try_from(others).unwrap_or(u16::MAX).saturating_add(1))
        } else {
            0
        };
        let cells = circuit_share.min(own_window).min(STREAM_WINDOW);
        let round_is_over = had_turn && streams.turns.open == 0 && window > 0;
        let Some(stream) = streams.get_mut(at) else { return 0 };
        let closed = cells == 0;
        // Who asks again while the windows are closed is not held up once more.
        if !(closed && stream.blocked) {
            self.counters.windows[usize::from(closed)] += 1;
        }
        stream.blocked = closed;
        if round_is_over {
            self.window_open(at.circuit);
        }
        // One cell of every hundred leaves room for random bytes (tor-spec 7.3.1).
        let reserve = (usize::from(cells).div_ceil(100)) * (MAX_DATA_LEN - MAX_UNPREDICTABLE_DATA_LEN);
        (usize::from(cells) * MAX_DATA_LEN).saturating_sub(reserve).min(limits::STREAM_WRITE_CHUNK)
    }

    /// Sends bytes to the client. Returns how many were taken: all of them, if they are no more than
    /// [`Engine::stream_writable`] said, unless the circuit had to be closed meanwhile because its queue or the memory
    /// for all queues is full.
    pub fn stream_write(&mut self, now: Mono, at: StreamRef, mut data: &[u8]) -> usize {
        let offered = data.len();
        while !data.is_empty() {
            let Some(circuit) = self.circuits.get_mut(at.circuit) else { break };
            let (window, limit) = (circuit.relay.window(), circuit.relay.data_limit());
            let Some(stream) = circuit.streams.get_mut(at) else { break };
            if !stream.is_sent() || window == 0 || !stream.send.can_send() {
                stream.blocked = true;
                break;
            }
            stream.send.sent();
            stream.has_sent = true;
            let (now_sent, rest) = data.split_at(data.len().min(limit));
            self.counters.stream_bytes[1] += now_sent.len() as u64;
            self.originate(now, at.circuit, RelayCmd::DATA, at.stream, now_sent);
            data = rest;
        }
        offered - data.len()
    }
}
