//! Nothing of what applications ask for leaves this host but through relays: every packet of a network is looked at,
//! while names are looked up and pages are fetched.
//!
//! A program by itself, since it moves into a network namespace, where there is nobody else. There is a way out of it,
//! which leads nowhere: who takes it is seen.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use onionring_loadgen::net::{Kind, Network, NetworkSpec, NodeSpec, Role, netns};
use onionring_loadgen::traffic::Pattern;
use onionring_proxy::control::{self, Report, Request};
use socket2::{Domain, Protocol, Socket, Type};

/// How long what must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is fetched: so many bytes of the pattern of this seed.
const BYTES: usize = 100_000;
const SEED: u64 = 5;

/// Nobody's name server: whatever goes there is a leak.
const ELSEWHERE: &str = "192.0.2.53:53";

#[test]
fn nothing_leaves_but_through_relays() {
    if !netns::inside() && !may_enter() {
        eprintln!("skipped: this needs root, or a kernel that lets users make network namespaces");
        return;
    }
    netns::enter().unwrap();
    run("ip", &["route", "replace", "default", "dev", "lo"]);
    let client = NodeSpec::new(Role::Client, Kind::ONIONRING).named("client").torrc("DNSPort 127.0.0.1:auto");
    // Exits of ours ask resolvers from their own addresses, as they connect. Stock ones do not.
    let spec = NetworkSpec::new().add(Role::Authority, Kind::TOR, 3).add(Role::Relay, Kind::ONIONRING, 3);
    let spec = spec.add(Role::Exit, Kind::ONIONRING, 2).node(client).shards(1);
    let network = spec.boot().unwrap_or_else(|error| panic!("{error}"));

    let watch = Watch::start();
    use_everything(&network);
    // Seen like everything else, and after it.
    let elsewhere: SocketAddr = ELSEWHERE.parse().unwrap();
    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"where is host.test?", elsewhere).unwrap();
    let is_over = || watch.seen().iter().any(|packet| packet.to == elsewhere);
    network.wait("the last packet", PATIENCE, is_over).unwrap_or_else(|error| panic!("{error}"));

    let allowed = Allowed::of(&network);
    let mut seen = watch.seen();
    let questions = |packet: &&Packet| packet.to == allowed.resolver;
    assert!(seen.iter().filter(questions).count() > 0, "exits ask the resolver");
    assert!(seen.iter().any(|packet| packet.to == allowed.server), "exits connect to the server");
    seen.retain(|packet| !allowed.has(packet));
    seen.dedup();
    assert!(seen.iter().all(|packet| packet.to == elsewhere), "leaks: {seen:#?}");
    assert!(!seen.is_empty(), "this one leak is found");
}

fn may_enter() -> bool {
    let words = ["--net", "--user", "--map-root-user", "true"];
    rustix::process::geteuid().is_root()
        || Command::new("unshare").args(words).status().is_ok_and(|status| status.success())
}

