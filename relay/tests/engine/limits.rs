//! What happens at every limit that a peer can reach.

use onionring_proto::cell::{CircId, Command, DestroyReason, LinkVersion};
use onionring_proto::limits::STREAMS_PER_CIRCUIT;
use onionring_proto::relay_msg::{EndReason, MAX_DATA_LEN, RelayCmd, StreamId};
use onionring_relay::engine::queue::CellPool;
use onionring_relay::limits::{
    CELLS_HIGH, CELLS_PER_CIRCUIT, CREATE_WAIT, CROSSING_BACKLOG, CROSSING_BATCH, PENDING_CREATES,
    REFUSALS_PER_LINK, STREAM_WRITE_CHUNK,
};

use super::by_hand::{ByHand, Heard, create2, small};
use super::net::{Net, NetConfig};
use super::sink::Exchange;

#[test]
fn a_circuit_whose_client_does_not_read_is_closed_at_its_limit() {
    let (mut net, client) = small(1, 2);
    let other = net.client(0);
    let id = net.build(other, &[0, 1], &[]);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    net.peers[client].deaf = true;
    // Each unknown host costs the exit one END; none of them is read.
    for n in 0..CELLS_PER_CIRCUIT + 200 {
        circuit.say(&mut net, 1, RelayCmd::BEGIN, n as u16 + 1, b"unknown.test:80\0");
        if n % 50 == 0 {
            net.settle();
        }
    }
    net.settle();
    assert_eq!(net.count(0, |c| c.circuits), 1);
    assert_eq!(net.count(0, |c| c.queued_cells), 0);
    net.peers[client].deaf = false;
    let heard = circuit.heard(&mut net);
    assert_eq!(heard.last(), Some(&Heard::Cell(Command::DESTROY, DestroyReason::ResourceLimit.to_wire())));
    net.exchange(other, id, Exchange::new(1, 1000, 1000));
    net.assert_nothing_left();
}

#[test]
fn the_memory_of_a_shard_holds_and_the_oldest_goes_first() {
    for shards in [1, 3] {
        let mut config = NetConfig::new(&[shards, 1]);
        // About 190 cells for each shard.
        config.queue_bytes = 100_000;
        let mut net = Net::new(2, config);
        let mut circuits = Vec::new();
        for _ in 0..4 {
            let client = net.client(0);
            let mut circuit = ByHand::create(&mut net, client);
            circuit.extend(&mut net, 1);
            net.peers[client].deaf = true;
            circuits.push(circuit);
        }
        for n in 0..150 * shards {
            for circuit in &mut circuits {
                circuit.say(&mut net, 1, RelayCmd::BEGIN, n + 1, b"unknown.test:80\0");
            }
            net.settle();
            for engine in &mut net.relays[0].engines {
                let counters = engine.counters();
                assert!(counters.queued_cells * CellPool::BYTES_PER_CELL <= 100_000);
            }
        }
        let shed = net.count(0, |c| c.circuits_shed as usize);
        assert!(shed > 0 && net.count(0, |c| c.circuits) < 4);
        assert!(net.count(0, |c| c.bytes_shed as usize) > 0);
        // Whoever reads goes on.
        let other = net.client(0);
        net.build(other, &[0, 1], &[Exchange::new(1, 30_000, 30_000)]);
        net.assert_nothing_left();
    }
}

#[test]
fn bytes_that_an_exit_does_not_take_are_bounded() {
    let mut config = NetConfig::new(&[1, 1]);
    config.queue_bytes = 400_000;
    let mut net = Net::new(3, config);
    let client = net.client(0);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    for stream in 1..=20 {
        circuit.say(&mut net, 1, RelayCmd::BEGIN, stream, b"x-1-999999-0.test:80\0");
    }
    net.settle();
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = true);
    // The circuit's window opens at once, each stream's stays shut: without a bound this is 20 * 250 kB.
    for _ in 0..100 {
        for stream in 1..=20 {
            circuit.say(&mut net, 1, RelayCmd::DATA, stream, &[0; 498]);
        }
        net.settle();
        assert!(net.count(1, |c| c.inbox_bytes) <= 400_498);
    }
    assert_eq!(net.count(1, |c| c.circuits_shed as usize), 1);
    assert_eq!(net.count(1, |c| c.inbox_bytes), 0);
    net.assert_nothing_left();
}

