//! What a shard's engine asks of its driver.

use std::net::{IpAddr, SocketAddr};

use onionring_proto::relay_msg::{BeginFlags, EndReason, StreamId};

use super::ids::{CircuitId, LinkId};

/// Something for the driver to do, from `Engine::poll_event`. The order is the order in which things happened.
#[derive(Debug)]
pub enum Event {
    /// About links: for the part of the driver that owns connections.
    Link(LinkEvent),
    /// About streams of circuits that end here: for the exit and the directory.
    Stream(StreamEvent),
}

/// A request about a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Open a connection to a peer, then call `Engine::open_link` with this `dial`, or `Engine::dial_failed`.
    Dial {
        /// Names the attempt.
        dial: DialId,
        /// Addresses to try, the preferred one first.
        addresses: Vec<SocketAddr>,
        /// RSA identity that the peer has to prove.
        rsa_id: [u8; 20],
        /// Ed25519 identity that the peer has to prove, if the requester named one.
        ed_id: Option<[u8; 32]>,
    },
    /// This connection is not wanted any more: stop trying to open it, without a word.
    GiveUp(DialId),
    /// The link has something to send: call `Engine::poll_transmit` until it gives nothing.
    Writable(LinkId),
    /// The link is over: send what `poll_transmit` still gives, then close the connection and forget it.
    Close(LinkId),
}

/// Names one attempt to open a link, within its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// A stream, within its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamRef {
    /// The circuit that carries it.
    pub circuit: CircuitId,
    /// Its id on that circuit, which another stream may have had before.
    pub stream: StreamId,
    /// Tells it from those.
    pub(crate) serial: u32,
}

/// The destination of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name to resolve, in the client's upper and lower case.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// A question to the name service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The addresses of a name.
    Name(String),
    /// The name of an address.
    Reverse(IpAddr),
}

/// A request about a stream. A stream that was announced gets exactly one [`StreamEvent::Closed`], unless the driver
/// ended it first with `stream_end` or `stream_resolved`.
#[derive(Debug)]
pub enum StreamEvent {
    /// Open a connection for the client: answer with `stream_connected` or `stream_end`.
    Begin {
        /// The new stream.
        at: StreamRef,
        /// Where to.
        host: Host,
        /// Port there, never 0.
        port: u16,
        /// What addresses the client takes.
        flags: BeginFlags,
    },
    /// Serve directory requests on this stream: answer with `stream_connected` or `stream_end`.
    BeginDir {
        /// The new stream.
        at: StreamRef,
    },
    /// Look a name up: answer once with `stream_resolved`.
    Resolve {
        /// The request.
        at: StreamRef,
        /// What to look up.
        lookup: Lookup,
    },
    /// There are bytes to take with `stream_read` where there were none.
    Readable(StreamRef),
    /// `stream_writable` is above zero again.
    Writable(StreamRef),
    /// The client sends nothing more on the stream, beyond what can still be taken with `stream_read`, and goes on
    /// receiving. Only on streams that end by halves (`stream_finish`), and before [`StreamEvent::Closed`].
    Finished(StreamRef),
    /// The client ended the stream, or its circuit is gone. After an END, bytes received before it can still be taken
    /// with `stream_read` until the driver calls `stream_end`.
    Closed {
        /// The stream.
        at: StreamRef,
        /// The client's reason, or `None` if the circuit went away (its buffered bytes are gone too).
        reason: Option<EndReason>,
    },
}
