//! Links and circuits against peers that do what they should not.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, Frame, LinkVersion, next_frame, write_fixed};
use onionring_proto::circuit::{Outbound, RelayCircuit};
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::flow::CIRCUIT_WINDOW;
use onionring_proto::handshake::{CreateFast, CreatedFast, Terms, fast};
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::x509::{self, TlsLeaf};
use onionring_proto::link::{ExpectedPeer, Handshake, LinkIdentity, LinkParams, PeerIdentity};
use onionring_proto::origin::{FirstHop, HandshakeKind, HopTarget, OriginConfig};
use onionring_proto::relay_msg::{self, LinkSpecs, RelayCmd, StreamId};
use onionring_proto::time::Unix;
use tokio::net::{TcpListener, TcpStream};

use super::connection::Connection;
use super::{Circuit, ConnectError, Dialer, Link, Side, Step, Times};
use crate::tls::{Acceptor, Connector, TlsVersions};

mod circuits;
mod halves;
mod opening;
mod served;

/// Long enough for a busy machine; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(60);
/// What passes when a peer is silent.
const SHORT: Duration = Duration::from_millis(200);

const PATIENT: Times = Times { dial: LONG, tls: LONG, handshake: LONG };

fn now() -> Unix {
    Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// A relay's identity and TLS side, made once.
struct Keys {
    id: PeerIdentity,
    identity: Arc<LinkIdentity>,
    acceptor: Acceptor,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let rng = &mut rand::rng();
        let leaf = TlsLeaf::generate(now(), rng).unwrap();
        let rsa = RsaPrivate::generate(x509::IDENTITY_BITS, rng).unwrap();
        let (ed, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
        let certified = Certified::Ed25519(signing.public());
        let expires = now() + Duration::from_secs(86_400);
        let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &ed);
        let identity =
            LinkIdentity::new(&rsa, &signing_cert, &signing, &leaf.certificate, now(), rng).unwrap();
        Keys {
            id: PeerIdentity { rsa_id: rsa.public().rsa_id(), ed_id: ed.public() },
            identity: Arc::new(identity),
            acceptor: Acceptor::new(&leaf, TlsVersions::Both).unwrap(),
        }
    })
}

fn side() -> Side {
    let keys = keys();
    Side {
        acceptor: keys.acceptor.clone(),
        identity: keys.identity.clone(),
        own_addresses: vec![[127, 0, 0, 1].into()],
        service: None,
    }
}

fn expected() -> ExpectedPeer {
    let id = keys().id;
    ExpectedPeer { rsa_id: Some(id.rsa_id), ed_id: Some(id.ed_id) }
}