fn run(program: &str, words: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(words).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Names and pages, in every way in which applications leave names to the proxy.
fn use_everything(network: &Network) {
    let client = network.node("client");
    let address = client.socks_addr().unwrap();
    let (host, port) = network.target();
    let mut expected = vec![0; BYTES];
    Pattern::new(SEED).fill(&mut expected);
    let url = format!("http://{host}:{port}/{BYTES}?seed={SEED}");
    let curl = ["--silent", "--show-error", "--fail", "--max-time", "60", &*url];
    let through = ["--socks5-hostname", &*address.to_string()].map(str::to_owned);
    let fetched = run("curl", &[&curl[..], &[&through[0], &through[1]]].concat());
    assert!(fetched == expected, "other bytes");
    let (ip, socks_port) = (address.ip().to_string(), address.port().to_string());
    let fetched = run("torsocks", &[&["--address", &ip, "--port", &socks_port, "curl"], &curl[..]].concat());
    assert!(fetched == expected, "other bytes");

    let socks = client.socks().unwrap();
    assert_eq!(socks.resolve(host).unwrap(), network.server().address().ip());
    socks.resolve("nowhere.test").unwrap_err();
    for name in ["sink.test.", "nowhere.test."] {
        ask(dns_port(network), name);
    }
    let asked = network.dns().questions();
    for name in [host, "nowhere.test"] {
        assert!(asked.iter().any(|(question, _)| question == name), "{name}: {asked:?}");
    }
}

fn dns_port(network: &Network) -> SocketAddr {
    let report = control::ask(network.node("client").dir(), Request::Status).unwrap();
    Report::parse(&report).ports_of("DNSPort").next().unwrap().parse().unwrap()
}

fn ask(dns: SocketAddr, name: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    socket.send_to(&message.to_vec().unwrap(), dns).unwrap();
    socket.recv(&mut [0; 512]).unwrap();
}

/// What may be seen.
struct Allowed {
    nodes: Vec<IpAddr>,
    exits: Vec<IpAddr>,
    server: SocketAddr,
    resolver: SocketAddr,
    dns_port: SocketAddr,
}

impl Allowed {
    fn of(network: &Network) -> Allowed {
        let nodes = || network.nodes().iter();
        let address = |node: &onionring_loadgen::net::Node| IpAddr::from(node.address());
        Allowed {
            nodes: nodes().map(address).collect(),
            exits: nodes().filter(|node| node.role() == Role::Exit).map(address).collect(),
            server: network.server().address(),
            resolver: network.dns().address(),
            dns_port: dns_port(network),
        }
    }

    /// Connections lead to nodes, and from exits to the server. Datagrams go between exits and the resolver, and between
    /// whoever asks the proxy and its DNSPort.
    fn has(&self, packet: &Packet) -> bool {
        let Packet { is_tcp, from, to } = packet;
        let is_exit = |address: &SocketAddr| self.exits.contains(&address.ip());
        match is_tcp {
            true if *to == self.server => is_exit(from),
            true => self.nodes.contains(&to.ip()),
            false if *to == self.resolver => is_exit(from),
            false if *from == self.resolver => is_exit(to),
            false => [from, to].contains(&&self.dns_port),
        }
    }
}

/// The beginning of a TCP connection, or a UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    is_tcp: bool,
    from: SocketAddr,
    to: SocketAddr,
}

/// Sees all packets, as long as the program runs.
struct Watch(Arc<Mutex<Vec<Packet>>>);

/// All protocols (`ETH_P_ALL`), in network byte order.
const EVERYTHING: i32 = (3u16.to_be()) as i32;
/// Bytes that may wait to be looked at.
const UNSEEN: usize = 64 << 20;

impl Watch {
    fn start() -> Watch {
        // Without the header of the link: packets begin with that of IP.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(EVERYTHING))).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, UNSEEN).unwrap();
        let seen = Arc::<Mutex<Vec<Packet>>>::default();
        let list = Arc::clone(&seen);
        thread::spawn(move || {
            loop {
                let mut buffer = [0; 128];
                let length = (&socket).read(&mut buffer).unwrap();
                list.lock().unwrap().extend(Packet::parse(&buffer[..length]));
            }
        });
        Watch(seen)
    }

    fn seen(&self) -> Vec<Packet> {
        self.0.lock().unwrap().clone()
    }
}

impl Packet {
    /// Reads an IP packet; `None` if it is neither TCP's first nor UDP.
    fn parse(bytes: &[u8]) -> Option<Packet> {
        let array = |at: usize| bytes.get(at..at + 16).and_then(|part| <[u8; 16]>::try_from(part).ok());
        let v4 =
            |at: usize| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?)));
        let v6 = |at| Some(IpAddr::from(Ipv6Addr::from(array(at)?)));
        let (protocol, from, to, header) = match bytes.first()? >> 4 {
            4 => (bytes.get(9)?, v4(12)?, v4(16)?, usize::from(bytes[0] & 15) * 4),
            6 => (bytes.get(6)?, v6(8)?, v6(24)?, 40),
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (from, to) = ((from, port(header)?).into(), (to, port(header + 2)?).into());
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        // SYN without ACK.
        let begins = || bytes.get(header + 13).is_some_and(|flags| flags & 0x12 == 0x02);
        match *protocol {
            TCP if begins() => Some(Packet { is_tcp: true, from, to }),
            UDP => Some(Packet { is_tcp: false, from, to }),
            _ => None,
        }
    }
}
