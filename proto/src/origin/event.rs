//! What an origin circuit reports, and why it closes or refuses.

use std::time::Duration;

use thiserror::Error;

use super::StreamKey;
use crate::cell::{Command, DestroyReason};
use crate::flow::FlowError;
use crate::handshake::HandshakeError;
use crate::limits::RELAY_EARLY_PER_CIRCUIT;
use crate::relay_msg::{
    self, ConnectedError, End, Extended2Error, LengthError, NoReason, RelayCmd, Resolved, ResolvedError,
    SendmeError,
};
use crate::stream::{OpenError, StreamError};

/// What has happened, to be acted on by the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake is done.
    Extended {
        /// Number of hops now.
        hops: usize,
        /// How long the handshake took.
        took: Duration,
    },
    /// The circuit was cut; streams on the lost hops have ended.
    Truncated {
        /// Number of hops left.
        hops: usize,
        /// What the relay at the cut says.
        reason: DestroyReason,
    },
    /// The stream is open.
    Connected {
        /// The stream.
        stream: StreamKey,
        /// Where it leads, if the exit says so.
        connected: relay_msg::Connected,
    },
    /// A look-up is answered; the stream is gone.
    Resolved {
        /// The stream.
        stream: StreamKey,
        /// The answers.
        resolved: Resolved,
    },
    /// There is data to read where there was none.
    Readable(StreamKey),
    /// There is room to write where there was too little.
    Writable(StreamKey),
    /// The relay sends no more on the stream, and all that it sent has been read; we may go on writing. Only on streams
    /// that [`OriginCircuit::has_halves`](super::OriginCircuit::has_halves).
    Finished(StreamKey),
    /// The relay has ended the stream, or both sides have ended what they send, and all its data has been read; the stream
    /// is gone.
    Ended {
        /// The stream.
        stream: StreamKey,
        /// Why.
        end: End,
    },
    /// The circuit is gone, with all its streams; no event follows, but data that came before can still be read.
    Closed(CloseReason),
}

/// Why a circuit is gone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// The first hop destroyed it.
    #[error("destroyed by the relays: {}", .0.label())]
    Destroyed(DestroyReason),
    /// A relay cut it, and the configuration does not let it live on.
    #[error("truncated at hop {hop}: {}", reason.label())]
    Truncated {
        /// The relay at the cut.
        hop: usize,
        /// What it says.
        reason: DestroyReason,
    },
    /// A handshake failed.
    #[error("handshake with hop {hop} failed: {error}")]
    Handshake {
        /// The hop it was with.
        hop: usize,
        /// How it failed.
        error: HandshakeError,
    },
    /// A handshake took longer than `hop_timeout`.
    #[error("handshake with hop {hop} timed out")]
    Timeout {
        /// The hop it was with.
        hop: usize,
    },
    /// A relay broke the protocol.
    #[error("protocol violation: {0}")]
    Violation(#[from] Violation),
}

impl CloseReason {
    /// A short stable name for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            CloseReason::Destroyed(_) => "destroyed",
            CloseReason::Truncated { .. } => "truncated",
            CloseReason::Handshake { .. } => "handshake",
            CloseReason::Timeout { .. } => "timeout",
            CloseReason::Violation(_) => "violation",
        }
    }
}

/// What no correct relay sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// A cell that does not belong here, or not now.
    #[error("unexpected {0} cell")]
    Cell(Command),
    /// A relay cell that no hop sent.
    #[error("relay cell that no hop recognises")]
    Unrecognised,
    /// A message from a hop that must not send it, or not now.
    #[error("unexpected {cmd} from hop {hop}")]
    Message {
        /// The sender.
        hop: usize,
        /// The message.
        cmd: RelayCmd,
    },
    /// A message for a stream that the sender does not serve, or must not send that now.
    #[error("unexpected {cmd} from hop {} for stream {}", stream.hop, stream.id)]
    StreamMessage {
        /// The sender and the stream it names.
        stream: StreamKey,
        /// The message.
        cmd: RelayCmd,
    },
    /// A message that is no message.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// A stream used against its state or window.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The circuit's window overrun, or wrongly acknowledged.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// CONNECTED that cannot be read.
    #[error(transparent)]
    Connected(#[from] ConnectedError),
    /// RESOLVED that cannot be read.
    #[error(transparent)]
    Resolved(#[from] ResolvedError),
    /// SENDME that cannot be read.
    #[error(transparent)]
    Sendme(#[from] SendmeError),
    /// EXTENDED2 that cannot be read.
    #[error(transparent)]
    Extended2(#[from] Extended2Error),
    /// TRUNCATED that cannot be read.
    #[error(transparent)]
    Truncated(#[from] NoReason),
}

/// A request that the circuit cannot serve now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OriginError {
    /// The circuit is gone.
    #[error("the circuit is closed")]
    Closed,
    /// It has been created already.
    #[error("the circuit has been created already")]
    Created,
    /// It has no hop yet, or a handshake or truncation is under way; wait for its event.
    #[error("the circuit is being built or cut")]
    Busy,
    /// There is no such hop.
    #[error("the circuit has no hop {0}")]
    NoSuchHop(usize),
    /// All RELAY_EARLY cells are spent; build another circuit.
    #[error("the circuit has used its {RELAY_EARLY_PER_CIRCUIT} RELAY_EARLY cells and cannot be extended")]
    EarlySpent,
    /// ntor-v3 was asked for with a relay whose Ed25519 identity is not given.
    #[error("ntor-v3 needs the relay's Ed25519 identity")]
    NoEdId,
    /// No more streams on that hop; use another circuit.
    #[error(transparent)]
    Streams(#[from] OpenError),
}
