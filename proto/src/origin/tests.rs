use proptest::prelude::*;

use super::*;
use crate::flow::{CIRCUIT_WINDOW, FlowError, STREAM_WINDOW, StreamSend};
use crate::limits::ORIGIN_STREAM_BUFFER;
use crate::relay_msg::{
    Begin, BeginFlags, Connected, ConnectedError, Host, MAX_DATA_LEN, Resolve, Resolved, ResolvedError,
    ResolvedValue, Sendme, SendmeError,
};
use crate::stream::StreamError;

mod halves;
mod sim;

use sim::Net;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn circuits_are_built_with_every_handshake() {
    let mut net = Net::new(OriginConfig::default());
    let target = net.relays[0].target(HandshakeKind::NtorV3);
    net.client.create(net.now, &mut net.rng, FirstHop::Relay(&target)).unwrap();
    assert_eq!(net.client.create(net.now, &mut net.rng, FirstHop::Fast), Err(OriginError::Created));
    assert_eq!(net.client.extend(net.now, &mut net.rng, &target), Err(OriginError::Busy));
    net.now = net.now + Duration::from_millis(80);
    net.run();
    assert_eq!(net.events(), [Event::Extended { hops: 1, took: Duration::from_millis(80) }]);
    net.extend(1, HandshakeKind::Ntor);
    net.extend(2, HandshakeKind::NtorV3);
    assert_eq!(net.events().len(), 2);
    assert_eq!(net.sent, [Command::CREATE2, Command::RELAY_EARLY, Command::RELAY_EARLY]);
    assert_eq!(Net::built(3, OriginConfig::default()).sent[0], Command::CREATE_FAST);
}

#[test]
fn ntor_v3_needs_an_ed25519_identity() {
    let mut net = Net::built(1, OriginConfig::default());
    let mut target = net.relays[1].target(HandshakeKind::NtorV3);
    target.specs.ed_id = None;
    assert_eq!(net.client.extend(net.now, &mut net.rng, &target), Err(OriginError::NoEdId));
    net.extend(1, HandshakeKind::Ntor);
}

#[test]
fn extensions_end_with_the_relay_early_cells() {
    let mut net = Net::built(9, OriginConfig::default());
    let target = net.relays[9].target(HandshakeKind::Ntor);
    assert_eq!(net.client.extend(net.now, &mut net.rng, &target), Err(OriginError::EarlySpent));
    assert!(!net.client.is_closed());
}

#[test]
fn early_data_hides_the_extensions() {
    let mut net = Net::built(3, OriginConfig { early_data: true, ..OriginConfig::default() });
    let (near, far) = (net.connect(0), net.connect(2));
    for _ in 0..10 {
        net.client.write_stream(near, b"x");
        net.client.write_stream(far, b"x");
        net.run();
    }
    let early = net.sent.iter().filter(|&&command| command == Command::RELAY_EARLY).count();
    assert!((7..=8).contains(&early), "{early} RELAY_EARLY cells");
    let near_early = net.heard.iter().any(|h| h.hop == 0 && h.command == Command::RELAY_EARLY);
    assert!(!near_early, "the first hop is no secret");
}

#[test]
fn a_failed_handshake_closes_the_circuit() {
    let mut net = Net::built(1, OriginConfig::default());
    let mut target = net.relays[1].target(HandshakeKind::Ntor);
    target.onion_key = *net.relays[2].keys.current().public();
    net.client.extend(net.now, &mut net.rng, &target).unwrap();
    let (_, _) = net.client.poll_transmit(&mut net.rng).unwrap();
    let mut reply = Vec::new();
    Extended2 { hdata: &[7; 64] }.write(&mut reply);
    net.say(0, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &reply);
    assert!(matches!(net.closed(), Some(CloseReason::Handshake { hop: 1, .. })));
    assert_eq!(net.client.poll_transmit(&mut net.rng).unwrap().0, Command::DESTROY);
    assert_eq!(net.client.extend(net.now, &mut net.rng, &target), Err(OriginError::Closed));
}

