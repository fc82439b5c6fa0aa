//! Streams of an origin circuit: opening, reading, writing and closing them, and what relays send for them.

use std::collections::VecDeque;
use std::io::Read;
use std::mem;

use rand_core::CryptoRng;

use super::{Event, OriginCircuit, OriginError, StreamKey, Violation};
use crate::crypto::tor1::SendmeTag;
use crate::flow::{CIRCUIT_INCREMENT, CIRCUIT_WINDOW, FlowError};
use crate::limits::{ORIGIN_QUEUED_MESSAGES, ORIGIN_STREAM_BUFFER};
use crate::relay_msg::{
    Begin, Connected, End, EndReason, MAX_DATA_LEN, RelayCmd, RelayMsg, Resolve, Resolved, Sendme, StreamId,
};
use crate::stream::{Halves, OpenError, Stream, StreamState, Target};

/// Circuit-level SENDMEs that a peer which keeps to its window can make due before one is sent.
const DUE_SENDMES: usize = (CIRCUIT_WINDOW / CIRCUIT_INCREMENT) as usize;

/// Buffers and flags of one stream.
#[derive(Default)]
pub(super) struct ClientStream {
    /// Received and not read yet; the stream's window bounds it.
    received: VecDeque<u8>,
    /// Written and not sent yet, at most [`ORIGIN_STREAM_BUFFER`] bytes.
    unsent: VecDeque<u8>,
    /// Whether a write was cut short since the last [`Event::Writable`].
    write_was_short: bool,
    /// Whether it stands in the queue of streams to be served.
    pub is_ready: bool,
    /// Stream-level SENDMEs that are due.
    sendmes: u16,
    /// The peer's END, kept until all before it is read.
    end: Option<End>,
    /// Nothing more will be written: our direction ends once all is sent.
    is_finishing: bool,
    /// Whether [`Event::Finished`] has been told.
    told_finished: bool,
}

impl ClientStream {
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Moves what fits into `room`.
    pub fn take_unsent(&mut self, room: &mut [u8]) -> usize {
        read_from(&mut self.unsent, room)
    }

    /// Whether the writer should hear that there is room again; true once.
    pub fn wants_more(&mut self) -> bool {
        self.write_was_short && self.unsent.len() <= ORIGIN_STREAM_BUFFER / 2 && {
            self.write_was_short = false;
            true
        }
    }
}

impl Stream<ClientStream> {
    /// Whether the peer may send more.
    fn expects_data(&self) -> bool {
        self.data.end.is_none() && !self.halves.is_some_and(|halves| halves.theirs_over)
    }

    /// Whether a stream-level SENDME is due.
    fn owes_sendme(&self) -> bool {
        let waiting = self.data.received.len().div_ceil(MAX_DATA_LEN);
        self.expects_data() && (self.data.sendmes > 0 || self.recv.is_due(waiting))
    }

    /// Whether a stream-level SENDME is to be sent now.
    pub(super) fn take_sendme(&mut self) -> bool {
        if !self.expects_data() {
            return false;
        }
        self.data.sendmes += self.recv.flushed(self.data.received.len().div_ceil(MAX_DATA_LEN));
        let due = self.data.sendmes > 0;
        self.data.sendmes -= u16::from(due);
        due
    }

    /// Whether END DONE is to be sent now. Not before CONNECTED: until then END refuses, whatever its reason.
    pub(super) fn take_finish(&mut self) -> bool {
        let is_due = self.state == StreamState::Open && self.data.is_finishing && !self.data.has_unsent();
        match &mut self.halves {
            Some(halves) if is_due && self.data.end.is_none() => !mem::replace(&mut halves.ours_over, true),
            _ => false,
        }
    }
}

/// Moves as many bytes as there are, and fit, from the front of a buffer.
fn read_from(buffer: &mut VecDeque<u8>, out: &mut [u8]) -> usize {
    let len = out.len().min(buffer.len());
    buffer.read_exact(&mut out[..len]).expect("no more than the buffer holds");
    len
}

impl OriginCircuit {
    /// Opens a stream from hop number `hop` to an address. Data may be written at once.
    pub fn begin<R: CryptoRng>(
        &mut self,
        rng: &mut R,
        hop: usize,
        begin: &Begin<'_>,
    ) -> Result<StreamKey, OriginError> {
        let mut data = Vec::new();
        begin.write(&mut data);
        self.open(rng, hop, StreamState::Connecting, RelayCmd::BEGIN, data)
    }

