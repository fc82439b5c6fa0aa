//! What a relay does about clients that ask for too much.

use std::net::IpAddr;
use std::time::Duration;

use onionring_proto::cell::{CircId, Command, DestroyReason};
use onionring_proto::rate::Rate;
use onionring_proto::relay_msg::{EndReason, RelayCmd, Resolved, ResolvedValue, StreamId};
use onionring_relay::engine::counters::Counters;
use onionring_relay::engine::dos::{
    CircuitLimits, ConnectionLimits, DosLimits, Refused, StreamDefence, StreamLimits,
};

use super::by_hand::{ByHand, Heard, create2, rogue_hop};
use super::net::{Net, NetConfig, address};

/// The address of all clients.
const CLIENTS: [u8; 4] = [10, 0, 0, 1];

fn refused(net: &mut Net, relay: usize, label: &'static str) -> usize {
    net.count(relay, |c| c.dos_refused.get(label).copied().unwrap_or(0) as usize)
}

fn marked(net: &mut Net, label: &'static str) -> usize {
    net.count(0, |c| c.dos_marked.get(label).copied().unwrap_or(0) as usize)
}

#[test]
fn connections_of_one_address_are_counted_over_all_shards() {
    let mut config = NetConfig::new(&[3, 1]);
    config.dos.connections = Some(ConnectionLimits {
        concurrent: 3,
        connects: Rate { per_second: 1, burst: 100 },
        refuse: true,
        period: Duration::from_secs(3600),
    });
    let mut net = Net::new(31, config);
    let clients: Vec<_> = (0..4).map(|_| net.client(0)).collect();
    let admit = |net: &mut Net, shard: usize, from: IpAddr| {
        let now = net.now;
        net.relays[0].engines[shard].admit(now, from).map(drop)
    };
    for shard in 0..3 {
        assert_eq!(admit(&mut net, shard, CLIENTS.into()), Err(Refused::Concurrent));
        assert_eq!(admit(&mut net, shard, [10, 0, 0, 2].into()), Ok(()));
    }
    assert_eq!(refused(&mut net, 0, "concurrent_connections"), 3);
    net.hang_up(clients[0]);
    net.settle();
    assert_eq!(admit(&mut net, 0, CLIENTS.into()), Ok(()));

    // Those that come and go too often are marked.
    for _ in 0..200 {
        let _ = admit(&mut net, 1, CLIENTS.into());
    }
    assert_eq!(marked(&mut net, "connects"), 1);
    assert_eq!(admit(&mut net, 2, CLIENTS.into()), Err(Refused::Connects));
    // The links that stand are left alone.
    ByHand::create(&mut net, clients[1]);
    net.assert_nothing_left();
}

#[test]
fn connections_count_whoever_the_peer_proves_to_be() {
    let mut config = NetConfig::new(&[1, 1]);
    config.dos.connections = Some(ConnectionLimits {
        concurrent: 0,
        connects: Rate { per_second: 1, burst: 100 },
        refuse: true,
        period: Duration::from_secs(3600),
    });
    let mut net = Net::new(32, config);
    // Number 8 is not in the consensus, number 1 is.
    for identity in [8, 1] {
        let peer = net.connect(0, Some(identity));
        net.settle();
        assert!(net.peers[peer].link().is_some());
        let admit = |net: &mut Net| {
            let now = net.now;
            net.relays[0].engines[0].admit(now, address(identity).ip()).map(drop)
        };
        assert_eq!(admit(&mut net), Err(Refused::Concurrent));
        net.hang_up(peer);
        net.settle();
        assert_eq!(admit(&mut net), Ok(()));
    }
    assert_eq!(refused(&mut net, 0, "concurrent_connections"), 2);
    net.assert_nothing_left();
}

