//! Exits that refuse more than the directory says of them, and what is made of circuits to those that do not serve a stream.

use std::fs;

use onionring_loadgen::net::{Kind, NetworkSpec, NodeSpec, Role, directory};
use onionring_node::metrics::page::Page;

use onionring_proxy::control::{self, Request};

use super::{Echo, PATIENCE, boot, circuits, client, wait};

#[test]
fn an_exit_that_has_refused_is_not_asked_for_the_like_again() {
    // Of single networks nothing is in the summaries that clients choose exits by.
    let picky = NodeSpec::new(Role::Exit, Kind::TOR)
        .named("picky")
        .torrc("ExitPolicy reject 127.0.0.0/8:*")
        .torrc("ExitPolicy accept *:*");
    let spec = NetworkSpec::new()
        .add(Role::Authority, Kind::ONIONRING, 3)
        .add(Role::Relay, Kind::ONIONRING, 2)
        .node(picky)
        .add(Role::Exit, Kind::ONIONRING, 1)
        // So that no stream is tried again because the machine is slow.
        .node(client().torrc("CircuitStreamTimeout 80"))
        .shards(1);
    let network = boot(spec);
    let client = network.node("client");
    let retried = || {
        let page = directory::get(client.metrics_addr().unwrap(), "/metrics").unwrap();
        Page::parse(&String::from_utf8_lossy(&page)).sum("onionring_proxy_streams_retried_total", &[])
    };
    // Streams of two users share no circuit.
    let open = |user: u32| {
        let socks = client.socks().unwrap().with_user(&user.to_string());
        Echo::open(&network, &socks).unwrap().say(b"by the other exit");
    };
    let mut users = 0..;
    wait(&network, "an exit to refuse a stream", || {
        open(users.next().unwrap());
        retried() > 0.0
    });
    let before = retried();
    users.take(12).for_each(open);
    assert_eq!(retried(), before);
}

#[test]
fn a_guard_is_not_blamed_for_destinations_that_are_not_there() {
    // Exits of a test network let out to everywhere, and the last question on a circuit must be refused.
    let exit = NodeSpec::new(Role::Exit, Kind::TOR)
        .torrc("ExitPolicy reject 0.0.0.0/8:*")
        .torrc("ExitPolicy accept *:*");
    let spec = NetworkSpec::new()
        .add(Role::Authority, Kind::ONIONRING, 3)
        .add(Role::Relay, Kind::ONIONRING, 2)
        .node(exit)
        .node(client().torrc("Log debug stdout"))
        .shards(1);
    let network = boot(spec);
    let client = network.node("client");
    let new_identity = || control::ask(client.dir(), Request::NewIdentity).unwrap();
    new_identity();
    client.socks().unwrap().with_user("lost").connect("nowhere.test", 80).unwrap_err();
    let used = |number| circuits(client).iter().any(|circuit| circuit.number == number);
    let last = circuits(client).iter().map(|circuit| circuit.number).max().unwrap();
    new_identity();
    wait(&network, "old circuits to be closed", || (1..=last).all(|number| !used(number)));
    wait(&network, "the last question to be answered", || client.log().contains("was good all the same"));
    client.stop(PATIENCE).unwrap();
    let state = fs::read_to_string(client.dir().join("state")).unwrap();
    let of_guards = || state.lines().filter(|line| line.starts_with("Guard "));
    let counts = |name| of_guards().any(|line| line.contains(name));
    assert!(counts(" pb_circ_attempts=") && counts(" pb_use_successes="), "{state}");
    assert!(!counts(" pb_unusable_circuits="), "{state}");
}
