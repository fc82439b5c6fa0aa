//! Links: how they open, which of them circuits use, and how they end.

use std::time::Duration;

use onionring_proto::cell::{CircId, Command, DestroyReason, LinkVersion};
use onionring_proto::origin::CloseReason;

use super::by_hand::{ByHand, small};
use super::net::{Net, NetConfig};
use super::sink::Exchange;

fn relay_links(net: &mut Net, relay: usize) -> usize {
    net.count(relay, |c| c.links)
}

#[test]
fn every_link_protocol_carries_circuits() {
    use LinkVersion::{V3, V4, V5};
    // What each relay offers, and what client and relays come to agree on.
    for (offers, agreed) in [
        ([vec![V3], vec![V3], vec![V3]], [V3, V3, V3]),
        ([vec![V4], vec![V4], vec![V4]], [V4, V4, V4]),
        ([vec![V3], vec![V3, V4, V5], vec![V5]], [V3, V3, V5]),
        ([vec![V3, V4], vec![V3, V4, V5], vec![V3]], [V4, V4, V3]),
    ] {
        for shards in [1, 3] {
            let mut config = NetConfig::new(&[shards; 3]);
            config.versions = offers.to_vec();
            let mut net = Net::new(1, config);
            let client = net.client(0);
            assert_eq!(net.peers[client].link().map(|link| link.version), Some(agreed[0]));
            net.build(client, &[0, 1, 2], &[Exchange::new(1, 5000, 5000)]);
            // Back over the same links, whose other half of the circuit ids serves then.
            let back = net.client(2);
            net.build(back, &[2, 1, 0], &[Exchange::new(1, 5000, 5000)]);
            assert_eq!(net.wires_between(0, 1).len() + net.wires_between(1, 2).len(), 2);
            // Relays tell what they agreed on by the size of their cells.
            for (relay, version) in [(1, agreed[1]), (2, agreed[2])] {
                if relay == 2 || agreed[1] == agreed[2] {
                    let cells = net.count(relay, |c| c.cells_in[1..=11].iter().sum::<u64>() as usize);
                    let bytes = net.count(relay, |c| c.link_bytes_in as usize);
                    assert_eq!(bytes, cells * version.cell_len(), "relay {relay}");
                }
            }
            net.assert_nothing_left();
        }
    }
}

#[test]
fn destroys_of_a_closing_link_keep_its_framing() {
    for version in LinkVersion::ALL {
        let mut config = NetConfig::new(&[1]);
        config.versions = vec![vec![version]];
        let mut net = Net::new(11, config);
        let client = net.client(0);
        let (refused, bad) = (CircId(0x8001), ByHand::create(&mut net, client));
        net.peers[client].deaf = true;
        net.peers[client].send(refused, Command::CREATE, &[0; 509]);
        net.peers[client].send(bad.id, Command::CREATED_FAST, &[0; 509]);
        let mut cells = std::mem::take(&mut net.peers[client].out);
        net.inject(client, &mut cells);
        net.close_links(0);
        net.peers[client].deaf = false;
        net.settle();
        let destroyed = net.peers[client].stray.iter().map(|(id, command, _)| (*id, *command));
        let told: Vec<_> = [refused, bad.id].map(|id| (id, Command::DESTROY)).into();
        assert_eq!(destroyed.collect::<Vec<_>>(), told);
        net.assert_nothing_left();
    }
}

#[test]
fn no_common_link_protocol_fails_the_extension() {
    let mut config = NetConfig::new(&[1, 1]);
    config.versions = vec![vec![LinkVersion::V3], vec![LinkVersion::V5]];
    let mut net = Net::new(2, config);
    let client = net.client(0);
    let id = net.start(client, &[0, 1], &[]);
    net.settle();
    let failed = CloseReason::Destroyed(DestroyReason::ChannelClosed);
    assert_eq!(net.circuit(client, id).closed, Some(failed));
    net.assert_nothing_left();
}

#[test]
fn all_shards_share_one_link_to_a_peer() {
    let mut net = Net::new(3, NetConfig::new(&[4, 4]));
    let client = net.client(0);
    for _ in 0..20 {
        net.start(client, &[0, 1], &[Exchange::new(1, 100, 100)]);
    }
    net.settle();
    assert!(net.peers[client].circuits.values().all(|circuit| circuit.is_done() && circuit.closed.is_none()));
    assert_eq!(net.count(0, |c| c.dials as usize), 1);
    assert_eq!(net.wires_between(0, 1).len(), 1);
    // The other way the same link serves, although it was dialed from here.
    let back = net.client(1);
    net.build(back, &[1, 0], &[Exchange::new(1, 100, 100)]);
    assert_eq!(net.wires_between(0, 1).len(), 1);
    net.assert_nothing_left();
}

#[test]
fn two_relays_that_dial_each_other_at_once_both_get_there() {
    for seed in 0..10 {
        let mut net = Net::new(seed, NetConfig::new(&[2, 2]));
        let (a, b) = (net.client(0), net.client(1));
        for relay in 0..2 {
            net.relays[relay].dials_hang = true;
        }
        let there = net.start(a, &[0, 1], &[Exchange::new(1, 100, 100)]);
        let back = net.start(b, &[1, 0], &[Exchange::new(1, 100, 100)]);
        net.settle();
        for relay in 0..2 {
            net.relays[relay].dials_hang = false;
        }
        net.settle();
        for (client, id) in [(a, there), (b, back)] {
            let circuit = net.circuit(client, id);
            assert!(circuit.is_done() && circuit.closed.is_none());
        }
        net.assert_nothing_left();
    }
}

