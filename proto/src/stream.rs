//! The streams of one hop of a circuit, seen by the client that opens them (tor-spec 6.2, 6.3). A relay has no use for
//! records of what it has closed, and keeps its streams where their bytes are.
//!
//! The table keeps each stream's windows and state and judges what the peer sends for it. A stream that our side has
//! closed leaves a record behind, because the peer may have sent more before it learnt of it: that is tolerated, but
//! only as much as the windows allow.
//!
//! An END ends both directions, except on hops with which that was agreed: there END with reason DONE ends only what its
//! sender sends ([`Halves`], paper 4.3), and the stream is over when both have been sent, or with an END of any other
//! reason.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::mem;

use rand_core::CryptoRng;
use thiserror::Error;

use crate::flow::{FlowError, StreamRecv, StreamSend};
use crate::limits::{HALF_CLOSED_PER_CIRCUIT, STREAMS_PER_CIRCUIT};
use crate::relay_msg::StreamId;

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// BEGIN or BEGIN_DIR went by, CONNECTED or END did not yet.
    Connecting,
    /// RESOLVE went by, RESOLVED or END did not yet. Never opens.
    Resolving,
    /// CONNECTED went by.
    Open,
}

/// Which directions of a stream have ended, where each ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    /// Our END DONE is sent: we send no more.
    pub ours_over: bool,
    /// The peer's END DONE has come: it may send no more DATA.
    pub theirs_over: bool,
}

/// A live stream.
#[derive(Debug)]
pub struct Stream<T> {
    /// How far it has come.
    pub state: StreamState,
    /// Its directions, if each of them ends by itself.
    pub halves: Option<Halves>,
    /// What we may send.
    pub send: StreamSend,
    /// What the peer may send.
    pub recv: StreamRecv,
    /// What the owner keeps with it.
    pub data: T,
}

/// What remains of a stream that we closed, until the peer's END.
#[derive(Debug)]
struct HalfClosed {
    /// Tells records of one ID apart.
    serial: u64,
    state: StreamState,
    halves: Option<Halves>,
    send: StreamSend,
    recv: StreamRecv,
}

#[derive(Debug)]
enum Slot<T> {
    Live(Stream<T>),
    HalfClosed(HalfClosed),
}

/// Where a message for a stream belongs.
#[derive(Debug)]
pub enum Target<T> {
    /// To this stream: a reference to it, or what the owner kept with a stream that has just ended.
    Live(T),
    /// To a stream that we have closed: to be ignored.
    HalfClosed,
    /// To no stream that we remember.
    Unknown,
}

/// A stream that cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The circuit has as many streams as we allow.
    #[error("the circuit has {0} streams, as many as allowed")]
    Full(usize),
}

/// A message that the peer must not send for a stream in this state; closes the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// Beyond a window.
    #[error("stream {0}: {1}")]
    Flow(StreamId, #[source] FlowError),
    /// CONNECTED on a stream that does not wait for it, or a second one.
    #[error("stream {0}: CONNECTED although none was expected")]
    UnexpectedConnected(StreamId),
    /// RESOLVED on a stream that does not wait for it.
    #[error("stream {0}: RESOLVED although none was expected")]
    UnexpectedResolved(StreamId),
    /// DATA, or a second END DONE, after the peer said that it sends no more.
    #[error("stream {0}: more although the peer has ended what it sends")]
    Over(StreamId),
}

/// Debits the window for DATA that must not come any more once the peer has ended its direction.
fn receive(id: StreamId, halves: Option<Halves>, recv: &mut StreamRecv) -> Result<(), StreamError> {
    if halves.is_some_and(|halves| halves.theirs_over) {
        return Err(StreamError::Over(id));
    }
    recv.on_data().map_err(|error| StreamError::Flow(id, error))
}

/// The streams of one hop. `T` is what the owner keeps with each.
#[derive(Debug)]
pub struct StreamTable<T> {
    slots: BTreeMap<StreamId, Slot<T>>,
    live: usize,
    /// Half-closed streams in the order of closing, each with its serial; may name some that have ended since.
    closed: VecDeque<(StreamId, u64)>,
    next_serial: u64,
}