#[test]
fn the_reply_must_fit_the_cell_that_was_sent() {
    for (first_is_fast, reply) in [(true, Command::CREATED2), (false, Command::CREATED_FAST)] {
        let mut net = Net::new(OriginConfig::default());
        let target = net.relays[0].target(HandshakeKind::Ntor);
        let first = if first_is_fast { FirstHop::Fast } else { FirstHop::Relay(&target) };
        net.client.create(net.now, &mut net.rng, first).unwrap();
        net.client.handle_cell(net.now, reply, &mut [0; BODY_LEN]);
        assert_eq!(net.violation(), Some(Violation::Cell(reply)));
        assert!(net.client.poll_transmit(&mut net.rng).is_none(), "nobody knows of the circuit yet");
    }
    let mut net = Net::built(1, OriginConfig::default());
    net.client.handle_cell(net.now, Command::CREATED_FAST, &mut [0; BODY_LEN]);
    assert_eq!(net.violation(), Some(Violation::Cell(Command::CREATED_FAST)));
}

#[test]
fn handshakes_time_out() {
    let mut net = Net::built(1, OriginConfig { hop_timeout: Duration::from_secs(5), ..Default::default() });
    assert_eq!(net.client.poll_timeout(), None);
    let target = net.relays[1].target(HandshakeKind::Ntor);
    net.client.extend(net.now, &mut net.rng, &target).unwrap();
    let deadline = net.client.poll_timeout().unwrap();
    assert_eq!(deadline, net.now + Duration::from_secs(5));
    net.client.handle_timeout(net.now + Duration::from_secs(4));
    assert!(!net.client.is_closed());
    net.client.handle_timeout(deadline);
    assert_eq!(net.closed(), Some(CloseReason::Timeout { hop: 1 }));
}

#[test]
fn streams_are_opened_on_any_hop() {
    let mut net = Net::built(3, OriginConfig::default());
    let begin = Begin { host: Host::Name("example.com"), port: 80, flags: BeginFlags::IPV6_OK };
    let exit = net.client.begin(&mut net.rng, 2, &begin).unwrap();
    let directory = net.client.begin_dir(&mut net.rng, 0).unwrap();
    assert_eq!(net.client.begin_dir(&mut net.rng, 3), Err(OriginError::NoSuchHop(3)));
    net.run();
    let [first, second] = &net.heard[..] else { panic!("{:?}", net.heard) };
    assert_eq!((first.hop, first.cmd, first.stream), (2, RelayCmd::BEGIN, exit.id));
    assert_eq!(Begin::parse(&first.data), Ok(begin));
    assert_eq!((second.hop, second.cmd, second.data.len()), (0, RelayCmd::BEGIN_DIR, 0));

    let mut answer = Vec::new();
    let connected = Connected { addr: Some(([192, 0, 2, 1].into(), 60)) };
    connected.write(&mut answer);
    net.say(2, RelayCmd::CONNECTED, exit.id, &answer);
    net.say(0, RelayCmd::END, directory.id, &[14]);
    let end = End::from(EndReason::NotDirectory);
    assert_eq!(
        net.events(),
        [Event::Connected { stream: exit, connected }, Event::Ended { stream: directory, end }]
    );
    assert_eq!(net.client.streams(), 1);
}

#[test]
fn lookups_are_answered_once() {
    let mut net = Net::built(2, OriginConfig::default());
    let stream = net.client.resolve(&mut net.rng, 1, &Resolve::Name("example.com")).unwrap();
    assert_eq!(net.client.write_stream(stream, b"no"), 0);
    net.run();
    assert_eq!(net.heard[0].data, b"example.com\0");
    let resolved = Resolved { answers: vec![(ResolvedValue::Addr([192, 0, 2, 1].into()), 60)] };
    let mut answer = Vec::new();
    resolved.write(&mut answer);
    net.say(1, RelayCmd::RESOLVED, stream.id, &answer);
    assert_eq!(net.events(), [Event::Resolved { stream, resolved }]);
    net.say(1, RelayCmd::RESOLVED, stream.id, &answer);
    assert!(net.violation().is_some());
}