#[test]
fn whoever_waits_for_a_dial_gets_a_link_that_comes_in_meanwhile() {
    let (mut net, client) = small(4, 2);
    net.relays[0].dials_hang = true;
    let id = net.start(client, &[0, 1], &[Exchange::new(1, 100, 100)]);
    net.settle();
    let other = net.client(1);
    net.build(other, &[1, 0], &[]);
    net.settle();
    assert!(net.circuit(client, id).is_done() && net.circuit(client, id).closed.is_none());
    net.fail_dials(0);
    assert!(net.circuit(client, id).closed.is_none());
    net.assert_nothing_left();
}

#[test]
fn a_failed_dial_fails_all_who_wait() {
    let mut net = Net::new(5, NetConfig::new(&[3, 1]));
    let client = net.client(0);
    net.relays[0].dials_hang = true;
    let ids: Vec<_> = (0..5).map(|_| net.start(client, &[0, 1], &[])).collect();
    net.settle();
    assert_eq!(net.count(0, |c| c.dials as usize), 1);
    net.fail_dials(0);
    net.settle();
    for id in ids {
        let failed = CloseReason::Destroyed(DestroyReason::ChannelClosed);
        assert_eq!(net.circuit(client, id).closed, Some(failed));
    }
    net.assert_nothing_left();
}

#[test]
fn a_dial_without_an_answer_times_out() {
    let (mut net, client) = small(6, 2);
    net.relays[0].dials_hang = true;
    let mut circuit = ByHand::create(&mut net, client);
    circuit.ask_extend(&mut net, 1);
    net.advance(Duration::from_secs(59));
    assert_eq!(circuit.heard(&mut net), []);
    net.advance(Duration::from_secs(2));
    circuit.assert_destroyed(&mut net, DestroyReason::Timeout.to_wire());
    net.assert_nothing_left();
}

#[test]
fn a_next_hop_without_an_answer_times_out() {
    let (mut net, client) = small(7, 1);
    net.rogues.insert(7, Vec::new());
    let mut circuit = ByHand::create(&mut net, client);
    circuit.ask_extend(&mut net, 7);
    net.advance(Duration::from_secs(61));
    circuit.assert_destroyed(&mut net, DestroyReason::Timeout.to_wire());
    let rogue = net.rogues[&7][0];
    let last = net.peers[rogue].stray.last().map(|(_, command, body)| (*command, body[0]));
    assert_eq!(last, Some((Command::DESTROY, DestroyReason::Timeout.to_wire())));
    net.assert_nothing_left();
}

#[test]
fn a_link_that_breaks_while_a_circuit_reaches_for_it_fails_the_circuit() {
    // Cut at every point of the extension, with the link on any shard.
    for (seed, rounds) in (0..60).map(|n| (n, n as usize / 2)) {
        let mut net = Net::new(seed, NetConfig::new(&[3, 3]));
        let client = net.client(0);
        net.build(client, &[0, 1], &[]);
        let id = net.start(client, &[0, 1], &[]);
        (0..rounds).for_each(|_| _ = net.round());
        net.wires_between(0, 1).into_iter().for_each(|wire| net.cut(wire));
        net.settle();
        let circuit = net.circuit(client, id);
        assert!(circuit.closed.is_some() || circuit.origin.hops() == 2, "neither built nor closed");
        net.assert_nothing_left();
    }
}

#[test]
fn idle_links_are_closed() {
    let (mut net, client) = small(8, 2);
    let id = net.build(client, &[0, 1], &[]);
    // Not while they carry a circuit.
    net.advance(Duration::from_secs(3 * 3600));
    assert_eq!((relay_links(&mut net, 0), relay_links(&mut net, 1)), (2, 1));
    net.circuit(client, id).origin.close();
    net.advance(Duration::from_secs(179));
    assert!(!net.peers[client].is_closed());
    net.advance(Duration::from_secs(92));
    assert!(net.peers[client].is_closed());
    assert_eq!((relay_links(&mut net, 0), relay_links(&mut net, 1)), (1, 1));
    net.advance(Duration::from_secs(75 * 60));
    assert_eq!((relay_links(&mut net, 0), relay_links(&mut net, 1)), (0, 0));
    net.assert_nothing_left();
}

#[test]
fn handshakes_that_do_not_end_are_closed() {
    let mut net = Net::new(9, NetConfig::new(&[1]));
    let client = net.connect(0, None);
    net.peers[client].out.truncate(3);
    net.advance(Duration::from_secs(59));
    assert_eq!(relay_links(&mut net, 0), 1);
    net.advance(Duration::from_secs(2));
    assert_eq!(relay_links(&mut net, 0), 0);
    net.assert_nothing_left();
}

#[test]
fn used_client_links_are_padded() {
    let (mut net, client) = small(10, 2);
    net.build(client, &[0], &[]);
    net.advance(Duration::from_secs(60));
    assert_eq!(net.count(0, |c| c.padding_sent as usize), 0);
    let id = net.build(client, &[0, 1], &[]);
    net.advance(Duration::from_secs(60));
    let sent = net.count(0, |c| c.padding_sent as usize);
    assert!((6..=40).contains(&sent), "{sent}");
    // A client that reads nothing does not pile it up.
    net.peers[client].deaf = true;
    net.advance(Duration::from_secs(3600));
    assert!(net.count(0, |c| c.padding_sent as usize) - sent < 1000);
    net.peers[client].deaf = false;
    assert!(net.circuit(client, id).closed.is_none());
    net.assert_nothing_left();
}
