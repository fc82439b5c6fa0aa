//! One link of ours, without blocking: socket, TLS, link handshake, and the plaintext that waits to be sealed.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use onionring_node::tls::{Acceptor, Connector, TlsStream};
use onionring_proto::cell::{Body, CircId, Command, LinkVersion, write_fixed};
use onionring_proto::link::{Established, ExpectedPeer, Handshake, LinkError, LinkIdentity, LinkParams};
use rand::rngs::StdRng;

use super::hop::unix;

/// The link protocols we speak: those with circuit IDs of 4 bytes, so that every cell of a link has 514 bytes.
const VERSIONS: [LinkVersion; 2] = [LinkVersion::V4, LinkVersion::V5];

/// What may break a link; [`super::lane`] says what it means for the measurement.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection.
    Socket(io::Error),
    /// The peer closed in order.
    Closed,
    /// TLS.
    Tls(String),
    /// The handshake inside.
    Handshake(LinkError),
}

/// How far a link is.
enum State {
    /// TLS; what follows it.
    Tls(Side),
    /// The handshake inside.
    Handshake(Box<Handshake>),
    /// Open for circuits.
    Open,
}

/// Which side of the link we are.
enum Side {
    /// A client's, which may say that it is a relay.
    Client(ExpectedPeer, Option<Arc<LinkIdentity>>),
    /// That of the relay with this identity, which is one of ours.
    Hop(Arc<LinkIdentity>),
}

/// A link.
pub(super) struct Link {
    pub(super) socket: TcpStream,
    tls: TlsStream,
    state: State,
    peer: SocketAddr,
    /// Which of our relays this link was accepted for; `None` for a client's.
    pub(super) hop: Option<usize>,
    /// What the last reading left: less than a cell.
    pub(super) leftover: Vec<u8>,
    /// Cells beside the bulk, to be sealed next.
    pub(super) pending: Vec<u8>,
    /// What the handshake found.
    pub(super) established: Option<Established>,
    /// Whether the socket takes no more until the poller says so.
    pub(super) blocked: bool,
    /// Whether it is on the list of links to be flushed.
    pub(super) dirty: bool,
}

impl Link {
    pub(super) fn client(
        socket: TcpStream,
        peer: SocketAddr,
        expected: ExpectedPeer,
        identity: Option<Arc<LinkIdentity>>,
        connector: &Connector,
        rng: &mut StdRng,
    ) -> Result<Link, Broken> {
        let tls = connector.connect(rng).map_err(|e| Broken::Tls(e.to_string()))?;
        Ok(Link::new(socket, peer, tls, Side::Client(expected, identity), None))
    }

    pub(super) fn accepted(
        socket: TcpStream,
        peer: SocketAddr,
        identity: Arc<LinkIdentity>,
        hop: usize,
        acceptor: &Acceptor,
    ) -> Result<Link, Broken> {
        let tls = acceptor.accept().map_err(|e| Broken::Tls(e.to_string()))?;
        Ok(Link::new(socket, peer, tls, Side::Hop(identity), Some(hop)))
    }

    fn new(socket: TcpStream, peer: SocketAddr, tls: TlsStream, side: Side, hop: Option<usize>) -> Link {
        Link {
            socket,
            tls,
            state: State::Tls(side),
            peer,
            hop,
            leftover: Vec::new(),
            pending: Vec::new(),
            established: None,
            blocked: false,
            dirty: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Reads once into `ciphertext`, and appends what that holds to `plaintext`. Returns whether there may be more.
    pub(super) fn read(&mut self, ciphertext: &mut [u8], plaintext: &mut Vec<u8>) -> Result<bool, Broken> {
        let len = match self.socket.read(ciphertext) {
            Ok(0) => return Err(Broken::Closed),
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(Broken::Socket(e)),
        };
        self.tls.open(&ciphertext[..len], plaintext).map_err(|e| Broken::Tls(e.to_string()))?;
        if self.tls.peer_has_closed() {
            return Err(Broken::Closed);
        }
        Ok(len == ciphertext.len())
    }

    /// Takes the handshakes further with what was read; `plaintext` keeps what comes after them. Returns whether the
    /// link has just become open.
    pub(super) fn advance(&mut self, plaintext: &mut Vec<u8>, rng: &mut StdRng) -> Result<bool, Broken> {
        if self.tls.is_handshaking() || self.is_open() {
            return Ok(false);
        }
        if let State::Tls(side) = &self.state {
            let params = |own_addresses| LinkParams {
                versions: VERSIONS.into(),
                peer_address: self.peer.ip(),
                own_addresses,
            };
            let handshake = match side {
                Side::Client(expected, identity) => {
                    let leaf = self.tls.peer_certificate().ok_or(Broken::Tls("no certificate".into()))?;
                    Handshake::initiator(identity.clone(), *expected, leaf, params(Vec::new()))
                }
                Side::Hop(identity) => {
                    let own = self.socket.local_addr().map_err(Broken::Socket)?;
                    Handshake::responder(identity.clone(), params(vec![own.ip()]))
                }
            };
            self.state = State::Handshake(Box::new(handshake));
        }
        if let State::Handshake(handshake) = &mut self.state {
            let result = handshake.handle(unix(), plaintext, &self.tls, rng);
            handshake.poll_transmit(&mut self.pending);
            let (used, established) = result.map_err(Broken::Handshake)?;
            plaintext.drain(..used);
            if established.is_some() {
                self.established = established;
                self.state = State::Open;
            }
        }
        Ok(self.is_open())
    }

    /// Queues one cell.
    pub(super) fn send(&mut self, circ: CircId, command: Command, body: &Body) {
        write_fixed(LinkVersion::V5, circ, command, body, &mut self.pending);
    }

    /// Seals cells. Only to be called when [`flush`](Self::flush) has just said that everything is out.
    pub(super) fn seal(&mut self, cells: &[u8]) -> Result<(), Broken> {
        self.tls.seal(cells).map_err(|e| Broken::Tls(e.to_string()))
    }

    /// Hands what is queued to the socket; returns whether it took everything.
    pub(super) fn flush(&mut self) -> Result<bool, Broken> {
        loop {
            while self.tls.wants_transmit() {
                match self.tls.transmit(&mut self.socket) {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.blocked = true;
                        return Ok(false);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(Broken::Socket(e)),
                }
            }
            if self.pending.is_empty() || self.tls.is_handshaking() {
                self.blocked = false;
                return Ok(true);
            }
            self.tls.seal(&self.pending).map_err(|e| Broken::Tls(e.to_string()))?;
            self.pending.clear();
        }
    }

    /// Says goodbye in order, as far as the socket takes it.
    pub(super) fn close(mut self) {
        // The connection ends either way.
        let _ = self.flush();
        self.tls.close();
        let _ = self.flush();
    }
}
