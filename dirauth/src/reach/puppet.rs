//! Relays for tests: on loopback, with real links and circuits, and with the vices that a test gives them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use onionring_node::tls::{Acceptor, Connector, TlsStream, TlsVersions};
use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, Frame, LinkVersion, next_frame, write_fixed};
use onionring_proto::circuit::{Outbound, Received, RelayCircuit};
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::flow::CIRCUIT_WINDOW;
use onionring_proto::handshake::{Create2, Created2, OnionKey, OnionKeyRing, ServerIdentity, respond};
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::x509::{IDENTITY_BITS, TlsLeaf};
use onionring_proto::link::{Established, ExpectedPeer, Handshake, LinkIdentity, LinkParams, PeerIdentity};
use onionring_proto::netdoc::protover::Protocols;
use onionring_proto::netdoc::routerdesc::{
    Bandwidth, DocumentKeys, NewDescriptor, OnionKeys, RouterDesc, SignedDescriptor,
};
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::policy::ExitPolicy;
use onionring_proto::relay_msg::{
    Begin, Connected, End, EndReason, Extend2, Extended2, Host, RelayCmd, RelayMsg, StreamId,
};
use onionring_proto::time::Unix;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

/// What a relay does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
    None,
    /// Completes TLS and the link handshake, and drops all cells after that.
    DropsCells,
    /// Answers CREATE2, and EXTEND2 as long as it comes in the first cells; carries nothing else.
    CarriesNothing,
    /// Does not extend.
    ExtendsNothing,
    /// Serves a descriptor that it had before it published.
    ServesOther,
    /// Lets streams out whatever its policy says, and none that its policy permits.
    IgnoresPolicy,
    /// Lets no streams out, and says MISC.
    EndsWithMisc,
}

/// What a relay has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Links that opened, of relays and of clients.
    pub links: [AtomicUsize; 2],
    /// Circuits that were asked for, on such links.
    pub circuits: [AtomicUsize; 2],
    /// The relays who opened links.
    pub peers: Mutex<Vec<PeerIdentity>>,
}

impl Seen {
    pub fn circuits_of_relays(&self) -> usize {
        self.circuits[0].load(Ordering::SeqCst)
    }

    pub fn circuits_of_clients(&self) -> usize {
        self.circuits[1].load(Ordering::SeqCst)
    }
}

/// A relay's keys.
pub struct Keys {
    rsa: RsaPrivate,
    ed: Ed25519Pair,
    signing: Ed25519Pair,
    signing_cert: Vec<u8>,
    onion: OnionKey,
    pub link: Arc<LinkIdentity>,
}

/// A running relay. It ends when this is dropped.
pub struct Puppet {
    pub descriptor: Arc<RouterDesc>,
    pub seen: Arc<Seen>,
    relay: Arc<Relay>,
    task: JoinHandle<()>,
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all tasks of a relay share.
struct Relay {
    keys: Keys,
    vice: Mutex<Vice>,
    signed: SignedDescriptor,
    /// The answer to requests for its descriptor.
    served: String,
    seen: Arc<Seen>,
}

/// All show the same certificate: it is their identities that tell them apart.
static LEAF: LazyLock<(TlsLeaf, Acceptor)> = LazyLock::new(|| {
    let leaf = TlsLeaf::generate(now(), &mut rng()).unwrap();
    let acceptor = Acceptor::new(&leaf, TlsVersions::Both).unwrap();
    (leaf, acceptor)
});

pub fn now() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// Other numbers each time.
pub fn rng() -> ChaCha20Rng {
    static SEED: AtomicUsize = AtomicUsize::new(0);
    ChaCha20Rng::seed_from_u64(SEED.fetch_add(1, Ordering::SeqCst) as u64)
}

impl Keys {
    pub fn generate() -> Keys {
        let rng = &mut rng();
        let rsa = RsaPrivate::generate(IDENTITY_BITS, rng).unwrap();
        let (ed, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
        let certified = Certified::Ed25519(signing.public());
        let expires = now() + Duration::from_secs(86_400);
        let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &ed);
        let link = LinkIdentity::new(&rsa, &signing_cert, &signing, &LEAF.0.certificate, now(), rng).unwrap();
        let (onion, link) = (OnionKey::generate(rng), Arc::new(link));
        Keys { rsa, ed, signing, signing_cert, onion, link }
    }

