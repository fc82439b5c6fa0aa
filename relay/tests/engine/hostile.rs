//! Peers that break rules on purpose, each in one way: what it costs them, and that it costs nobody else anything.

use onionring_proto::cell::{
    CircId, Command, DestroyReason, Framing, LinkVersion, write_variable, write_zero_filled,
};
use onionring_proto::crypto::tor1::SendmeTag;
use onionring_proto::origin::HandshakeKind;
use onionring_proto::relay_msg::{self, LinkSpecs, RelayCmd, StreamId};

use super::by_hand::{ByHand, Heard, body, create2, rogue_hop, small};
use super::keys::keys;
use super::net::{Net, NetConfig, address, target};
use super::sink::Exchange;

const PROTOCOL: u8 = 1;

fn specs(relay: usize) -> LinkSpecs {
    target(relay, HandshakeKind::Ntor).specs
}

fn told(net: &mut Net, peer: usize, id: CircId) -> Vec<(Command, u8)> {
    net.settle();
    let mine = |(circ, _, _): &mut (CircId, Command, _)| *circ == id;
    net.peers[peer].stray.extract_if(.., mine).map(|(_, command, body)| (command, body[0])).collect()
}

// Circuit ids.

#[test]
fn relays_create_circuits_in_their_own_half_only() {
    for version in LinkVersion::ALL {
        let mut config = NetConfig::new(&[1]);
        config.versions = vec![vec![version]];
        let mut net = Net::new(1, config);
        let create = create2(&mut net, 0);
        // One that came to us, and one that we went to.
        let came = net.connect(0, Some(7));
        let client = net.client(0);
        let mut circuit = ByHand::create(&mut net, client);
        let dialed = rogue_hop(&mut net, &mut circuit, 8);
        for peer in [came, dialed] {
            let right = net.peers[peer].free_circ_id(&mut net.rng);
            let wrong = CircId(right.0 ^ 1 << (8 * version.circ_id_len() - 1));
            for (id, answer) in [(wrong, (Command::DESTROY, PROTOCOL)), (right, (Command::CREATED2, 0))] {
                net.peers[peer].send(id, Command::CREATE2, &create);
                assert_eq!(told(&mut net, peer, id), [answer], "{version}");
            }
        }
        net.assert_nothing_left();
    }
}

// SENDME.

/// What is sent as a SENDME where this tag would be right.
type Answer<'a> = &'a dyn Fn(&SendmeTag) -> Vec<u8>;

/// A circuit that the relay takes for one from relay number 1, on which it has sent 100 DATA cells; and the tag that
/// the SENDME for them must have.
fn with_data_sent(net: &mut Net, peer: usize, extend: bool) -> (ByHand, SendmeTag) {
    let mut circuit = ByHand::create(net, peer);
    if extend {
        circuit.extend(net, 1);
    }
    let hop = circuit.onion.hops() - 1;
    circuit.say(net, hop, RelayCmd::BEGIN, 5, b"x-1-0-60000.test:80\0");
    net.settle();
    let (mut tag, mut data) = (None, 0);
    for (_, command, mut body) in std::mem::take(&mut net.peers[peer].stray) {
        assert_eq!(command, Command::RELAY);
        let (_, of_cell) = circuit.onion.decrypt_inbound(&mut body).expect("from the exit");
        data += usize::from(relay_msg::decode(&body).unwrap().cmd == RelayCmd::DATA);
        if data == 100 {
            tag = tag.or(Some(of_cell));
        }
    }
    (circuit, tag.expect("more than 100 cells"))
}

