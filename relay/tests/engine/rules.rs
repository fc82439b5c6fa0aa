//! What peers may and may not do, cell by cell (tor-spec 5 and 6, and what deployed relays do where it is silent).

use onionring_proto::cell::{CircId, Command, DestroyReason};
use onionring_proto::handshake::Created2;
use onionring_proto::relay_msg::{EndReason, Extend2, LinkSpecs, RelayCmd, StreamId};

use onionring_relay::engine::snapshot::KnownRelay;

use super::by_hand::{ByHand, Heard, body, create2, rogue_hop, small};
use super::keys::keys;
use super::net::{Net, NetConfig, address, target};
use super::sink::Exchange;

const PROTOCOL: u8 = 1;

fn destroy(reason: u8) -> Vec<Heard> {
    vec![Heard::Cell(Command::DESTROY, reason)]
}

/// What the relay says on a circuit id that nothing here keeps track of.
fn heard_on(net: &mut Net, peer: usize, id: CircId) -> Vec<(Command, u8)> {
    net.settle();
    let mine = |(circ, _, _): &mut (CircId, Command, _)| *circ == id;
    net.peers[peer].stray.extract_if(.., mine).map(|(_, command, body)| (command, body[0])).collect()
}

#[test]
fn creates_with_the_wrong_top_bit_are_refused() {
    let (mut net, client) = small(1, 1);
    let create = create2(&mut net, 0);
    for id in [1, 0x7fff_ffff] {
        net.peers[client].send(CircId(id), Command::CREATE2, &create);
        assert_eq!(heard_on(&mut net, client, CircId(id)), [(Command::DESTROY, PROTOCOL)]);
    }
    net.peers[client].send(CircId(0), Command::CREATE2, &create);
    assert_eq!(heard_on(&mut net, client, CircId(0)), []);
    assert!(ByHand::create_as(&mut net, client, CircId(0x8000_0000)).is_some());
    net.assert_nothing_left();
}

#[test]
fn an_id_in_use_cannot_be_created_again() {
    let (mut net, client) = small(2, 2);
    let mut circuit = ByHand::create(&mut net, client);
    let create = create2(&mut net, 0);
    for command in [Command::CREATE2, Command::CREATE_FAST, Command::CREATE] {
        net.peers[client].send(circuit.id, command, &create);
        circuit.assert_silent(&mut net);
    }
    // Also not from the other side: the id is the relay's own choice there.
    let rogue = rogue_hop(&mut net, &mut circuit, 7);
    let id = net.peers[rogue].stray[0].0;
    net.peers[rogue].send(id, Command::CREATE2, &create);
    assert_eq!(circuit.heard(&mut net), []);
    net.peers[rogue].send(id, Command::CREATED2, &body(&[0, 1, 9]));
    let heard = circuit.heard(&mut net);
    assert!(matches!(heard[..], [Heard::Message { cmd: RelayCmd::EXTENDED2, .. }]), "{heard:?}");
    // The id may be used again at once after DESTROY.
    net.peers[client].send(circuit.id, Command::DESTROY, &body(&[0]));
    assert!(ByHand::create_as(&mut net, client, circuit.id).is_some());
    net.assert_nothing_left();
}

#[test]
fn two_creates_in_one_go_make_one_circuit() {
    let (mut net, client) = small(3, 1);
    let create = create2(&mut net, 0);
    let id = net.peers[client].free_circ_id(&mut net.rng);
    net.peers[client].send(id, Command::CREATE2, &create);
    net.peers[client].send(id, Command::CREATE2, &create);
    assert_eq!(heard_on(&mut net, client, id).len(), 1);
    assert_eq!(net.count(0, |c| c.circuits), 1);
    // A DESTROY takes back a CREATE2 that has not been worked on.
    let id = net.peers[client].free_circ_id(&mut net.rng);
    net.peers[client].send(id, Command::CREATE2, &create);
    net.peers[client].send(id, Command::DESTROY, &body(&[0]));
    net.settle();
    assert_eq!(net.count(0, |c| c.circuits), 1);
    net.assert_nothing_left();
}

