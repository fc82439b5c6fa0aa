//! A client of the tests' own, which says on the wire what no deployed client says, and hears the relays' very words.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onionring_loadgen::net::Network;
use onionring_node::tls::{Connector, TlsStream, TlsVersions};
use onionring_proto::cell::{CircId, Frame, LinkVersion, next_frame, write_fixed};
use onionring_proto::handshake::Terms;
use onionring_proto::link::{ExpectedPeer, Handshake, LinkParams, Verdict, judge};
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::origin::{
    CloseReason, Event, FirstHop, HandshakeKind, HopTarget, OriginCircuit, OriginConfig, StreamKey,
};
use onionring_proto::relay_msg::{Begin, BeginFlags, EndReason, Host, LinkSpecs};
use onionring_proto::time::{Mono, Unix};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay of the network as a hop, from the descriptor that the authorities have of it.
pub fn hop(network: &Network, nickname: &str, handshake: HandshakeKind) -> HopTarget {
    let path = format!("/tor/server/fp/{}", network.node(nickname).fingerprint());
    let text = String::from_utf8(network.document(&path).unwrap()).unwrap();
    let descriptor = RouterDesc::parse(&text).unwrap();
    HopTarget {
        specs: LinkSpecs {
            ipv4: Some(std::net::SocketAddrV4::new(descriptor.ipv4, descriptor.or_port)),
            ipv6: None,
            rsa_id: descriptor.identity.0,
            ed_id: Some(descriptor.ed_identity),
        },
        onion_key: descriptor.ntor_onion_key,
        handshake,
        ask: Terms::default(),
    }
}

/// A link that carries one circuit.
pub struct Client {
    socket: TcpStream,
    tls: TlsStream,
    version: LinkVersion,
    circ_id: CircId,
    circuit: OriginCircuit,
    plaintext: Vec<u8>,
    rng: ChaCha20Rng,
    started: Instant,
}

impl Client {
    /// A circuit of one hop.
    pub fn connect(first: &HopTarget) -> Client {
        let mut rng = ChaCha20Rng::seed_from_u64(rand::random());
        let address = SocketAddr::V4(first.specs.ipv4.unwrap());
        let (mut socket, mut tls) = open_tls(address, TlsVersions::Both, &mut rng).unwrap();
        let expected = ExpectedPeer { rsa_id: Some(first.specs.rsa_id), ed_id: first.specs.ed_id };
        let params = LinkParams {
            versions: LinkVersion::ALL.to_vec(),
            peer_address: address.ip(),
            own_addresses: Vec::new(),
        };
        let leaf = tls.peer_certificate().unwrap().to_vec();
        let mut handshake = Handshake::initiator(None, expected, &leaf, params);
        let mut plaintext = Vec::new();
        let established = loop {
            let (used, established) = handshake.handle(unix_now(), &mut plaintext, &tls, &mut rng).unwrap();
            plaintext.drain(..used);
            let mut out = Vec::new();
            handshake.poll_transmit(&mut out);
            tls.seal(&out).unwrap();
            flush(&mut socket, &mut tls).unwrap();
            match established {
                Some(established) => break established,
                None => receive(&mut socket, &mut tls, &mut plaintext).unwrap(),
            }
        };
        let circ_id = established.circ_ids.allocate(8, &mut rng, |_| true).unwrap();
        let config = OriginConfig { survive_truncation: true, ..OriginConfig::default() };
        let mut client = Client {
            socket,
            tls,
            version: established.version,
            circ_id,
            circuit: OriginCircuit::new(config),
            plaintext,
            rng,
            started: Instant::now(),
        };
        client.circuit.create(client.now(), &mut client.rng, FirstHop::Relay(first)).unwrap();
        assert!(matches!(client.next(), Event::Extended { hops: 1, .. }));
        client
    }

    /// A circuit over these hops.
    pub fn over(hops: &[&HopTarget]) -> Client {
        let mut client = Client::connect(hops[0]);
        for hop in &hops[1..] {
            client.extend(hop);
        }
        client
    }

    /// Adds a hop, which must succeed.
    pub fn extend(&mut self, target: &HopTarget) {
        let before = self.circuit.hops();
        let event = self.try_extend(target);
        assert!(matches!(event, Event::Extended { hops, .. } if hops == before + 1), "{event:?}");
    }

    /// Tries to add a hop, and returns what comes of it.
    pub fn try_extend(&mut self, target: &HopTarget) -> Event {
        self.circuit.extend(self.now(), &mut self.rng, target).unwrap();
        self.next()
    }

