//! What relays say on the wire, in the positions that deployed clients rarely use.

use std::net::IpAddr;

use onionring_loadgen::net::{Kind, Network, NetworkSpec, Role};
use onionring_proto::origin::{HandshakeKind, HopTarget};
use onionring_proto::relay_msg::{EndReason, Host};

use super::client::{Client, hop};
use super::{RELAYS, assert_no_warnings, boot, relay, wait, wait_informed};

/// A port that the exits of these networks refuse.
const REFUSED_PORT: u16 = 9999;

fn network() -> Network {
    let spec = NetworkSpec::new().add(Role::Authority, Kind::TOR, 3);
    let policy = format!("ExitPolicy reject *:{REFUSED_PORT}, accept *:*");
    let spec = RELAYS.iter().fold(spec, |spec, name| match name.ends_with("Exit") {
        true => spec.node(relay(name).torrc(&policy)),
        false => spec.node(relay(name)),
    });
    let network = boot(spec.shards(2));
    wait_informed(&network);
    network
}

#[test]
fn truncated_circuits_go_on_elsewhere() {
    let network = network();
    let hops: Vec<HopTarget> = RELAYS.iter().map(|name| hop(&network, name, HandshakeKind::NtorV3)).collect();
    let [o_guard, o_middle, o_exit, t_guard, t_middle, t_exit] = hops.as_slice() else {
        panic!("six relays")
    };
    let speaks = |client: &mut Client, at: usize, who: &str| {
        let answer = client.ask_directory(at, "/tor/server/authority");
        assert!(answer.contains(&format!("\r\n\r\nrouter {who}")), "{at}: {answer}");
        // Every relay serves the consensus, a tor some time after it has it.
        wait(&network, "the consensus", || {
            let answer = client.ask_directory(at, "/tor/status-vote/current/consensus-microdesc");
            answer.starts_with("HTTP/1.0 200 ")
        });
    };

    // Ours cuts what leads to a tor, and what leads to one of ours.
    let mut client = Client::over(&[o_guard, t_middle, o_exit]);
    for at in 0..3 {
        speaks(&mut client, at, "");
    }
    client.truncate(0);
    client.extend(o_middle);
    client.extend(t_exit);
    client.truncate(1);
    client.extend(o_exit);
    speaks(&mut client, 2, "oExit");
    // Cutting where nothing follows changes nothing.
    client.truncate(2);
    speaks(&mut client, 0, "oGuard");

    // A tor cuts what leads to ours.
    let mut client = Client::over(&[t_guard, o_middle, o_exit]);
    client.truncate(0);
    client.extend(o_exit);
    speaks(&mut client, 1, "oExit");
    client.truncate(1);
    client.extend(o_middle);
    speaks(&mut client, 2, "oMiddle");
    assert_no_warnings(&network);
}

#[test]
fn exits_refuse_in_the_words_of_tor() {
    let network = network();
    let reasons = |exit: &str, handshake| {
        let hops = ["oGuard", "tMiddle", exit].map(|name| hop(&network, name, handshake));
        let mut client = Client::over(&[&hops[0], &hops[1], &hops[2]]);
        let nobody: IpAddr = network.spare_address(0);
        let server = network.server().address();
        [
            (Host::Addr(nobody), 1),
            (Host::Addr(server.ip()), REFUSED_PORT),
            (Host::Name("sink.test"), REFUSED_PORT),
            (Host::Name("nowhere.test"), 80),
        ]
        .map(|(host, port)| client.begin(2, host, port).expect_err(&format!("{exit} to {host}:{port}")))
    };
    // Back into the network. Now and then a tor that knows the relay lets that pass at first; why is not known.
    let back = |exit: &str| {
        let hops = ["oGuard", "tMiddle", exit].map(|name| hop(&network, name, HandshakeKind::Ntor));
        let mut client = Client::over(&[&hops[0], &hops[1], &hops[2]]);
        let relay = network.node("tGuard").or_addr().unwrap();
        let mut refused = None;
        wait(&network, "the way back to be refused", || {
            refused = client.begin(2, Host::Addr(relay.ip()), relay.port()).err();
            refused.is_some()
        });
        refused
    };
    let [ours, tors] = ["oExit", "tExit"].map(|exit| reasons(exit, HandshakeKind::Ntor));
    // On loopback, where the refusal comes at once, tor says MISC.
    assert_eq!(ours[0], EndReason::ConnectRefused);
    assert_eq!(ours[1..], tors[1..]);
    assert_eq!(ours[1..], [EndReason::ExitPolicy, EndReason::ExitPolicy, EndReason::ResolveFailed]);
    assert_eq!(back("oExit"), back("tExit"));

    // Nobody exits from the first hop on.
    for first in ["oGuard", "oExit"] {
        let mut client = Client::connect(&hop(&network, first, HandshakeKind::NtorV3));
        let server = network.server().address();
        client.begin(0, Host::Addr(server.ip()), server.port()).expect_err("refused");
    }
}
