//! What the client sends next: messages in the order of being asked for, then SENDMEs, then the streams' data in turn.

use rand_core::CryptoRng;

use super::{OriginCircuit, State, StreamKey};
use crate::cell::{BODY_LEN, Body, Command};
use crate::crypto::tor1::SendmeTag;
use crate::relay_msg::{self, End, EndReason, RelayCmd, Sendme, StreamId};
use crate::stream::StreamState;

/// What waits to be sent, beside flow control and data.
pub(super) enum Queued {
    /// A cell for the first hop's link layer: CREATE or DESTROY.
    Cell(Command, Box<Body>),
    /// A message to a hop.
    Message { hop: usize, cmd: RelayCmd, stream: StreamId, data: Vec<u8> },
}

impl Queued {
    /// The hop that a message is for.
    pub fn hop(&self) -> Option<usize> {
        match self {
            Queued::Cell(..) => None,
            Queued::Message { hop, .. } => Some(*hop),
        }
    }
}

impl OriginCircuit {
    pub(super) fn queue_message(&mut self, hop: usize, cmd: RelayCmd, stream: StreamId, data: Vec<u8>) {
        self.queue.push_back(Queued::Message { hop, cmd, stream, data });
    }

    /// The stream may have something to send.
    pub(super) fn mark_ready(&mut self, key: StreamKey) {
        let Some(stream) = self.hops.get_mut(key.hop).and_then(|hop| hop.streams.get_mut(key.id)) else {
            return;
        };
        if !stream.data.is_ready {
            stream.data.is_ready = true;
            self.ready.push_back(key);
        }
    }

    /// Whether [`OriginCircuit::poll_transmit`] may have something to send.
    pub fn wants_to_transmit(&self) -> bool {
        let owes = |hop: &super::Hop| !hop.sendmes.is_empty();
        !self.queue.is_empty() || !self.ready.is_empty() || self.hops.iter().any(owes)
    }

    /// The next cell to send; `None` until something more happens. Call it when the link has room.
    pub fn poll_transmit<R: CryptoRng>(&mut self, rng: &mut R) -> Option<(Command, Body)> {
        if let Some(queued) = self.queue.pop_front() {
            self.known_to_peer = true;
            return Some(match queued {
                Queued::Cell(command, body) => (command, *body),
                Queued::Message { hop, cmd, stream, data } => self.message(rng, hop, cmd, stream, &data),
            });
        }
        if let Some((hop, tag)) = self.due_circuit_sendme() {
            let mut data = Vec::new();
            Sendme::V1 { tag }.write(&mut data);
            return Some(self.message(rng, hop, RelayCmd::SENDME, StreamId::CIRCUIT, &data));
        }
        self.poll_streams(rng)
    }

    fn due_circuit_sendme(&mut self) -> Option<(usize, SendmeTag)> {
        let hops = self.reachable_hops();
        self.hops[..hops].iter_mut().enumerate().find_map(|(n, hop)| Some((n, hop.sendmes.pop_front()?)))
    }

    /// Serves the streams in turn until one has something to send.
    fn poll_streams<R: CryptoRng>(&mut self, rng: &mut R) -> Option<(Command, Body)> {
        let hops = self.reachable_hops();
        while let Some(key) = self.ready.pop_front() {
            let Some(hop) = self.hops[..hops].get_mut(key.hop) else { continue };
            let Some(stream) = hop.streams.get_mut(key.id) else { continue };
            stream.data.is_ready = false;

            if stream.state == StreamState::Open && stream.take_sendme() {
                self.mark_ready(key);
                return Some(self.message(rng, key.hop, RelayCmd::SENDME, key.id, &[]));
            }
            if stream.take_finish() {
                let mut data = Vec::new();
                End::from(EndReason::Done).write(&mut data);
                self.end_if_read(key);
                return Some(self.message(rng, key.hop, RelayCmd::END, key.id, &data));
            }
            if !stream.data.has_unsent() || !stream.send.can_send() || !hop.send.can_send() {
                // A SENDME will bring it back.
                continue;
            }
            let mut body = [0; BODY_LEN];
            let room = &mut relay_msg::data_room(&mut body)[..hop.send.data_limit()];
            let len = stream.data.take_unsent(room);
            stream.send.sent();
            if stream.data.wants_more() {
                self.events.push_back(super::Event::Writable(key));
            }
            relay_msg::encode_in_place(RelayCmd::DATA, key.id, len, rng, &mut body);
            let (command, tag) = self.encrypt(key.hop, RelayCmd::DATA, &mut body);
            self.hops[key.hop].send.sent(len, tag);
            self.mark_ready(key);
            return Some((command, body));
        }
        None
    }

    /// Hops that are still spoken to: during a truncation, those before the cut.
    pub(super) fn reachable_hops(&self) -> usize {
        match self.state {
            State::Truncating { hop } => hop + 1,
            State::Closed => 0,
            _ => self.hops.len(),
        }
    }

    fn message<R: CryptoRng>(
        &mut self,
        rng: &mut R,
        hop: usize,
        cmd: RelayCmd,
        stream: StreamId,
        data: &[u8],
    ) -> (Command, Body) {
        let mut body = [0; BODY_LEN];
        relay_msg::encode(cmd, stream, data, rng, &mut body);
        let (command, _) = self.encrypt(hop, cmd, &mut body);
        (command, body)
    }

    /// Adds the layers. EXTEND2 has set its RELAY_EARLY cell aside when it was asked for.
    fn encrypt(&mut self, hop: usize, cmd: RelayCmd, body: &mut Body) -> (Command, SendmeTag) {
        let tag = self.onion.encrypt_outbound(hop, body);
        let early = if cmd == RelayCmd::EXTEND2 {
            true
        } else if self.config.early_data && hop > 0 && self.early_left > 0 {
            self.early_left -= 1;
            true
        } else {
            false
        };
        (if early { Command::RELAY_EARLY } else { Command::RELAY }, tag)
    }
}
