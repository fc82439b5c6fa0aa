//! The streams of one circuit: the table of them, how each stands, and whose turn it is to use the circuit's window.

use std::collections::{BTreeMap, VecDeque};

use onionring_proto::flow::{StreamRecv, StreamSend};
use onionring_proto::relay_msg::StreamId;
use onionring_proto::stream::Halves;
use onionring_proto::time::Mono;

use crate::engine::event::StreamRef;
use crate::limits;

/// The streams of one circuit, at most [`STREAMS_PER_CIRCUIT`](onionring_proto::limits::STREAMS_PER_CIRCUIT).
///
/// An id is free again once the client has ended its stream, while the driver may still take what it sent before: so
/// streams have numbers of their own.
#[derive(Default)]
pub(in crate::engine) struct Streams {
    pub(super) open: BTreeMap<StreamId, Stream>,
    /// Ended by the client, with bytes that the driver may still take; by number.
    pub(super) flushing: BTreeMap<u32, Stream>,
    pub(super) next_serial: u32,
    pub(super) turns: Turns,
}

/// Who may use the circuit's window: without turns the first stream would take all that every SENDME brings, and others
/// would starve.
///
/// In a round, streams that waited are told once that they may send, and get a part of the window as it is when they ask:
/// as many of them as there are parts that are worth a read ([`limits::STREAM_TURN`]). The others, and whoever asks again
/// meanwhile, wait for the next round. A round begins when the last one
/// has asked, and with every SENDME, so that a stream which never asks holds up nobody for long.
#[derive(Default)]
pub(super) struct Turns {
    /// Streams that have been told and have not asked.
    pub(super) open: usize,
    /// Where the next round begins, if the last one could not take in all.
    pub(super) first: u16,
    /// Somebody in this round got nothing, because the circuit was held.
    pub(super) lost: bool,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.flushing.len()
    }

    pub(super) fn get_mut(&mut self, at: StreamRef) -> Option<&mut Stream> {
        match self.open.get_mut(&at.stream) {
            Some(stream) if stream.serial == at.serial => Some(stream),
            _ => self.flushing.get_mut(&at.serial),
        }
    }

    pub(super) fn get(&self, at: StreamRef) -> Option<&Stream> {
        match self.open.get(&at.stream) {
            Some(stream) if stream.serial == at.serial => Some(stream),
            _ => self.flushing.get(&at.serial),
        }
    }

    pub(super) fn remove(&mut self, at: StreamRef) -> Option<Stream> {
        match self.open.get(&at.stream) {
            Some(stream) if stream.serial == at.serial => self.remove_open(at.stream),
            _ => self.flushing.remove(&at.serial),
        }
    }

    pub(super) fn remove_open(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.open.remove(&id)?;
        self.turns.open -= usize::from(stream.has_turn);
        Some(stream)
    }

    /// Begins a round of those who wait, as many as the window has parts for, and returns them in its order: first those
    /// that have sent nothing yet, for which somebody waits the most.
    pub(super) fn begin_round(&mut self, window: u16) -> Vec<(StreamId, u32)> {
        let first = StreamId(self.turns.first);
        self.turns.lost = false;
        let mut waiting = [Vec::new(), Vec::new(), Vec::new()];
        for (&id, stream) in &mut self.open {
            stream.has_turn = false;
            if stream.blocked && stream.send.can_send() {
                let place = if !stream.has_sent { 0 } else { 1 + usize::from(id < first) };
                waiting[place].push((id, stream.serial));
            }
        }
        let mut round = waiting.concat();
        let parts = usize::from(window.div_ceil(limits::STREAM_TURN));
        if let Some(&(next, _)) = round.get(parts) {
            self.turns.first = next.0;
            round.truncate(parts);
        }
        for (id, _) in &round {
            if let Some(stream) = self.open.get_mut(id) {
                (stream.blocked, stream.has_turn) = (false, true);
            }
        }
        self.turns.open = round.len();
        round
    }

    /// Since when bytes wait for the driver.
    pub(in crate::engine) fn waiting_since(&self) -> Option<Mono> {
        let all = self.open.values().chain(self.flushing.values());
        all.filter(|stream| !stream.inbox.is_empty()).map(|stream| stream.waiting_since).min()
    }
}

pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) serial: u32,
    pub(super) state: State,
    /// Its directions, if each ends by itself: ours is the one to the client.
    pub(super) halves: Option<Halves>,
    pub(super) send: StreamSend,
    pub(super) recv: StreamRecv,
    /// What the client sent and the driver has not taken; bounded by the window.
    pub(super) inbox: VecDeque<u8>,
    /// Since when there is something in the inbox.
    pub(super) waiting_since: Mono,
    /// Something of the destination's has gone to the client.
    pub(super) has_sent: bool,
    /// The driver found no room to send and waits to be told.
    pub(super) blocked: bool,
    /// The driver has been told, and has not asked since.
    pub(super) has_turn: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Announced to the driver, not answered yet. Data may come already.
    Opening,
    /// A look-up: nothing but its answer may be sent.
    Resolving,
    /// Connected.
    Open,
    /// The client ended it, and its id may serve another; the driver may still take what is in the inbox.
    Ended,
}

impl Stream {
    pub(super) fn new(at: StreamRef, state: State, halves: Option<Halves>) -> Self {
        Stream {
            id: at.stream,
            serial: at.serial,
            state,
            halves,
            send: StreamSend::default(),
            recv: StreamRecv::default(),
            inbox: VecDeque::new(),
            waiting_since: Mono::default(),
            has_sent: false,
            blocked: false,
            has_turn: false,
        }
    }

    /// Whether the client may send more.
    pub(super) fn is_received(&self) -> bool {
        let is_over = self.halves.is_some_and(|halves| halves.theirs_over);
        matches!(self.state, State::Opening | State::Open) && !is_over
    }

    /// Whether the client may be sent more.
    pub(super) fn is_sent(&self) -> bool {
        self.state == State::Open && !self.halves.is_some_and(|halves| halves.ours_over)
    }
}
