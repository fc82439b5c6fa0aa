//! Flow control by fixed windows (tor-spec 7.3 and 7.4), without congestion control.
//!
//! Only DATA counts. Each side of each hop keeps four counters: what it may still send ("package") and what it may
//! still receive ("deliver"), for the circuit and for each stream. SENDME gives the sender an increment back; on the
//! circuit it proves, by the tag of the cell that completed the increment, that the data was really read.

use std::collections::VecDeque;

use thiserror::Error;

use crate::crypto::tor1::SendmeTag;
use crate::relay_msg::{MAX_DATA_LEN, Sendme};

/// Cells a circuit's sender starts with, unless the consensus gives fewer (parameter `circwindow`), and its maximum.
pub const CIRCUIT_WINDOW: u16 = 1000;
/// Cells that one circuit-level SENDME acknowledges.
pub const CIRCUIT_INCREMENT: u16 = 100;
/// Cells a stream's sender starts with, and its maximum.
pub const STREAM_WINDOW: u16 = 500;
/// Cells that one stream-level SENDME acknowledges.
pub const STREAM_INCREMENT: u16 = 50;
/// Stream-level SENDMEs are held back while this many cells or more wait to be handed to the application (paper 4.4).
pub const FLUSH_CELLS: usize = 10;

/// Random bytes that make a cell's tag unpredictable, and the zero bytes before them (tor-spec 7.3.1).
const RANDOM_TAIL: usize = 20;
/// The most data in a DATA message whose padding makes its tag unpredictable.
pub const MAX_UNPREDICTABLE_DATA_LEN: usize = MAX_DATA_LEN - RANDOM_TAIL;

/// A violation of flow control by the peer; each closes the circuit with `DestroyReason::Protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FlowError {
    /// More DATA on the circuit than its window allows; does not happen while SENDMEs are sent at once, see
    /// [`CircuitRecv::on_data`].
    #[error("DATA beyond the circuit's window of {CIRCUIT_WINDOW} cells")]
    CircuitOverrun,
    /// More DATA on a stream than its window allows.
    #[error("DATA beyond the stream's window of {STREAM_WINDOW} cells")]
    StreamOverrun,
    /// A circuit-level SENDME although no full increment is outstanding.
    #[error("circuit SENDME although none was expected")]
    UnexpectedCircuitSendme,
    /// A stream-level SENDME that acknowledges more than was sent.
    #[error("stream SENDME although none was expected")]
    UnexpectedStreamSendme,
    /// The tag is not that of the cell that completed the increment.
    #[error("circuit SENDME with a wrong tag")]
    WrongTag,
    /// An unauthenticated SENDME where only authenticated ones are accepted.
    #[error("circuit SENDME without a tag")]
    NoTag,
}

/// The sending half of a circuit's window.
#[derive(Debug)]
pub struct CircuitSend {
    window: u16,
    /// Cells sent since the last tag was kept.
    since_tag: u16,
    /// Whether one of those had an unpredictable tail.
    unpredictable: bool,
    /// Tags of the cells that completed an increment and are not acknowledged yet; at most window / increment.
    tags: VecDeque<SendmeTag>,
}

impl CircuitSend {
    /// A fresh window of `circwindow` cells, clamped to 100..=1000.
    pub fn new(circwindow: u16) -> CircuitSend {
        CircuitSend {
            window: circwindow.clamp(CIRCUIT_INCREMENT, CIRCUIT_WINDOW),
            since_tag: 0,
            unpredictable: false,
            tags: VecDeque::new(),
        }
    }

    /// Whether another DATA cell may be sent.
    pub fn can_send(&self) -> bool {
        self.window > 0
    }

    /// DATA cells that may be sent now.
    pub fn window(&self) -> u16 {
        self.window
    }

    /// Whether a SENDME has to come: an increment of cells has been sent and not been acknowledged.
    pub fn expects_sendme(&self) -> bool {
        !self.tags.is_empty()
    }

    /// The most bytes the next DATA message should carry.
    ///
    /// All that fits, except that one cell of every increment leaves room for random bytes: otherwise a receiver that
    /// knows the data could acknowledge cells it has not read.
    pub fn data_limit(&self) -> usize {
        let completes_increment = self.since_tag + 1 == CIRCUIT_INCREMENT;
        if completes_increment && !self.unpredictable { MAX_UNPREDICTABLE_DATA_LEN } else { MAX_DATA_LEN }
    }

    /// A DATA message of `len` bytes was sent, and the relay crypto gave its cell this tag.
    ///
    /// # Panics
    /// If [`CircuitSend::can_send`] was false.
    pub fn sent(&mut self, len: usize, tag: SendmeTag) {
        assert!(self.window > 0, "DATA sent on an empty circuit window");
        self.window -= 1;
        self.since_tag += 1;
        self.unpredictable |= len <= MAX_UNPREDICTABLE_DATA_LEN;
        if self.since_tag == CIRCUIT_INCREMENT {
            self.since_tag = 0;
            self.unpredictable = false;
            self.tags.push_back(tag);
        }
    }

