//! Streams whose directions end one by one.

use super::*;
use crate::handshake::Terms;

const ON: Terms = Terms { half_close: true };
const DONE: &[u8] = &[6];
const RESET: &[u8] = &[12];

/// A circuit of three hops, of which the last has agreed.
pub fn agreed(config: OriginConfig) -> Net {
    let mut net = Net::built(2, config);
    net.relays[2].offer = ON;
    let ask = HopTarget { ask: ON, ..net.relays[2].target(HandshakeKind::NtorV3) };
    net.client.extend(net.now, &mut net.rng, &ask).unwrap();
    net.run();
    net.events();
    net
}

fn net() -> Net {
    agreed(OriginConfig::default())
}

fn begin(net: &mut Net, hop: usize) -> StreamKey {
    let begin = Begin { host: Host::Name("a"), port: 1, flags: BeginFlags::default() };
    let stream = net.client.begin(&mut net.rng, hop, &begin).unwrap();
    net.run();
    stream
}

/// An open stream at the last hop.
pub fn open(net: &mut Net) -> StreamKey {
    let stream = begin(net, 2);
    net.say(2, RelayCmd::CONNECTED, stream.id, &[]);
    net.events();
    stream
}

fn ended(stream: StreamKey, reason: EndReason) -> [Event; 1] {
    [Event::Ended { stream, end: reason.into() }]
}

/// What the last hop heard for a stream, handshakes and BEGIN aside.
fn heard(net: &Net, stream: StreamKey) -> Vec<(RelayCmd, &[u8])> {
    let of_stream = net.heard.iter().filter(|heard| (heard.hop, heard.stream) == (stream.hop, stream.id));
    of_stream.skip(1).map(|heard| (heard.cmd, &heard.data[..])).collect()
}

#[test]
fn the_answer_comes_after_our_end() {
    let mut net = net();
    let stream = open(&mut net);
    assert!(net.client.has_halves(stream));
    net.client.write_stream(stream, b"request");
    net.client.finish_stream(stream);
    net.client.finish_stream(stream);
    assert_eq!(net.client.write_stream(stream, b"more"), 0);
    net.run();
    let request: [(_, &[u8]); 2] = [(RelayCmd::DATA, b"request"), (RelayCmd::END, DONE)];
    assert_eq!(heard(&net, stream), request);
    // More than a window: what comes is acknowledged as ever.
    for _ in 0..2 * STREAM_WINDOW {
        net.say(2, RelayCmd::DATA, stream.id, &[1; MAX_DATA_LEN]);
        net.client.consume(stream, usize::MAX);
        net.run();
    }
    net.events();
    net.say(2, RelayCmd::DATA, stream.id, b"answer");
    net.say(2, RelayCmd::END, stream.id, DONE);
    assert_eq!(net.events(), [Event::Readable(stream)]);
    assert_eq!(net.client.readable(stream), b"answer");
    net.client.consume(stream, 6);
    assert_eq!(net.events(), ended(stream, EndReason::Done));
    net.run();
    assert_eq!(net.heard_cmds(RelayCmd::END), 1);
    assert_eq!(net.client.streams(), 0);
}

#[test]
fn we_go_on_after_the_end_of_the_other_side() {
    let mut net = net();
    let stream = open(&mut net);
    for _ in 0..60 {
        net.say(2, RelayCmd::DATA, stream.id, b"answer");
    }
    net.say(2, RelayCmd::END, stream.id, DONE);
    assert_eq!(net.events(), [Event::Readable(stream)]);
    net.client.consume(stream, 6 * 60);
    assert_eq!(net.events(), [Event::Finished(stream)]);
    net.run();
    let sendmes = net.heard.iter().filter(|h| h.cmd == RelayCmd::SENDME && h.stream == stream.id);
    assert_eq!(sendmes.count(), 0, "nothing is left that they would let in");
    // More than a window, for which the relay's SENDMEs come.
    let data = pattern(usize::from(STREAM_WINDOW) * MAX_DATA_LEN * 2);
    let mut rest = &data[..];
    while !rest.is_empty() {
        let taken = net.client.write_stream(stream, rest);
        assert!(taken > 0);
        rest = &rest[taken..];
        net.run();
    }
    assert!(net.heard_data(stream).1 == data);
    net.events();
    net.client.finish_stream(stream);
    net.run();
    assert_eq!(net.events(), ended(stream, EndReason::Done));
    assert_eq!((net.heard_cmds(RelayCmd::END), net.client.streams()), (1, 0));
}

#[test]
fn what_crossed_the_second_end_is_tolerated() {
    let mut net = net();
    net.acknowledge = false;
    let stream = open(&mut net);
    net.client.write_stream(stream, &pattern(60 * MAX_DATA_LEN));
    net.client.finish_stream(stream);
    net.run();
    net.say(2, RelayCmd::END, stream.id, DONE);
    assert_eq!(net.events(), ended(stream, EndReason::Done));
    net.say(2, RelayCmd::SENDME, stream.id, &[]);
    net.say(2, RelayCmd::END, stream.id, RESET);
    assert_eq!(net.events(), []);
    net.say(2, RelayCmd::END, stream.id, RESET);
    assert_eq!(net.violation(), Some(Violation::StreamMessage { stream, cmd: RelayCmd::END }));
}

