//! What the ports ask of the network, and what it answers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use onionring_proto::relay_msg::{EndReason, Resolved};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::isolation::Token;
use crate::limits;

/// Where an application wants to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name, which only the exit looks up.
    Name(Box<str>),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// Which families of addresses an application takes (`NoIPv4Traffic`, `IPv6Traffic`, `PreferIPv6`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
    /// IPv6 rather than IPv4, where a name has both.
    pub prefer_v6: bool,
}

impl Families {
    /// The address of a family that will do, of two.
    pub fn choose(self, v4: Option<SocketAddr>, v6: Option<SocketAddr>) -> Option<SocketAddr> {
        let (v4, v6) = (v4.filter(|_| self.v4), v6.filter(|_| self.v6));
        if self.prefer_v6 { v6.or(v4) } else { v4.or(v6) }
    }
}

impl Default for Families {
    /// As C tor's ports have it: both, IPv4 first.
    fn default() -> Families {
        Families { v4: true, v6: true, prefer_v6: false }
    }
}

/// A stream that an application wants.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where to.
    pub host: Host,
    /// Which port there, never 0.
    pub port: u16,
    /// Which addresses it may lead to.
    pub families: Families,
    /// Whom it may share a circuit with.
    pub token: Token,
}

/// What an application wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The addresses of a name.
    Addresses(Box<str>),
    /// The name of an address.
    Name(IpAddr),
}

/// Why the network does not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The proxy does not know enough of the network yet.
    #[error("the proxy is not ready: it does not know the network yet")]
    NotReady,
    /// No relay lets such a stream out, or this proxy does not.
    #[error("not allowed: no exit lets it out, or the configuration forbids it")]
    NotAllowed,
    /// An address that only means something on this host or its network.
    #[error("an internal address, which no exit can reach")]
    Internal,
    /// An onion service, which this proxy does not know how to reach.
    #[error("onion services cannot be reached through this proxy yet")]
    OnionService,
    /// The name is not known.
    #[error("the exit cannot resolve the name")]
    NotFound,
    /// There is no way from the exit to there.
    #[error("the exit has no route to the host")]
    NoRoute,
    /// The destination refuses connections.
    #[error("the destination refuses the connection")]
    Refused,
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// Anything else.
    #[error("the network fails: circuits break or relays are out of resources")]
    Failed,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 9] = [
        Refusal::NotReady,
        Refusal::NotAllowed,
        Refusal::Internal,
        Refusal::OnionService,
        Refusal::NotFound,
        Refusal::NoRoute,
        Refusal::Refused,
        Refusal::Timeout,
        Refusal::Failed,
    ];

    /// What metrics call it.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::NotReady => "not_ready",
            Refusal::NotAllowed => "not_allowed",
            Refusal::Internal => "internal",
            Refusal::OnionService => "onion_service",
            Refusal::NotFound => "not_found",
            Refusal::NoRoute => "no_route",
            Refusal::Refused => "refused",
            Refusal::Timeout => "timeout",
            Refusal::Failed => "failed",
        }
    }
}

impl From<EndReason> for Refusal {
    /// As C tor tells applications of the reasons in END (`src/core/or/reasons.c`).
    fn from(reason: EndReason) -> Refusal {
        match reason {
            EndReason::ResolveFailed => Refusal::NotFound,
            EndReason::ConnectRefused | EndReason::ConnReset | EndReason::Done => Refusal::Refused,
            EndReason::ExitPolicy => Refusal::NotAllowed,
            EndReason::Timeout => Refusal::Timeout,
            EndReason::NoRoute => Refusal::NoRoute,
            _ => Refusal::Failed,
        }
    }
}

/// Reads what an application sends before its stream is open, so that it can go along with the request.
///
/// What was read is kept: the stream may have to be tried again on another circuit.
pub struct Early<'a> {
    /// The application.
    pub reader: &'a mut (dyn AsyncRead + Unpin + Send),
    /// What has been read of it, in the end all that [`Network::connect`] has sent.
    pub read: Vec<u8>,
    /// Whether the application sends nothing more.
    pub is_over: bool,
}

impl<'a> Early<'a> {
    /// Nothing is known yet but `read`, which came with the request.
    pub fn new(reader: &'a mut (dyn AsyncRead + Unpin + Send), read: Vec<u8>) -> Early<'a> {
        Early { reader, read, is_over: false }
    }

    /// How many bytes may be read of it now.
    pub fn room(&self) -> usize {
        if self.is_over { 0 } else { limits::EARLY_BYTES.saturating_sub(self.read.len()) }
    }

    /// This was read of it; nothing is the end.
    pub fn note(&mut self, piece: &[u8]) {
        self.read.extend_from_slice(piece);
        self.is_over |= piece.is_empty();
    }
}

/// An open stream. Reading ends when the other side has ended it.
pub trait Tunnel: AsyncRead + AsyncWrite + Unpin + Send {
    /// Whether each direction ends by itself: `shutdown` then only ends what we send. Otherwise it ends the stream.
    fn has_halves(&self) -> bool;
}

/// Carries streams and questions; what the ports talk to.
pub trait Network: Send + Sync + 'static {
    /// An open stream.
    type Tunnel: Tunnel;

    /// Opens a stream. Returns when the exit says that it is open; all that [`Early`] has read until then has been written
    /// to it.
    fn connect(
        &self,
        destination: &Destination,
        early: &mut Early<'_>,
    ) -> impl Future<Output = Result<Self::Tunnel, Refusal>> + Send;

    /// Has an exit look something up. The answers are addresses or names, at least one.
    fn resolve(
        &self,
        question: &Question,
        token: &Token,
    ) -> impl Future<Output = Result<Resolved, Refusal>> + Send;
}