    pub fn id(&self) -> PeerIdentity {
        PeerIdentity { rsa_id: self.rsa.public().rsa_id(), ed_id: self.ed.public() }
    }

    fn sign(&self, new: &NewDescriptor) -> SignedDescriptor {
        let keys = DocumentKeys {
            identity: &self.rsa,
            ed_identity: self.ed.public(),
            signing: &self.signing,
            signing_cert: &self.signing_cert,
        };
        let ntor_expires = now() + Duration::from_secs(86_400);
        let onion = OnionKeys { ntor: self.onion.secret(), ntor_expires, tap: None };
        new.sign(&keys, &onion, &mut rng()).unwrap()
    }
}

fn plain(port: u16, policy: &str) -> NewDescriptor {
    NewDescriptor {
        nickname: Nickname::new("puppet").unwrap(),
        ipv4: Ipv4Addr::LOCALHOST,
        or_port: port,
        dir_port: 0,
        ipv6: None,
        platform: "onionring 0.1.0 on Linux".into(),
        protocols: Protocols::parse("Link=3-5 LinkAuth=3 Relay=2-4").unwrap(),
        published: now(),
        uptime: 1,
        bandwidth: Bandwidth { rate: 1_000_000, burst: 2_000_000, observed: 500_000 },
        extra_info: None,
        caches_extra_info: false,
        family: Vec::new(),
        family_certs: Vec::new(),
        hibernating: false,
        hidden_service_dir: true,
        contact: None,
        policy: ExitPolicy::from_descriptor([policy]).unwrap(),
        tunnelled_dir_server: true,
        overloaded_since: None,
    }
}

impl Puppet {
    pub async fn start(vice: Vice) -> Puppet {
        Puppet::with(vice, "reject *:*", |_| {}).await
    }

    /// With an exit policy, and whatever else its descriptor is to say. An IPv6 port 0 is one of its own.
    pub async fn with(vice: Vice, policy: &str, edit: impl FnOnce(&mut NewDescriptor)) -> Puppet {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keys = Keys::generate();
        let mut new = plain(listener.local_addr().unwrap().port(), policy);
        edit(&mut new);
        let mut listener_v6 = None;
        if let Some((ip, port @ 0)) = &mut new.ipv6 {
            let listener = TcpListener::bind((*ip, 0)).await.unwrap();
            *port = listener.local_addr().unwrap().port();
            listener_v6 = Some(listener);
        }
        let signed = keys.sign(&new);
        let older = NewDescriptor { published: new.published - Duration::from_secs(60), ..new };
        let served = match vice {
            Vice::ServesOther => keys.sign(&older).text,
            _ => signed.text.clone(),
        };
        let descriptor = Arc::new(signed.parsed.clone());
        let seen = Arc::<Seen>::default();
        let vice = Mutex::new(vice);
        let relay = Arc::new(Relay { keys, vice, signed, served, seen: seen.clone() });
        let here = relay.clone();
        let task = tokio::spawn(async move {
            // Links end with it.
            let mut links = tokio::task::JoinSet::new();
            loop {
                let accepted = match &listener_v6 {
                    Some(other) => tokio::select! {
                        accepted = listener.accept() => accepted,
                        accepted = other.accept() => accepted,
                    },
                    None => listener.accept().await,
                };
                let (socket, _) = accepted.unwrap();
                let relay = here.clone();
                links.spawn(async move {
                    // Those who look only at TLS, or go away, are none of its business.
                    let _ = serve(socket, relay).await;
                });
            }
        });
        Puppet { descriptor, seen, relay, task }
    }