    /// Has hop number `hop` cut the circuit behind it.
    pub fn truncate(&mut self, hop: usize) {
        self.circuit.truncate(hop).unwrap();
        let event = self.next();
        assert!(matches!(event, Event::Truncated { hops, .. } if hops == hop + 1), "{event:?}");
    }

    /// What hop number `hop` answers to a directory request: the whole answer with its head.
    pub fn ask_directory(&mut self, hop: usize, path: &str) -> String {
        let stream = self.circuit.begin_dir(&mut self.rng, hop).unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        assert_eq!(self.circuit.write_stream(stream, request.as_bytes()), request.len());
        let (answer, end) = self.read_to_end(stream);
        assert_eq!(end, EndReason::Done);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Opens a stream from hop number `hop`: connected, or the reason why not.
    pub fn begin(&mut self, hop: usize, host: Host<'_>, port: u16) -> Result<StreamKey, EndReason> {
        let stream = self
            .circuit
            .begin(&mut self.rng, hop, &Begin { host, port, flags: BeginFlags::default() })
            .unwrap();
        loop {
            match self.next() {
                Event::Connected { stream: connected, .. } if connected == stream => return Ok(stream),
                Event::Ended { stream: ended, end } if ended == stream => return Err(end.reason),
                Event::Closed(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }

    /// Reads a stream until the relay ends it.
    pub fn read_to_end(&mut self, stream: StreamKey) -> (Vec<u8>, EndReason) {
        let mut data = Vec::new();
        loop {
            match self.next() {
                Event::Readable(readable) if readable == stream => {
                    let piece = self.circuit.readable(stream);
                    data.extend_from_slice(piece);
                    let len = piece.len();
                    self.circuit.consume(stream, len);
                }
                Event::Ended { stream: ended, end } if ended == stream => return (data, end.reason),
                Event::Closed(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }

    /// Waits until the circuit is gone, and says why.
    pub fn closed(&mut self) -> CloseReason {
        loop {
            if let Event::Closed(reason) = self.next() {
                return reason;
            }
        }
    }

    /// The next event.
    pub fn next(&mut self) -> Event {
        loop {
            let mut cells = Vec::new();
            while let Some((command, body)) = self.circuit.poll_transmit(&mut self.rng) {
                write_fixed(self.version, self.circ_id, command, &body, &mut cells);
            }
            self.tls.seal(&cells).unwrap();
            flush(&mut self.socket, &mut self.tls).unwrap();
            if let Some(event) = self.circuit.poll_event() {
                return event;
            }
            receive(&mut self.socket, &mut self.tls, &mut self.plaintext).unwrap();
            self.take_cells();
        }
    }

    fn take_cells(&mut self) {
        let now = self.now();
        let mut used = 0;
        while let Some((len, frame)) = next_frame(self.version.into(), &mut self.plaintext[used..]).unwrap() {
            used += len;
            if judge(self.version, &frame).unwrap() == Verdict::Circuit
                && let Frame::Fixed { circ_id, command, body } = frame
            {
                assert_eq!(circ_id, self.circ_id);
                self.circuit.handle_cell(now, command, body);
            }
        }
        self.plaintext.drain(..used);
    }

    fn now(&self) -> Mono {
        Mono(self.started.elapsed().as_micros() as u64)
    }
}

/// Connects to a relay's ORPort, up to the end of the TLS handshake.
pub fn open_tls(
    address: SocketAddr,
    versions: TlsVersions,
    rng: &mut ChaCha20Rng,
) -> std::io::Result<(TcpStream, TlsStream)> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut tls = Connector::new(versions).unwrap().connect(rng).unwrap();
    let mut early = Vec::new();
    while tls.is_handshaking() {
        flush(&mut socket, &mut tls)?;
        receive(&mut socket, &mut tls, &mut early)?;
    }
    flush(&mut socket, &mut tls)?;
    assert!(early.is_empty(), "a responder waits for VERSIONS");
    Ok((socket, tls))
}

fn flush(socket: &mut TcpStream, tls: &mut TlsStream) -> std::io::Result<()> {
    while tls.wants_transmit() {
        tls.transmit(socket)?;
    }
    socket.flush()
}

/// Reads once.
fn receive(socket: &mut TcpStream, tls: &mut TlsStream, plaintext: &mut Vec<u8>) -> std::io::Result<()> {
    let mut ciphertext = [0; 16 * 1024];
    let len = socket.read(&mut ciphertext)?;
    if len == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    tls.open(&ciphertext[..len], plaintext).map_err(std::io::Error::other)
}

fn unix_now() -> Unix {
    Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}
