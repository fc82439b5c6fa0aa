//! Whole relays in one process: shards, sockets, TLS and links, and a client that speaks the protocol by itself.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use crossbeam::channel;
use onionring_node::tls::{Acceptor, Connector, TlsStream, TlsVersions};
use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, Frame, LinkVersion, next_frame, write_fixed};
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::crypto::tor1::ClientOnion;
use onionring_proto::handshake::{
    CreateFast, CreatedFast, OnionKey, OnionKeyRing, ServerIdentity, fast, ntor,
};
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::x509::{self, TlsLeaf};
use onionring_proto::link::{ExpectedPeer, Handshake, LinkIdentity, LinkParams};
use onionring_proto::policy::ExitPolicy;
use onionring_proto::rate::Rate;
use onionring_proto::relay_msg::{
    self, Connected, Extend2, Extended2, LinkSpecs, RelayCmd, StreamId, encode,
};
use onionring_proto::time::Unix;
use onionring_relay::engine::counters::Counters;
use onionring_relay::engine::dos::{Clients, ConnectionLimits, DosLimits};
use onionring_relay::engine::event::{StreamEvent, StreamRef};
use onionring_relay::engine::rate::{RateLimits, Rates};
use onionring_relay::engine::snapshot::{CircuitParams, Snapshot};
use onionring_relay::exit::decide::ExitRules;
use onionring_relay::exit::dns::resolv_conf::ResolvConf;
use onionring_relay::exit::{Exit, ExitSettings, dns};
use onionring_relay::io::control::Control;
use onionring_relay::io::net::{OutboundAddresses, listen};
use onionring_relay::io::shard::{IoCounters, Shard, StreamHandler};
use onionring_relay::io::{Setup, Shards, check, start};
use onionring_relay::limits;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// The stream of a circuit.
const STREAM: StreamId = StreamId(7);

const RESPONSE_TIME: Duration = Duration::from_secs(60);

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn unix() -> Unix {
    Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// Keys that take long to make, shared by the relays of all tests: who a relay is follows from its Ed25519 key and
/// its RSA identity.
fn long_keys() -> &'static ([RsaPrivate; 2], TlsLeaf) {
    static KEYS: OnceLock<([RsaPrivate; 2], TlsLeaf)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let identity = |seed| RsaPrivate::generate(x509::IDENTITY_BITS, &mut rng(seed)).unwrap();
        ([1, 2].map(identity), TlsLeaf::generate(unix(), &mut rng(3)).unwrap())
    })
}

struct Relay {
    shards: Shards,
    address: SocketAddr,
    identity: ServerIdentity,
    onion_key: [u8; 32],
}

impl Relay {
    /// The relay `which`, 0 or 1.
    fn start(which: usize, shards: u16) -> Relay {
        Relay::with_limits(which, shards, RateLimits::default(), DosLimits::default())
    }

    fn with_limits(which: usize, shards: u16, limits: RateLimits, dos: DosLimits) -> Relay {
        check::raise_limits(usize::from(shards)).unwrap();
        let rng = &mut rng(10 + which as u64);
        let (identities, leaf) = long_keys();
        let rsa = &identities[which];
        let (identity, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
        let certified = Certified::Ed25519(signing.public());
        let expires = unix() + Duration::from_secs(30 * 86_400);
        let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &identity);
        let link_identity = Arc::new(
            LinkIdentity::new(rsa, &signing_cert, &signing, &leaf.certificate, unix(), rng).unwrap(),
        );
        let server = ServerIdentity { rsa_id: rsa.public().rsa_id(), ed_id: identity.public() };
        let onion_key = OnionKey::generate(rng);
        let public = *onion_key.public();
        let snapshot = Arc::new(Snapshot {
            identity: ServerIdentity { ..server },
            onion_keys: OnionKeyRing::new(onion_key, None, rng),
            link_identity,
            link_versions: LinkVersion::ALL.to_vec(),
            own_addresses: vec![Ipv4Addr::LOCALHOST.into()],
            relays: Arc::default(),
            rates: Arc::new(Rates::new(limits, shards)),
            dos,
            clients: Arc::new(Clients::new([1; 16])),
            params: CircuitParams {
                extend_to_private: true,
                refuse_unknown_exits: false,
                ..CircuitParams::default()
            },
        });
        let (address, listeners) = listen("127.0.0.1:0".parse().unwrap(), usize::from(shards)).unwrap();
        let setup = Setup {
            shards,
            pin: false,
            listeners: vec![listeners],
            outbound: OutboundAddresses::default(),
            queue_bytes: 64 << 20,
            snapshot,
            acceptor: Acceptor::new(leaf, TlsVersions::Both).unwrap(),
            connector: Connector::new(TlsVersions::Both).unwrap(),
        };
        let shards = start(setup, |shard| Box::new(Echo::new(shard))).unwrap();
        Relay { shards, address, identity: server, onion_key: public }
    }

