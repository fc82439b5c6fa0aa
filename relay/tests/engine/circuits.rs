//! Circuits from end to end: building, streams, and every way of ending.

use onionring_proto::cell::{Command, DestroyReason};
use onionring_proto::origin::{CloseReason, Event, FirstHop, HandshakeKind, OriginConfig};
use onionring_proto::relay_msg::EndReason;

use super::by_hand::{ByHand, Heard, small};
use super::net::{Net, NetConfig, target};
use super::sink::Exchange;

fn with_shards(seed: u64, shards: u16) -> Net {
    Net::new(seed, NetConfig::new(&[shards; 3]))
}

#[test]
fn every_handshake_makes_a_circuit() {
    let mut net = with_shards(1, 2);
    let client = net.client(0);
    let targets = [target(0, HandshakeKind::Ntor), target(0, HandshakeKind::NtorV3)];
    for first in [FirstHop::Fast, FirstHop::Relay(&targets[0]), FirstHop::Relay(&targets[1])] {
        let peer = &mut net.peers[client];
        let plans = vec![Exchange::directory(0)];
        let config = OriginConfig::default();
        let id = peer.start_circuit(net.now, &mut net.rng, first, Vec::new(), plans, config);
        net.settle();
        let circuit = net.circuit(client, id);
        assert!(circuit.is_done() && circuit.closed.is_none());
    }
    let done = |kind: &'static str| {
        move |c: &super::net::Counters| c.handshakes_done.get(kind).copied().unwrap_or(0) as usize
    };
    assert_eq!(
        [net.count(0, done("fast")), net.count(0, done("ntor")), net.count(0, done("ntor_v3"))],
        [1, 1, 1]
    );
    net.assert_nothing_left();
}

#[test]
fn three_hops_carry_streams_both_ways_at_any_number_of_shards() {
    for shards in [1, 2, 4] {
        let mut net = with_shards(u64::from(shards), shards);
        let client = net.client(0);
        // More than the windows of stream (249,000 bytes) and circuit (498,000) hold.
        let plans = [Exchange::new(1, 40_000, 600_000), Exchange::new(2, 300_000, 0), Exchange::new(3, 5, 5)];
        net.build(client, &[0, 1, 2], &plans);
        net.build(client, &[0, 2, 1], &[Exchange::new(9, 1000, 1000)]);
        assert_eq!(net.count(0, |c| c.circuits), 2);
        net.assert_nothing_left();
    }
}

/// Streams that all have more than the circuit's window takes get on side by side, those that came late and those of
/// which there are more than cells in a SENDME included.
#[test]
fn streams_share_the_window_of_their_circuit() {
    for (streams, len) in [(12, 400_000), (110, 300_000)] {
        let mut net = with_shards(4, 2);
        let client = net.client(0);
        let plans = vec![Exchange::new(1, 0, len); streams];
        let id = net.start(client, &[0, 1], &plans);
        let received = |net: &mut Net| -> Vec<usize> {
            net.circuit(client, id).exchanges.values().map(|running| running.received).collect()
        };
        // Until the first one is done.
        while received(&mut net).iter().all(|&bytes| bytes < len) {
            assert!(net.round(), "they are stuck");
        }
        let least = received(&mut net).into_iter().min().unwrap();
        // The first ones had the window to themselves at the beginning.
        assert!(least > len / 8, "one has got {least} of {len} bytes when another is done");
        net.settle();
        assert!(net.circuit(client, id).exchanges.values().all(|running| running.complete()));
        net.assert_nothing_left();
    }
}

/// Bytes that 40 streams get after one more has begun, and before that has had the two thousand that it wants.
fn bytes_before_a_new_stream_is_served(seed: u64) -> usize {
    let mut net = with_shards(seed, 2);
    let client = net.client(0);
    let bulk = 40;
    let id = net.start(client, &[0, 1], &vec![Exchange::new(1, 0, 300_000); bulk]);
    let received = |net: &mut Net| -> Vec<usize> {
        net.circuit(client, id).exchanges.values().map(|running| running.received).collect()
    };
    while received(&mut net).iter().filter(|&&bytes| bytes > 0).count() < bulk {
        assert!(net.round(), "they are stuck");
    }
    let before: usize = received(&mut net).iter().sum();
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    net.circuit(client, id).plans.push(Exchange::new(2, 0, 2_000));
    net.circuit(client, id).begin_plans(&mut rng);
    while net.circuit(client, id).exchanges.len() == bulk
        || !net.circuit(client, id).exchanges.values().any(|running| running.complete())
    {
        assert!(net.round(), "they are stuck");
    }
    let after: usize = received(&mut net).iter().sum();
    net.settle();
    net.assert_nothing_left();
    after - before
}