fn dialer(times: Times) -> Dialer {
    let connector = Connector::new(TlsVersions::Both).unwrap();
    Dialer { connector, identity: None, own_addresses: Vec::new(), service: None, times }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The relay's side of a connection, which says what a test has it say.
struct Peer {
    connection: Connection,
    version: LinkVersion,
}

impl Peer {
    /// With TLS, and nothing inside it yet.
    async fn tls(socket: TcpStream) -> Connection {
        let mut connection = Connection::new(socket, keys().acceptor.accept().unwrap()).unwrap();
        connection.open_tls(LONG).await.unwrap();
        connection
    }

    /// With an open link.
    async fn accept(listener: &TcpListener) -> Peer {
        let mut connection = Peer::tls(listener.accept().await.unwrap().0).await;
        let params = LinkParams {
            versions: LinkVersion::ALL.to_vec(),
            peer_address: [127, 0, 0, 1].into(),
            own_addresses: Vec::new(),
        };
        let handshake = Handshake::responder(keys().identity.clone(), params);
        let version = connection.open_link(handshake, LONG).await.unwrap().version;
        Peer { connection, version }
    }

    /// The initiator's side instead.
    async fn connect(address: SocketAddr) -> Peer {
        let socket = TcpStream::connect(address).await.unwrap();
        let tls = Connector::new(TlsVersions::Both).unwrap().connect(&mut rand::rng()).unwrap();
        let mut connection = Connection::new(socket, tls).unwrap();
        connection.open_tls(LONG).await.unwrap();
        let params = LinkParams {
            versions: LinkVersion::ALL.to_vec(),
            peer_address: address.ip(),
            own_addresses: Vec::new(),
        };
        let leaf = connection.tls.peer_certificate().unwrap();
        let handshake = Handshake::initiator(None, expected(), leaf, params);
        let version = connection.open_link(handshake, LONG).await.unwrap().version;
        Peer { connection, version }
    }

    /// Sends anything.
    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.connection.tls.seal(bytes).unwrap();
        self.connection.flush().await.unwrap();
    }

    async fn send(&mut self, circ_id: CircId, command: Command, start: &[u8]) {
        let mut body = [0; BODY_LEN];
        body[..start.len()].copy_from_slice(start);
        let mut cell = Vec::new();
        write_fixed(self.version, circ_id, command, &body, &mut cell);
        self.send_bytes(&cell).await;
    }

    async fn receive(&mut self) -> (CircId, Command, Body) {
        let mut read = Ok(());
        loop {
            if let Some((len, frame)) = next_frame(self.version.into(), &mut self.connection.held).unwrap() {
                let Frame::Fixed { circ_id, command, body } = frame else { panic!("{frame:?}") };
                let cell = (circ_id, command, *body);
                self.connection.held.drain(..len);
                return cell;
            }
            // The last cell may come with the end.
            read.unwrap();
            read = self.connection.receive(Step::Open).await;
        }
    }

    /// Answers CREATE_FAST.
    async fn create(&mut self) -> (CircId, RelayCircuit) {
        let (circ_id, command, body) = self.receive().await;
        assert_eq!(command, Command::CREATE_FAST);
        let (reply, keys) = fast::server(&mut rand::rng(), &CreateFast::parse(&body).x);
        let mut created = [0; BODY_LEN];
        CreatedFast { reply }.write(&mut created);
        self.send(circ_id, Command::CREATED_FAST, &created).await;
        (circ_id, RelayCircuit::new(&keys, CIRCUIT_WINDOW, true))
    }

    /// Receives a relay message.
    async fn hear(&mut self, circuit: &mut RelayCircuit) -> (RelayCmd, StreamId, Vec<u8>) {
        let (_, command, mut body) = self.receive().await;
        assert!(matches!(command, Command::RELAY | Command::RELAY_EARLY), "{command}");
        let outbound = circuit.outbound(command, &mut body).unwrap();
        assert!(matches!(outbound, Outbound::Recognised(_)));
        let msg = relay_msg::decode(&body).unwrap();
        assert_eq!(msg.cmd == RelayCmd::EXTEND2, command == Command::RELAY_EARLY);
        (msg.cmd, msg.stream, msg.data.to_vec())
    }

    /// Sends a relay message.
    async fn say(
        &mut self,
        circ_id: CircId,
        circuit: &mut RelayCircuit,
        cmd: RelayCmd,
        stream: StreamId,
        data: &[u8],
    ) {
        let mut body = [0; BODY_LEN];
        circuit.originate(cmd, stream, data, &mut rand::rng(), &mut body);
        self.send(circ_id, Command::RELAY, &body).await;
    }

    /// Reads until the other side closes.
    async fn until_closed(&mut self) {
        while self.connection.receive(Step::Open).await.is_ok() {
            self.connection.held.clear();
        }
    }
}

/// A link of ours to such a peer.
async fn link_and_peer() -> (Link, Peer) {
    let (listener, address) = listen().await;
    let dialer = dialer(PATIENT);
    let (link, peer) = tokio::join!(dialer.connect(address, expected()), Peer::accept(&listener));
    (link.unwrap(), peer)
}

fn config(hop_timeout: Duration) -> OriginConfig {
    OriginConfig { hop_timeout, ..OriginConfig::default() }
}

/// A circuit of one hop on such a link, and the peer's side of it.
async fn circuit_and_peer(hop_timeout: Duration) -> (Link, Circuit, Peer, CircId, RelayCircuit) {
    let (link, mut peer) = link_and_peer().await;
    let (circuit, (circ_id, relay)) =
        tokio::join!(link.create(FirstHop::Fast, config(hop_timeout)), peer.create());
    (link, circuit.unwrap(), peer, circ_id, relay)
}

fn target() -> HopTarget {
    let specs =
        LinkSpecs { ipv4: Some("127.0.0.1:9".parse().unwrap()), ipv6: None, rsa_id: [7; 20], ed_id: None };
    HopTarget { specs, onion_key: [9; 32], handshake: HandshakeKind::Ntor, ask: Terms::default() }
}

fn failure_of<T>(result: Result<T, ConnectError>) -> super::LinkFailure {
    result.err().expect("the link does not open").failure
}
