//! Dials: who shares one, and what comes of lies about where and who a relay is.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use onionring_proto::cell::DestroyReason;
use onionring_proto::origin::HandshakeKind;
use onionring_proto::relay_msg::{LinkSpecs, RelayCmd};
use onionring_relay::limits::{DIALS_PER_SHARD, LINKS_PER_PEER, UNLISTED_DIALS_PER_PEER, WAITERS_PER_DIAL};

use super::by_hand::{ByHand, small};
use super::net::{Net, target};
use super::sink::Exchange;

/// An address at which nobody answers, for good.
fn tarpit(net: &mut Net, n: u8) -> SocketAddrV4 {
    let address = SocketAddrV4::new(Ipv4Addr::new(127, 9, 9, n), 9001);
    net.tarpits.insert(address.into());
    address
}

fn specs(relay: usize) -> LinkSpecs {
    target(relay, HandshakeKind::Ntor).specs
}

#[test]
fn a_lie_about_an_identity_or_an_address_harms_nobody_else() {
    for listed in [true, false] {
        let (mut net, liar) = small(1, 2);
        if !listed {
            let mut snapshot = net.snapshot(0);
            snapshot.relays = Default::default();
            net.set_snapshot(0, snapshot);
        }
        let client = net.client(0);
        net.relays[0].dials_hang = true;
        let tarpit = tarpit(&mut net, 1);
        let [mut wrong_id, mut wrong_address, mut honest] =
            [liar, liar, client].map(|peer| ByHand::create(&mut net, peer));
        wrong_id.ask_extend_by(&mut net, 1, LinkSpecs { ed_id: Some([3; 32]), ..specs(1) });
        wrong_address.ask_extend_by(&mut net, 1, LinkSpecs { ipv4: Some(tarpit), ..specs(1) });
        net.settle();
        let handshake = honest.ask_extend(&mut net, 1);
        net.settle();
        assert_eq!(net.count(0, |c| c.dials_pending), 3);
        net.relays[0].dials_hang = false;
        net.settle();
        honest.finish_extend(&mut net, handshake);
        wrong_id.assert_destroyed(&mut net, DestroyReason::ChannelClosed.to_wire());
        // Whoever was sent to the wrong address gets the link that the honest dial opened.
        assert_eq!(net.count(0, |c| c.seekers), 0);
        honest.assert_silent(&mut net);
        net.assert_nothing_left();
    }
}

#[test]
fn a_peer_of_another_ed25519_identity_than_a_waiter_named_is_a_failure_of_the_channel() {
    let (mut net, client) = small(2, 2);
    let mut snapshot = net.snapshot(0);
    snapshot.relays = Default::default();
    net.set_snapshot(0, snapshot);
    net.relays[0].dials_hang = true;
    // The first names no Ed25519 identity, so the second may share the dial.
    let mut open = ByHand::create(&mut net, client);
    let handshake = open.ask_extend_by(&mut net, 1, LinkSpecs { ed_id: None, ..specs(1) });
    net.settle();
    let mut wrong = ByHand::create(&mut net, client);
    wrong.ask_extend_by(&mut net, 1, LinkSpecs { ed_id: Some([3; 32]), ..specs(1) });
    net.settle();
    assert_eq!(net.count(0, |c| c.dials_pending), 1);
    net.relays[0].dials_hang = false;
    open.finish_extend(&mut net, handshake);
    wrong.assert_destroyed(&mut net, DestroyReason::ChannelClosed.to_wire());
    net.assert_nothing_left();
}

#[test]
fn whoever_does_not_wait_any_more_is_forgotten() {
    let (mut net, client) = small(3, 2);
    let tarpit = tarpit(&mut net, 1);
    let lie = || LinkSpecs { ipv4: Some(tarpit), ..specs(1) };
    // By a timeout, a TRUNCATE, a DESTROY, and the end of the link.
    let mut circuit = ByHand::create(&mut net, client);
    circuit.ask_extend_by(&mut net, 1, lie());
    net.advance(Duration::from_secs(61));
    circuit.assert_destroyed(&mut net, DestroyReason::Timeout.to_wire());
    assert_eq!(net.count(0, |c| c.seekers), 0);
    for end in 0..3 {
        let client = net.client(0);
        let mut circuit = ByHand::create(&mut net, client);
        circuit.ask_extend_by(&mut net, 1, lie());
        net.settle();
        assert_eq!(net.count(0, |c| c.seekers), 1);
        match end {
            0 => circuit.say(&mut net, 0, RelayCmd::TRUNCATE, 0, &[0]),
            1 => net.peers[client].send(circuit.id, onionring_proto::cell::Command::DESTROY, &[0; 509]),
            _ => net.hang_up(client),
        }
        net.settle();
        assert_eq!(net.count(0, |c| c.seekers), 0, "{end}");
    }
    net.assert_nothing_left();
}