/// Of streams that wait, those that have sent nothing yet go first. It is 1.7 million bytes in six networks; with all in
/// turn it is 2.5.
#[test]
fn a_new_stream_is_served_before_those_that_have_had_something() {
    let bytes: usize = (6..12).map(bytes_before_a_new_stream_is_served).sum();
    assert!(bytes < 2_100_000, "{bytes}");
}

#[test]
fn long_circuits_work_up_to_nine_hops() {
    let mut net = with_shards(5, 2);
    let client = net.client(0);
    net.build(client, &[0, 1, 2, 0, 1, 2, 0, 1, 2], &[Exchange::new(1, 2000, 20_000)]);
    net.assert_nothing_left();
}

#[test]
fn any_hop_serves_streams() {
    let mut net = with_shards(6, 2);
    let client = net.client(0);
    let id = net.build(client, &[0, 1, 2], &[]);
    for hop in 0..3 {
        net.exchange(client, id, Exchange::directory(hop));
    }
    for hop in 1..3 {
        net.exchange(client, id, Exchange { hop: Some(hop), ..Exchange::new(7, 3000, 3000) });
    }
    net.assert_nothing_left();
}

#[test]
fn the_first_hop_is_no_proxy() {
    let mut net = with_shards(7, 1);
    let client = net.client(0);
    let id = net.start(client, &[0], &[Exchange::new(1, 10, 10)]);
    net.settle();
    let circuit = net.circuit(client, id);
    let running = circuit.exchanges.values().next().unwrap();
    assert_eq!(running.end.map(|end| end.reason), Some(EndReason::TorProtocol));
    assert_eq!(circuit.closed, None);
}

#[test]
fn relays_that_nobody_knows_get_no_exit() {
    let mut net = with_shards(8, 1);
    let mut snapshot = net.snapshot(2);
    snapshot.relays = Default::default();
    net.set_snapshot(2, snapshot);
    let client = net.client(0);
    let id = net.start(client, &[0, 1, 2], &[Exchange::new(1, 10, 10)]);
    net.settle();
    let running = net.circuit(client, id).exchanges.values().next().unwrap();
    assert_eq!(running.end.map(|end| end.reason), Some(EndReason::Misc));
}

#[test]
fn a_client_that_leaves_takes_the_whole_circuit_along() {
    for shards in [1, 3] {
        let mut net = with_shards(20 + u64::from(shards), shards);
        let client = net.client(0);
        let id = net.build(client, &[0, 1, 2], &[]);
        net.circuit(client, id).plans.push(Exchange::new(3, 0, 2_000_000));
        net.circuit(client, id).begin_plans(&mut rand_chacha::ChaCha20Rng::from_seed([1; 32]));
        (0..40).for_each(|_| _ = net.round());
        net.circuit(client, id).origin.close();
        net.settle();
        for relay in 0..3 {
            assert_eq!(net.count(relay, |c| c.circuits + c.legs + c.streams + c.queued_cells), 0);
        }
        assert!(net.relays[2].sinks.is_empty());
        net.assert_nothing_left();
    }
}

use rand_core::SeedableRng;

#[test]
fn a_link_that_breaks_behind_or_ahead_ends_the_circuit() {
    for (a, b, at_client) in [(0, 1, DestroyReason::ChannelClosed), (1, 2, DestroyReason::Destroyed)] {
        let mut net = with_shards(30, 2);
        let client = net.client(0);
        let id = net.build(client, &[0, 1, 2], &[Exchange::new(1, 1000, 1000)]);
        net.wires_between(a, b).into_iter().for_each(|wire| net.cut(wire));
        net.settle();
        assert_eq!(net.circuit(client, id).closed, Some(CloseReason::Destroyed(at_client)));
        assert!((0..3).all(|relay| net.count(relay, |c| c.circuits + c.legs) == 0));
        net.assert_nothing_left();
    }
}

#[test]
fn a_relay_that_closes_its_links_ends_its_circuits() {
    let mut net = with_shards(31, 2);
    let client = net.client(0);
    let id = net.build(client, &[0, 1, 2], &[]);
    net.close_links(1);
    net.settle();
    let reason = DestroyReason::ChannelClosed;
    assert_eq!(net.circuit(client, id).closed, Some(CloseReason::Destroyed(reason)));
    net.assert_nothing_left();
}

