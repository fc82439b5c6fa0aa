//! What passes: exits, guards, consensuses, and the proxy itself.

use std::fs;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use onionring_loadgen::net::{Network, Role};
use onionring_loadgen::traffic::{Order, TrafficError, Transfer};
use onionring_proto::netdoc::text::Fingerprint;

use super::{Echo, MIB, Mix, PATIENCE, boot, circuits, client, opened, report, spec, wait};

/// More than passes before the test cuts it off.
const ENDLESS: u64 = 1 << 40;

/// How long the next stream may take after a relay has died: some attempts at a circuit through it fail at once.
const SOON: Duration = Duration::from_secs(15);

/// How long a proxy that knows the network may take to carry a stream, on a busy machine.
const QUICKLY: Duration = Duration::from_secs(15);

#[test]
fn when_an_exit_dies_the_other_serves() {
    let network = boot(spec(Mix::Both, client()));
    let socks = network.node("client").socks().unwrap();
    let (_echo, circuit) = opened(&network, &socks);
    let victim = circuit.path.last().unwrap();
    let cut = cut_off(&network, || network.node(victim).kill().unwrap());
    assert!(matches!(cut, Err(TrafficError::Broken { bytes: MIB.., .. })), "{cut:?}");
    let died = Instant::now();
    let (mut echo, circuit) = opened(&network, &socks);
    assert!(died.elapsed() < SOON, "{:?}", died.elapsed());
    assert_ne!(circuit.path.last(), Some(victim));
    echo.say(b"by another way");
    assert_eq!(network.download("client", MIB).unwrap().bytes, MIB);
}

#[test]
fn when_the_guard_dies_another_takes_over_and_it_comes_back() {
    // An exit that comes first among the guards is none for circuits that end there, but would be for the later ones.
    let network = boot(spec(Mix::Both, client().pinned("relay1,relay2,relay3", "", "")));
    let client = network.node("client");
    let socks = client.socks().unwrap();
    let (_echo, circuit) = opened(&network, &socks);
    let guard = network.node(&circuit.path[0]);
    assert!(report(client).guards.contains(&Fingerprint::from_hex(guard.fingerprint()).unwrap()));
    guard.kill().unwrap();
    let died = Instant::now();
    wait(&network, "the circuit to end", || circuits(client).iter().all(|c| c.number != circuit.number));
    let (mut echo, circuit) = opened(&network, &socks);
    assert!(died.elapsed() < SOON, "{:?}", died.elapsed());
    assert_ne!(circuit.path[0], guard.nickname());
    echo.say(b"by another way");

    // It stays the first choice, and the file says so to the next run.
    client.stop(PATIENCE).unwrap();
    let state = fs::read_to_string(client.dir().join("state")).unwrap();
    let id = format!("rsa_id={}", guard.fingerprint());
    assert!(state.lines().any(|line| line.starts_with("Guard ") && line.contains(&id)), "{state}");
    guard.start().unwrap();
    wait(&network, "the guard", || TcpStream::connect(guard.or_addr().unwrap()).is_ok());
    client.start().unwrap();
    first_stream(&network).say(b"back again");
    assert_eq!(opened(&network, &socks).1.path[0], guard.nickname());
}

#[test]
fn consensuses_follow_each_other_and_the_last_one_is_enough_to_start_from() {
    let network = boot(spec(Mix::Both, client()));
    let client = network.node("client");
    let valid_after = || report(client).consensus.expect("a consensus").0;
    let begun = valid_after();
    let mut newer = vec![begun];
    let mut echo = Echo::open(&network, &client.socks().unwrap()).unwrap();
    let mut said = 0u32;
    wait(&network, "two more consensuses", || {
        said += 1;
        echo.say(&said.to_be_bytes());
        network.download("client", 10_000).unwrap();
        let now = valid_after();
        if newer.last() != Some(&now) {
            newer.push(now);
        }
        newer.len() > 2
    });
    assert!(newer.is_sorted(), "{newer:?}");

    // Nobody is left whom it could ask for a directory but relays, and it need not.
    for authority in network.nodes().iter().filter(|node| node.role() == Role::Authority) {
        authority.kill().unwrap();
    }
    client.stop(PATIENCE).unwrap();
    client.start().unwrap();
    let started = Instant::now();
    first_stream(&network).say(b"back again");
    assert!(started.elapsed() < QUICKLY, "{:?}", started.elapsed());
    assert!(report(client).is_ready());
    assert_eq!(network.download("client", MIB).unwrap().bytes, MIB);
}

/// The first stream of a proxy that has just been started.
fn first_stream(network: &Network) -> Echo {
    let socks = network.node("client").socks().unwrap();
    let opened = network.wait_ok("a stream", PATIENCE, || Echo::open(network, &socks));
    opened.unwrap_or_else(|error| panic!("{error}"))
}

/// Starts a download without an end, breaks it off with `cut` in its midst, and returns how it ended.
fn cut_off(network: &Network, cut: impl FnOnce()) -> Result<Transfer, TrafficError> {
    let socks = network.node("client").socks().unwrap();
    let order = Order { socks: &socks, target: network.target(), bytes: ENDLESS, seed: 3 };
    let (begun, flowing) = channel();
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