#[test]
fn bulk_data_flows_both_ways_on_several_hops() {
    let mut net = Net::built(3, OriginConfig::default());
    let streams = [net.connect(0), net.connect(2), net.connect(2)];
    let data = pattern(700_000);

    // Outbound: more than the windows, so every SENDME must be right.
    let mut written = [0; 3];
    while written.iter().any(|&n| n < data.len()) {
        for (n, &stream) in streams.iter().enumerate() {
            written[n] += net.client.write_stream(stream, &data[written[n]..]);
        }
        net.run();
    }
    for stream in streams {
        assert_eq!(net.client.unsent(stream), 0);
        assert!(net.heard_data(stream).1 == data, "stream {stream:?}");
    }

    // Inbound: relays stop at their windows until the client acknowledges.
    let mut sent = [0; 3];
    let mut received = [const { Vec::new() }; 3];
    let mut windows = [0; 3].map(|_| StreamSend::default());
    let mut credited = 0;
    while received.iter().any(|r| r.len() < data.len()) {
        for (n, &stream) in streams.iter().enumerate() {
            let hop = stream.hop;
            while sent[n] < data.len()
                && windows[n].can_send()
                && net.relays[hop].hop.as_ref().unwrap().send.can_send()
            {
                let end = (sent[n] + MAX_DATA_LEN).min(data.len());
                net.say(hop, RelayCmd::DATA, stream.id, &data[sent[n]..end]);
                windows[n].sent();
                sent[n] = end;
            }
            let mut buf = [0; 10_000];
            while let len @ 1.. = net.client.read_stream(stream, &mut buf) {
                received[n].extend_from_slice(&buf[..len]);
            }
        }
        net.run();
        for heard in &net.heard[credited..] {
            let key = StreamKey { hop: heard.hop, id: heard.stream };
            if let (RelayCmd::SENDME, Some(n)) = (heard.cmd, streams.iter().position(|&s| s == key)) {
                windows[n].on_sendme().unwrap();
            }
        }
        credited = net.heard.len();
    }
    assert!(received.iter().all(|r| *r == data));
    assert_eq!(net.closed(), None);
}

#[test]
fn without_sendmes_data_stops_at_the_windows() {
    let mut net = Net::built(3, OriginConfig::default());
    net.acknowledge = false;
    let streams = [net.connect(2), net.connect(2), net.connect(2)];
    let data = pattern(ORIGIN_STREAM_BUFFER);
    let fill = |net: &mut Net, stream| {
        for _ in 0..20 {
            net.client.write_stream(stream, &data);
            net.run();
        }
    };
    fill(&mut net, streams[0]);
    assert_eq!(net.heard_data(streams[0]).0, usize::from(STREAM_WINDOW));
    for stream in streams {
        fill(&mut net, stream);
    }
    assert_eq!(net.heard_cmds(RelayCmd::DATA), usize::from(CIRCUIT_WINDOW));
    assert_eq!(net.client.write_stream(streams[0], b"more"), 0, "the buffer is full");
    assert_eq!(net.client.unsent(streams[0]), ORIGIN_STREAM_BUFFER);
    let other_hop = net.connect(1);
    fill(&mut net, other_hop);
    assert_eq!(net.heard_data(other_hop).0, usize::from(STREAM_WINDOW), "windows are per hop");
}

#[test]
fn writers_hear_of_room_once() {
    let mut net = Net::built(1, OriginConfig::default());
    let stream = net.connect(0);
    assert_eq!(net.client.write_stream(stream, &pattern(1000)), 1000);
    net.run();
    assert_eq!(net.events(), [], "all of it fitted");
    assert_eq!(net.client.write_stream(stream, &pattern(100_000)), ORIGIN_STREAM_BUFFER);
    net.run();
    assert_eq!(net.events(), [Event::Writable(stream)]);
}

#[test]
fn data_may_go_before_the_answer() {
    let mut net = Net::built(2, OriginConfig::default());
    let stream = net.client.begin_dir(&mut net.rng, 1).unwrap();
    net.client.write_stream(stream, b"GET /");
    net.run();
    let cmds: Vec<_> = net.heard.iter().map(|heard| heard.cmd).collect();
    assert_eq!(cmds, [RelayCmd::BEGIN_DIR, RelayCmd::DATA]);
}

