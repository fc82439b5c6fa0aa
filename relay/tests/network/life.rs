//! What ends: circuits from either end and from the middle, relays that die and come back, and what stays behind, which
//! is nothing.

use std::thread;
use std::time::Instant;

use onionring_loadgen::net::control::Circuit;
use onionring_loadgen::net::{Kind, Network, NetworkSpec, Node, NodeSpec, Paths, Role};
use onionring_loadgen::traffic::{Order, TrafficError, Transfer, parallel};
use onionring_proto::cell::DestroyReason;
use onionring_proto::origin::{CloseReason, HandshakeKind};
use onionring_relay::engine::cross::Batch;
use onionring_relay::limits;

use super::client::{Client, hop};
use super::{MIB, PATIENCE, RELAYS, boot, metric, relay, wait};

/// More than passes before the test cuts it off.
const ENDLESS: u64 = 1 << 40;

/// Circuits built and closed in one round.
const CIRCUITS: usize = 40;

/// Memory that a relay may hold beyond what it held before, in bytes: what directory documents and the diffs
/// between them take, which become more at first, and the batches between its two shards that a burst has needed and the
/// next one finds. Circuits, streams and links are counted one by one.
const MEMORY_SLACK: u64 = (12 << 20) + 2 * (limits::CROSSING_BACKLOG * Batch::BYTES) as u64;

/// Has the C library return what is freed. By itself it keeps buffers of the compression that every consensus brings, by
/// turns more or less than a leak would be.
const RETURN_FREED: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")];

fn network(relays: &[&str]) -> Network {
    let client = NodeSpec::new(Role::Client, Kind::TOR).named("client");
    // An authority would build circuits as clients do.
    let spec = NetworkSpec::new()
        .add(Role::Authority, Kind::TOR, 3)
        .torrc_of(Role::Authority, "__DisablePredictedCircuits 1")
        .node(client);
    let frugal = |name| RETURN_FREED.iter().fold(relay(name), |node, (name, value)| node.env(name, value));
    boot(relays.iter().fold(spec, |spec, name| spec.node(frugal(name))).shards(2))
}

fn ours(network: &Network) -> impl Iterator<Item = &Node> {
    network.nodes().iter().filter(|node| *node.kind() == Kind::ONIONRING && node.pid().is_some())
}

/// What the relays still hold of circuits.
fn leftovers(network: &Network) -> Vec<String> {
    let names =
        ["circuits", "streams", "queued_cells", "exit_connections"].map(|name| format!("onionring_{name}"));
    let of = |node: &Node, name: &String| (node.nickname().to_owned(), name.clone(), metric(node, name, &[]));
    let all = ours(network).flat_map(|node| names.iter().map(move |name| of(node, name)));
    all.filter(|(_, _, value)| *value != 0.0).map(|left| format!("{left:?}")).collect()
}

/// The circuits that living tors have built, which only they can end.
fn circuits_of_tors(network: &Network) -> Vec<(String, Vec<Circuit>)> {
    let tors =
        network.nodes().iter().filter_map(|node| Some((node.nickname().to_owned(), node.control().ok()?)));
    tors.filter_map(|(name, mut control)| Some((name, control.circuits().ok()?))).collect()
}

/// Ends the client, with which every circuit goes, and waits until the relays hold nothing of them.
fn until_all_is_quiet(network: &Network) {
    network.node("client").kill().unwrap();
    let waited = network.wait("quiet", PATIENCE, || leftovers(network).is_empty());
    assert!(waited.is_ok(), "left: {:?}; tors have: {:#?}", leftovers(network), circuits_of_tors(network));
}

fn start_client(network: &Network) {
    network.node("client").start().unwrap();
    wait(network, "the client", || {
        let control = network.node("client").control();
        control.is_ok_and(|mut control| control.bootstrap().is_ok_and(|(percent, _)| percent == 100))
    });
}

/// Starts a download without an end over `hops`, breaks it off with `cut` in its midst, and returns how it ended.
fn cut_off(network: &Network, hops: [&str; 3], cut: impl FnOnce()) -> Result<Transfer, TrafficError> {
    let paths = Paths::of(network.node("client")).unwrap();
    let path = paths.build(&hops.map(|name| network.node(name))).unwrap();
    let socks = path.socks();
    let order = Order { socks: &socks, target: network.target(), bytes: ENDLESS, seed: 3 };
    let (begun, flowing) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let transfer = scope.spawn(move || {
            order.download(&mut |received| {
                if received >= MIB {
                    // Only the first is waited for.
                    let _ = begun.send(());
                }
                Ok(())
            })
        });
        flowing.recv_timeout(PATIENCE).expect("the download flows");
        cut();
        transfer.join().unwrap()
    })
}