    /// A circuit-level SENDME arrived. `accept_v0` says whether unauthenticated ones will do: consensus parameter
    /// `sendme_accept_min_version` is 0, or the circuit was made with CREATE_FAST.
    pub fn on_sendme(&mut self, sendme: Sendme, accept_v0: bool) -> Result<(), FlowError> {
        let expected = self.tags.pop_front().ok_or(FlowError::UnexpectedCircuitSendme)?;
        match sendme {
            Sendme::V0 if !accept_v0 => return Err(FlowError::NoTag),
            // SendmeTag compares in constant time.
            Sendme::V1 { tag } if tag != expected => return Err(FlowError::WrongTag),
            _ => {}
        }
        // Cannot exceed the start: each kept tag stands for an increment that was taken off.
        self.window += CIRCUIT_INCREMENT;
        Ok(())
    }
}

/// The receiving half of a circuit's window.
#[derive(Debug)]
pub struct CircuitRecv {
    window: u16,
}

impl Default for CircuitRecv {
    fn default() -> CircuitRecv {
        CircuitRecv { window: CIRCUIT_WINDOW }
    }
}

impl CircuitRecv {
    /// A DATA cell with this tag arrived, for whatever stream. `Some`: acknowledge it at once, with this tag.
    ///
    /// As acknowledging opens the window again at once, a receiver that does so never sees it run out, and no peer can
    /// cause [`FlowError::CircuitOverrun`]. What bounds a sender is each stream's window, whose SENDMEs wait for the
    /// application, and the memory for what waits.
    pub fn on_data(&mut self, tag: SendmeTag) -> Result<Option<SendmeTag>, FlowError> {
        self.window = self.window.checked_sub(1).ok_or(FlowError::CircuitOverrun)?;
        if self.window > CIRCUIT_WINDOW - CIRCUIT_INCREMENT {
            return Ok(None);
        }
        self.window += CIRCUIT_INCREMENT;
        Ok(Some(tag))
    }
}

/// The sending half of a stream's window.
#[derive(Debug)]
pub struct StreamSend {
    window: u16,
}

impl Default for StreamSend {
    fn default() -> StreamSend {
        StreamSend { window: STREAM_WINDOW }
    }
}

impl StreamSend {
    /// Whether another DATA cell may be sent.
    pub fn can_send(&self) -> bool {
        self.window > 0
    }

    /// DATA cells that may be sent now.
    pub fn window(&self) -> u16 {
        self.window
    }

    /// A DATA cell was sent.
    ///
    /// # Panics
    /// If [`StreamSend::can_send`] was false.
    pub fn sent(&mut self) {
        assert!(self.window > 0, "DATA sent on an empty stream window");
        self.window -= 1;
    }

    /// A stream-level SENDME arrived.
    pub fn on_sendme(&mut self) -> Result<(), FlowError> {
        if self.window + STREAM_INCREMENT > STREAM_WINDOW {
            return Err(FlowError::UnexpectedStreamSendme);
        }
        self.window += STREAM_INCREMENT;
        Ok(())
    }
}

/// The receiving half of a stream's window.
#[derive(Debug)]
pub struct StreamRecv {
    window: u16,
}

impl Default for StreamRecv {
    fn default() -> StreamRecv {
        StreamRecv { window: STREAM_WINDOW }
    }
}

impl StreamRecv {
    /// DATA cells that the peer may still send.
    pub fn window(&self) -> u16 {
        self.window
    }

    /// A DATA cell arrived.
    pub fn on_data(&mut self) -> Result<(), FlowError> {
        self.window = self.window.checked_sub(1).ok_or(FlowError::StreamOverrun)?;
        Ok(())
    }

    /// Whether [`StreamRecv::flushed`] would find one to send.
    pub fn is_due(&self, cells_waiting: usize) -> bool {
        cells_waiting < FLUSH_CELLS && STREAM_WINDOW - self.window >= STREAM_INCREMENT
    }

    /// How many stream-level SENDMEs to send now, when `cells_waiting` cells' worth of data still waits to be handed
    /// to the application.
    ///
    /// Call it after data has arrived and after data has left, on an open stream only: an exit does not acknowledge
    /// before CONNECTED.
    pub fn flushed(&mut self, cells_waiting: usize) -> u16 {
        if cells_waiting >= FLUSH_CELLS {
            return 0;
        }
        let due = (STREAM_WINDOW - self.window) / STREAM_INCREMENT;
        self.window += due * STREAM_INCREMENT;
        due
    }
}

#[cfg(test)]
mod tests;