#[test]
fn a_reader_that_waits_holds_the_relay_back() {
    let mut net = Net::built(2, OriginConfig::default());
    let stream = net.connect(1);
    for _ in 0..STREAM_WINDOW {
        net.say(1, RelayCmd::DATA, stream.id, &[1; MAX_DATA_LEN]);
        net.run();
    }
    assert_eq!(net.events(), [Event::Readable(stream)]);
    let sendmes = |net: &Net, stream| {
        net.heard.iter().filter(|h| h.cmd == RelayCmd::SENDME && h.stream == stream).count()
    };
    assert_eq!(sendmes(&net, StreamId::CIRCUIT), 5, "the circuit is acknowledged at once");
    assert_eq!(sendmes(&net, stream.id), 0, "the stream is not");

    let waiting = usize::from(STREAM_WINDOW) * MAX_DATA_LEN;
    net.client.consume(stream, waiting - 10 * MAX_DATA_LEN);
    net.run();
    assert_eq!(sendmes(&net, stream.id), 0, "ten cells wait");
    assert_eq!(net.client.readable(stream)[0], 1);
    net.client.consume(stream, MAX_DATA_LEN);
    net.run();
    assert_eq!(sendmes(&net, stream.id), 10);
    net.client.consume(stream, usize::MAX);
    net.say(1, RelayCmd::DATA, stream.id, b"x");
    assert_eq!(net.events(), [Event::Readable(stream)], "readable anew");
}

#[test]
fn data_before_the_end_can_be_read_after_it() {
    let mut net = Net::built(2, OriginConfig::default());
    let stream = net.connect(1);
    net.say(1, RelayCmd::DATA, stream.id, b"last words");
    net.say(1, RelayCmd::END, stream.id, &[6]);
    assert_eq!(net.events(), [Event::Readable(stream)]);
    assert_eq!(net.client.write_stream(stream, b"too late"), 0);
    let mut buf = [0; 4];
    assert_eq!(net.client.read_stream(stream, &mut buf), 4);
    assert_eq!(net.events(), []);
    assert_eq!(net.client.readable(stream), b" words");
    net.client.consume(stream, 6);
    assert_eq!(net.events(), [Event::Ended { stream, end: EndReason::Done.into() }]);
    assert_eq!(net.client.streams(), 0);
    net.run();
    assert_eq!(net.heard_cmds(RelayCmd::END), 0, "END is not answered");
}

#[test]
fn what_was_in_flight_when_a_stream_was_closed_is_ignored() {
    let mut net = Net::built(2, OriginConfig::default());
    let stream = net.connect(1);
    net.client.write_stream(stream, b"dropped");
    net.client.close_stream(stream, EndReason::Done);
    net.client.close_stream(stream, EndReason::Done);
    net.run();
    assert_eq!((net.heard_cmds(RelayCmd::END), net.heard_cmds(RelayCmd::DATA)), (1, 0));
    for _ in 0..150 {
        net.say(1, RelayCmd::DATA, stream.id, b"late");
        net.run();
    }
    assert_eq!(net.heard_cmds(RelayCmd::SENDME), 1, "the circuit's window counts it all the same");
    net.say(1, RelayCmd::END, stream.id, &[6]);
    assert_eq!(net.events(), []);
    net.say(1, RelayCmd::END, stream.id, &[6]);
    let unexpected = Violation::StreamMessage { stream, cmd: RelayCmd::END };
    assert_eq!(net.violation(), Some(unexpected));
}