#[test]
fn handshakes_that_cannot_be_answered_are_refused() {
    let (mut net, client) = small(4, 1);
    let good = create2(&mut net, 0);
    let with = |start: &[u8]| {
        let mut create = good;
        create[..start.len()].copy_from_slice(start);
        create
    };
    let tap = (Command::CREATE, good);
    let wrong_type = [0, 1, 4, 99].map(|htype| (Command::CREATE2, with(&[0, htype])));
    let wrong_len = [[0, 83], [0, 85], [0, 0], [255, 255], [1, 249], [1, 250]];
    let wrong_len = wrong_len.map(|[a, b]| (Command::CREATE2, with(&[0, 2, a, b])));
    let wrong_relay = (Command::CREATE2, with(&[0, 2, 0, 84, 9]));
    for (command, create) in [tap, wrong_relay].into_iter().chain(wrong_type).chain(wrong_len) {
        let id = net.peers[client].free_circ_id(&mut net.rng);
        net.peers[client].send(id, command, &create);
        assert_eq!(heard_on(&mut net, client, id), [(Command::DESTROY, PROTOCOL)]);
    }
    net.assert_nothing_left();
}

#[test]
fn cells_for_unknown_circuits_are_ignored() {
    let (mut net, client) = small(5, 1);
    let commands =
        [Command::RELAY, Command::RELAY_EARLY, Command::DESTROY, Command::CREATED2, Command::CREATED_FAST];
    for command in commands {
        for id in [CircId(0x8000_1234), CircId(5), CircId(0)] {
            net.peers[client].send(id, command, &[7; 509]);
        }
    }
    net.settle();
    assert!(net.peers[client].stray.is_empty());
    assert!(!net.peers[client].is_closed());
    net.assert_nothing_left();
}

#[test]
fn commands_that_do_not_belong_on_a_circuit_close_it() {
    let (mut net, client) = small(6, 1);
    for command in [Command::CREATED, Command::CREATED2, Command::CREATED_FAST] {
        let mut circuit = ByHand::create(&mut net, client);
        net.peers[client].send(circuit.id, command, &[0; 509]);
        circuit.assert_destroyed(&mut net, PROTOCOL);
    }
    for command in [Command::PADDING, Command::NETINFO, Command(13), Command(99), Command::PADDING_NEGOTIATE]
    {
        let mut circuit = ByHand::create(&mut net, client);
        net.peers[client].send(circuit.id, command, &[0; 509]);
        circuit.assert_silent(&mut net);
    }
    net.assert_nothing_left();
}

#[test]
fn relay_early_is_rationed() {
    let (mut net, client) = small(7, 2);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    for _ in 0..7 {
        circuit.say_in(&mut net, Command::RELAY_EARLY, 1, RelayCmd::DROP, 0, &[]);
        assert_eq!(circuit.heard(&mut net), []);
    }
    circuit.say_in(&mut net, Command::RELAY_EARLY, 1, RelayCmd::DROP, 0, &[]);
    circuit.assert_destroyed(&mut net, PROTOCOL);
    // Passed on as what they are: the second hop has counted seven.
    assert_eq!(net.count(1, |c| c.received(Command::RELAY_EARLY) as usize), 7);
    net.assert_nothing_left();
}

#[test]
fn extend2_outside_relay_early_or_on_a_stream_is_ignored() {
    let (mut net, client) = small(8, 2);
    let mut circuit = ByHand::create(&mut net, client);
    let mut data = Vec::new();
    let target = target(1, onionring_proto::origin::HandshakeKind::Ntor);
    Extend2 { specs: target.specs, htype: 2, hdata: &[0; 84] }.write(&mut data);
    circuit.say(&mut net, 0, RelayCmd::EXTEND2, 0, &data);
    circuit.assert_silent(&mut net);
    circuit.say_in(&mut net, Command::RELAY_EARLY, 0, RelayCmd::EXTEND2, 3, &data);
    circuit.assert_silent(&mut net);
    circuit.extend(&mut net, 1);
    net.assert_nothing_left();
}

/// What the relay answers to an EXTEND2 with these specifiers.
fn extend_to(net: &mut Net, client: usize, specs: LinkSpecs) -> Vec<Heard> {
    let mut circuit = ByHand::create(net, client);
    let mut data = Vec::new();
    Extend2 { specs, htype: 2, hdata: &[0; 84] }.write(&mut data);
    circuit.say_in(net, Command::RELAY_EARLY, 0, RelayCmd::EXTEND2, 0, &data);
    circuit.heard(net)
}