#[test]
fn a_killed_relay_can_be_used_again_when_it_is_back() {
    let mut net = with_shards(32, 2);
    let client = net.client(0);
    let id = net.build(client, &[0, 1, 2], &[]);
    net.kill(1);
    net.settle();
    assert!(net.circuit(client, id).closed.is_some());
    let id = net.start(client, &[0, 1, 2], &[]);
    net.settle();
    let failed = CloseReason::Destroyed(DestroyReason::ChannelClosed);
    assert_eq!(net.circuit(client, id).closed, Some(failed));
    net.restart(1);
    net.build(client, &[0, 1, 2], &[Exchange::new(1, 5000, 5000)]);
    net.assert_nothing_left();
}

#[test]
fn a_cut_circuit_can_be_extended_anew() {
    for shards in [1, 2, 4] {
        let mut net = with_shards(40 + u64::from(shards), shards);
        let client = net.client(0);
        let config = OriginConfig { survive_truncation: true, ..OriginConfig::default() };
        let id = net.start_with(client, &[0, 1, 2], &[Exchange::new(1, 100, 100_000)], config);
        net.settle();
        net.circuit(client, id).origin.truncate(0).unwrap();
        net.settle();
        let cut = Event::Truncated { hops: 1, reason: DestroyReason::Requested };
        assert_eq!(net.circuit(client, id).events, [cut]);
        assert_eq!(net.count(1, |c| c.circuits) + net.count(2, |c| c.circuits), 0);
        let next = target(2, HandshakeKind::Ntor);
        let now = net.now;
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        net.circuit(client, id).origin.extend(now, &mut rng, &next).unwrap();
        net.settle();
        net.exchange(client, id, Exchange::new(2, 1000, 1000));
        net.assert_nothing_left();
    }
}

#[test]
fn a_search_that_was_cut_short_does_not_answer_the_next_one() {
    let (mut net, client) = small(50, 3);
    let mut circuit = ByHand::create(&mut net, client);
    net.relays[0].dials_hang = true;
    circuit.ask_extend(&mut net, 1);
    assert_eq!(circuit.heard(&mut net), []);
    circuit.say(&mut net, 0, onionring_proto::relay_msg::RelayCmd::TRUNCATE, 0, &[0]);
    assert!(matches!(circuit.heard(&mut net)[..], [Heard::Message { .. }]));
    let client = circuit.ask_extend(&mut net, 2);
    net.settle();
    // Both relays answer now, in whatever order; the onionskin must reach the second.
    net.relays[0].dials_hang = false;
    net.settle();
    circuit.finish_extend(&mut net, client);
    assert_eq!(net.count(2, |c| c.circuits_created as usize), 1);
    assert_eq!(net.count(1, |c| c.circuits_created as usize), 0);
    net.assert_nothing_left();
}

#[test]
fn a_failed_search_that_was_cut_short_does_not_fail_the_next_one() {
    let (mut net, client) = small(51, 3);
    let other = net.client(0);
    net.build(other, &[0, 2], &[]);
    let mut circuit = ByHand::create(&mut net, client);
    net.relays[0].dials_hang = true;
    circuit.ask_extend(&mut net, 1);
    circuit.say(&mut net, 0, onionring_proto::relay_msg::RelayCmd::TRUNCATE, 0, &[0]);
    assert!(matches!(circuit.heard(&mut net)[..], [Heard::Message { .. }]));
    // Nobody hears of this failure any more.
    net.fail_dials(0);
    circuit.extend(&mut net, 2);
    circuit.assert_silent(&mut net);
    net.assert_nothing_left();
}

#[test]
fn destroy_reasons_stay_where_they_were_given() {
    let (mut net, client) = small(52, 3);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    circuit.extend(&mut net, 2);
    // The last hop finds a cell that nobody can recognise and closes with PROTOCOL; the client hears DESTROYED.
    net.peers[client].send(circuit.id, Command::RELAY, &[0x55; 509]);
    circuit.assert_destroyed(&mut net, DestroyReason::Destroyed.to_wire());
    assert!((0..3).all(|relay| net.count(relay, |c| c.circuits) == 0));
    net.assert_nothing_left();
}

#[test]
fn draining_relays_take_no_circuits_and_keep_those_they_have() {
    let mut net = with_shards(53, 2);
    let client = net.client(0);
    let id = net.build(client, &[0, 1, 2], &[]);
    net.relays[1].engines.iter_mut().for_each(|engine| engine.drain());
    net.exchange(client, id, Exchange::new(4, 9000, 9000));
    let refused = net.start(client, &[0, 1, 2], &[]);
    net.settle();
    let reason = CloseReason::Destroyed(DestroyReason::Destroyed);
    assert_eq!(net.circuit(client, refused).closed, Some(reason));
    net.assert_nothing_left();
}