/// Each of these closes the circuit; the client tells the first hop, without a reason.
#[test]
fn hops_may_not_send_what_no_relay_sends() {
    type Case = (&'static str, fn(&mut Net, StreamKey), fn(StreamKey) -> Violation);
    fn unexpected(stream: StreamKey, cmd: RelayCmd) -> Violation {
        Violation::StreamMessage { stream, cmd }
    }
    let cases: [Case; 19] = [
        (
            "stream of another hop",
            |net, s| net.say(2, RelayCmd::DATA, s.id, b"x"),
            |s| unexpected(StreamKey { hop: 2, id: s.id }, RelayCmd::DATA),
        ),
        (
            "unknown stream",
            |net, s| net.say(1, RelayCmd::END, StreamId(s.id.0 ^ 1), &[6]),
            |s| unexpected(StreamKey { hop: 1, id: StreamId(s.id.0 ^ 1) }, RelayCmd::END),
        ),
        (
            "stream message without stream",
            |net, _| net.say(1, RelayCmd::DATA, StreamId::CIRCUIT, b"x"),
            |_| Violation::Message { hop: 1, cmd: RelayCmd::DATA },
        ),
        (
            "second CONNECTED",
            |net, s| net.say(1, RelayCmd::CONNECTED, s.id, &[]),
            |s| Violation::Stream(StreamError::UnexpectedConnected(s.id)),
        ),
        (
            "malformed CONNECTED",
            |net, s| net.say(1, RelayCmd::CONNECTED, s.id, &[1]),
            |_| Violation::Connected(ConnectedError(1)),
        ),
        (
            "RESOLVED on a stream",
            |net, s| net.say(1, RelayCmd::RESOLVED, s.id, &[]),
            |s| Violation::Stream(StreamError::UnexpectedResolved(s.id)),
        ),
        (
            "malformed RESOLVED",
            |net, s| net.say(1, RelayCmd::RESOLVED, s.id, &[4, 4]),
            |_| Violation::Resolved(ResolvedError::Truncated(2)),
        ),
        (
            "stream SENDME for nothing",
            |net, s| net.say(1, RelayCmd::SENDME, s.id, &[]),
            |s| Violation::Stream(StreamError::Flow(s.id, FlowError::UnexpectedStreamSendme)),
        ),
        (
            "circuit SENDME for nothing",
            |net, _| net.say_sendme(1, Sendme::V0),
            |_| Violation::Flow(FlowError::UnexpectedCircuitSendme),
        ),
        (
            "malformed SENDME",
            |net, _| net.say(1, RelayCmd::SENDME, StreamId::CIRCUIT, &[2]),
            |_| Violation::Sendme(SendmeError::Version(2)),
        ),
        (
            "BEGIN to a client",
            |net, s| net.say(1, RelayCmd::BEGIN, s.id, b"a:1\0"),
            |s| unexpected(s, RelayCmd::BEGIN),
        ),
        (
            "unknown command",
            |net, _| net.say(1, RelayCmd(99), StreamId::CIRCUIT, &[]),
            |_| Violation::Message { hop: 1, cmd: RelayCmd(99) },
        ),
        (
            "EXTENDED2 that nobody asked for",
            |net, _| net.say(2, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &[0, 0]),
            |_| Violation::Message { hop: 2, cmd: RelayCmd::EXTENDED2 },
        ),
        (
            "TRUNCATED with nothing behind it",
            |net, _| net.say(2, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[8]),
            |_| Violation::Message { hop: 2, cmd: RelayCmd::TRUNCATED },
        ),
        (
            "TRUNCATED without reason",
            |net, _| net.say(1, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[]),
            |_| Violation::Truncated(Truncated::parse(&[]).unwrap_err()),
        ),
        (
            "RELAY_EARLY to a client",
            |net, s| net.say_in(Command::RELAY_EARLY, 1, RelayCmd::DATA, s.id, b"x"),
            |_| Violation::Cell(Command::RELAY_EARLY),
        ),
        (
            "a cell of nobody",
            |net, _| net.client.handle_cell(net.now, Command::RELAY, &mut [9; BODY_LEN]),
            |_| Violation::Unrecognised,
        ),
        (
            "CREATE to a client",
            |net, _| net.client.handle_cell(net.now, Command::CREATE2, &mut [0; BODY_LEN]),
            |_| Violation::Cell(Command::CREATE2),
        ),
        (
            "stream window overrun",
            |net, s| (0..=STREAM_WINDOW).for_each(|_| net.say(1, RelayCmd::DATA, s.id, &[])),
            |s| Violation::Stream(StreamError::Flow(s.id, FlowError::StreamOverrun)),
        ),
    ];
    for (name, act, violation) in cases {
        let mut net = Net::built(3, OriginConfig::default());
        let stream = net.connect(1);
        act(&mut net, stream);
        assert_eq!(net.violation(), Some(violation(stream)), "{name}");
        assert_eq!(net.client.poll_transmit(&mut net.rng).unwrap().0, Command::DESTROY, "{name}");
        assert!(net.client.poll_transmit(&mut net.rng).is_none());
        assert_eq!(net.client.write_stream(stream, b"x"), 0);
    }
}

#[test]
fn data_before_connected_is_a_violation() {
    let mut net = Net::built(1, OriginConfig::default());
    let stream = net.client.begin_dir(&mut net.rng, 0).unwrap();
    net.run();
    net.say(0, RelayCmd::DATA, stream.id, b"x");
    assert_eq!(net.violation(), Some(Violation::StreamMessage { stream, cmd: RelayCmd::DATA }));
}

#[test]
fn drop_and_empty_data_are_harmless() {
    let mut net = Net::built(3, OriginConfig::default());
    let stream = net.connect(1);
    net.say(0, RelayCmd::DROP, StreamId::CIRCUIT, &[1; 100]);
    net.say(1, RelayCmd::DATA, stream.id, &[]);
    assert_eq!(net.events(), []);
}

#[test]
fn a_peer_that_outruns_unsent_sendmes_is_cut_off() {
    let mut net = Net::built(1, OriginConfig::default());
    let streams: Vec<_> = (0..3).map(|_| net.connect(0)).collect();
    // The client's link is stuck, so no SENDME goes out: at 1000 cells a correct relay stops.
    let mut cells = 0;
    'relay: for stream in &streams {
        for _ in 0..STREAM_WINDOW {
            net.say(0, RelayCmd::DATA, stream.id, b"x");
            if net.client.is_closed() {
                break 'relay;
            }
            cells += 1;
        }
    }
    assert_eq!(net.violation(), Some(Violation::Flow(FlowError::CircuitOverrun)));
    assert_eq!(cells, 1099, "a whole increment of grace");
}