    pub fn set_vice(&self, vice: Vice) {
        *self.relay.vice.lock().unwrap() = vice;
    }

    pub fn id(&self) -> Fingerprint {
        self.descriptor.identity
    }
}

/// One connection, with a link on it.
struct Wire {
    socket: TcpStream,
    tls: TlsStream,
    held: Vec<u8>,
    established: Option<Established>,
}

impl Wire {
    fn new(socket: TcpStream, tls: TlsStream) -> Wire {
        Wire { socket, tls, held: Vec::new(), established: None }
    }

    async fn open_tls(&mut self) -> io::Result<()> {
        self.flush().await?;
        while self.tls.is_handshaking() {
            self.read().await?;
            self.flush().await?;
        }
        Ok(())
    }

    async fn open_link(&mut self, mut handshake: Handshake) -> io::Result<()> {
        loop {
            let result = handshake.handle(now(), &mut self.held, &self.tls, &mut rng());
            let mut out = Vec::new();
            handshake.poll_transmit(&mut out);
            self.tls.seal(&out).map_err(io::Error::other)?;
            let (used, established) = result.map_err(io::Error::other)?;
            self.held.drain(..used);
            self.flush().await?;
            if let Some(established) = established {
                self.established = Some(established);
                return Ok(());
            }
            self.read().await?;
        }
    }

    fn version(&self) -> LinkVersion {
        self.established.as_ref().unwrap().version
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut ciphertext = [0; 4096];
        self.socket.readable().await?;
        match self.socket.try_read(&mut ciphertext) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => self.tls.open(&ciphertext[..len], &mut self.held).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        while self.tls.wants_transmit() {
            self.tls.transmit(&mut out)?;
        }
        self.socket.write_all(&out).await
    }

    async fn send(&mut self, id: CircId, command: Command, body: &Body) -> io::Result<()> {
        let mut cell = Vec::new();
        write_fixed(self.version(), id, command, body, &mut cell);
        self.tls.seal(&cell).map_err(io::Error::other)?;
        self.flush().await
    }

    /// A cell that has come, if there is one.
    fn cell(&mut self) -> io::Result<Option<(CircId, Command, Body)>> {
        loop {
            let version = self.version().into();
            let Some((len, frame)) = next_frame(version, &mut self.held).map_err(io::Error::other)? else {
                return Ok(None);
            };
            let cell = match frame {
                Frame::Fixed { circ_id, command, body } => Some((circ_id, command, *body)),
                Frame::Variable { .. } => None,
            };
            self.held.drain(..len);
            if cell.is_some() {
                return Ok(cell);
            }
        }
    }
}

fn params(peer_address: IpAddr) -> LinkParams {
    LinkParams { versions: LinkVersion::ALL.to_vec(), peer_address, own_addresses: Vec::new() }
}

/// What happens elsewhere to a circuit of a link.
enum Event {
    Extended(Vec<u8>, UnboundedSender<(Command, Body)>),
    Inbound(Box<Body>),
    Gone,
    Stream(StreamId, Happened),
}

enum Happened {
    Connected(UnboundedSender<Vec<u8>>),
    Data(Vec<u8>),
    Ended(EndReason),
}

/// A circuit of a link.
struct Circuit {
    layer: RelayCircuit,
    /// The next hop.
    next: Option<UnboundedSender<(Command, Body)>>,
    /// Requests to the directory, as far as they have come.
    requests: HashMap<StreamId, Vec<u8>>,
    /// Streams to elsewhere.
    streams: HashMap<StreamId, UnboundedSender<Vec<u8>>>,
}

/// A link that somebody has opened.
struct Served {
    wire: Wire,
    relay: Arc<Relay>,
    circuits: HashMap<CircId, Circuit>,
    events: UnboundedSender<(CircId, Event)>,
}

async fn serve(socket: TcpStream, relay: Arc<Relay>) -> io::Result<()> {
    let peer_address = socket.peer_addr()?.ip();
    let mut wire = Wire::new(socket, LEAF.1.accept().map_err(io::Error::other)?);
    wire.open_tls().await?;
    wire.open_link(Handshake::responder(relay.keys.link.clone(), params(peer_address))).await?;
    let peer = wire.established.as_ref().and_then(|established| established.peer);
    relay.seen.links[usize::from(peer.is_none())].fetch_add(1, Ordering::SeqCst);
    relay.seen.peers.lock().unwrap().extend(peer);

    let (events, mut happens) = mpsc::unbounded_channel();
    let mut served = Served { wire, relay, circuits: HashMap::new(), events };
    loop {
        while let Some((id, command, body)) = served.wire.cell()? {
            if *served.relay.vice.lock().unwrap() != Vice::DropsCells {
                served.cell(id, command, body).await?;
            }
        }
        tokio::select! {
            read = served.wire.read() => read?,
            Some((id, event)) = happens.recv() => served.event(id, event).await?,
        }
    }
}

impl Served {
    fn vice(&self) -> Vice {
        *self.relay.vice.lock().unwrap()
    }