#[test]
fn extend2_is_refused_where_it_must_not_lead() {
    let (mut net, client) = small(9, 3);
    let specs = |relay| target(relay, onionring_proto::origin::HandshakeKind::Ntor).specs;
    // The relay itself.
    assert_eq!(extend_to(&mut net, client, specs(0)), destroy(DestroyReason::ConnectFailed.to_wire()));
    // The previous hop, by either identity.
    let rogue = net.connect(0, Some(7));
    net.settle();
    assert_eq!(extend_to(&mut net, rogue, specs(7)), destroy(PROTOCOL));
    let by_ed = LinkSpecs { rsa_id: [9; 20], ..specs(7) };
    assert_eq!(extend_to(&mut net, rogue, by_ed), destroy(PROTOCOL));
    // Nobody there.
    assert_eq!(extend_to(&mut net, client, specs(5)), destroy(DestroyReason::ChannelClosed.to_wire()));
    // Private addresses, unless allowed, also if the relay is known.
    let mut snapshot = net.snapshot(0);
    snapshot.params.extend_to_private = false;
    net.set_snapshot(0, snapshot);
    assert_eq!(extend_to(&mut net, client, specs(1)), destroy(PROTOCOL));
    for ip in [
        "10.0.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let ipv4 = Some(std::net::SocketAddrV4::new(ip.parse().unwrap(), 9001));
        assert_eq!(extend_to(&mut net, client, LinkSpecs { ipv4, ..specs(1) }), destroy(PROTOCOL), "{ip}");
    }
    // IPv6 only, and the relay has none.
    let mut snapshot = net.snapshot(0);
    snapshot.relays = Default::default();
    net.set_snapshot(0, snapshot);
    let ipv6 = Some(std::net::SocketAddrV6::new("2001:db8::1".parse().unwrap(), 9001, 0, 0));
    assert_eq!(extend_to(&mut net, client, LinkSpecs { ipv4: None, ipv6, ..specs(1) }), destroy(PROTOCOL));
    net.assert_nothing_left();
}

#[test]
fn a_circuit_is_extended_once() {
    let (mut net, client) = small(10, 3);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    circuit.onion.truncate_hops(1);
    circuit.ask_extend(&mut net, 2);
    circuit.assert_destroyed(&mut net, PROTOCOL);
    // Nor while the first extension is under way.
    let mut circuit = ByHand::create(&mut net, client);
    net.relays[0].dials_hang = true;
    circuit.ask_extend(&mut net, 2);
    circuit.ask_extend(&mut net, 2);
    circuit.assert_destroyed(&mut net, PROTOCOL);
    net.relays[0].dials_hang = false;
    net.assert_nothing_left();
}

#[test]
fn malformed_messages_close_the_circuit_and_foreign_ones_do_nothing() {
    let (mut net, client) = small(11, 1);
    for (cmd, data) in [
        (RelayCmd::EXTEND, &b""[..]),
        (RelayCmd::SENDME, &[]),
        (RelayCmd::SENDME, &[2, 0, 0]),
        (RelayCmd::SENDME, &[1, 0, 20, 1]),
    ] {
        let mut circuit = ByHand::create(&mut net, client);
        circuit.say(&mut net, 0, cmd, 0, data);
        circuit.assert_destroyed(&mut net, PROTOCOL);
    }
    let mut circuit = ByHand::create(&mut net, client);
    circuit.say_in(&mut net, Command::RELAY_EARLY, 0, RelayCmd::EXTEND2, 0, &[1, 2]);
    circuit.assert_destroyed(&mut net, PROTOCOL);
    let mut circuit = ByHand::create(&mut net, client);
    for cmd in [0, 4, 7, 9, 10, 12, 15, 19, 32, 41, 43, 200] {
        circuit.say(&mut net, 0, RelayCmd(cmd), 0, &[1; 30]);
        circuit.say(&mut net, 0, RelayCmd(cmd), 9, &[1; 30]);
    }
    for cmd in [RelayCmd::BEGIN, RelayCmd::DATA, RelayCmd::END, RelayCmd::RESOLVE, RelayCmd::BEGIN_DIR] {
        circuit.say(&mut net, 0, cmd, 0, b"");
    }
    circuit.say(&mut net, 0, RelayCmd::END, 5, b"");
    circuit.say(&mut net, 0, RelayCmd::DATA, 5, b"for nobody");
    circuit.say(&mut net, 0, RelayCmd::SENDME, 5, b"");
    circuit.assert_silent(&mut net);
    net.assert_nothing_left();
}

