//! Why links, circuits and streams fail.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::cell::FrameError;
use onionring_proto::circuit;
use onionring_proto::link::{CircIdError, LinkError};
use onionring_proto::origin::{CloseReason, OriginError};
use onionring_proto::relay_msg::EndReason;
use thiserror::Error;

use crate::tls::TlsError;

/// How far a link had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Being dialed.
    Dial,
    /// The TLS handshake.
    Tls,
    /// The link handshake inside TLS.
    Handshake,
    /// Open.
    Open,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Dial => "connecting",
            Step::Tls => "the TLS handshake",
            Step::Handshake => "the link handshake",
            Step::Open => "using the link",
        })
    }
}

/// Why a link could not be opened, or is gone.
#[derive(Debug, Error)]
pub enum LinkFailure {
    /// Nothing listens at the address.
    #[error("connection refused: nothing listens there, or a firewall rejects it")]
    Refused,
    /// The connection failed otherwise.
    #[error("connection failed: {0}")]
    Connection(#[source] io::Error),
    /// The peer closed the connection.
    #[error("the peer closed the connection while {step} was under way", step = .0)]
    PeerClosed(Step),
    /// A step took too long.
    #[error("{step} took longer than {} ms", limit.as_millis())]
    Timeout {
        /// The step.
        step: Step,
        /// What it was given.
        limit: Duration,
    },
    /// The peer takes nothing of what there is to send.
    #[error("the peer has taken nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The TLS session failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The peer is not the relay that was expected: it has replaced its keys, or somebody else has its address.
    #[error("{0}; its keys have changed, or something else answers at its address")]
    WrongIdentity(#[source] LinkError),
    /// The peer broke the link protocol.
    #[error("link protocol: {0}")]
    Protocol(#[source] LinkError),
    /// As many handshakes as allowed are under way on accepted connections.
    #[error("{0} handshakes are under way on accepted connections, as many as allowed")]
    Crowded(usize),
    /// This side has closed it.
    #[error("this side closed the link")]
    Closed,
}

impl LinkFailure {
    /// A short stable name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            LinkFailure::Refused => "refused",
            LinkFailure::Connection(_) => "connection",
            LinkFailure::PeerClosed(_) => "peer_closed",
            LinkFailure::Timeout { .. } => "timeout",
            LinkFailure::Stalled(_) => "stalled",
            LinkFailure::Tls(_) => "tls",
            LinkFailure::WrongIdentity(_) => "wrong_identity",
            LinkFailure::Protocol(_) => "protocol",
            LinkFailure::Crowded(_) => "crowded",
            LinkFailure::Closed => "closed",
        }
    }
}

impl From<io::Error> for LinkFailure {
    fn from(error: io::Error) -> LinkFailure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => LinkFailure::Refused,
            _ => LinkFailure::Connection(error),
        }
    }
}

impl From<LinkError> for LinkFailure {
    fn from(error: LinkError) -> LinkFailure {
        match error {
            LinkError::WrongRsaIdentity | LinkError::WrongEdIdentity => LinkFailure::WrongIdentity(error),
            _ => LinkFailure::Protocol(error),
        }
    }
}

impl From<FrameError> for LinkFailure {
    fn from(error: FrameError) -> LinkFailure {
        LinkFailure::Protocol(error.into())
    }
}

/// Why a circuit cannot be built or used.
#[derive(Clone, Debug, Error)]
pub enum CircuitError {
    /// The other side closed it, or it failed in its hands.
    #[error("circuit closed: {0}")]
    Closed(#[from] CloseReason),
    /// Its link is gone.
    #[error("the circuit's link is gone: {0}")]
    Link(#[source] Arc<LinkFailure>),
    /// This side has closed it.
    #[error("this side closed the circuit")]
    Dropped,
    /// The client at its other end broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Misuse(#[source] circuit::CircuitError),
    /// It cannot do what is asked.
    #[error(transparent)]
    Refused(#[from] OriginError),
    /// No circuit ID could be drawn.
    #[error(transparent)]
    CircId(#[from] CircIdError),
    /// The link carries as many circuits as allowed; open another.
    #[error("the link carries {0} circuits, as many as allowed: open another link")]
    LinkFull(usize),
    /// The relay did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl CircuitError {
    /// A short stable name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            CircuitError::Closed(reason) => reason.label(),
            CircuitError::Link(_) => "link",
            CircuitError::Dropped => "dropped",
            CircuitError::Misuse(error) => error.label(),
            CircuitError::Refused(_) => "refused",
            CircuitError::CircId(_) => "circuit_id",
            CircuitError::LinkFull(_) => "link_full",
            CircuitError::Timeout(_) => "no_answer",
        }
    }
}

/// Why a stream could not be opened, or ended. Reads and writes carry it inside their [`io::Error`].
#[derive(Clone, Debug, Error)]
pub enum StreamError {
    /// The relay ended it with this reason.
    #[error("the relay ended the stream: {}", .0.label())]
    Ended(EndReason),
    /// The relay ended it because its policy forbids this address, the one that was asked for or that the name leads to
    /// by its account.
    #[error("the relay's policy forbids the address")]
    Forbidden(IpAddr),
    /// This side has ended it.
    #[error("this side ended the stream")]
    Shut,
    /// The relay did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The circuit cannot serve it.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
}

impl StreamError {
    /// A short stable name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            StreamError::Ended(reason) => reason.label(),
            StreamError::Forbidden(_) => EndReason::ExitPolicy.label(),
            StreamError::Shut => "shut",
            StreamError::Timeout(_) => "no_answer",
            StreamError::Circuit(error) => error.label(),
        }
    }
}

impl From<OriginError> for StreamError {
    fn from(error: OriginError) -> StreamError {
        StreamError::Circuit(error.into())
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> io::Error {
        let kind = match &error {
            StreamError::Ended(EndReason::ConnectRefused) => io::ErrorKind::ConnectionRefused,
            StreamError::Ended(_) | StreamError::Forbidden(_) => io::ErrorKind::ConnectionReset,
            StreamError::Shut => io::ErrorKind::BrokenPipe,
            StreamError::Timeout(_) => io::ErrorKind::TimedOut,
            StreamError::Circuit(_) => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, error)
    }
}
