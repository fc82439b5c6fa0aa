//! Nothing of what applications ask for leaves this host but through relays: every packet of a network is looked at,
//! while names are looked up and pages are fetched.
//!
//! A program by itself, since it moves into a network namespace, where there is nobody else. There is a way out of it,
//! which leads nowhere: who takes it is seen.

mod watch;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use onionring_loadgen::net::{Kind, Network, NetworkSpec, NodeSpec, Role, netns};
use onionring_loadgen::traffic::Pattern;
use onionring_proxy::control::{self, Report, Request};
use watch::{Packet, Watch, may_enter};

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