    /// Opens a stream to the directory cache of hop number `hop`.
    pub fn begin_dir<R: CryptoRng>(&mut self, rng: &mut R, hop: usize) -> Result<StreamKey, OriginError> {
        self.open(rng, hop, StreamState::Connecting, RelayCmd::BEGIN_DIR, Vec::new())
    }

    /// Has hop number `hop` look something up.
    pub fn resolve<R: CryptoRng>(
        &mut self,
        rng: &mut R,
        hop: usize,
        resolve: &Resolve<'_>,
    ) -> Result<StreamKey, OriginError> {
        let mut data = Vec::new();
        resolve.write(&mut data);
        self.open(rng, hop, StreamState::Resolving, RelayCmd::RESOLVE, data)
    }

    fn open<R: CryptoRng>(
        &mut self,
        rng: &mut R,
        hop: usize,
        state: StreamState,
        cmd: RelayCmd,
        data: Vec<u8>,
    ) -> Result<StreamKey, OriginError> {
        if self.is_closed() {
            return Err(OriginError::Closed);
        }
        if hop >= self.reachable_hops() {
            return Err(OriginError::NoSuchHop(hop));
        }
        if self.queue.len() >= ORIGIN_QUEUED_MESSAGES {
            return Err(OpenError::Full(self.queue.len()).into());
        }
        // Agreed on for what BEGIN opens; directories keep to one request and one answer.
        let halves = (cmd == RelayCmd::BEGIN && self.hops[hop].terms.half_close).then(Halves::default);
        let id = self.hops[hop].streams.open(rng, state, halves, ClientStream::default())?;
        self.queue_message(hop, cmd, id, data);
        Ok(StreamKey { hop, id })
    }

    /// Takes data to send; returns how much of it fitted. [`Event::Writable`] follows when less than all did. Nothing
    /// fits a stream that is gone, that the relay has ended, that is being finished, or that only looks something up.
    pub fn write_stream(&mut self, key: StreamKey, data: &[u8]) -> usize {
        if self.is_closed() {
            return 0;
        }
        let Some(stream) = self.stream_mut(key) else { return 0 };
        let takes_none =
            stream.data.end.is_some() || stream.data.is_finishing || stream.state == StreamState::Resolving;
        if takes_none {
            return 0;
        }
        let len = data.len().min(ORIGIN_STREAM_BUFFER - stream.data.unsent.len());
        stream.data.unsent.extend(&data[..len]);
        stream.data.write_was_short |= len < data.len();
        self.mark_ready(key);
        len
    }

    /// Bytes written and not sent yet.
    pub fn unsent(&self, key: StreamKey) -> usize {
        self.stream(key).map_or(0, |stream| stream.data.unsent.len())
    }

    /// The relay's END, while data that came before it is not read yet: nothing more can be written.
    pub fn end(&self, key: StreamKey) -> Option<End> {
        self.stream(key)?.data.end
    }

    /// Received data that lies in one piece, at least one byte if there is any; [`OriginCircuit::consume`] what was
    /// used.
    pub fn readable(&self, key: StreamKey) -> &[u8] {
        self.stream(key).map_or(&[], |stream| stream.data.received.as_slices().0)
    }

    /// Drops `len` bytes of received data, or all if there is less, which lets the relay send more.
    pub fn consume(&mut self, key: StreamKey, len: usize) {
        let Some(stream) = self.stream_mut(key) else { return };
        let len = len.min(stream.data.received.len());
        stream.data.received.drain(..len);
        self.after_read(key);
    }

    /// Moves received data into `out`; returns how much.
    pub fn read_stream(&mut self, key: StreamKey, out: &mut [u8]) -> usize {
        let Some(stream) = self.stream_mut(key) else { return 0 };
        let len = read_from(&mut stream.data.received, out);
        self.after_read(key);
        len
    }

    fn after_read(&mut self, key: StreamKey) {
        if self.is_closed() {
            return;
        }
        // Most reads give nothing to send: whoever drives the circuit need not look.
        if self.stream(key).is_some_and(Stream::owes_sendme) {
            self.mark_ready(key);
        }
        self.end_if_read(key);
    }