#[test]
fn a_circuit_has_only_so_many_streams() {
    let (mut net, client) = small(4, 1);
    let mut circuit = ByHand::create(&mut net, client);
    net.sinks_stuck = true;
    for n in 1..=STREAMS_PER_CIRCUIT as u16 + 1 {
        circuit.say(&mut net, 0, RelayCmd::BEGIN_DIR, n, b"");
    }
    let refused = |stream| Heard::Message {
        hop: 0,
        cmd: RelayCmd::END,
        stream: StreamId(stream),
        data: vec![EndReason::ResourceLimit.to_wire()],
    };
    assert_eq!(circuit.heard(&mut net), [refused(STREAMS_PER_CIRCUIT as u16 + 1)]);
    assert_eq!(net.count(0, |c| c.streams), STREAMS_PER_CIRCUIT);
    circuit.say(&mut net, 0, RelayCmd::END, 1, &[6]);
    net.assert_nothing_left();
}

#[test]
fn a_flood_of_creates_costs_the_flooder() {
    let (mut net, flooder) = small(5, 1);
    let client = net.client(0);
    let create = create2(&mut net, 0);
    // Nobody works on handshakes meanwhile: hand all cells over at once.
    let mut cells = Vec::new();
    for n in 0..PENDING_CREATES as u32 + 500 {
        net.peers[flooder].send(CircId(0x8000_0001 + n), Command::CREATE2, &create);
        cells.append(&mut net.peers[flooder].out);
    }
    let id = net.start(client, &[0], &[]);
    let now = net.now;
    net.peers[client].work(now, &mut rand_chacha::ChaCha20Rng::from_seed([3; 32]));
    let honest = std::mem::take(&mut net.peers[client].out);
    let half = cells.len() / 2 / 514 * 514;
    net.inject(flooder, &mut cells[..half]);
    net.inject(client, &mut honest.clone());
    net.inject(flooder, &mut cells[half..]);
    let engine = &mut net.relays[0].engines[0];
    assert_eq!(engine.counters().pending_creates, PENDING_CREATES);
    assert_eq!(engine.counters().creates_shed, 501);
    assert_eq!(
        (engine.counters().relay_ntor, engine.counters().relay_ntor_shed),
        (0, 0),
        "these are clients"
    );
    net.settle();
    assert!(net.circuit(client, id).closed.is_none() && net.circuit(client, id).origin.hops() == 1);
    net.assert_nothing_left();
}

use rand_core::SeedableRng;

#[test]
fn a_peer_that_makes_work_and_reads_nothing_loses_its_link() {
    let (mut net, flooder) = small(6, 2);
    let client = net.client(0);
    let id = net.build(client, &[0, 1], &[]);
    assert_eq!([0, 1].map(|relay| net.count(relay, |c| c.relay_ntor as usize)), [0, 1]);
    net.peers[flooder].deaf = true;
    let mut cells = Vec::new();
    for n in 0..REFUSALS_PER_LINK as u32 + 200 {
        net.peers[flooder].send(CircId(1 + n), Command::CREATE, &[0; 509]);
        cells.append(&mut net.peers[flooder].out);
    }
    net.inject(flooder, &mut cells);
    net.settle();
    assert_eq!(net.count(0, |c| c.links_closed.get("overrun").copied().unwrap_or(0) as usize), 1);
    net.exchange(client, id, Exchange::new(1, 1000, 1000));
    net.assert_nothing_left();
}

#[test]
fn a_shard_that_is_far_behind_stops_the_reading_of_others() {
    let mut net = Net::new(7, NetConfig::new(&[2, 1]));
    let client = net.client(0);
    let (_, shard) = net.link_of(client);
    // Cells for unknown circuits cross all the same; the other shard takes none of them for now.
    let (mut taken, mut id) = (0, 0x8000_0001);
    while !net.relays[0].engines[shard].congested() {
        let mut cells = Vec::new();
        for _ in 0..100 {
            net.peers[client].send(CircId(id), Command::RELAY, &[0; 509]);
            cells.append(&mut net.peers[client].out);
            id += 1;
        }
        taken += net.inject(client, &mut cells);
    }
    // Half of them are at home where they came in.
    let backlog = CROSSING_BACKLOG * CROSSING_BATCH * 514;
    assert!((backlog..backlog * 5 / 2).contains(&taken), "{taken} bytes");
    net.settle();
    assert!(!net.relays[0].engines[shard].congested());
    assert!(!net.peers[client].is_closed());
    net.assert_nothing_left();
}

/// How often relay number `relay` refused a circuit for this reason.
fn refused(net: &mut Net, relay: usize, label: &'static str) -> usize {
    net.count(relay, |c| c.creates_refused.get(label).copied().unwrap_or(0) as usize)
}