    async fn cell(&mut self, id: CircId, command: Command, mut body: Body) -> io::Result<()> {
        match command {
            Command::CREATE2 => self.create(id, &body).await,
            Command::DESTROY => {
                self.circuits.remove(&id);
                Ok(())
            }
            Command::RELAY | Command::RELAY_EARLY => {
                let vice = self.vice();
                let Some(circuit) = self.circuits.get_mut(&id) else { return Ok(()) };
                match circuit.layer.outbound(command, &mut body).map_err(io::Error::other)? {
                    Outbound::Forward => {
                        if let Some(next) = circuit.next.as_ref().filter(|_| vice != Vice::CarriesNothing) {
                            let _ = next.send((command, body));
                        }
                        Ok(())
                    }
                    Outbound::Recognised(tag) => {
                        let early = command == Command::RELAY_EARLY;
                        let received = circuit.layer.receive(early, tag, &body).map_err(io::Error::other)?;
                        match received {
                            Received::Extend(_) if vice == Vice::ExtendsNothing => Ok(()),
                            Received::Extend(extend) => {
                                circuit.layer.set_joined(true);
                                self.extend(id, &extend);
                                Ok(())
                            }
                            Received::Stream(..) if vice == Vice::CarriesNothing => Ok(()),
                            Received::Stream(msg, _) => self.message(id, &msg).await,
                            _ => Ok(()),
                        }
                    }
                }
            }
            _ => Ok(()),
        }
    }

    async fn create(&mut self, id: CircId, body: &Body) -> io::Result<()> {
        let is_client = self.wire.established.as_ref().unwrap().peer.is_none();
        self.relay.seen.circuits[usize::from(is_client)].fetch_add(1, Ordering::SeqCst);
        let rng = &mut rng();
        let create = Create2::parse(body).map_err(io::Error::other)?;
        let PeerIdentity { rsa_id, ed_id } = self.relay.keys.id();
        let onion = OnionKey::from_secret(self.relay.keys.onion.secret());
        let ring = OnionKeyRing::new(onion, None, rng);
        let identity = ServerIdentity { rsa_id, ed_id };
        let (hdata, keys) =
            respond(rng, &identity, &ring, create.htype, create.hdata).map_err(io::Error::other)?;
        let mut reply = [0; BODY_LEN];
        Created2 { hdata: &hdata }.write(&mut reply);
        let circuit = Circuit {
            layer: RelayCircuit::new(&keys, CIRCUIT_WINDOW, true),
            next: None,
            requests: HashMap::new(),
            streams: HashMap::new(),
        };
        self.circuits.insert(id, circuit);
        self.wire.send(id, Command::CREATED2, &reply).await
    }