#[test]
fn a_client_that_creates_too_many_circuits_is_refused_before_the_public_key_work() {
    for shards in [1, 3] {
        let mut config = NetConfig::new(&[shards, 1]);
        config.dos.circuits = Some(CircuitLimits {
            min_connections: 2,
            creates: Rate { per_second: 1, burst: 5 },
            max_outq: 3,
            refuse: true,
            period: Duration::from_secs(60),
        });
        let mut net = Net::new(33, config);
        let (flooder, relay) = (net.client(0), net.connect(0, Some(1)));
        net.settle();
        // With one connection, it may.
        ByHand::create_many(&mut net, flooder, 20);
        assert_eq!((marked(&mut net, "circuits"), net.count(0, |c| c.circuits)), (0, 20));
        net.advance(Duration::from_secs(10));
        let second = net.client(0);
        assert_eq!(ByHand::create_many(&mut net, flooder, 4).len(), 4);
        // The fifth is the last of the burst.
        assert_eq!(ByHand::create_many(&mut net, second, 10).len(), 0);
        assert_eq!((marked(&mut net, "circuits"), refused(&mut net, 0, "circuits")), (1, 10));
        assert_eq!(net.count(0, |c| c.handshakes_done["fast"] as usize), 24);
        let told = DestroyReason::ResourceLimit.to_wire();
        let destroys = net.peers[second].stray.drain(..);
        assert!(destroys.map(|(_, command, body)| (command, body[0])).eq([(Command::DESTROY, told); 10]));
        // A circuit that there is survives that its id is used again.
        let create = create2(&mut net, 0);
        let mut first = ByHand::create(&mut net, relay);
        net.peers[flooder].send(first.id, Command::CREATE2, &create);
        net.settle();
        first.say(&mut net, 0, RelayCmd::BEGIN_DIR, 1, b"");
        assert!(!first.heard(&mut net).is_empty());
        // Relays are not limited.
        assert_eq!(ByHand::create_many(&mut net, relay, 30).len(), 30);
        net.advance(Duration::from_secs(91));
        ByHand::create(&mut net, flooder);
        net.assert_nothing_left();
    }
}

#[test]
fn a_defence_that_only_counts_refuses_nobody() {
    let mut config = NetConfig::new(&[2, 1]);
    config.dos.connections = Some(ConnectionLimits {
        concurrent: 1,
        connects: Rate { per_second: 1, burst: 5 },
        refuse: false,
        period: Duration::from_secs(3600),
    });
    config.dos.circuits = Some(CircuitLimits {
        min_connections: 2,
        creates: Rate { per_second: 1, burst: 5 },
        max_outq: 3,
        refuse: false,
        period: Duration::from_secs(60),
    });
    let mut net = Net::new(35, config);
    let clients: Vec<_> = (0..8).map(|_| net.client(0)).collect();
    // The third to the fifth are too many at a time, the others come too fast.
    assert_eq!(refused(&mut net, 0, "concurrent_connections"), 3);
    assert_eq!((marked(&mut net, "connects"), refused(&mut net, 0, "connects")), (1, 3));
    assert_eq!(ByHand::create_many(&mut net, clients[0], 10).len(), 10);
    assert_eq!((marked(&mut net, "circuits"), refused(&mut net, 0, "circuits")), (1, 6));
    // What is ignored or refused for another reason is no circuit of a flood.
    let create = create2(&mut net, 0);
    net.peers[clients[0]].send(CircId(1), Command::CREATE2, &create);
    net.settle();
    let wrong =
        |c: &Counters| c.creates_refused.get("circuit_id_of_wrong_half").copied().unwrap_or(0) as usize;
    assert_eq!(net.count(0, wrong), 1);
    assert_eq!(refused(&mut net, 0, "circuits"), 6);
    net.assert_nothing_left();
}

/// Has the queue of a new circuit away from `peer` filled, or with `inbound` the one towards it.
fn fill_queue(net: &mut Net, peer: usize, inbound: bool) -> bool {
    let Some(mut circuit) = ByHand::create_many(net, peer, 1).pop() else { return false };
    let rogue = rogue_hop(net, &mut circuit, 7);
    let (far_id, _, _) = net.peers[rogue].stray.pop().unwrap();
    let (deaf, from, id) = if inbound { (peer, rogue, far_id) } else { (rogue, peer, circuit.id) };
    net.peers[deaf].deaf = true;
    // More than the connection takes.
    for n in 0..200 {
        net.peers[from].send(id, Command::RELAY, &[n; 509]);
        net.settle();
    }
    net.peers[deaf].deaf = false;
    net.settle();
    true
}