#[test]
fn sendmes_are_authenticated() {
    let closed_by = |accept_v0_sendmes, hop, sendme| {
        let mut net = Net::built(2, OriginConfig { accept_v0_sendmes, ..OriginConfig::default() });
        net.acknowledge = false;
        let stream = net.connect(hop);
        net.client.write_stream(stream, &pattern(60_000));
        net.run();
        assert!(net.heard_data(stream).0 > 100);
        net.say_sendme(hop, sendme);
        net.violation()
    };
    let wrong = Sendme::V1 { tag: SendmeTag([3; 20]) };
    assert_eq!(closed_by(true, 1, wrong), Some(Violation::Flow(FlowError::WrongTag)));
    assert_eq!(closed_by(true, 1, Sendme::V0), None);
    assert_eq!(closed_by(false, 1, Sendme::V0), Some(Violation::Flow(FlowError::NoTag)));
    assert_eq!(closed_by(false, 0, Sendme::V0), None, "a hop made with CREATE_FAST");
}

#[test]
fn destroy_is_not_answered() {
    let mut net = Net::built(3, OriginConfig::default());
    let stream = net.connect(2);
    net.say(2, RelayCmd::DATA, stream.id, b"kept");
    net.events();
    let mut body = [0; BODY_LEN];
    body[0] = 11;
    net.client.handle_cell(net.now, Command::DESTROY, &mut body);
    assert_eq!(net.events(), [Event::Closed(CloseReason::Destroyed(DestroyReason::Destroyed))]);
    assert!(net.client.poll_transmit(&mut net.rng).is_none());
    assert_eq!(net.client.readable(stream), b"kept");
    assert_eq!(net.client.begin_dir(&mut net.rng, 0), Err(OriginError::Closed));
    net.client.handle_cell(net.now, Command::RELAY, &mut [0; BODY_LEN]);
    assert_eq!(net.events(), []);
}

#[test]
fn closing_drops_what_waits_and_sends_destroy() {
    let mut net = Net::built(2, OriginConfig::default());
    let stream = net.connect(1);
    net.client.write_stream(stream, b"x");
    net.client.close();
    net.client.close();
    let last: Vec<_> = std::iter::from_fn(|| net.client.poll_transmit(&mut net.rng)).collect();
    assert_eq!(last.iter().map(|(command, _)| *command).collect::<Vec<_>>(), [Command::DESTROY]);
    assert_eq!(net.events(), []);
}