    fn extend(&self, id: CircId, extend: &Extend2<'_>) {
        let mut body = [0; BODY_LEN];
        Create2 { htype: extend.htype, hdata: extend.hdata }.write(&mut body);
        let address = SocketAddr::V4(extend.specs.ipv4.unwrap());
        let expected = ExpectedPeer { rsa_id: Some(extend.specs.rsa_id), ed_id: extend.specs.ed_id };
        let (identity, events) = (self.relay.keys.link.clone(), self.events.clone());
        tokio::spawn(async move {
            let _ = next_hop(address, expected, identity, body, id, &events).await;
            let _ = events.send((id, Event::Gone));
        });
    }

    /// Sends a message to the client.
    async fn say(&mut self, id: CircId, cmd: RelayCmd, stream: StreamId, data: &[u8]) -> io::Result<()> {
        let Some(circuit) = self.circuits.get_mut(&id) else { return Ok(()) };
        let mut body = [0; BODY_LEN];
        circuit.layer.originate(cmd, stream, data, &mut rng(), &mut body);
        self.wire.send(id, Command::RELAY, &body).await
    }

    async fn say_all(&mut self, id: CircId, stream: StreamId, mut data: &[u8]) -> io::Result<()> {
        while let Some(circuit) = self.circuits.get(&id).filter(|_| !data.is_empty()) {
            let (piece, rest) = data.split_at(data.len().min(circuit.layer.data_limit()));
            self.say(id, RelayCmd::DATA, stream, piece).await?;
            data = rest;
        }
        Ok(())
    }

    async fn end(&mut self, id: CircId, stream: StreamId, reason: EndReason) -> io::Result<()> {
        let mut data = Vec::new();
        End::from(reason).write(&mut data);
        self.say(id, RelayCmd::END, stream, &data).await
    }