    /// Whether each direction of a stream ends by itself ([`Terms::half_close`](crate::handshake::Terms)).
    pub fn has_halves(&self, key: StreamKey) -> bool {
        self.stream(key).is_some_and(|stream| stream.halves.is_some())
    }

    /// Ends what we send on a stream that [has halves](OriginCircuit::has_halves), once all that was written is sent; what
    /// the relay sends goes on. Nothing happens to other streams.
    pub fn finish_stream(&mut self, key: StreamKey) {
        if self.is_closed() {
            return;
        }
        if let Some(stream) = self.stream_mut(key).filter(|stream| stream.halves.is_some()) {
            stream.data.is_finishing = true;
            self.mark_ready(key);
        }
    }

    /// Whether [`OriginCircuit::finish_stream`] has still to do its part: END is not sent yet.
    pub fn is_finishing(&self, key: StreamKey) -> bool {
        let is_over = |stream: &Stream<ClientStream>| stream.halves.is_some_and(|halves| halves.ours_over);
        self.stream(key).is_some_and(|stream| stream.data.is_finishing && !is_over(stream))
    }

    /// Closes a stream in both directions: the relay gets END, what was not sent or not read is dropped, and no event
    /// follows. Wait for [`OriginCircuit::unsent`] to become 0 to close it without loss.
    pub fn close_stream(&mut self, key: StreamKey, reason: EndReason) {
        if self.is_closed() {
            return;
        }
        let Some(hop) = self.hops.get_mut(key.hop) else { return };
        let Some(stream) = hop.streams.get(key.id) else { return };
        let (ended, halves) = (stream.data.end.is_some(), stream.halves);
        if ended {
            hop.streams.on_end(key.id);
            return;
        }
        hop.streams.close(key.id);
        // Where both directions have ended, the relay has forgotten the stream.
        if !halves.is_some_and(Halves::are_over) && key.hop < self.reachable_hops() {
            // DONE would end only our direction.
            let one_half = halves.is_some() && reason == EndReason::Done;
            let mut data = Vec::new();
            End::from(if one_half { EndReason::Misc } else { reason }).write(&mut data);
            self.queue_message(key.hop, RelayCmd::END, key.id, data);
        }
    }

    fn stream(&self, key: StreamKey) -> Option<&Stream<ClientStream>> {
        self.hops.get(key.hop)?.streams.get(key.id)
    }

    fn stream_mut(&mut self, key: StreamKey) -> Option<&mut Stream<ClientStream>> {
        self.hops.get_mut(key.hop)?.streams.get_mut(key.id)
    }

    /// Once all is read: lets go of a stream that the relay, or each side for itself, has ended, and tells of one on which
    /// the relay sends no more.
    pub(super) fn end_if_read(&mut self, key: StreamKey) {
        let Some(stream) = self.stream_mut(key).filter(|stream| stream.data.received.is_empty()) else {
            return;
        };
        let halves = stream.halves.unwrap_or_default();
        if let Some(end) = stream.data.end {
            self.hops[key.hop].streams.on_end(key.id);
            self.events.push_back(Event::Ended { stream: key, end });
        } else if halves.are_over() {
            // The relay may have sent SENDMEs, or another END, before it heard of ours.
            self.hops[key.hop].streams.close(key.id);
            self.events.push_back(Event::Ended { stream: key, end: EndReason::Done.into() });
        } else if halves.theirs_over && !mem::replace(&mut stream.data.told_finished, true) {
            self.events.push_back(Event::Finished(key));
        }
    }

