//! The proxy of this build in whole networks, booted for each test by `onionring_loadgen`.
//!
//! - `mix`: through networks of stock tor, of onionring, and of both: bytes, streams, names, and what is refused;
//! - `applications`: what programs that know nothing of onionring do with its ports, and the proxy's own commands;
//! - `life`: exits and guards that die, consensuses that follow each other, and a start without authorities;
//! - `exits`: what they refuse, and that it is remembered;
//! - `unusual`: what is off unless somebody asks for it: longer paths, circuits that are cut, streams that leave midway;
//! - `halves`: and streams whose directions end one by one.

mod applications;
mod exits;
mod halves;
mod life;
mod mix;
mod unusual;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use onionring_loadgen::net::{Kind, Network, NetworkSpec, Node, NodeSpec, Role};
use onionring_loadgen::traffic::{Socks, SocksError};
use onionring_proxy::control::{self, Report, Request};

const MIB: u64 = 1 << 20;

/// How long what must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a network consists of, the client aside, which is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    Stock,
    Onionring,
    Both,
}

/// The least network in which a relay or an exit may fail: three authorities, three relays, two exits, and one line more
/// of torrc for the exits.
fn spec(mix: Mix, client: NodeSpec) -> NetworkSpec {
    let kinds = match mix {
        Mix::Stock => [Kind::TOR, Kind::TOR],
        Mix::Onionring => [Kind::ONIONRING, Kind::ONIONRING],
        Mix::Both => [Kind::ONIONRING, Kind::TOR],
    };
    let [one, other] = kinds;
    NetworkSpec::new()
        .add(Role::Authority, other.clone(), 2)
        .add(Role::Authority, one.clone(), 1)
        .add(Role::Relay, one.clone(), 2)
        .add(Role::Relay, other.clone(), 1)
        .add(Role::Exit, one, 1)
        .add(Role::Exit, other, 1)
        .node(client)
        .shards(1)
}

/// The client that most networks have.
fn client() -> NodeSpec {
    NodeSpec::new(Role::Client, Kind::ONIONRING).named("client")
}

fn boot(spec: NetworkSpec) -> Network {
    spec.boot().unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until `condition` holds.
fn wait(network: &Network, what: &str, condition: impl FnMut() -> bool) {
    network.wait(what, PATIENCE, condition).unwrap_or_else(|error| panic!("{error}"));
}

/// How the proxy is, by its own account.
fn report(client: &Node) -> Report {
    Report::parse(&control::ask(client.dir(), Request::Status).unwrap())
}

/// A circuit of the proxy's.
#[derive(Clone, Debug)]
struct Circuit {
    number: u64,
    streams: usize,
    path: Vec<String>,
}

/// All circuits.
fn circuits(client: &Node) -> Vec<Circuit> {
    let text = control::ask(client.dir(), Request::Circuits).unwrap();
    let read = |line: &str| {
        let [number, _, streams, path] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        Circuit {
            number: number.parse().unwrap(),
            streams: streams.parse().unwrap(),
            path: path.split(',').map(str::to_owned).collect(),
        }
    };
    text.lines().map(read).collect()
}

/// Opens a stream, and finds the circuit that carries it. Others may be there, but none may be opened meanwhile.
fn opened(network: &Network, socks: &Socks) -> (Echo, Circuit) {
    let client = network.node("client");
    let before = circuits(client);
    let echo = Echo::open(network, socks).unwrap();
    let streams_before = |number| {
        before.iter().find(|circuit| circuit.number == number).map_or(0, |circuit: &Circuit| circuit.streams)
    };
    let mut circuits = circuits(client);
    circuits.retain(|circuit| circuit.streams > streams_before(circuit.number));
    assert_eq!(circuits.len(), 1, "{circuits:?}");
    (echo, circuits.remove(0))
}

/// A stream on which the server sends back what it is sent, as a person at a far shell sees it.
struct Echo(TcpStream);

impl Echo {
    fn open(network: &Network, socks: &Socks) -> Result<Echo, SocksError> {
        let (host, port) = network.target();
        let mut stream = socks.connect(host, port)?;
        stream.write_all(b"ECHO\n")?;
        Ok(Echo(stream))
    }

    /// Sends it, and expects it back.
    fn say(&mut self, words: &[u8]) {
        self.0.write_all(words).unwrap();
        let mut heard = vec![0; words.len()];
        self.0.read_exact(&mut heard).unwrap();
        assert_eq!(heard, words);
    }
}
