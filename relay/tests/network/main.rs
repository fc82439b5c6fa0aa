//! Relays of this build among stock tor: private networks, booted for each test by `onionring_loadgen`.
//!
//! - `mix`: onionring and tor in every position of a path, over every link protocol and version of TLS;
//! - `life`: circuits that are torn down, relays that die and come back, and nothing that stays behind;
//! - `words`: what relays say on the wire, asked by a client of the tests' own (`client`);
//! - `operators`: what a real Prometheus and a real browser make of the metrics port;
//! - `standing`: a relay that tests itself, publishes, serves the directory, and is reloaded and drained;
//! - `votes`: what stock authorities make of relays, votes and each other, made again.

mod client;
mod life;
mod mix;
mod operators;
mod standing;
mod votes;
mod words;

use std::time::Duration;

use onionring_loadgen::net::{Kind, Network, NetworkSpec, Node, NodeSpec, Role, directory};
use onionring_node::metrics::page::Page;
use onionring_proto::netdoc::consensus::UnverifiedConsensus;

const MIB: u64 = 1 << 20;

/// How long what must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The relays of most networks here: their first letter says what they run, the rest where they stand in a path.
const RELAYS: [&str; 6] = ["oGuard", "oMiddle", "oExit", "tGuard", "tMiddle", "tExit"];

/// What the relay called `name` is.
fn relay(name: &str) -> NodeSpec {
    let kind = if name.starts_with('o') { Kind::ONIONRING } else { Kind::TOR };
    let role = if name.ends_with("Exit") { Role::Exit } else { Role::Relay };
    NodeSpec::new(role, kind).named(name)
}

fn boot(spec: NetworkSpec) -> Network {
    spec.boot().unwrap_or_else(|error| panic!("{error}"))
}

/// The sum of a metric of a relay over all labels but `labels`.
fn metric(node: &Node, name: &str, labels: &[(&str, &str)]) -> f64 {
    let address = node.metrics_addr().expect("relays have a metrics port");
    let page = directory::get(address, "/metrics").unwrap_or_else(|error| panic!("{node:?}: {error}"));
    Page::parse(&String::from_utf8_lossy(&page)).sum(name, labels)
}

/// Waits until `condition` holds.
fn wait(network: &Network, what: &str, condition: impl FnMut() -> bool) {
    network.wait(what, PATIENCE, condition).unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until every relay knows a consensus in which all of them are.
fn wait_informed(network: &Network) {
    let relays = || network.nodes().iter().filter(|node| node.role() != Role::Client);
    // The authorities have one, or the network would not be up.
    let consensus = network.consensus().expect("a consensus");
    assert!(relays().all(|node| consensus.running(node.fingerprint()).is_some()));
    let since =
        UnverifiedConsensus::parse(&consensus.text).expect("a good consensus").peek().lifetime.valid_after;
    let knows_all = |node: &Node| match node.control() {
        Ok(mut control) => {
            relays().all(|other| control.get_info(&format!("ns/id/{}", other.fingerprint())).is_ok())
        }
        Err(_) => {
            let part = if node.role() == Role::Authority { "dirauth_consensus" } else { "consensus" };
            metric(node, &format!("onionring_{part}_valid_after_timestamp_seconds"), &[]) >= since.0 as f64
        }
    };
    wait(network, "relays to know the consensus", || relays().all(knows_all));
}

/// Fails if an onionring relay has warned of anything but what is `expected`, what it lacks, and that the tests run as
/// root.
fn assert_no_warnings_but(network: &Network, expected: &[&str]) {
    let usual = ["the consensus requires protocols of relays", "This relay runs as root"];
    let expected = [expected, &usual].concat();
    let is_ours = |node: &&Node| *node.kind() == Kind::ONIONRING && node.role() != Role::Authority;
    for node in network.nodes().iter().filter(is_ours) {
        let mut warnings = node.warnings();
        warnings.retain(|line| !expected.iter().any(|words| line.contains(words)));
        assert_eq!(warnings, [""; 0], "{node:?}");
    }
}

fn assert_no_warnings(network: &Network) {
    assert_no_warnings_but(network, &[]);
}