    fn counters(&self) -> Vec<(Counters, IoCounters)> {
        let (reply, replies) = channel::unbounded();
        for handle in self.shards.handles() {
            handle.send(Control::Counters(reply.clone()));
        }
        drop(reply);
        replies.iter().map(|(_, counters)| *counters).collect()
    }

    /// Waits until the counters of all shards together satisfy `condition`.
    fn wait_until(&self, what: &str, condition: impl Fn(&[(Counters, IoCounters)]) -> bool) {
        let start = std::time::Instant::now();
        while !condition(&self.counters()) {
            assert!(start.elapsed() < RESPONSE_TIME, "{what}: {:?}", self.counters());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(self) {
        assert!(self.shards.ended().is_empty(), "a shard has panicked");
        self.shards.stop();
        self.shards.join().unwrap();
    }
}

/// Gives back what comes on directory streams, and exits to everywhere.
struct Echo(Rc<Shard>, Exit<Rc<Shard>>);

impl StreamHandler for Echo {
    fn handle(&mut self, event: StreamEvent) {
        let Some(event) = self.1.handle(event) else { return };
        match event {
            StreamEvent::BeginDir { at } => {
                let from = self.0.engine(|engine, _| engine.previous_hop(at.circuit));
                assert_eq!(from, Some(Ipv4Addr::LOCALHOST.into()));
                self.0.engine(|engine, now| engine.stream_connected(now, at, &Connected { addr: None }));
            }
            StreamEvent::Readable(at) | StreamEvent::Writable(at) => self.echo(at),
            StreamEvent::Closed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

impl Echo {
    fn new(shard: &Rc<Shard>) -> Echo {
        let settings = ExitSettings {
            rules: ExitRules { policy: ExitPolicy::open(), network: HashSet::new() },
            resolv_conf: ResolvConf::parse(Path::new("none"), "").0,
            dns: dns::Options::default(),
            outbound: OutboundAddresses::default(),
        };
        Echo(shard.clone(), Exit::new(shard.clone(), Arc::new(ArcSwap::from_pointee(settings)), 0))
    }

    fn echo(&self, at: StreamRef) {
        self.0.engine(|engine, now| {
            loop {
                let writable = engine.stream_writable(at);
                let data = engine.stream_read(at);
                let data = data[..data.len().min(writable)].to_vec();
                if data.is_empty() {
                    return;
                }
                let taken = engine.stream_write(now, at, &data);
                engine.stream_consume(now, at, taken);
            }
        });
    }
}

/// A client with one link.
struct Client {
    socket: TcpStream,
    tls: TlsStream,
    plaintext: Vec<u8>,
    version: LinkVersion,
    rng: StdRng,
}

impl Client {
    fn connect(relay: &Relay, versions: TlsVersions) -> Client {
        let mut rng = rng(99);
        let socket = TcpStream::connect(relay.address).unwrap();
        socket.set_read_timeout(Some(RESPONSE_TIME)).unwrap();
        let tls = Connector::new(versions).unwrap().connect(&mut rng).unwrap();
        let mut client = Client { socket, tls, plaintext: Vec::new(), version: LinkVersion::V5, rng };
        while client.tls.is_handshaking() {
            client.flush();
            client.read();
        }
        let expected =
            ExpectedPeer { rsa_id: Some(relay.identity.rsa_id), ed_id: Some(relay.identity.ed_id) };
        let params = LinkParams {
            versions: LinkVersion::ALL.to_vec(),
            peer_address: relay.address.ip(),
            own_addresses: Vec::new(),
        };
        let leaf = client.tls.peer_certificate().unwrap().to_vec();
        let mut handshake = Handshake::initiator(None, expected, &leaf, params);
        loop {
            let mut out = Vec::new();
            handshake.poll_transmit(&mut out);
            client.send(&out);
            let plaintext = &mut client.plaintext;
            let (used, established) =
                handshake.handle(unix(), plaintext, &client.tls, &mut client.rng).unwrap();
            plaintext.drain(..used);
            if let Some(established) = established {
                client.version = established.version;
                let mut out = Vec::new();
                handshake.poll_transmit(&mut out);
                client.send(&out);
                return client;
            }
            client.read();
        }
    }

    fn flush(&mut self) {
        while self.tls.wants_transmit() {
            self.tls.transmit(&mut self.socket).unwrap();
        }
    }

    fn send(&mut self, plaintext: &[u8]) {
        self.tls.seal(plaintext).unwrap();
        self.flush();
    }

    /// Reads once; returns whether there was something.
    fn read(&mut self) -> bool {
        let mut buf = [0; 16384];
        let len = self.socket.read(&mut buf).unwrap();
        self.tls.open(&buf[..len], &mut self.plaintext).unwrap();
        len > 0
    }

    fn send_cell(&mut self, circ: CircId, command: Command, body: &Body) {
        let mut out = Vec::new();
        write_fixed(self.version, circ, command, body, &mut out);
        self.send(&out);
    }

    fn next_cell(&mut self) -> (CircId, Command, Body) {
        loop {
            if let Some((used, frame)) = next_frame(self.version.into(), &mut self.plaintext).unwrap() {
                let Frame::Fixed { circ_id, command, body } = frame else { panic!("a variable cell") };
                let cell = (circ_id, command, *body);
                self.plaintext.drain(..used);
                if command != Command::PADDING {
                    return cell;
                }
                continue;
            }
            assert!(self.read(), "the relay closed the link");
        }
    }

    fn create(&mut self, circ: CircId) -> Circuit {
        let (handshake, x) = fast::Client::start(&mut self.rng);
        let mut body = [0; BODY_LEN];
        CreateFast { x }.write(&mut body);
        self.send_cell(circ, Command::CREATE_FAST, &body);
        let body = loop {
            let (answered, command, body) = self.next_cell();
            if answered == circ {
                assert_eq!(command, Command::CREATED_FAST);
                break body;
            }
            // A late SENDME of another circuit.
        };
        let mut onion = ClientOnion::new();
        onion.push_hop(&handshake.finish(&CreatedFast::parse(&body).reply).unwrap());
        Circuit { circ, onion }
    }

    fn extend(&mut self, circuit: &mut Circuit, to: &Relay) {
        let SocketAddr::V4(address) = to.address else { panic!("an IPv4 address") };
        let (handshake, hdata) = ntor::Client::start(&mut self.rng, &to.identity.rsa_id, &to.onion_key);
        let specs = LinkSpecs {
            ipv4: Some(address),
            ipv6: None,
            rsa_id: to.identity.rsa_id,
            ed_id: Some(to.identity.ed_id),
        };
        let mut data = Vec::new();
        Extend2 { specs, htype: 2, hdata: &hdata }.write(&mut data);
        self.send_message(circuit, RelayCmd::EXTEND2, StreamId(0), &data);
        let (hop, cmd, _, data) = self.next_message(circuit);
        assert_eq!((hop, cmd), (0, RelayCmd::EXTENDED2));
        let reply = Extended2::parse(&data).unwrap();
        circuit.onion.push_hop(&handshake.finish(reply.hdata).unwrap());
    }

    fn send_message(&mut self, circuit: &mut Circuit, cmd: RelayCmd, stream: StreamId, data: &[u8]) {
        let mut body = [0; BODY_LEN];
        encode(cmd, stream, data, &mut self.rng, &mut body);
        let hop = circuit.onion.hops() - 1;
        circuit.onion.encrypt_outbound(hop, &mut body);
        let command = if cmd == RelayCmd::EXTEND2 { Command::RELAY_EARLY } else { Command::RELAY };
        self.send_cell(circuit.circ, command, &body);
    }

    fn next_message(&mut self, circuit: &mut Circuit) -> (usize, RelayCmd, StreamId, Vec<u8>) {
        let (circ, command, mut body) = self.next_cell();
        assert_eq!((circ, command), (circuit.circ, Command::RELAY));
        let (hop, _) = circuit.onion.decrypt_inbound(&mut body).expect("a cell from a hop");
        let message = relay_msg::decode(&body).unwrap();
        (hop, message.cmd, message.stream, message.data.to_vec())
    }

    /// Opens a directory stream to the last hop, sends it `len` bytes, and expects them back; less than a window's worth.
    fn echo(&mut self, circuit: &mut Circuit, len: usize) {
        self.begin(circuit);
        self.bounce(circuit, len);
    }

    fn begin(&mut self, circuit: &mut Circuit) {
        self.send_message(circuit, RelayCmd::BEGIN_DIR, STREAM, b"");
        let last = circuit.onion.hops() - 1;
        let (hop, cmd, at, _) = self.next_message(circuit);
        assert_eq!((hop, cmd, at), (last, RelayCmd::CONNECTED, STREAM));
    }

    fn bounce(&mut self, circuit: &mut Circuit, len: usize) {
        self.send_data(circuit, len);
        self.receive_data(std::slice::from_mut(circuit), len);
    }

    fn send_data(&mut self, circuit: &mut Circuit, len: usize) {
        for chunk in pattern(len).chunks(498) {
            self.send_message(circuit, RelayCmd::DATA, STREAM, chunk);
        }
    }

    /// Waits until `len` bytes of what was sent have come back on each circuit.
    fn receive_data(&mut self, circuits: &mut [Circuit], len: usize) {
        let mut got = vec![Vec::new(); circuits.len()];
        while got.iter().any(|got| got.len() < len) {
            let (circ, command, mut body) = self.next_cell();
            assert_eq!(command, Command::RELAY);
            let at = circuits.iter().position(|circuit| circuit.circ == circ).expect("a circuit of these");
            let (hop, _) = circuits[at].onion.decrypt_inbound(&mut body).expect("a cell from a hop");
            assert_eq!(hop, circuits[at].onion.hops() - 1);
            let message = relay_msg::decode(&body).unwrap();
            match message.cmd {
                RelayCmd::DATA if message.stream == STREAM => got[at].extend_from_slice(message.data),
                RelayCmd::SENDME => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(got.iter().all(|got| *got == pattern(len)), "other bytes came back");
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 241) as u8).collect()
}

struct Circuit {
    circ: CircId,
    onion: ClientOnion,
}

/// The `n`-th circuit id of an initiator.
fn circ(n: u32) -> CircId {
    CircId(0x8000_0000 + n)
}

#[test]
fn circuits_of_one_link_live_on_all_shards() {
    for (shards, versions) in [(1, TlsVersions::Tls12), (3, TlsVersions::Tls13)] {
        let relay = Relay::start(0, shards);
        let mut client = Client::connect(&relay, versions);
        let mut circuits: Vec<_> = (1..=30).map(|n| client.create(circ(n))).collect();
        for circuit in &mut circuits {
            client.echo(circuit, 10_000);
        }
        relay.wait_until("circuits", |shards| shards.iter().map(|(c, _)| c.circuits).sum::<usize>() == 30);
        assert!(relay.counters().iter().all(|(counters, _)| counters.circuits > 0));

        // The end of the link is the end of its circuits, on every shard.
        drop(client);
        relay.wait_until("no circuits", |shards| shards.iter().all(|(c, _)| c.circuits + c.links == 0));
        relay.stop();
    }
}

#[test]
fn a_circuit_goes_on_to_another_relay() {
    let (first, second) = (Relay::start(0, 3), Relay::start(1, 2));
    let mut client = Client::connect(&first, TlsVersions::Both);
    for n in 1..=8 {
        let mut circuit = client.create(circ(n));
        client.extend(&mut circuit, &second);
        client.echo(&mut circuit, 100_000);
    }
    let links = |shards: &[(Counters, IoCounters)]| shards.iter().map(|(c, _)| c.links).sum::<usize>();
    second.wait_until("one link for all circuits", |shards| links(shards) == 1);

    // Its end is heard by the client through the first relay.
    second.stop();
    while client.next_cell().1 != Command::DESTROY {}
    first.stop();
}

/// Between pacing, sleeping, and what leads from one to the other, no cell is forgotten: nothing else would wake these
/// relays.
#[test]
fn cells_at_any_pace_are_sent_on() {
    let (first, second) = (Relay::start(0, 3), Relay::start(1, 2));
    let mut client = Client::connect(&first, TlsVersions::Both);
    let mut extended = |n| {
        let mut circuit = client.create(circ(n));
        client.extend(&mut circuit, &second);
        client.begin(&mut circuit);
        circuit
    };
    let mut circuits: Vec<_> = (1..=8).map(&mut extended).collect();
    for circuit in &mut circuits {
        for pause in [0, 0, 0, 100, 400, 900, 1_500, 2_500, 4_000, 6_000, 9_000, 12_000] {
            std::thread::sleep(Duration::from_micros(pause));
            client.bounce(circuit, 400);
            client.bounce(circuit, 5_000);
        }
    }
    // So much at once that sockets fill up, until the client reads.
    for _ in 0..3 {
        for circuit in &mut circuits {
            client.send_data(circuit, 55_000);
        }
        client.receive_data(&mut circuits, 55_000);
    }
    first.stop();
    second.stop();
}

/// Sends as much through a relay and back as its limits let through in a second or two, and checks that it took as long.
fn takes_its_time(relay: &Relay, rate: Rate) -> Vec<(Counters, IoCounters)> {
    let mut client = Client::connect(relay, TlsVersions::Both);
    let begun = std::time::Instant::now();
    let mut circuits: Vec<_> = (1..=6).map(|n| client.create(circ(n))).collect();
    for circuit in &mut circuits {
        client.begin(circuit);
    }
    for _ in 0..3 {
        for circuit in &mut circuits {
            client.send_data(circuit, 55_000);
        }
        client.receive_data(&mut circuits, 55_000);
    }
    let took = begun.elapsed();
    let counters = relay.counters();
    let bytes: u64 = counters.iter().map(|(c, _)| c.link_bytes_out).sum();
    assert!(bytes > 1_000_000, "{bytes} bytes");
    let least = Duration::from_secs(bytes - rate.burst) / rate.per_second as u32;
    assert!(took >= least * 98 / 100, "{bytes} bytes in {took:?}");
    counters
}

#[test]
fn bandwidth_is_what_was_configured_at_any_number_of_shards() {
    let rate = Rate { per_second: 800_000, burst: 200_000 };
    for (shards, limits) in [
        (1, RateLimits { all: rate, ..RateLimits::default() }),
        (3, RateLimits { relayed: Some(rate), ..RateLimits::default() }),
    ] {
        let relay =
            Relay::with_limits(0, shards, RateLimits { count_private: true, ..limits }, DosLimits::default());
        let counters = takes_its_time(&relay, rate);
        assert!(counters.iter().any(|(_, io)| io.rate_reached[0].times > 0), "{counters:?}");
        relay.stop();
    }
}

#[test]
fn a_client_gets_no_more_than_its_link_may_have() {
    let rate = Rate { per_second: 800_000, burst: 200_000 };
    let per_link = Some(rate);
    let relay = Relay::with_limits(
        0,
        2,
        RateLimits { per_link, count_private: true, ..RateLimits::default() },
        DosLimits::default(),
    );
    let counters = takes_its_time(&relay, rate);
    assert!(counters.iter().all(|(_, io)| io.rate_reached[0].times == 0), "{counters:?}");
    relay.stop();
}

/// What is read from a destination counts as what is read from links, of which there is hardly anything here.
#[test]
fn a_destination_is_read_no_faster_than_the_bandwidth() {
    const LEN: usize = 200_000;
    let rate = Rate { per_second: 200_000, burst: 50_000 };
    let limits = RateLimits { all: rate, count_private: true, ..RateLimits::default() };
    let (guard, relay) = (Relay::start(0, 1), Relay::with_limits(1, 2, limits, DosLimits::default()));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("{}\0", server.local_addr().unwrap());
    let mut client = Client::connect(&guard, TlsVersions::Both);
    let mut circuit = client.create(circ(1));
    client.extend(&mut circuit, &relay);
    let begun = std::time::Instant::now();
    client.send_message(&mut circuit, RelayCmd::BEGIN, STREAM, target.as_bytes());
    let mut destination = server.accept().unwrap().0;
    assert_eq!(client.next_message(&mut circuit).1, RelayCmd::CONNECTED);
    let sender = std::thread::spawn(move || destination.write_all(&pattern(LEN)).map(|()| destination));
    client.receive_data(std::slice::from_mut(&mut circuit), LEN);
    let took = begun.elapsed();
    let least = Duration::from_secs(LEN as u64 - rate.burst) / rate.per_second as u32;
    assert!(took >= least * 98 / 100, "{LEN} bytes in {took:?}");
    let counters = relay.counters();
    assert!(counters.iter().any(|(_, io)| io.rate_reached[0].times > 0), "{counters:?}");
    drop(sender.join().unwrap().unwrap());
    guard.stop();
    relay.stop();
}

/// Before the first cell, there is a debt already.
#[test]
fn tls_handshakes_count_for_the_bandwidth() {
    let rate = Rate { per_second: 1, burst: 1000 };
    let limits = RateLimits { all: rate, count_private: true, ..RateLimits::default() };
    let limited = Relay::with_limits(0, 1, limits, DosLimits::default());
    // A handshake that is never followed by anything: reading waits for the rest of the debt.
    let mut socket = TcpStream::connect(limited.address).unwrap();
    let mut tls = Connector::new(TlsVersions::Both).unwrap().connect(&mut rng(98)).unwrap();
    while tls.is_handshaking() || tls.wants_transmit() {
        while tls.wants_transmit() {
            tls.transmit(&mut socket).unwrap();
        }
        if tls.is_handshaking() {
            let mut buf = [0; 4096];
            let len = socket.read(&mut buf).unwrap();
            tls.open(&buf[..len], &mut Vec::new()).unwrap();
        }
    }
    limited.wait_until("the limit of reading", |counters| counters[0].1.rate_reached[0].times == 1);
    limited.stop();
}

#[test]
fn private_addresses_are_not_limited_unless_asked_for() {
    let slow = Rate { per_second: 1000, burst: 1000 };
    let relay = Relay::with_limits(
        0,
        2,
        RateLimits { all: slow, per_link: Some(slow), ..RateLimits::default() },
        DosLimits::default(),
    );
    let mut client = Client::connect(&relay, TlsVersions::Both);
    let mut circuit = client.create(circ(1));
    client.echo(&mut circuit, 50_000);
    relay.stop();
}

#[test]
fn connections_above_the_limit_of_their_client_are_closed_before_their_handshake() {
    let dos = DosLimits {
        connections: Some(ConnectionLimits {
            concurrent: 1,
            connects: Rate { per_second: 1, burst: 1000 },
            refuse: true,
            period: Duration::from_secs(60),
        }),
        ..DosLimits::default()
    };
    let relay = Relay::with_limits(0, 3, RateLimits::default(), dos);
    let mut first = Client::connect(&relay, TlsVersions::Both);
    let _second = Client::connect(&relay, TlsVersions::Both);
    for _ in 0..20 {
        let mut socket = TcpStream::connect(relay.address).unwrap();
        socket.set_read_timeout(Some(RESPONSE_TIME)).unwrap();
        assert_eq!(socket.read(&mut [0; 100]).unwrap_or(0), 0);
    }
    let refused = |counters: &Counters| counters.dos_refused.get("concurrent_connections").copied();
    relay.wait_until("all are refused", |shards| {
        shards.iter().filter_map(|(counters, _)| refused(counters)).sum::<u64>() == 20
    });
    assert_eq!(relay.counters().iter().map(|(_, io)| io.tls_done).sum::<u64>(), 2);
    let mut circuit = first.create(circ(1));
    first.echo(&mut circuit, 5_000);
    // Whoever goes makes room.
    drop(first);
    relay.wait_until("one link", |shards| shards.iter().map(|(c, _)| c.links).sum::<usize>() == 1);
    Client::connect(&relay, TlsVersions::Both).create(circ(1));
    relay.stop();
}

#[test]
fn an_extend_to_where_nobody_listens_fails() {
    let (first, mut gone) = (Relay::start(0, 2), Relay::start(1, 1));
    gone.address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    let mut client = Client::connect(&first, TlsVersions::Both);
    let mut circuit = client.create(circ(1));
    let (_, hdata) = ntor::Client::start(&mut client.rng, &gone.identity.rsa_id, &gone.onion_key);
    let SocketAddr::V4(address) = gone.address else { unreachable!() };
    let specs = LinkSpecs { ipv4: Some(address), ipv6: None, rsa_id: gone.identity.rsa_id, ed_id: None };
    let mut data = Vec::new();
    Extend2 { specs, htype: 2, hdata: &hdata }.write(&mut data);
    client.send_message(&mut circuit, RelayCmd::EXTEND2, StreamId(0), &data);
    let (circ, command, _) = client.next_cell();
    assert_eq!((circ, command), (circuit.circ, Command::DESTROY));
    first.stop();
    gone.stop();
}

#[test]
fn connections_that_speak_no_tls_are_closed() {
    use std::io::Write as _;
    let relay = Relay::start(0, 1);
    let mut socket = TcpStream::connect(relay.address).unwrap();
    socket.set_read_timeout(Some(RESPONSE_TIME)).unwrap();
    socket.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    // An alert, then the end.
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&21));
    relay.wait_until("a failed handshake", |shards| shards[0].1.tls_failed.iter().sum::<u64>() == 1);
    relay.stop();
}

#[test]
fn a_draining_relay_accepts_nothing_and_keeps_what_it_has() {
    let relay = Relay::start(0, 2);
    let mut client = Client::connect(&relay, TlsVersions::Both);
    let mut circuit = client.create(circ(1));
    relay.shards.drain();
    let start = std::time::Instant::now();
    while TcpStream::connect(relay.address).is_ok() {
        assert!(start.elapsed() < RESPONSE_TIME, "it still listens");
    }
    client.echo(&mut circuit, 5_000);
    relay.stop();
    // Everything that was queued, then the end.
    while client.read() {}
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let relay = Relay::start(0, 1);
    let idle: Vec<_> =
        (0..limits::TLS_HANDSHAKES + 20).map(|_| TcpStream::connect(relay.address).unwrap()).collect();
    Client::connect(&relay, TlsVersions::Both).create(circ(1));
    relay.wait_until("the oldest are given up", |shards| shards[0].1.tls_shed >= 20);
    drop(idle);
    relay.stop();
}