#[test]
fn a_length_beyond_the_cell_closes_the_circuit() {
    let (mut net, client) = small(12, 1);
    let mut circuit = ByHand::create(&mut net, client);
    let mut cell = body(&[RelayCmd::DATA.0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 243]);
    circuit.onion.encrypt_outbound(0, &mut cell);
    net.peers[client].send(circuit.id, Command::RELAY, &cell);
    circuit.assert_destroyed(&mut net, PROTOCOL);
    net.assert_nothing_left();
}

#[test]
fn truncate_is_answered_also_at_the_end_and_needs_a_reason_before_it() {
    let (mut net, client) = small(13, 3);
    let mut circuit = ByHand::create(&mut net, client);
    let truncated =
        |hop| Heard::Message { hop, cmd: RelayCmd::TRUNCATED, stream: StreamId::CIRCUIT, data: vec![3] };
    circuit.say(&mut net, 0, RelayCmd::TRUNCATE, 0, &[]);
    assert_eq!(circuit.heard(&mut net), [truncated(0)]);
    circuit.extend(&mut net, 1);
    circuit.extend(&mut net, 2);
    circuit.say(&mut net, 1, RelayCmd::TRUNCATE, 0, &[9]);
    assert_eq!(circuit.heard(&mut net), [truncated(1)]);
    assert_eq!(net.count(2, |c| c.circuits), 0);
    circuit.say(&mut net, 0, RelayCmd::TRUNCATE, 0, &[]);
    circuit.assert_destroyed(&mut net, PROTOCOL);
    net.assert_nothing_left();
}

#[test]
fn created2_of_any_length_is_passed_on_or_ends_the_circuit() {
    let (mut net, client) = small(14, 1);
    for hlen in [0u16, 1, 64, 495, 496, 497, 507, 508, 509, 65535] {
        let mut circuit = ByHand::create(&mut net, client);
        let rogue = rogue_hop(&mut net, &mut circuit, 7);
        let (id, _, _) = net.peers[rogue].stray.pop().unwrap();
        let mut created = [0x33; 509];
        created[..2].copy_from_slice(&hlen.to_be_bytes());
        net.peers[rogue].send(id, Command::CREATED2, &created);
        if hlen <= 496 {
            let hdata = Created2::parse(&created).unwrap().hdata;
            let data = [&hlen.to_be_bytes()[..], hdata].concat();
            let extended =
                Heard::Message { hop: 0, cmd: RelayCmd::EXTENDED2, stream: StreamId::CIRCUIT, data };
            assert_eq!(circuit.heard(&mut net), [extended]);
        } else {
            circuit.assert_destroyed(&mut net, PROTOCOL);
            assert_eq!(
                net.peers[rogue].stray.pop().map(|(_, c, b)| (c, b[0])),
                Some((Command::DESTROY, PROTOCOL))
            );
        }
    }
    net.assert_nothing_left();
}

#[test]
fn what_the_next_hop_says_is_passed_back_or_ends_the_circuit() {
    let (mut net, client) = small(15, 1);
    // Before and after CREATED2, relay cells pass; a second CREATED2 is wrapped again.
    let mut circuit = ByHand::create(&mut net, client);
    let rogue = rogue_hop(&mut net, &mut circuit, 7);
    let (id, _, _) = net.peers[rogue].stray.pop().unwrap();
    net.peers[rogue].send(id, Command::RELAY, &[1; 509]);
    net.peers[rogue].send(id, Command::CREATED2, &body(&[0, 2, 5, 5]));
    net.peers[rogue].send(id, Command::CREATED2, &body(&[0, 2, 6, 6]));
    net.peers[rogue].send(CircId(id.0 ^ 1), Command::CREATED2, &body(&[0, 2, 6, 6]));
    let heard = circuit.heard(&mut net);
    assert_eq!(heard.len(), 3);
    assert_eq!(heard[0], Heard::Noise);
    // The noise went through the layer: nothing can be recognised after it, but the cells came in order.
    for (command, expected) in [
        (Command::RELAY_EARLY, PROTOCOL),
        (Command::CREATED, PROTOCOL),
        (Command::CREATED_FAST, PROTOCOL),
        (Command::DESTROY, DestroyReason::Destroyed.to_wire()),
    ] {
        let mut circuit = ByHand::create(&mut net, client);
        let rogue = rogue_hop(&mut net, &mut circuit, 7);
        let (id, _, _) = net.peers[rogue].stray.pop().unwrap();
        net.peers[rogue].send(id, command, &body(&[2]));
        circuit.assert_destroyed(&mut net, expected);
        let back: Vec<_> = heard_on(&mut net, rogue, id);
        let told = if command == Command::DESTROY { vec![] } else { vec![(Command::DESTROY, PROTOCOL)] };
        assert_eq!(back, told, "{command}");
    }
    net.assert_nothing_left();
}

