//! Networks of all kinds carry the same.

use std::net::IpAddr;

use onionring_loadgen::net::dns::Answer;
use onionring_loadgen::net::{Kind, Network, Node, Role};
use onionring_loadgen::traffic::{Order, Socks, SocksError, SocksStatus, parallel};

use super::{Echo, MIB, Mix, boot, client, spec};

/// A port that the exits of these networks refuse.
const REFUSED_PORT: u16 = 9999;

/// Streams at a time.
const STREAMS: usize = 500;

/// Messages of a session at a far shell.
const MESSAGES: usize = 300;

/// What nodes warn of in such a network, whatever the proxy does.
const USUAL: [&str; 12] = [
    // Of a testing network, its torrc, and the tests' user.
    "You have used DirAuthority",
    "TestingTorNetwork is set",
    "Your log may contain sensitive information",
    "You are running Tor as root",
    "runs as root",
    // Of what onionring lacks for the public network.
    "the consensus requires protocols of relays",
    "the network recommends that clients know what this version does not",
    // While there is no consensus, or one with few relays.
    "status code 404",
    "No available nodes when trying to choose node",
    "Failed to choose an exit server",
    "Could not find a node that matches the configured _HSLayer2Nodes",
    // Of the addresses that this test asks for.
    "An application gives an address instead of a name",
];

#[test]
fn stock() {
    works(Mix::Stock, [8, 2]);
}

#[test]
fn onionring() {
    works(Mix::Onionring, [8, 2]);
}

#[test]
fn both() {
    works(Mix::Both, [64, 64]);
}

#[test]
#[ignore = "takes minutes: `make soak`"]
fn all_at_length() {
    for mix in [Mix::Stock, Mix::Onionring, Mix::Both] {
        works(mix, [64, 64]);
    }
}

fn works(mix: Mix, [down, up]: [u64; 2]) {
    let policy = format!("ExitPolicy reject *:{REFUSED_PORT}, accept *:*");
    let network = boot(spec(mix, client()).torrc_of(Role::Exit, &policy));
    network.download("client", down * MIB).unwrap();
    network.upload("client", up * MIB).unwrap();
    let socks = network.node("client").socks().unwrap();
    many_at_once(&network, &socks);
    talks(&network, &socks);
    looks_up(&network, &socks);
    says_what_is_refused(&network, &socks, mix);
    assert_eq!(complaints(&network), [""; 0]);
}

fn many_at_once(network: &Network, socks: &Socks) {
    let order =
        |n: usize| Order { socks, target: network.target(), bytes: 20_000 + n as u64, seed: n as u64 };
    let transfers = parallel(STREAMS, |n| match n % 4 {
        0 => order(n).upload(&mut |_| Ok(())),
        _ => order(n).download(&mut |_| Ok(())),
    });
    assert_eq!(transfers.unwrap().len(), STREAMS);
}

/// Letter by letter, word by word, and a screen now and then.
fn talks(network: &Network, socks: &Socks) {
    let mut echo = Echo::open(network, socks).unwrap();
    for n in 0..MESSAGES {
        let length = match n % 50 {
            0 => 4000,
            _ => 1 + n % 17,
        };
        let words: Vec<u8> = (0..length).map(|at| (n * 7 + at) as u8).collect();
        echo.say(&words);
    }
}

fn looks_up(network: &Network, socks: &Socks) {
    let address: IpAddr = "203.0.113.7".parse().unwrap();
    network.dns().set("host.test", Answer::Addresses(vec![address]));
    assert_eq!(socks.resolve("host.test").unwrap(), address);
    assert_eq!(socks.resolve("sink.test").unwrap(), network.server().address().ip());
    assert_eq!(socks.resolve_ptr(address).unwrap(), "host.test");
    assert_eq!(refusal(socks.resolve("nowhere.test").map(drop)), SocksStatus(4));
    assert_eq!(refusal(socks.resolve_ptr("203.0.113.8".parse().unwrap()).map(drop)), SocksStatus(4));
}

fn says_what_is_refused(network: &Network, socks: &Socks, mix: Mix) {
    let of = |host: &str, port| refusal(socks.connect(host, port).map(drop));
    let nobody = network.spare_address(0).to_string();
    // On loopback, where the refusal comes at once, stock exits say only that it failed. One of ours is asked after them.
    let refused = if mix == Mix::Stock { 1 } else { 5 };
    assert_eq!(of(&nobody, 1), SocksStatus(refused));
    assert_eq!(of("nowhere.test", 80), SocksStatus(4));
    assert_eq!(of("sink.test", REFUSED_PORT), SocksStatus(2));
    assert_eq!(of(&nobody, REFUSED_PORT), SocksStatus(2));
}

/// The status with which something was refused, as it must have been.
fn refusal(outcome: Result<(), SocksError>) -> SocksStatus {
    match outcome {
        Err(SocksError::Refused(status)) => status,
        other => panic!("{other:?} is no refusal"),
    }
}

/// Warnings of all but authorities, whose words are about votes.
fn complaints(network: &Network) -> Vec<String> {
    let of = |node: &Node| {
        let is_usual = |line: &String| USUAL.iter().any(|words| line.contains(words));
        let unusual = node.warnings().into_iter().filter(|line| !is_usual(line));
        unusual.map(|line| format!("{node:?}: {line}")).collect::<Vec<_>>()
    };
    let nodes = network.nodes().iter().filter(|node| node.role() != Role::Authority);
    assert_eq!(*network.node("client").kind(), Kind::ONIONRING);
    nodes.flat_map(of).collect()
}
