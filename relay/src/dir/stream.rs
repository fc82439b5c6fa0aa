//! Directory requests on BEGIN_DIR streams: one small state machine per stream, driven by the shard's events.
//!
//! A stream has no task and no copy of its answer: requests are gathered up to their empty line, and answers go out
//! piece by piece as the windows of stream and circuit allow, each piece straight from the shared documents.

use std::collections::BTreeMap;
use std::net::IpAddr;

use onionring_proto::relay_msg::{Connected, EndReason};
use onionring_proto::time::Mono;

use super::clock::Clocks;
use super::http::RequestReader;
use super::serve::{self, Asker};
use super::snapshot::DirSnapshot;
use super::spool::{Response, Spool};
use crate::engine::Engine;
use crate::engine::event::StreamRef;
use crate::limits;

/// What the state machine needs of the shard's engine; `K` names a stream.
pub trait StreamIo<K> {
    /// Tells the client that the stream is open.
    fn connected(&mut self, at: K);
    /// The next bytes from the client; empty if there are none.
    fn read(&self, at: K) -> &[u8];
    /// The first `n` of those bytes are dealt with.
    fn consume(&mut self, at: K, n: usize);
    /// How many bytes [`StreamIo::write`] would take now. At 0, the stream is reported as writable later.
    fn writable(&mut self, at: K) -> usize;
    /// Sends bytes, no more than [`StreamIo::writable`] allows.
    fn write(&mut self, at: K, bytes: &[u8]);
    /// Ends the stream and forgets it.
    fn end(&mut self, at: K, reason: EndReason);
}

/// The engine of a shard at one moment.
pub struct EngineIo<'a> {
    /// The engine.
    pub engine: &'a mut Engine,
    /// The time.
    pub now: Mono,
}

impl StreamIo<StreamRef> for EngineIo<'_> {
    fn connected(&mut self, at: StreamRef) {
        self.engine.stream_connected(self.now, at, &Connected { addr: None });
    }

    fn read(&self, at: StreamRef) -> &[u8] {
        self.engine.stream_read(at)
    }

    fn consume(&mut self, at: StreamRef, n: usize) {
        self.engine.stream_consume(self.now, at, n);
    }

    fn writable(&mut self, at: StreamRef) -> usize {
        self.engine.stream_writable(at)
    }

    fn write(&mut self, at: StreamRef, bytes: &[u8]) {
        self.engine.stream_write(self.now, at, bytes);
    }

    fn end(&mut self, at: StreamRef, reason: EndReason) {
        self.engine.stream_end(self.now, at, &reason.into());
    }
}

/// What a shard's directory streams have done, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirCounters {
    /// Streams that were opened.
    pub opened: u64,
    /// Streams that were refused because there were too many ([`limits::DIR_STREAMS`]) or because their requests took
    /// too much memory ([`limits::DIR_REQUEST_BYTES`]).
    pub refused: u64,
    /// Streams that were ended because nothing moved on them.
    pub timed_out: u64,
    /// Answers by status.
    pub answers: BTreeMap<u16, u64>,
    /// Bytes of answers sent.
    pub bytes: u64,
}

/// The directory streams of one shard.
pub struct DirStreams<K> {
    streams: BTreeMap<K, Stream>,
    /// Bytes of requests that are not complete yet, over all streams.
    gathered: usize,
    /// Answers that are compressed while they are sent.
    encoders: usize,
    next_sweep: Option<Mono>,
    scratch: Box<[u8]>,
    counters: DirCounters,
}

struct Stream {
    client: Option<IpAddr>,
    state: State,
    /// When something last moved.
    moved: Mono,
}

enum State {
    Reading { reader: RequestReader, gathered: usize },
    Sending(Spool),
}

impl<K: Copy + Ord> Default for DirStreams<K> {
    fn default() -> Self {
        DirStreams {
            streams: BTreeMap::new(),
            gathered: 0,
            encoders: 0,
            next_sweep: None,
            scratch: vec![0; limits::DIR_PIECE].into(),
            counters: DirCounters::default(),
        }
    }
}

impl<K: Copy + Ord> DirStreams<K> {
    /// A client opened a stream; `client` is the address that its circuit comes from. Without `dir`, this relay
    /// serves no directory (`DirCache 0`).
    pub fn begin(
        &mut self,
        io: &mut impl StreamIo<K>,
        now: Clocks,
        dir: Option<&DirSnapshot>,
        at: K,
        client: Option<IpAddr>,
    ) {
        let Some(dir) = dir else {
            return io.end(at, EndReason::NotDirectory);
        };
        if self.streams.len() >= limits::DIR_STREAMS {
            self.counters.refused += 1;
            return io.end(at, EndReason::ResourceLimit);
        }
        self.counters.opened += 1;
        let state = State::Reading { reader: RequestReader::default(), gathered: 0 };
        self.streams.insert(at, Stream { client, state, moved: now.mono });
        self.next_sweep.get_or_insert(now.mono + limits::DIR_SWEEP);
        io.connected(at);
        // Clients send their requests without waiting.
        self.readable(io, now, dir, at);
    }