#[test]
fn streams_keep_to_their_rules() {
    let (mut net, client) = small(16, 2);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    let end = |reason: EndReason| {
        vec![Heard::Message { hop: 1, cmd: RelayCmd::END, stream: StreamId(5), data: vec![reason.to_wire()] }]
    };
    for begin in [&b"no-nul.test:80"[..], b"no-port.test\0", b"zero.test:0\0"] {
        circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, begin);
        assert_eq!(circuit.heard(&mut net), end(EndReason::TorProtocol), "{begin:?}");
    }
    // One to three bytes of flags are as good as none.
    for flags in [&[0][..], &[0, 0], &[0, 0, 1]] {
        circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, &[b"unknown.test:80\0", flags].concat());
        assert_eq!(circuit.heard(&mut net), end(EndReason::ConnectRefused));
    }
    // An id in use: the second BEGIN is dropped. Data before CONNECTED is kept.
    let plan = Exchange::new(1, 4, 0);
    let mut up = [0; 4];
    plan.fill_up(0, &mut up);
    let begin = format!("{}:80\0", plan.host_name());
    circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, begin.as_bytes());
    circuit.say(&mut net, 1, RelayCmd::DATA, 5, &up[..2]);
    circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, begin.as_bytes());
    circuit.say(&mut net, 1, RelayCmd::DATA, 5, &up[2..]);
    let heard = circuit.heard(&mut net);
    assert!(matches!(heard[0], Heard::Message { cmd: RelayCmd::CONNECTED, .. }), "{heard:?}");
    assert_eq!(heard[1..], end(EndReason::Done));
    // Empty END closes the stream and nothing else.
    circuit.say(&mut net, 1, RelayCmd::BEGIN, 6, b"x-1-9-0.test:80\0");
    circuit.say(&mut net, 1, RelayCmd::END, 6, b"");
    let connected = |h: &Heard| matches!(h, Heard::Message { cmd: RelayCmd::CONNECTED, .. });
    assert!(circuit.heard(&mut net).iter().all(connected));
    assert_eq!(net.count(1, |c| c.streams), 0);
    net.assert_nothing_left();
}

#[test]
fn windows_that_are_overrun_close_the_circuit() {
    // 500 cells on a stream that is not read, in the window of 1000 of the circuit.
    let (mut net, client) = small(17, 2);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, b"x-1-999999-0.test:80\0");
    circuit.heard(&mut net);
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = true);
    for _ in 0..500 {
        circuit.say(&mut net, 1, RelayCmd::DATA, 5, &[0; 498]);
    }
    let heard = circuit.heard(&mut net);
    let sendmes = heard
        .iter()
        .filter(|h| matches!(h, Heard::Message { cmd: RelayCmd::SENDME, stream: StreamId(0), .. }));
    assert_eq!(
        (sendmes.count(), heard.len()),
        (5, 5),
        "circuit SENDMEs, and none for the stream that nobody reads"
    );
    circuit.say(&mut net, 1, RelayCmd::DATA, 5, &[0; 498]);
    circuit.assert_destroyed(&mut net, DestroyReason::Destroyed.to_wire());
    net.assert_nothing_left();
}

#[test]
fn empty_data_is_acknowledged_like_any_other() {
    let (mut net, client) = small(21, 2);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, b"x-1-9-0.test:80\0");
    circuit.heard(&mut net);
    for _ in 0..600 {
        circuit.say(&mut net, 1, RelayCmd::DATA, 5, b"");
        net.settle();
    }
    let heard = circuit.heard(&mut net);
    let sendmes = |on| {
        heard.iter().filter(
            move |h| matches!(h, Heard::Message { cmd: RelayCmd::SENDME, stream, .. } if stream.0 == on),
        )
    };
    assert_eq!((sendmes(5).count(), sendmes(0).count(), heard.len()), (12, 6, 18));
    net.assert_nothing_left();
}