#[test]
fn links_and_shards_carry_only_so_many_circuits() {
    for (client_is_relay, label) in
        [(false, "circuits_of_link"), (true, "circuits_of_link"), (true, "circuits_of_shard")]
    {
        let mut config = NetConfig::new(&[1, 1]);
        let params = &mut config.params;
        match (label, client_is_relay) {
            ("circuits_of_shard", _) => params.circuits_per_shard = 3,
            (_, true) => params.circuits_per_link = 3,
            (_, false) => params.circuits_per_client = 3,
        }
        let mut net = Net::new(8, config);
        let peer = net.connect(0, client_is_relay.then_some(7));
        net.settle();
        let circuits: Vec<_> = (0..3).map(|_| ByHand::create(&mut net, peer)).collect();
        let id = net.peers[peer].free_circ_id(&mut net.rng);
        assert!(ByHand::create_as(&mut net, peer, id).is_none());
        let (last, command, body) = net.peers[peer].stray.pop().unwrap();
        let told = (id, Command::DESTROY, DestroyReason::ResourceLimit.to_wire());
        assert_eq!((last, command, body[0]), told);
        assert_eq!(refused(&mut net, 0, label), 1);
        assert_eq!(net.count(0, |c| c.handshakes_done["fast"] as usize), 3, "before the public-key work");
        // An id in use stays what it was, also on a full link.
        let create = create2(&mut net, 0);
        net.peers[peer].send(circuits[0].id, Command::CREATE2, &create);
        net.settle();
        assert_eq!((refused(&mut net, 0, label), net.count(0, |c| c.circuits)), (1, 3));
        // Others have room, except in a full shard.
        let other = net.client(0);
        let id = net.peers[other].free_circ_id(&mut net.rng);
        assert_eq!(ByHand::create_as(&mut net, other, id).is_some(), label == "circuits_of_link");
        net.peers[peer].send(circuits[0].id, Command::DESTROY, &[0; 509]);
        net.hang_up(other);
        ByHand::create(&mut net, peer);
        net.assert_nothing_left();
    }
}

#[test]
fn a_peer_that_does_not_read_that_its_circuits_are_gone_gets_no_more_of_them() {
    let mut config = NetConfig::new(&[1]);
    config.params.circuits_per_client = 5;
    let mut net = Net::new(9, config);
    let client = net.client(0);
    net.peers[client].deaf = true;
    for n in 0..50 {
        let id = CircId(0x8000_0001 + n);
        net.peers[client].send(id, Command::CREATE_FAST, &[0; 509]);
        // Not for relays: closes the circuit.
        net.settle();
        net.peers[client].send(id, Command::CREATED_FAST, &[0; 509]);
        net.settle();
    }
    // What the kernel would take is not counted.
    let created = net.count(0, |c| c.circuits_created as usize);
    assert!(created < 50 && refused(&mut net, 0, "circuits_of_link") == 50 - created, "{created}");
    net.assert_nothing_left();
}

#[test]
fn what_clients_do_does_not_close_a_link_between_relays() {
    let (mut net, flooder) = small(10, 1);
    let client = net.client(0);
    net.rogues.insert(7, Vec::new());
    let mut honest = ByHand::create(&mut net, client);
    honest.ask_extend(&mut net, 7);
    net.settle();
    let deaf = net.rogues[&7][0];
    net.peers[deaf].deaf = true;
    // Circuits that are extended and cut again, more often than a link takes refusals.
    let mut circuits: Vec<_> = (0..100).map(|_| ByHand::create(&mut net, flooder)).collect();
    for _ in 0..REFUSALS_PER_LINK / 100 + 2 {
        for circuit in &mut circuits {
            circuit.ask_extend(&mut net, 7);
            circuit.say(&mut net, 0, RelayCmd::TRUNCATE, 0, &[0]);
        }
        net.settle();
        for circuit in &mut circuits {
            // RELAY_EARLY is rationed.
            net.peers[flooder].send(circuit.id, Command::DESTROY, &[0; 509]);
            *circuit = ByHand { peer: flooder, ..ByHand::create(&mut net, flooder) };
        }
        net.peers[flooder].stray.clear();
    }
    assert!(net.peers[deaf].link().is_some());
    assert_eq!(net.count(0, |c| c.links_closed.len()), 0);
    net.assert_nothing_left();
}