#[test]
fn a_client_whose_circuits_fill_their_queues_away_from_it_gets_no_further_ones() {
    for shards in [1, 3] {
        let mut config = NetConfig::new(&[shards, 1]);
        config.params.cells_per_circuit = [20; 2];
        config.dos.circuits = Some(CircuitLimits {
            min_connections: 100,
            creates: Rate { per_second: 100, burst: 1000 },
            max_outq: 3,
            refuse: true,
            period: Duration::from_secs(60),
        });
        let mut net = Net::new(36, config);
        let (client, relay) = (net.client(0), net.connect(0, Some(1)));
        net.settle();
        let closed = |net: &mut Net, label| {
            net.count(0, |c| c.circuits_closed.get(label).copied().unwrap_or(0) as usize)
        };
        // What comes from the far end is not the client's doing, and relays are not limited.
        for _ in 0..4 {
            assert!(fill_queue(&mut net, client, true));
            assert!(fill_queue(&mut net, relay, false));
        }
        assert_eq!(closed(&mut net, "queue_overrun_inbound"), 4);
        assert_eq!(closed(&mut net, "queue_overrun_outbound"), 4);
        assert_eq!(marked(&mut net, "queues"), 0);
        for n in 1..=3 {
            assert!(fill_queue(&mut net, client, false));
            assert_eq!(marked(&mut net, "queues"), n / 3);
        }
        assert_eq!(closed(&mut net, "queue_overrun_outbound"), 7);
        assert_eq!(ByHand::create_many(&mut net, client, 5).len(), 0);
        assert_eq!((marked(&mut net, "circuits"), refused(&mut net, 0, "circuits")), (0, 5));
        net.advance(Duration::from_secs(91));
        assert!(fill_queue(&mut net, client, false));
        net.assert_nothing_left();
    }
}

#[test]
fn a_circuit_that_asks_for_too_many_streams_is_refused_or_closed() {
    for defence in [StreamDefence::Count, StreamDefence::Refuse, StreamDefence::CloseCircuit] {
        let mut config = NetConfig::new(&[1, 2]);
        let opens = Rate { per_second: 1, burst: 3 };
        config.dos = DosLimits { streams: Some(StreamLimits { opens, defence }), ..DosLimits::default() };
        let mut net = Net::new(34, config);
        let client = net.client(0);
        let mut circuit = ByHand::create(&mut net, client);
        circuit.extend(&mut net, 1);
        net.sinks_stuck = true;
        // The directory is free.
        for stream in 1..=10 {
            circuit.say(&mut net, 1, RelayCmd::BEGIN_DIR, stream, b"");
        }
        // What would be refused anyway takes no token.
        circuit.say(&mut net, 1, RelayCmd::BEGIN, 16, b"nonsense\0");
        let nonsense = EndReason::TorProtocol.to_wire();
        let heard = circuit.heard(&mut net);
        assert!(
            matches!(&heard[..], [Heard::Message { cmd: RelayCmd::END, data, .. }] if data[0] == nonsense)
        );
        for stream in 11..=13 {
            circuit.say(&mut net, 1, RelayCmd::BEGIN, stream, b"x-1-0-60000.test:80\0");
        }
        assert_eq!(circuit.heard(&mut net), []);
        circuit.say(&mut net, 1, RelayCmd::BEGIN, 14, b"x-1-0-60000.test:80\0");
        net.settle();
        circuit.say(&mut net, 1, RelayCmd::RESOLVE, 15, b"x.test\0");
        let heard = circuit.heard(&mut net);
        let message = |cmd, stream, data| Heard::Message { hop: 1, cmd, stream: StreamId(stream), data };
        match defence {
            StreamDefence::Count => assert_eq!(heard, []),
            StreamDefence::Refuse => {
                let mut resolved = Vec::new();
                Resolved { answers: vec![(ResolvedValue::TransientError, 60)] }.write(&mut resolved);
                let end = message(RelayCmd::END, 14, vec![EndReason::Misc.to_wire()]);
                assert_eq!(heard, [end, message(RelayCmd::RESOLVED, 15, resolved)]);
            }
            // What is behind the first relay reaches the client as DESTROY.
            StreamDefence::CloseCircuit => {
                assert!(matches!(heard[..], [Heard::Cell(Command::DESTROY, _)]), "{heard:?}");
                assert_eq!(net.count(1, |c| c.circuits_closed.contains_key("too_many_streams").into()), 1);
            }
        }
        // What is let through is counted as well.
        let expected = match defence {
            StreamDefence::Count | StreamDefence::Refuse => 2,
            StreamDefence::CloseCircuit => 1,
        };
        assert_eq!(refused(&mut net, 1, "streams"), expected);
        if defence == StreamDefence::Refuse {
            net.advance(Duration::from_secs(1));
            circuit.say(&mut net, 1, RelayCmd::BEGIN, 14, b"x-1-0-60000.test:80\0");
            assert_eq!(circuit.heard(&mut net), []);
        }
        net.assert_nothing_left();
    }
}