    /// A message that belongs to a stream, or is a SENDME of the circuit.
    pub(super) fn on_stream_message(
        &mut self,
        hop: usize,
        tag: SendmeTag,
        msg: RelayMsg<'_>,
    ) -> Result<(), Violation> {
        let RelayMsg { cmd, stream: id, data } = msg;
        let key = StreamKey { hop, id };
        if id == StreamId::CIRCUIT {
            return match cmd {
                RelayCmd::SENDME => self.on_circuit_sendme(hop, data),
                _ => Err(Violation::Message { hop, cmd }),
            };
        }
        let ended = self.stream(key).is_some_and(|stream| stream.data.end.is_some());
        let unexpected = Violation::StreamMessage { stream: key, cmd };
        if ended {
            return Err(unexpected);
        }
        let known = match cmd {
            RelayCmd::DATA => self.on_data(key, tag, data)?,
            RelayCmd::SENDME => self.on_stream_sendme(key)?,
            RelayCmd::CONNECTED => self.on_connected(key, data)?,
            RelayCmd::RESOLVED => self.on_resolved(key, data)?,
            RelayCmd::END => self.on_end(key, data)?,
            _ => false,
        };
        if known { Ok(()) } else { Err(unexpected) }
    }

    fn on_circuit_sendme(&mut self, hop: usize, data: &[u8]) -> Result<(), Violation> {
        let sendme = Sendme::parse(data)?;
        let at = &mut self.hops[hop];
        at.send.on_sendme(sendme, at.accept_v0_sendmes)?;
        let waiting: Vec<StreamId> =
            at.streams.iter_mut().filter(|(_, stream)| stream.data.has_unsent()).map(|(id, _)| id).collect();
        for id in waiting {
            self.mark_ready(StreamKey { hop, id });
        }
        Ok(())
    }

    // Each of the following returns whether the hop serves such a stream, or did until we closed it.

    fn on_data(&mut self, key: StreamKey, tag: SendmeTag, data: &[u8]) -> Result<bool, Violation> {
        let hop = &mut self.hops[key.hop];
        if let Some(tag) = hop.recv.on_data(tag)? {
            if hop.sendmes.len() == DUE_SENDMES {
                return Err(FlowError::CircuitOverrun.into());
            }
            hop.sendmes.push_back(tag);
        }
        match hop.streams.on_data(key.id)? {
            Target::Live(stream) if stream.state == StreamState::Open => {
                if stream.data.received.is_empty() && !data.is_empty() {
                    self.events.push_back(Event::Readable(key));
                }
                stream.data.received.extend(data);
                if stream.owes_sendme() {
                    self.mark_ready(key);
                }
                Ok(true)
            }
            Target::HalfClosed => Ok(true),
            Target::Live(_) | Target::Unknown => Ok(false),
        }
    }

    fn on_stream_sendme(&mut self, key: StreamKey) -> Result<bool, Violation> {
        match self.hops[key.hop].streams.on_sendme(key.id)? {
            Target::Live(stream) if stream.state == StreamState::Open => {
                self.mark_ready(key);
                Ok(true)
            }
            Target::HalfClosed => Ok(true),
            Target::Live(_) | Target::Unknown => Ok(false),
        }
    }

    fn on_connected(&mut self, key: StreamKey, data: &[u8]) -> Result<bool, Violation> {
        let connected = Connected::parse(data)?;
        match self.hops[key.hop].streams.on_connected(key.id)? {
            Target::Live(stream) => {
                let is_finishing = stream.data.is_finishing;
                self.events.push_back(Event::Connected { stream: key, connected });
                if is_finishing {
                    self.mark_ready(key);
                }
                Ok(true)
            }
            Target::HalfClosed => Ok(true),
            Target::Unknown => Ok(false),
        }
    }

    fn on_resolved(&mut self, key: StreamKey, data: &[u8]) -> Result<bool, Violation> {
        let resolved = Resolved::parse(data)?;
        match self.hops[key.hop].streams.on_resolved(key.id)? {
            Target::Live(_) => {
                self.events.push_back(Event::Resolved { stream: key, resolved });
                Ok(true)
            }
            Target::HalfClosed => Ok(true),
            Target::Unknown => Ok(false),
        }
    }

    fn on_end(&mut self, key: StreamKey, data: &[u8]) -> Result<bool, Violation> {
        let end = End::parse(data);
        if end.reason == EndReason::Done && self.hops[key.hop].streams.on_done(key.id)?.is_some() {
            self.end_if_read(key);
            return Ok(true);
        }
        if let Some(stream) = self.stream_mut(key) {
            stream.data.end = Some(end);
            stream.data.unsent.clear();
            self.end_if_read(key);
            return Ok(true);
        }
        Ok(matches!(self.hops[key.hop].streams.on_end(key.id), Target::HalfClosed))
    }
}