#[test]
fn a_dial_has_only_so_many_waiters() {
    let (mut net, client) = small(4, 2);
    net.relays[0].dials_hang = true;
    for _ in 0..WAITERS_PER_DIAL {
        ByHand::create(&mut net, client).ask_extend(&mut net, 1);
    }
    net.settle();
    let mut late = ByHand::create(&mut net, client);
    late.ask_extend(&mut net, 1);
    late.assert_destroyed(&mut net, DestroyReason::ResourceLimit.to_wire());
    assert_eq!(net.count(0, |c| c.seekers), WAITERS_PER_DIAL);
    net.relays[0].dials_hang = false;
    net.settle();
    assert_eq!(net.count(1, |c| c.circuits_created as usize), WAITERS_PER_DIAL);
    net.assert_nothing_left();
}

#[test]
fn lies_about_one_peer_push_out_each_other() {
    let (mut net, liar) = small(5, 2);
    let client = net.client(0);
    let mut lies = Vec::new();
    for n in 0..=UNLISTED_DIALS_PER_PEER as u8 {
        let ipv4 = Some(tarpit(&mut net, n));
        let mut circuit = ByHand::create(&mut net, liar);
        circuit.ask_extend_by(&mut net, 1, LinkSpecs { ipv4, ..specs(1) });
        net.settle();
        lies.push(circuit);
    }
    assert_eq!(net.count(0, |c| c.dials_pending), UNLISTED_DIALS_PER_PEER);
    lies[0].assert_destroyed(&mut net, DestroyReason::ResourceLimit.to_wire());
    assert_eq!(lies[1].heard(&mut net), []);
    net.build(client, &[0, 1], &[Exchange::new(1, 1000, 1000)]);
    net.assert_nothing_left();
}

#[test]
fn whoever_floods_the_relay_with_dials_loses_its_own() {
    let (mut net, flooder) = small(6, 2);
    let client = net.client(0);
    let ipv4 = Some(tarpit(&mut net, 1));
    let mut flood = Vec::new();
    for n in 0..DIALS_PER_SHARD as u32 {
        let mut rsa_id = [9; 20];
        rsa_id[..4].copy_from_slice(&n.to_be_bytes());
        let mut circuit = ByHand::create(&mut net, flooder);
        circuit.ask_extend_by(&mut net, 1, LinkSpecs { ipv4, ed_id: None, rsa_id, ipv6: None });
        flood.push(circuit);
    }
    net.settle();
    assert_eq!(net.count(0, |c| c.dials_pending), DIALS_PER_SHARD);
    net.build(client, &[0, 1], &[Exchange::new(1, 1000, 1000)]);
    assert_eq!(net.count(0, |c| c.dials_shed as usize), 1);
    flood[0].assert_destroyed(&mut net, DestroyReason::ResourceLimit.to_wire());
    assert_eq!(flood[1].heard(&mut net), []);
    net.assert_nothing_left();
}

#[test]
fn a_peer_may_open_more_links_than_are_chosen_among() {
    let (mut net, client) = small(7, 1);
    let links: Vec<_> = (0..LINKS_PER_PEER + 3).map(|_| net.connect(0, Some(7))).collect();
    net.settle();
    for &link in &links {
        // All of them take circuits from the peer, and one takes ours to it.
        assert!(net.peers[link].link().is_some());
        ByHand::create(&mut net, link);
    }
    let mut circuit = ByHand::create(&mut net, client);
    circuit.ask_extend(&mut net, 7);
    net.settle();
    let reached = links.iter().filter(|&&link| !net.peers[link].stray.is_empty()).count();
    assert_eq!(reached, 1);
    net.assert_nothing_left();
}