#[test]
fn sendmes_of_circuits_must_prove_that_the_data_was_read() {
    // By whether a tag is demanded, and the kind of handshake: those with CREATE_FAST have no need of one.
    for (accept_v0, extend) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut config = NetConfig::new(&[1, 1]);
        config.params.accept_sendme_v0 = accept_v0;
        let mut net = Net::new(2, config);
        let peer = if extend { net.client(0) } else { net.connect(0, Some(1)) };
        net.settle();
        let right = |tag: &SendmeTag| {
            let mut data = Vec::new();
            relay_msg::Sendme::V1 { tag: *tag }.write(&mut data);
            data
        };
        let wrong = |tag: &SendmeTag| {
            let mut data = right(tag);
            data[3] ^= 1;
            data
        };
        let short = |tag: &SendmeTag| {
            let mut data = right(tag)[..19].to_vec();
            data[2] = 16;
            data
        };
        let cases: [(Answer<'_>, bool); 4] =
            [(&right, true), (&wrong, false), (&short, false), (&|_| Vec::new(), accept_v0 || !extend)];
        for (at, (data, accepted)) in cases.into_iter().enumerate() {
            let (mut circuit, tag) = with_data_sent(&mut net, peer, extend);
            let hop = circuit.onion.hops() - 1;
            circuit.say(&mut net, hop, RelayCmd::SENDME, 0, &data(&tag));
            if accepted {
                circuit.assert_silent(&mut net);
                // Nothing more is owed.
                circuit.say(&mut net, hop, RelayCmd::SENDME, 0, &right(&tag));
            }
            let reason = if extend { DestroyReason::Destroyed.to_wire() } else { PROTOCOL };
            let heard = circuit.heard(&mut net);
            assert_eq!(heard.last(), Some(&Heard::Cell(Command::DESTROY, reason)), "case {at}");
        }
        net.assert_nothing_left();
    }
}

#[test]
fn sendmes_of_streams_acknowledge_no_more_than_was_sent() {
    let (mut net, client) = small(3, 2);
    // Nothing was sent; and 121 cells, for which two are due.
    for (begin, due) in [("x-1-9-0.test:80\0", 0), ("x-1-9-60000.test:80\0", 2)] {
        let mut circuit = ByHand::create(&mut net, client);
        circuit.extend(&mut net, 1);
        circuit.say(&mut net, 1, RelayCmd::BEGIN, 5, begin.as_bytes());
        circuit.heard(&mut net);
        for _ in 0..due {
            circuit.say(&mut net, 1, RelayCmd::SENDME, 5, b"");
            assert_eq!(circuit.heard(&mut net), []);
        }
        circuit.say(&mut net, 1, RelayCmd::SENDME, 5, b"");
        circuit.assert_destroyed(&mut net, DestroyReason::Destroyed.to_wire());
        assert_eq!(net.count(1, |c| c.circuits_closed["sendme_unexpected"] as usize), 1 + due / 2);
    }
    net.assert_nothing_left();
}

#[test]
fn a_lookup_carries_no_data() {
    let (mut net, client) = small(4, 2);
    net.sinks_stuck = true;
    let mut circuit = ByHand::create(&mut net, client);
    circuit.extend(&mut net, 1);
    circuit.say(&mut net, 1, RelayCmd::RESOLVE, 5, b"some.test\0");
    circuit.say(&mut net, 1, RelayCmd::DATA, 5, b"for nobody");
    assert_eq!(circuit.heard(&mut net), []);
    assert_eq!((net.count(1, |c| c.streams), net.count(1, |c| c.inbox_bytes)), (1, 0));
    assert_eq!(net.count(1, |c| c.cells_ignored["data_on_closed_stream"] as usize), 1);
    circuit.say(&mut net, 1, RelayCmd::SENDME, 5, b"");
    circuit.assert_destroyed(&mut net, DestroyReason::Destroyed.to_wire());
    net.assert_nothing_left();
}

// Circuits that end or are cut while they grow.

#[test]
fn a_circuit_may_end_while_it_is_being_extended() {
    let (mut net, client) = small(5, 2);
    // While the link is looked for: nobody hears of it.
    net.relays[0].dials_hang = true;
    let mut circuit = ByHand::create(&mut net, client);
    circuit.ask_extend(&mut net, 1);
    net.settle();
    net.peers[client].send(circuit.id, Command::DESTROY, &body(&[0]));
    net.settle();
    net.relays[0].dials_hang = false;
    net.settle();
    assert_eq!(net.count(0, |c| c.circuits), 0);
    assert_eq!(net.count(1, |c| c.links) + net.count(1, |c| c.received(Command::CREATE2) as usize), 1);
    // While the next hop has not answered: it is told.
    let mut circuit = ByHand::create(&mut net, client);
    let rogue = rogue_hop(&mut net, &mut circuit, 7);
    let (id, _, _) = net.peers[rogue].stray.pop().unwrap();
    net.peers[client].send(circuit.id, Command::DESTROY, &body(&[0]));
    assert_eq!(told(&mut net, rogue, id), [(Command::DESTROY, DestroyReason::Destroyed.to_wire())]);
    net.peers[rogue].send(id, Command::CREATED2, &body(&[0, 1, 9]));
    assert_eq!(circuit.heard(&mut net), []);
    net.assert_nothing_left();
}

#[test]
fn what_comes_late_from_behind_a_cut_is_ignored() {
    let (mut net, client) = small(6, 2);
    let mut circuit = ByHand::create(&mut net, client);
    let rogue = rogue_hop(&mut net, &mut circuit, 7);
    let (id, _, _) = net.peers[rogue].stray.pop().unwrap();
    net.peers[rogue].send(id, Command::CREATED2, &body(&[0, 1, 9]));
    assert_eq!(circuit.heard(&mut net).len(), 1);
    circuit.say(&mut net, 0, RelayCmd::TRUNCATE, 0, &[9]);
    assert!(matches!(circuit.heard(&mut net)[..], [Heard::Message { cmd: RelayCmd::TRUNCATED, .. }]));
    assert_eq!(told(&mut net, rogue, id), [(Command::DESTROY, 9)]);
    for command in [Command::RELAY, Command::CREATED2, Command::DESTROY] {
        net.peers[rogue].send(id, command, &body(&[0, 1, 9]));
        assert_eq!(circuit.heard(&mut net), [], "{command}");
    }
    circuit.extend(&mut net, 1);
    circuit.assert_silent(&mut net);
    net.assert_nothing_left();
}

#[test]
fn a_circuit_that_is_cut_before_the_next_hop_answers_can_go_there_again() {
    let (mut net, client) = small(7, 1);
    let mut circuit = ByHand::create(&mut net, client);
    let rogue = rogue_hop(&mut net, &mut circuit, 7);
    let (old, _, _) = net.peers[rogue].stray.pop().unwrap();
    circuit.say(&mut net, 0, RelayCmd::TRUNCATE, 0, &[0]);
    assert!(matches!(circuit.heard(&mut net)[..], [Heard::Message { cmd: RelayCmd::TRUNCATED, .. }]));
    assert_eq!(told(&mut net, rogue, old), [(Command::DESTROY, 0)]);
    assert_eq!(rogue_hop(&mut net, &mut circuit, 7), rogue);
    let (new, _, _) = net.peers[rogue].stray.pop().unwrap();
    assert_ne!(old, new);
    // The answer to the first is not taken for one to the second.
    net.peers[rogue].send(old, Command::CREATED2, &body(&[0, 1, 8]));
    assert_eq!(circuit.heard(&mut net), []);
    net.peers[rogue].send(new, Command::CREATED2, &body(&[0, 1, 9]));
    let extended =
        Heard::Message { hop: 0, cmd: RelayCmd::EXTENDED2, stream: StreamId::CIRCUIT, data: vec![0, 1, 9] };
    assert_eq!(circuit.heard(&mut net), [extended]);
    net.assert_nothing_left();
}

#[test]
fn private_addresses_are_refused_in_ipv6_too() {
    let (mut net, client) = small(8, 2);
    let mut snapshot = net.snapshot(0);
    snapshot.params.extend_to_private = false;
    snapshot.params.extend_to_ipv6 = true;
    snapshot.relays = Default::default();
    net.set_snapshot(0, snapshot);
    for (ip, allowed) in [
        ("fd00::1", false),
        ("fc00::1", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
        ("::1", false),
        ("::", false),
        ("::ffff:10.0.0.1", false),
        ("::ffff:8.8.8.8", false),
        ("2001:db8::1", true),
    ] {
        let ipv6 = Some(std::net::SocketAddrV6::new(ip.parse().unwrap(), 9001, 0, 0));
        let mut circuit = ByHand::create(&mut net, client);
        circuit.ask_extend_by(&mut net, 1, LinkSpecs { ipv4: None, ipv6, ..specs(1) });
        // Nobody is there, but one may ask.
        let reason = if allowed { DestroyReason::ChannelClosed.to_wire() } else { PROTOCOL };
        assert_eq!(circuit.heard(&mut net), [Heard::Cell(Command::DESTROY, reason)], "{ip}");
    }
    net.assert_nothing_left();
}

#[test]
fn extend2_outside_relay_early_is_obeyed_if_the_consensus_says_so() {
    let mut config = NetConfig::new(&[1, 1]);
    config.params.allow_nonearly_extend = true;
    let mut net = Net::new(9, config);
    let client = net.client(0);
    let mut circuit = ByHand::create(&mut net, client);
    let (handshake, hdata) = onionring_proto::handshake::ntor::Client::start(
        &mut net.rng,
        &keys(1).server.rsa_id,
        keys(1).onion_key().public(),
    );
    let mut data = Vec::new();
    relay_msg::Extend2 { specs: specs(1), htype: 2, hdata: &hdata }.write(&mut data);
    circuit.say(&mut net, 0, RelayCmd::EXTEND2, 0, &data);
    circuit.finish_extend(&mut net, handshake);
    net.assert_nothing_left();
}

// Links.

/// What is done to one side's part of a link handshake.
type Tamper = fn(&mut Vec<u8>);

/// How many links of a relay ended with this label.
fn closed(net: &mut Net, relay: usize, label: &'static str) -> usize {
    net.count(relay, |c| c.links_closed.get(label).copied().unwrap_or(0) as usize)
}

#[test]
fn whoever_answers_a_dial_must_be_who_was_asked_for() {
    // By another relay's address, another TLS certificate, and certificates that do not hold.
    for (case, label) in
        ["wrong_rsa_identity", "tls_cert_mismatch", "bad_rsa_identity"].into_iter().enumerate()
    {
        let (mut net, client) = small(10, 3);
        let bystander = net.client(0);
        let id = net.build(bystander, &[0, 2], &[]);
        let mut circuit = ByHand::create(&mut net, client);
        let std::net::SocketAddr::V4(of_another) = address(2) else { unreachable!() };
        match case {
            0 => drop(circuit.ask_extend_by(&mut net, 1, LinkSpecs { ipv4: Some(of_another), ..specs(1) })),
            1 => {
                net.tls_leaf = Some(b"somebody in between".to_vec());
                circuit.ask_extend(&mut net, 1);
            }
            _ => {
                net.rogues.insert(7, Vec::new());
                // The signature at the end of the first certificate, RSA's of itself, behind VERSIONS.
                net.tamper = Some(|out| {
                    let certs = 5 + 2 * LinkVersion::ALL.len();
                    if let Some(len) = out.get(certs + 9..certs + 11) {
                        let end = certs + 11 + usize::from(u16::from_be_bytes([len[0], len[1]]));
                        out[end - 1] ^= 1;
                    }
                });
                circuit.ask_extend(&mut net, 7);
            }
        }
        circuit.assert_destroyed(&mut net, DestroyReason::ChannelClosed.to_wire());
        assert_eq!(
            closed(&mut net, 0, label),
            1,
            "{label}: {:?}",
            net.relays[0].engines[0].counters().links_closed
        );
        net.exchange(bystander, id, Exchange::new(1, 3000, 3000));
        net.assert_nothing_left();
    }
}

#[test]
fn hostile_link_handshakes_are_closed_and_counted() {
    fn variable(framing: Framing, command: Command, body: &[u8], out: &mut Vec<u8>) {
        write_variable(framing, CircId::LINK, command, body, out);
    }
    const OPEN: Framing = Framing::Negotiated(LinkVersion::V4);
    const V4: &[u8] = &[0, 4];
    let initial: [(Tamper, &str); 11] = [
        (|out| *out = vec![0, 0, 3, 0, 0], "cell_before_versions"),
        (|out| *out = b"GET / HTTP/1.1\r\n\r\n".to_vec(), "cell_before_versions"),
        (|out| *out = vec![0, 0, 7, 0, 2, 0, 9], "no_common_version"),
        (|out| *out = vec![0, 0, 7, 0, 1, 4], "malformed_cell"),
        (|out| *out = vec![0, 1, 7, 0, 2, 0, 4], "nonzero_circ_id"),
        (|out| *out = vec![0, 0, 7, 0xff, 0xff], "cell_too_long"),
        (
            |out| {
                out.clear();
                for _ in 0..5 {
                    variable(Framing::Initial, Command::VPADDING, &[0; 16_000], out);
                }
            },
            "handshake_too_long",
        ),
        (
            |out| {
                out.clear();
                variable(Framing::Initial, Command::VERSIONS, V4, out);
                variable(OPEN, Command::VERSIONS, V4, out);
            },
            "repeated_cell",
        ),
        (
            |out| {
                out.clear();
                variable(Framing::Initial, Command::VERSIONS, V4, out);
                write_zero_filled(LinkVersion::V4, CircId::LINK, Command::PADDING, &[], out);
            },
            "unexpected_cell",
        ),
        (
            |out| {
                out.clear();
                variable(Framing::Initial, Command::VERSIONS, V4, out);
                variable(OPEN, Command::CERTS, &[1], out);
            },
            "malformed_cell",
        ),
        (
            |out| {
                out.clear();
                variable(Framing::Initial, Command::VERSIONS, V4, out);
                variable(OPEN, Command::CERTS, &[0], out);
            },
            "missing_cert",
        ),
    ];
    let (mut net, client) = small(11, 2);
    let id = net.build(client, &[0, 1], &[]);
    for (at, (tamper, label)) in initial.into_iter().enumerate() {
        let before = closed(&mut net, 0, label);
        let peer = net.connect(0, Some(7));
        net.peers[peer].tamper = Some(tamper);
        net.settle();
        let counters = net.relays[0].engines[0].counters();
        let seen = counters.links_closed.get(label).copied().unwrap_or(0) as usize;
        assert_eq!(seen, before + 1, "case {at}, {label}: {:?}", counters.links_closed);
        assert!(net.peers[peer].is_closed());
    }
    // A change in any part of what a relay sends to authenticate itself leaves it without a link.
    for part in [100, 500, 900, 1100] {
        let peer = net.connect(0, Some(7));
        net.peers[peer].tamper = Some(match part {
            100 => |out| flip(out, 100),
            500 => |out| flip(out, 500),
            900 => |out| flip(out, 900),
            _ => |out| flip(out, 1100),
        });
        net.settle();
        assert!(net.peers[peer].is_closed(), "{part}");
    }
    net.exchange(client, id, Exchange::new(1, 3000, 3000));
    assert_eq!(net.count(0, |c| c.links), 2);
    net.assert_nothing_left();
}

fn flip(out: &mut [u8], at: usize) {
    if let Some(byte) = out.get_mut(at) {
        *byte ^= 1;
    }
}
