//! Exits that refuse more than the directory says of them.

use onionring_loadgen::net::{Kind, NetworkSpec, NodeSpec, Role, directory};
use onionring_node::metrics::page::Page;

use super::{Echo, boot, client, wait};

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