#[test]
fn circuits_end_cleanly_and_leave_nothing_behind() {
    // Without relays of tor, which build circuits of their own.
    let network = network(&["oGuard", "oMiddle", "oExit"]);
    let round = || {
        let paths = Paths::of(network.node("client")).unwrap();
        let ours = ["oGuard", "oMiddle", "oExit"].map(|name| network.node(name));
        let built: Vec<_> = (0..CIRCUITS).map(|_| paths.build(&ours).unwrap()).collect();
        let transfers = parallel(CIRCUITS, |n| {
            let socks = built[n].socks();
            Order { socks: &socks, target: network.target(), bytes: MIB / 2, seed: n as u64 }
                .download(&mut |_| Ok(()))
        });
        assert_eq!(transfers.unwrap().len(), CIRCUITS);
        drop(built);
        drop(paths);

        // From the client's end, with all queues full.
        let mut control = network.node("client").control().unwrap();
        let cut = cut_off(&network, ["oGuard", "oMiddle", "oExit"], || {
            for circuit in control.circuits().unwrap() {
                control.close_circuit(circuit.id).unwrap();
            }
        });
        assert!(matches!(cut, Err(TrafficError::Broken { .. })), "{cut:?}");
        until_all_is_quiet(&network);
        start_client(&network);
    };
    let held = || -> Vec<(u64, f64)> {
        ours(&network)
            .map(|node| (node.usage().unwrap().rss_bytes, metric(node, "onionring_links", &[])))
            .collect()
    };
    // Twice, until buffers and links are what such load makes them.
    round();
    round();
    let before = held();
    (0..3).for_each(|_| round());
    // Compressing a consensus takes memory, too, for as long as it takes.
    let within = |now: &[(u64, f64)]| {
        let pairs = before.iter().zip(now);
        let mut pairs =
            pairs.map(|(before, now)| (now.0 <= before.0 + MEMORY_SLACK, now.1 <= before.1 + 1.0));
        pairs.all(|pair| pair == (true, true))
    };
    let waited = network.wait("memory and links to be back", PATIENCE, || within(&held()));
    println!("before, and now, in bytes and links: {before:?} {:?}", held());
    waited.expect("nothing is left behind");
}

#[test]
fn relays_die_and_come_back() {
    let network = network(&RELAYS);
    // No tor between the client and the victim: of two DESTROYs for one link at once, it keeps the second until a cell
    // goes there, and the client waits for minutes.
    for (victim, hops) in
        [("oMiddle", ["oGuard", "oMiddle", "oExit"]), ("tExit", ["oGuard", "oMiddle", "tExit"])]
    {
        let started = Instant::now();
        let cut = cut_off(&network, hops, || network.node(victim).kill().unwrap());
        assert!(matches!(cut, Err(TrafficError::Broken { .. })), "{cut:?}");
        assert!(started.elapsed() < PATIENCE, "the client was left waiting");
        let now = network.consensus().unwrap().valid_after;
        network.node(victim).start().unwrap();
        let fingerprint = network.node(victim).fingerprint();
        network
            .wait_consensus(victim, PATIENCE, |consensus| {
                consensus.valid_after > now && consensus.running(fingerprint).is_some()
            })
            .unwrap_or_else(|error| panic!("{error}"));
        // It takes its place in circuits again, as soon as its neighbours look for it.
        wait(&network, "a circuit over the relay that is back", || {
            let paths = Paths::of(network.node("client")).unwrap();
            let path = paths.build(&hops.map(|name| network.node(name)));
            path.is_ok_and(|path| {
                let socks = path.socks();
                let order = Order { socks: &socks, target: network.target(), bytes: MIB, seed: 4 };
                order.download(&mut |_| Ok(())).is_ok()
            })
        });
    }

    // In the relays' own words: the far end goes, and the client is told.
    let [first, second, third] =
        ["oGuard", "oMiddle", "tExit"].map(|name| hop(&network, name, HandshakeKind::Ntor));
    let mut circuit = Client::over(&[&first, &second, &third]);
    network.node("tExit").kill().unwrap();
    let reason = circuit.closed();
    assert!(
        matches!(reason, CloseReason::Destroyed(DestroyReason::ChannelClosed | DestroyReason::Destroyed)),
        "{reason:?}"
    );
    // A client that is gone leaves nothing, nor do the tors that built circuits of their own.
    drop(circuit);
    drop(Client::over(&[&first, &second]));
    // The authorities go too, over which circuits may lead: of two DESTROYs for one link at once, tor keeps the second
    // until a cell goes there, which may be never.
    for node in network.nodes().iter().filter(|node| *node.kind() == Kind::TOR) {
        node.kill().unwrap();
    }
    until_all_is_quiet(&network);
}