    /// Whether a stream is one of these.
    pub fn contains(&self, at: K) -> bool {
        self.streams.contains_key(&at)
    }

    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether no stream is open.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// What was done so far.
    pub fn counters(&self) -> &DirCounters {
        &self.counters
    }

    /// There are bytes to read on a stream.
    pub fn readable(&mut self, io: &mut impl StreamIo<K>, now: Clocks, dir: &DirSnapshot, at: K) {
        loop {
            let Some(stream) = self.streams.get_mut(&at) else { return };
            let piece = io.read(at);
            let len = piece.len();
            if len == 0 {
                return;
            }
            // A request's body is of no use to a cache, and neither is a second request.
            let State::Reading { reader, gathered } = &mut stream.state else {
                io.consume(at, len);
                continue;
            };
            let outcome = reader.push(piece);
            io.consume(at, len);
            stream.moved = now.mono;
            let before = *gathered;
            *gathered += len;
            let asker = Asker {
                address: stream.client,
                now: now.unix,
                may_encode: self.encoders < limits::DIR_ENCODERS,
            };
            let response = match outcome {
                Ok(None) => {
                    self.gathered += len;
                    if self.gathered > limits::DIR_REQUEST_BYTES {
                        self.counters.refused += 1;
                        return self.end(io, at, EndReason::ResourceLimit);
                    }
                    continue;
                }
                Ok(Some((request, _))) => Some(serve::respond(dir, &request, asker)),
                Err(refusal) => serve::refuse(refusal, now.unix),
            };
            *gathered = 0;
            self.gathered -= before;
            match response {
                Some(response) => self.answer(io, now, at, response),
                None => self.end(io, at, EndReason::Done),
            }
        }
    }

    fn answer(&mut self, io: &mut impl StreamIo<K>, now: Clocks, at: K, response: Response) {
        *self.counters.answers.entry(response.status).or_default() += 1;
        let Ok(spool) = Spool::new(response) else {
            return self.end(io, at, EndReason::ResourceLimit);
        };
        self.encoders += usize::from(spool.is_encoding());
        if let Some(stream) = self.streams.get_mut(&at) {
            stream.state = State::Sending(spool);
        }
        self.writable(io, now, at);
    }

    /// A stream takes bytes again.
    pub fn writable(&mut self, io: &mut impl StreamIo<K>, now: Clocks, at: K) {
        loop {
            let Some(Stream { state: State::Sending(spool), moved, .. }) = self.streams.get_mut(&at) else {
                return;
            };
            let room = io.writable(at).min(self.scratch.len());
            if room == 0 {
                return;
            }
            *moved = now.mono;
            let Ok(filled) = spool.fill(&mut self.scratch[..room]) else {
                return self.end(io, at, EndReason::Internal);
            };
            io.write(at, &self.scratch[..filled]);
            self.counters.bytes += filled as u64;
            if spool.is_finished() {
                return self.end(io, at, EndReason::Done);
            }
        }
    }

    /// The client ended a stream, or its circuit is gone.
    pub fn closed(&mut self, io: &mut impl StreamIo<K>, at: K) {
        self.end(io, at, EndReason::Done);
    }

    /// Ends streams on which nothing has moved for too long. Call it at [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, io: &mut impl StreamIo<K>, now: Mono) {
        if self.next_sweep.is_none_or(|at| now < at) {
            return;
        }
        let stalled: Vec<K> = self
            .streams
            .iter()
            .filter(|(_, stream)| {
                let patience = match stream.state {
                    State::Reading { .. } => limits::DIR_REQUEST_TIMEOUT,
                    State::Sending(_) => limits::DIR_STALL_TIMEOUT,
                };
                now.since(stream.moved) >= patience
            })
            .map(|(at, _)| *at)
            .collect();
        self.counters.timed_out += stalled.len() as u64;
        for at in stalled {
            self.end(io, at, EndReason::Timeout);
        }
        self.next_sweep = (!self.streams.is_empty()).then_some(now + limits::DIR_SWEEP);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.next_sweep
    }

    fn end(&mut self, io: &mut impl StreamIo<K>, at: K, reason: EndReason) {
        let Some(stream) = self.streams.remove(&at) else { return };
        match stream.state {
            State::Reading { gathered, .. } => self.gathered -= gathered,
            State::Sending(spool) => self.encoders -= usize::from(spool.is_encoding()),
        }
        io.end(at, reason);
    }
}

#[cfg(test)]
mod tests;