#[test]
fn a_circuit_is_cut_and_extended_elsewhere() {
    let mut net = Net::built(3, OriginConfig::default());
    let (near, far) = (net.connect(0), net.connect(2));
    assert_eq!(net.client.truncate(3), Err(OriginError::NoSuchHop(3)));
    net.client.truncate(0).unwrap();
    assert_eq!(net.client.begin_dir(&mut net.rng, 2), Err(OriginError::NoSuchHop(2)));
    net.client.write_stream(far, b"into the void");
    net.run();
    let end = End::from(EndReason::Destroy);
    assert_eq!(
        net.events(),
        [Event::Ended { stream: far, end }, Event::Truncated { hops: 1, reason: DestroyReason::Requested }]
    );
    assert_eq!(net.heard_data(far).0, 0);
    net.extend(5, HandshakeKind::NtorV3);
    // The chain of this test is by position: the new second hop must stand second.
    net.relays.swap(1, 5);
    assert_eq!(net.client.hops(), 2);
    net.events();
    let again = net.connect(1);
    for stream in [near, again] {
        net.client.write_stream(stream, b"hello");
        net.run();
        assert_eq!(net.heard_data(stream).1, b"hello");
    }
}

#[test]
fn a_lost_tail_closes_the_circuit_unless_it_may_survive() {
    let mut net = Net::built(3, OriginConfig::default());
    net.say(1, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[8]);
    let reason = DestroyReason::ChannelClosed;
    assert_eq!(net.closed(), Some(CloseReason::Truncated { hop: 1, reason }));

    let config = OriginConfig { survive_truncation: true, ..OriginConfig::default() };
    let mut net = Net::built(3, config);
    net.say(1, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[8]);
    assert_eq!(net.events(), [Event::Truncated { hops: 2, reason }]);
    net.relays[2].hop = None;
    net.extend(2, HandshakeKind::Ntor);
    assert_eq!(net.client.hops(), 3);

    let mut net = Net::built(2, config);
    let target = net.relays[2].target(HandshakeKind::Ntor);
    net.client.extend(net.now, &mut net.rng, &target).unwrap();
    net.client.poll_transmit(&mut net.rng).map(|(_, mut body)| {
        let tag = net.relays[0].hop.as_mut().unwrap().layer.decrypt_outbound(&mut body);
        assert!(tag.is_none());
        net.relays[1].hop.as_mut().unwrap().layer.decrypt_outbound(&mut body).unwrap()
    });
    net.say(1, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[6]);
    assert_eq!(
        net.events(),
        [Event::Truncated { hops: 2, reason: DestroyReason::ConnectFailed }],
        "the extension failed"
    );
    net.extend(3, HandshakeKind::Ntor);
}

proptest! {
    /// Whatever the hops say, properly encrypted, and whatever the client does meanwhile: no panic, bounded queues.
    #[test]
    fn any_messages_in_any_state(
        steps in prop::collection::vec((0u8..13, 0usize..3, 0u8..20, 0u16..4, prop::collection::vec(any::<u8>(), 0..30)), 1..60),
        survive_truncation: bool,
    ) {
        let mut net = halves::agreed(OriginConfig { survive_truncation, ..OriginConfig::default() });
        let mut streams = vec![net.connect(0), net.connect(1), halves::open(&mut net)];
        for (step, hop, cmd, n, data) in steps {
            let stream = streams[usize::from(n) % streams.len()];
            let id = if n == 3 { StreamId::CIRCUIT } else { stream.id };
            match step {
                0..=5 if net.relays[..=hop].iter().all(|relay| relay.hop.is_some()) => {
                    net.say(hop, RelayCmd(cmd), id, &data);
                }
                6 => drop(net.client.truncate(hop)),
                7 => net.client.close_stream(stream, EndReason::Misc),
                8 => streams.extend(net.client.begin_dir(&mut net.rng, hop)),
                9 => drop(net.client.write_stream(stream, &data)),
                10 => net.client.consume(stream, usize::from(cmd)),
                11 => net.client.finish_stream(stream),
                _ => while net.client.poll_transmit(&mut net.rng).is_some() {},
            }
            prop_assert!(net.client.ready.len() <= net.client.streams() + 64);
        }
    }

    /// Cells of garbage close the circuit, at any time.
    #[test]
    fn any_cells_in_any_state(hops in 0usize..3, command: u8, byte: u8) {
        let mut net = Net::new(OriginConfig::default());
        if hops > 0 {
            net = Net::built(hops, OriginConfig::default());
        } else {
            net.client.create(net.now, &mut net.rng, FirstHop::Fast).unwrap();
        }
        net.client.handle_cell(net.now, Command(command), &mut [byte; BODY_LEN]);
        prop_assert!(net.client.is_closed());
        prop_assert_eq!(net.events().len(), 1);
    }
}
