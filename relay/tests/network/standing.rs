//! A relay's standing in the network: it tests itself, is published and listed, serves the directory, follows its torrc
//! and goes in order.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use onionring_loadgen::net::{Kind, Network, NetworkSpec, NodeSpec, Paths, Role, directory};
use onionring_loadgen::traffic::Order;
use onionring_proto::origin::HandshakeKind;
use rustix::process::Signal;

use super::client::{Client, hop};
use super::{MIB, PATIENCE, assert_no_warnings_but, boot, metric, relay, wait, wait_informed};

fn network() -> Network {
    let client = NodeSpec::new(Role::Client, Kind::TOR).named("client");
    let spec = NetworkSpec::new().add(Role::Authority, Kind::TOR, 3).node(client);
    let tested = |name| relay(name).torrc("AssumeReachable 0").torrc("ShutdownWaitLength 60").dir_port();
    boot(spec.node(tested("oGuard")).node(tested("oExit")).node(relay("tMiddle")).shards(2))
}

#[test]
fn a_relay_finds_its_place_and_leaves_it() {
    let network = network();
    wait_informed(&network);
    for name in ["oGuard", "oExit"] {
        let node = network.node(name);
        assert!(node.log().contains("others reach the ORPort"), "{name} published without a test");
        assert_eq!(metric(node, "onionring_reachable", &[("family", "ipv4")]), 1.0);
    }
    serves_what_the_authorities_have(&network);
    follows_its_torrc(&network);
    drains(&network);
    assert_no_warnings_but(&network, &["NoSuchOption: no such option", "the configuration has errors"]);
}

fn serves_what_the_authorities_have(network: &Network) {
    let node = network.node("oGuard");
    let dir_port = node.dir_addr().unwrap();
    let fingerprint = network.node("tMiddle").fingerprint();
    let paths = [
        "/tor/keys/all".to_owned(),
        format!("/tor/server/fp/{fingerprint}"),
        format!("/tor/extra/fp/{fingerprint}"),
    ];
    // In any order of documents.
    let lines = |answer: std::io::Result<Vec<u8>>| {
        let text = String::from_utf8(answer.ok()?).ok()?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        Some(lines)
    };
    for path in &paths {
        wait(network, path, || {
            let ours = lines(directory::get(dir_port, path));
            ours.is_some() && ours == lines(network.document(path))
        });
    }
    for flavour in ["consensus", "consensus-microdesc"] {
        let path = format!("/tor/status-vote/current/{flavour}");
        wait(network, &path, || {
            let ours = directory::get(dir_port, &path).ok();
            ours.is_some() && ours == network.document(&path).ok()
        });
        // The same over a circuit.
        let mut client = Client::connect(&hop(network, "oGuard", HandshakeKind::NtorV3));
        wait(network, &path, || {
            let answer = client.ask_directory(0, &path);
            let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.as_bytes().to_vec());
            body.is_some() && body == network.document(&path).ok()
        });
    }
    wait(network, "the answers to be counted", || {
        metric(node, "onionring_directory_requests_total", &[("status", "200")]) >= 2.0
    });
}

fn follows_its_torrc(network: &Network) {
    let node = network.node("oExit");
    let torrc = node.dir().join("torrc");
    let before = fs::read_to_string(&torrc).unwrap();
    let after = before
        .lines()
        .map(|line| match line.split_once(' ') {
            Some(("ContactInfo", _)) => "ContactInfo somebody else",
            Some(("ExitPolicy", _)) => "ExitPolicy reject *:25, accept *:*",
            _ => line,
        })
        .chain(["RelayBandwidthRate 3 MB", "RelayBandwidthBurst 4 MB"])
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    assert_ne!(before, after);
    // First a file that must not be taken.
    fs::write(&torrc, format!("{after}NoSuchOption 1\n")).unwrap();
    node.signal(Signal::HUP).unwrap();
    wait(network, "the refusal", || node.log().contains("NoSuchOption"));
    fs::write(&torrc, after).unwrap();
    node.signal(Signal::HUP).unwrap();
    let path = format!("/tor/server/fp/{}", node.fingerprint());
    wait(network, "a new descriptor", || {
        let text = String::from_utf8(network.document(&path).unwrap()).unwrap();
        text.contains("\ncontact somebody else\n")
            && text.contains("\nreject *:25\naccept *:*\n")
            && text.contains(&format!("\nbandwidth {} {} ", 3 * MIB, 4 * MIB))
    });
    assert!(node.pid().is_some());
}

/// SIGTERM lets a transfer come to its end; the relay takes no circuit meanwhile, and ends with success.
fn drains(network: &Network) {
    let node = network.node("oExit");
    let paths = Paths::of(network.node("client")).unwrap();
    let hops = ["oGuard", "tMiddle", "oExit"].map(|name| network.node(name));
    let path = paths.build(&hops).unwrap();
    let socks = path.socks();
    let order = Order { socks: &socks, target: network.target(), bytes: 24 * MIB, seed: 9 };
    let (begun, flowing) = std::sync::mpsc::channel();
    let start = Instant::now();
    thread::scope(|scope| {
        let transfer = scope.spawn(move || {
            order.download(&mut |_| {
                // Only the first is waited for.
                let _ = begun.send(());
                Ok(())
            })
        });
        flowing.recv_timeout(PATIENCE).expect("the download flows");
        node.signal(Signal::TERM).unwrap();
        wait(network, "the drain", || node.log().contains("circuits are still open"));
        assert!(paths.build(&hops).is_err(), "no new circuit is taken");
        wait(network, "the bandwidth to be used up", || {
            metric(node, "onionring_rate_limit_write_reached_total", &[]) > 0.0
        });
        transfer.join().unwrap().unwrap();
        // As the torrc has it by now: 3 MB a second, and 4 at once.
        let least = Duration::from_secs(24 - 4) / 3;
        assert!(start.elapsed() > least, "{:?}", start.elapsed());
    });
    drop(path);
    drop(paths);
    wait(network, "the end", || node.exited().unwrap().is_some());
    assert!(node.exited().unwrap().unwrap().success());
}