#[test]
fn any_other_reason_ends_both_directions() {
    let mut net = net();
    let reset = open(&mut net);
    net.say(2, RelayCmd::DATA, reset.id, b"x");
    net.say(2, RelayCmd::END, reset.id, DONE);
    net.say(2, RelayCmd::END, reset.id, RESET);
    net.events();
    assert_eq!(net.client.write_stream(reset, b"y"), 0);
    net.client.consume(reset, 1);
    assert_eq!(net.events(), ended(reset, EndReason::ConnReset));

    let ours = open(&mut net);
    net.say(2, RelayCmd::END, ours.id, DONE);
    assert_eq!(net.events(), [Event::Finished(ours)]);
    net.client.close_stream(ours, EndReason::Done);
    net.run();
    assert_eq!(heard(&net, ours), [(RelayCmd::END, &[1][..])], "MISC: DONE would only end our direction");
    assert_eq!(net.client.streams(), 0);
}

#[test]
fn a_stream_that_both_sides_have_finished_is_closed_without_a_word() {
    let mut net = net();
    let stream = open(&mut net);
    net.say(2, RelayCmd::DATA, stream.id, b"not read");
    net.say(2, RelayCmd::END, stream.id, DONE);
    net.client.finish_stream(stream);
    net.run();
    net.client.close_stream(stream, EndReason::Misc);
    net.run();
    assert_eq!(heard(&net, stream), [(RelayCmd::END, DONE)]);
    net.say(2, RelayCmd::END, stream.id, RESET);
    assert_eq!(net.closed(), None);
}

#[test]
fn the_end_waits_for_what_is_unsent_and_for_connected() {
    let mut net = net();
    net.acknowledge = false;
    let stream = begin(&mut net, 2);
    net.client.write_stream(stream, b"early");
    net.client.finish_stream(stream);
    net.run();
    assert_eq!(heard(&net, stream), [(RelayCmd::DATA, &b"early"[..])]);
    net.say(2, RelayCmd::CONNECTED, stream.id, &[]);
    net.run();
    assert_eq!(heard(&net, stream)[1..], [(RelayCmd::END, DONE)]);

    let full = open(&mut net);
    let window = usize::from(STREAM_WINDOW) * MAX_DATA_LEN;
    let mut rest = window + MAX_DATA_LEN;
    while rest > 0 {
        rest -= net.client.write_stream(full, &vec![1; rest]);
        net.run();
    }
    net.client.finish_stream(full);
    net.run();
    assert!(heard(&net, full).iter().all(|(cmd, _)| *cmd == RelayCmd::DATA), "the window is closed");
    assert!(net.client.is_finishing(full));
    net.say(2, RelayCmd::SENDME, full.id, &[]);
    net.run();
    assert!(!net.client.is_finishing(full));
    assert_eq!(heard(&net, full).last(), Some(&(RelayCmd::END, DONE)));
}

#[test]
fn an_end_before_connected_refuses() {
    let mut net = net();
    let stream = begin(&mut net, 2);
    net.client.finish_stream(stream);
    net.say(2, RelayCmd::END, stream.id, DONE);
    assert_eq!(net.events(), ended(stream, EndReason::Done));
    net.run();
    assert_eq!(heard(&net, stream), []);
}

#[test]
fn data_or_a_second_done_after_the_end_is_a_violation() {
    for (cmd, data) in [(RelayCmd::DATA, &b"x"[..]), (RelayCmd::END, DONE)] {
        let mut net = net();
        let stream = open(&mut net);
        net.say(2, RelayCmd::END, stream.id, DONE);
        net.say(2, cmd, stream.id, data);
        assert_eq!(net.violation(), Some(Violation::Stream(StreamError::Over(stream.id))));
    }
}

#[test]
fn without_an_agreement_end_ends_both_directions() {
    let (on, off) = (ON, Terms::default());
    for (kind, offer, ask) in
        [(HandshakeKind::NtorV3, off, on), (HandshakeKind::NtorV3, on, off), (HandshakeKind::Ntor, on, on)]
    {
        let mut net = Net::built(2, OriginConfig::default());
        net.relays[2].offer = offer;
        let target = HopTarget { ask, ..net.relays[2].target(kind) };
        net.client.extend(net.now, &mut net.rng, &target).unwrap();
        net.run();
        net.events();
        let stream = open(&mut net);
        assert!(!net.client.has_halves(stream));
        net.client.finish_stream(stream);
        net.client.write_stream(stream, b"as ever");
        net.run();
        assert_eq!(heard(&net, stream), [(RelayCmd::DATA, &b"as ever"[..])]);
        net.say(2, RelayCmd::END, stream.id, DONE);
        assert_eq!(net.events(), ended(stream, EndReason::Done));
    }
}

#[test]
fn directories_and_other_hops_have_no_halves() {
    let mut net = net();
    let directory = net.connect(2);
    let elsewhere = begin(&mut net, 1);
    for stream in [directory, elsewhere] {
        assert!(!net.client.has_halves(stream));
        net.say(stream.hop, RelayCmd::END, stream.id, DONE);
        assert_eq!(net.events(), ended(stream, EndReason::Done));
    }
}