#[test]
fn the_id_of_a_stream_that_the_client_ended_can_be_used_at_once() {
    let (mut net, client) = small(22, 2);
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    net.sinks_stuck = true;
    circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, b"x-1-9-0.test:80\0");
    circuit.say(&mut net, 1, RelayCmd::DATA, 5, b"not yet taken");
    net.settle();
    // The driver does nothing about the old one meanwhile.
    circuit.say(&mut net, 1, RelayCmd::END, 5, &[6]);
    net.sinks_stuck = false;
    circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, b"x-2-0-4.test:80\0");
    let heard = circuit.heard(&mut net);
    let of = |h: &Heard| match h {
        Heard::Message { cmd, stream: StreamId(5), data, .. } => (*cmd, data.len()),
        other => panic!("{other:?}"),
    };
    let commands: Vec<_> = heard.iter().map(of).collect();
    assert_eq!(commands, [(RelayCmd::CONNECTED, 0), (RelayCmd::DATA, 4), (RelayCmd::END, 1)]);
    // The old one's bytes are the driver's until it is done with them, and never the new one's.
    assert_eq!((net.count(1, |c| c.streams), net.count(1, |c| c.inbox_bytes)), (1, 13));
    net.assert_nothing_left();
}

#[test]
fn second_authentication_closes_the_link() {
    for bytes in [
        &[0, 0, 0, 0, 129, 0, 0][..],
        &[0, 0, 0, 0, 131, 0, 1, 5],
        // Too long to be held as well.
        &[0, 0, 0, 0, 129, 0xff, 0xff],
    ] {
        let (mut net, client) = small(18, 2);
        let other = net.client(0);
        let id = net.build(other, &[0, 1], &[]);
        net.build(client, &[0, 1], &[]);
        net.peers[client].out.extend(bytes);
        net.settle();
        assert!(net.peers[client].is_closed());
        net.exchange(other, id, Exchange::new(1, 1000, 1000));
        assert_eq!(net.count(0, |c| c.circuits), 1);
        net.assert_nothing_left();
    }
}

#[test]
fn unknown_cells_of_any_length_are_dropped() {
    let (mut net, client) = small(20, 1);
    let mut circuit = ByHand::create(&mut net, client);
    for len in [0, 1, 3000, 0x4000, 0x4001, 0xffff] {
        for command in [128, 132, 250] {
            let [high, low] = u16::to_be_bytes(len);
            net.peers[client].out.extend([0, 0, 0, 0, command, high, low]);
            net.peers[client].out.extend(vec![command; usize::from(len)]);
        }
        circuit.assert_silent(&mut net);
    }
    // Nothing of it is held: what has been taken of a long one is gone.
    let mut start = [vec![0, 0, 0, 0, 250, 0xff, 0xff], vec![0; 40_000]].concat();
    let len = start.len();
    assert_eq!(net.inject(client, &mut start), len);
    net.peers[client].out.extend(vec![0; 0xffff - 40_000]);
    circuit.assert_silent(&mut net);
    net.assert_nothing_left();
}

#[test]
fn extend2_fills_in_what_the_consensus_knows() {
    let mut net = Net::new(19, NetConfig::new(&[1, 1, 1]));
    let client = net.client(0);
    // By RSA identity only, and without an address that we can reach: both come from the consensus.
    let ipv6 = Some(std::net::SocketAddrV6::new("2001:db8::1".parse().unwrap(), 9001, 0, 0));
    let kind = onionring_proto::origin::HandshakeKind::Ntor;
    let specs = LinkSpecs { ed_id: None, ipv4: None, ipv6, ..target(1, kind).specs };
    let mut circuit = ByHand::create(&mut net, client);
    let handshake = circuit.ask_extend_by(&mut net, 1, specs);
    net.settle();
    circuit.finish_extend(&mut net, handshake);
    // The identity that the consensus names is demanded.
    let mut snapshot = net.snapshot(0);
    let known = KnownRelay { ed_id: Some([4; 32]), addresses: vec![address(2)] };
    snapshot.relays = std::sync::Arc::new([(keys(2).server.rsa_id, known)].into_iter().collect());
    net.set_snapshot(0, snapshot);
    let specs = LinkSpecs { ed_id: None, ..target(2, kind).specs };
    assert_eq!(extend_to(&mut net, client, specs), destroy(DestroyReason::ChannelClosed.to_wire()));
    let snapshot = net.snapshot(0);
    net.set_snapshot(0, snapshot);
    // A wrong Ed25519 identity leads to nobody, although a link to the RSA identity is open.
    let specs = LinkSpecs { ed_id: Some([3; 32]), ..target(1, kind).specs };
    assert_eq!(extend_to(&mut net, client, specs), destroy(DestroyReason::ChannelClosed.to_wire()));
    net.assert_nothing_left();
}