    async fn message(&mut self, id: CircId, msg: &RelayMsg<'_>) -> io::Result<()> {
        let stream = msg.stream;
        let Some(circuit) = self.circuits.get_mut(&id) else { return Ok(()) };
        match msg.cmd {
            RelayCmd::BEGIN_DIR => {
                circuit.requests.insert(stream, Vec::new());
                self.say(id, RelayCmd::CONNECTED, stream, &[]).await
            }
            RelayCmd::BEGIN => {
                let begin = Begin::parse(msg.data).map_err(io::Error::other)?;
                let Host::Addr(ip) = begin.host else { panic!("{:?}", begin.host) };
                let permits = self.relay.signed.parsed.policy.permits(ip, begin.port);
                if self.vice() == Vice::EndsWithMisc {
                    return self.end(id, stream, EndReason::Misc).await;
                }
                if permits == (self.vice() == Vice::IgnoresPolicy) {
                    return self.end(id, stream, EndReason::ExitPolicy).await;
                }
                let (address, events) = (SocketAddr::new(ip, begin.port), self.events.clone());
                tokio::spawn(async move {
                    let _ = exit(address, id, stream, &events).await;
                    let _ = events.send((id, Event::Stream(stream, Happened::Ended(EndReason::Done))));
                });
                Ok(())
            }
            RelayCmd::DATA => {
                if let Some(there) = circuit.streams.get(&stream) {
                    let _ = there.send(msg.data.to_vec());
                }
                let Some(request) = circuit.requests.get_mut(&stream) else { return Ok(()) };
                request.extend_from_slice(msg.data);
                if !request.ends_with(b"\r\n\r\n") {
                    return Ok(());
                }
                assert!(request.starts_with(b"GET /tor/server/authority "));
                circuit.requests.remove(&stream);
                let answer = format!("HTTP/1.0 200 OK\r\n\r\n{}", self.relay.served);
                self.say_all(id, stream, answer.as_bytes()).await?;
                self.end(id, stream, EndReason::Done).await
            }
            RelayCmd::END => {
                circuit.streams.remove(&stream);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn event(&mut self, id: CircId, event: Event) -> io::Result<()> {
        let vice = self.vice();
        let Some(circuit) = self.circuits.get_mut(&id) else { return Ok(()) };
        match event {
            Event::Extended(hdata, next) => {
                circuit.next = Some(next);
                let mut data = Vec::new();
                Extended2 { hdata: &hdata }.write(&mut data);
                self.say(id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &data).await
            }
            Event::Inbound(_) if vice == Vice::CarriesNothing => Ok(()),
            Event::Inbound(mut body) => {
                circuit.layer.inbound(&mut body);
                self.wire.send(id, Command::RELAY, &body).await
            }
            Event::Gone => {
                self.circuits.remove(&id);
                self.wire.send(id, Command::DESTROY, &[8; BODY_LEN]).await
            }
            Event::Stream(stream, Happened::Connected(there)) => {
                circuit.streams.insert(stream, there);
                let mut data = Vec::new();
                Connected::default().write(&mut data);
                self.say(id, RelayCmd::CONNECTED, stream, &data).await
            }
            Event::Stream(stream, Happened::Data(data)) => self.say_all(id, stream, &data).await,
            Event::Stream(stream, Happened::Ended(reason)) => {
                circuit.streams.remove(&stream);
                self.end(id, stream, reason).await
            }
        }
    }
}

/// The link to the next hop of one circuit.
async fn next_hop(
    address: SocketAddr,
    expected: ExpectedPeer,
    identity: Arc<LinkIdentity>,
    create: Body,
    id: CircId,
    events: &UnboundedSender<(CircId, Event)>,
) -> io::Result<()> {
    let tls = Connector::new(TlsVersions::Both).map_err(io::Error::other)?;
    let tls = tls.connect(&mut rng()).map_err(io::Error::other)?;
    let mut wire = Wire::new(TcpStream::connect(address).await?, tls);
    wire.open_tls().await?;
    let leaf = wire.tls.peer_certificate().unwrap().to_vec();
    wire.open_link(Handshake::initiator(Some(identity), expected, &leaf, params(address.ip()))).await?;
    let circ_ids = &wire.established.as_ref().unwrap().circ_ids;
    let there = circ_ids.allocate(9, &mut rng(), |_| true).map_err(io::Error::other)?;
    wire.send(there, Command::CREATE2, &create).await?;
    let (sender, mut outbound): (_, UnboundedReceiver<(Command, Body)>) = mpsc::unbounded_channel();
    let mut sender = Some(sender);
    loop {
        while let Some((_, command, body)) = wire.cell()? {
            let event = match command {
                Command::CREATED2 => {
                    let created = Created2::parse(&body).map_err(io::Error::other)?;
                    Event::Extended(created.hdata.to_vec(), sender.take().unwrap())
                }
                Command::RELAY => Event::Inbound(Box::new(body)),
                Command::DESTROY => return Ok(()),
                _ => continue,
            };
            let _ = events.send((id, event));
        }
        tokio::select! {
            read = wire.read() => read?,
            sent = outbound.recv() => match sent {
                Some((command, body)) => wire.send(there, command, &body).await?,
                None => return Ok(()),
            },
        }
    }
}

/// One stream to elsewhere.
async fn exit(
    address: SocketAddr,
    id: CircId,
    stream: StreamId,
    events: &UnboundedSender<(CircId, Event)>,
) -> io::Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    let (sender, mut sent) = mpsc::unbounded_channel::<Vec<u8>>();
    let _ = events.send((id, Event::Stream(stream, Happened::Connected(sender))));
    let mut buf = [0; 4096];
    loop {
        tokio::select! {
            read = socket.read(&mut buf) => match read? {
                0 => return Ok(()),
                len => {
                    let _ = events.send((id, Event::Stream(stream, Happened::Data(buf[..len].to_vec()))));
                }
            },
            data = sent.recv() => match data {
                Some(data) => socket.write_all(&data).await?,
                None => return Ok(()),
            },
        }
    }
}