impl Halves {
    /// Whether both have ended.
    pub fn are_over(self) -> bool {
        self.ours_over && self.theirs_over
    }
}

impl<T> Default for StreamTable<T> {
    fn default() -> StreamTable<T> {
        StreamTable { slots: BTreeMap::new(), live: 0, closed: VecDeque::new(), next_serial: 0 }
    }
}

impl<T> StreamTable<T> {
    /// An empty table.
    pub fn new() -> StreamTable<T> {
        StreamTable::default()
    }

    /// Number of live streams.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no stream is live.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The live stream with this ID.
    pub fn get(&self, id: StreamId) -> Option<&Stream<T>> {
        match self.slots.get(&id) {
            Some(Slot::Live(stream)) => Some(stream),
            _ => None,
        }
    }

    /// The live stream with this ID.
    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream<T>> {
        match self.slots.get_mut(&id) {
            Some(Slot::Live(stream)) => Some(stream),
            _ => None,
        }
    }

    /// The IDs of all live streams, in order.
    pub fn ids(&self) -> impl Iterator<Item = StreamId> {
        self.slots.iter().filter(|(_, slot)| matches!(slot, Slot::Live(_))).map(|(&id, _)| id)
    }

    /// All live streams in the order of their IDs.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream<T>)> {
        self.slots.iter_mut().filter_map(|(&id, slot)| match slot {
            Slot::Live(stream) => Some((id, stream)),
            Slot::HalfClosed(_) => None,
        })
    }

    /// Adds a stream under a random free ID, before BEGIN, BEGIN_DIR or RESOLVE is sent; with [`Halves`] if its
    /// directions end one by one.
    pub fn open<R: CryptoRng + ?Sized>(
        &mut self,
        rng: &mut R,
        state: StreamState,
        halves: Option<Halves>,
        data: T,
    ) -> Result<StreamId, OpenError> {
        if self.live >= STREAMS_PER_CIRCUIT {
            return Err(OpenError::Full(self.live));
        }
        // The limits keep the table far from full, so a free ID is near any random one.
        let mut id = StreamId(rng.next_u32() as u16);
        while id == StreamId::CIRCUIT || self.slots.contains_key(&id) {
            id.0 = id.0.wrapping_add(1);
        }
        self.insert(id, state, halves, data);
        Ok(id)
    }

    fn insert(
        &mut self,
        id: StreamId,
        state: StreamState,
        halves: Option<Halves>,
        data: T,
    ) -> &mut Stream<T> {
        let stream = Stream { state, halves, send: StreamSend::default(), recv: StreamRecv::default(), data };
        self.slots.insert(id, Slot::Live(stream));
        self.live += 1;
        match self.slots.get_mut(&id) {
            Some(Slot::Live(stream)) => stream,
            _ => unreachable!("inserted just above"),
        }
    }

    /// DATA arrived; its stream's window is debited.
    pub fn on_data(&mut self, id: StreamId) -> Result<Target<&mut Stream<T>>, StreamError> {
        Ok(match self.slots.get_mut(&id) {
            Some(Slot::Live(stream)) => {
                receive(id, stream.halves, &mut stream.recv)?;
                Target::Live(stream)
            }
            Some(Slot::HalfClosed(half)) => {
                receive(id, half.halves, &mut half.recv)?;
                Target::HalfClosed
            }
            None => Target::Unknown,
        })
    }

    /// A stream-level SENDME arrived; its stream's window is credited.
    pub fn on_sendme(&mut self, id: StreamId) -> Result<Target<&mut Stream<T>>, StreamError> {
        let flow = |error| StreamError::Flow(id, error);
        Ok(match self.slots.get_mut(&id) {
            Some(Slot::Live(stream)) => {
                stream.send.on_sendme().map_err(flow)?;
                Target::Live(stream)
            }
            Some(Slot::HalfClosed(half)) => {
                half.send.on_sendme().map_err(flow)?;
                Target::HalfClosed
            }
            None => Target::Unknown,
        })
    }

    /// CONNECTED arrived; the stream is open now.
    pub fn on_connected(&mut self, id: StreamId) -> Result<Target<&mut Stream<T>>, StreamError> {
        let (state, target) = match self.slots.get_mut(&id) {
            Some(Slot::Live(stream)) => (stream.state, Some(stream)),
            Some(Slot::HalfClosed(half)) => {
                let state = half.state;
                half.state = StreamState::Open;
                (state, None)
            }
            None => return Ok(Target::Unknown),
        };
        if state != StreamState::Connecting {
            return Err(StreamError::UnexpectedConnected(id));
        }
        Ok(match target {
            Some(stream) => {
                stream.state = StreamState::Open;
                Target::Live(stream)
            }
            None => Target::HalfClosed,
        })
    }

    /// RESOLVED arrived; the stream ends without END.
    pub fn on_resolved(&mut self, id: StreamId) -> Result<Target<T>, StreamError> {
        let state = match self.slots.get(&id) {
            Some(Slot::Live(stream)) => stream.state,
            Some(Slot::HalfClosed(half)) => half.state,
            None => return Ok(Target::Unknown),
        };
        if state != StreamState::Resolving {
            return Err(StreamError::UnexpectedResolved(id));
        }
        Ok(self.on_end(id))
    }

    /// END DONE arrived: on an open stream whose directions end one by one, the peer's is over. On any other it is an END
    /// like all: `None`.
    pub fn on_done(&mut self, id: StreamId) -> Result<Option<Target<&mut Stream<T>>>, StreamError> {
        let halves = match self.slots.get_mut(&id) {
            Some(Slot::Live(Stream { state: StreamState::Open, halves: Some(halves), .. })) => halves,
            // The record stays: another END may follow, if the peer has not heard of ours yet.
            Some(Slot::HalfClosed(HalfClosed { state: StreamState::Open, halves: Some(halves), .. })) => {
                halves
            }
            _ => return Ok(None),
        };
        if mem::replace(&mut halves.theirs_over, true) {
            return Err(StreamError::Over(id));
        }
        Ok(Some(self.get_mut(id).map_or(Target::HalfClosed, Target::Live)))
    }

    /// END arrived, or our side ends the stream and keeps no record of it; the ID is free again.
    pub fn on_end(&mut self, id: StreamId) -> Target<T> {
        match self.slots.remove(&id) {
            Some(Slot::Live(stream)) => {
                self.live -= 1;
                Target::Live(stream.data)
            }
            Some(Slot::HalfClosed(_)) => Target::HalfClosed,
            None => Target::Unknown,
        }
    }

    /// Our side sends END, or both sides have ended what they send: what the owner kept with the stream, `None` if it is
    /// not live.
    ///
    /// The ID stays taken until the peer's END, or until [`HALF_CLOSED_PER_CIRCUIT`] others have been closed after it.
    pub fn close(&mut self, id: StreamId) -> Option<T> {
        let Entry::Occupied(mut entry) = self.slots.entry(id) else { return None };
        let Slot::Live(Stream { state, halves, send, recv, .. }) = entry.get_mut() else { return None };
        let serial = self.next_serial;
        let (send, recv) = (mem::take(send), mem::take(recv));
        let half = HalfClosed { serial, state: *state, halves: *halves, send, recv };
        let Slot::Live(stream) = entry.insert(Slot::HalfClosed(half)) else { return None };
        self.live -= 1;
        self.next_serial += 1;
        self.closed.push_back((id, serial));
        self.forget_oldest();
        Some(stream.data)
    }

    /// Keeps the number of records bounded.
    fn forget_oldest(&mut self) {
        if self.closed.len() <= HALF_CLOSED_PER_CIRCUIT {
            return;
        }
        let Some((id, serial)) = self.closed.pop_front() else { return };
        // That record may have ended since, and its ID serve another stream.
        if matches!(self.slots.get(&id), Some(Slot::HalfClosed(half)) if half.serial == serial) {
            self.slots.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