#[test]
fn a_link_that_is_to_be_closed_for_overrun_is_not_spared_by_a_circuit_that_leaves_it() {
    let (mut net, flooder) = small(11, 1);
    let circuit = ByHand::create(&mut net, flooder);
    net.peers[flooder].deaf = true;
    let mut cells = Vec::new();
    for n in 0..REFUSALS_PER_LINK as u32 + 1 {
        net.peers[flooder].send(CircId(1 + n), Command::CREATE, &[0; 509]);
        cells.append(&mut net.peers[flooder].out);
    }
    net.peers[flooder].send(circuit.id, Command::DESTROY, &[0; 509]);
    cells.append(&mut net.peers[flooder].out);
    net.inject(flooder, &mut cells);
    net.settle();
    assert_eq!(net.count(0, |c| c.links_closed.get("overrun").copied().unwrap_or(0) as usize), 1);
    net.assert_nothing_left();
}

#[test]
fn circuits_that_are_refused_are_counted_by_reason() {
    let (mut net, client) = small(12, 1);
    let mut wrong_length = create2(&mut net, 0);
    wrong_length[3] = 83;
    let mut wrong_type = create2(&mut net, 0);
    wrong_type[1] = 9;
    let good = create2(&mut net, 0);
    let creates = [
        (0x8000_0001, Command::CREATE, good, "tap"),
        (5, Command::CREATE2, good, "circuit_id_of_wrong_half"),
        (0x8000_0001, Command::CREATE2, wrong_length, "length"),
        (0x8000_0001, Command::CREATE2, wrong_type, "unknown_type"),
        (0x8000_0001, Command::CREATE2, good, "draining"),
    ];
    for (id, command, body, label) in creates {
        if label == "draining" {
            net.relays[0].engines[0].drain();
        }
        net.peers[client].send(CircId(id), command, &body);
        net.settle();
        assert_eq!(refused(&mut net, 0, label), 1, "{label}");
    }
    assert_eq!(net.count(0, |c| c.cells_ignored.len()), 0);
    net.assert_nothing_left();
}

#[test]
fn a_circuit_may_be_closed_by_what_is_written_to_it() {
    let mut config = NetConfig::new(&[1]);
    // Two cells, where the directory's answer takes seven.
    config.queue_bytes = 2 * CellPool::BYTES_PER_CELL;
    let mut net = Net::new(13, config);
    let client = net.client(0);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.say(&mut net, 0, RelayCmd::BEGIN_DIR, 5, b"");
    let heard = circuit.heard(&mut net);
    assert_eq!(heard.last(), Some(&Heard::Cell(Command::DESTROY, DestroyReason::ResourceLimit.to_wire())));
    assert!(net.relays[0].sinks.is_empty());
    net.assert_nothing_left();
}

#[test]
fn full_rings_between_shards_lose_nothing() {
    for ring in [1, 3] {
        let mut config = NetConfig::new(&[3, 2]);
        config.ring = ring;
        let mut net = Net::new(14, config);
        let client = net.client(0);
        let ids: Vec<_> = (0..6).map(|_| net.build(client, &[0, 1], &[])).collect();
        for (n, &id) in ids.iter().enumerate() {
            let mut rng = rand_chacha::ChaCha20Rng::from_seed([n as u8; 32]);
            net.circuit(client, id).plans.push(Exchange::new(n as u8, 300_000, 300_000));
            net.circuit(client, id).begin_plans(&mut rng);
        }
        // One shard after the other does nothing for a while, and the others go on.
        let mut waited = 0;
        for shard in [0, 1, 2] {
            net.stalled.insert((0, shard));
            for _ in 0..300 {
                net.round();
                waited = waited.max(net.count(0, |c| c.batches_waiting));
            }
            net.stalled.clear();
            (0..20).for_each(|_| _ = net.round());
        }
        assert!(waited > ring, "{waited}");
        net.settle();
        for id in ids {
            let circuit = net.circuit(client, id);
            assert!(circuit.closed.is_none() && circuit.exchanges.values().all(|running| running.complete()));
        }
        net.assert_nothing_left();
    }
}

#[test]
fn a_link_has_only_so_many_circuit_ids() {
    let mut config = NetConfig::new(&[1]);
    config.versions = vec![vec![LinkVersion::V3]];
    config.params.circuits_per_client = usize::MAX;
    let mut net = Net::new(15, config);
    // One client has no more ids than the link to the next hop has.
    let clients = [net.client(0), net.client(0)];
    net.rogues.insert(7, Vec::new());
    let closed = |net: &mut Net| {
        net.count(0, |c| c.circuits_closed.get("circuit_ids_exhausted").copied().unwrap_or(0) as usize)
    };
    // Half of 16 bits; 64 random tries find a free one until hardly any is.
    let mut circuits = Vec::new();
    while closed(&mut net) < 1000 {
        assert!(circuits.len() < 2 << 15);
        let client = clients[circuits.len() / 1000 % 2];
        let mut more = ByHand::create_many(&mut net, client, 1000);
        more.iter_mut().for_each(|circuit| drop(circuit.ask_extend(&mut net, 7)));
        net.settle();
        circuits.append(&mut more);
    }
    let refused = Heard::Cell(Command::DESTROY, DestroyReason::ResourceLimit.to_wire());
    let exhausted = closed(&mut net);
    let told = clients.iter().flat_map(|&client| &net.peers[client].stray);
    let told = told.filter(|(_, command, body)| Heard::Cell(*command, body[0]) == refused).count();
    assert_eq!(told, exhausted);
    // Ids of circuits that are over are in use until the peer can know.
    let rogue = net.rogues[&7][0];
    net.peers[rogue].deaf = true;
    circuits.iter_mut().for_each(|circuit| circuit.say(&mut net, 0, RelayCmd::TRUNCATE, 0, &[0]));
    net.settle();
    let mut again = ByHand::create_many(&mut net, clients[0], 200);
    again.iter_mut().for_each(|circuit| drop(circuit.ask_extend(&mut net, 7)));
    net.settle();
    assert!(closed(&mut net) > exhausted + 20, "{}", closed(&mut net) - exhausted);
    net.peers[rogue].deaf = false;
    net.settle();
    let before = closed(&mut net);
    let mut again = ByHand::create_many(&mut net, clients[0], 200);
    again.iter_mut().for_each(|circuit| drop(circuit.ask_extend(&mut net, 7)));
    net.settle();
    assert_eq!(closed(&mut net), before);
    net.assert_nothing_left();
}

#[test]
fn handshakes_that_have_waited_too_long_are_refused() {
    let (mut net, client) = small(16, 1);
    let create = create2(&mut net, 0);
    net.peers[client].send(CircId(0x8000_0001), Command::CREATE2, &create);
    let mut cells = std::mem::take(&mut net.peers[client].out);
    net.inject(client, &mut cells);
    net.now = net.now + CREATE_WAIT + std::time::Duration::from_secs(1);
    net.settle();
    assert_eq!(refused(&mut net, 0, "waited_too_long"), 1);
    assert_eq!(net.count(0, |c| c.handshakes_done.len()), 0);
    net.assert_nothing_left();
}

#[test]
fn queues_have_their_own_limit_in_each_direction() {
    for limits in [[20, 2000], [2000, 20]] {
        let mut config = NetConfig::new(&[1, 1]);
        config.params.cells_per_circuit = limits;
        let mut net = Net::new(17, config);
        let client = net.client(0);
        let mut circuit = ByHand::create(&mut net, client);
        net.rogues.insert(7, Vec::new());
        let rogue = super::by_hand::rogue_hop(&mut net, &mut circuit, 7);
        let (id, _, _) = net.peers[rogue].stray.pop().unwrap();
        net.peers[client].deaf = true;
        net.peers[rogue].deaf = true;
        // More than the connection takes, either way.
        for n in 0..200 {
            let (peer, circ) = if limits[0] == 20 { (rogue, id) } else { (client, circuit.id) };
            net.peers[peer].send(circ, Command::RELAY, &[n; 509]);
            net.settle();
        }
        let label = if limits[0] == 20 { "queue_overrun_inbound" } else { "queue_overrun_outbound" };
        assert_eq!(net.count(0, |c| c.circuits_closed.get(label).copied().unwrap_or(0) as usize), 1);
        let (mut net, client) = (net, client);
        net.peers[client].deaf = false;
        net.assert_nothing_left();
    }
}

/// What the relay before an exit does not read waits at the destinations, but for a high mark and a turn's worth of cells.
#[test]
fn destinations_are_not_read_for_a_queue_that_is_long_already() {
    for shards in [1, 3] {
        let mut net = Net::new(18, NetConfig::new(&[1, shards]));
        let client = net.client(0);
        let id = net.start(client, &[0, 1], &vec![Exchange::new(1, 0, 400_000); 6]);
        while !net.circuit(client, id).exchanges.values().any(|running| running.received > 0) {
            assert!(net.round(), "they are stuck");
        }
        net.stalled.insert((0, 0));
        let mut most = 0;
        for _ in 0..500 {
            net.round();
            most = most.max(net.count(1, |c| c.queued_cells));
        }
        let turn = STREAM_WRITE_CHUNK / MAX_DATA_LEN;
        assert!((CELLS_HIGH..CELLS_HIGH + turn).contains(&most), "{most} cells with {shards} shards");
        net.stalled.clear();
        net.settle();
        assert!(net.circuit(client, id).exchanges.values().all(|running| running.complete()));
        net.assert_nothing_left();
    }
}
